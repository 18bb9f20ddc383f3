//! A connection of the ring as `h2` wants it: polled, and written to without waiting.
//!
//! Nothing of what `h2` writes leaves at once: it gathers in pooled buffers until
//! [`Wire::poll_push`], which the connection's task calls when `h2` has nothing more to do for now.
//! So the frames of all streams that moved in one turn leave in one submission.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::account::Account;
use super::frames::Frames;
use crate::detect::H2_PREFACE;
use crate::ring::{Buf, ByteStream, Chunk, Out, Ring, Sleep};
use crate::time::Mono;
use crate::upstream::Stream;

type Boxed<T> = Pin<Box<dyn Future<Output = io::Result<T>>>>;

/// How often a buffer is asked for when the pool is empty, milliseconds.
const BUFFER_RETRY_MS: u64 = 1;

/// One connection; clones are the same.
#[derive(Clone)]
pub struct Wire {
    shared: Rc<Shared>,
}

struct Shared {
    ring: Ring,
    stream: Rc<Stream>,
    recv: RefCell<RecvHalf>,
    send: RefCell<SendHalf>,
    last_received: Cell<Mono>,
    account: Rc<Account>,
}

struct RecvHalf {
    chunk: Chunk,
    frames: Frames,
    ended: bool,
    /// On TLS, where receiving is more than one step.
    waiting: Option<Boxed<Chunk>>,
}

#[derive(Default)]
struct SendHalf {
    /// Full buffers, then the one being filled.
    out: Out,
    current: Option<Buf>,
    /// On TLS, where sending is more than one step.
    sending: Option<Boxed<()>>,
    /// The end of our direction, under way.
    ending: Option<Boxed<()>>,
    no_buffer: Option<Pin<Box<Sleep>>>,
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wire")
            .field("stream", &self.shared.stream)
            .finish_non_exhaustive()
    }
}

impl Wire {
    /// A connection to a server.
    #[must_use]
    pub fn to_server(ring: &Ring, stream: Rc<Stream>, account: &Rc<Account>) -> Self {
        Self::new(ring, stream, Chunk::empty(), 0, account)
    }

    /// A client's connection, of which `first` was received already.
    #[must_use]
    pub fn of_client(ring: &Ring, stream: Rc<Stream>, first: Chunk, account: &Rc<Account>) -> Self {
        Self::new(ring, stream, first, H2_PREFACE.len() as u32, account)
    }

    fn new(
        ring: &Ring,
        stream: Rc<Stream>,
        first: Chunk,
        preface: u32,
        account: &Rc<Account>,
    ) -> Self {
        let shared = Shared {
            ring: ring.clone(),
            stream,
            recv: RefCell::new(RecvHalf {
                chunk: first,
                frames: Frames::behind(preface, ring.now()),
                ended: false,
                waiting: None,
            }),
            send: RefCell::default(),
            last_received: Cell::new(ring.now()),
            account: Rc::clone(account),
        };
        Self {
            shared: Rc::new(shared),
        }
    }

    /// Whether the peer has sent a whole frame.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.shared.recv.borrow().frames.have_begun()
    }

    /// Whether the first frame of the peer was not its SETTINGS (RFC 9113 section 3.4), which the h2 crate
    /// lets pass.
    #[must_use]
    pub fn is_misbegun(&self) -> bool {
        self.shared.recv.borrow().frames.are_misbegun()
    }

    /// Whether the peer has said that it wants no new streams.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.shared.recv.borrow().frames.are_last()
    }

    /// Whether the peer floods the connection with frames that bring nothing.
    #[must_use]
    pub fn is_flooded(&self) -> bool {
        let now = self.shared.ring.now();
        self.shared.recv.borrow_mut().frames.is_flood(now)
    }

    /// What it makes the shard keep.
    #[must_use]
    pub fn account(&self) -> &Rc<Account> {
        &self.shared.account
    }

    /// Whether the shard has no room for what it brings. Nothing more is read: the connection's task has to
    /// say why it ends.
    #[must_use]
    pub fn is_overdrawn(&self) -> bool {
        self.shared.account.is_overdrawn()
    }

    /// Every stream that the peer has begun was opened, or refused by the h2 crate.
    pub fn settle(&self) {
        self.shared.account.settle();
    }

    /// When bytes were received last.
    #[must_use]
    pub fn last_received(&self) -> Mono {
        self.shared.last_received.get()
    }

    /// Hands what was written to the socket. Pending: it takes nothing now, and the task is woken
    /// when it does.
    ///
    /// # Errors
    /// The connection failed.
    pub fn poll_push(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut half = self.shared.send.borrow_mut();
        if let Some(sending) = &mut half.sending {
            let sent = ready!(sending.as_mut().poll(cx));
            half.sending = None;
            sent?;
        }
        half.seal();
        if half.out.is_empty() {
            return Poll::Ready(Ok(()));
        }
        match &*self.shared.stream {
            Stream::Plain(socket) => socket.poll_send(&mut half.out, cx),
            Stream::Tls(_) | Stream::Lane(_) => {
                let stream = Rc::clone(&self.shared.stream);
                let out = std::mem::take(&mut half.out);
                let mut sending: Boxed<()> = Box::pin(async move { stream.send(out).await });
                let first = sending.as_mut().poll(cx);
                if first.is_pending() {
                    half.sending = Some(sending);
                }
                first
            }
        }
    }

    fn poll_chunk(&self, half: &mut RecvHalf, cx: &mut Context<'_>) -> Poll<io::Result<Chunk>> {
        match &*self.shared.stream {
            Stream::Plain(socket) => pin!(socket.recv()).poll(cx),
            stream @ (Stream::Tls(_) | Stream::Lane(_)) => {
                if half.waiting.is_none() {
                    // Without a buffer at this moment it is waited for: it is no fault of the connection.
                    let is_short = |error: &io::Error| error.kind() == io::ErrorKind::OutOfMemory;
                    if let Stream::Tls(tls) = stream
                        && let Some(received) = tls.try_recv()
                        && !received.as_ref().is_err_and(is_short)
                    {
                        return Poll::Ready(received);
                    }
                    let stream = Rc::clone(&self.shared.stream);
                    half.waiting = Some(Box::pin(async move { stream.recv().await }));
                }
                let Some(waiting) = &mut half.waiting else {
                    return Poll::Pending;
                };
                let received = ready!(waiting.as_mut().poll(cx));
                half.waiting = None;
                Poll::Ready(received)
            }
        }
    }
}

