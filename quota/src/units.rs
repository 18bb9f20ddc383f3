//! Units of one bucket, wherever they are: at a shard, with the authority, on the way.
//!
//! Invariant: spending and coming back never change the total; only [`Units::split`],
//! [`Units::merge`], [`Units::add_free`] and [`Units::cut_to`] do. A unit spent at `t` is free
//! again at `t + window` or up to one grain later, never earlier.

use std::collections::VecDeque;

use ringmesh_wire as wire;

use crate::Nanos;

/// Groups of spends a window is at most cut into: spends closer together than a 1/256 of the
/// window come back together, when the last of them does. This bounds memory (24 bytes each) and
/// costs at most 0.4 % of throughput; 100 ms, Mixer's tick, is the coarsest grain.
const GRAINS: u64 = 256;
const GRAIN_MAX: Nanos = 100_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Group {
    /// When its first unit could have come back; bounds what merges into it.
    opened: Nanos,
    /// When all of it comes back.
    release: Nanos,
    units: u64,
}

/// Some units of one bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Units {
    free: u64,
    /// Sorted by `release`.
    busy: VecDeque<Group>,
    /// Sum over `busy`.
    busy_total: u64,
}

impl Units {
    /// Units nobody has spent lately.
    #[must_use]
    pub fn of_free(free: u64) -> Self {
        Self {
            free,
            ..Self::default()
        }
    }

    /// Units that come back at `release`.
    #[must_use]
    pub fn of_busy(units: u64, release: Nanos) -> Self {
        let mut made = Self::default();
        if units > 0 {
            made.insert(release, units, 0);
        }
        made
    }

    /// From a message that just arrived. Both clocks tick at most 0.1 % apart; the remaining time
    /// is lengthened by that.
    #[must_use]
    pub fn from_wire(units: &wire::Units, now: Nanos) -> Self {
        let mut made = Self::of_free(units.free);
        for busy in &units.busy {
            let remaining = busy.remaining_us.saturating_mul(1_000);
            let release = now
                .saturating_add(remaining)
                .saturating_add(remaining >> 10);
            if busy.units > 0 {
                made.insert(release, busy.units, 0);
            }
        }
        made
    }

    /// For a message sent now.
    #[must_use]
    pub fn to_wire(&self, now: Nanos) -> wire::Units {
        let busy = self.busy.iter().map(|group| wire::Busy {
            remaining_us: group.release.saturating_sub(now).div_ceil(1_000),
            units: group.units,
        });
        wire::Units {
            free: self.free,
            busy: busy.collect(),
        }
    }

