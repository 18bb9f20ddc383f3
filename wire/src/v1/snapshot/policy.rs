//! Who may call: AuthorizationPolicy and Mixer check rules.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::codec::Validate;
use crate::error::WireError;
use crate::ids::ServiceId;
use crate::v1::expr::Expr;

/// Where a policy is enforced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Applies {
    /// On calls to this sidecar's own workload.
    Inbound,
    /// On calls of this sidecar's app to a service without sidecars.
    Outbound(ServiceId),
    /// On calls of this sidecar's app to any service without sidecars in this namespace. One
    /// entry for all of them: a namespace-wide policy need not be repeated for each service.
    OutboundNamespace(String),
}

/// Verdict of a matching AuthorizationPolicy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AuthzAction {
    /// Lets it pass.
    Allow,
    /// Refuses it.
    Deny,
    /// Notes it.
    Audit,
}

/// Who calls. Fields are ANDed, values of one field ORed; `not_*` must all miss.
/// Strings are exact, `abc*`, `*abc` or `*`, compiled to [`Pattern`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// SPIFFE IDs without `spiffe://`.
    pub principals: Vec<Pattern>,
    /// Not these.
    pub not_principals: Vec<Pattern>,
    /// Namespaces.
    pub namespaces: Vec<Pattern>,
    /// Not these.
    pub not_namespaces: Vec<Pattern>,
    /// Peer addresses.
    pub ip_blocks: Vec<IpBlock>,
    /// Not these.
    pub not_ip_blocks: Vec<IpBlock>,
}

/// What is called.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// Hosts, case-insensitive, with and without port.
    pub hosts: Vec<Pattern>,
    /// Not these.
    pub not_hosts: Vec<Pattern>,
    /// Workload ports.
    pub ports: Vec<u16>,
    /// Not these.
    pub not_ports: Vec<u16>,
    /// Methods.
    pub methods: Vec<Pattern>,
    /// Not these.
    pub not_methods: Vec<Pattern>,
    /// Normalised paths without query.
    pub paths: Vec<Pattern>,
    /// Not these.
    pub not_paths: Vec<Pattern>,
}

/// A string pattern of AuthorizationPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Pattern {
    /// Equal.
    Exact(String),
    /// `abc*`
    Prefix(String),
    /// `*abc`
    Suffix(String),
    /// `*`: there and not empty.
    Present,
}

/// An address block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct IpBlock {
    /// Network address.
    pub address: IpAddr,
    /// Prefix length, bits.
    pub prefix_bits: u8,
}

/// A further condition (`when`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// `request.headers[NAME]`, `source.ip`, `source.namespace`, `source.principal`,
    /// `destination.port`.
    pub key: String,
    /// Any of these.
    pub values: Vec<Pattern>,
    /// None of these.
    pub not_values: Vec<Pattern>,
}

/// One rule: from AND to AND when; an empty list is no condition.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthzRule {
    /// Any of these.
    pub from: Vec<Source>,
    /// Any of these.
    pub to: Vec<Operation>,
    /// All of these.
    pub when: Vec<Condition>,
}

/// An AuthorizationPolicy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authz {
    /// `NAME.NAMESPACE`.
    pub name: String,
    /// Verdict.
    pub action: AuthzAction,
    /// Any of these; empty never matches.
    pub rules: Vec<AuthzRule>,
    /// Where.
    pub applies: Applies,
}

/// The answer of a denier.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// gRPC status code of the check, e.g. 7; mapped to HTTP (7 is 403).
    pub grpc_status: u8,
    /// `NAME.NAMESPACE` of the handler, part of the message.
    pub handler: String,
    /// Message.
    pub message: String,
}

/// A Mixer rule with a check handler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckRule {
    /// `NAME.NAMESPACE` of the rule.
    pub name: String,
    /// Condition; `None` is always. An evaluation error is "no match", counted.
    pub when: Option<Expr>,
    /// Answer.
    pub deny: Denial,
    /// Where.
    pub applies: Applies,
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// AuthorizationPolicies.
    pub authz: Vec<Authz>,
    /// Check rules, in order.
    pub checks: Vec<CheckRule>,
}

impl Validate for Policy {
    fn validate(&self) -> Result<(), WireError> {
        for check in &self.checks {
            check.when.as_ref().map_or(Ok(()), Validate::validate)?;
        }
        let blocks = self
            .authz
            .iter()
            .flat_map(|a| &a.rules)
            .flat_map(|r| &r.from);
        for block in blocks.flat_map(|s| s.ip_blocks.iter().chain(&s.not_ip_blocks)) {
            let bits = if block.address.is_ipv4() { 32 } else { 128 };
            if block.prefix_bits > bits {
                return Err(WireError::Invalid(format!(
                    "address block {}/{} has too long a prefix",
                    block.address, block.prefix_bits
                )));
            }
        }
        Ok(())
    }
}
