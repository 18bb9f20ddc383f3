//! Quota leases between sidecars and the quota authority (`docs/quotas.md` has the argument).
//!
//! A **unit** is the right to admit one charge per rolling window. It is always in exactly one
//! place: with the authority, with one shard of one sidecar, or in a message between them. Whoever
//! has it may spend it, and after one window spend it again. Moving a unit moves its occupancy
//! with it ([`Units::busy`]), so that no transfer ever makes a unit young again.
//!
//! A bucket nobody has spoken of belongs whole to the shard that holds the **seed** of its slot.
//!
//! ```text
//! sidecar                              authority
//!   Hello, Hold..., Ready   ------>                what I hold; replaces what was believed
//!   Beat(seq)               ------>
//!                           <------  Renew(seq)    leases run from when the Beat was *sent*
//!                           <------  Seed          untouched buckets of these slots are yours
//!   Want                    ------>
//!                           <------  Recall        (to another holder)
//!   Return                  ------>                (from it)
//!                           <------  Lend
//! ```

use serde::{Deserialize, Serialize};

use super::snapshot::Limit;
use crate::codec::Validate;
use crate::error::WireError;
use crate::limits::{
    LEASE_BUSY_MAX, LEASE_DIMENSIONS_MAX, LEASE_ITEMS_MAX, LEASE_VALUE_BYTES_MAX,
    QUOTA_NAME_BYTES_MAX,
};

/// Parts the bucket space of a rule is cut into for seeding; a set of them is a `u64`.
pub const SLOTS: u32 = 64;

/// A bucket: what shares one count. The limit is part of the name, so that two sidecars whose
/// configuration differs for a moment never mix their units.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct BucketId {
    /// Name of the rule.
    pub rule: String,
    /// Value of each dimension, in the order of the dimensions' names.
    pub values: Vec<String>,
    /// Units per window; at least 1.
    pub amount_max: u64,
    /// Window, milliseconds; at least 1.
    pub window_ms: u64,
}

impl BucketId {
    /// The limit as a snapshot writes it.
    #[must_use]
    pub fn limit(&self) -> Limit {
        Limit {
            amount_max: self.amount_max,
            window_ms: self.window_ms,
        }
    }
}

/// Units that were spent and come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Busy {
    /// Until they do, microseconds from when the message was sent. A receiver counts from when it
    /// arrived, which can only be later.
    pub remaining_us: u64,
    /// How many.
    pub units: u64,
}

/// Some units of one bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Units {
    /// Can be spent now.
    pub free: u64,
    /// Come back later, soonest first.
    pub busy: Vec<Busy>,
}

impl Units {
    /// How many in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.busy
            .iter()
            .fold(self.free, |sum, b| sum.saturating_add(b.units))
    }
}

/// What one shard holds of one rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRule {
    /// Rule.
    pub rule: String,
    /// Shard.
    pub shard: u16,
    /// Slots it holds the seed of, as a set of bits.
    pub slots: u64,
    /// Its lease ran out, so that it lives on its share.
    pub lapsed: bool,
}

/// Units of one bucket at one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Shard.
    pub shard: u16,
    /// Bucket.
    pub bucket: BucketId,
    /// Units.
    pub units: Units,
}

/// Units lent to a shard with the seed of their slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lent {
    /// Bucket.
    pub bucket: BucketId,
    /// Units, may be none.
    pub units: Units,
}

/// How much of what it has a holder must give up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RecallKind {
    /// Only what it can spare.
    Spare,
    /// Down to this many, wanted or not: the others have less than their part.
    DownTo(u64),
    /// After its next spend: turns are taken.
    AfterSpend,
}

/// Sidecar to authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseUp {
    /// First on a stream, and only there: when the set of rules changes, or a lease ran out, the
    /// sidecar opens a new stream, which ends the old one. Everything held follows in [`Self::Hold`]s, then [`Self::Ready`].
    Hello {
        /// Random per process start.
        boot: u64,
        /// Rules enforced here and what is held of them, per shard.
        rules: Vec<HeldRule>,
    },
    /// Buckets whose units are not what the seed says.
    Hold(Vec<Held>),
    /// That was all.
    Ready,
    /// A sign of life, one at a time: the next only after the [`LeaseDown::Renew`] of this one.
    Beat {
        /// Counts up per stream.
        seq: u64,
    },
    /// This shard is short of units.
    Want {
        /// Shard.
        shard: u16,
        /// Bucket.
        bucket: BucketId,
        /// Units it would spend at once.
        need: u64,
        /// Units it tried to spend in the last window.
        demand: u64,
    },
    /// Units given up.
    Return {
        /// Shard.
        shard: u16,
        /// Bucket.
        bucket: BucketId,
        /// Units; may be none, as the answer to a recall.
        units: Units,
        /// Units it tried to spend in the last window.
        demand: u64,
        /// It is the end of a [`LeaseDown::Recall`].
        answer: bool,
    },
    /// The seeds of these slots are given up; what was touched in them was returned before.
    Released {
        /// Shard.
        shard: u16,
        /// Rule.
        rule: String,
        /// Slots.
        slots: u64,
    },
    /// Nothing will be spent any more.
    Goodbye,
}

