//! VirtualServices as one sidecar sees them.

use std::collections::BTreeMap;

use ringmesh_wire::ServiceId;
use ringmesh_wire::v1::Section;
use ringmesh_wire::v1::snapshot::{
    Action, Body, Destination, HttpMatch, HttpRoute, TcpRoute, VirtualHost,
};

use super::services::mesh_hosts;
use super::{CompileError, Explain, NodeScope, sealed};
use crate::model::{Effective, Services, mesh_name};
use crate::rules::traffic::{CallerMatch, HttpRule, RouteTo, RuleAction, TcpRule, VirtualService};
use crate::rules::{ObjectKey, Spec};

/// A VirtualService and its name.
type Claim<'a> = (&'a ObjectKey, &'a VirtualService);

/// The sealed virtual hosts of a node.
pub(super) fn routes(
    effective: &Effective,
    known: &Services<'_>,
    node: &NodeScope,
    explain: &mut Vec<Explain>,
) -> Result<Vec<Section>, CompileError> {
    let mut sections = Vec::new();
    for (claims, hosts) in claims(effective, known, node) {
        let name = claims
            .iter()
            .map(|(key, _)| key.full_name())
            .collect::<Vec<_>>()
            .join("+");
        if claims.len() > 1 {
            explain.push(Explain {
                about: format!("routes {name}"),
                why: format!(
                    "{} is routed by several VirtualServices: rules with conditions first, in the \
                     order shown, then the first rule without",
                    hosts.join(", ")
                ),
            });
        }
        let virtual_host = VirtualHost {
            name: name.clone(),
            hosts,
            http: http(&claims, known, node)?,
            tcp: tcp(&claims, known, node)?,
        };
        sections.push(sealed(&Body::Routes(virtual_host), &name)?);
    }
    Ok(sections)
}

/// Hosts grouped by the VirtualServices that speak of them; those in the order in which they count.
fn claims<'a>(
    effective: &'a Effective,
    known: &Services<'_>,
    node: &NodeScope,
) -> Vec<(Vec<Claim<'a>>, Vec<String>)> {
    // By host in its full form: the namespace it belongs to, its names, who claims it.
    type Entry<'a> = (Option<String>, Vec<String>, Vec<Claim<'a>>);
    let mut by_host: BTreeMap<String, Entry<'a>> = BTreeMap::new();
    for (key, object) in &effective.objects {
        let Spec::VirtualService(service) = &object.spec else {
            continue;
        };
        let for_mesh =
            service.gateways.is_empty() || service.gateways.iter().any(|g| g.value == "mesh");
        if !for_mesh {
            continue;
        }
        for host in &service.hosts {
            let (full, namespace, names) = host_names(&host.value, key, known, node);
            let entry = by_host
                .entry(full)
                .or_insert_with(|| (namespace, names, Vec::new()));
            if entry.2.iter().all(|(other, _)| *other != key) {
                entry.2.push((key, service));
            }
        }
    }
    let mut grouped: BTreeMap<Vec<&ObjectKey>, (Vec<Claim<'a>>, Vec<String>)> = BTreeMap::new();
    for (namespace, names, mut claims) in by_host.into_values() {
        claims.sort_by_key(|(key, _)| (namespace.as_ref() != Some(&key.namespace), *key));
        let keys = claims.iter().map(|(key, _)| *key).collect();
        let group = grouped.entry(keys).or_insert_with(|| (claims, Vec::new()));
        group.1.extend(names);
    }
    grouped
        .into_values()
        .map(|(claims, mut hosts)| {
            hosts.sort();
            hosts.dedup();
            (claims, hosts)
        })
        .collect()
}

/// The full form of a host, the namespace it belongs to, and its names for this node.
fn host_names(
    host: &str,
    key: &ObjectKey,
    known: &Services<'_>,
    node: &NodeScope,
) -> (String, Option<String>, Vec<String>) {
    let by_mesh_name = |id: ServiceId| {
        let names = mesh_hosts(&id, &node.service.namespace);
        (id.to_string(), Some(id.namespace), names)
    };
    match known.find(host, &key.namespace) {
        Some(id) if known.is_external(&id) && id.name == host && host.contains(['.', '*']) => {
            (host.to_owned(), Some(id.namespace), vec![host.to_owned()])
        }
        Some(id) => by_mesh_name(id),
        // No service: reachable by this name only. Short names still belong to the namespace.
        None => match mesh_name(host, &key.namespace) {
            Some(id) if !host.contains('.') => by_mesh_name(id),
            _ => (host.to_owned(), None, vec![host.to_owned()]),
        },
    }
}

/// Whether a block of conditions is for this node.
fn is_caller(caller: &CallerMatch, node: &NodeScope) -> bool {
    let here = caller
        .namespace
        .as_ref()
        .is_none_or(|namespace| *namespace == node.service.namespace);
    if !caller.gateways.is_empty() {
        return here && caller.gateways.iter().any(|gateway| gateway == "mesh");
    }
    here && caller
        .labels
        .iter()
        .all(|(name, value)| node.labels.get(name) == Some(value))
}

