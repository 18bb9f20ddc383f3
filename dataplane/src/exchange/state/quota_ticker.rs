//! When a shard's quota cells are looked after.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;

use ringmesh_quota::TICK_MS_MIN;

use super::ShardState;
use crate::shard::FromShard;
use crate::time::Mono;

impl ShardState {
    /// Sends what the quota cells have for the authority, and sees to it that a new bucket is
    /// looked after. Cheap: for every request.
    pub fn tell_quota(self: &Rc<Self>) {
        let mut quota = self.quota.borrow_mut();
        while let Some(message) = quota.poll() {
            self.tell(FromShard::Quota(message));
        }
        if quota.has_new_bucket() {
            drop(quota);
            self.tick_quota_at(self.now().plus_ms(TICK_MS_MIN));
        }
    }

    /// As [`Self::tell_quota`], and finds out when leases and buckets have to be looked after next:
    /// for after messages, configurations and ticks.
    pub fn look_after_quota(self: &Rc<Self>) {
        self.tell_quota();
        let next = self.quota.borrow_mut().next_tick(self.now());
        self.tick_quota_at(next);
    }

    /// One task with one timer, for the nearest time that was asked for. An idle shard is woken when
    /// something may change, and not to see whether it has.
    fn tick_quota_at(self: &Rc<Self>, at: Mono) {
        if at >= self.quota_tick_at.get() {
            return;
        }
        self.quota_tick_at.set(at);
        if let Some(ticker) = &*self.quota_ticker.borrow() {
            ticker.wake_by_ref();
            return;
        }
        let state = Rc::clone(self);
        let started = self.ring.spawn(async move {
            let mut due = pin!(state.ring.sleep_until(at));
            while state.quota_tick_at.get() != Mono::NEVER {
                poll_fn(|cx| {
                    state.quota_ticker.replace(Some(cx.waker().clone()));
                    due.as_mut().reset(state.quota_tick_at.get());
                    due.as_mut().poll(cx)
                })
                .await;
                state.quota_tick_at.set(Mono::NEVER);
                state.quota.borrow_mut().tick(state.now());
                state.look_after_quota();
            }
            state.quota_ticker.take();
        });
        if !started {
            // The next new bucket or message asks again.
            self.quota_tick_at.set(Mono::NEVER);
        }
    }
}
