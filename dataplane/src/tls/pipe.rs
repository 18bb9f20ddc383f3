//! rustls over a ring socket, whoever is at the other end.
//!
//! rustls does the records; this file moves bytes between it and the ring. Received ciphertext is fed
//! from the ring's own chunks, plaintext is read into pooled buffers and frozen to chunks; plaintext
//! to send is encrypted straight from the pieces of an [`Out`], several pieces to a record.
//!
//! Bounds: at most one received chunk of ciphertext, 16 KiB of it as a partial record, and the
//! plaintext of one chunk wait here; sending encrypts at most 64 KiB ahead of what the socket accepts.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, IoSlice, Read, Write};

use rustls::Connection;

use crate::budget::Charge;
use crate::ring::{Buf, ByteStream, Chunk, OUT_PIECES_MAX, Out, Ring, Socket};

/// A TLS connection over a ring socket. What rustls was told to verify is verified; who may be at the
/// other end beside that is the caller's to say ([`super::TlsStream`] says it for sidecars).
pub struct Pipe {
    ring: Ring,
    socket: Socket,
    /// Never borrowed across an await.
    state: RefCell<State>,
}

struct State {
    tls: Connection,
    /// Received and not fed yet.
    cipher: Chunk,
    /// Plaintext bytes rustls holds.
    plain: usize,
    peer_closed: bool,
    tcp_ended: bool,
    /// A send was given up half-way: the record sequence is torn.
    torn: bool,
}

/// What the bytes received so far come to.
enum Decrypted {
    /// Plaintext; empty for the peer's end.
    Plain(Chunk),
    NeedMore,
    /// The ring has no buffer to put plaintext in.
    NoBuffer,
    Failed(io::Error),
}

/// Plaintext that is encrypted before the socket has to accept it.
const ENCRYPT_AHEAD_BYTES: usize = 64 * 1024;
/// What a handshake may bring without a charge to the shard's budget, bytes: those of sidecars, with a certificate,
/// have about three.
const HANDSHAKE_BYTES_FREE: usize = 8 * 1024;
/// How often a buffer is asked for when the pool is empty; buffers come back within a turn or two.
const BUFFER_RETRY_MS: u64 = 1;
/// How long for: after that the shard is stuck, not busy.
const BUFFER_RETRIES_MAX: u32 = 1_000;

