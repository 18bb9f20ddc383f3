//! Idle connections by endpoint, last used first.
//!
//! A server that closes idle connections must not do so while a request is on its way. Each pool
//! learns its server's keep-alive time ([`KeepAlive`]) and stops lending a connection shortly before;
//! a request that could not be repeated gets a connection only within what is known to be safe.
//!
//! A pool has a number that stays the same across configuration swaps, so an exchange that began
//! under old tables gives its lane back to the right place. A pool that the new tables no longer
//! name is retired: its idle lanes close at once, lent ones when they come back.

use std::collections::HashMap;
use std::time::Duration;

use slab::Slab;

use super::keep_alive::KeepAlive;
use super::lane::Lane;
use super::lines::Opened;
use super::sharing::Sharing;
use super::stream::Stream;
use crate::tables::{ClusterKey, Link, Seeded};
use crate::time::Mono;

/// Idle connections kept for one endpoint. More than a shard's usual concurrency towards one
/// endpoint only wastes the server's memory.
const IDLE_PER_POOL_MAX: usize = 256;
/// Idle connections kept by one shard.
const IDLE_PER_SHARD_MAX: usize = 4096;
/// A connection idle for longer is closed, whatever a rule allows: routers on the way forget flows
/// they have not seen for minutes, and then nobody tells us of the end.
const IDLE_TIME_MAX: Duration = Duration::from_secs(60);
/// The sweep comes no more often than this, however many connections end, ...
const SWEEP_SOONEST: Duration = Duration::from_millis(50);
/// ... and no later than this while connections are given back, which may have less time left than
/// those before them.
const SWEEP_LATEST: Duration = Duration::from_secs(5);

/// Number of a pool. Never given to another one: an exchange may come back long after its pool is gone,
/// and its lane must not get into whatever has the place now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolId {
    place: u32,
    /// Of the pools that had the place.
    nth: u32,
}

/// What makes connections interchangeable: the address, plaintext or TLS, and the name asked for
/// in TLS (which fixes service, port and accepted identities).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// Where and how.
    pub link: Link,
    /// SNI; empty for plaintext to one address.
    pub sni: Box<str>,
    /// The cluster that counts its connections. Where none does, clusters share.
    pub owner: Option<ClusterKey>,
    /// Lanes of trunks, or connections of their own.
    pub lanes: bool,
}

#[derive(Debug)]
struct Pool {
    key: PoolKey,
    idle: Vec<Idle>,
    /// Lanes lent or being made.
    lent: usize,
    retired: bool,
    /// Forgotten with its last lane, whatever tables say.
    passing: bool,
    nth: u32,
    /// The swap that named it last.
    named_in: u64,
    /// Least of the idle timeouts of the clusters that name it.
    idle_max: Duration,
    server: KeepAlive,
    sharing: Sharing,
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    opened: Option<Opened>,
    since: Mono,
    exchanges: u32,
}

/// What a request needs of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Whatever is there: the request can be repeated if the server is just closing it.
    Any,
    /// Nothing that the server may be closing: the request cannot be repeated.
    Careful,
    /// A new one.
    Fresh,
}

/// All pools of a shard.
#[derive(Debug, Default)]
pub struct Pools {
    by_key: HashMap<PoolKey, PoolId, Seeded>,
    pools: Slab<Pool>,
    idle: usize,
    made: u32,
    swaps: u64,
    /// A lane was given back since the last sweep.
    given_back: bool,
}

impl Pools {
    /// Begins a swap of tables: pools that [`Self::named`] does not name until
    /// [`Self::retire_unnamed`] are of the old ones only.
    pub fn begin_swap(&mut self) {
        self.swaps += 1;
    }

