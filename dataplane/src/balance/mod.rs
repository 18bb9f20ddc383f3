//! Which endpoint of a cluster, and whether there is room for one more request.
//!
//! A shard owns one [`Balancer`]. It holds the changing part of every cluster in use (active
//! counts, outlier ejections, breaker limits, retry budget); the fixed part is in `tables`. Pure:
//! time and randomness are arguments.
//!
//! ```text
//! pick  -> Pick     one try at one endpoint: counted active until `finish(pick, Verdict)`
//! wait  -> Waiting  a place among those that wait for a connection, until `waited`
//! open  -> Open     a connection, until `closed`
//! retry -> Retrying a retry under way, until `retried`
//! ```
//! Every token is given back exactly once; tokens outlive a swap of tables. A token of a cluster or
//! endpoint that is gone is accepted and changes nothing.
//!
//! Invariants: an ejected endpoint is never picked (unless health is ignored, see
//! `Outlier::min_health_percent`); a breaker count is never above its limit; no call allocates
//! once a cluster has been used.

mod breaker;
mod cluster;
mod outlier;
mod pick;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

pub use breaker::ShardShare;
pub use outlier::Verdict;

use crate::reason::Reason;
use crate::tables::{ClusterIndex, ClusterKey, Generation, Tables};
use crate::time::Mono;
use cluster::ClusterState;

/// One try at one endpoint. Give it back with [`Balancer::finish`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an unreturned pick counts as an active request for ever"]
pub struct Pick {
    /// Position in [`crate::tables::ClusterRow::endpoints`] of the tables picked from.
    pub endpoint: usize,
    cluster: Slot,
    id: EndpointId,
}

/// A place among those that wait for a connection. Give it back with [`Balancer::waited`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an unreturned place counts as pending for ever"]
pub struct Waiting(Slot);

/// A connection. Give it back with [`Balancer::closed`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an unreturned connection counts for ever"]
pub struct Open(Slot);

/// A retry under way, from its back-off to its end. Give it back with [`Balancer::retried`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an unreturned retry counts for ever"]
pub struct Retrying(Slot);

/// Where a cluster's state is; the id tells a reused place from the one meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Slot {
    at: u32,
    id: u64,
}

/// An endpoint's state, across swaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct EndpointId(u64);

/// Endpoints an exchange has tried, so that a retry goes elsewhere (SEMANTICS 2.8).
#[derive(Debug, Clone, Copy, Default)]
pub struct Tried {
    addresses: [Option<SocketAddr>; Self::MAX],
    len: usize,
}

impl Tried {
    /// Further ones are forgotten: a retry may then meet an endpoint twice.
    pub const MAX: usize = 8;

    /// Notes one.
    pub fn push(&mut self, address: SocketAddr) {
        if let Some(place) = self.addresses.get_mut(self.len) {
            *place = Some(address);
            self.len += 1;
        }
    }

    fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn contains(&self, address: SocketAddr) -> bool {
        self.addresses[..self.len].contains(&Some(address))
    }
}

/// What one cluster is doing now, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterStatus {
    /// Requests under way.
    pub active: u32,
    /// Waiting for a connection.
    pub pending: u32,
    /// Connections.
    pub connections: u32,
    /// Retries under way.
    pub retries: u32,
    /// Address, active requests, ejected now.
    pub endpoints: Vec<(SocketAddr, u32, bool)>,
}

/// The changing state of all clusters of one shard.
#[derive(Debug)]
pub struct Balancer {
    share: ShardShare,
    generation: Option<Generation>,
    /// State of those used since they came to be.
    clusters: Vec<Option<Box<ClusterState>>>,
    free: Vec<u32>,
    /// By cluster index of the tables in force; `UNUSED` where there is no state yet.
    by_index: Vec<u32>,
    next_id: u64,
}

const UNUSED: u32 = u32::MAX;

#[expect(
    clippy::needless_pass_by_value,
    reason = "tokens come back by value, so that each comes back once"
)]
impl Balancer {
    /// An empty one for a shard.
    #[must_use]
    pub fn new(share: ShardShare) -> Self {
        Self {
            share,
            generation: None,
            clusters: Vec::new(),
            free: Vec::new(),
            by_index: Vec::new(),
            next_id: 1,
        }
    }

    /// Takes new tables into force. State is carried over by (service, port, subset) and endpoint
    /// address; clusters that are gone lose theirs.
    pub fn swap(&mut self, tables: &Tables) {
        self.by_index.clear();
        self.by_index.resize(tables.clusters().len(), UNUSED);
        self.generation = Some(tables.generation());
        for at in 0..self.clusters.len() {
            let Some(state) = self.clusters[at].as_deref_mut() else {
                continue;
            };
            match tables.cluster_by_key(&state.key) {
                Some(index) => {
                    state.carry_over(tables.cluster(index), self.share, &mut self.next_id);
                    self.by_index[index.at()] = at as u32;
                }
                None => {
                    self.clusters[at] = None;
                    self.free.push(at as u32);
                }
            }
        }
    }

