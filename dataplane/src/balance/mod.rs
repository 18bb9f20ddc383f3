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
//! A limit is one number for all shards: a shard that is short borrows ([`Credits`], `ask`).
//! Every token is given back exactly once; tokens outlive a swap of tables. A token of a cluster or
//! endpoint that is gone is accepted and changes nothing.
//!
//! Invariants: an ejected endpoint is never picked (unless health is ignored, see
//! `Outlier::min_health_percent`); a breaker count is never above its limit; no call allocates
//! once a cluster has been used.

mod breaker;
mod claims;
mod cluster;
mod ledger;
mod outlier;
mod pick;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;

pub use breaker::{Limit, ShardShare};
pub use claims::Claim;
pub use ledger::ANSWER_MS;
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
    /// Its cluster.
    pub cluster: Slot,
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

impl Open {
    /// Its cluster.
    #[must_use]
    pub fn cluster(&self) -> Slot {
        self.0
    }
}

/// A retry under way, from its back-off to its end. Give it back with [`Balancer::retried`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "an unreturned retry counts for ever"]
pub struct Retrying(Slot);

/// Where a cluster's state is; the id tells a reused place from the one meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    at: u32,
    id: u64,
}

/// An endpoint's state, across swaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct EndpointId(u64);

/// Endpoints an exchange has tried, so that a retry goes elsewhere.
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

/// What shards tell each other of their limits.
#[derive(Debug, Clone)]
pub enum Credits {
    /// One has none left.
    Want {
        /// The shard that asks.
        from: u16,
        /// Which cluster.
        cluster: ClusterKey,
        /// Which limit of it.
        limit: Limit,
        /// To be repeated in the answer, with `slot`.
        round: u32,
        /// Where the asking shard has the cluster.
        slot: Slot,
        /// Since when the first of its requests waits for a connection, where they wait: it gets the next
        /// that comes free when it is its turn ([`Claim`]).
        since: Option<Mono>,
    },
    /// The answer.
    Lent {
        /// The shard that answers.
        from: u16,
        /// Which limit.
        limit: Limit,
        /// From the question.
        round: u32,
        /// From the question.
        slot: Slot,
        /// How many; they are the receiver's from now on.
        credits: u32,
    },
    /// A connection has come free, and it is the receiver's turn: it may have one more from now on.
    Yielded {
        /// The shard that gives way.
        from: u16,
        /// From the question.
        slot: Slot,
    },
    /// A limit was lowered, and the sender has lent more than it now has.
    Owed {
        /// Which cluster.
        cluster: ClusterKey,
        /// Which limit of it.
        limit: Limit,
        /// How many the receiver has to give up, or pass on.
        credits: u32,
        /// Shards it has passed.
        passed: u16,
    },
}

/// What to do where a limit is reached on this shard.
#[derive(Debug)]
pub enum Ask {
    /// Send this to every other shard.
    Now(Credits),
    /// They are asked: wait for [`Credits::Lent`].
    Wait,
    /// None of them has any.
    Refused,
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
    /// [`Reason::Overflow`] at the cluster's request limit; what [`crate::tables::ClusterRow::nobody`] says
    /// where none is usable.
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

