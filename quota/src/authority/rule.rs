//! One rule: who holds the seed of which slot, who stands how, and its contested buckets.

use std::collections::{BTreeMap, BTreeSet};

use ringmesh_wire::limits::LEASE_ITEMS_MAX;
use ringmesh_wire::snapshot::Limit;
use ringmesh_wire::{BucketId, Held, HeldRule, LeaseDown, NodeId, SLOTS};

use super::account::{Account, Holder};
use crate::bucket::slot_of;
use crate::{Nanos, Units};

/// Contested buckets of one rule. Over it, a want for another one is not served: who holds the
/// seed goes on admitting, others deny.
const ACCOUNTS_MAX: usize = 65_536;

type Out = Vec<(Holder, LeaseDown)>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// What it has is what we lent.
    Leased,
    /// It lives on its share.
    Lapsed,
    /// It was asked to stop.
    Surrendering,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Slot {
    pub(super) owner: Option<Holder>,
    /// Untouched buckets of it may lie in somebody's window until then.
    free_at: Nanos,
    releasing: bool,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) window_max: Nanos,
    /// It is among the rules there are now.
    pub(super) declared: bool,
    /// Of the rule as declared last, for people.
    pub(super) limit: Option<Limit>,
    /// The restart of the authority was taken into account.
    pub(super) restarted: bool,
    /// Until then something that nobody told of may lie in a window.
    unsure_until: Nanos,
    pub(super) enforcers: BTreeSet<NodeId>,
    pub(super) holders: BTreeMap<Holder, Standing>,
    /// Lost and given up: whatever they still have when they come back, others may have too.
    pub(super) buried: BTreeSet<NodeId>,
    pub(super) slots: Vec<Slot>,
    pub(super) accounts: BTreeMap<BucketId, Account>,
}

impl Default for Rule {
    fn default() -> Self {
        Self {
            window_max: 0,
            declared: false,
            limit: None,
            restarted: false,
            unsure_until: 0,
            enforcers: BTreeSet::new(),
            holders: BTreeMap::new(),
            buried: BTreeSet::new(),
            slots: vec![Slot::default(); SLOTS as usize],
            accounts: BTreeMap::new(),
        }
    }
}

impl Rule {
    pub(super) fn holders_of(&self, node: &NodeId) -> Vec<Holder> {
        let mine = self.holders.keys().filter(|holder| holder.node == *node);
        mine.cloned().collect()
    }

    fn owner(&self, slot: u32) -> Option<&Holder> {
        self.slots.get(slot as usize)?.owner.as_ref()
    }

    /// A shard no longer has the deleted rule.
    pub(super) fn forget(&mut self, holder: &Holder) {
        self.holders.remove(holder);
        for account in self.accounts.values_mut() {
            account.held.remove(holder);
        }
        for slot in &mut self.slots {
            if slot.owner.as_ref() == Some(holder) {
                *slot = Slot::default();
            }
        }
    }

