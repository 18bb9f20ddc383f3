//! The first bytes of a connection, gathered until they say what it is.

use std::pin::pin;

use crate::detect::{Detected, detect};
use crate::exchange::ShardState;
use crate::ring::{ByteStream, Chunk};
use crate::time::Mono;
use crate::upstream::Stream;
use crate::wait;

/// The first bytes of a connection, and what they say; `None` if it ended or said nothing in the
/// time of an idle connection.
pub(super) async fn sniff(shard: &ShardState, stream: &Stream) -> Option<(Detected, Chunk)> {
    let until = shard.now().plus_ms(shard.limits.keep_alive_timeout_ms);
    gather(shard, stream, Chunk::empty(), until, |bytes| {
        Some(detect(bytes)).filter(|detected| *detected != Detected::NeedMore)
    })
    .await
}

/// Receives behind `first` until `decide` knows. `None` if the connection ended, the time was over, or
/// one buffer (16 KiB, several times the largest hello of today) did not do.
pub(super) async fn gather<T>(
    shard: &ShardState,
    stream: &Stream,
    first: Chunk,
    until: Mono,
    decide: impl Fn(&[u8]) -> Option<T>,
) -> Option<(T, Chunk)> {
    let mut give_up = pin!(shard.ring.sleep_until(until));
    let mut gathered = first;
    loop {
        if let Some(decided) = decide(&gathered) {
            return Some((decided, gathered));
        }
        let chunk = wait::or_timeout(stream.recv(), give_up.as_mut())
            .await?
            .ok()?;
        if chunk.is_empty() {
            return None;
        }
        if gathered.is_empty() {
            gathered = chunk;
            continue;
        }
        let mut buf = shard.ring.buf()?;
        buf.extend_from_slice(&gathered).ok()?;
        buf.extend_from_slice(&chunk).ok()?;
        gathered = buf.freeze();
    }
}
