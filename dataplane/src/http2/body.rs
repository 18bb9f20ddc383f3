//! The bytes that arrive on a stream, as ring chunks.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::RecvStream;

use super::account::Part;
use super::head;
use crate::ring::{Chunk, Ring};

/// How often a buffer is asked for when the pool is empty, milliseconds.
const BUFFER_RETRY_MS: u64 = 1;

/// A request's or a response's body.
#[derive(Debug)]
pub struct Body {
    ring: Ring,
    stream: RefCell<RecvStream>,
    /// Received, and too much for one buffer or waiting for one.
    rest: RefCell<Bytes>,
    /// Handed out last: given back to the peer's window when the next piece is asked for.
    owed: Cell<usize>,
    trailers: OnceCell<Vec<u8>>,
    over: Cell<bool>,
    tunnel: bool,
    cut: Cell<Option<h2::Reason>>,
    /// What of it the connection's account holds; none where nothing can come.
    part: Option<Part>,
}

impl Body {
    pub(super) fn new(ring: &Ring, stream: RecvStream, part: Option<Part>) -> Self {
        Self {
            ring: ring.clone(),
            tunnel: false,
            over: Cell::new(stream.is_end_stream()),
            stream: RefCell::new(stream),
            rest: RefCell::default(),
            owed: Cell::new(0),
            trailers: OnceCell::new(),
            cut: Cell::new(None),
            part,
        }
    }

    /// Bytes of a tunnel.
    pub(super) fn of_tunnel(ring: &Ring, stream: RecvStream, part: Option<Part>) -> Self {
        Self {
            tunnel: true,
            ..Self::new(ring, stream, part)
        }
    }

    /// Whether its bytes are those of the protocol a request asks for, and no message's.
    #[must_use]
    pub fn is_tunnel(&self) -> bool {
        self.tunnel
    }

    /// Whether nothing more will come, as far as is known without waiting.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.over.get() && self.rest.borrow().is_empty()
    }

    /// Trailer lines; empty before the end.
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        self.trailers.get().map_or(&[], Vec::as_slice)
    }

    /// With which code the peer cut it, if it did.
    #[must_use]
    pub fn cut(&self) -> Option<h2::Reason> {
        self.cut.get()
    }

    /// The next piece; empty at the end. Asking for it says that the piece before was passed on.
    ///
    /// # Errors
    /// The stream was reset or its connection failed.
    pub async fn recv(&self) -> io::Result<Chunk> {
        loop {
            if poll_fn(|cx| self.poll_rest(cx)).await?.is_none() {
                return Ok(Chunk::empty());
            }
            if let Some(chunk) = self.take() {
                return Ok(chunk);
            }
            let again = self.ring.now().plus_ms(BUFFER_RETRY_MS);
            self.ring.sleep_until(again).await;
        }
    }

    /// What [`Self::recv`] would give at once.
    ///
    /// # Errors
    /// As `recv`.
    pub fn try_recv(&self) -> Option<io::Result<Chunk>> {
        match self.poll_rest(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => None,
            Poll::Ready(Err(error)) => Some(Err(error)),
            Poll::Ready(Ok(None)) => Some(Ok(Chunk::empty())),
            Poll::Ready(Ok(Some(()))) => self.take().map(Ok),
        }
    }

    /// Ready when bytes are in `rest`, or with `None` when there will be none.
    fn poll_rest(&self, cx: &mut Context<'_>) -> Poll<io::Result<Option<()>>> {
        let mut stream = self.stream.borrow_mut();
        let owed = self.owed.take();
        if owed > 0 {
            // Fails only if it was never received.
            let _ = stream.flow_control().release_capacity(owed);
            if let Some(part) = &self.part {
                part.pass_on(owed);
            }
        }
        if !self.rest.borrow().is_empty() {
            return Poll::Ready(Ok(Some(())));
        }
        loop {
            if self.over.get() {
                return Poll::Ready(Ok(None));
            }
            match std::task::ready!(stream.poll_data(cx)) {
                Some(Ok(bytes)) => {
                    self.over.set(stream.is_end_stream());
                    if !bytes.is_empty() {
                        *self.rest.borrow_mut() = bytes;
                        return Poll::Ready(Ok(Some(())));
                    }
                }
                Some(Err(error)) => return Poll::Ready(Err(self.failed(&error))),
                None => match std::task::ready!(stream.poll_trailers(cx)) {
                    Ok(fields) => {
                        if let Some(fields) = fields {
                            let mut lines = Vec::new();
                            head::put_trailers(&fields, &mut lines);
                            let _ = self.trailers.set(lines);
                        }
                        self.over.set(true);
                    }
                    Err(error) => return Poll::Ready(Err(self.failed(&error))),
                },
            }
        }
    }

    fn failed(&self, error: &h2::Error) -> io::Error {
        let by_peer = error.is_reset() && error.is_remote();
        self.cut.set(error.reason().filter(|_| by_peer));
        io::ErrorKind::ConnectionReset.into()
    }

    /// A chunk of what is in `rest`; `None` while the ring has no buffer.
    fn take(&self) -> Option<Chunk> {
        let mut rest = self.rest.borrow_mut();
        let mut buf = self.ring.buf()?;
        let len = rest.len().min(buf.room());
        let bytes = rest.split_to(len);
        // It was measured.
        let _ = buf.extend_from_slice(&bytes);
        self.owed.set(bytes.len());
        Some(buf.freeze())
    }
}
