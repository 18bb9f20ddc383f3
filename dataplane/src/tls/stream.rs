//! An encrypted connection with the face of a socket.
//!
//! rustls does the records; this file moves bytes between it and the ring. Received ciphertext is fed
//! from the ring's own chunks, plaintext is read into pooled buffers and frozen to chunks; plaintext
//! to send is encrypted straight from the pieces of an [`Out`], several pieces to a record.
//!
//! Bounds: at most one received chunk of ciphertext, 16 KiB of it as a partial record, and the
//! plaintext of one chunk wait here; sending encrypts at most 64 KiB ahead of what the socket accepts.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice, Read, Write};
use std::net::SocketAddr;

use rustls::Connection;

use super::Inner;
use super::identity::Proven;
use super::live::{Enlisted, Live};
use super::material::TlsMaterial;
use super::refusal::TlsRefusal;
use crate::ring::{Buf, ByteStream, Chunk, OUT_PIECES_MAX, Out, Ring, Socket};
use crate::time::Mono;
use crate::view::PeerIdentity;

/// A mutually authenticated connection to another sidecar.
pub struct TlsStream {
    pipe: Pipe,
    agreed: Agreed,
    /// From here on it takes no new request. Before the first of the two certificates ends.
    aged_at: Mono,
    /// Here it ends, whatever it carries.
    over_at: Mono,
    /// [`TlsMaterial::number`] under which the peer's serial number was looked at last.
    examined_under: Cell<u64>,
    enlisted: Option<Enlisted>,
}

/// What a handshake came to.
pub(super) struct Agreed {
    pub(super) proven: Proven,
    pub(super) inner: Inner,
    pub(super) sni: Option<String>,
    pub(super) resumed: bool,
    /// Of a client.
    pub(super) client_cert: Option<Box<str>>,
}

/// What a connection's certificates still allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Everything.
    Good,
    /// A certificate ends soon or has ended: finish what is begun, begin nothing new.
    Aged,
    /// The peer's certificate has been revoked: nothing more.
    Revoked,
}

/// A connection takes no new request in the last tenth of what its certificates had left at the
/// handshake; a second tenth is spread by chance, so that connections of one start do not all end at
/// once. Long enough before the end that an exchange of usual length is over by then.
const AGED_PERMILLE: std::ops::Range<u64> = 800..900;
/// What cannot be told to end (opaque bytes) is cut after its certificates' end and a tenth of what
/// they had left, at most this.
const OVER_GRACE_MS_MAX: u64 = 30_000;

impl TlsStream {
    /// A stream proven at `now_unix_s` with `material`.
    pub(super) fn new(pipe: Pipe, agreed: Agreed, material: &TlsMaterial, now_unix_s: i64) -> Self {
        let ends = material
            .not_after_unix_s()
            .min(agreed.proven.not_after_unix_s);
        let left_ms = u64::try_from(ends - now_unix_s).unwrap_or(0) * 1_000;
        let now = pipe.ring.now();
        // The clock's low bits are chance enough to spread by.
        let share = AGED_PERMILLE.start + now.0 % (AGED_PERMILLE.end - AGED_PERMILLE.start);
        Self {
            pipe,
            agreed,
            aged_at: now.plus_ms(left_ms / 1_000 * share),
            over_at: now.plus_ms(left_ms + OVER_GRACE_MS_MAX.min(left_ms / 10)),
            examined_under: Cell::new(material.number()),
            enlisted: None,
        }
    }

    /// Puts it among those that a revocation cuts off.
    ///
    /// # Errors
    /// Its peer has been revoked meanwhile; the connection is reset.
    pub fn enlist(&mut self, live: &Live) -> Result<(), TlsRefusal> {
        match live.enlist(&self.agreed.proven.serial, self.pipe.socket.cutter()) {
            Ok(enlisted) => self.enlisted = Some(enlisted),
            Err(refusal) => {
                self.pipe.reset();
                return Err(refusal.into());
            }
        }
        Ok(())
    }

    /// What its certificates still allow at `now`, under the material in force.
    #[must_use]
    pub fn standing(&self, material: Option<&TlsMaterial>, now: Mono) -> Standing {
        if let Some(material) = material
            && self.examined_under.get() != material.number()
        {
            if material.trust.revokes(&self.agreed.proven.serial) {
                return Standing::Revoked;
            }
            self.examined_under.set(material.number());
        }
        if now >= self.aged_at {
            Standing::Aged
        } else {
            Standing::Good
        }
    }

    /// Sends what is left of the handshake, rather than with the first bytes.
    ///
    /// # Errors
    /// The socket's.
    pub async fn finish_handshake(&self) -> io::Result<()> {
        self.pipe.drain().await
    }