impl SendHalf {
    fn seal(&mut self) {
        if let Some(buf) = self.current.take() {
            // Room was kept for it when it was taken.
            let _ = self.out.push(buf);
        }
    }

    /// Takes as much as there is room for.
    fn fill(&mut self, ring: &Ring, mut bytes: &[u8]) -> usize {
        let mut taken = 0;
        while !bytes.is_empty() {
            if self.current.as_ref().is_none_or(|buf| buf.room() == 0) {
                self.seal();
                if self.out.room() == 0 {
                    break;
                }
                self.current = ring.buf();
            }
            let Some(buf) = &mut self.current else { break };
            let (now, rest) = bytes.split_at(bytes.len().min(buf.room()));
            if buf.extend_from_slice(now).is_err() {
                break;
            }
            taken += now.len();
            bytes = rest;
        }
        taken
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut half = self.shared.recv.borrow_mut();
        if half.chunk.is_empty() && !half.ended {
            let chunk = ready!(self.poll_chunk(&mut half, cx))?;
            half.ended = chunk.is_empty();
            half.chunk = chunk;
            self.shared.last_received.set(self.shared.ring.now());
        }
        let len = half.chunk.len().min(into.remaining());
        let RecvHalf { chunk, frames, .. } = &mut *half;
        let account = &self.shared.account;
        // Before it is kept.
        let room = account.receive(|held| {
            frames.pass(&chunk[..len], held);
            frames.block_bytes() as usize
        });
        if room.is_err() {
            // Whoever polls looks at that right behind.
            return Poll::Pending;
        }
        into.put_slice(&chunk[..len]);
        chunk.advance(len);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[io::IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut taken = 0;
            {
                let mut half = self.shared.send.borrow_mut();
                for slice in slices {
                    let now = half.fill(&self.shared.ring, slice);
                    taken += now;
                    if now < slice.len() {
                        break;
                    }
                }
                if taken > 0 || slices.iter().all(|slice| slice.is_empty()) {
                    half.no_buffer = None;
                    self.shared.recv.borrow_mut().frames.sent(taken);
                    return Poll::Ready(Ok(taken));
                }
                if half.out.is_empty() && half.sending.is_none() {
                    // Nothing to push: the ring is out of buffers.
                    let ring = &self.shared.ring;
                    let again = ring.now().plus_ms(BUFFER_RETRY_MS);
                    let sleep = half
                        .no_buffer
                        .get_or_insert_with(|| Box::pin(ring.sleep_until(again)));
                    ready!(sleep.as_mut().poll(cx));
                    half.no_buffer = None;
                    continue;
                }
            }
            ready!(self.poll_push(cx))?;
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// What is written leaves with the next [`Wire::poll_push`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_push(cx))?;
        let mut half = self.shared.send.borrow_mut();
        let stream = &self.shared.stream;
        let ending = half.ending.get_or_insert_with(|| {
            let stream = Rc::clone(stream);
            Box::pin(async move {
                stream.flush().await?;
                stream.shutdown_write().await
            })
        });
        ending.as_mut().poll(cx)
    }
}
