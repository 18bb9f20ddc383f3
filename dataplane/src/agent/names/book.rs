//! Which names there are, what they led to last, and when each is asked again. Pure: time and chance
//! are arguments.
//!
//! ```text
//! track(names)                the set from now on; new ones are due at once
//! due(now)        -> names    to be looked up, until `answered`
//! answered(name, lookup)      true where what tables show has changed
//! next()          -> when     somebody is due again
//! ```
//! Invariants: a name that was resolved stays so while lookups fail; only a server that denies it
//! [`DENIALS_BELIEVED`] times in a row takes its addresses away. No name is asked twice at once, nor
//! more often than [`Refresh::min`] allows.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::IpAddr;
use std::time::Duration;

use super::message::{Fault, Found};
use crate::tables::{Addresses, Answers};
use crate::time::Mono;

/// Names one sidecar resolves; those behind, by name, stay unresolved and are counted.
pub const NAMES_MAX: usize = 1_024;
/// Lookups under way. A lookup is two small datagrams; more at once would look like an attack.
pub const ASKED_AT_ONCE_MAX: usize = 32;
/// Denials in a row until a name's addresses are gone. Servers that restart, or whose zone is being
/// replaced, deny names for moments.
pub const DENIALS_BELIEVED: u32 = 3;
/// After failures a name is asked again no later than this.
const RETRY_MAX: Duration = Duration::from_secs(30);

/// How often names are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refresh {
    /// Not more often, whatever the time to live.
    pub min: Duration,
    /// Not less often.
    pub max: Duration,
}

/// What a lookup brought, by family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lookup {
    /// IPv4.
    pub v4: Result<Found, Fault>,
    /// IPv6.
    pub v6: Result<Found, Fault>,
}

/// A name, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What it leads to, in the order of trying.
    pub addresses: Vec<IpAddr>,
    /// When that was last confirmed.
    pub confirmed: Option<Mono>,
    /// When it is asked again.
    pub next: Mono,
    /// Lookups in a row that brought nothing.
    pub failures: u32,
    /// Why the last of them did not.
    pub fault: Option<Fault>,
}

/// How many names are how well known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Lead somewhere, by the last lookup.
    pub resolved: u64,
    /// Lead where an earlier lookup said: the last has failed.
    pub stale: u64,
    /// Lead nowhere.
    pub unresolved: u64,
}

#[derive(Debug, Default)]
struct Entry {
    v4: Vec<IpAddr>,
    v6: Vec<IpAddr>,
    anchor: Option<IpAddr>,
    confirmed: Option<Mono>,
    /// `None`: never asked.
    next: Option<Mono>,
    asking: bool,
    failures: u32,
    denials: u32,
    fault: Option<Fault>,
    settled: bool,
}

impl Entry {
    /// In turns of the families, IPv6 first (RFC 8305 section 4).
    fn addresses(&self) -> Vec<IpAddr> {
        let (mut v6, mut v4) = (self.v6.iter(), self.v4.iter());
        let mut all = Vec::with_capacity(self.v6.len() + self.v4.len());
        loop {
            let pair = (v6.next(), v4.next());
            if pair == (None, None) {
                return all;
            }
            all.extend(pair.0.into_iter().chain(pair.1));
        }
    }
}

/// All names.
#[derive(Debug)]
pub struct Book {
    refresh: Refresh,
    entries: BTreeMap<String, Entry>,
    /// Names whose order of addresses matters.
    ordered: HashSet<String>,
    asked: usize,
    /// Names there was no room for.
    untracked: usize,
    /// Lookups by how they ended.
    good: u64,
    faults: BTreeMap<Fault, u64>,
}

impl Book {
    /// An empty one.
    #[must_use]
    pub fn new(refresh: Refresh) -> Self {
        Self {
            refresh,
            entries: BTreeMap::new(),
            ordered: HashSet::new(),
            asked: 0,
            untracked: 0,
            good: 0,
            faults: BTreeMap::new(),
        }
    }

