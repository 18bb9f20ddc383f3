//! An encrypted connection to a proven peer, with the face of a socket.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;

use super::Inner;
use super::identity::Proven;
use super::live::{Enlisted, Live};
use super::material::TlsMaterial;
use super::pipe::Pipe;
use super::refusal::TlsRefusal;
use crate::ring::{ByteStream, Chunk, Out};
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
        let now = pipe.ring().now();
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
        match live.enlist(&self.agreed.proven.serial, self.pipe.socket().cutter()) {
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
        self.pipe.socket().peer_addr()
    }

    /// Our end.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.pipe.socket().local_addr()
    }

    /// When the peer ended the connection below, or it failed, if it has.
    #[must_use]
    pub fn ended_at(&self) -> Option<Mono> {
        self.pipe.socket().ended_at()
    }

    /// Plaintext if there is any, without waiting.
    #[must_use]
    pub fn try_recv(&self) -> Option<io::Result<Chunk>> {
        self.pipe.try_recv()
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
    fn recv(&self) -> impl Future<Output = io::Result<Chunk>> {
        self.pipe.recv()
    }

    fn send(&self, out: Out) -> impl Future<Output = io::Result<()>> {
        self.pipe.send(out)
    }

    fn flush(&self) -> impl Future<Output = io::Result<()>> {
        self.pipe.flush()
    }

    fn shutdown_write(&self) -> impl Future<Output = io::Result<()>> {
        self.pipe.shutdown_write()
    }

    async fn gone(&self) {
        self.pipe.socket().gone().await;
    }

    fn reset(&self) {
        self.pipe.reset();
    }
}
