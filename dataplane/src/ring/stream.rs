//! A stream of bytes both ways: what a relay and a protocol see of a plain or encrypted socket.

use std::future::Future;
use std::io;

use super::chunk::Chunk;
use super::out::Out;
use super::socket::Socket;

/// Bytes both ways. `recv` and `send` may be pending at the same time; neither loses bytes when
/// its future is dropped before it resolved.
pub trait ByteStream {
    /// The next bytes; an empty chunk is the peer's end of stream (and stays it).
    fn recv(&self) -> impl Future<Output = io::Result<Chunk>>;

    /// What `recv` would give at once, where that can be told without waiting.
    fn try_recv(&self) -> Option<io::Result<Chunk>> {
        None
    }

    /// Resolves when the bytes are accepted. An error of an earlier send may surface here.
    fn send(&self, out: Out) -> impl Future<Output = io::Result<()>>;

    /// Resolves when every accepted byte was handed to the kernel.
    fn flush(&self) -> impl Future<Output = io::Result<()>>;

    /// Ends our direction after what was accepted; the other one goes on.
    fn shutdown_write(&self) -> impl Future<Output = io::Result<()>>;

    /// The socket itself, where its bytes are the stream's: they may be spliced.
    fn plain(&self) -> Option<&Socket> {
        None
    }

    /// Resolves when the stream was given up, by its peer or by somebody here, where only waiting for that tells:
    /// a connection that was reset says so to whoever sends or receives.
    fn gone(&self) -> impl Future<Output = ()> {
        std::future::pending()
    }

    /// Gives the connection up: the peer sees a reset, not an end.
    fn reset(&self);
}

impl ByteStream for Socket {
    fn recv(&self) -> impl Future<Output = io::Result<Chunk>> {
        Self::recv(self)
    }

    fn try_recv(&self) -> Option<io::Result<Chunk>> {
        Self::try_recv(self)
    }

    fn send(&self, out: Out) -> impl Future<Output = io::Result<()>> {
        Self::send(self, out)
    }

    fn flush(&self) -> impl Future<Output = io::Result<()>> {
        Self::flush(self)
    }

    fn shutdown_write(&self) -> impl Future<Output = io::Result<()>> {
        Self::shutdown_write(self);
        std::future::ready(Ok(()))
    }

    fn plain(&self) -> Option<&Socket> {
        Some(self)
    }

    fn gone(&self) -> impl Future<Output = ()> {
        self.cut()
    }

    fn reset(&self) {
        Self::reset(self);
    }
}