    /// Counts a connection that is about to be opened for this pick's cluster. `own_since` as for
    /// [`Self::is_owed`].
    ///
    /// # Errors
    /// [`Reason::Overflow`] at the limit, or where it is another shard's turn.
    pub fn open(
        &mut self,
        pick: &Pick,
        own_since: Option<Mono>,
        now: Mono,
    ) -> Result<Open, Reason> {
        let slot = pick.cluster;
        if self.is_owed(slot, own_since, now) {
            return Err(Reason::Overflow);
        }
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
    /// (at least 3) so that retries cannot become the load.
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

    /// The state of a cluster, made if it is new.
    pub fn slot(&mut self, tables: &Tables, cluster: ClusterIndex) -> Slot {
        self.slot_of(tables, cluster)
    }

    /// Whether this shard has none left of a limit.
    #[must_use]
    pub fn is_short(&mut self, slot: Slot, limit: Limit) -> bool {
        self.state(slot)
            .is_some_and(|state| state.breaker.ledger(limit).is_short())
    }

    /// What to do where it has none left. `since` as in [`Credits::Want`].
    #[must_use]
    pub fn ask(&mut self, slot: Slot, limit: Limit, since: Option<Mono>, now: Mono) -> Ask {
        let from = u16::try_from(self.share.shard).unwrap_or(u16::MAX);
        let others = u16::try_from(self.share.shards.saturating_sub(1)).unwrap_or(u16::MAX);
        let Some(state) = self.state(slot) else {
            return Ask::Refused;
        };
        let ledger = state.breaker.ledger(limit);
        match ledger.ask(others, now) {
            ledger::Ask::Now(round) => Ask::Now(Credits::Want {
                from,
                cluster: state.key.clone(),
                limit,
                round,
                slot,
                since,
            }),
            ledger::Ask::Wait => Ask::Wait,
            ledger::Ask::Refused => Ask::Refused,
        }
    }

    /// Gives credits of a cluster away, to a shard that asks; 0 if there is none free but the `kept` that
    /// requests here wait for.
    #[must_use]
    pub fn lend(&mut self, slot: Slot, limit: Limit, kept: u32) -> u32 {
        self.state(slot)
            .map_or(0, |state| state.breaker.ledger(limit).lend(kept))
    }

    /// Another shard waits for a connection.
    pub fn claim(&mut self, slot: Slot, claim: Claim, now: Mono) {
        if let Some(state) = self.state(slot) {
            state.breaker.claims.renew(claim, now);
        }
    }

    /// Whether the next connection that comes free is another shard's. `own_since`: since when the first of
    /// the requests here waits, if one does.
    #[must_use]
    pub fn is_owed(&mut self, slot: Slot, own_since: Option<Mono>, now: Mono) -> bool {
        let state = self.state(slot);
        state.is_some_and(|state| state.breaker.claims.first(own_since, now).is_some())
    }

    /// Gives one connection's credit to the shard whose turn it is, if one is free. `own_since` as for
    /// [`Self::is_owed`].
    #[must_use]
    pub fn give_way(&mut self, slot: Slot, own_since: Option<Mono>, now: Mono) -> Option<Claim> {
        let breaker = &mut self.state(slot)?.breaker;
        let first = breaker.claims.first(own_since, now)?;
        if !breaker.connections.lend_one() {
            return None;
        }
        breaker.claims.met(first.from);
        Some(first)
    }

    /// Another shard has given a connection's credit: it does not wait for one before this, whatever it said
    /// before. (If it still waits, it says so again.)
    pub fn given_by(&mut self, slot: Slot, from: u16) {
        if let Some(state) = self.state(slot) {
            state.breaker.claims.met(from);
        }
    }

    /// Another shard has given way; or the message that this one does could not be sent.
    pub fn yielded(&mut self, slot: Slot) {
        if let Some(state) = self.state(slot) {
            state.breaker.connections.take_back(1);
        }
    }

    /// Where a cluster's state is, made if it is new; `None` for one that is gone.
    #[must_use]
    pub fn slot_named(&mut self, tables: &Tables, cluster: &ClusterKey) -> Option<Slot> {
        let index = tables.cluster_by_key(cluster)?;
        Some(self.slot_of(tables, index))
    }

    /// Another shard has answered. Credits of a cluster that is gone go with it.
    pub fn lent(&mut self, slot: Slot, limit: Limit, round: u32, credits: u32, now: Mono) {
        if let Some(state) = self.state(slot) {
            state.breaker.ledger(limit).lent(round, credits, now);
        }
    }

    /// Takes over another shard's debt as far as it can; returns what is left to pass on.
    #[must_use]
    pub fn owe(
        &mut self,
        tables: &Tables,
        cluster: &ClusterKey,
        limit: Limit,
        credits: u32,
    ) -> u32 {
        self.named(tables, cluster)
            .map_or(credits, |state| state.breaker.ledger(limit).owe(credits))
    }

    /// Credits (or, below zero, a debt) that could not be sent come back.
    pub fn take_back(&mut self, tables: &Tables, cluster: &ClusterKey, limit: Limit, credits: i64) {
        if let Some(state) = self.named(tables, cluster) {
            state.breaker.ledger(limit).take_back(credits);
        }
    }

    /// What this shard owes since the limits were lowered, to be passed to the next shard.
    pub fn debts(&mut self) -> Vec<(ClusterKey, Limit, u32)> {
        let mut debts = Vec::new();
        for state in self.clusters.iter_mut().flatten() {
            for limit in Limit::ALL {
                let debt = state.breaker.ledger(limit).pass_debt();
                if debt > 0 {
                    debts.push((state.key.clone(), limit, debt));
                }
            }
        }
        debts
    }

    fn named(&mut self, tables: &Tables, cluster: &ClusterKey) -> Option<&mut ClusterState> {
        let slot = self.slot_named(tables, cluster)?;
        self.state(slot)
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
