//! Upstream connections that nobody uses at the moment: whose turn it is, and how long they stay.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use super::ShardState;
use crate::balance::Slot;
use crate::exchange::borrow;
use crate::tables::ClusterKey;
use crate::upstream::{Lane, Opened};
use crate::wait;

/// Between two looks at idle upstream connections, milliseconds: a server that closes a thousand at
/// once is looked at a few times, not a thousand.
const SWEEP_PAUSE_MS: u64 = 20;
/// A look that is further away than this is brought forward when a connection becomes idle,
/// milliseconds.
const SWEEP_LONG_MS: u64 = 5_000;

impl ShardState {
    /// Gives connections that are gone back to the count of their clusters.
    pub fn note_closed(&self) {
        let mut balancer = self.balancer.borrow_mut();
        while let Some(open) = self.lines.next_gone() {
            balancer.closed(open);
        }
    }

    /// Closes an idle connection of a cluster, so that another can be made; false if there is none. An
    /// HTTP/2 connection says goodbye first: its place is free a little later, and the line called then.
    pub fn evict(&self, cluster: &ClusterKey) -> bool {
        let evicted = self.pools.borrow_mut().evict(cluster);
        self.note_closed();
        evicted || self.shared.borrow().evict(cluster)
    }

    /// Whether the next connection of a cluster that comes free is another shard's.
    pub fn is_owed(&self, slot: Slot) -> bool {
        let own_since = self.lines.since(slot);
        (self.balancer.borrow_mut()).is_owed(slot, own_since, self.now())
    }

    /// Takes a lane back whose last exchange has ended cleanly: into its pool, for the first in line; or, if
    /// it is counted and another shard's turn has come, it ends in favour of that.
    pub fn rest(self: &Rc<Self>, lane: Lane) {
        let counted_by = lane.opened.as_ref().map(Opened::cluster);
        if let Some(slot) = counted_by.filter(|slot| self.is_owed(*slot)) {
            if let Some(pool) = lane.pool {
                self.pools.borrow_mut().lost(pool);
            }
            drop(lane);
            return borrow::give_way(self, slot);
        }
        self.pools.borrow_mut().give_back(lane, self.now());
        self.sweep_while_idle();
        if let Some(slot) = counted_by {
            self.lines.call(slot);
        }
    }

    /// Has an HTTP/2 connection of a cluster take no more streams, unless one already ends.
    pub fn retire(&self, cluster: &ClusterKey) {
        self.shared.borrow().retire(cluster, self.now());
    }

    /// Sees to it that idle upstream connections are looked at when one ends or its time is over, and
    /// no longer than there are any: a quiet shard has no timers.
    pub fn sweep_while_idle(self: &Rc<Self>) {
        if self.sweeping.replace(true) {
            let sleeper = self.sweeper.take();
            if let Some(sleeper) = sleeper {
                sleeper.wake();
            }
            return;
        }
        let state = Rc::clone(self);
        let started = self.ring.spawn(async move {
            while state.pools.borrow().idle() > 0 {
                let ended = state.ring.end_unwatched();
                let next = state.pools.borrow_mut().sweep(state.now());
                // Ends that come together are looked at together.
                let soonest = state.now().plus_ms(SWEEP_PAUSE_MS).min(next);
                let due = state.ring.sleep_until(next);
                let is_long = next > state.now().plus_ms(SWEEP_LONG_MS);
                let given_back = poll_fn(|cx| {
                    if is_long && state.pools.borrow().was_given_back() {
                        return Poll::Ready(());
                    }
                    state.sweeper.replace(is_long.then(|| cx.waker().clone()));
                    Poll::Pending
                });
                wait::first(due, wait::first(ended, given_back)).await;
                state.sweeper.take();
                state.ring.sleep_until(soonest).await;
            }
            state.sweeping.set(false);
        });
        if !started {
            self.sweeping.set(false);
        }
    }
}
