//! The first bytes of a connection, gathered until they say what it is.
//!
//! Those that do not say it yet do not stay in the buffer they were received in: clients that send a byte
//! and wait would hold all of the shard's. The few that tell protocols apart stay in the connection's own
//! memory, the beginning of a TLS hello in the shard's budget.

use std::pin::pin;

use crate::budget::Kept;
use crate::detect::{DETECT_BYTES_MAX, Detected, detect};
use crate::exchange::ShardState;
use crate::reason::Reason;
use crate::ring::{ByteStream, Chunk, Ring};
use crate::time::Mono;
use crate::upstream::Stream;
use crate::wait;

/// What a client has said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Said {
    /// This.
    This(Detected),
    /// It has ended, or somebody else was first.
    Nothing,
}

impl Said {
    pub(super) fn is_http(self) -> bool {
        matches!(self, Self::This(Detected::Http1 | Detected::H2Preface))
    }
}

/// What was received until it was known what it is. Listening may be given up and begun again: nothing
/// is lost.
#[derive(Debug, Default)]
pub(super) struct FirstBytes {
    /// Bytes that did not say it.
    few: [u8; DETECT_BYTES_MAX],
    count: usize,
    /// The receive that did, behind them.
    rest: Chunk,
    /// When it has to be known, once the first of them has come.
    until: Option<Mono>,
}

impl FirstBytes {
    /// Receives until it is known. `None`: the connection failed, or began and did not go on in the time
    /// that a head may take. It is not taken for bytes of some kind then: they would pass every policy.
    pub(super) async fn listen(&mut self, shard: &ShardState, stream: &Stream) -> Option<Said> {
        let mut late = pin!(shard.ring.sleep_until(self.until.unwrap_or(Mono::NEVER)));
        loop {
            let Some(received) = wait::or_timeout(stream.recv(), late.as_mut()).await else {
                shard.meter().refused(Reason::HeadTimeout);
                stream.reset();
                return None;
            };
            let chunk = received.ok()?;
            if chunk.is_empty() {
                return Some(Said::Nothing);
            }
            if let Some(detected) = self.look(chunk) {
                return Some(Said::This(detected));
            }
            if self.until.is_none() {
                let until = shard.now().plus_ms(shard.limits.head_timeout_ms);
                self.until = Some(until);
                late.as_mut().reset(until);
            }
        }
    }

    /// Looks at what came next.
    fn look(&mut self, chunk: Chunk) -> Option<Detected> {
        let end = DETECT_BYTES_MAX.min(self.count + chunk.len());
        let room = &mut self.few[self.count..end];
        room.copy_from_slice(&chunk[..room.len()]);
        match detect(&self.few[..end]) {
            Detected::NeedMore if end < DETECT_BYTES_MAX => {
                self.count = end;
                None
            }
            detected => {
                self.rest = chunk;
                Some(detected)
            }
        }
    }

    /// All of it. `None`: no buffer is left to put it together in.
    pub(super) fn into_chunk(self, ring: &Ring) -> Option<Chunk> {
        match self.count {
            0 => Some(self.rest),
            count => joined(ring, &self.few[..count], &self.rest),
        }
    }
}

/// `None`: no buffer is left, or one does not do.
fn joined(ring: &Ring, begin: &[u8], end: &[u8]) -> Option<Chunk> {
    let mut buf = ring.buf()?;
    buf.extend_from_slice(begin).ok()?;
    buf.extend_from_slice(end).ok()?;
    Some(buf.freeze())
}

/// The first bytes of a connection, and what they say; `None` if it ended or said nothing in the
/// time of an idle connection.
pub(super) async fn sniff(shard: &ShardState, stream: &Stream) -> Option<(Detected, Chunk)> {
    let until = shard.now().plus_ms(shard.limits.keep_alive_timeout_ms);
    let give_up = pin!(shard.ring.sleep_until(until));
    let mut first = FirstBytes::default();
    match wait::or_timeout(first.listen(shard, stream), give_up).await?? {
        Said::This(detected) => Some((detected, first.into_chunk(&shard.ring)?)),
        Said::Nothing => None,
    }
}

/// Receives behind `first` until `decide` knows, by `until`.
///
/// # Errors
/// [`Reason::HeadTimeout`]: the connection ended, the time was over, or [`HELLO_BYTES_MAX`] did not do.
/// [`Reason::Shed`]: the shard keeps too much already.
pub(super) async fn gather<T>(
    shard: &ShardState,
    stream: &Stream,
    first: Chunk,
    until: Mono,
    decide: impl Fn(&[u8]) -> Option<T>,
) -> Result<(T, Chunk), Reason> {
    if let Some(decided) = decide(&first) {
        return Ok((decided, first));
    }
    let mut give_up = pin!(shard.ring.sleep_until(until));
    let (mut kept, mut chunk) = (Kept::default(), first);
    loop {
        let room = kept.extend(&shard.budget, &chunk);
        room.map_err(|_| Reason::Shed)?;
        drop(chunk);
        if let Some(decided) = decide(&kept) {
            let all = joined(&shard.ring, &kept, &[]).ok_or(Reason::Shed)?;
            return Ok((decided, all));
        }
        chunk = match wait::or_timeout(stream.recv(), give_up.as_mut()).await {
            Some(Ok(chunk)) if !chunk.is_empty() => chunk,
            _ => return Err(Reason::HeadTimeout),
        };
        if kept.len() + chunk.len() > HELLO_BYTES_MAX {
            return Err(Reason::HeadTimeout);
        }
    }
}

/// What is looked at of a hello: one output buffer, several times the largest of today.
const HELLO_BYTES_MAX: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ring::tests::ring;

    proptest! {
        /// However it comes, what is known is known as early as from the whole, and no byte is lost.
        #[test]
        fn pieces_say_what_the_whole_says(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 1..60),
                "(GET|PRI|POST|X) ?[/*ha\\[]?.{0,30}".prop_map(String::into_bytes),
            ],
            cuts in prop::collection::vec(1..9_usize, 1..30),
        ) {
            prop_assume!(!bytes.is_empty());
            let ring = ring();
            let (mut first, mut fed, mut said) = (FirstBytes::default(), 0, None);
            for cut in cuts.iter().cycle() {
                let piece = &bytes[fed..bytes.len().min(fed + cut)];
                if piece.is_empty() || said.is_some() {
                    break;
                }
                let mut buf = ring.buf().unwrap();
                buf.extend_from_slice(piece).unwrap();
                fed += piece.len();
                said = first.look(buf.freeze());
                prop_assert!(said.is_some() || first.rest.is_empty(), "a buffer is held");
            }
            let whole = detect(&bytes[..fed]);
            let expected = match whole {
                Detected::NeedMore if fed < DETECT_BYTES_MAX => None,
                whole => Some(whole),
            };
            prop_assert_eq!(said, expected);
            prop_assert_eq!(&*first.into_chunk(&ring).unwrap(), &bytes[..fed]);
        }
    }
}
