//! The Mixer objects of config.istio.io/v1alpha2.

use ringmesh_wire::v1::Expr;
use ringmesh_wire::v1::snapshot::{Limit, LimitOverride, QuotaScope};

use super::place::{At, Place};

/// Handler: limits.
#[derive(Debug, Clone)]
pub struct MemQuota {
    /// One per quota instance.
    pub quotas: Vec<MemQuotaLimit>,
}

/// The limits of one quota instance.
#[derive(Debug, Clone)]
pub struct MemQuotaLimit {
    /// Full instance name, e.g. `requestcount.quota.istio-system`.
    pub name: At<String>,
    /// Limit where no override fits.
    pub limit: Limit,
    /// Overrides, in order.
    pub overrides: Vec<LimitOverride>,
    /// Names of dimensions in all overrides, and where they stand.
    pub override_dimensions: Vec<At<String>>,
    /// What shares a bucket.
    pub scope: QuotaScope,
    /// Windows of it that are longer than they were written.
    pub rounded: Vec<Rounded>,
}

/// A window that was written in parts of a second.
#[derive(Debug, Clone)]
pub struct Rounded {
    /// As written.
    pub written: At<String>,
    /// What it counts as, seconds.
    pub window_s: u64,
}

/// Handler: refusal.
#[derive(Debug, Clone)]
pub struct Denier {
    /// gRPC status.
    pub grpc_status: u8,
    /// Message.
    pub message: String,
}

/// Instance: dimensions of a quota.
#[derive(Debug, Clone)]
pub struct QuotaInstance {
    /// Sorted by name.
    pub dimensions: Vec<(String, Expr)>,
}

/// Which instances go to which handler, and when.
#[derive(Debug, Clone)]
pub struct Rule {
    /// Condition; `None` is always.
    pub when: Option<Expr>,
    /// Actions.
    pub actions: Vec<RuleActionRef>,
}

/// One action of a rule.
#[derive(Debug, Clone)]
pub struct RuleActionRef {
    /// Handler, as written.
    pub handler: At<String>,
    /// Instances, as written; at least one.
    pub instances: Vec<At<String>>,
}

/// What a request is charged.
#[derive(Debug, Clone)]
pub struct QuotaSpec {
    /// Quota instance (as written) and units.
    pub charges: Vec<(At<String>, u64)>,
}

/// Which services charge.
#[derive(Debug, Clone)]
pub struct QuotaSpecBinding {
    /// Services.
    pub services: Vec<BoundService>,
    /// Name and namespace of the QuotaSpecs.
    pub specs: Vec<(At<String>, String)>,
}

/// A service of a binding.
#[derive(Debug, Clone)]
pub enum BoundService {
    /// `service: '*'`
    All,
    /// By name and namespace.
    Named {
        /// Name.
        name: String,
        /// Namespace.
        namespace: String,
        /// Where.
        place: Place,
    },
}
