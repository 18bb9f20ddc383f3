//! AuthorizationPolicy.
//!
//! Any DENY match refuses; then, where there is an ALLOW policy, one of them must match. AUDIT only
//! notes. Without a proven identity positive principals and namespaces never match and negative
//! ones do.

use std::sync::Arc;

use super::attributes::Attributes;
use super::check::{Audited, Notes, Refusal};
use crate::reason::Reason;
use crate::tables::{
    Address, AuthzRow, Condition, ConditionTest, Glob, Operation, PolicyRows, Rule, Site, Source,
};

/// Body of every refusal.
const BODY: &str = "RBAC: access denied";

/// What a field that only requests have means on an opaque connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum WithoutRequest {
    /// An ALLOW rule that names it can never match.
    Fails,
    /// A DENY rule drops it, and so refuses more.
    Ignored,
}

pub(super) fn judge<'t>(
    rows: &'t PolicyRows,
    site: Site,
    attributes: &Attributes<'_>,
    notes: &mut Notes,
) -> Result<(), Refusal<'t>> {
    if rows.deny.is_empty() && rows.allow.is_empty() && rows.audit.is_empty() {
        return Ok(());
    }
    let facts = Facts::new(attributes);
    // The first policy that is met, and its first rule that is.
    let first = |policies: &[Arc<AuthzRow>], without| {
        policies.iter().enumerate().find_map(|(at, policy)| {
            let mut rules = policy.rules.iter();
            let rule = rules.position(|rule| facts.meet(rule, without))?;
            Some((at, rule))
        })
    };
    let refusal = |policy| Refusal {
        reason: Reason::AuthzDenied,
        status: 403,
        grpc_status: 7,
        body: BODY,
        policy,
        notes: Notes::default(),
    };
    notes.audited = first(&rows.audit, WithoutRequest::Ignored)
        .map(|(policy, rule)| Audited::at(site, policy, rule));
    let refused = match first(&rows.deny, WithoutRequest::Ignored) {
        Some((policy, _)) => Some(&*rows.deny[policy].name),
        None if rows.allow.is_empty() => None,
        None => match first(&rows.allow, WithoutRequest::Fails) {
            Some(_) => None,
            None => Some(""),
        },
    };
    match refused {
        None => Ok(()),
        Some(policy) => Err(Refusal {
            notes: *notes,
            ..refusal(policy)
        }),
    }
}

/// A call's attributes in the form rules compare.
struct Facts<'e, 'a> {
    attributes: &'e Attributes<'a>,
    principal: Option<&'a str>,
}

impl<'e, 'a> Facts<'e, 'a> {
    fn new(attributes: &'e Attributes<'a>) -> Self {
        Self {
            attributes,
            principal: attributes.principal(),
        }
    }

    /// From AND to AND when; an empty list is no condition.
    #[inline]
    fn meet(&self, rule: &Rule, without: WithoutRequest) -> bool {
        (rule.to.is_empty() || rule.to.iter().any(|to| self.meet_operation(to, without)))
            && (rule.from.is_empty() || rule.from.iter().any(|from| self.meet_source(from)))
            && rule
                .when
                .iter()
                .all(|when| self.meet_condition(when, without))
    }

    #[inline]
    fn meet_source(&self, source: &Source) -> bool {
        one_of(&source.principals, &source.not_principals, self.principal)
            && self.meet_namespace(&source.namespaces, &source.not_namespaces)
            && self.meet_addresses(&source.addresses, &source.not_addresses)
    }

    /// The namespace is cut out of the principal, so only where it is asked for.
    fn meet_namespace(&self, wanted: &[Glob], unwanted: &[Glob]) -> bool {
        (wanted.is_empty() && unwanted.is_empty())
            || one_of(wanted, unwanted, self.attributes.namespace())
    }

    fn meet_addresses(&self, blocks: &[Address], not_blocks: &[Address]) -> bool {
        let ip = self.attributes.source_ip;
        (blocks.is_empty() || blocks.iter().any(|block| block.contains(ip)))
            && !not_blocks.iter().any(|block| block.contains(ip))
    }

    #[inline]
    fn meet_operation(&self, operation: &Operation, without: WithoutRequest) -> bool {
        if !ports(
            &operation.ports,
            &operation.not_ports,
            self.attributes.port(),
        ) {
            return false;
        }
        let Some(request) = self.attributes.request else {
            return without == WithoutRequest::Ignored || !operation.needs_request();
        };
        // With and without its port.
        let host = |glob: &Glob| {
            let host = request.authority;
            glob.is_match_folded(host.as_bytes())
                || glob.is_match_folded(without_port(host).as_bytes())
        };
        one_of(
            &operation.methods,
            &operation.not_methods,
            Some(request.method),
        ) && one_of(&operation.paths, &operation.not_paths, Some(request.path))
            && (operation.hosts.is_empty() || operation.hosts.iter().any(host))
            && !operation.not_hosts.iter().any(host)
    }

    fn meet_condition(&self, condition: &Condition, without: WithoutRequest) -> bool {
        match &condition.0 {
            ConditionTest::Header(name, values, not_values) => match self.attributes.request {
                Some(request) => one_of_bytes(values, not_values, request.headers.first(name)),
                None => without == WithoutRequest::Ignored,
            },
            ConditionTest::Namespace(values, not_values) => self.meet_namespace(values, not_values),
            ConditionTest::Principal(values, not_values) => {
                one_of(values, not_values, self.principal)
            }
            ConditionTest::SourceIp(values, not_values) => self.meet_addresses(values, not_values),
            ConditionTest::Port(values, not_values) => {
                ports(values, not_values, self.attributes.port())
            }
        }
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

#[inline]
fn ports(wanted: &[u16], unwanted: &[u16], port: u16) -> bool {
    (wanted.is_empty() || wanted.contains(&port)) && !unwanted.contains(&port)
}

#[inline]
fn one_of(wanted: &[Glob], unwanted: &[Glob], value: Option<&str>) -> bool {
    one_of_bytes(wanted, unwanted, value.map(str::as_bytes))
}

/// One of the wanted (if any are named) and none of the unwanted. What is not there matches
/// nothing, wanted or not.
#[inline]
fn one_of_bytes(wanted: &[Glob], unwanted: &[Glob], value: Option<&[u8]>) -> bool {
    let is_in =
        |globs: &[Glob]| value.is_some_and(|value| globs.iter().any(|glob| glob.is_match(value)));
    (wanted.is_empty() || is_in(wanted)) && !is_in(unwanted)
}
