//! The changing state of one cluster on one shard.

use std::net::SocketAddr;

use ringmesh_wire::snapshot::{Balance, EndpointState as Confidence, Outlier};

use super::breaker::{Breaker, ShardShare};
use super::outlier::{Health, Verdict};
use super::{ClusterStatus, EndpointId};
use crate::tables::{ClusterKey, ClusterRow, EndpointRow};
use crate::time::Mono;

/// One endpoint.
#[derive(Debug)]
pub(super) struct EndpointState {
    pub(super) id: EndpointId,
    pub(super) address: SocketAddr,
    pub(super) weight: u32,
    /// Used only if nothing else is left.
    pub(super) last_known: bool,
    /// Tries under way.
    pub(super) active: u32,
    pub(super) health: Health,
}

/// One cluster. `endpoints` stands in the order of the tables in force.
#[derive(Debug)]
pub(super) struct ClusterState {
    pub(super) key: ClusterKey,
    pub(super) id: u64,
    pub(super) breaker: Breaker,
    pub(super) balance: Balance,
    pub(super) endpoints: Vec<EndpointState>,
    /// Positions that may be picked now.
    pub(super) available: Vec<u32>,
    /// Running sums of their weights; empty where all weights are equal.
    pub(super) weight_ends: Vec<u64>,
    /// Turn of round robin.
    pub(super) turn: u64,
    outlier: Option<Outlier>,
    ejected: usize,
    /// Next decay of ejection counts.
    next_interval: Mono,
    /// Earliest end of an ejection.
    next_return: Mono,
}

impl ClusterState {
    pub(super) fn new(row: &ClusterRow, id: u64, share: ShardShare, next_id: &mut u64) -> Self {
        let mut state = Self {
            key: row.key.clone(),
            id,
            breaker: Breaker::default(),
            balance: row.policy.balance,
            endpoints: Vec::new(),
            available: Vec::new(),
            weight_ends: Vec::new(),
            // Shards and sidecars must not all begin with the first endpoint.
            turn: id.wrapping_add(u64::from(share.shard)),
            outlier: None,
            ejected: 0,
            next_interval: Mono::NEVER,
            next_return: Mono::NEVER,
        };
        state.carry_over(row, share, next_id);
        state
    }

    /// Takes a new row: endpoints keep their counts and health by address.
    pub(super) fn carry_over(&mut self, row: &ClusterRow, share: ShardShare, next_id: &mut u64) {
        self.breaker.limit(&row.policy.limits, share);
        self.balance = row.policy.balance;
        if self.outlier != row.policy.outlier {
            self.outlier = row.policy.outlier;
            self.next_interval = Mono::NEVER;
            if self.outlier.is_none() {
                for endpoint in &mut self.endpoints {
                    endpoint.health = Health::default();
                }
            }
        }
        let mut old = std::mem::take(&mut self.endpoints);
        self.endpoints = row
            .endpoints
            .iter()
            .map(|row| {
                let known = old.iter().position(|e| e.address == row.address);
                let mut endpoint = known.map_or_else(
                    || {
                        *next_id += 1;
                        EndpointState::new(row, EndpointId(*next_id))
                    },
                    |at| old.swap_remove(at),
                );
                endpoint.weight = row.weight;
                endpoint.last_known = row.state == Confidence::LastKnown;
                endpoint
            })
            .collect();
        self.rank();
    }

    /// Works out which endpoints may be picked.
    fn rank(&mut self) {
        let is_out = |e: &EndpointState| e.health.ejected_until.is_some();
        self.ejected = self.endpoints.iter().filter(|e| is_out(e)).count();
        self.next_return = self
            .endpoints
            .iter()
            .filter_map(|e| e.health.ejected_until)
            .min()
            .unwrap_or(Mono::NEVER);
        let confirmed = self.endpoints.iter().filter(|e| !e.last_known).count();
        let healthy = self
            .endpoints
            .iter()
            .filter(|e| !e.last_known && !is_out(e))
            .count();
        let min_health = self
            .outlier
            .map_or(0, |rule| usize::from(rule.min_health_percent));
        let ignore_health = healthy * 100 < min_health * confirmed;
        // Last-known ones only where there is nothing else.
        let last_known = healthy == 0 && !ignore_health;
        self.available.clear();
        self.available.extend(
            (0u32..)
                .zip(&self.endpoints)
                .filter(|(_, e)| e.last_known == last_known && (ignore_health || !is_out(e)))
                .map(|(at, _)| at),
        );
        self.weight_ends.clear();
        let weight = |at: &u32| u64::from(self.endpoints[*at as usize].weight);
        let mut weights = self.available.iter().map(weight);
        let first = weights.next();
        if !weights.all(|w| Some(w) == first) {
            let mut sum = 0;
            self.weight_ends.extend(self.available.iter().map(|at| {
                sum += weight(at);
                sum
            }));
        }
    }

    /// Brings back those whose time is over; lets ejection counts decay.
    pub(super) fn look(&mut self, now: Mono) {
        if now < self.next_return && now < self.next_interval {
            return;
        }
        let decay = now >= self.next_interval;
        let mut back = false;
        for endpoint in &mut self.endpoints {
            if decay || endpoint.health.ejected_until.is_some() {
                back |= endpoint.health.look(now);
            }
        }
        if decay {
            self.next_interval = self
                .outlier
                .map_or(Mono::NEVER, |rule| now.plus_ms(rule.interval_ms.max(1)));
        }
        if back {
            self.rank();
        }
    }

    /// Ends a try at `id`, which stood at `hint` when it was picked.
    pub(super) fn finish(&mut self, hint: usize, id: EndpointId, verdict: Verdict, now: Mono) {
        self.breaker.requests.give();
        let at = match self.endpoints.get(hint) {
            Some(endpoint) if endpoint.id == id => Some(hint),
            _ => self.endpoints.iter().position(|e| e.id == id),
        };
        let Some(endpoint) = at.and_then(|at| self.endpoints.get_mut(at)) else {
            return;
        };
        endpoint.active = endpoint.active.saturating_sub(1);
        let Some(rule) = self.outlier else {
            return;
        };
        if endpoint.health.ejected_until.is_some() || !endpoint.health.count(&rule, verdict) {
            return;
        }
        // The share is checked before ejecting: one of three may go at 10 %.
        let share_percent = self.ejected * 100 / self.endpoints.len().max(1);
        if share_percent < usize::from(rule.ejection_percent_max) {
            if let Some(endpoint) = at.and_then(|at| self.endpoints.get_mut(at)) {
                endpoint.health.eject(&rule, now);
            }
            if self.next_interval == Mono::NEVER {
                self.next_interval = now.plus_ms(rule.interval_ms.max(1));
            }
            self.rank();
        }
    }

    pub(super) fn status(&self) -> ClusterStatus {
        ClusterStatus {
            active: self.breaker.requests.used,
            pending: self.breaker.pending.used,
            connections: self.breaker.connections.used,
            retries: self.breaker.retries.used,
            endpoints: self
                .endpoints
                .iter()
                .map(|e| (e.address, e.active, e.health.ejected_until.is_some()))
                .collect(),
        }
    }
}

impl EndpointState {
    fn new(row: &EndpointRow, id: EndpointId) -> Self {
        Self {
            id,
            address: row.address,
            weight: row.weight,
            last_known: row.state == Confidence::LastKnown,
            active: 0,
            health: Health::default(),
        }
    }
}
