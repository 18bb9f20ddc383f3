//! Allocations made by the turns of the shards' rings: everything a shard does for traffic. Counted
//! only in builds with the feature `count-allocations`; any other build runs the turn and nothing
//! else.

#[cfg(feature = "count-allocations")]
use std::sync::atomic::{AtomicU64, Ordering};

/// Of all shards of the process. Relaxed: it is a figure, nothing is ordered by it.
#[cfg(feature = "count-allocations")]
static MADE: AtomicU64 = AtomicU64::new(0);

/// Runs `turn` and counts what this thread allocates in it. A reallocation counts as one.
#[cfg(feature = "count-allocations")]
pub(super) fn count<T: Default>(turn: impl FnOnce() -> T) -> T {
    let mut outcome = T::default();
    let made = allocation_counter::measure(|| outcome = turn());
    MADE.fetch_add(made.count_total, Ordering::Relaxed);
    outcome
}

/// As it says.
#[cfg(not(feature = "count-allocations"))]
#[inline(always)]
pub(super) fn count<T>(turn: impl FnOnce() -> T) -> T {
    turn()
}

/// Allocations of all shards since the start; `None` where they are not counted.
#[must_use]
pub fn allocations() -> Option<u64> {
    #[cfg(feature = "count-allocations")]
    return Some(MADE.load(Ordering::Relaxed));
    #[cfg(not(feature = "count-allocations"))]
    None
}
