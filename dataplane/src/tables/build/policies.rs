//! Policies and quotas to rows, partitioned by where they act.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ringmesh_wire::snapshot::{
    self, Authz, AuthzAction, AuthzRule, CheckRule, IpBlock, Pattern, Policy, QuotaRule,
};

use super::services::Services;
use super::sites;
use crate::tables::error::TablesError;
use crate::tables::index::{QuotaIndex, ServiceIndex};
use crate::tables::policy_rows::{
    Address, AuthzRow, CheckRow, Condition, ConditionTest, Glob, Operation, PolicyRows, QuotaRow,
    Rule, Site, Source,
};
use crate::tables::program::{Program, Stays};

pub(super) struct Policies {
    pub(super) inbound: PolicyRows,
    pub(super) outbound: HashMap<ServiceIndex, PolicyRows>,
    pub(super) quotas: Vec<QuotaRow>,
}

pub(super) fn build(
    policy: &Policy,
    quotas: &[QuotaRule],
    services: &Services,
) -> Result<Policies, TablesError> {
    let mut built = Policies {
        inbound: PolicyRows::default(),
        outbound: HashMap::new(),
        quotas: Vec::with_capacity(quotas.len()),
    };
    for authz in &policy.authz {
        let place = format!("authorization policy {}", authz.name);
        let row = Arc::new(authz_row(authz, &place)?);
        for site in sites(&authz.applies, services, &place)? {
            let rows = built.rows(site);
            let list = match authz.action {
                AuthzAction::Allow => &mut rows.allow,
                AuthzAction::Deny => &mut rows.deny,
                AuthzAction::Audit => &mut rows.audit,
            };
            list.push(Arc::clone(&row));
        }
    }
    // A denier whose status is OK denies nothing.
    for check in policy.checks.iter().filter(|c| c.deny.grpc_status != 0) {
        let place = format!("rule {}", check.name);
        let row = Arc::new(check_row(check));
        for site in sites(&check.applies, services, &place)? {
            built.rows(site).checks.push(Arc::clone(&row));
        }
    }
    for (at, quota) in quotas.iter().enumerate() {
        let place = format!("quota {}", quota.name);
        for site in sites(&quota.applies, services, &place)? {
            built.rows(site).quotas.push(QuotaIndex::of(at));
        }
        let row = quota_row(quota, &built.quotas);
        built.quotas.push(row);
    }
    Ok(built)
}

impl Policies {
    fn rows(&mut self, site: Site) -> &mut PolicyRows {
        match site {
            Site::Inbound => &mut self.inbound,
            Site::Outbound(service) => self.outbound.entry(service).or_default(),
        }
    }
}

fn authz_row(authz: &Authz, place: &str) -> Result<AuthzRow, TablesError> {
    let rules = authz.rules.iter().map(|r| rule(r, place));
    Ok(AuthzRow {
        name: authz.name.as_str().into(),
        rules: rules.collect::<Result<_, _>>()?,
    })
}

fn rule(rule: &AuthzRule, place: &str) -> Result<Rule, TablesError> {
    let when = rule.when.iter().map(|c| condition(c, place));
    Ok(Rule {
        from: rule.from.iter().map(source).collect(),
        to: rule.to.iter().map(operation).collect(),
        when: when.collect::<Result<_, _>>()?,
    })
}

fn source(source: &snapshot::Source) -> Source {
    Source {
        principals: globs(&source.principals),
        not_principals: globs(&source.not_principals),
        namespaces: globs(&source.namespaces),
        not_namespaces: globs(&source.not_namespaces),
        addresses: blocks(&source.ip_blocks),
        not_addresses: blocks(&source.not_ip_blocks),
    }
}

fn operation(operation: &snapshot::Operation) -> Operation {
    Operation {
        hosts: globs(&operation.hosts),
        not_hosts: globs(&operation.not_hosts),
        ports: operation.ports.as_slice().into(),
        not_ports: operation.not_ports.as_slice().into(),
        methods: globs(&operation.methods),
        not_methods: globs(&operation.not_methods),
        paths: globs(&operation.paths),
        not_paths: globs(&operation.not_paths),
    }
}

