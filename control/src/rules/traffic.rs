//! VirtualService and DestinationRule.

use std::collections::BTreeMap;

use ringmesh_wire::v1::snapshot::{
    Balance, Fault, HeaderOps, HttpMatch, Limits, Outlier, Redirect, Retry, Rewrite, UpstreamTls,
};

use super::place::{At, Place};

/// Routing of some hosts.
#[derive(Debug, Clone)]
pub struct VirtualService {
    /// Hosts, lower case; short names belong to the object's namespace.
    pub hosts: Vec<At<String>>,
    /// Gateways; empty is the mesh.
    pub gateways: Vec<At<String>>,
    /// HTTP rules.
    pub http: Vec<HttpRule>,
    /// TCP rules.
    pub tcp: Vec<TcpRule>,
}

/// One HTTP rule.
#[derive(Debug, Clone)]
pub struct HttpRule {
    /// Where.
    pub place: Place,
    /// Name, for logs.
    pub name: Option<String>,
    /// Any of these; empty matches all.
    pub matches: Vec<HttpMatching>,
    /// What to do.
    pub action: RuleAction,
    /// Faults.
    pub fault: Option<Fault>,
    /// Whole time allowed, milliseconds; `None` is the mesh default, `Some(0)` none.
    pub timeout_ms: Option<u64>,
    /// Retries; `None` is the default.
    pub retry: Option<Retry>,
    /// Target changes.
    pub rewrite: Option<Rewrite>,
    /// Header changes.
    pub headers: HeaderOps,
}

/// One block of conditions.
#[derive(Debug, Clone, Default)]
pub struct HttpMatching {
    /// Those decided per request.
    pub request: HttpMatch,
    /// Those decided when the configuration is built.
    pub caller: CallerMatch,
}

/// Conditions on the caller's workload: which sidecars get the block.
#[derive(Debug, Clone, Default)]
pub struct CallerMatch {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its namespace.
    pub namespace: Option<String>,
    /// Gateways; where given, `labels` is not looked at.
    pub gateways: Vec<String>,
}

/// What a rule does with a request.
#[derive(Debug, Clone)]
pub enum RuleAction {
    /// Sends it on.
    Forward(Vec<RouteTo>),
    /// Sends the client elsewhere.
    Redirect(Redirect),
    /// Answers it.
    Respond {
        /// Status.
        status: u16,
        /// Body.
        body: String,
    },
}

/// A destination.
#[derive(Debug, Clone)]
pub struct RouteTo {
    /// Service, as written.
    pub host: At<String>,
    /// Subset.
    pub subset: Option<At<String>>,
    /// Service port.
    pub port: Option<At<u16>>,
    /// Relative weight; a single destination has at least 1.
    pub weight: u32,
    /// Header changes.
    pub headers: HeaderOps,
}

/// One TCP rule.
#[derive(Debug, Clone)]
pub struct TcpRule {
    /// Where.
    pub place: Place,
    /// Any of these; empty matches all.
    pub matches: Vec<TcpMatching>,
    /// Destinations.
    pub to: Vec<RouteTo>,
}

/// One block of conditions on a connection.
#[derive(Debug, Clone, Default)]
pub struct TcpMatching {
    /// Service port.
    pub port: Option<u16>,
    /// Caller.
    pub caller: CallerMatch,
}

/// Subsets and traffic policy of one host.
#[derive(Debug, Clone)]
pub struct DestinationRule {
    /// Host, lower case, as written.
    pub host: At<String>,
    /// Policy.
    pub policy: PolicyGroups,
    /// Subsets.
    pub subsets: Vec<SubsetRule>,
}

/// A subset.
#[derive(Debug, Clone)]
pub struct SubsetRule {
    /// Its name.
    pub name: At<String>,
    /// Labels an endpoint must have.
    pub labels: BTreeMap<String, String>,
    /// Policy over the host's.
    pub policy: PolicyGroups,
}

/// A traffic policy as written: groups that are absent are inherited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PolicyGroups {
    /// `loadBalancer`
    pub balance: Option<Balance>,
    /// `connectionPool`
    pub pool: Option<Pool>,
    /// `outlierDetection`
    pub outlier: Option<Outlier>,
    /// `tls`
    pub tls: Option<UpstreamTls>,
    /// `portLevelSettings`: each replaces everything, its absent groups are the defaults.
    pub ports: Vec<(u16, Self)>,
}

/// `connectionPool`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Time to connect, milliseconds.
    pub connect_timeout_ms: u64,
    /// Idle time of a pooled connection, milliseconds.
    pub idle_timeout_ms: u64,
    /// Limits.
    pub limits: Limits,
}