    /// The pool of a key, made if it is new. Of several idle timeouts the least counts.
    pub fn named(&mut self, key: &PoolKey, idle_timeout_ms: u64) -> PoolId {
        let idle_max = Duration::from_millis(idle_timeout_ms).min(IDLE_TIME_MAX);
        if let Some(id) = self.by_key.get(key).copied() {
            let swaps = self.swaps;
            if let Some(pool) = get_mut(&mut self.pools, id) {
                pool.retired = false;
                pool.idle_max = match pool.named_in == swaps {
                    true => pool.idle_max.min(idle_max),
                    false => idle_max,
                };
                pool.named_in = swaps;
            }
            return id;
        }
        self.made = self.made.wrapping_add(1);
        let pool = Pool {
            key: key.clone(),
            idle: Vec::new(),
            lent: 0,
            retired: false,
            passing: false,
            nth: self.made,
            named_in: self.swaps,
            idle_max,
            server: KeepAlive::default(),
            sharing: Sharing::default(),
        };
        let entry = self.pools.vacant_entry();
        let id = pool.id(entry.key());
        entry.insert(pool);
        self.by_key.insert(key.clone(), id);
        id
    }

    /// The pool of a key that no tables name, made if it is new. It is forgotten when it has neither an
    /// idle lane nor a lent one, so there are never more of these than lanes.
    pub fn passing(&mut self, key: &PoolKey) -> PoolId {
        let id = self.named(key, u64::MAX);
        if let Some(pool) = get_mut(&mut self.pools, id) {
            pool.passing = true;
        }
        id
    }

    fn get(&self, id: PoolId) -> Option<&Pool> {
        let pool = self.pools.get(id.place as usize);
        pool.filter(|pool| pool.nth == id.nth)
    }

    /// Retires every pool that this swap did not name.
    pub fn retire_unnamed(&mut self) {
        let swap = self.swaps;
        let unnamed = self.pools.iter().filter(|(_, pool)| pool.named_in != swap);
        let gone: Vec<PoolId> = unnamed.map(|(at, pool)| pool.id(at)).collect();
        for id in gone {
            if let Some(pool) = get_mut(&mut self.pools, id) {
                pool.retired = true;
                let closed = std::mem::take(&mut pool.idle);
                self.idle -= closed.len();
            }
            self.forget_if_unused(id);
        }
    }

    /// A connection of the pool is being made: it counts as lent until [`Self::give_back`] or
    /// [`Self::lost`].
    pub fn begin(&mut self, id: PoolId) {
        if let Some(pool) = get_mut(&mut self.pools, id) {
            pool.lent += 1;
        }
    }

    /// Whether a request to an endpoint that has a pool of connections and one of lanes, beginning at
    /// `now`, goes on a lane.
    pub fn shares(&mut self, own: PoolId, lanes: PoolId, now: Mono) -> bool {
        let lent = |id: PoolId| self.get(id).map_or(0, |pool| pool.lent);
        let under_way = lent(own) + lent(lanes);
        let pool = get_mut(&mut self.pools, lanes);
        pool.is_some_and(|pool| pool.sharing.begin(under_way, now))
    }

    /// An idle lane of the pool that nothing arrived on; it counts as lent until
    /// [`Self::give_back`] or [`Self::lost`].
    pub fn lend(&mut self, id: PoolId, want: Want, now: Mono) -> Option<Lane> {
        let pool = get_mut(&mut self.pools, id)?;
        if want == Want::Fresh {
            return None;
        }
        while let Some(last) = pool.idle.last() {
            let age = now.since(last.since);
            if !pool.may_lend(age, want, now) {
                return None;
            }
            let idle = pool.idle.pop()?;
            self.idle -= 1;
            // Bytes or an end while idle: the server is done with it (or out of step with us).
            if !idle.stream.is_quiet() {
                pool.saw_end(&idle);
                continue;
            }
            pool.server.alive(age);
            pool.lent += 1;
            idle.stream.rest(false);
            return Some(Lane {
                stream: idle.stream,
                pool: Some(id),
                idle_for: Some(age),
                joined: false,
                opened: idle.opened,
                exchanges: idle.exchanges.saturating_add(1),
            });
        }
        None
    }

    /// Takes a lane back. Closes it instead where the pool is retired or full.
    pub fn give_back(&mut self, lane: Lane, now: Mono) {
        let Some(id) = lane.pool else { return };
        if let Some(pool) = get_mut(&mut self.pools, id)
            && !pool.retired
            && !pool.idle_max.is_zero()
            && pool.idle.len() < IDLE_PER_POOL_MAX
            && self.idle < IDLE_PER_SHARD_MAX
        {
            lane.stream.rest(true);
            pool.idle.push(Idle {
                stream: lane.stream,
                opened: lane.opened,
                since: now,
                exchanges: lane.exchanges,
            });
            self.idle += 1;
            self.given_back = true;
        }
        self.lost(id);
    }