impl Pipe {
    /// A connection whose handshake has not begun.
    #[must_use]
    pub fn new(ring: &Ring, socket: Socket, mut tls: Connection) -> Self {
        tls.set_buffer_limit(Some(ENCRYPT_AHEAD_BYTES));
        Self {
            ring: ring.clone(),
            socket,
            state: RefCell::new(State {
                tls,
                cipher: Chunk::empty(),
                plain: 0,
                peer_closed: false,
                tcp_ended: false,
                torn: false,
            }),
        }
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    pub(super) fn socket(&self) -> &Socket {
        &self.socket
    }

    /// What rustls knows of the connection; also for asking it to do something.
    pub fn with_tls<T>(&self, ask: impl FnOnce(&mut Connection) -> T) -> T {
        ask(&mut self.state.borrow_mut().tls)
    }

    /// Runs the handshake until nothing more is expected of the peer. `first` was received already.
    /// What is left to send then (a client's Finished, a server's ticket) goes out with the first
    /// bytes: one system call less at both ends, for most connections. Whoever does not send at once calls
    /// [`drain`](Self::drain).
    ///
    /// # Errors
    /// The socket's, or with a [`rustls::Error`] inside: the peer's certificate or its bytes are not
    /// acceptable, or it refused us. Our alert that says so leaves by [`drain`](Self::drain).
    pub async fn handshake(&self, first: Chunk) -> io::Result<()> {
        self.handshake_charged(first, None).await
    }

    /// As [`handshake`](Self::handshake); `charge` follows what rustls may keep of it. Out of memory: there was no
    /// room for more.
    pub(super) async fn handshake_charged(
        &self,
        first: Chunk,
        charge: Option<&Charge>,
    ) -> io::Result<()> {
        let mut received = first.len();
        if !first.is_empty() {
            self.take(first);
        }
        loop {
            if !self.with_tls(|tls| tls.is_handshaking()) {
                return Ok(());
            }
            self.drain().await?;
            if self.state.borrow().cipher.is_empty() {
                let chunk = self.socket.recv().await?;
                if chunk.is_empty() {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                received += chunk.len();
                self.take(chunk);
            }
            if let Some(charge) = charge {
                let kept = received.saturating_sub(HANDSHAKE_BYTES_FREE);
                charge.set(kept).map_err(|_| io::ErrorKind::OutOfMemory)?;
            }
            self.state.borrow_mut().feed()?;
        }
    }

    /// Takes received ciphertext; empty for the end of the TCP stream.
    fn take(&self, chunk: Chunk) {
        let mut state = self.state.borrow_mut();
        state.tcp_ended |= chunk.is_empty();
        state.cipher = chunk;
    }

    fn decrypted(&self) -> Decrypted {
        let mut state = self.state.borrow_mut();
        loop {
            if state.plain > 0 {
                let Some(buf) = self.ring.buf() else {
                    return Decrypted::NoBuffer;
                };
                return match state.read_plain(buf) {
                    Ok(chunk) => Decrypted::Plain(chunk),
                    Err(error) => Decrypted::Failed(error),
                };
            }
            if state.peer_closed {
                return Decrypted::Plain(Chunk::empty());
            }
            if state.cipher.is_empty() {
                if state.tcp_ended {
                    return Decrypted::Failed(io::ErrorKind::UnexpectedEof.into());
                }
                return Decrypted::NeedMore;
            }
            if let Err(error) = state.feed() {
                return Decrypted::Failed(error);
            }
        }
    }

    /// Plaintext if there is any, without waiting.
    pub(super) fn try_recv(&self) -> Option<io::Result<Chunk>> {
        loop {
            match self.decrypted() {
                Decrypted::Plain(chunk) => return Some(Ok(chunk)),
                Decrypted::Failed(error) => return Some(Err(error)),
                Decrypted::NoBuffer => return Some(Err(io::ErrorKind::OutOfMemory.into())),
                Decrypted::NeedMore => match self.socket.try_recv()? {
                    Ok(chunk) => self.take(chunk),
                    Err(error) => return Some(Err(error)),
                },
            }
        }
    }

    async fn encrypt_and_send(&self, out: &Out) -> io::Result<()> {
        // Torn until this send is through: a future dropped on the way leaves it so.
        if std::mem::replace(&mut self.state.borrow_mut().torn, true) {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let mut sent = 0;
        let len = out.len();
        while sent < len {
            sent += self.state.borrow_mut().encrypt(out, sent)?;
            self.drain().await?;
        }
        self.state.borrow_mut().torn = false;
        Ok(())
    }

    /// Hands every record rustls has ready to the socket.
    ///
    /// # Errors
    /// The socket's, or the ring was out of buffers for a second.
    pub async fn drain(&self) -> io::Result<()> {
        let mut out = Out::new();
        while self.with_tls(|tls| tls.wants_write()) {
            let mut buf = self.buffer().await?;
            self.with_tls(|tls| {
                while tls.wants_write() && buf.room() > 0 {
                    tls.write_tls(&mut Filling(&mut buf))?;
                }
                Ok::<_, io::Error>(())
            })?;
            if out.room() == 0 {
                self.socket.send(std::mem::take(&mut out)).await?;
            }
            debug_assert!(out.room() <= OUT_PIECES_MAX);
            let _ = out.push(buf);
        }
        if out.is_empty() {
            return Ok(());
        }
        self.socket.send(out).await
    }

    async fn buffer(&self) -> io::Result<Buf> {
        for _ in 0..BUFFER_RETRIES_MAX {
            if let Some(buf) = self.ring.buf() {
                return Ok(buf);
            }
            self.wait_for_buffer().await;
        }
        Err(io::ErrorKind::OutOfMemory.into())
    }

    async fn wait_for_buffer(&self) {
        let until = self.ring.now().plus_ms(BUFFER_RETRY_MS);
        self.ring.sleep_until(until).await;
    }
}

impl ByteStream for Pipe {
    async fn recv(&self) -> io::Result<Chunk> {
        loop {
            match self.decrypted() {
                Decrypted::Plain(chunk) => return Ok(chunk),
                Decrypted::Failed(error) => return Err(error),
                Decrypted::NoBuffer => self.wait_for_buffer().await,
                Decrypted::NeedMore => {
                    let chunk = self.socket.recv().await?;
                    self.take(chunk);
                }
            }
        }
    }

    /// As the socket's. If the future is dropped before it resolved, part of a record may be lost:
    /// the stream then refuses to send anything more.
    async fn send(&self, out: Out) -> io::Result<()> {
        self.encrypt_and_send(&out).await
    }

    async fn flush(&self) -> io::Result<()> {
        self.drain().await?;
        self.socket.flush().await
    }

    /// close_notify, then FIN.
    async fn shutdown_write(&self) -> io::Result<()> {
        self.with_tls(|tls| tls.send_close_notify());
        self.drain().await?;
        self.socket.shutdown_write();
        Ok(())
    }

    fn reset(&self) {
        self.socket.reset();
    }
}

impl fmt::Debug for Pipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pipe").field(&self.socket).finish()
    }
}

impl State {
    /// Lets rustls look at the waiting ciphertext.
    fn feed(&mut self) -> io::Result<()> {
        let mut bytes = &self.cipher[..];
        let taken = self.tls.read_tls(&mut bytes)?;
        self.cipher.advance(taken);
        let state = self
            .tls
            .process_new_packets()
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        self.plain = state.plaintext_bytes_to_read();
        if state.peer_has_closed() {
            self.peer_closed = true;
            // Nothing counts after close_notify.
            self.cipher = Chunk::empty();
        }
        Ok(())
    }

