//! Full-jitter back-off (pure).
//!
//! After a control restart every sidecar of the mesh comes back: a delay drawn evenly from zero to
//! a doubling bound spreads them better than any fixed schedule.

use std::time::Duration;

/// First bound. Small, so that a restarted control has its sidecars back within a second.
const BASE_MS: u64 = 100;
/// Largest bound: 10,000 sidecars at 3 s are 6,000 attempts a second at most, each one packet.
const CAP_MS: u64 = 3_000;
/// Never less than this: a control that refuses at once must not be hammered.
const FLOOR_MS: u64 = 20;

/// Delay before attempt number `attempt` (from 0), drawn by `random`.
#[must_use]
pub fn delay(attempt: u32, random: u64) -> Duration {
    let bound_ms = BASE_MS
        .checked_shl(attempt.min(16))
        .unwrap_or(CAP_MS)
        .min(CAP_MS);
    Duration::from_millis((random % (bound_ms + 1)).max(FLOOR_MS))
}

/// Delay after a refusal that no quick retry can cure: the upper half of the largest bound.
#[must_use]
pub fn long_delay(random: u64) -> Duration {
    Duration::from_millis(CAP_MS / 2 + random % (CAP_MS / 2 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_stays_inside_its_bounds(attempt in any::<u32>(), random in any::<u64>()) {
            let ms = delay(attempt, random).as_millis();
            prop_assert!((20..=3_000).contains(&ms));
            prop_assert!(attempt > 0 || ms <= 100);
            let ms = long_delay(random).as_millis();
            prop_assert!((1_500..=3_000).contains(&ms));
        }
    }
}
