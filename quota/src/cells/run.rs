//! Runs: equal requests in close succession, spent together.
//!
//! Twenty rules are twenty spends per request, and at tens of thousands of requests a second nearly
//! all of them hit the same twenty cells. A run counts such requests as one number, and spends them
//! from every cell when it ends.
//!
//! Safe: a run begins only where every cell has its units four times over, none else can touch a cell
//! while it lasts (whatever looks at cells calls [`Cells::settle`] first), and all its units come back
//! when the last of them does, never earlier. Useful: it lasts at most a quarter of the shortest
//! window's grain, so a group of spends stays within the grain it would have anyway ([`Units`]).
//!
//! [`Units`]: crate::Units

use super::again::Found;
use super::{Cells, Lease};
use crate::Nanos;
use crate::units::grain;

/// A run may take this part of what the scarcest of its cells has free. What is left serves other
/// callers in full, and units are asked for ahead as if each had been spent at its time.
const PART_OF_FREE: u64 = 4;
/// Shorter runs cost more than they save.
const REQUESTS_MIN: u64 = 4;
/// Lists of cells that are known by number. More kinds of callers at once only share less.
const SETS_MAX: usize = 16;

/// The run that goes on, if one does.
#[derive(Debug, Default)]
pub(super) struct Run {
    set: u64,
    /// Requests it may still take; 0 where there is none.
    room: u64,
    /// Requests taken and not spent.
    taken: u64,
    began: Nanos,
    /// When the last of them came.
    last: Nanos,
    /// It takes none from then on.
    until: Nanos,
    found: Vec<Found>,
    /// The set charged by the request before this one.
    before: u64,
    /// Known lists, by number; the oldest goes first.
    sets: Vec<(u64, Vec<Found>)>,
    sets_made: u64,
}

impl Run {
    /// The number of a list of cells: equal lists have equal numbers as long as they are known.
    pub(super) fn set_of(&mut self, found: &[Found]) -> u64 {
        if let Some((set, _)) = self.sets.iter().find(|(_, known)| known == found) {
            return *set;
        }
        if self.sets.len() >= SETS_MAX {
            self.sets.remove(0);
        }
        self.sets_made += 1;
        self.sets.push((self.sets_made, found.to_vec()));
        self.sets_made
    }

    /// Takes one more request of that set, if the run is of it and has room.
    #[inline]
    pub(super) fn goes_on(&mut self, set: u64, now: Nanos) -> bool {
        let goes_on = self.set == set && self.room > 0 && now < self.until && now >= self.last;
        if goes_on {
            self.room -= 1;
            self.taken += 1;
            self.last = now;
        }
        goes_on
    }

    /// Whether the request before was of the same set: callers in turn would end each other's runs.
    pub(super) fn is_repeated(&mut self, set: u64) -> bool {
        std::mem::replace(&mut self.before, set) == set
    }
}

impl Cells {
    /// Begins a run with one request, if the cells are those that were found and have plenty.
    pub(super) fn begin_run(&mut self, found: &[Found], set: u64, now: Nanos) -> bool {
        let mut room = u64::MAX;
        let mut until = Nanos::MAX;
        for found in found {
            self.lapse_if_due(found.rule, now);
            let Some(rule) = self.rules.get(found.rule) else {
                return false;
            };
            let Lease::Until(end) = rule.lease else {
                return false;
            };
            let Some(cell) = self.table.get_mut(found.place) else {
                return false;
            };
            // A unit that is owed is paid after the very next spend.
            if cell.serial != found.serial || cell.owed > 0 || rule.charge == 0 {
                return false;
            }
            cell.units.expire(now);
            room = room.min(cell.units.free() / rule.charge / PART_OF_FREE);
            until = until.min(end).min(now + grain(cell.window()) / 4);
        }
        if room < REQUESTS_MIN || until <= now || found.is_empty() {
            return false;
        }
        let run = &mut self.run;
        run.found.clear();
        run.found.extend_from_slice(found);
        (run.set, run.room, run.taken) = (set, room - 1, 1);
        (run.began, run.last, run.until) = (now, now, until);
        true
    }

    /// Whether a run goes on.
    #[cfg(test)]
    pub(super) fn run_goes_on(&self) -> bool {
        self.run.taken > 0
    }

    /// Ends the run, if there is one, and spends what it took.
    pub(super) fn settle(&mut self) {
        let requests = std::mem::take(&mut self.run.taken);
        self.run.room = 0;
        if requests == 0 {
            return;
        }
        let found = std::mem::take(&mut self.run.found);
        let (began, last) = (self.run.began, self.run.last);
        for found in &found {
            let charge = self.rules.get(found.rule).map_or(0, |rule| rule.charge);
            let spent = self.spend_since(found.place, charge * requests, began, last);
            debug_assert!(spent, "a run has its units before it begins");
        }
        self.run.found = found;
    }
}
