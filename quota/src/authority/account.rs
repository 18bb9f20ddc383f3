//! One bucket that more than its seed's holder has asked for: who has how many units, and who
//! should.
//!
//! Conservation: `pool + sum of held + in flight towards here = amount`, where units in flight
//! towards a holder already count as held, so what a holder really has is never more than `held`
//! says.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use ringmesh_wire::{BucketId, LeaseDown, Lent, NodeId, RecallKind};

use crate::{Nanos, Units};

/// A shard of a sidecar.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Holder {
    /// Sidecar.
    pub node: NodeId,
    /// Its shard.
    pub shard: u16,
}

/// A want that was not repeated for this long is over: shards repeat theirs every 50 ms while
/// they have to deny.
const WANT_FRESH: Nanos = 500_000_000;
/// A holder that could spare nothing is left alone this long.
const DRY: Nanos = 10_000_000;
/// Holders asked at the same time for one want.
const ASKED_MAX: usize = 4;

#[derive(Debug, Clone, Default)]
pub(super) struct Held {
    pub(super) units: u64,
    /// Units it tried to spend per window, and until when that counts; `None`: never heard.
    demand: Option<(u64, Nanos)>,
    /// Units it wants at once, and when it said so.
    need: u64,
    wanted: Nanos,
    /// When it was lent some last: turns go to who waited longest.
    served: Nanos,
    /// A recall is on its way.
    asked: bool,
    dry_until: Nanos,
}

impl Held {
    fn active(&self, now: Nanos) -> bool {
        match self.demand {
            Some((demand, until)) => demand > 0 && now < until,
            None => self.units > 0,
        }
    }

