//! Leases as a shard sees them: seeds and units come and go, leases end.

use super::{
    BucketId, Cells, FromCells, Held, HeldRule, Lease, LeaseDown, LeaseUp, Nanos,
    OnQuotaUnavailable, ToCells, Units, bucket_id,
};
use crate::LEASE_TTL_MS;
use crate::bucket::Key;
use ringmesh_wire::RecallKind;

/// Cells one tick looks at: 16,384 of them take 6.4 s at ten ticks a second.
pub(super) const TICK_CELLS: usize = 256;
/// A rule that waits for its first seed counts as lapsed after this.
const WAIT_FOR_SEED: Nanos = LEASE_TTL_MS as Nanos * 1_000_000;

impl Cells {
    /// Takes a message of the agent.
    pub fn handle(&mut self, message: ToCells, now: Nanos) {
        self.settle();
        if !matches!(message, ToCells::Renewed { .. }) {
            self.tidied = 0;
        }
        match message {
            ToCells::Down(down) => self.handle_down(down, now),
            ToCells::Renewed { rules, until } => self.renew(&rules, until, now),
            ToCells::Report { generation } => self.report(generation, now),
        }
    }

    /// Ends leases, gives back what is idle. To be called when [`Self::next_tick`] says.
    pub fn tick(&mut self, now: Nanos) {
        self.settle();
        for rule in 0..self.rules.len() {
            self.lapse_if_due(rule, now);
        }
        for _ in 0..TICK_CELLS.min(self.table.places()) {
            self.hand = if self.hand == 0 {
                self.table.places()
            } else {
                self.hand
            } - 1;
            self.tidy(self.hand, now);
        }
        self.tidied = now;
    }

    fn handle_down(&mut self, down: LeaseDown, now: Nanos) {
        match down {
            // The agent turns renewals into `ToCells::Renewed`.
            LeaseDown::Renew { .. } => {}
            LeaseDown::Seed {
                rule,
                slots,
                touched,
                ..
            } => {
                touched
                    .iter()
                    .for_each(|lent| self.lend(&lent.bucket, &lent.units, now));
                self.seed(&rule, slots);
            }
            LeaseDown::Release { rule, slots, .. } => self.release(&rule, slots, now),
            LeaseDown::Lend { bucket, units, .. } => self.lend(&bucket, &units, now),
            LeaseDown::Recall {
                bucket, take, kind, ..
            } => self.recall(&bucket, take, kind, now),
            LeaseDown::Surrender { rule, .. } => self.surrender(&rule, now),
        }
    }

    fn rule_named(&self, name: &str) -> Option<usize> {
        self.rules.iter().position(|rule| rule.shape.name == name)
    }

    fn renew(&mut self, names: &[String], until: Nanos, now: Nanos) {
        for at in 0..self.rules.len() {
            self.lapse_if_due(at, now);
            if let Some(rule) = self.rules.get_mut(at)
                && matches!(rule.lease, Lease::Until(_))
                && names.contains(&rule.shape.name)
            {
                rule.lease = Lease::Until(until);
            }
        }
    }

    /// Where a lease has ended: cuts every bucket down to the share.
    #[inline]
    pub(super) fn lapse_if_due(&mut self, at: usize, now: Nanos) {
        let Some(rule) = self.rules.get(at) else {
            return;
        };
        let Lease::Until(until) = rule.lease else {
            return;
        };
        if now >= until {
            self.lapse(at, until, now);
        }
    }

    fn lapse(&mut self, at: usize, until: Nanos, now: Nanos) {
        if let Some(rule) = self.rules.get_mut(at) {
            rule.lease = Lease::Lapsed(until);
        }
        self.outbox.push_back(FromCells::Restart);
        let places: Vec<usize> = self.places_of(at);
        for place in places {
            let Some(cell) = self.table.get(place) else {
                continue;
            };
            let Some(rule) = self.rules.get(at) else {
                continue;
            };
            let share = self.share(rule, cell.limit, cell.slot);
            let last_holder = share.node == 0 && self.on_unavailable != OnQuotaUnavailable::Deny;
            let keep = if last_holder { 1 } else { share.shard };
            if let Some(cell) = self.table.get_mut(place) {
                cell.raised = false;
                cell.owed = 0;
                cell.units.expire(now);
                cell.units.cut_to(keep);
            }
        }
    }

    fn places_of(&self, rule: usize) -> Vec<usize> {
        let of_rule = self.table.iter().filter(|(_, cell)| cell.rule == rule);
        of_rule.map(|(place, _)| place).collect()
    }

