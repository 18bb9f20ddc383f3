//! The loop.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;

use crate::ring::{ByteStream, Chunk, Out, Ring, Socket, Splice, Spliced};
use crate::time::Mono;

/// How to relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayOptions {
    /// Both sides are closed when no byte moved for this long, milliseconds.
    pub idle_timeout_ms: u64,
    /// Both sides are closed then in any case: one of them is older than its certificates.
    pub over_at: Mono,
}

/// What a relay did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Bytes from the first side to the second.
    pub forth: u64,
    /// Bytes from the second side to the first.
    pub back: u64,
    /// Of both, bytes that were spliced: they never were in this process.
    pub spliced: u64,
    /// It ended because nothing moved.
    pub idle: bool,
    /// It ended because its time was over.
    pub over: bool,
    /// It ended because one side failed; both were reset.
    pub reset: bool,
}

enum End {
    Both,
    Failed,
    Idle,
    Over,
}

/// Carries bytes between `a` and `b` until both directions have ended. `to_b` and `to_a` were
/// received before and go first.
pub async fn relay<A: ByteStream, B: ByteStream>(
    ring: &Ring,
    a: &A,
    b: &B,
    to_b: Chunk,
    to_a: Chunk,
    options: &RelayOptions,
) -> Relayed {
    let moved = Cell::new(ring.now());
    let forth = Count::new(ring, &moved);
    let back = Count::new(ring, &moved);
    let end = {
        let mut there = pin!(carry(a, b, to_b, &forth));
        let mut here = pin!(carry(b, a, to_a, &back));
        let (mut there_ended, mut here_ended) = (false, false);
        let mut a_gone = pin!(a.gone());
        let mut b_gone = pin!(b.gone());
        let until = || {
            moved
                .get()
                .plus_ms(options.idle_timeout_ms)
                .min(options.over_at)
        };
        let mut idle = pin!(ring.sleep_until(until()));
        poll_fn(|cx| {
            // First: nothing more of a connection that was cut is passed on.
            if a_gone.as_mut().poll(cx).is_ready() || b_gone.as_mut().poll(cx).is_ready() {
                return Poll::Ready(End::Failed);
            }
            if !there_ended {
                match there.as_mut().poll(cx) {
                    Poll::Ready(Ok(())) => there_ended = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(End::Failed),
                    Poll::Pending => {}
                }
            }
            if !here_ended {
                match here.as_mut().poll(cx) {
                    Poll::Ready(Ok(())) => here_ended = true,
                    Poll::Ready(Err(_)) => return Poll::Ready(End::Failed),
                    Poll::Pending => {}
                }
            }
            if there_ended && here_ended {
                return Poll::Ready(End::Both);
            }
            while idle.as_mut().poll(cx).is_ready() {
                if options.over_at <= ring.now() {
                    return Poll::Ready(End::Over);
                }
                if until() <= ring.now() {
                    return Poll::Ready(End::Idle);
                }
                idle.as_mut().reset(until());
            }
            Poll::Pending
        })
        .await
    };
    if !matches!(end, End::Both) {
        a.reset();
        b.reset();
    }
    Relayed {
        forth: forth.bytes.get(),
        back: back.bytes.get(),
        spliced: forth.spliced.get() + back.spliced.get(),
        idle: matches!(end, End::Idle),
        over: matches!(end, End::Over),
        reset: matches!(end, End::Failed),
    }
}

/// What one direction has moved.
struct Count<'a> {
    ring: &'a Ring,
    bytes: Cell<u64>,
    spliced: Cell<u64>,
    /// When anything moved, either way.
    moved: &'a Cell<Mono>,
}

impl<'a> Count<'a> {
    fn new(ring: &'a Ring, moved: &'a Cell<Mono>) -> Self {
        Self {
            ring,
            bytes: Cell::new(0),
            spliced: Cell::new(0),
            moved,
        }
    }

    fn add(&self, bytes: u64) {
        self.bytes.set(self.bytes.get() + bytes);
        self.moved.set(self.ring.now());
    }
}