fn condition(wanted: &snapshot::Condition, place: &str) -> Result<Condition, TablesError> {
    let header = wanted
        .key
        .strip_prefix("request.headers[")
        .and_then(|rest| rest.strip_suffix(']'));
    if let Some(name) = header {
        return Ok(Condition(ConditionTest::Header(
            name.to_ascii_lowercase().into(),
            globs(&wanted.values),
            globs(&wanted.not_values),
        )));
    }
    Ok(Condition(match wanted.key.as_str() {
        "source.namespace" => {
            ConditionTest::Namespace(globs(&wanted.values), globs(&wanted.not_values))
        }
        "source.principal" => {
            ConditionTest::Principal(globs(&wanted.values), globs(&wanted.not_values))
        }
        "source.ip" => ConditionTest::SourceIp(
            parsed(&wanted.values, block, "an address or block", place)?,
            parsed(&wanted.not_values, block, "an address or block", place)?,
        ),
        "destination.port" => ConditionTest::Port(
            parsed(&wanted.values, |text| text.parse().ok(), "a port", place)?,
            parsed(
                &wanted.not_values,
                |text| text.parse().ok(),
                "a port",
                place,
            )?,
        ),
        other => {
            return Err(TablesError::invalid(
                place,
                format!("condition key {other:?} is not one this sidecar knows"),
            ));
        }
    }))
}

/// Values that are no text: only exact ones make sense.
fn parsed<T>(
    values: &[Pattern],
    parse: impl Fn(&str) -> Option<T>,
    what: &str,
    place: &str,
) -> Result<Box<[T]>, TablesError> {
    values
        .iter()
        .map(|value| match value {
            Pattern::Exact(text) => parse(text),
            Pattern::Prefix(_) | Pattern::Suffix(_) | Pattern::Present => None,
        })
        .collect::<Option<_>>()
        .ok_or_else(|| TablesError::invalid(place, format!("a value of {values:?} is not {what}")))
}

fn block(text: &str) -> Option<Address> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) => (address, Some(bits.parse::<u8>().ok()?)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().ok()?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = bits.unwrap_or(width);
    (bits <= width).then(|| Address::block(address, bits))
}

fn blocks(blocks: &[IpBlock]) -> Box<[Address]> {
    blocks
        .iter()
        .map(|block| Address::block(block.address, block.prefix_bits))
        .collect()
}

fn globs(patterns: &[Pattern]) -> Box<[Glob]> {
    patterns
        .iter()
        .map(|pattern| match pattern {
            Pattern::Exact(text) => Glob::Exact(text.as_str().into()),
            Pattern::Prefix(text) => Glob::Prefix(text.as_str().into()),
            Pattern::Suffix(text) => Glob::Suffix(text.as_str().into()),
            Pattern::Present => Glob::Present,
        })
        .collect()
}

fn check_row(check: &CheckRule) -> CheckRow {
    let (status, name) = of_grpc(check.deny.grpc_status);
    CheckRow {
        name: check.name.as_str().into(),
        when: check.when.as_ref().map(Program::lower),
        grpc_status: check.deny.grpc_status,
        status,
        body: format!("{name}:{}:{}", check.deny.handler, check.deny.message).into(),
    }
}

fn quota_row(quota: &QuotaRule, before: &[QuotaRow]) -> QuotaRow {
    let dimensions: Box<[(Box<str>, Program)]> = quota
        .dimensions
        .iter()
        .map(|(name, expr)| (name.as_str().into(), Program::lower(expr)))
        .collect();
    let when = quota.when.as_ref().map(Program::lower);
    let equal = before.iter().find(|row| row.dimensions == dimensions);
    let next = || before.iter().map(|row| row.dimension_set + 1).max();
    let programs = when
        .iter()
        .chain(dimensions.iter().map(|(_, program)| program));
    let stays = programs.map(Program::stays).min();
    let stays = stays.unwrap_or(Stays::ForCaller);
    QuotaRow {
        rule: quota.clone(),
        dimension_set: equal.map_or_else(|| next().unwrap_or(0), |row| row.dimension_set),
        stays,
        when,
        dimensions,
        body: format!("RESOURCE_EXHAUSTED:Quota is exhausted for: {}", quota.name).into(),
    }
}

/// HTTP status and name of a gRPC status, as Mixer's client mapped them.
pub(crate) fn of_grpc(code: u8) -> (u16, &'static str) {
    match code {
        0 => (200, "OK"),
        1 => (499, "CANCELLED"),
        3 => (400, "INVALID_ARGUMENT"),
        4 => (504, "DEADLINE_EXCEEDED"),
        5 => (404, "NOT_FOUND"),
        6 => (409, "ALREADY_EXISTS"),
        7 => (403, "PERMISSION_DENIED"),
        8 => (429, "RESOURCE_EXHAUSTED"),
        9 => (400, "FAILED_PRECONDITION"),
        10 => (409, "ABORTED"),
        11 => (400, "OUT_OF_RANGE"),
        12 => (501, "UNIMPLEMENTED"),
        13 => (500, "INTERNAL"),
        14 => (503, "UNAVAILABLE"),
        15 => (500, "DATA_LOSS"),
        16 => (401, "UNAUTHENTICATED"),
        _ => (500, "UNKNOWN"),
    }
}
