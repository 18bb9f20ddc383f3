//! An answer's way to the client: head and first body bytes in one submission, the rest as it comes.

use super::body::{BodyEnd, BodySink, BodySource};
use super::head_out::HeadOut;
use super::progress::Progress;
use super::sides::{Client, Inflow, OutFault, Outflow};
use crate::http1::{BodyDecoder, Response, ResponsePlan};
use crate::http2::{self, Incoming, Outgoing};
use crate::ring::{Chunk, Ring};
use crate::upstream::Stream;

/// What it takes.
#[derive(Debug)]
pub(super) struct Respond<'r> {
    pub(super) ring: &'r Ring,
    pub(super) upstream: Inflow<'r>,
    /// The stream that brings it, if it comes in HTTP/2.
    pub(super) from: Option<&'r Outgoing>,
    pub(super) client: Client<'r>,
    pub(super) plan: &'r ResponsePlan<'r>,
    pub(super) progress: &'r Progress<'r>,
}

/// Why an answer did not reach its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RespondFault {
    /// The client does not take it.
    ClientGone,
    /// The route's time is over.
    Timeout,
    /// Nothing moved for too long.
    Idle,
    /// The body breaks its framing.
    BadBody,
    /// The same, and nothing of the answer was sent.
    BadBodyUnsent,
    /// The upstream's connection failed.
    Broken,
    /// No buffer was left for the head: nothing was sent.
    NoRoom,
    /// No buffer was left for more of a body that is under way.
    Cut,
    /// The head cannot be said in the client's version: nothing was sent.
    BadHead,
}

/// Pieces one body piece may take: size line, payload, end.
const PIECES_PER_BODY_PIECE: usize = 3;

/// Sends the answer; whoever calls it has an eye on how long that takes. `pending` are the bytes behind its head; `decoder` is over at a clean end.
pub(super) async fn respond(
    to: &Respond<'_>,
    response: &Response<'_>,
    pending: &mut Chunk,
    decoder: &mut BodyDecoder,
    bytes_out: &mut u64,
) -> Result<(), RespondFault> {
    let mut source = BodySource::of_answer(to.upstream, pending, decoder, to.plan.framing);
    source.forget_kept();
    let mut outflow = match to.client {
        Client::Http1(stream) => {
            let sink = begin_http1(to, stream, response, &mut source).await;
            *bytes_out = source.bytes;
            Outflow::Http1 {
                stream,
                sink: sink?,
                ring: to.ring,
            }
        }
        Client::Http2(stream) => {
            let ended = begin_http2(to, stream, response, &mut source);
            *bytes_out = source.bytes;
            Outflow::Answer {
                stream,
                ended: ended?,
            }
        }
    };
    if source.is_over() {
        if outflow.has_ended() {
            return Ok(());
        }
        return Ok(outflow.end(source.trailers()).await?);
    }
    loop {
        let next = source.next(to.ring).await;
        *bytes_out = source.bytes;
        to.progress.moved();
        let piece = match next {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(BodyEnd::Fault) => return Err(RespondFault::BadBody),
            Err(BodyEnd::Failed) => return Err(RespondFault::Broken),
        };
        let last = source.is_at_end();
        outflow.piece(piece, last).await?;
        to.progress.moved();
    }
    outflow
        .end(source.trailers())
        .await
        .map_err(RespondFault::from)
}

impl From<OutFault> for RespondFault {
    /// Of a body under way.
    fn from(fault: OutFault) -> Self {
        match fault {
            OutFault::Broken => Self::ClientGone,
            OutFault::NoRoom => Self::Cut,
        }
    }
}

/// Of a body whose first piece went together with the head, or would have.
fn unsent(end: BodyEnd) -> RespondFault {
    match end {
        BodyEnd::Fault => RespondFault::BadBodyUnsent,
        BodyEnd::Failed => RespondFault::Broken,
    }
}

/// Sends the head and what is here of the body, in one submission.
///
/// Gives no more than the sink, which is returned in a register: a whole [`Outflow`] would be copied
/// in pieces other than it was written in, and the CPU waits for such stores to reach the cache.
async fn begin_http1(
    to: &Respond<'_>,
    stream: &Stream,
    response: &Response<'_>,
    source: &mut BodySource<'_>,
) -> Result<BodySink, RespondFault> {
    let mut head = HeadOut::new(to.ring);
    to.plan
        .put(response, &mut head)
        .map_err(|_| RespondFault::NoRoom)?;
    let mut sink = BodySink::new(to.plan.framing_out());
    while head.room() > PIECES_PER_BODY_PIECE {
        let Some(piece) = source.ready().map_err(unsent)? else {
            break;
        };
        sink.piece_into(piece, &mut head)
            .map_err(|_| RespondFault::NoRoom)?;
    }
    // Where pieces of body have taken all the room, the end of a chunked one goes out by itself.
    let room = sink.has_ended() || head.room() > PIECES_PER_BODY_PIECE;
    let ends = source.is_over() && room;
    if ends {
        sink.end_into(source.trailers(), &mut head)
            .map_err(|_| RespondFault::NoRoom)?;
    }
    let last = ends && !to.plan.stays_open();
    stream
        .send_at_end(head.finish(), last)
        .await
        .map_err(|_| RespondFault::ClientGone)?;
    if ends {
        // The client waits for this, and nobody for what is left to do.
        to.ring.hurry();
    }
    Ok(sink)
}

/// Sends the head, and the first piece of the body if it is here: no more than one, so that nothing
/// has to wait for the client's window.
///
/// Tells whether the stream was ended.
fn begin_http2(
    to: &Respond<'_>,
    stream: &Incoming,
    response: &Response<'_>,
    source: &mut BodySource<'_>,
) -> Result<bool, RespondFault> {
    let passed = (to.from.and_then(Outgoing::take_fields))
        .and_then(|fields| http2::pass::response(fields, to.plan, response));
    let head = match passed {
        Some(head) => head,
        None => {
            let mut head = Vec::with_capacity(512);
            to.plan
                .put(response, &mut head)
                .map_err(|_| RespondFault::NoRoom)?;
            http2::head::response(&head.into()).ok_or(RespondFault::BadHead)?
        }
    };
    let first = source.ready().map_err(unsent)?;
    let gone = |_| RespondFault::ClientGone;
    let ended = source.is_at_end();
    stream
        .answer(head, ended && first.is_none())
        .map_err(gone)?;
    if let Some(piece) = first {
        stream.piece_now(piece, ended).map_err(gone)?;
    }
    Ok(ended)
}
