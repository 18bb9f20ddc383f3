//! AuthorizationPolicy and PeerAuthentication.

use std::collections::BTreeMap;

use ringmesh_wire::v1::snapshot::{AuthzAction, AuthzRule, MtlsMode};

use super::place::At;

/// Who may call some workloads.
#[derive(Debug, Clone)]
pub struct AuthorizationPolicy {
    /// Labels of the workloads; empty is all of the namespace, or of the mesh in the root one.
    pub selector: BTreeMap<String, String>,
    /// ServiceEntries it is about instead (`targetRefs`): names in the same namespace.
    pub entries: Vec<At<String>>,
    /// Verdict.
    pub action: AuthzAction,
    /// Rules.
    pub rules: Vec<AuthzRule>,
}

/// Mutual TLS towards some workloads.
#[derive(Debug, Clone)]
pub struct PeerAuthentication {
    /// Labels of the workloads.
    pub selector: BTreeMap<String, String>,
    /// Mode; `None` inherits.
    pub mode: Option<MtlsMode>,
    /// Mode by workload port.
    pub ports: Vec<(u16, Option<MtlsMode>)>,
}
