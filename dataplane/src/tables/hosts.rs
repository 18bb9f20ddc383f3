//! Host names to what they mean: exact, then the longest `*.suffix`, then `*`.

use super::index::{ServiceIndex, VirtualHostIndex};
use super::seeded::SeededMap;
use super::text::{HOST_BYTES_MAX, lowered};

/// What a host stands for. Rules and services are looked up independently: `*` rules hold for an
/// exactly named service that has no rules of its own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct HostEntry {
    pub(super) virtual_host: Option<VirtualHostIndex>,
    pub(super) service: Option<ServiceIndex>,
    /// The service was found by `*` alone: whatever port the caller names will do.
    pub(super) any_port: bool,
}

/// All names.
#[derive(Debug, Default)]
pub(super) struct HostIndex {
    exact: SeededMap<Box<str>, HostEntry>,
    /// By suffix with its leading dot.
    suffixes: SeededMap<Box<str>, HostEntry>,
    any: HostEntry,
}

impl HostIndex {
    /// Puts in a host pattern; the first taker of a name keeps it.
    pub(super) fn insert(
        &mut self,
        pattern: &str,
        virtual_host: Option<VirtualHostIndex>,
        service: Option<ServiceIndex>,
    ) {
        let entry = match pattern.strip_prefix('*') {
            Some("") => {
                self.any.any_port = true;
                &mut self.any
            }
            Some(suffix) => self.suffixes.entry(suffix.into()).or_default(),
            None => self.exact.entry(pattern.into()).or_default(),
        };
        entry.virtual_host = entry.virtual_host.or(virtual_host);
        entry.service = entry.service.or(service);
    }

    /// Gives all names of a service the rules that hold for one of them: an exact name's, else those of the
    /// longest suffix. A caller that says `ratings` is not served otherwise than one that says all of
    /// `ratings.default.svc.cluster.local`.
    pub(super) fn share(&mut self, names: &[String]) {
        let exact = |name: &String| self.exact.get(name.as_str())?.virtual_host;
        let by_suffix = || {
            let suffixes = names.iter().flat_map(|name| suffixes_of(name));
            let known = suffixes.filter_map(|suffix| {
                let entry = self.suffixes.get(suffix)?;
                Some((suffix.len(), entry.virtual_host?))
            });
            known.max_by_key(|(len, _)| *len).map(|(_, rules)| rules)
        };
        if let Some(rules) = names.iter().find_map(exact).or_else(by_suffix) {
            for name in names {
                self.insert(name, Some(rules), None);
            }
        }
    }

    /// Completes each name by what wider patterns say, so that a lookup ends at its first hit.
    pub(super) fn finish(&mut self) {
        let any = self.any;
        let mut names: Vec<Box<str>> = self.suffixes.keys().cloned().collect();
        names.sort_by_key(|name| name.len());
        for name in names {
            let wider = self.widest_known(&name[1..]).unwrap_or(any);
            if let Some(entry) = self.suffixes.get_mut(&name) {
                entry.complete(wider);
            }
        }
        let completed: Vec<(Box<str>, HostEntry)> = self
            .exact
            .keys()
            .map(|name| (name.clone(), self.widest_known(name).unwrap_or(any)))
            .collect();
        for (name, wider) in completed {
            if let Some(entry) = self.exact.get_mut(&name) {
                entry.complete(wider);
            }
        }
    }

    /// What `host` (any case, no port, a final dot allowed) stands for.
    pub(super) fn find(&self, host: &str) -> HostEntry {
        let host = host.strip_suffix('.').unwrap_or(host);
        let mut room = [0; HOST_BYTES_MAX];
        let Some(host) = lowered(host, &mut room) else {
            return HostEntry::default();
        };
        if let Some(entry) = self.exact.get(host) {
            return *entry;
        }
        if host.is_empty() {
            return self.any;
        }
        self.widest_known(host).unwrap_or(self.any)
    }

    /// What every name stands for that nothing more exact knows.
    pub(super) fn any(&self) -> HostEntry {
        self.any
    }

    /// The entry of the longest suffix of `host`, shorter than it, that is known.
    fn widest_known(&self, host: &str) -> Option<HostEntry> {
        if self.suffixes.is_empty() {
            return None;
        }
        suffixes_of(host).find_map(|suffix| self.suffixes.get(suffix).copied())
    }
}

/// The suffixes of a name, shorter than it, with their leading dot; the longest first.
fn suffixes_of(host: &str) -> impl Iterator<Item = &str> {
    host.match_indices('.')
        .filter(|(at, _)| *at > 0)
        .map(|(at, _)| &host[at..])
}

impl HostEntry {
    fn complete(&mut self, wider: Self) {
        self.virtual_host = self.virtual_host.or(wider.virtual_host);
        if self.service.is_none() {
            self.service = wider.service;
            self.any_port = wider.any_port;
        }
    }
}
