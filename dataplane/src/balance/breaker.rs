//! Limits of one cluster on one shard (Istio connectionPool).

use ringmesh_wire::snapshot::Limits;

use super::claims::Claims;
use super::ledger::Ledger;
use crate::reason::Reason;

/// Share of active requests that may be retries, percent (Istio's default retry budget).
pub(super) const RETRY_BUDGET_PERCENT: u32 = 20;
/// Retries that are always within the budget.
pub(super) const RETRY_BUDGET_MIN: u32 = 3;

/// Which part of every limit a shard begins with. The parts of all shards sum up to the limit, so the
/// sidecar as a whole never exceeds it; what one lacks it borrows of another.
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

/// Which limit of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// `tcp.maxConnections`.
    Connections,
    /// `http.http1MaxPendingRequests`.
    Pending,
    /// `http.http2MaxRequests`.
    Requests,
    /// `http.maxRetries`.
    Retries,
}

impl Limit {
    pub(super) const ALL: [Self; 4] = [
        Self::Connections,
        Self::Pending,
        Self::Requests,
        Self::Retries,
    ];
}

/// All limits of a cluster.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    pub(super) connections: Ledger,
    pub(super) pending: Ledger,
    pub(super) requests: Ledger,
    pub(super) retries: Ledger,
    /// On `connections`.
    pub(super) claims: Claims,
}

impl Breaker {
    /// Sets the limits; what is under way stays counted even above a lowered limit.
    pub(super) fn limit(&mut self, limits: &Limits, share: ShardShare) {
        self.connections.limit(limits.connections_max, share);
        self.pending.limit(limits.pending_max, share);
        self.requests.limit(limits.requests_max, share);
        self.retries.limit(limits.retries_max, share);
    }

    pub(super) fn ledger(&mut self, of: Limit) -> &mut Ledger {
        match of {
            Limit::Connections => &mut self.connections,
            Limit::Pending => &mut self.pending,
            Limit::Requests => &mut self.requests,
            Limit::Retries => &mut self.retries,
        }
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
