//! Answers of our own, on the wire.

use super::head_out::HeadOut;
use super::pipeline::After;
use super::record::Record;
use super::sides::Client;
use crate::http1::Answer;
use crate::ring::{ByteStream, Ring};

/// Sends `answer` and notes it. Where no buffer is left the connection closes without one: under
/// that pressure an answer is what we can do without.
pub(super) async fn send(
    ring: &Ring,
    client: Client<'_>,
    answer: &Answer<'_>,
    record: &mut Record,
) -> After {
    record.status = answer.status;
    record.reason = answer.reason;
    let Client::Http1(downstream) = client;
    let mut head = HeadOut::new(ring);
    if answer.put(&mut head).is_err() {
        return After::Reset;
    }
    if !answer.head_only {
        record.bytes_out += answer.body_len() as u64;
    }
    match downstream.send(head.finish()).await {
        Ok(()) if answer.keep_alive => After::KeepAlive,
        Ok(()) => After::Close,
        Err(_) => After::Reset,
    }
}
