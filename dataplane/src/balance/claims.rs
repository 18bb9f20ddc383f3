//! Who waits on other shards for a connection of a cluster, and whose turn it is. Pure.
//!
//! A shard whose requests wait tells the others since when the first of them does, again and again as
//! long as it waits. A connection that comes free goes to whoever has waited longest, here or there: so
//! nobody waits for requests that came [`TURN_MS`] after it, however busy another shard is.

use super::Slot;
use crate::time::Mono;

/// What comes free goes to another shard only if that has waited so much longer than who waits here (or,
/// where nobody does, than a request that comes now), milliseconds: each turn of a shard costs a
/// connection, and without it shards under equal load would have one request a turn.
pub(super) const TURN_MS: u64 = 10;
/// A claim that was not renewed for so long is over, milliseconds: its requests have given up. Long enough
/// for a shard that is kept from its CPU; what goes to one that needs nothing any more, once for each claim,
/// comes back when asked for.
const CLAIM_MS: u64 = 1_000;

/// The first request in the line of another shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The shard.
    pub from: u16,
    /// Where it has the cluster.
    pub slot: Slot,
    /// Since when that request waits.
    pub since: Mono,
}

/// The claims of other shards on the connections of one cluster here: one of each.
#[derive(Debug, Default)]
pub(super) struct Claims(Vec<(Claim, Mono)>);

impl Claims {
    /// Takes a claim, in place of an earlier one of its shard.
    pub(super) fn renew(&mut self, claim: Claim, now: Mono) {
        let until = now.plus_ms(CLAIM_MS);
        let Self(all) = self;
        match all.iter_mut().find(|(known, _)| known.from == claim.from) {
            Some(known) => *known = (claim, until),
            None => all.push((claim, until)),
        }
    }

    /// The claim that goes before whoever waits here since `own_since`, or comes now.
    pub(super) fn first(&self, own_since: Option<Mono>, now: Mono) -> Option<Claim> {
        let Self(all) = self;
        let alive = all.iter().filter(|(_, until)| now < *until);
        let oldest = alive.map(|(claim, _)| *claim);
        oldest
            .min_by_key(|claim| claim.since)
            .filter(|claim| claim.since.plus_ms(TURN_MS) <= own_since.unwrap_or(now))
    }

    /// A shard has got what it claimed, or does not need it.
    pub(super) fn met(&mut self, from: u16) {
        let Self(all) = self;
        all.retain(|(claim, _)| claim.from != from);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Mono = Mono(5_000_000_000);

    fn claim(from: u16, since: Mono) -> Claim {
        let slot = Slot { at: 0, id: 1 };
        Claim { from, slot, since }
    }

    #[test]
    fn who_waited_longest_goes_first() {
        let mut claims = Claims::default();
        assert_eq!(claims.first(None, NOW), None);
        let (older, younger) = (claim(2, NOW), claim(1, NOW.plus_ms(1)));
        let now = NOW.plus_ms(30);
        claims.renew(younger, now);
        claims.renew(older, now);
        assert_eq!(claims.first(None, now), Some(older));
        claims.met(2);
        assert_eq!(claims.first(None, now), Some(younger));
        claims.met(1);
        assert_eq!(claims.first(None, now), None);
    }

    #[test]
    fn those_who_wait_here_go_before_who_came_hardly_earlier() {
        let mut claims = Claims::default();
        let there = claim(1, NOW);
        claims.renew(there, NOW);
        let now = NOW.plus_ms(50);
        assert_eq!(claims.first(Some(NOW.plus_ms(TURN_MS - 1)), now), None);
        assert_eq!(claims.first(Some(NOW.plus_ms(TURN_MS)), now), Some(there));
        // Nobody waits here: so long the turn lasts.
        assert_eq!(claims.first(None, NOW.plus_ms(TURN_MS - 1)), None);
        assert_eq!(claims.first(None, NOW.plus_ms(TURN_MS)), Some(there));
    }

    #[test]
    fn a_claim_that_is_not_renewed_ends() {
        let mut claims = Claims::default();
        let there = claim(1, NOW);
        claims.renew(there, NOW);
        assert_eq!(claims.first(None, NOW.plus_ms(CLAIM_MS)), None);
        claims.renew(there, NOW.plus_ms(CLAIM_MS));
        assert_eq!(claims.first(None, NOW.plus_ms(CLAIM_MS)), Some(there));
    }
}