/// Authority to sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LeaseDown {
    /// The leases of these rules run for `ttl_ms` from when the [`LeaseUp::Beat`] was sent.
    Renew {
        /// Of that beat.
        seq: u64,
        /// Length, milliseconds.
        ttl_ms: u32,
        /// Rules; one that is missing is not renewed.
        rules: Vec<String>,
    },
    /// An untouched bucket of these slots now belongs to this shard, whole.
    Seed {
        /// Shard.
        shard: u16,
        /// Rule.
        rule: String,
        /// Slots, as a set of bits; added to those held.
        slots: u64,
        /// Buckets of these slots that are not untouched, each with what is lent of it. In the
        /// same message, so that no moment lies between.
        touched: Vec<Lent>,
    },
    /// Give these slots up: return what was touched, then [`LeaseUp::Released`].
    Release {
        /// Shard.
        shard: u16,
        /// Rule.
        rule: String,
        /// Slots.
        slots: u64,
    },
    /// Units for this shard; may be none, which only says that the bucket is no longer untouched.
    Lend {
        /// Shard.
        shard: u16,
        /// Bucket.
        bucket: BucketId,
        /// Units.
        units: Units,
    },
    /// Others want units of this bucket.
    Recall {
        /// Shard.
        shard: u16,
        /// Bucket.
        bucket: BucketId,
        /// Units wanted.
        take: u64,
        /// How hard.
        kind: RecallKind,
    },
    /// Stop living on the share: return what is busy, then [`LeaseUp::Released`] with all slots.
    Surrender {
        /// Shard.
        shard: u16,
        /// Rule.
        rule: String,
    },
}

fn bounded(what: &'static str, got: usize, max: usize) -> Result<(), WireError> {
    if got > max {
        return Err(WireError::TooLong { what, got, max });
    }
    Ok(())
}

fn check_rule(name: &str) -> Result<(), WireError> {
    bounded("quota name", name.len(), QUOTA_NAME_BYTES_MAX)
}

impl Validate for BucketId {
    fn validate(&self) -> Result<(), WireError> {
        check_rule(&self.rule)?;
        bounded("bucket dimensions", self.values.len(), LEASE_DIMENSIONS_MAX)?;
        for value in &self.values {
            bounded("dimension value", value.len(), LEASE_VALUE_BYTES_MAX)?;
        }
        if self.amount_max == 0 || self.window_ms == 0 {
            return Err(WireError::Invalid(format!(
                "bucket of {}: amount and window must be at least 1",
                self.rule
            )));
        }
        Ok(())
    }
}

impl Validate for Units {
    fn validate(&self) -> Result<(), WireError> {
        bounded("busy units", self.busy.len(), LEASE_BUSY_MAX)?;
        if !self
            .busy
            .is_sorted_by(|a, b| a.remaining_us <= b.remaining_us)
        {
            return Err(WireError::Invalid("busy units are not in order".into()));
        }
        Ok(())
    }
}

impl Validate for LeaseUp {
    fn validate(&self) -> Result<(), WireError> {
        match self {
            Self::Hello { rules, .. } => {
                bounded("held rules", rules.len(), LEASE_ITEMS_MAX)?;
                rules.iter().try_for_each(|held| check_rule(&held.rule))
            }
            Self::Hold(held) => {
                bounded("held buckets", held.len(), LEASE_ITEMS_MAX)?;
                held.iter().try_for_each(|held| {
                    held.bucket.validate()?;
                    held.units.validate()
                })
            }
            Self::Want { bucket, .. } => bucket.validate(),
            Self::Return { bucket, units, .. } => {
                bucket.validate()?;
                units.validate()
            }
            Self::Released { rule, .. } => check_rule(rule),
            Self::Ready | Self::Beat { .. } | Self::Goodbye => Ok(()),
        }
    }
}

impl Validate for LeaseDown {
    fn validate(&self) -> Result<(), WireError> {
        match self {
            Self::Renew { rules, .. } => check_rules(rules),
            Self::Seed { rule, touched, .. } => {
                bounded("touched buckets", touched.len(), LEASE_ITEMS_MAX)?;
                touched.iter().try_for_each(|lent| {
                    lent.bucket.validate()?;
                    lent.units.validate()
                })?;
                check_rule(rule)
            }
            Self::Release { rule, .. } | Self::Surrender { rule, .. } => check_rule(rule),
            Self::Lend { bucket, units, .. } => {
                bucket.validate()?;
                units.validate()
            }
            Self::Recall { bucket, .. } => bucket.validate(),
        }
    }
}

fn check_rules(rules: &[String]) -> Result<(), WireError> {
    bounded("quota rules", rules.len(), LEASE_ITEMS_MAX)?;
    rules.iter().try_for_each(|rule| check_rule(rule))
}