    /// What a shard says of itself at the beginning of a stream.
    pub(super) fn reported(&mut self, holder: &Holder, held: &HeldRule, now: Nanos) {
        let claims = |at: usize| held.slots >> at & 1 == 1;
        let taken = self.slots.iter().enumerate().any(|(at, slot)| {
            claims(at) && slot.owner.as_ref().is_some_and(|owner| owner != holder)
        });
        if held.lapsed || taken || self.buried.remove(&holder.node) {
            self.holders.insert(holder.clone(), Standing::Lapsed);
            // Some of it may have been lent and never arrived, busy with another's spends.
            for account in self.accounts.values_mut() {
                account.lose(holder, now);
            }
            return;
        }
        self.holders.insert(holder.clone(), Standing::Leased);
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let believed = slot.owner.as_ref() == Some(holder);
            if claims(at) {
                slot.owner = Some(holder.clone());
            } else if believed {
                // A seed that got lost on its way, or a release that did.
                slot.owner = None;
                slot.free_at = now.saturating_add(self.window_max);
            }
            if believed {
                slot.releasing = false;
            }
        }
    }

    pub(super) fn hold(&mut self, holder: &Holder, held: &Held, now: Nanos) {
        let units = Units::from_wire(&held.units, now).total();
        let account = match self.accounts.entry(held.bucket.clone()) {
            std::collections::btree_map::Entry::Occupied(found) => found.into_mut(),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                let mut made = Account::new(held.bucket.clone(), slot_of(&held.bucket));
                made.missing_spent = true;
                vacant.insert(made)
            }
        };
        account.reported(holder, units, now);
    }

    /// The report is complete: of what it did not name, a shard has what the seeds say.
    pub(super) fn unsaid(
        &mut self,
        node: &NodeId,
        said: &BTreeSet<(Holder, BucketId)>,
        now: Nanos,
    ) {
        let slots = &self.slots;
        for (bucket, account) in &mut self.accounts {
            let owner = slots
                .get(account.slot as usize)
                .and_then(|slot| slot.owner.as_ref());
            let mine = account
                .held
                .keys()
                .filter(|h| h.node == *node && Some(*h) != owner);
            let mine: Vec<Holder> = mine.cloned().collect();
            for holder in mine {
                if !said.contains(&(holder.clone(), bucket.clone())) {
                    account.reported(&holder, 0, now);
                }
            }
        }
    }

    /// A sidecar is gone; it may have spent what it had until `last`.
    pub(super) fn lose(&mut self, node: &NodeId, last: Nanos) {
        for holder in self.holders_of(node) {
            self.lose_holder(&holder, last);
        }
    }

    pub(super) fn lose_holder(&mut self, holder: &Holder, last: Nanos) {
        self.holders.remove(holder);
        // It may have lived on its share in the end.
        self.unsure(last);
        for account in self.accounts.values_mut() {
            account.lose(holder, last);
        }
        for slot in &mut self.slots {
            if slot.owner.as_ref() == Some(holder) {
                *slot = Slot {
                    owner: None,
                    free_at: last.saturating_add(self.window_max),
                    releasing: false,
                };
            }
        }
    }

    /// Something may have been spent until `last` of which nobody will tell.
    pub(super) fn unsure(&mut self, last: Nanos) {
        let until = last.saturating_add(self.window_max);
        self.unsure_until = self.unsure_until.max(until);
        for slot in self.slots.iter_mut().filter(|slot| slot.owner.is_none()) {
            slot.free_at = slot.free_at.max(until);
        }
        for account in self.accounts.values_mut() {
            account.missing_spent = true;
        }
    }

    /// Whether there is an account to settle now.
    pub(super) fn want(
        &mut self,
        holder: &Holder,
        bucket: &BucketId,
        need: u64,
        demand: u64,
        now: Nanos,
    ) -> bool {
        if self.holders.get(holder) != Some(&Standing::Leased) {
            return false;
        }
        if !self.accounts.contains_key(bucket) {
            let slot = slot_of(bucket);
            let Some(owner) = self.owner(slot).filter(|owner| *owner != holder).cloned() else {
                return false;
            };
            if self
                .slots
                .get(slot as usize)
                .is_some_and(|slot| slot.releasing)
            {
                return false;
            }
            if self.accounts.len() >= ACCOUNTS_MAX {
                return false;
            }
            let mut account = Account::new(bucket.clone(), slot);
            account.held.entry(owner).or_default().units = bucket.amount_max;
            self.accounts.insert(bucket.clone(), account);
        }
        if let Some(account) = self.accounts.get_mut(bucket) {
            account.want(holder, need, demand, now);
        }
        true
    }

    pub(super) fn given_back(
        &mut self,
        holder: &Holder,
        bucket: &BucketId,
        units: Units,
        demand: u64,
        answer: bool,
        now: Nanos,
    ) {
        if !self.accounts.contains_key(bucket) {
            if units.total() == 0 {
                return;
            }
            let mut account = Account::new(bucket.clone(), slot_of(bucket));
            account.missing_spent = now < self.unsure_until;
            self.accounts.insert(bucket.clone(), account);
        }
        if let Some(account) = self.accounts.get_mut(bucket) {
            account.give_back(holder, units, demand, answer, now);
        }
    }

    pub(super) fn settle(&mut self, bucket: &BucketId, now: Nanos, out: &mut Out) {
        let Some(account) = self.accounts.get_mut(bucket) else {
            return;
        };
        let slot = self.slots.get(account.slot as usize);
        if slot.is_some_and(|slot| slot.releasing) {
            // What is lent now might cross the release on its way.
            return;
        }
        let owner = slot
            .and_then(|slot| slot.owner.as_ref())
            .filter(|owner| self.holders.get(owner) == Some(&Standing::Leased));
        account.settle_missing(now);
        account.settle(owner, now, out);
        if account.at_rest(owner, now) {
            self.accounts.remove(bucket);
        }
    }

    pub(super) fn settle_all(&mut self, now: Nanos, out: &mut Out) {
        let buckets: Vec<BucketId> = self.accounts.keys().cloned().collect();
        for bucket in buckets {
            self.settle(&bucket, now, out);
        }
    }

    pub(super) fn released(&mut self, holder: &Holder, slots: u64, now: Nanos) {
        let leased = self.holders.get(holder) == Some(&Standing::Leased);
        let free_at = if leased {
            now
        } else {
            now.max(self.unsure_until)
        };
        for account in self.accounts.values_mut() {
            if slots >> account.slot & 1 == 1 {
                // What was touched it has returned; the rest it has left untouched.
                let untouched = account.held.remove(holder).map_or(0, |held| held.units);
                account.pool.add_free(untouched);
            }
        }
        for (at, slot) in self.slots.iter_mut().enumerate() {
            if slots >> at & 1 == 1 && slot.owner.as_ref() == Some(holder) {
                *slot = Slot {
                    owner: None,
                    free_at,
                    releasing: false,
                };
            }
        }
        if let Some(standing) = self.holders.get_mut(holder)
            && *standing == Standing::Surrendering
        {
            *standing = Standing::Leased;
        }
    }

    pub(super) fn surrender_lapsed(&mut self, name: &str, now: Nanos, out: &mut Out) {
        let leased = |slot: &Slot| {
            let standing = slot
                .owner
                .as_ref()
                .and_then(|owner| self.holders.get(owner));
            standing == Some(&Standing::Leased)
        };
        if now < self.unsure_until && !self.slots.iter().any(leased) {
            // Nothing could be seeded yet: they may as well go on living on their share.
            return;
        }
        for (holder, standing) in &mut self.holders {
            if *standing == Standing::Lapsed {
                *standing = Standing::Surrendering;
                let surrender = LeaseDown::Surrender {
                    shard: holder.shard,
                    rule: name.to_owned(),
                };
                out.push((holder.clone(), surrender));
            }
        }
    }

    /// Gives every slot nobody has, and nobody can have spent from, to who has the fewest.
    pub(super) fn assign_slots(
        &mut self,
        name: &str,
        able: impl Fn(&Holder) -> bool,
        now: Nanos,
        out: &mut Out,
    ) {
        let mut given: BTreeMap<Holder, u64> = BTreeMap::new();
        let mut counts = self.counts(able);
        let mut touched = [0_usize; SLOTS as usize];
        for account in self.accounts.values() {
            if let Some(count) = touched.get_mut(account.slot as usize) {
                *count += 1;
            }
        }
        // What does not fit into one message waits for the next tick.
        let mut room = LEASE_ITEMS_MAX;
        for (at, slot) in self.slots.iter_mut().enumerate() {
            let touched = touched.get(at).copied().unwrap_or(0);
            if slot.owner.is_some() || slot.free_at > now || touched > room {
                continue;
            }
            room -= touched;
            let Some((count, holder)) = counts.iter_mut().min() else {
                return;
            };
            *count += 1;
            *given.entry(holder.clone()).or_default() |= 1 << at;
            slot.owner = Some(holder.clone());
        }
        for (holder, slots) in given {
            let mut touched = Vec::new();
            for account in self.accounts.values_mut() {
                if slots >> account.slot & 1 == 1 {
                    account.settle_missing(now);
                    touched.push(account.lend_with_seed(&holder, now));
                }
            }
            let seed = LeaseDown::Seed {
                shard: holder.shard,
                rule: name.to_owned(),
                slots,
                touched,
            };
            out.push((holder, seed));
        }
    }

    /// Asks who has the most slots to release some for who has the fewest.
    pub(super) fn rebalance(&mut self, name: &str, able: impl Fn(&Holder) -> bool, out: &mut Out) {
        if self
            .slots
            .iter()
            .any(|slot| slot.releasing || slot.owner.is_none())
        {
            return;
        }
        let counts = self.counts(able);
        let (Some((most, from)), Some((least, _))) = (counts.iter().max(), counts.iter().min())
        else {
            return;
        };
        let surplus = (most - least) / 2;
        let mut slots = 0_u64;
        let mine = self.slots.iter_mut().enumerate();
        let mine = mine.filter(|(_, slot)| slot.owner.as_ref() == Some(from));
        for (at, slot) in mine.take(surplus) {
            slot.releasing = true;
            slots |= 1 << at;
        }
        if slots != 0 {
            let release = LeaseDown::Release {
                shard: from.shard,
                rule: name.to_owned(),
                slots,
            };
            out.push((from.clone(), release));
        }
    }

    fn counts(&self, able: impl Fn(&Holder) -> bool) -> Vec<(usize, Holder)> {
        let leased = self
            .holders
            .iter()
            .filter(|(_, standing)| **standing == Standing::Leased);
        let able = leased
            .map(|(holder, _)| holder)
            .filter(|holder| able(holder));
        let count = |holder: &Holder| {
            let owned = self
                .slots
                .iter()
                .filter(|slot| slot.owner.as_ref() == Some(holder));
            owned.count()
        };
        able.map(|holder| (count(holder), holder.clone())).collect()
    }
}