    /// Closes the pool's idle lanes, because a lane taken from it after `idle_for` was dead. Taken
    /// last used first, it was the likeliest to live: the rest have lain idle longer, or their
    /// server is gone.
    pub fn distrust(&mut self, id: PoolId, idle_for: Duration) {
        if let Some(pool) = get_mut(&mut self.pools, id) {
            pool.server.ended(idle_for);
            self.idle -= pool.idle.len();
            pool.idle.clear();
        }
    }

    /// Closes the oldest idle lane of a cluster that counts them; false if there is none.
    pub fn evict(&mut self, owner: &ClusterKey) -> bool {
        let owned = self.pools.iter_mut().map(|(_, pool)| pool);
        let oldest = owned
            .filter(|pool| pool.key.owner.as_ref() == Some(owner) && !pool.idle.is_empty())
            .min_by_key(|pool| pool.idle.first().map(|idle| idle.since));
        let Some(pool) = oldest else { return false };
        pool.idle.remove(0);
        self.idle -= 1;
        true
    }

    /// A lent lane will not come back.
    pub fn lost(&mut self, id: PoolId) {
        if let Some(pool) = get_mut(&mut self.pools, id) {
            pool.lent = pool.lent.saturating_sub(1);
        }
        self.forget_if_unused(id);
    }

    /// Closes lanes that the server has closed, and those that will not be lent any more. Returns
    /// when to come again; earlier if [`Self::was_given_back`] turns true and that is long from now.
    pub fn sweep(&mut self, now: Mono) -> Mono {
        let mut next = match std::mem::take(&mut self.given_back) {
            true => now + SWEEP_LATEST,
            false => Mono::NEVER,
        };
        let mut done = Vec::new();
        for (place, pool) in &mut self.pools {
            let before = pool.idle.len();
            next = next.min(pool.sweep(now));
            self.idle -= before - pool.idle.len();
            if pool.is_done() {
                done.push(pool.id(place));
            }
        }
        for id in done {
            self.forget_if_unused(id);
        }
        next.max(now + SWEEP_SOONEST)
    }

    /// Whether a lane was given back since the last sweep.
    #[must_use]
    pub fn was_given_back(&self) -> bool {
        self.given_back
    }

    /// Idle connections of the shard.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle
    }

    fn forget_if_unused(&mut self, id: PoolId) {
        if self.get(id).is_some_and(Pool::is_done) {
            let pool = self.pools.remove(id.place as usize);
            self.by_key.remove(&pool.key);
        }
    }
}

fn get_mut(pools: &mut Slab<Pool>, id: PoolId) -> Option<&mut Pool> {
    let pool = pools.get_mut(id.place as usize);
    pool.filter(|pool| pool.nth == id.nth)
}

impl Pool {
    fn id(&self, place: usize) -> PoolId {
        PoolId {
            // There are never so many; the wrong one would not have the number.
            place: u32::try_from(place).unwrap_or(u32::MAX),
            nth: self.nth,
        }
    }

    /// Nobody will ask for it again, or whoever does makes it anew.
    fn is_done(&self) -> bool {
        let over = self.retired || (self.passing && self.idle.is_empty());
        over && self.lent == 0
    }

    /// Whether the lane last used, idle for `age`, may be lent.
    fn may_lend(&mut self, age: Duration, want: Want, now: Mono) -> bool {
        if age >= self.idle_max {
            return false;
        }
        if want == Want::Careful && age >= self.server.lend_carefully_below() {
            // Perhaps one that has lain longer shows that this is safe.
            self.look_at_oldest(now);
            return age < self.server.lend_carefully_below();
        }
        self.server.lend_below().is_none_or(|limit| age < limit)
    }

