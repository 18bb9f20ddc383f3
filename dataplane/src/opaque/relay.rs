//! The loop.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;

use crate::ring::{ByteStream, Chunk, Out, Ring};
use crate::time::Mono;

/// How to relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelayOptions {
    /// Both sides are closed when no byte moved for this long, milliseconds.
    pub idle_timeout_ms: u64,
}

/// What a relay did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Relayed {
    /// Bytes from the first side to the second.
    pub forth: u64,
    /// Bytes from the second side to the first.
    pub back: u64,
    /// It ended because nothing moved.
    pub idle: bool,
    /// It ended because one side failed; both were reset.
    pub reset: bool,
}

enum End {
    Both,
    Failed,
    Idle,
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
    let (forth, back) = (Cell::new(0), Cell::new(0));
    let moved = Cell::new(ring.now());
    let end = {
        let mut there = pin!(carry(ring, a, b, to_b, &forth, &moved));
        let mut here = pin!(carry(ring, b, a, to_a, &back, &moved));
        let (mut there_ended, mut here_ended) = (false, false);
        let mut idle = pin!(ring.sleep_until(moved.get().plus_ms(options.idle_timeout_ms)));
        poll_fn(|cx| {
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
                let until = moved.get().plus_ms(options.idle_timeout_ms);
                if until <= ring.now() {
                    return Poll::Ready(End::Idle);
                }
                idle.as_mut().reset(until);
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
        forth: forth.get(),
        back: back.get(),
        idle: matches!(end, End::Idle),
        reset: matches!(end, End::Failed),
    }
}

/// One direction, to its end: the sender's FIN becomes ours, after everything before it.
async fn carry<F: ByteStream, T: ByteStream>(
    ring: &Ring,
    from: &F,
    to: &T,
    first: Chunk,
    bytes: &Cell<u64>,
    moved: &Cell<Mono>,
) -> io::Result<()> {
    let mut chunk = first;
    loop {
        if !chunk.is_empty() {
            let out = gather(from, chunk);
            let len = out.len() as u64;
            to.send(out).await?;
            bytes.set(bytes.get() + len);
            moved.set(ring.now());
        }
        chunk = from.recv().await?;
        if chunk.is_empty() {
            to.flush().await?;
            return to.shutdown_write().await;
        }
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
    use std::io::ErrorKind;
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
        let ring = ring();
        let listener = listen(&ring);
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let upstream: SocketAddr = server.local_addr().unwrap();
        let callee = std::thread::spawn(move || callee(server.accept().unwrap().0));
        let caller = client(listener.local_addr(), caller);
        let inner = ring.clone();
        let relayed = drive(&ring, async move {
            let a = listener.accept().await.unwrap();
            let b = Socket::connect(&inner, upstream).await.unwrap();
            let options = RelayOptions { idle_timeout_ms };
            relay(&inner, &a, &b, Chunk::empty(), Chunk::empty(), &options).await
        });
        (join(&ring, caller), join(&ring, callee), relayed)
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
    }
}
