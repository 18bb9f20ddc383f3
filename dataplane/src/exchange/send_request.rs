//! A request on its way out: its head, and what is here of its body.

use std::cell::OnceCell;
use std::pin::Pin;

use h2::client::SendRequest;

use super::attempt::Changes;
use super::body::{BodyEnd, BodySink, BodySource};
use super::context::Exchange;
use super::flow::Direction;
use super::head_out::HeadOut;
use super::sides::Client;
use crate::http1::{ClientCert, Framing, Known, RequestPlan};
use crate::http2::{self, Outgoing, Piece, grpc, websocket};
use crate::ring::{ByteStream, Chunk, Sleep};
use crate::time::Mono;
use crate::upstream::{SharedLane, Stream};
use crate::wait;

/// Why a request did not go out.
#[derive(Debug, Clone, Copy)]
pub(super) enum SendFault {
    /// The connection broke.
    Broken,
    /// The connection takes no more streams: nothing was sent.
    Closed,
    /// The head cannot be said in HTTP/2, or asks for WebSocket without a key.
    Unsayable,
    /// The client's body breaks its framing.
    Body,
    /// The client is gone, in the middle of its body.
    ClientGone,
    /// The head does not fit.
    NoRoom,
    /// A time was over before the upstream took it.
    Late,
}

impl From<BodyEnd> for SendFault {
    fn from(end: BodyEnd) -> Self {
        match end {
            BodyEnd::Fault => Self::Body,
            BodyEnd::Failed => Self::ClientGone,
        }
    }
}

fn plan<'p>(
    x: &'p Exchange<'_>,
    changes: &Changes<'p>,
    framing: Framing,
    upgrade: bool,
) -> RequestPlan<'p> {
    RequestPlan {
        path: changes.path,
        host: changes.host,
        framing,
        request_id: x.sent_id().is_none().then_some(x.request_id),
        upgrade,
        client_cert: match (x.flow.direction, x.client.client_cert()) {
            (Direction::Outbound, _) => ClientCert::Keep,
            (Direction::Inbound { .. }, None) => ClientCert::Strip,
            (Direction::Inbound { .. }, Some(proven)) => ClientCert::Say(proven),
        },
        close: false,
        edits: changes.request,
    }
}

/// Opens a stream with what is here of the body. Does not wait: what was kept for another try is
/// bounded, and so is one more piece. `upgrade`: as extended CONNECT; there is no body then. Tells
/// whether the stream was ended.
pub(super) fn open_stream<'o>(
    x: &Exchange<'_>,
    changes: &Changes<'_>,
    framing: Framing,
    upgrade: bool,
    body: &mut BodySource<'_>,
    lane: &SharedLane,
    sender: &SendRequest<Piece>,
    deadline: Mono,
    outgoing: &'o OnceCell<Outgoing>,
) -> Result<(&'o Outgoing, bool), SendFault> {
    let plan = plan(x, changes, framing, false);
    let takes_trailers = x
        .request
        .field(Known::Te)
        .is_some_and(|te| te.eq_ignore_ascii_case(b"trailers"));
    // Another try finds it taken, and writes it.
    let arrived = match x.client {
        Client::Http1(_) => None,
        Client::Http2(stream) => stream.take_head(),
    };
    let passed =
        arrived.and_then(|head| http2::pass::request(head, &plan, &x.request, takes_trailers));
    let mut head = match passed {
        Some(head) => head,
        None => {
            let mut bytes = Vec::with_capacity(512);
            plan.put(&x.request, &mut bytes)
                .map_err(|_| SendFault::NoRoom)?;
            http2::head::request(&bytes.into(), takes_trailers).ok_or(SendFault::Unsayable)?
        }
    };
    if upgrade {
        let accept = websocket::accept_of(&x.request).ok_or(SendFault::Unsayable)?;
        let stream = Outgoing::open_websocket(
            outgoing,
            &x.shard.ring,
            &mut sender.clone(),
            lane.account(),
            head,
            accept,
        );
        let stream = stream.map_err(|_| SendFault::Closed)?;
        // Its end is the tunnel's.
        return Ok((stream, true));
    }
    // The time that is left, not the time there was.
    if x.is_grpc() && x.request.field(Known::GrpcTimeout).is_some() && deadline != Mono::NEVER {
        let left = deadline.since(x.shard.now());
        let left_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX);
        grpc::set_timeout_ms(head.headers_mut(), left_ms);
    }
    // Pieces of an earlier try come first, then what is here and was never sent.
    let kept: Vec<Chunk> = body.kept().map(Chunk::share).collect();
    let ready = match body.is_over() {
        true => None,
        false => body.ready()?,
    };
    let ended = body.is_at_end();
    let mut left = kept.len() + usize::from(ready.is_some());
    let last = ended && left == 0;
    let stream = Outgoing::open(
        outgoing,
        &x.shard.ring,
        &mut sender.clone(),
        lane.account(),
        head,
        last,
    );
    let stream = stream.map_err(|_| SendFault::Closed)?;
    for piece in kept.into_iter().chain(ready) {
        left -= 1;
        let sent = stream.piece_now(piece, ended && left == 0);
        sent.map_err(|_| SendFault::Broken)?;
    }
    Ok((stream, ended))
}

/// Sends the head with what is here of the body, in one submission where it fits, until `sleep` is over.
/// Gives the sink for the rest of it.
pub(super) async fn send_request(
    x: &Exchange<'_>,
    changes: &Changes<'_>,
    framing: Framing,
    upgrade: bool,
    body: &mut BodySource<'_>,
    upstream: &Stream,
    mut sleep: Pin<&mut Sleep>,
) -> Result<BodySink, SendFault> {
    if let Client::Http2(stream) = x.client {
        // Nobody will hand it on.
        drop(stream.take_head());
    }
    let ring = &x.shard.ring;
    let mut sink = BodySink::new(framing);
    let plan = plan(x, changes, framing, upgrade);
    let mut head = HeadOut::new(ring);
    plan.put(&x.request, &mut head)
        .map_err(|_| SendFault::NoRoom)?;
    // Pieces of an earlier try come first, then what is here and was never sent.
    let kept: Vec<Chunk> = body.kept().map(Chunk::share).collect();
    let mut kept = kept.into_iter();
    loop {
        while head.room() > PIECES_PER_BODY_PIECE {
            let piece = match kept.next() {
                Some(piece) => Some(piece),
                None => body.ready()?,
            };
            let Some(piece) = piece else {
                if body.is_over() {
                    let trailers = body.trailers();
                    sink.end_into(trailers, &mut head)
                        .map_err(|_| SendFault::NoRoom)?;
                }
                return match wait::or_timeout(upstream.send(head.finish()), sleep).await {
                    Some(Ok(())) => Ok(sink),
                    Some(Err(_)) => Err(SendFault::Broken),
                    None => Err(SendFault::Late),
                };
            };
            sink.piece_into(piece, &mut head)
                .map_err(|_| SendFault::NoRoom)?;
        }
        match wait::or_timeout(upstream.send(head.finish()), sleep.as_mut()).await {
            Some(Ok(())) => {}
            Some(Err(_)) => return Err(SendFault::Broken),
            None => return Err(SendFault::Late),
        }
        head = HeadOut::new(ring);
    }
}

/// A chunk's size line, its payload, the end of the body.
const PIECES_PER_BODY_PIECE: usize = 3;
