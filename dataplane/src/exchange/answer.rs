//! Answers of our own, on the wire.

use std::pin::pin;

use super::head_out::HeadOut;
use super::pipeline::After;
use super::record::Record;
use super::sides::Client;
use super::state::ShardState;
use crate::http1::{Answer, Sink as _};
use crate::http2::{Broken, Incoming, grpc, head};
use crate::reason::Reason;
use crate::ring::Ring;
use crate::wait;

/// What a connection above the bound gets, before anything of it is read.
pub const SHED_ANSWER: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nx-ringmesh-reason: shed\r\n\
content-length: 0\r\nconnection: close\r\n\r\n";

/// Sends `answer` and notes it. Where no buffer is left the connection closes without one: under
/// that pressure an answer is what we can do without.
pub(super) async fn send(
    shard: &ShardState,
    client: Client<'_>,
    answer: &Answer<'_>,
    record: &mut Record,
) -> After {
    let is_mistaken = client.takes_success_for_tunnel() && matches!(answer.status, 200..=299);
    let refusal;
    let answer = match is_mistaken {
        true => {
            refusal = Answer::of(Reason::UpgradeUnsupported);
            &refusal
        }
        false => answer,
    };
    record.status = answer.status;
    record.reason = answer.reason;
    let downstream = match client {
        Client::Http1(stream) => stream,
        Client::Http2(stream) => {
            return match on_stream(&shard.ring, stream, answer, record) {
                Ok(()) => After::KeepAlive,
                Err(Broken) => After::Reset,
            };
        }
    };
    let mut head = HeadOut::new(&shard.ring);
    if answer.put(&mut head).is_err() {
        return After::Reset;
    }
    if !answer.head_only {
        record.bytes_out += answer.body_len() as u64;
    }
    let sent = downstream.send_at_end(head.finish(), !answer.keep_alive);
    match wait::or_timeout(sent, pin!(shard.idle_from_now())).await {
        Some(Ok(())) if answer.keep_alive => After::KeepAlive,
        Some(Ok(())) => After::Close,
        // It reads nothing, not even what it was told before.
        Some(Err(_)) | None => After::Reset,
    }
}

/// A gRPC client gets headers alone, with the status in its own terms; any other the
/// answer as in HTTP/1.1.
fn on_stream(
    ring: &Ring,
    stream: &Incoming,
    answer: &Answer<'_>,
    record: &mut Record,
) -> Result<(), Broken> {
    if stream.is_grpc() {
        record.status = 200;
        record.grpc_status = Some(grpc::status_of(answer));
        return stream.answer(grpc::trailers_only(answer), true);
    }
    let mut bytes = Vec::with_capacity(256);
    let head_only = Answer {
        head_only: true,
        ..*answer
    };
    head_only.put(&mut bytes).map_err(|_| Broken)?;
    let head = head::response(&bytes.into()).ok_or(Broken)?;
    let bodiless = answer.head_only || matches!(answer.status, 204 | 304);
    if bodiless || answer.body_len() == 0 {
        return stream.answer(head, true);
    }
    let mut body = HeadOut::new(ring);
    for part in answer.body {
        body.put(part.as_bytes()).map_err(|_| Broken)?;
    }
    let body = body.finish();
    record.bytes_out += answer.body_len() as u64;
    stream.answer(head, false)?;
    let mut pieces = body.pieces().iter().peekable();
    while let Some(piece) = pieces.next() {
        stream.piece_now(piece.share(), pieces.peek().is_none())?;
    }
    Ok(())
}
