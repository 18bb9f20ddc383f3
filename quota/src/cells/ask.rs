//! One request's charges: all of them or none.

use ringmesh_wire::LeaseUp;
use ringmesh_wire::snapshot::OnQuotaUnavailable;

use super::again::Memo;
use super::{Cells, FromCells, Lease, bucket_id, raise_at};
use crate::Nanos;
use crate::bucket::Key;

/// A shard asks for units of one bucket at most this often.
const ASK_EVERY: Nanos = 20_000_000;

/// The answer to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every charge was spent.
    Admit,
    /// This rule has no unit left here; nothing was spent.
    Exhausted {
        /// Index of the rule.
        rule: usize,
    },
    /// The table of buckets is full and this one is not in it; nothing was spent.
    Full {
        /// Index of the rule.
        rule: usize,
    },
}

/// Buffers that live from request to request, so that asking allocates nothing once they grew.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    text: String,
    /// End of each value in `text`.
    ends: Vec<usize>,
    /// Rule, and index of its first value in `ends`.
    pub(super) charges: Vec<(usize, usize)>,
    /// Cell and units spent so far.
    pub(super) spent: Vec<(usize, u64)>,
    key: Key,
    /// The first value `key` was made of, if it holds all values of a rule as they are.
    key_of: Option<usize>,
}

impl Scratch {
    fn value(&self, at: usize) -> &str {
        let from = at.checked_sub(1).and_then(|before| self.ends.get(before));
        let end = self.ends.get(at).copied().unwrap_or(0);
        self.text.get(from.copied().unwrap_or(0)..end).unwrap_or("")
    }
}

/// The charges of one request, being put together: [`Ask::rule`], its [`Ask::value`]s in the order
/// of the rule's dimensions, the next rule, ..., [`Ask::decide`].
#[derive(Debug)]
pub struct Ask<'a> {
    cells: &'a mut Cells,
}

impl Cells {
    /// Begins a request.
    pub fn ask(&mut self) -> Ask<'_> {
        self.settle();
        let scratch = &mut self.scratch;
        scratch.text.clear();
        scratch.ends.clear();
        scratch.charges.clear();
        scratch.spent.clear();
        scratch.key_of = None;
        Ask { cells: self }
    }
}

impl Ask<'_> {
    /// A rule whose condition holds, by its index.
    pub fn rule(&mut self, rule: usize) -> &mut Self {
        let scratch = &mut self.cells.scratch;
        scratch.charges.push((rule, scratch.ends.len()));
        self
    }

    /// A rule whose condition holds and whose dimensions are those of the rule before it: it shares
    /// that one's values, and none follow.
    pub fn rule_alike(&mut self, rule: usize) -> &mut Self {
        let scratch = &mut self.cells.scratch;
        let first = scratch.charges.last().map_or(0, |(_, first)| *first);
        scratch.charges.push((rule, first));
        self
    }

    /// The next dimension's value.
    pub fn value(&mut self, value: &str) -> &mut Self {
        let scratch = &mut self.cells.scratch;
        scratch.text.push_str(value);
        scratch.ends.push(scratch.text.len());
        self
    }

    /// The next dimension's value, a number or an address.
    pub fn value_of(&mut self, value: impl std::fmt::Display) -> &mut Self {
        use std::fmt::Write;
        let scratch = &mut self.cells.scratch;
        // Writing to a String cannot fail; a Display that fails leaves its value short.
        let _ = write!(scratch.text, "{value}");
        scratch.ends.push(scratch.text.len());
        self
    }

    /// As [`Self::decide`], noting which cells were charged if every charge has one, so that the
    /// next equal request can be decided by [`Cells::again`].
    pub fn decide_noting(self, now: Nanos, memo: &mut Memo) -> Verdict {
        let cells = &mut *self.cells;
        let charges = cells.scratch.charges.len();
        let verdict = Ask { cells: &mut *cells }.decide(now);
        memo.note(cells, charges, verdict);
        verdict
    }

    /// Spends every charge, or none.
    pub fn decide(self, now: Nanos) -> Verdict {
        let cells = self.cells;
        let mut scratch = std::mem::take(&mut cells.scratch);
        let mut verdict = Verdict::Admit;
        for at in 0..scratch.charges.len() {
            verdict = cells.charge(&mut scratch, at, now);
            if verdict != Verdict::Admit {
                cells.refund(&scratch, now);
                break;
            }
        }
        cells.scratch = scratch;
        verdict
    }
}