    fn seed(&mut self, name: &str, slots: u64) {
        let Some(at) = self.rule_named(name) else {
            return;
        };
        let Some(rule) = self.rules.get_mut(at) else {
            return;
        };
        if matches!(rule.lease, Lease::Lapsed(_)) {
            return;
        }
        let gained = slots & !rule.seeds;
        rule.seeds |= slots;
        // Buckets already seen here, of which the authority has not spoken, are untouched.
        for place in self.places_of(at) {
            if let Some(cell) = self.table.get_mut(place)
                && gained >> cell.slot & 1 == 1
                && !cell.explicit
            {
                let lacking = cell.limit.amount_max.saturating_sub(cell.units.total());
                cell.units.add_free(lacking);
            }
        }
    }

    fn release(&mut self, name: &str, slots: u64, now: Nanos) {
        let Some(at) = self.rule_named(name) else {
            self.released(name, slots);
            return;
        };
        for place in self.places_of(at) {
            if self
                .table
                .get(place)
                .is_some_and(|cell| slots >> cell.slot & 1 == 1)
            {
                self.give_back(place, now);
            }
        }
        if let Some(rule) = self.rules.get_mut(at) {
            rule.seeds &= !slots;
        }
        self.released(name, slots);
    }

    fn released(&mut self, rule: &str, slots: u64) {
        let released = LeaseUp::Released {
            shard: self.home.shard,
            rule: rule.to_owned(),
            slots,
        };
        self.outbox.push_back(FromCells::Up(released));
    }

    /// Returns everything of a bucket and forgets it. An untouched one goes without a word.
    fn give_back(&mut self, place: usize, now: Nanos) {
        let Some(cell) = self.table.get_mut(place) else {
            return;
        };
        cell.units.expire(now);
        let untouched = !cell.explicit && cell.units.busy() == 0;
        if !untouched && cell.units.total() > 0 {
            self.give(place, u64::MAX, false, now);
        }
        self.table.remove(place);
    }

    fn find_bucket(&self, bucket: &BucketId) -> Option<(usize, Key, Option<usize>)> {
        let rule = self.rule_named(&bucket.rule)?;
        let key = Key::of(&bucket.values);
        let place = self.table.find(rule, key.bytes());
        Some((rule, key, place))
    }

    /// The cell of a bucket the authority speaks of; from here on it is explicit.
    fn explicit(&mut self, bucket: &BucketId, now: Nanos) -> Option<usize> {
        let (rule, key, place) = self.find_bucket(bucket)?;
        let lapsed = self
            .rules
            .get(rule)
            .is_none_or(|rule| matches!(rule.lease, Lease::Lapsed(_)));
        if lapsed {
            return None;
        }
        let place = match place {
            Some(place) => place,
            None => {
                let cell = self.new_cell(rule, key.bytes(), bucket.limit(), now)?;
                self.table.insert(cell)?
            }
        };
        let cell = self.table.get_mut(place)?;
        if cell.limit != bucket.limit() {
            return None;
        }
        cell.explicit = true;
        cell.units.expire(now);
        Some(place)
    }

    fn lend(&mut self, bucket: &BucketId, units: &ringmesh_wire::Units, now: Nanos) {
        let Some(place) = self.explicit(bucket, now) else {
            // Unknown here by now: the units are lost until the next report. Safe, only unused.
            return;
        };
        if let Some(cell) = self.table.get_mut(place) {
            let window = cell.window();
            cell.units.merge(Units::from_wire(units, now), window);
            cell.asked_until = 0;
            cell.spent = false;
        }
    }

    fn recall(&mut self, bucket: &BucketId, take: u64, kind: RecallKind, now: Nanos) {
        let Some(place) = self.explicit(bucket, now) else {
            let none = ringmesh_wire::Units::default();
            self.answer(bucket.clone(), none, 0, true);
            return;
        };
        let Some(cell) = self.table.get_mut(place) else {
            return;
        };
        let window = cell.window();
        let (total, free) = (cell.units.total(), cell.units.free());
        let demand = cell.demand.per_window(now, window);
        let give = match kind {
            RecallKind::Spare => {
                let in_hand = free.saturating_sub(cell.demand.ahead(now, window));
                let beyond = total.saturating_sub(demand + demand / 4 + u64::from(demand > 0));
                in_hand.max(beyond).min(take)
            }
            RecallKind::DownTo(keep) => total.saturating_sub(keep).min(take),
            RecallKind::AfterSpend if !cell.spent && !cell.demand.stale(now, window) => {
                cell.owed = take;
                return;
            }
            RecallKind::AfterSpend => take.min(total),
        };
        self.give(place, give, true, now);
    }

