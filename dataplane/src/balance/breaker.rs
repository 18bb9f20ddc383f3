//! Limits of one cluster on one shard (Istio connectionPool, SEMANTICS 3.6).

use ringmesh_wire::snapshot::Limits;

use crate::reason::Reason;

/// Share of active requests that may be retries, percent (Istio's default retry budget).
pub(super) const RETRY_BUDGET_PERCENT: u32 = 20;
/// Retries that are always within the budget.
pub(super) const RETRY_BUDGET_MIN: u32 = 3;

/// Which part of every limit is this shard's. The parts of all shards sum up to the limit, so the
/// sidecar as a whole never exceeds it; a shard may refuse while another has room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShardShare {
    /// This shard, from 0.
    pub shard: u32,
    /// All of them, at least 1.
    pub shards: u32,
}

impl ShardShare {
    /// The only shard.
    pub const WHOLE: Self = Self {
        shard: 0,
        shards: 1,
    };

    /// This shard's part of `limit`; "no limit" stays that.
    #[must_use]
    pub fn of(self, limit: u32) -> u32 {
        if limit == u32::MAX {
            return limit;
        }
        let shards = self.shards.max(1);
        limit / shards + u32::from(self.shard < limit % shards)
    }
}

/// A count with a limit.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Gauge {
    pub(super) used: u32,
    pub(super) max: u32,
}

impl Gauge {
    pub(super) fn take(&mut self) -> Result<(), Reason> {
        if self.used >= self.max {
            return Err(Reason::Overflow);
        }
        self.used += 1;
        Ok(())
    }

    pub(super) fn give(&mut self) {
        debug_assert!(self.used > 0, "given back twice");
        self.used = self.used.saturating_sub(1);
    }
}

/// All limits of a cluster.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    pub(super) connections: Gauge,
    pub(super) pending: Gauge,
    pub(super) requests: Gauge,
    pub(super) retries: Gauge,
}

impl Breaker {
    /// Sets the limits; what is under way stays counted even above a lowered limit.
    pub(super) fn limit(&mut self, limits: &Limits, share: ShardShare) {
        self.connections.max = share.of(limits.connections_max);
        self.pending.max = share.of(limits.pending_max);
        self.requests.max = share.of(limits.requests_max);
        self.retries.max = share.of(limits.retries_max);
    }

    pub(super) fn take_retry(&mut self) -> Result<(), Reason> {
        let load = u64::from(self.requests.used) + u64::from(self.pending.used);
        let budget = (load * u64::from(RETRY_BUDGET_PERCENT) / 100).max(RETRY_BUDGET_MIN.into());
        if u64::from(self.retries.used) >= budget {
            return Err(Reason::Overflow);
        }
        self.retries.take()
    }
}