    /// Picks an endpoint for one try and counts the request. `random` is 64 fresh random bits;
    /// `only` restricts the choice to the endpoint the app dialled.
    ///
    /// # Errors
    /// [`Reason::Overflow`] at the cluster's request limit; [`Reason::NoEndpoint`] where none is
    /// usable.
    pub fn pick(
        &mut self,
        tables: &Tables,
        cluster: ClusterIndex,
        now: Mono,
        random: u64,
        tried: &Tried,
        only: Option<SocketAddr>,
    ) -> Result<Pick, Reason> {
        let slot = self.slot_of(tables, cluster);
        let row = tables.cluster(cluster);
        let current = self.generation == Some(tables.generation());
        let state = self.state(slot).ok_or(Reason::NoCluster)?;
        let (endpoint, id) = state.pick(row, current, now, random, tried, only)?;
        Ok(Pick {
            endpoint,
            cluster: slot,
            id,
        })
    }

    /// Ends a try. The verdict feeds outlier detection.
    pub fn finish(&mut self, pick: Pick, verdict: Verdict, now: Mono) {
        let Pick {
            endpoint,
            cluster,
            id,
        } = pick;
        if let Some(state) = self.state(cluster) {
            state.finish(endpoint, id, verdict, now);
        }
    }

    /// Takes a place among those that wait for a connection to this pick's cluster.
    ///
    /// # Errors
    /// [`Reason::Overflow`] at the limit.
    pub fn wait(&mut self, pick: &Pick) -> Result<Waiting, Reason> {
        let slot = pick.cluster;
        self.state(slot)
            .map_or(Ok(()), |state| state.breaker.pending.take())
            .map(|()| Waiting(slot))
    }

    /// Gives the place back.
    pub fn waited(&mut self, waiting: Waiting) {
        let Waiting(slot) = waiting;
        if let Some(state) = self.state(slot) {
            state.breaker.pending.give();
        }
    }

    /// Counts a connection that is about to be opened for this pick's cluster.
    ///
    /// # Errors
    /// [`Reason::Overflow`] at the limit.
    pub fn open(&mut self, pick: &Pick) -> Result<Open, Reason> {
        let slot = pick.cluster;
        self.state(slot)
            .map_or(Ok(()), |state| state.breaker.connections.take())
            .map(|()| Open(slot))
    }

    /// Gives the connection back.
    pub fn closed(&mut self, open: Open) {
        let Open(slot) = open;
        if let Some(state) = self.state(slot) {
            state.breaker.connections.give();
        }
    }

    /// Counts a retry in a cluster: within `maxRetries`, and within 20 % of the active requests
    /// (at least 3) so that retries cannot become the load (SEMANTICS 2.11).
    ///
    /// # Errors
    /// [`Reason::Overflow`] where either is used up: the failed try's outcome stands.
    pub fn retry(&mut self, tables: &Tables, cluster: ClusterIndex) -> Result<Retrying, Reason> {
        let slot = self.slot_of(tables, cluster);
        self.state(slot)
            .map_or(Err(Reason::NoCluster), |state| state.breaker.take_retry())
            .map(|()| Retrying(slot))
    }

    /// Gives the retry back.
    pub fn retried(&mut self, retrying: Retrying) {
        let Retrying(slot) = retrying;
        if let Some(state) = self.state(slot) {
            state.breaker.retries.give();
        }
    }

    /// What a cluster is doing now; `None` if it was never used.
    #[must_use]
    pub fn status(&self, key: &ClusterKey) -> Option<ClusterStatus> {
        let mut used = self.clusters.iter().flatten();
        used.find(|state| state.key == *key)
            .map(|state| state.status())
    }

    fn state(&mut self, slot: Slot) -> Option<&mut ClusterState> {
        self.clusters
            .get_mut(slot.at as usize)?
            .as_deref_mut()
            .filter(|state| state.id == slot.id)
    }

    /// The state of a cluster, made at its first use. An exchange that began under older tables
    /// finds it by name.
    fn slot_of(&mut self, tables: &Tables, cluster: ClusterIndex) -> Slot {
        let current = self.generation == Some(tables.generation());
        let row = tables.cluster(cluster);
        let at = if current {
            self.by_index.get(cluster.at()).copied()
        } else {
            self.clusters
                .iter()
                .position(|state| state.as_ref().is_some_and(|state| state.key == row.key))
                .map(|at| at as u32)
        };
        if let Some(at) = at.filter(|at| *at != UNUSED)
            && let Some(state) = self.clusters[at as usize].as_deref()
        {
            return Slot { at, id: state.id };
        }
        let id = self.next_id;
        self.next_id += 1;
        let state = Box::new(ClusterState::new(row, id, self.share, &mut self.next_id));
        let at = match self.free.pop() {
            Some(at) => {
                self.clusters[at as usize] = Some(state);
                at
            }
            None => {
                self.clusters.push(Some(state));
                (self.clusters.len() - 1) as u32
            }
        };
        if current && let Some(place) = self.by_index.get_mut(cluster.at()) {
            *place = at;
        }
        Slot { at, id }
    }
}