/// One direction, to its end: the sender's FIN becomes ours, after everything before it.
async fn carry<F: ByteStream, T: ByteStream>(
    from: &F,
    to: &T,
    first: Chunk,
    count: &Count<'_>,
) -> io::Result<()> {
    let mut pace = Pace::default();
    let mut chunk = first;
    loop {
        if !chunk.is_empty() {
            let out = gather(from, chunk);
            let len = out.len() as u64;
            to.send(out).await?;
            count.add(len);
            if pace.is_bulk(len)
                && let (Some(from), Some(to)) = (from.plain(), to.plain())
                && splice(from, to, count).await? == Ended::Yes
            {
                break;
            }
        }
        chunk = from.recv().await?;
        if chunk.is_empty() {
            break;
        }
    }
    to.flush().await?;
    to.shutdown_write().await
}

#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// The sender has said FIN.
    Yes,
    /// It goes on in buffers.
    No,
}

/// Goes on by splicing, for as long as that pays.
async fn splice(from: &Socket, to: &Socket, count: &Count<'_>) -> io::Result<Ended> {
    from.hold().await;
    while let Some(received) = from.try_recv() {
        let received = received?;
        if received.is_empty() {
            return Ok(Ended::Yes);
        }
        let len = received.len() as u64;
        to.send(received.into()).await?;
        count.add(len);
    }
    to.flush().await?;
    let mut splice = Splice::start(from, to)?;
    let mut small = 0;
    // A pipeful is sent to its end: what is left in a pipe nobody else can send.
    while small < SMALL_STREAK || splice.holds_bytes() {
        match splice.step().await? {
            Spliced::Bytes(bytes) => {
                count.add(bytes.into());
                count.spliced.set(count.spliced.get() + u64::from(bytes));
                small = if bytes < SMALL_BYTES { small + 1 } else { 0 };
            }
            Spliced::End => return Ok(Ended::Yes),
            Spliced::NoPipe => break,
        }
    }
    Ok(Ended::No)
}

/// Whether a direction moves enough at once for splicing to pay. Small messages never add up to
/// bulk: each of them would cost two calls and a poll more.
#[derive(Debug, Default)]
struct Pace {
    /// Bytes of large sends without a small one between them.
    large: u64,
}

/// A send of less than this is a small one.
const LARGE_BYTES: u64 = 16 * 1024;
/// After so much in large sends a direction is spliced: a stream of this length takes few
/// milliseconds, so shorter ones never pay for the change.
const BULK_BYTES: u64 = 256 * 1024;
/// A splice of less than this is a small one.
const SMALL_BYTES: u32 = 4 * 1024;
/// Small splices in a row after which a direction goes back to buffers.
const SMALL_STREAK: u32 = 8;

impl Pace {
    fn is_bulk(&mut self, sent: u64) -> bool {
        self.large = if sent < LARGE_BYTES {
            0
        } else {
            self.large + sent
        };
        if self.large < BULK_BYTES {
            return false;
        }
        self.large = 0;
        true
    }
}

/// Most bytes of one send: with one in flight and one waiting, a slow reader holds twice that.
const GATHER_BYTES_MAX: usize = 128 * 1024;

