//! Which limit a request falls under, what its bucket is called and where it is seeded.

use ringmesh_wire::limits::LEASE_VALUE_BYTES_MAX;
use ringmesh_wire::snapshot::{Limit, QuotaRule, QuotaScope};
use ringmesh_wire::{BucketId, SLOTS};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// The part of a [`QuotaRule`] that decides bucket and limit, ready for use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) name: String,
    pub(crate) dimensions: Vec<String>,
    pub(crate) limit: Limit,
    pub(crate) overrides: Vec<Override>,
    pub(crate) scope: QuotaScope,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Override {
    /// `(dimension index, value)`; `None` if it names a dimension the instance does not have, so
    /// that it never fits.
    equal: Option<Vec<(usize, String)>>,
    limit: Limit,
}

impl Shape {
    pub(crate) fn of(rule: &QuotaRule) -> Self {
        let dimensions: Vec<String> = rule
            .dimensions
            .iter()
            .map(|(name, _)| name.clone())
            .collect();
        let place = |(name, value): &(String, String)| {
            let at = dimensions.iter().position(|d| d == name)?;
            Some((at, value.clone()))
        };
        let overrides = rule.overrides.iter().map(|over| Override {
            equal: over.dimensions.iter().map(place).collect(),
            limit: over.limit,
        });
        Self {
            name: rule.lease_name(),
            overrides: overrides.collect(),
            limit: rule.limit,
            scope: rule.scope,
            dimensions,
        }
    }

    /// The limit where it does not depend on the values.
    pub(crate) fn limit_without_overrides(&self) -> Option<Limit> {
        self.overrides.is_empty().then_some(self.limit)
    }

    /// Limit of an instance, by the first override whose every listed dimension is equal;
    /// writes the bucket's key.
    pub(crate) fn resolve<'a>(&self, value: impl Fn(usize) -> &'a str, key: &mut Key) -> Limit {
        let fits = |over: &&Override| {
            let all =
                |equal: &Vec<(usize, String)>| equal.iter().all(|(at, text)| value(*at) == text);
            over.equal.as_ref().is_some_and(all)
        };
        let found = self.overrides.iter().find(fits);
        let shared = match (self.scope, found) {
            (QuotaScope::Override, Some(over)) => over.equal.as_ref(),
            _ => None,
        };
        key.clear();
        for at in 0..self.dimensions.len() {
            match shared {
                Some(listed) if !listed.iter().any(|(index, _)| *index == at) => key.push("*"),
                _ => key.push(value(at)),
            }
        }
        found.map_or(self.limit, |over| over.limit)
    }

    /// Whether buckets of this shape mean the same as those of `other`.
    pub(crate) fn carries_over(&self, other: &Self) -> bool {
        self.name == other.name && self.dimensions == other.dimensions && self.scope == other.scope
    }
}

/// Values of all dimensions in one string of bytes, length before each, so that no two lists look
/// alike. A value over its bound stands there as its hash.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Key(Vec<u8>);

impl Key {
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    pub(crate) fn push(&mut self, value: &str) {
        if value.len() > LEASE_VALUE_BYTES_MAX {
            return self.push(&format!("xxh3:{:032x}", xxh3_128(value.as_bytes())));
        }
        let length = u16::try_from(value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_le_bytes());
        self.0.extend_from_slice(value.as_bytes());
    }

    pub(crate) fn of(values: &[String]) -> Self {
        let mut key = Self::default();
        values.iter().for_each(|value| key.push(value));
        key
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// The values in a key, in order.
pub(crate) fn values(mut key: &[u8]) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        let (length, rest) = key.split_first_chunk::<2>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
        key = rest;
        std::str::from_utf8(value).ok()
    })
}

/// The slot a bucket is seeded in: the same on every node and in every release.
#[must_use]
pub fn slot_of(bucket: &BucketId) -> u32 {
    slot(&bucket.rule, Key::of(&bucket.values).bytes())
}

pub(crate) fn slot(rule: &str, key: &[u8]) -> u32 {
    let mixed = xxh3_64(key) ^ xxh3_64(rule.as_bytes()).rotate_left(32);
    // The low bits of a fresh hash: a second round keeps rule and key from cancelling out.
    u32::try_from(xxh3_64(&mixed.to_le_bytes()) % u64::from(SLOTS)).unwrap_or(0)
}
