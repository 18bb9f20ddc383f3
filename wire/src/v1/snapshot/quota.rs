//! Quotas (Mixer memquota).

use serde::{Deserialize, Serialize};

use super::policy::Applies;
use crate::codec::Validate;
use crate::error::WireError;
use crate::limits::{LEASE_DIMENSIONS_MAX, QUOTA_NAME_BYTES_MAX};
use crate::v1::expr::Expr;

/// How much in which time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// Units in any rolling window.
    pub amount_max: u64,
    /// Window, milliseconds, whole seconds. 0 (an allocation quota: for ever) is not supported yet.
    pub window_ms: u64,
}

/// A limit for instances whose listed dimensions are all equal; the first that fits wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LimitOverride {
    /// Dimension name and value.
    pub dimensions: Vec<(String, String)>,
    /// Limit.
    pub limit: Limit,
}

/// What shares a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum QuotaScope {
    /// One bucket for each distinct tuple of dimensions (Mixer).
    Dimensions,
    /// One bucket for each override.
    Override,
}

/// A quota as enforced at this sidecar.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuotaRule {
    /// Instance name, e.g. `requestcount.quota.istio-system`; shown in the refusal.
    pub name: String,
    /// Condition; `None` is always.
    pub when: Option<Expr>,
    /// Dimension name and its expression, sorted by name.
    pub dimensions: Vec<(String, Expr)>,
    /// Units per request.
    pub charge: u64,
    /// Limit where no override fits.
    pub limit: Limit,
    /// Overrides in order.
    pub overrides: Vec<LimitOverride>,
    /// What shares a bucket.
    pub scope: QuotaScope,
    /// Where it is enforced.
    pub applies: Applies,
    /// Sidecars that enforce this rule now, this one among them; at least 1.
    pub enforcers: u32,
    /// They: sidecars whose rules have the same name and group share its buckets. A hash of the
    /// dimension values that the destination alone decides; 0 is none.
    pub group: u64,
}

impl QuotaRule {
    /// What the rule is called in leases: name and group.
    #[must_use]
    pub fn lease_name(&self) -> String {
        lease_name(&self.name, self.group)
    }
}

/// See [`QuotaRule::lease_name`].
#[must_use]
pub fn lease_name(name: &str, group: u64) -> String {
    match group {
        0 => name.to_owned(),
        group => format!("{name}#{group:016x}"),
    }
}

impl Validate for QuotaRule {
    fn validate(&self) -> Result<(), WireError> {
        let invalid = |why: &str| Err(WireError::Invalid(format!("quota {}: {why}", self.name)));
        if self.enforcers == 0 {
            return invalid("no enforcing sidecar");
        }
        if !self.dimensions.is_sorted_by(|a, b| a.0 < b.0) {
            return invalid("dimensions are not sorted and unique");
        }
        let limits = || self.overrides.iter().map(|o| o.limit).chain([self.limit]);
        if limits().any(|limit| limit.window_ms == 0) {
            return invalid("a window of 0 (an allocation quota) is not supported yet");
        }
        if self.name.len() > QUOTA_NAME_BYTES_MAX || self.dimensions.len() > LEASE_DIMENSIONS_MAX {
            return invalid("its name or its list of dimensions is too long");
        }
        if !self.limit.window_ms.is_multiple_of(1_000)
            || self
                .overrides
                .iter()
                .any(|o| !o.limit.window_ms.is_multiple_of(1_000))
        {
            return invalid("a window is not a whole number of seconds");
        }
        self.when.as_ref().map_or(Ok(()), Validate::validate)?;
        self.dimensions
            .iter()
            .try_for_each(|(_, expr)| expr.validate())
    }
}