    /// When it has to end, whatever it carries.
    #[must_use]
    pub fn over_at(&self) -> Mono {
        self.over_at
    }

    /// Whether the handshake resumed an earlier session.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.agreed.resumed
    }

    /// `x-forwarded-client-cert` of the client: who it is, by which certificate, and who we are to it.
    /// Written once per connection; `None` on the client's side.
    #[must_use]
    pub fn client_cert(&self) -> Option<&str> {
        self.agreed.client_cert.as_deref()
    }

    /// Who the other end proved to be.
    #[must_use]
    pub fn peer(&self) -> &PeerIdentity {
        &self.agreed.proven.identity
    }

    /// What is spoken inside.
    #[must_use]
    pub fn inner(&self) -> Inner {
        self.agreed.inner
    }

    /// Server name the client asked for; `None` on the client's side.
    #[must_use]
    pub fn sni(&self) -> Option<&str> {
        self.agreed.sni.as_deref()
    }

    /// Address of the other end.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.pipe.socket.peer_addr()
    }

    /// When the peer ended the connection below, or it failed, if it has.
    #[must_use]
    pub fn ended_at(&self) -> Option<Mono> {
        self.pipe.socket.ended_at()
    }

    /// Plaintext if there is any, without waiting.
    #[must_use]
    pub fn try_recv(&self) -> Option<io::Result<Chunk>> {
        loop {
            match self.pipe.decrypted() {
                Decrypted::Plain(chunk) => return Some(Ok(chunk)),
                Decrypted::Failed(error) => return Some(Err(error)),
                Decrypted::NoBuffer => return Some(Err(io::ErrorKind::OutOfMemory.into())),
                Decrypted::NeedMore => match self.pipe.socket.try_recv()? {
                    Ok(chunk) => self.pipe.take(chunk),
                    Err(error) => return Some(Err(error)),
                },
            }
        }
    }
}

impl std::fmt::Debug for TlsStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsStream")
            .field("peer", &self.peer().spiffe)
            .field("inner", &self.inner())
            .finish_non_exhaustive()
    }
}

impl ByteStream for TlsStream {
    async fn recv(&self) -> io::Result<Chunk> {
        loop {
            match self.pipe.decrypted() {
                Decrypted::Plain(chunk) => return Ok(chunk),
                Decrypted::Failed(error) => return Err(error),
                Decrypted::NoBuffer => self.pipe.wait_for_buffer().await,
                Decrypted::NeedMore => {
                    let chunk = self.pipe.socket.recv().await?;
                    self.pipe.take(chunk);
                }
            }
        }
    }

    /// As the socket's. If the future is dropped before it resolved, part of a record may be lost:
    /// the stream then refuses to send anything more.
    async fn send(&self, out: Out) -> io::Result<()> {
        self.pipe.send(&out).await
    }

    async fn flush(&self) -> io::Result<()> {
        self.pipe.drain().await?;
        self.pipe.socket.flush().await
    }

    /// close_notify, then FIN.
    async fn shutdown_write(&self) -> io::Result<()> {
        self.pipe.with_tls(|tls| tls.send_close_notify());
        self.pipe.drain().await?;
        self.pipe.socket.shutdown_write();
        Ok(())
    }

    fn reset(&self) {
        self.pipe.reset();
    }
}

/// Socket and TLS state without a proven peer.
pub(super) struct Pipe {
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
/// How often a buffer is asked for when the pool is empty; buffers come back within a turn or two.
const BUFFER_RETRY_MS: u64 = 1;
/// How long for: after that the shard is stuck, not busy.
const BUFFER_RETRIES_MAX: u32 = 1_000;

impl Pipe {
    pub(super) fn new(ring: &Ring, socket: Socket, mut tls: Connection) -> Self {
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

    pub(super) fn with_tls<T>(&self, ask: impl FnOnce(&mut Connection) -> T) -> T {
        ask(&mut self.state.borrow_mut().tls)
    }

    pub(super) fn reset(&self) {
        self.socket.reset();
    }

    /// Runs the handshake until nothing more is expected of the peer. `first` was received already.
    /// What is left to send then (a client's Finished, a server's ticket) goes out with the first
    /// bytes: one system call less at both ends, for most connections.
    pub(super) async fn handshake(&self, first: Chunk) -> Result<(), TlsRefusal> {
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
                    return Err(TlsRefusal::Io(io::ErrorKind::UnexpectedEof.into()));
                }
                self.take(chunk);
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

    async fn send(&self, out: &Out) -> io::Result<()> {
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
    pub(super) async fn drain(&self) -> io::Result<()> {
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
