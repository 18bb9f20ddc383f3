//! After the switch: the two ends of an upgraded exchange, whichever version each speaks, and the bytes
//! between them (RFC 9110 section 7.8, RFC 8441 section 5).
//!
//! An end of a direction is a FIN in HTTP/1.1 and END_STREAM in HTTP/2; a reset is a reset and CANCEL.

use std::io;
use std::pin::pin;

use super::context::Exchange;
use super::head_out::HeadOut;
use super::pipeline::After;
use super::record::Record;
use super::relay;
use super::sides::Client;
use crate::http1::{Known, Response, ResponsePlan};
use crate::http2::{Incoming, Outgoing, websocket};
use crate::opaque;
use crate::ring::{ByteStream, Chunk, Out, Socket};
use crate::upstream::Stream;
use crate::view::HeaderLookup as _;
use crate::wait;

/// The upstream's end.
#[derive(Debug, Clone, Copy)]
pub(super) enum Server<'e> {
    /// A connection of its own.
    Own(&'e Stream),
    /// A stream, and the connection it is on.
    Shared(&'e Outgoing, &'e Stream),
}

impl<'e> Server<'e> {
    fn connection(self) -> &'e Stream {
        match self {
            Self::Own(stream) | Self::Shared(_, stream) => stream,
        }
    }

    fn end(self) -> End<'e> {
        match self {
            Self::Own(stream) => End::Connection(stream),
            Self::Shared(stream, _) => End::Opened(stream),
        }
    }
}

/// Why there is no tunnel although the server has switched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoTunnel {
    /// What it said does not answer what it was asked.
    BadResponse,
    /// The client does not take it.
    ClientGone,
}

/// Tells the client that the protocols are switched, and carries bytes until both directions are over.
/// `early` came from the client before, `pending` behind the server's head.
pub(super) async fn carry(
    x: &Exchange<'_>,
    server: Server<'_>,
    plan: &ResponsePlan<'_>,
    response: &Response<'_>,
    early: Chunk,
    pending: Chunk,
    record: &mut Record,
) -> Result<After, NoTunnel> {
    tell(x, plan, response, record).await?;
    let (client, downstream) = match x.client {
        Client::Http1(stream) => (End::Connection(stream), stream),
        Client::Http2(stream) => (End::Asked(stream), stream.connection()),
    };
    let upstream = server.connection();
    let options = opaque::RelayOptions {
        idle_timeout_ms: x.shard.limits.idle_timeout_ms,
        over_at: x.client.over_at().min(upstream.over_at()),
    };
    let ring = &x.shard.ring;
    let relayed = opaque::relay(ring, &client, &server.end(), early, pending, &options).await;
    record.bytes_in += relayed.forth;
    record.bytes_out += relayed.back;
    if let Some(reason) = relay::why_ended(x.shard, x.flow, &relayed, downstream, upstream) {
        record.reason = reason;
    }
    // A reset behind an end said in order would be taken for that end.
    Ok(match relayed.idle || relayed.over || relayed.reset {
        true => After::Reset,
        false => After::Close,
    })
}

/// Says the switch in the client's terms.
async fn tell(
    x: &Exchange<'_>,
    plan: &ResponsePlan<'_>,
    response: &Response<'_>,
    record: &mut Record,
) -> Result<(), NoTunnel> {
    match x.client {
        Client::Http1(stream) => {
            let mut out = HeadOut::new(&x.shard.ring);
            plan.put(response, &mut out)
                .map_err(|_| NoTunnel::ClientGone)?;
            let sent = stream.send(out.finish());
            match wait::or_timeout(sent, pin!(x.shard.idle_from_now())).await {
                Some(Ok(())) => Ok(()),
                Some(Err(_)) | None => Err(NoTunnel::ClientGone),
            }
        }
        Client::Http2(stream) => {
            // The key was ours, so what it is answered with is ours to look at (RFC 6455 section 4.1).
            let accept = response.first("sec-websocket-accept");
            let wanted = websocket::accept_of(&x.request);
            let protocol = response.field(Known::Upgrade).unwrap_or_default();
            if !protocol.eq_ignore_ascii_case(b"websocket")
                || wanted.as_deref().map(str::as_bytes) != accept
            {
                return Err(NoTunnel::BadResponse);
            }
            let mut head = Vec::with_capacity(512);
            plan.put(response, &mut head)
                .map_err(|_| NoTunnel::BadResponse)?;
            let head = websocket::switched(&head.into()).ok_or(NoTunnel::BadResponse)?;
            record.status = head.status().as_u16();
            let sent = stream.answer(head, false);
            sent.map_err(|_| NoTunnel::ClientGone)
        }
    }
}

/// One end of the bytes.
#[derive(Debug, Clone, Copy)]
enum End<'e> {
    /// All of a connection.
    Connection(&'e Stream),
    /// A stream a client opened.
    Asked(&'e Incoming),
    /// A stream of ours.
    Opened(&'e Outgoing),
}

fn broken<E>(_: E) -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

impl ByteStream for End<'_> {
    async fn recv(&self) -> io::Result<Chunk> {
        match self {
            Self::Connection(stream) => stream.recv().await,
            Self::Asked(stream) => stream.body().recv().await,
            Self::Opened(stream) => match stream.body() {
                Some(body) => body.recv().await,
                None => Err(broken(())),
            },
        }
    }

    fn try_recv(&self) -> Option<io::Result<Chunk>> {
        match self {
            Self::Connection(stream) => stream.try_recv(),
            // Would give back a window before the bytes were passed on.
            Self::Asked(_) | Self::Opened(_) => None,
        }
    }

    async fn send(&self, out: Out) -> io::Result<()> {
        let pieces = || out.pieces().iter().map(Chunk::share);
        match self {
            Self::Connection(stream) => stream.send(out).await,
            Self::Asked(stream) => {
                for piece in pieces() {
                    stream.piece(piece, false).await.map_err(broken)?;
                }
                Ok(())
            }
            Self::Opened(stream) => {
                for piece in pieces() {
                    stream.piece(piece, false).await.map_err(broken)?;
                }
                Ok(())
            }
        }
    }

    async fn flush(&self) -> io::Result<()> {
        match self {
            Self::Connection(stream) => stream.flush().await,
            Self::Asked(_) | Self::Opened(_) => Ok(()),
        }
    }

    async fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Self::Connection(stream) => stream.shutdown_write().await,
            Self::Asked(stream) => stream.end(&[]).map_err(broken),
            Self::Opened(stream) => stream.end(&[]).map_err(broken),
        }
    }

    fn plain(&self) -> Option<&Socket> {
        match self {
            Self::Connection(stream) => stream.plain(),
            Self::Asked(_) | Self::Opened(_) => None,
        }
    }

    async fn gone(&self) {
        match self {
            Self::Connection(stream) => stream.gone().await,
            Self::Asked(stream) => stream.gone().await,
            Self::Opened(stream) => stream.gone().await,
        }
    }

    fn reset(&self) {
        match self {
            Self::Connection(stream) => stream.reset(),
            Self::Asked(stream) => {
                stream.broke_off(h2::Reason::CANCEL);
                stream.cut();
            }
            Self::Opened(stream) => stream.reset(h2::Reason::CANCEL),
        }
    }
}