    pub(super) fn pay_owed(&mut self, place: usize, now: Nanos) {
        if let Some(cell) = self.table.get_mut(place) {
            let owed = std::mem::take(&mut cell.owed);
            self.give(place, owed, true, now);
        }
    }

    fn give(&mut self, place: usize, units: u64, answer: bool, now: Nanos) {
        let Some(cell) = self.table.get_mut(place) else {
            return;
        };
        let given = cell.units.split(units).to_wire(now);
        let window = cell.window();
        let demand = cell.demand.per_window(now, window);
        if cell.units.total() == 0 {
            // As if never heard of, for a seed that may come later.
            cell.explicit = false;
        }
        let Some(rule) = self.rules.get(cell.rule) else {
            return;
        };
        if cell.units.total() == 0 && rule.seeds >> cell.slot & 1 == 1 {
            cell.explicit = true;
        }
        let bucket = bucket_id(rule, cell);
        self.answer(bucket, given, demand, answer);
    }

    fn answer(&mut self, bucket: BucketId, units: ringmesh_wire::Units, demand: u64, answer: bool) {
        let back = LeaseUp::Return {
            shard: self.home.shard,
            bucket,
            units,
            demand,
            answer,
        };
        self.outbox.push_back(FromCells::Up(back));
    }

    fn surrender(&mut self, name: &str, now: Nanos) {
        let Some(at) = self.rule_named(name) else {
            self.released(name, u64::MAX);
            return;
        };
        for place in self.places_of(at) {
            if let Some(cell) = self.table.get_mut(place) {
                cell.units.expire(now);
                // The share was never the authority's to give: only what is spent matters to it.
                let busy = cell.units.busy();
                cell.units.drop_free();
                if busy > 0 {
                    self.give(place, u64::MAX, false, now);
                }
                self.table.remove(place);
            }
        }
        if let Some(rule) = self.rules.get_mut(at) {
            rule.seeds = 0;
            rule.lease = Lease::Until(now + WAIT_FOR_SEED);
        }
        self.released(name, u64::MAX);
    }

    fn report(&mut self, generation: u64, now: Nanos) {
        // What was on its way belonged to the stream before; the report says it all.
        self.outbox
            .retain(|message| !matches!(message, FromCells::Up(_)));
        let mut rules = Vec::with_capacity(self.rules.len());
        for at in 0..self.rules.len() {
            self.lapse_if_due(at, now);
            let idle = self
                .table
                .iter()
                .all(|(_, c)| c.rule != at || c.units.total() == 0);
            let Some(rule) = self.rules.get_mut(at) else {
                continue;
            };
            if matches!(rule.lease, Lease::Lapsed(_)) && rule.seeds == 0 && idle {
                // Nothing was spent on the share yet, so there is nothing to surrender.
                rule.lease = Lease::Until(now + WAIT_FOR_SEED);
            }
            rules.push(HeldRule {
                rule: rule.shape.name.clone(),
                shard: self.home.shard,
                slots: rule.seeds,
                lapsed: matches!(rule.lease, Lease::Lapsed(_)),
            });
        }
        let held = self.table.iter().filter_map(|(_, cell)| {
            let rule = self.rules.get(cell.rule)?;
            let leased = matches!(rule.lease, Lease::Until(_));
            (leased && cell.explicit).then(|| Held {
                shard: self.home.shard,
                bucket: bucket_id(rule, cell),
                units: cell.units.to_wire(now),
            })
        });
        let held = held.collect();
        // A recall of the old stream is void.
        for place in 0..self.table.places() {
            if let Some(cell) = self.table.get_mut(place) {
                cell.owed = 0;
                cell.asked_until = 0;
            }
        }
        self.outbox.retain(|message| *message != FromCells::Restart);
        self.outbox.push_back(FromCells::Report {
            generation,
            rules,
            held,
        });
    }

    /// Gives back or forgets what is idle.
    fn tidy(&mut self, place: usize, now: Nanos) {
        let Some(cell) = self.table.get_mut(place) else {
            return;
        };
        let window = cell.window();
        cell.units.expire(now);
        let stale = cell.demand.stale(now, window);
        if stale && cell.owed > 0 {
            self.pay_owed(place, now);
            return;
        }
        if !stale || cell.units.busy() > 0 || cell.owed > 0 {
            return;
        }
        let (rule, limit, slot) = (cell.rule, cell.limit, cell.slot);
        let total = cell.units.total();
        let default = self.default_units(rule, limit, slot, now);
        let leased = self
            .rules
            .get(rule)
            .is_some_and(|rule| matches!(rule.lease, Lease::Until(_)));
        if total == default {
            self.table.remove(place);
        } else if leased && default == 0 {
            self.give_back(place, now);
        }
    }
}
