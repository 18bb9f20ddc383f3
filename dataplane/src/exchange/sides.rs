//! The two sides of an exchange: who asks and who answers, whatever they speak.
//!
//! Decided by a `match` where bytes move, so the exchange itself is written once.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;

use super::body::{BodySink, NoRoom};
use super::state::ShardState;
use crate::ring::{ByteStream, Chunk, Ring};
use crate::time::Mono;
use crate::upstream::Stream;

/// The client.
#[derive(Debug, Clone, Copy)]
pub(super) enum Client<'c> {
    /// An HTTP/1.1 connection.
    Http1(&'c Stream),
}

/// What is seen of a client that waits for its answer.
#[derive(Debug)]
pub(super) enum Seen {
    /// It does not wait any more.
    Gone,
    /// It will send nothing more, and waits: legal after a whole request (SEMANTICS 8.9).
    HalfClosed,
    /// Its next request, early.
    Early(Chunk),
}

impl<'c> Client<'c> {
    /// Its request's body.
    pub(super) fn inflow(self) -> Inflow<'c> {
        match self {
            Self::Http1(stream) => Inflow::Http1(stream),
        }
    }

    /// Whether its connection takes no more requests, which the answer has to say.
    pub(super) fn must_close(self, shard: &ShardState) -> bool {
        match self {
            Self::Http1(stream) => shard.must_close(stream),
        }
    }

    /// When its connection has to end, whatever it carries.
    pub(super) fn over_at(self) -> Mono {
        match self {
            Self::Http1(stream) => stream.over_at(),
        }
    }

    /// What `x-forwarded-client-cert` says of it, if it proved who it is.
    pub(super) fn client_cert(self) -> Option<&'c str> {
        match self {
            Self::Http1(stream) => stream.client_cert(),
        }
    }

    /// Looks at it while it waits for its answer; only after the whole request was taken.
    pub(super) async fn watch(self) -> Seen {
        match self {
            Self::Http1(stream) => match stream.recv().await {
                Err(_) => Seen::Gone,
                Ok(chunk) if chunk.is_empty() => Seen::HalfClosed,
                Ok(chunk) => Seen::Early(chunk),
            },
        }
    }
}

/// Where a body comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Inflow<'c> {
    /// Bytes of a connection, in the message's framing.
    Http1(&'c Stream),
}

impl Inflow<'_> {
    /// The next bytes; an empty chunk is the end.
    pub(super) async fn recv(self) -> io::Result<Chunk> {
        match self {
            Self::Http1(stream) => stream.recv().await,
        }
    }

    /// [`Self::recv`] of a body of which nothing has come yet. A peer that writes head and body apart
    /// with Nagle's algorithm on holds the body back until the head is acknowledged, and nothing
    /// else would do that soon.
    pub(super) async fn recv_first(self) -> io::Result<Chunk> {
        match self {
            Self::Http1(stream) => {
                let mut recv = pin!(stream.recv());
                let mut waits = false;
                poll_fn(|cx| {
                    let polled = recv.as_mut().poll(cx);
                    if polled.is_pending() && !waits {
                        waits = true;
                        stream.ack_now();
                    }
                    polled
                })
                .await
            }
        }
    }
}

/// Where a body goes, behind a head that was sent.
#[derive(Debug)]
pub(super) enum Outflow<'o> {
    /// A connection, in the framing that was announced.
    Http1 {
        stream: &'o Stream,
        sink: BodySink,
        ring: &'o Ring,
    },
}

/// Why a body did not go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutFault {
    /// The other side does not take it.
    Broken,
    /// No buffer was left.
    NoRoom,
}

impl From<NoRoom> for OutFault {
    fn from(_: NoRoom) -> Self {
        Self::NoRoom
    }
}

impl Outflow<'_> {
    /// Sends a piece; waits until the other side takes it.
    ///
    /// # Errors
    /// [`OutFault`].
    pub(super) async fn piece(&mut self, piece: Chunk) -> Result<(), OutFault> {
        match self {
            Self::Http1 { stream, sink, ring } => {
                let out = sink.piece(piece, ring)?;
                stream.send(out).await.map_err(|_| OutFault::Broken)
            }
        }
    }

    /// Says that the body is over, if that is to be said and was not.
    ///
    /// # Errors
    /// [`OutFault`].
    pub(super) async fn end(&mut self, trailers: &[u8]) -> Result<(), OutFault> {
        match self {
            Self::Http1 { stream, sink, ring } => match sink.end(trailers, ring)? {
                Some(out) => stream.send(out).await.map_err(|_| OutFault::Broken),
                None => Ok(()),
            },
        }
    }
}
