//! The same charges once more: a caller whose rules and dimension values do not change from request
//! to request finds its cells once.
//!
//! Exactly [`Ask`](super::Ask) without the search: the same leases, the same spending, all charges or
//! none. A memo is a shortcut, never a truth: where a cell is not the one that was noted, the
//! answer is `None` and the caller asks in full.
//!
//! Where the same cells are charged time after time and have units in plenty, even the spending is
//! put off: a run of such requests is counted as one number and spent at once when it ends
//! ([`super::run`]).

use super::ask::Verdict;
use super::{Cells, Lease};
use crate::Nanos;

/// Cells found by an earlier request. Good for one configuration: forget it at the next.
#[derive(Debug, Default)]
pub struct Memo {
    found: Vec<Found>,
    /// The cells' own number for this list, by which two callers of the same cells know each other.
    set: u64,
    ready: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) rule: usize,
    pub(super) place: usize,
    pub(super) serial: u64,
}

impl Memo {
    /// Forgets everything.
    pub fn clear(&mut self) {
        self.found.clear();
        self.ready = false;
    }

    /// Whether [`Cells::again`] may be asked.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready
    }

    /// How many charges it repeats.
    #[must_use]
    pub fn charges(&self) -> usize {
        self.found.len()
    }

    pub(super) fn note(&mut self, cells: &mut Cells, charges: usize, verdict: Verdict) {
        self.clear();
        let scratch = &cells.scratch;
        // A charge without a cell (of 0 units, or let pass while lapsed) may have one next time.
        if verdict != Verdict::Admit || scratch.spent.len() != charges {
            return;
        }
        for (place, _) in &scratch.spent {
            let Some(cell) = cells.table.get(*place) else {
                return;
            };
            self.found.push(Found {
                rule: cell.rule,
                place: *place,
                serial: cell.serial,
            });
        }
        self.set = cells.run.set_of(&self.found);
        self.ready = true;
    }
}

impl Cells {
    /// Spends every noted charge, or none. `None`: something is not as it was; ask in full.
    pub fn again(&mut self, memo: &Memo, now: Nanos) -> Option<Verdict> {
        if !memo.ready {
            return None;
        }
        if self.run.goes_on(memo.set, now) {
            return Some(Verdict::Admit);
        }
        self.settle();
        if self.run.is_repeated(memo.set) && self.begin_run(&memo.found, memo.set, now) {
            return Some(Verdict::Admit);
        }
        self.spend_noted(memo, now)
    }

    fn spend_noted(&mut self, memo: &Memo, now: Nanos) -> Option<Verdict> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.spent.clear();
        let mut verdict = Some(Verdict::Admit);
        for found in &memo.found {
            self.lapse_if_due(found.rule, now);
            let units = match self.rules.get(found.rule) {
                Some(rule) if !matches!(rule.lease, Lease::Lapsed(_)) => rule.charge,
                // Lapsed leases have ways of their own.
                _ => {
                    verdict = None;
                    break;
                }
            };
            if self
                .table
                .get(found.place)
                .is_none_or(|cell| cell.serial != found.serial)
            {
                verdict = None;
                break;
            }
            if !self.spend(found.place, units, now) {
                verdict = Some(Verdict::Exhausted { rule: found.rule });
                break;
            }
            scratch.spent.push((found.place, units));
        }
        if verdict != Some(Verdict::Admit) {
            self.refund(&scratch, now);
            scratch.spent.clear();
        }
        self.scratch = scratch;
        verdict
    }
}
