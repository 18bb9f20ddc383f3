//! Idle connections by endpoint, last used first.
//!
//! A pool has a number that stays the same across configuration swaps, so an exchange that began
//! under old tables gives its lane back to the right place. A pool that the new tables no longer
//! name is retired: its idle lanes close at once, lent ones when they come back.

use std::collections::HashMap;
use std::time::Duration;

use slab::Slab;

use super::lane::Lane;
use super::stream::Stream;
use crate::tables::{Link, Seeded};
use crate::time::Mono;

/// Idle connections kept for one endpoint. More than a shard's usual concurrency towards one
/// endpoint only wastes the server's memory.
const IDLE_PER_POOL_MAX: usize = 256;
/// Idle connections kept by one shard.
const IDLE_PER_SHARD_MAX: usize = 4096;

/// Number of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PoolId(usize);

/// What makes connections interchangeable: the address, plaintext or TLS, and the name asked for
/// in TLS (which fixes service, port and accepted identities).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PoolKey {
    /// Where and how.
    pub link: Link,
    /// SNI; empty for plaintext.
    pub sni: Box<str>,
}

#[derive(Debug)]
struct Pool {
    key: PoolKey,
    idle: Vec<Idle>,
    /// Lanes lent or being made.
    lent: usize,
    retired: bool,
}

#[derive(Debug)]
struct Idle {
    stream: Stream,
    since: Mono,
    exchanges: u32,
}

/// All pools of a shard.
#[derive(Debug, Default)]
pub struct Pools {
    by_key: HashMap<PoolKey, PoolId, Seeded>,
    pools: Slab<Pool>,
    idle: usize,
}

impl Pools {
    /// The pool of a key, made if it is new.
    pub fn id_of(&mut self, key: &PoolKey) -> PoolId {
        if let Some(id) = self.by_key.get(key) {
            if let Some(pool) = self.pools.get_mut(id.0) {
                pool.retired = false;
            }
            return *id;
        }
        let pool = Pool {
            key: key.clone(),
            idle: Vec::new(),
            lent: 0,
            retired: false,
        };
        let id = PoolId(self.pools.insert(pool));
        self.by_key.insert(key.clone(), id);
        id
    }

    /// Retires every pool that `keep` does not name.
    pub fn retain(&mut self, keep: impl Fn(PoolId) -> bool) {
        let gone: Vec<PoolId> = self
            .pools
            .iter()
            .map(|(at, _)| PoolId(at))
            .filter(|id| !keep(*id))
            .collect();
        for id in gone {
            if let Some(pool) = self.pools.get_mut(id.0) {
                pool.retired = true;
                self.idle -= pool.idle.len();
                pool.idle.clear();
            }
            self.forget_if_unused(id);
        }
    }

    /// An idle lane of the pool that nothing arrived on, or `None` (always, when it must be `fresh`);
    /// then the caller connects. Either way one lane of the pool counts as lent until
    /// [`Self::give_back`] or [`Self::lost`].
    pub fn lend(&mut self, id: PoolId, fresh: bool) -> Option<Lane> {
        let pool = self.pools.get_mut(id.0)?;
        pool.lent += 1;
        if fresh {
            return None;
        }
        while let Some(idle) = pool.idle.pop() {
            self.idle -= 1;
            // Bytes or an end while idle: the server is done with it (or out of step with us).
            if idle.stream.is_quiet() {
                return Some(Lane {
                    stream: idle.stream,
                    pool: Some(id),
                    reused: true,
                    exchanges: idle.exchanges.saturating_add(1),
                });
            }
        }
        None
    }

    /// Takes a lane back. Closes it instead where the pool is retired or full.
    pub fn give_back(&mut self, lane: Lane, now: Mono) {
        let Some(id) = lane.pool else { return };
        if let Some(pool) = self.pools.get_mut(id.0)
            && !pool.retired
            && pool.idle.len() < IDLE_PER_POOL_MAX
            && self.idle < IDLE_PER_SHARD_MAX
        {
            pool.idle.push(Idle {
                stream: lane.stream,
                since: now,
                exchanges: lane.exchanges,
            });
            self.idle += 1;
        }
        self.lost(id);
    }

    /// Closes the pool's idle lanes, because a lane taken from it was dead. Taken last used first,
    /// it was the likeliest to live: the rest have lain idle longer, or their server is gone.
    pub fn distrust(&mut self, id: PoolId) {
        if let Some(pool) = self.pools.get_mut(id.0) {
            self.idle -= pool.idle.len();
            pool.idle.clear();
        }
    }

    /// A lent lane will not come back.
    pub fn lost(&mut self, id: PoolId) {
        if let Some(pool) = self.pools.get_mut(id.0) {
            pool.lent = pool.lent.saturating_sub(1);
        }
        self.forget_if_unused(id);
    }

    /// Closes lanes that the server has closed or that lay idle for `idle_max` or longer.
    pub fn sweep(&mut self, now: Mono, idle_max: Duration) {
        for (_, pool) in &mut self.pools {
            let before = pool.idle.len();
            pool.idle
                .retain(|idle| now.since(idle.since) < idle_max && idle.stream.is_quiet());
            self.idle -= before - pool.idle.len();
            if pool.idle.is_empty() {
                pool.idle = Vec::new();
            }
        }
    }

    /// Idle connections of the shard.
    #[must_use]
    pub fn idle(&self) -> usize {
        self.idle
    }

    fn forget_if_unused(&mut self, id: PoolId) {
        let unused = self
            .pools
            .get(id.0)
            .is_some_and(|pool| pool.retired && pool.lent == 0);
        if unused {
            let pool = self.pools.remove(id.0);
            self.by_key.remove(&pool.key);
        }
    }
}
