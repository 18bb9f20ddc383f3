//! The two sides of an exchange: who asks and who answers, whatever they speak.
//!
//! Decided by a `match` where bytes move, so the exchange itself is written once.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;

use super::body::{BodySink, NoRoom};
use super::flow::Flow;
use super::state::ShardState;
use crate::http1::Framing;
use crate::http2::{Body, Broken, Incoming, Outgoing};
use crate::ring::{ByteStream, Chunk, Ring};
use crate::time::Mono;
use crate::upstream::Stream;

/// The client.
#[derive(Debug, Clone, Copy)]
pub(super) enum Client<'c> {
    /// An HTTP/1.1 connection.
    Http1(&'c Stream),
    /// A stream of an HTTP/2 connection.
    Http2(&'c Incoming),
}

/// What is seen of a client that waits for its answer.
#[derive(Debug)]
pub(super) enum Seen {
    /// It does not wait any more.
    Gone,
    /// It will send nothing more, and waits: legal after a whole request.
    HalfClosed,
    /// Its next request, early.
    Early(Chunk),
}

impl<'c> Client<'c> {
    /// Its request's body.
    pub(super) fn inflow(self) -> Inflow<'c> {
        match self {
            Self::Http1(stream) => Inflow::Http1(stream),
            Self::Http2(stream) => Inflow::Http2(stream.body()),
        }
    }

    /// Whether a 2xx would open a tunnel for it.
    pub(super) fn takes_success_for_tunnel(self) -> bool {
        matches!(self, Self::Http2(stream) if stream.is_websocket())
    }

    /// Whether its connection takes no more requests, which the answer has to say.
    pub(super) fn must_close(self, shard: &ShardState, flow: &Flow) -> bool {
        match self {
            Self::Http1(stream) => shard.must_close(flow, stream),
            Self::Http2(stream) => shard.must_close(flow, stream.connection()),
        }
    }

    /// When its connection has to end, whatever it carries.
    pub(super) fn over_at(self) -> Mono {
        match self {
            Self::Http1(stream) => stream.over_at(),
            Self::Http2(stream) => stream.connection().over_at(),
        }
    }

    /// What `x-forwarded-client-cert` says of it, if it proved who it is.
    pub(super) fn client_cert(self) -> Option<&'c str> {
        match self {
            Self::Http1(stream) => stream.client_cert(),
            Self::Http2(stream) => stream.connection().client_cert(),
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
            Self::Http2(stream) => {
                stream.gone().await;
                Seen::Gone
            }
        }
    }
}

/// Where a body comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Inflow<'c> {
    /// Bytes of a connection, in the message's framing.
    Http1(&'c Stream),
    /// Frames of a stream, which say themselves where the body ends.
    Http2(&'c Body),
}

impl<'c> Inflow<'c> {
    /// How what arrives is to be read, where the message says `told`.
    pub(super) fn framing(self, told: Framing) -> Framing {
        match self {
            Self::Http1(_) => told,
            Self::Http2(body) if body.is_over() || body.is_tunnel() => Framing::None,
            Self::Http2(_) => Framing::UntilClose,
        }
    }

    /// What [`Self::recv`] would give at once, where that is cheap to tell.
    pub(super) fn try_recv(self) -> Option<io::Result<Chunk>> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(body) => body.try_recv(),
        }
    }

    /// Whether the body is known to be over although nothing said so in its bytes.
    pub(super) fn has_ended(self) -> bool {
        match self {
            Self::Http1(_) => false,
            Self::Http2(body) => body.is_over(),
        }
    }

    /// Trailer lines that came beside the bytes.
    pub(super) fn trailers(self) -> Option<&'c [u8]> {
        match self {
            Self::Http1(_) => None,
            Self::Http2(body) => Some(body.trailers()),
        }
    }

    /// The next bytes; an empty chunk is the end.
    pub(super) async fn recv(self) -> io::Result<Chunk> {
        match self {
            Self::Http1(stream) => stream.recv().await,
            Self::Http2(body) => body.recv().await,
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
            Self::Http2(body) => body.recv().await,
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
    /// A client's stream.
    Answer { stream: &'o Incoming, ended: bool },
    /// A stream of ours.
    Request { stream: &'o Outgoing, ended: bool },
}

/// Why a body did not go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OutFault {
    /// The other side does not take it.
    Broken,
    /// No buffer was left.
    NoRoom,
}

impl From<Broken> for OutFault {
    fn from(_: Broken) -> Self {
        Self::Broken
    }
}

impl From<NoRoom> for OutFault {
    fn from(_: NoRoom) -> Self {
        Self::NoRoom
    }
}

impl Outflow<'_> {
    /// Sends a piece, the `last` one if nothing follows; waits until the other side takes it.
    ///
    /// # Errors
    /// [`OutFault`].
    pub(super) async fn piece(&mut self, piece: Chunk, last: bool) -> Result<(), OutFault> {
        match self {
            Self::Http1 { stream, sink, ring } => {
                let out = sink.piece(piece, ring)?;
                stream.send(out).await.map_err(|_| OutFault::Broken)
            }
            Self::Answer { stream, ended } => {
                *ended = last;
                Ok(stream.piece(piece, last).await?)
            }
            Self::Request { stream, ended } => {
                *ended = last;
                Ok(stream.piece(piece, last).await?)
            }
        }
    }

    /// Whether the end was said, so that [`Self::end`] has nothing to do.
    pub(super) fn has_ended(&self) -> bool {
        match self {
            Self::Http1 { sink, .. } => sink.has_ended(),
            Self::Answer { ended, .. } | Self::Request { ended, .. } => *ended,
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
            Self::Answer { ended: true, .. } | Self::Request { ended: true, .. } => Ok(()),
            Self::Answer { stream, ended } => {
                *ended = true;
                Ok(stream.end(trailers)?)
            }
            Self::Request { stream, ended } => {
                *ended = true;
                Ok(stream.end(trailers)?)
            }
        }
    }
}