    fn read_plain(&mut self, mut buf: Buf) -> io::Result<Chunk> {
        while self.plain > 0 && buf.room() > 0 {
            let read = self.tls.reader().read(buf.spare())?;
            buf.advance(read);
            self.plain = self.plain.saturating_sub(read);
            if read == 0 {
                break;
            }
        }
        Ok(buf.freeze())
    }

    /// Encrypts what follows the first `skip` bytes of `out`, as much as fits; how much that was.
    fn encrypt(&mut self, out: &Out, mut skip: usize) -> io::Result<usize> {
        let mut slices = [IoSlice::new(&[]); OUT_PIECES_MAX];
        let mut count = 0;
        let mut room = ENCRYPT_AHEAD_BYTES;
        for piece in out.pieces() {
            let from = skip.min(piece.len());
            skip -= from;
            let rest = &piece[from..];
            let rest = &rest[..rest.len().min(room)];
            room -= rest.len();
            if !rest.is_empty() {
                slices[count] = IoSlice::new(rest);
                count += 1;
            }
        }
        match self.tls.writer().write_vectored(&slices[..count])? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            len => Ok(len),
        }
    }
}

/// A buffer as rustls wants to write to it.
struct Filling<'a>(&'a mut Buf);

impl Write for Filling<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(self.0.room());
        self.0
            .extend_from_slice(&bytes[..len])
            .map_err(|_| io::Error::from(io::ErrorKind::WriteZero))?;
        Ok(len)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut written = 0;
        for slice in slices {
            let len = self.write(slice)?;
            written += len;
            if len < slice.len() {
                break;
            }
        }
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