    /// Learns from the lane that has lain longest.
    fn look_at_oldest(&mut self, now: Mono) {
        if let Some(oldest) = self.idle.first()
            && oldest.stream.ended_at().is_none()
        {
            self.server.alive(now.since(oldest.since));
        }
    }

    /// Learns from the end of a lane, if it has one.
    fn saw_end(&mut self, idle: &Idle) {
        if let Some(at) = idle.stream.ended_at() {
            self.server.ended(at.since(idle.since));
        }
    }

    /// See [`Pools::sweep`]. Of the lanes that are not lent any more the oldest stays, so that the
    /// server's own end is seen and what was learned can be corrected.
    fn sweep(&mut self, now: Mono) -> Mono {
        let mut server = self.server;
        self.idle.retain(|idle| {
            let age = now.since(idle.since);
            if !idle.stream.is_quiet() {
                if let Some(at) = idle.stream.ended_at() {
                    server.ended(at.since(idle.since));
                }
                return false;
            }
            server.alive(age);
            if age < self.idle_max {
                return true;
            }
            // It outlived all that is known of the server: as good as an end.
            if server.is_learned() {
                server.ended(age);
            }
            false
        });
        self.server = server;
        let limit = self.server.lend_below().unwrap_or(Duration::MAX);
        let over = self
            .idle
            .partition_point(|idle| now.since(idle.since) >= limit);
        if over > 1 {
            self.idle.drain(1..over);
        }
        if self.idle.is_empty() {
            self.idle = Vec::new();
        }
        let ends = |idle: &Idle, after: Duration| idle.since + after;
        let oldest = self.idle.first().map(|idle| ends(idle, self.idle_max));
        let next = self.idle.get(1).map(|idle| ends(idle, limit));
        oldest.into_iter().chain(next).min().unwrap_or(Mono::NEVER)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::ring::Socket;
    use crate::ring::tests::{drive, ring, until};

    fn key(last: u8) -> PoolKey {
        PoolKey {
            link: Link::Plain((Ipv4Addr::new(127, 0, 0, last), 1).into()),
            sni: Box::from(""),
            owner: None,
            lanes: false,
        }
    }

    /// An exchange that began under tables that are gone brings its lane back.
    #[test]
    fn a_lane_never_gets_into_the_pool_that_took_the_place_of_its_own() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let ring = ring();
        let inner = ring.clone();
        let socket = drive(&ring, async move { Socket::connect(&inner, to).await });
        let mut pools = Pools::default();
        let first = pools.named(&key(1), 1_000);
        pools.begin_swap();
        pools.retire_unnamed();
        pools.begin_swap();
        let second = pools.named(&key(2), 1_000);
        assert_eq!(first.place, second.place, "the same place");
        pools.begin(first);
        let lane = Lane::fresh(Stream::Plain(socket.unwrap()), Some(first), None);
        pools.give_back(lane, ring.now());
        assert_eq!(pools.idle(), 0);
        assert_eq!(pools.lend(second, Want::Any, ring.now()).map(|_| ()), None);
        until(&ring, || ring.conns() == 0);
    }

    #[test]
    fn a_passing_pool_is_forgotten_with_its_last_lane() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let ring = ring();
        let inner = ring.clone();
        let socket = drive(&ring, async move { Socket::connect(&inner, to).await });
        let mut pools = Pools::default();
        let id = pools.passing(&key(1));
        pools.begin(id);
        assert_eq!(pools.passing(&key(1)), id, "while a lane is out it stays");
        let lane = Lane::fresh(Stream::Plain(socket.unwrap()), Some(id), None);
        pools.give_back(lane, ring.now());
        assert_eq!(
            pools.passing(&key(1)),
            id,
            "while a lane lies idle it stays"
        );
        let lane = pools.lend(id, Want::Any, ring.now()).unwrap();
        drop(lane);
        pools.lost(id);
        assert!(pools.by_key.is_empty() && pools.pools.is_empty());
        // Asked for and not used, by an exchange that was given up.
        pools.passing(&key(1));
        pools.sweep(ring.now());
        assert!(pools.by_key.is_empty() && pools.pools.is_empty());
        until(&ring, || ring.conns() == 0);
    }
}