/// The conditions of a rule that are left to decide per request; `None` where no block is for this
/// node, empty where everything matches.
fn conditions(rule: &HttpRule, node: &NodeScope) -> Option<Vec<HttpMatch>> {
    if rule.matches.is_empty() {
        return Some(Vec::new());
    }
    let mine: Vec<HttpMatch> = rule
        .matches
        .iter()
        .filter(|block| is_caller(&block.caller, node))
        .map(|block| block.request.clone())
        .collect();
    if mine.is_empty() {
        return None;
    }
    let all = mine.iter().any(|block| {
        *block
            == HttpMatch {
                ignore_uri_case: block.ignore_uri_case,
                ..HttpMatch::default()
            }
    });
    Some(if all { Vec::new() } else { mine })
}

fn http(
    claims: &[Claim<'_>],
    known: &Services<'_>,
    node: &NodeScope,
) -> Result<Vec<HttpRoute>, CompileError> {
    let (mut with_conditions, mut catch_all) = (Vec::new(), None);
    for (key, service) in claims {
        for (at, rule) in service.http.iter().enumerate() {
            let Some(matches) = conditions(rule, node) else {
                continue;
            };
            let last = matches.is_empty();
            let route = http_route(key, at, rule, matches, known)?;
            if last {
                catch_all.get_or_insert(route);
                break;
            }
            with_conditions.push(route);
        }
    }
    with_conditions.extend(catch_all);
    Ok(with_conditions)
}

fn http_route(
    key: &ObjectKey,
    at: usize,
    rule: &HttpRule,
    matches: Vec<HttpMatch>,
    known: &Services<'_>,
) -> Result<HttpRoute, CompileError> {
    let action = match &rule.action {
        RuleAction::Forward(to) => Action::Forward(destinations(key, to, known)?),
        RuleAction::Redirect(redirect) => Action::Redirect(redirect.clone()),
        RuleAction::Respond { status, body } => Action::Respond {
            status: *status,
            body: body.clone(),
        },
    };
    Ok(HttpRoute {
        name: rule
            .name
            .clone()
            .unwrap_or_else(|| format!("{}#{at}", key.full_name())),
        matches,
        action,
        fault: rule.fault.clone(),
        timeout_ms: rule.timeout_ms,
        retry: rule.retry.clone().unwrap_or_default(),
        rewrite: rule.rewrite.clone(),
        headers: rule.headers.clone(),
    })
}

/// Destinations with a weight.
fn destinations(
    key: &ObjectKey,
    to: &[RouteTo],
    known: &Services<'_>,
) -> Result<Vec<Destination>, CompileError> {
    to.iter()
        .filter(|to| to.weight > 0)
        .map(|to| {
            let service =
                known
                    .find(&to.host.value, &key.namespace)
                    .ok_or_else(|| CompileError {
                        about: key.to_string(),
                        why: format!("the host {} of {} is gone", to.host.value, to.host.place),
                    })?;
            Ok(Destination {
                service,
                port: to.port.as_ref().map(|port| port.value),
                subset: to.subset.as_ref().map(|subset| subset.value.clone()),
                weight: to.weight,
                headers: to.headers.clone(),
            })
        })
        .collect()
}

fn tcp(
    claims: &[Claim<'_>],
    known: &Services<'_>,
    node: &NodeScope,
) -> Result<Vec<TcpRoute>, CompileError> {
    let (mut with_port, mut catch_all) = (Vec::new(), None);
    for (key, service) in claims {
        for rule in &service.tcp {
            let Some(ports) = tcp_ports(rule, node) else {
                continue;
            };
            let destinations = destinations(key, &rule.to, known)?;
            if ports.is_empty() {
                catch_all.get_or_insert(TcpRoute {
                    port: None,
                    destinations,
                });
                break;
            }
            with_port.extend(ports.into_iter().map(|port| TcpRoute {
                port: Some(port),
                destinations: destinations.clone(),
            }));
        }
    }
    with_port.extend(catch_all);
    Ok(with_port)
}

/// Ports a TCP rule is for; empty is all, `None` is not for this node.
fn tcp_ports(rule: &TcpRule, node: &NodeScope) -> Option<Vec<u16>> {
    if rule.matches.is_empty() {
        return Some(Vec::new());
    }
    let mine: Vec<Option<u16>> = rule
        .matches
        .iter()
        .filter(|block| is_caller(&block.caller, node))
        .map(|block| block.port)
        .collect();
    if mine.is_empty() {
        return None;
    }
    Some(
        mine.into_iter()
            .collect::<Option<Vec<u16>>>()
            .unwrap_or_default(),
    )
}