/// What has arrived behind `first` goes with it in one call. A FIN or an error stays where it is:
/// both are told again by the next `recv`.
fn gather<F: ByteStream>(from: &F, first: Chunk) -> Out {
    let mut bytes = first.len();
    let mut out = Out::from(first);
    while bytes < GATHER_BYTES_MAX && out.room() > 0 {
        match from.try_recv() {
            Some(Ok(more)) if !more.is_empty() => {
                bytes += more.len();
                // There is room.
                let _ = out.push(more);
            }
            _ => break,
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::{Shutdown, SocketAddr, TcpStream};
    use std::time::Duration;

    use crate::ring::Socket;
    use crate::ring::tests::{client, drive, join, listen, pattern, read_all, ring, write_all};

    use super::*;

    /// A relay between a client that connects to the first address and whoever accepts at the
    /// second; resolves when it is done.
    fn through<A: Send + 'static, B: Send + 'static>(
        idle_timeout_ms: u64,
        caller: impl FnOnce(TcpStream) -> A + Send + 'static,
        callee: impl FnOnce(TcpStream) -> B + Send + 'static,
    ) -> (A, B, Relayed) {
        through_ring(&ring(), idle_timeout_ms, caller, callee)
    }

    fn through_ring<A: Send + 'static, B: Send + 'static>(
        ring: &Ring,
        idle_timeout_ms: u64,
        caller: impl FnOnce(TcpStream) -> A + Send + 'static,
        callee: impl FnOnce(TcpStream) -> B + Send + 'static,
    ) -> (A, B, Relayed) {
        let listener = listen(ring);
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream: SocketAddr = server.local_addr().unwrap();
        let callee = std::thread::spawn(move || callee(server.accept().unwrap().0));
        let caller = client(listener.local_addr(), caller);
        let inner = ring.clone();
        let relayed = drive(ring, async move {
            let a = listener.accept().await.unwrap();
            let b = Socket::connect(&inner, upstream).await.unwrap();
            let options = RelayOptions {
                idle_timeout_ms,
                over_at: Mono::NEVER,
            };
            relay(&inner, &a, &b, Chunk::empty(), Chunk::empty(), &options).await
        });
        (join(ring, caller), join(ring, callee), relayed)
    }

    const LONG: u64 = 60_000;

    #[test]
    fn a_half_close_of_the_caller_stays_half() {
        let (answer, question, relayed) = through(
            LONG,
            |stream| {
                write_all(&stream, b"question");
                stream.shutdown(Shutdown::Write).unwrap();
                read_all(&stream).unwrap()
            },
            |stream| {
                let question = read_all(&stream).unwrap();
                write_all(&stream, b"the answer");
                question
            },
        );
        assert_eq!(
            (&answer[..], &question[..]),
            (&b"the answer"[..], &b"question"[..])
        );
        assert_eq!((relayed.forth, relayed.back), (8, 10));
        assert!(!relayed.idle && !relayed.reset);
    }

    #[test]
    fn a_half_close_of_the_callee_stays_half() {
        let (greeting, reply, relayed) = through(
            LONG,
            |stream| {
                let greeting = read_all(&stream).unwrap();
                write_all(&stream, b"reply");
                greeting
            },
            |stream| {
                write_all(&stream, b"greeting");
                stream.shutdown(Shutdown::Write).unwrap();
                read_all(&stream).unwrap()
            },
        );
        assert_eq!(
            (&greeting[..], &reply[..]),
            (&b"greeting"[..], &b"reply"[..])
        );
        assert_eq!((relayed.forth, relayed.back), (5, 8));
    }

    fn reset(stream: TcpStream) {
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
        drop(stream);
    }

    #[test]
    fn a_reset_is_passed_on_as_a_reset_both_ways() {
        let (end, (), relayed) =
            through(LONG, |stream| read_all(&stream).unwrap_err().kind(), reset);
        assert_eq!(end, ErrorKind::ConnectionReset);
        assert!(relayed.reset);
        let ((), end, relayed) =
            through(LONG, reset, |stream| read_all(&stream).unwrap_err().kind());
        assert_eq!(end, ErrorKind::ConnectionReset);
        assert!(relayed.reset);
    }

    #[test]
    fn silence_ends_it() {
        let (_, _, relayed) = through(50, |stream| read_all(&stream), |stream| read_all(&stream));
        assert!(relayed.idle && !relayed.reset);
    }

    #[test]
    fn bulk_arrives_whole_in_both_directions_at_once() {
        const LEN: usize = 16 << 20;
        let talk = |seed: usize| {
            move |stream: TcpStream| {
                let writer = stream.try_clone().unwrap();
                let writing = std::thread::spawn(move || {
                    write_all(&writer, &pattern(LEN + seed));
                    writer.shutdown(Shutdown::Write).unwrap();
                });
                let got = read_all(&stream).unwrap();
                writing.join().unwrap();
                got == pattern(LEN + 1 - seed)
            }
        };
        let (caller, callee, relayed) = through(LONG, talk(0), talk(1));
        assert!(caller && callee);
        assert_eq!(relayed.forth, LEN as u64);
        assert_eq!(relayed.back, LEN as u64 + 1);
        assert!(relayed.spliced > LEN as u64, "{relayed:?}");
    }

    /// A receiver that takes little at a time is no reason to leave the rest of a pipeful behind.
    #[test]
    fn what_is_in_a_pipe_is_sent_to_its_end() {
        const LEN: usize = 2 << 20;
        let ring = ring();
        ring.drain_pipes_slowly(1_000);
        let ((), got, relayed) = through_ring(
            &ring,
            LONG,
            |stream| {
                write_all(&stream, &pattern(LEN));
                stream.shutdown(Shutdown::Write).unwrap();
                assert_eq!(read_all(&stream).unwrap(), b"");
            },
            |stream| read_all(&stream).unwrap(),
        );
        assert!(relayed.spliced > 0, "{relayed:?}");
        assert!(got == pattern(LEN), "{} of {LEN} bytes came", got.len());
    }

    #[test]
    fn small_messages_go_both_ways_beside_and_after_bulk() {
        const LEN: usize = 4 << 20;
        const BALLS: usize = 2000;
        let ping = |stream: &TcpStream, serve: bool| {
            let mut ball = [7; 64];
            for _ in 0..BALLS {
                let mut stream = stream;
                if serve {
                    stream.write_all(&ball).unwrap();
                }
                stream.read_exact(&mut ball).unwrap();
                if !serve {
                    stream.write_all(&ball).unwrap();
                }
            }
        };
        let (got, sent, relayed) = through(
            LONG,
            move |stream| {
                let mut bulk = vec![0; LEN];
                (&stream).read_exact(&mut bulk).unwrap();
                ping(&stream, true);
                stream.shutdown(Shutdown::Write).unwrap();
                // The direction that was spliced goes on, and is bulk again.
                let more = read_all(&stream).unwrap();
                bulk.extend_from_slice(&more);
                bulk
            },
            move |stream| {
                let sent = pattern(2 * LEN);
                write_all(&stream, &sent[..LEN]);
                ping(&stream, false);
                assert!(read_all(&stream).unwrap().is_empty());
                write_all(&stream, &sent[LEN..]);
                sent
            },
        );
        assert!(got == sent);
        let balls = (BALLS * 64) as u64;
        assert_eq!(
            (relayed.forth, relayed.back),
            (balls, 2 * LEN as u64 + balls)
        );
        // The second bulk too; and not the balls, once the change back was made.
        assert!(relayed.spliced > LEN as u64 + LEN as u64 / 2, "{relayed:?}");
        assert!(relayed.spliced < 2 * LEN as u64 + balls / 2, "{relayed:?}");
        assert!(!relayed.reset && !relayed.idle);
    }

    #[test]
    fn a_reset_in_the_middle_of_spliced_bulk_is_passed_on() {
        let (end, (), relayed) = through(
            LONG,
            |stream| read_all(&stream).unwrap_err().kind(),
            |stream| {
                write_all(&stream, &pattern(8 << 20));
                reset(stream);
            },
        );
        assert_eq!(end, ErrorKind::ConnectionReset);
        assert!(relayed.reset && relayed.spliced > 0, "{relayed:?}");
    }

    #[test]
    fn a_sender_that_resets_while_the_receiver_is_stuck_is_noticed() {
        // The receiver never reads: the sender's end has to be told all the same.
        let (kept, (), relayed) = through(
            LONG,
            |stream| stream,
            |stream| {
                stream.set_nonblocking(true).unwrap();
                let block = pattern(1 << 16);
                let mut idle_rounds = 0;
                // Until both socket buffers and the pipe are full and stay so.
                while idle_rounds < 100 {
                    match (&stream).write(&block) {
                        Ok(_) => idle_rounds = 0,
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {
                            idle_rounds += 1;
                            let mut poll = [0; 1];
                            stream.set_nonblocking(false).unwrap();
                            stream
                                .set_read_timeout(Some(Duration::from_millis(10)))
                                .unwrap();
                            let _ = (&stream).read(&mut poll);
                            stream.set_nonblocking(true).unwrap();
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
                reset(stream);
            },
        );
        assert!(relayed.reset && relayed.spliced > 0, "{relayed:?}");
        drop(kept);
    }

    #[test]
    fn a_receiver_that_resets_ends_the_sender_with_a_reset() {
        let (end, (), relayed) = through(
            LONG,
            |stream| {
                let bulk = pattern(64 << 20);
                (&stream).write_all(&bulk).unwrap_err().kind()
            },
            |stream| {
                let mut some = vec![0; 4 << 20];
                (&stream).read_exact(&mut some).unwrap();
                reset(stream);
            },
        );
        assert!(
            matches!(end, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe),
            "{end:?}"
        );
        assert!(relayed.reset && relayed.spliced > 0, "{relayed:?}");
    }

    #[test]
    fn a_spliced_direction_that_falls_silent_is_idle() {
        // Long enough that a busy machine does not look silent in the middle.
        let (_, _, relayed) = through(
            1_500,
            |stream| read_all(&stream),
            |stream| {
                write_all(&stream, &pattern(4 << 20));
                read_all(&stream)
            },
        );
        assert!(relayed.idle && relayed.spliced > 0, "{relayed:?}");
        assert_eq!(relayed.back, 4 << 20);
    }
}
