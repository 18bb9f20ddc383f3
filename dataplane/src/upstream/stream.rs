//! A connection, plain or encrypted, with one face.

use std::io;
use std::net::SocketAddr;

use crate::lanes::TrunkLane;
use crate::ring::{ByteStream, Chunk, Out, Socket};
use crate::time::Mono;
use crate::tls::{Standing, TlsMaterial, TlsStream};
use crate::view::PeerIdentity;

/// A TCP connection, with or without mutual TLS on it, or a lane of one.
#[derive(Debug)]
pub enum Stream {
    /// Plaintext.
    Plain(Socket),
    /// Mutual TLS. Boxed: its state is ten times a socket's.
    Tls(Box<TlsStream>),
    /// One of many on a connection with mutual TLS.
    Lane(TrunkLane),
}

impl Stream {
    /// The other end.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        match self {
            Self::Plain(socket) => socket.peer_addr(),
            Self::Tls(stream) => stream.peer_addr(),
            Self::Lane(lane) => lane.connection().peer_addr(),
        }
    }

    /// Who the other end proved to be; `None` on plaintext.
    #[must_use]
    pub fn identity(&self) -> Option<&PeerIdentity> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => Some(stream.peer()),
            Self::Lane(lane) => Some(lane.connection().peer()),
        }
    }

    /// When the other end closed, or the connection failed, if it has.
    #[must_use]
    pub fn ended_at(&self) -> Option<Mono> {
        match self {
            Self::Plain(socket) => socket.ended_at(),
            Self::Tls(stream) => stream.ended_at(),
            Self::Lane(lane) => lane.ended_at(),
        }
    }

    /// What its certificates still allow; everything on plaintext.
    #[must_use]
    pub fn standing(&self, material: Option<&TlsMaterial>, now: Mono) -> Standing {
        match self {
            Self::Plain(_) => Standing::Good,
            Self::Tls(stream) => stream.standing(material, now),
            Self::Lane(lane) => lane.connection().standing(material, now),
        }
    }

    /// When it has to end, whatever it carries: some time after its certificates.
    #[must_use]
    pub fn over_at(&self) -> Mono {
        match self {
            Self::Plain(_) => Mono::NEVER,
            Self::Tls(stream) => stream.over_at(),
            Self::Lane(lane) => lane.connection().over_at(),
        }
    }

    /// What `x-forwarded-client-cert` says of a caller that proved who it is.
    #[must_use]
    pub fn client_cert(&self) -> Option<&str> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(stream) => stream.client_cert(),
            Self::Lane(lane) => lane.connection().client_cert(),
        }
    }

    /// As [`send`](ByteStream::send); with `last` nothing will follow and our direction ends, on plaintext
    /// with these bytes in one segment where they fit.
    ///
    /// # Errors
    /// That of an earlier send.
    pub async fn send_at_end(&self, out: Out, last: bool) -> io::Result<()> {
        match self {
            Self::Plain(socket) if last => socket.send_last(out).await,
            Self::Plain(socket) => socket.send(out).await,
            // Its end is a record, or a frame, of its own.
            Self::Tls(stream) => stream.send(out).await,
            Self::Lane(lane) => lane.send(out).await,
        }
    }

    /// [`Socket::ack_now`] of the connection below.
    pub fn ack_now(&self) {
        match self {
            Self::Plain(socket) => socket.ack_now(),
            // A record is sent whole, and our own side has Nagle's algorithm off.
            Self::Tls(_) | Self::Lane(_) => {}
        }
    }

    /// Whether nothing arrived, not even an end. Takes what arrived, so only for connections on
    /// which nothing may arrive.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        match self {
            Self::Plain(socket) => socket.try_recv().is_none(),
            Self::Tls(stream) => stream.try_recv().is_none(),
            Self::Lane(lane) => lane.is_quiet(),
        }
    }

    /// Says whether it lies idle: nobody then misses the other end of a lane.
    pub fn rest(&self, resting: bool) {
        if let Self::Lane(lane) = self {
            lane.rest(resting);
        }
    }

    /// Gives back memory that only a busy connection needs; see [`Socket::slim`].
    pub fn slim(&self) {
        if let Self::Plain(socket) = self {
            socket.slim();
        }
    }
}

impl ByteStream for Stream {
    async fn recv(&self) -> io::Result<Chunk> {
        match self {
            Self::Plain(socket) => socket.recv().await,
            Self::Tls(stream) => stream.recv().await,
            Self::Lane(lane) => lane.recv().await,
        }
    }

    fn try_recv(&self) -> Option<io::Result<Chunk>> {
        match self {
            Self::Plain(socket) => socket.try_recv(),
            // Decrypting may take several calls: left to `recv`.
            Self::Tls(_) => None,
            Self::Lane(lane) => lane.try_recv(),
        }
    }

    async fn send(&self, out: Out) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.send(out).await,
            Self::Tls(stream) => stream.send(out).await,
            Self::Lane(lane) => lane.send(out).await,
        }
    }

    async fn flush(&self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => socket.flush().await,
            Self::Tls(stream) => stream.flush().await,
            Self::Lane(lane) => lane.flush().await,
        }
    }

    async fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Plain(socket) => {
                socket.shutdown_write();
                Ok(())
            }
            Self::Tls(stream) => stream.shutdown_write().await,
            Self::Lane(lane) => lane.shutdown_write().await,
        }
    }

    fn plain(&self) -> Option<&Socket> {
        match self {
            Self::Plain(socket) => Some(socket),
            Self::Tls(_) | Self::Lane(_) => None,
        }
    }

    async fn gone(&self) {
        match self {
            Self::Plain(socket) => socket.gone().await,
            Self::Tls(stream) => stream.gone().await,
            Self::Lane(lane) => lane.gone().await,
        }
    }

    fn reset(&self) {
        match self {
            Self::Plain(socket) => socket.reset(),
            Self::Tls(stream) => stream.reset(),
            Self::Lane(lane) => lane.reset(),
        }
    }
}
