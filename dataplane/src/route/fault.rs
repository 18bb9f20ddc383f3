//! Injected faults: delay and abort, drawn independently; the delay comes first.

use ringmesh_wire::snapshot::{AbortWith, Fault};

use super::choose::scaled;

/// What was drawn for one request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// Wait this long before anything else, milliseconds; 0 is no delay. The route's timeout does
    /// not cover it.
    pub delay_ms: u64,
    /// Then answer this instead of forwarding.
    pub abort: Option<AbortWith>,
}

/// Draws the faults of a request from two independent random numbers.
#[must_use]
pub fn decide(fault: &Fault, random_delay: u64, random_abort: u64) -> FaultPlan {
    let falls = |random, per_million: u32| scaled(random, 1_000_000) < u64::from(per_million);
    FaultPlan {
        delay_ms: fault
            .delay
            .as_ref()
            .filter(|delay| falls(random_delay, delay.per_million))
            .map_or(0, |delay| delay.delay_ms),
        abort: fault
            .abort
            .as_ref()
            .filter(|abort| falls(random_abort, abort.per_million))
            .map(|abort| abort.with),
    }
}
