//! Mutual TLS 1.3 between sidecars, over the ring's sockets.
//!
//! Reading order: [`TlsMaterial`] is our certificate and whom we trust, built on the agent's thread
//! and shared; [`accept`] and [`connect`] make a [`TlsStream`], which has the face of a socket
//! ([`crate::ring::ByteStream`]) and hands out plaintext as ring chunks; below it a [`Pipe`] moves the
//! records, for any peer; [`identify`] says whom a
//! certificate belongs to, purely.
//!
//! Invariants:
//! - a stream exists only after both sides showed a certificate that chains to our roots and that
//!   [`identify`] accepts; whether this identity may answer for a *service* is the caller's question
//!   (secure naming), asked before the first byte is sent;
//! - TLS 1.3 only; a resumed handshake saves signatures, never the look at the peer's certificate: a
//!   revocation or an expiry holds from the next connection on ([`Sessions`]);
//! - a peer whose certificate is revoked is cut off wherever it stands, within the turn in which the
//!   shard hears of it ([`Live`]);
//! - material is swapped, never changed: a connection keeps what it began with, and whoever serves it
//!   asks for its [`Standing`] before each request: older than its certificates nothing grows;
//! - end of stream means close_notify: a TCP end without one is an error, so nobody can cut a body
//!   short unseen.

mod handshake;
mod hash;
mod hello;
mod identity;
mod live;
mod material;
mod pipe;
mod refusal;
mod resume;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
mod verify;

pub use handshake::{accept, accept_begun, connect};
pub use hash::sha256;
pub use hello::{Hello, hello};
pub use identity::{PeerRefusal, PeerTrust, Proven, identify, prove};
pub use live::Live;
pub use material::{MaterialError, TlsMaterial};
pub use pipe::Pipe;
pub use refusal::TlsRefusal;
pub use resume::Sessions;
pub use stream::{Standing, TlsStream};

/// What is spoken inside, agreed by ALPN so that nobody has to sniff.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Inner {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Many HTTP/1.1 connections ([`crate::lanes`]). Whoever offers it takes HTTP/1.1 as well, so that a
    /// sidecar that does not know it picks that.
    Lanes,
    /// An opaque byte stream.
    Tcp,
}

impl Inner {
    /// All of them, those first that a server picks where it may choose.
    const ALL: [Self; 4] = [Self::Lanes, Self::Http1, Self::Http2, Self::Tcp];

    /// Its ALPN name.
    #[must_use]
    pub fn alpn(self) -> &'static [u8] {
        match self {
            Self::Http1 => ringmesh_wire::ALPN_MESH_HTTP1,
            Self::Http2 => ringmesh_wire::ALPN_MESH_HTTP2,
            Self::Lanes => ringmesh_wire::ALPN_MESH_LANES,
            Self::Tcp => ringmesh_wire::ALPN_MESH_TCP,
        }
    }

    fn from_alpn(name: Option<&[u8]>) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|inner| name == Some(inner.alpn()))
    }
}