    /// The names from now on, each with whether the order of its addresses matters. What is known of
    /// those that stay is kept.
    pub fn track<'n>(&mut self, names: impl IntoIterator<Item = (&'n str, bool)>) {
        let mut wanted = BTreeSet::new();
        self.ordered.clear();
        for (name, ordered) in names {
            wanted.insert(name);
            if ordered {
                self.ordered.insert(name.to_owned());
            }
        }
        self.untracked = wanted.len().saturating_sub(NAMES_MAX);
        let wanted: BTreeSet<&str> = wanted.into_iter().take(NAMES_MAX).collect();
        self.entries.retain(|name, entry| {
            let stays = wanted.contains(name.as_str());
            if !stays && entry.asking {
                self.asked -= 1;
            }
            stays
        });
        for name in wanted {
            if !self.entries.contains_key(name) {
                self.entries.insert(name.to_owned(), Entry::default());
            }
        }
    }

    /// Names there was no room for.
    #[must_use]
    pub fn untracked(&self) -> usize {
        self.untracked
    }

    /// When somebody is due; `None`: nobody is, before one that is being asked has answered.
    #[must_use]
    pub fn next(&self) -> Option<Mono> {
        if self.asked >= ASKED_AT_ONCE_MAX {
            return None;
        }
        let waiting = self.entries.values().filter(|entry| !entry.asking);
        waiting.map(|entry| entry.next.unwrap_or(Mono(0))).min()
    }

    /// Who is to be asked now, those longest due first; they count as being asked until
    /// [`Self::answered`].
    pub fn due(&mut self, now: Mono) -> Vec<String> {
        let room = ASKED_AT_ONCE_MAX.saturating_sub(self.asked);
        let mut due: Vec<(Option<Mono>, &String)> = self
            .entries
            .iter()
            .filter(|(_, entry)| !entry.asking && entry.next.is_none_or(|next| next <= now))
            .map(|(name, entry)| (entry.next, name))
            .collect();
        due.sort_unstable();
        let due: Vec<String> = due.into_iter().take(room).map(|(_, n)| n.clone()).collect();
        for name in &due {
            if let Some(entry) = self.entries.get_mut(name) {
                entry.asking = true;
            }
        }
        self.asked += due.len();
        due
    }

    /// A lookup has ended. True where what [`Self::answers`] says is another now.
    pub fn answered(&mut self, name: &str, lookup: Lookup, now: Mono, random: u64) -> bool {
        let ordered = self.ordered.contains(name);
        let Some(entry) = self.entries.get_mut(name).filter(|entry| entry.asking) else {
            return false;
        };
        entry.asking = false;
        entry.settled = true;
        self.asked -= 1;
        let before = (entry.v4.clone(), entry.v6.clone());
        // A family that failed, rather than was denied, stands as it was.
        let stands = |fault: Fault| !fault.is_denial();
        let mut ttl = Duration::MAX;
        let mut heard = false;
        let mut last_fault = None;
        let mut take = |got: Result<Found, Fault>, old: &[IpAddr]| match got {
            Ok(found) => {
                (ttl, heard) = (ttl.min(found.ttl), true);
                found.addresses
            }
            Err(fault) => {
                // What failed says more than what is simply not there.
                if last_fault.is_none_or(Fault::is_denial) {
                    last_fault = Some(fault);
                }
                match stands(fault) {
                    true => old.to_vec(),
                    false => Vec::new(),
                }
            }
        };
        let v4 = take(lookup.v4, &entry.v4);
        let v6 = take(lookup.v6, &entry.v6);
        let denied = last_fault.is_some_and(Fault::is_denial);
        if heard {
            (entry.v4, entry.v6) = (v4, v6);
            entry.confirmed = Some(now);
            (entry.failures, entry.denials) = (0, 0);
            // Half of it may have failed: that half is asked for again soon.
            let partly = last_fault.is_some_and(stands);
            let wait = if partly { self.refresh.min } else { ttl };
            let wait = wait.clamp(self.refresh.min, self.refresh.max.max(self.refresh.min));
            entry.next = Some(now + jittered(wait, random));
            entry.fault = None;
            self.good += 1;
        } else {
            entry.failures = entry.failures.saturating_add(1);
            entry.denials = if denied {
                entry.denials.saturating_add(1)
            } else {
                0
            };
            if entry.denials >= DENIALS_BELIEVED {
                (entry.v4, entry.v6) = (Vec::new(), Vec::new());
            }
            let doublings = entry.failures.saturating_sub(1).min(16);
            let most = RETRY_MAX.max(self.refresh.min);
            let wait = self.refresh.min.saturating_mul(1 << doublings).min(most);
            entry.next = Some(now + jittered(wait, random));
            entry.fault = last_fault;
            if let Some(fault) = last_fault {
                *self.faults.entry(fault).or_default() += 1;
            }
        }
        if entry.v4.is_empty() && entry.v6.is_empty() {
            entry.anchor = None;
        } else if entry.anchor.is_none() {
            entry.anchor = entry.addresses().first().copied();
        }
        let set = |list: &[IpAddr]| list.iter().copied().collect::<BTreeSet<_>>();
        match ordered {
            true => before != (entry.v4.clone(), entry.v6.clone()),
            false => set(&before.0) != set(&entry.v4) || set(&before.1) != set(&entry.v6),
        }
    }

    /// Whether every name was asked once, successfully or not.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.entries.values().all(|entry| entry.settled)
    }

    /// What all names lead to now.
    #[must_use]
    pub fn answers(&self) -> Answers {
        let known = self.entries.iter().filter_map(|(name, entry)| {
            let list = entry.addresses();
            let addresses = Addresses {
                anchor: entry.anchor?,
                list,
            };
            Some((name.as_str(), addresses))
        });
        known.collect()
    }

    /// All names, for people.
    pub fn rows(&self) -> impl Iterator<Item = (&str, Row)> {
        self.entries.iter().map(|(name, entry)| {
            let row = Row {
                addresses: entry.addresses(),
                confirmed: entry.confirmed,
                next: entry.next.unwrap_or(Mono(0)),
                failures: entry.failures,
                fault: entry.fault,
            };
            (name.as_str(), row)
        })
    }

    /// How many are how well known.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let mut tally = Tally {
            unresolved: self.untracked as u64,
            ..Tally::default()
        };
        for entry in self.entries.values() {
            match (entry.anchor, entry.failures) {
                (None, _) => tally.unresolved += 1,
                (Some(_), 0) => tally.resolved += 1,
                (Some(_), _) => tally.stale += 1,
            }
        }
        tally
    }

    /// Lookups that ended so far: with addresses, and by fault.
    #[must_use]
    pub fn lookups(&self) -> (u64, &BTreeMap<Fault, u64>) {
        (self.good, &self.faults)
    }
}

/// Up to a tenth more, so that sidecars that began together do not ask together for ever.
fn jittered(wait: Duration, random: u64) -> Duration {
    let tenth = wait / 10;
    let share = u32::try_from(random >> 48).unwrap_or(0);
    wait + tenth.saturating_mul(share) / 65_536
}

#[cfg(test)]
#[path = "book_tests.rs"]
mod tests;