    /// How many in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.free + self.busy_total
    }

    /// How many can be spent (as of the last [`Self::expire`]).
    #[must_use]
    pub fn free(&self) -> u64 {
        self.free
    }

    /// How many are spent and not back.
    #[must_use]
    pub fn busy(&self) -> u64 {
        self.busy_total
    }

    /// When the next of them comes back.
    #[must_use]
    pub fn next_release(&self) -> Option<Nanos> {
        self.busy.front().map(|group| group.release)
    }

    /// Takes back what has come back by `now`.
    pub fn expire(&mut self, now: Nanos) {
        while let Some(group) = self.busy.front().copied()
            && group.release <= now
        {
            self.busy.pop_front();
            self.busy_total -= group.units;
            self.free += group.units;
        }
    }

    /// Spends `units`, all or none.
    pub fn spend(&mut self, units: u64, now: Nanos, window: Nanos) -> bool {
        self.spend_since(units, now, now, window)
    }

    /// Spends `units` that were used one by one from `began` (at most a grain ago) to `now`, all or
    /// none. They come back together.
    pub(crate) fn spend_since(
        &mut self,
        units: u64,
        began: Nanos,
        now: Nanos,
        window: Nanos,
    ) -> bool {
        self.expire(now);
        if self.free < units {
            return false;
        }
        self.free -= units;
        let group = Group {
            opened: began.saturating_add(window),
            release: now.saturating_add(window),
            units,
        };
        self.put_in(group, grain(window));
        true
    }

    /// When the last of them comes back; 0 where all are free.
    pub(crate) fn last_release(&self) -> Nanos {
        self.busy.back().map_or(0, |group| group.release)
    }

    /// Undoes the spend that was just made.
    pub fn refund(&mut self, units: u64, now: Nanos, window: Nanos) {
        let release = now.saturating_add(window);
        if let Some(at) = self.busy.iter().rposition(|g| g.release == release)
            && let Some(group) = self.busy.get_mut(at)
            && group.units >= units
        {
            group.units -= units;
            self.busy_total -= units;
            self.free += units;
            if group.units == 0 {
                self.busy.remove(at);
            }
        }
    }

    /// Splits off up to `units`: free ones first, then those that come back soonest.
    #[must_use]
    pub fn split(&mut self, units: u64) -> Self {
        let mut given = Self::of_free(units.min(self.free));
        self.free -= given.free;
        while given.total() < units
            && let Some(front) = self.busy.front_mut()
        {
            let take = (units - given.total()).min(front.units);
            let taken = Group {
                units: take,
                ..*front
            };
            front.units -= take;
            if front.units == 0 {
                self.busy.pop_front();
            }
            self.busy_total -= take;
            given.busy_total += take;
            given.busy.push_back(taken);
        }
        given
    }

    /// Adds what somebody else had.
    pub fn merge(&mut self, other: Self, window: Nanos) {
        self.free += other.free;
        for group in other.busy {
            self.insert(group.release, group.units, grain(window));
        }
    }

    /// Destroys the units nobody has spent lately.
    pub fn drop_free(&mut self) {
        self.free = 0;
    }

    /// Adds units nobody has spent lately.
    pub fn add_free(&mut self, units: u64) {
        self.free += units;
    }

    /// Destroys units until at most `total` are left: free ones, then those that would have come
    /// back first, so that the next spend waits until fewer than `total` lie in the window.
    pub fn cut_to(&mut self, total: u64) {
        let excess = self.total().saturating_sub(total);
        drop(self.split(excess));
    }

    /// Makes every release this much later (a longer window).
    pub fn delay(&mut self, by: Nanos) {
        for group in &mut self.busy {
            group.opened += by;
            group.release += by;
        }
    }

    fn insert(&mut self, release: Nanos, units: u64, grain: Nanos) {
        let group = Group {
            opened: release,
            release,
            units,
        };
        self.put_in(group, grain);
    }

    fn put_in(&mut self, group: Group, grain: Nanos) {
        let Group {
            opened,
            release,
            units,
        } = group;
        self.busy_total += units;
        if units == 0 {
            return;
        }
        // Nearly always the newest: one look at the end.
        let at = match self.busy.back() {
            Some(back) if back.release > release => {
                self.busy.partition_point(|g| g.release <= release)
            }
            _ => self.busy.len(),
        };
        if at > 0
            && let Some(before) = self.busy.get_mut(at - 1)
            && release - before.opened.min(release) <= grain
        {
            before.opened = before.opened.min(opened);
            before.release = release;
            before.units += units;
            return;
        }
        if let Some(after) = self.busy.get_mut(at)
            && after.release - opened.min(after.release) <= grain
        {
            after.units += units;
            after.opened = after.opened.min(opened);
            return;
        }
        self.busy.insert(at, group);
    }
}

pub(crate) fn grain(window: Nanos) -> Nanos {
    (window / GRAINS).min(GRAIN_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    #[test]
    fn one_per_five_seconds_is_exact() {
        let mut units = Units::of_free(1);
        let at = |tenths: u64| 1_000 * SECOND + tenths * SECOND / 10;
        assert!(units.spend(1, at(0), 5 * SECOND));
        assert!(!units.spend(1, at(45), 5 * SECOND));
        assert!(units.spend(1, at(52), 5 * SECOND));
        assert!(!units.spend(1, at(90), 5 * SECOND));
        assert!(units.spend(1, at(102), 5 * SECOND));
    }

    #[test]
    fn groups_are_bounded_and_never_come_back_early() {
        let mut units = Units::of_free(u64::MAX / 2);
        for step in 0..100_000_u64 {
            assert!(units.spend(1, step * 100_000, SECOND));
        }
        assert!(units.busy.len() <= 260, "{} groups", units.busy.len());
        assert_eq!(units.total(), u64::MAX / 2);
        assert!(units.busy() >= 10_000, "a second holds 10,000 spends");
        assert!(
            units.busy() <= 10_080,
            "more than a grain too long: {}",
            units.busy()
        );
    }

    #[test]
    fn moving_keeps_the_total_and_the_occupancy() {
        let mut here = Units::of_free(10);
        assert!(here.spend(4, 0, SECOND));
        assert!(here.spend(4, SECOND / 2, SECOND));
        let mut there = here.split(5);
        assert_eq!((there.free(), there.busy()), (2, 3));
        assert_eq!((here.free(), here.busy()), (0, 5));
        there.expire(SECOND);
        assert_eq!(there.free(), 5);
        here.merge(there, SECOND);
        assert_eq!(here.total(), 10);
    }

    #[test]
    fn a_refund_undoes_the_last_spend() {
        let mut units = Units::of_free(2);
        assert!(units.spend(1, 5, SECOND));
        units.refund(1, 5, SECOND);
        assert_eq!(units, Units::of_free(2));
    }

    #[test]
    fn cutting_keeps_what_comes_back_last() {
        let mut units = Units::of_free(5);
        for at in 0..5 {
            assert!(units.spend(1, at * SECOND, 10 * SECOND));
        }
        units.cut_to(3);
        units.expire(11 * SECOND);
        assert_eq!((units.free(), units.busy()), (0, 3));
    }
}