    fn wants(&self, now: Nanos) -> bool {
        self.need > 0 && now < self.wanted.saturating_add(WANT_FRESH)
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Account {
    bucket: BucketId,
    pub(super) slot: u32,
    pub(super) pool: Units,
    pub(super) held: BTreeMap<Holder, Held>,
    /// Units not accounted for are to be taken for spent just now, not for free.
    pub(super) missing_spent: bool,
}

impl Account {
    pub(super) fn new(bucket: BucketId, slot: u32) -> Self {
        Self {
            bucket,
            slot,
            pool: Units::default(),
            held: BTreeMap::new(),
            missing_spent: false,
        }
    }

    pub(super) fn window(&self) -> Nanos {
        self.bucket.window_ms.saturating_mul(1_000_000)
    }

    /// Units of the bucket that are neither here nor with a holder.
    pub(super) fn missing(&self) -> u64 {
        let held: u64 = self.held.values().map(|held| held.units).sum();
        self.bucket
            .amount_max
            .saturating_sub(held + self.pool.total())
    }

    /// Finds a place for units that got lost, once everybody has said what he holds.
    pub(super) fn settle_missing(&mut self, now: Nanos) {
        let missing = self.missing();
        if missing == 0 {
        } else if self.missing_spent {
            self.spent_until(missing, now + self.window());
        } else {
            self.pool.add_free(missing);
        }
        self.missing_spent = false;
    }

    /// These units come back here at `release`.
    pub(super) fn spent_until(&mut self, units: u64, release: Nanos) {
        let window = self.window();
        self.pool.merge(Units::of_busy(units, release), window);
    }

    /// A holder is gone; what it had may have been spent until `last`.
    pub(super) fn lose(&mut self, holder: &Holder, last: Nanos) {
        if let Some(held) = self.held.remove(holder) {
            self.spent_until(held.units, last.saturating_add(self.window()));
        }
    }

    /// A holder says what it really has.
    pub(super) fn reported(&mut self, holder: &Holder, units: u64, now: Nanos) {
        let held = self.held.entry(holder.clone()).or_default();
        let lost = held.units.saturating_sub(units);
        held.units = units;
        held.asked = false;
        held.need = 0;
        self.spent_until(lost, now + self.window());
    }

    pub(super) fn want(&mut self, holder: &Holder, need: u64, demand: u64, now: Nanos) {
        let until = self.demand_until(now);
        let held = self.held.entry(holder.clone()).or_default();
        held.need = need;
        held.wanted = now;
        held.demand = Some((demand.max(need), until));
    }

    pub(super) fn give_back(
        &mut self,
        holder: &Holder,
        units: Units,
        demand: u64,
        answer: bool,
        now: Nanos,
    ) {
        let until = self.demand_until(now);
        let window = self.window();
        let held = self.held.entry(holder.clone()).or_default();
        held.units = held.units.saturating_sub(units.total());
        held.demand = Some((demand, until));
        if answer {
            held.asked = false;
            if units.total() == 0 {
                held.dry_until = now + DRY;
            }
        }
        self.pool.merge(units, window);
        // What we took for spent and lost comes back after all: it counts once, and what is free
        // again last is kept.
        let held: u64 = self.held.values().map(|held| held.units).sum();
        self.pool
            .cut_to(self.bucket.amount_max.saturating_sub(held));
    }

    fn demand_until(&self, now: Nanos) -> Nanos {
        now + self.window().clamp(1_000_000_000, 10_000_000_000)
    }

    /// Lends what is here to who wants it and asks the others for more.
    pub(super) fn settle(
        &mut self,
        owner: Option<&Holder>,
        now: Nanos,
        out: &mut Vec<(Holder, LeaseDown)>,
    ) {
        self.pool.expire(now);
        let active = self.held.values().filter(|held| held.active(now)).count() as u64;
        let fair = self.bucket.amount_max / active.max(1);
        let mut wanting: Vec<(u64, Nanos, Holder)> = self
            .held
            .iter()
            .filter(|(_, held)| held.wants(now))
            .map(|(holder, held)| (held.units, held.served, holder.clone()))
            .collect();
        wanting.sort();
        let nobody_wants = wanting.is_empty();
        for (_, _, holder) in wanting {
            let short = self.short(&holder, fair);
            let lent = self.lend(&holder, short, now, out);
            if lent < short {
                self.recall(&holder, short - lent, fair, now, out);
            }
        }
        // What nobody wants goes home, so that the next first request there is decided there.
        if nobody_wants
            && self.pool.total() > 0
            && let Some(owner) = owner
        {
            self.lend(owner, u64::MAX, now, out);
        }
        let stale = |held: &Held| held.units == 0 && !held.asked && !held.active(now);
        self.held
            .retain(|holder, held| Some(holder) == owner || !stale(held) || held.wants(now));
    }

    /// The seed's holder has everything, as if the bucket had never been spoken of.
    pub(super) fn at_rest(&self, owner: Option<&Holder>, now: Nanos) -> bool {
        let all_with = |owner| {
            self.held.len() == 1
                && self.held.get(owner).is_some_and(|held| {
                    // A lend that never arrived is found missing only while we remember it; after
                    // a window what it carried is free wherever it is.
                    held.units == self.bucket.amount_max
                        && !held.asked
                        && now >= held.served.saturating_add(self.window())
                })
        };
        self.pool.total() == 0
            && owner.is_some_and(all_with)
            && !self.held.values().any(|held| held.wants(now))
    }

    fn short(&self, holder: &Holder, fair: u64) -> u64 {
        let Some(held) = self.held.get(holder) else {
            return 0;
        };
        let demand = held.demand.map_or(0, |(demand, _)| demand);
        let to_fair = demand.min(fair).saturating_sub(held.units);
        held.need
            .max(to_fair)
            .min(self.bucket.amount_max.saturating_sub(held.units))
    }

    /// Lends up to `units` of the pool.
    fn lend(
        &mut self,
        holder: &Holder,
        units: u64,
        now: Nanos,
        out: &mut Vec<(Holder, LeaseDown)>,
    ) -> u64 {
        let lent = self.pool.split(units);
        let total = lent.total();
        if total > 0 {
            self.lent(holder, total, now);
            let lend = LeaseDown::Lend {
                shard: holder.shard,
                bucket: self.bucket.clone(),
                units: lent.to_wire(now),
            };
            out.push((holder.clone(), lend));
        }
        total
    }

    /// Lends the whole pool to who gets the seed of the slot.
    pub(super) fn lend_with_seed(&mut self, holder: &Holder, now: Nanos) -> Lent {
        self.pool.expire(now);
        let units = std::mem::take(&mut self.pool);
        self.lent(holder, units.total(), now);
        Lent {
            bucket: self.bucket.clone(),
            units: units.to_wire(now),
        }
    }

    fn lent(&mut self, holder: &Holder, units: u64, now: Nanos) {
        let held = self.held.entry(holder.clone()).or_default();
        held.units += units;
        held.need = held.need.saturating_sub(units);
        held.served = now;
    }

    fn recall(
        &mut self,
        holder: &Holder,
        short: u64,
        fair: u64,
        now: Nanos,
        out: &mut Vec<(Holder, LeaseDown)>,
    ) {
        let mine = self.held.get(holder).map_or(0, |held| held.units);
        let mut others: Vec<(Reverse<u64>, u64, Holder)> = self
            .held
            .iter()
            .filter(|(other, held)| *other != holder && held.units > 0 && !held.asked)
            // Of those with equally many, the one that was served longest ago has most free.
            .map(|(other, held)| (Reverse(held.units), held.served, other.clone()))
            .collect();
        others.sort();
        let (mut lacking, mut asked) = (short, 0);
        let already = self.held.values().filter(|held| held.asked).count();
        for (Reverse(units), _, other) in others {
            let Some(held) = self.held.get_mut(&other) else {
                continue;
            };
            if lacking == 0 || already + asked >= ASKED_MAX {
                break;
            }
            let (take, kind) = if mine < fair && units > fair {
                ((units - fair).min(lacking), RecallKind::DownTo(fair))
            } else if fair == 0 && mine == 0 {
                (1, RecallKind::AfterSpend)
            } else if now >= held.dry_until {
                (short, RecallKind::Spare)
            } else {
                continue;
            };
            held.asked = true;
            asked += 1;
            if kind != RecallKind::Spare {
                lacking = lacking.saturating_sub(take);
            }
            let recall = LeaseDown::Recall {
                shard: other.shard,
                bucket: self.bucket.clone(),
                take,
                kind,
            };
            out.push((other, recall));
        }
    }
}