impl Cells {
    fn charge(&mut self, scratch: &mut Scratch, at: usize, now: Nanos) -> Verdict {
        let Some((rule, first)) = scratch.charges.get(at).copied() else {
            return Verdict::Admit;
        };
        self.lapse_if_due(rule, now);
        let Some(found) = self.rules.get(rule) else {
            return Verdict::Admit;
        };
        let units = found.charge;
        let lapsed = matches!(found.lease, Lease::Lapsed(_));
        if units == 0 || lapsed && self.on_unavailable == OnQuotaUnavailable::Allow {
            return Verdict::Admit;
        }
        // Rules alike and without overrides have one key between them.
        let plain = found.shape.limit_without_overrides();
        let limit = match plain {
            Some(limit) if scratch.key_of == Some(first) => limit,
            _ => {
                let mut key = std::mem::take(&mut scratch.key);
                let value = |dimension: usize| scratch.value(first + dimension);
                let limit = found.shape.resolve(value, &mut key);
                scratch.key = key;
                scratch.key_of = plain.map(|_| first);
                limit
            }
        };
        if limit.amount_max == 0 {
            return Verdict::Exhausted { rule };
        }
        let place = match self.table.find(rule, scratch.key.bytes()) {
            Some(place) => place,
            None => {
                let cell = self.new_cell(rule, scratch.key.bytes(), limit, now);
                match cell.and_then(|cell| self.table.insert(cell)) {
                    Some(place) => {
                        self.new_bucket = true;
                        place
                    }
                    None => return Verdict::Full { rule },
                }
            }
        };
        if self.spend(place, units, now) {
            scratch.spent.push((place, units));
            Verdict::Admit
        } else {
            Verdict::Exhausted { rule }
        }
    }

    pub(super) fn spend(&mut self, place: usize, units: u64, now: Nanos) -> bool {
        self.spend_since(place, units, now, now)
    }

    /// Spends units that were used from `began` to `now`.
    pub(super) fn spend_since(
        &mut self,
        place: usize,
        units: u64,
        began: Nanos,
        now: Nanos,
    ) -> bool {
        self.raise_if_due(place, now);
        let Some(cell) = self.table.get_mut(place) else {
            return false;
        };
        let window = cell.window();
        cell.demand.note(units, now, window);
        let admitted = cell.units.spend_since(units, began, now, window);
        cell.spent |= admitted;
        if admitted && cell.owed > 0 {
            self.pay_owed(place, now);
        } else if !admitted || cell.units.total() < cell.limit.amount_max {
            self.ask_ahead(place, units, admitted, now);
        }
        admitted
    }

    pub(super) fn refund(&mut self, scratch: &Scratch, now: Nanos) {
        for (place, units) in &scratch.spent {
            if let Some(cell) = self.table.get_mut(*place) {
                let window = cell.window();
                cell.units.refund(*units, now, window);
            }
        }
    }

    /// Asks the authority for units when there are none, or soon will be none.
    fn ask_ahead(&mut self, place: usize, units: u64, admitted: bool, now: Nanos) {
        let Some(cell) = self.table.get_mut(place) else {
            return;
        };
        let Some(rule) = self.rules.get(cell.rule) else {
            return;
        };
        let window = cell.window();
        let ahead = cell.demand.ahead(now, window);
        let enough = admitted && cell.units.free() >= ahead.div_ceil(2);
        let alone = self.home.standalone && self.home.shards <= 1;
        if enough
            || alone
            || now < cell.asked_until
            || cell.units.total() >= cell.limit.amount_max
            || matches!(rule.lease, Lease::Lapsed(_))
        {
            return;
        }
        cell.asked_until = now + ASK_EVERY;
        let want = LeaseUp::Want {
            shard: self.home.shard,
            bucket: bucket_id(rule, cell),
            need: ahead.saturating_sub(cell.units.free()).max(units),
            demand: cell.demand.per_window(now, window),
        };
        self.outbox.push_back(FromCells::Up(want));
    }

    /// While lapsed: fills a bucket up to the share once no lease elsewhere can be running.
    fn raise_if_due(&mut self, place: usize, now: Nanos) {
        let Some(cell) = self.table.get(place) else {
            return;
        };
        let Some(rule) = self.rules.get(cell.rule) else {
            return;
        };
        let Lease::Lapsed(since) = rule.lease else {
            return;
        };
        if cell.raised || now < raise_at(since, cell.limit) {
            return;
        }
        let share = self.share(rule, cell.limit, cell.slot).shard;
        if let Some(cell) = self.table.get_mut(place) {
            cell.raised = true;
            cell.units.expire(now);
            let lacking = share.saturating_sub(cell.units.total());
            cell.units.add_free(lacking);
        }
    }
}
