//! Virtual hosts to rows: patterns compiled, destinations resolved to clusters.

use regex::bytes::{Regex, RegexBuilder};
use ringmesh_wire::limits::REGEX_COMPILED_BYTES_MAX;
use ringmesh_wire::snapshot::{
    Action, Destination, HeaderOps, HttpMatch, HttpRoute, Mesh, Retry, Service, StringMatch,
    TcpRoute, VirtualHost,
};

use super::services::Services;
use crate::tables::error::TablesError;
use crate::tables::route_rows::{
    ActionRow, ClusterChoice, DestinationRow, MatchRow, RouteRow, TcpRouteRow, Text, VirtualHostRow,
};
use crate::tables::service_rows::ClusterKey;

pub(super) struct Routes {
    pub(super) virtual_hosts: Vec<VirtualHostRow>,
    pub(super) routes: Vec<RouteRow>,
}

pub(super) fn build(
    hosts: &[VirtualHost],
    declared: &[Service],
    services: &Services,
    mesh: &Mesh,
) -> Result<Routes, TablesError> {
    let lower = Lower {
        declared,
        services,
        default_timeout_ms: mesh.default_timeout_ms,
    };
    let mut built = Routes {
        virtual_hosts: Vec::with_capacity(hosts.len()),
        routes: vec![lower.default_route()],
    };
    for host in hosts {
        let start = built.routes.len();
        for route in &host.http {
            built.routes.push(lower.route(host, route)?);
        }
        let tcp = host.tcp.iter().map(|rule| lower.tcp(rule));
        built.virtual_hosts.push(VirtualHostRow {
            name: host.name.as_str().into(),
            routes_start: u32::try_from(start).unwrap_or(u32::MAX),
            routes_end: u32::try_from(built.routes.len()).unwrap_or(u32::MAX),
            tcp: tcp.collect(),
        });
    }
    Ok(built)
}

struct Lower<'a> {
    declared: &'a [Service],
    services: &'a Services,
    default_timeout_ms: u64,
}

impl Lower<'_> {
    fn default_route(&self) -> RouteRow {
        RouteRow {
            name: "default".into(),
            matches: Box::default(),
            action: ActionRow::Forward(Box::default()),
            fault: None,
            timeout_ms: self.timeout(None),
            retry: Retry::default(),
            rewrite: None,
            headers: None,
        }
    }

    fn timeout(&self, own: Option<u64>) -> Option<u64> {
        Some(own.unwrap_or(self.default_timeout_ms)).filter(|ms| *ms > 0)
    }

    fn route(&self, host: &VirtualHost, route: &HttpRoute) -> Result<RouteRow, TablesError> {
        let place = format!("routes {}: route {}", host.name, route.name);
        let action = match &route.action {
            Action::Forward(to) => ActionRow::Forward(self.destinations(to)),
            Action::Redirect(to) => ActionRow::Redirect(to.clone()),
            Action::Respond { status, body } => ActionRow::Respond {
                status: *status,
                body: body.as_str().into(),
            },
        };
        let matches = route.matches.iter().map(|m| match_row(m, &place));
        Ok(RouteRow {
            name: route.name.as_str().into(),
            matches: matches.collect::<Result<_, _>>()?,
            action,
            fault: route.fault.clone(),
            timeout_ms: self.timeout(route.timeout_ms),
            retry: route.retry.clone(),
            rewrite: route.rewrite.clone(),
            headers: headers(&route.headers),
        })
    }

    fn tcp(&self, rule: &TcpRoute) -> TcpRouteRow {
        TcpRouteRow {
            port: rule.port,
            destinations: self.destinations(&rule.destinations),
        }
    }

    fn destinations(&self, destinations: &[Destination]) -> Box<[DestinationRow]> {
        let mut weight_end = 0u64;
        destinations
            .iter()
            .map(|to| {
                weight_end += u64::from(to.weight);
                DestinationRow {
                    cluster: self.cluster(to).unwrap_or(ClusterChoice::Missing),
                    weight_end,
                    headers: headers(&to.headers),
                }
            })
            .collect()
    }

    /// `None` where the snapshot has no such service, subset or port: what a rule names may go at
    /// any time, and no mistake in one route may keep all other rules out of force.
    fn cluster(&self, to: &Destination) -> Option<ClusterChoice> {
        let service = self.services.by_id.get(&to.service)?;
        let declared = &self.declared[service.at()];
        let find = |port: u16| {
            let key = ClusterKey {
                service: to.service.clone(),
                port,
                subset: to.subset.as_deref().map(Into::into),
            };
            self.services.clusters_by_key.get(&key).copied()
        };
        Some(match (to.port, declared.ports.as_slice()) {
            (Some(port), _) => ClusterChoice::Fixed(find(port)?),
            (None, [only]) => ClusterChoice::Fixed(find(only.number)?),
            (None, ports) => {
                let by_port = ports.iter().map(|p| Some((p.number, find(p.number)?)));
                ClusterChoice::ByPort(by_port.collect::<Option<_>>()?)
            }
        })
    }
}

fn headers(ops: &HeaderOps) -> Option<Box<HeaderOps>> {
    (!ops.is_empty()).then(|| Box::new(ops.clone()))
}

fn match_row(wanted: &HttpMatch, place: &str) -> Result<MatchRow, TablesError> {
    let one = |wanted: &Option<StringMatch>| wanted.as_ref().map(|w| text(w, place)).transpose();
    let many = |wanted: &[(String, StringMatch)], fold: bool| {
        wanted
            .iter()
            .map(|(name, wanted)| {
                let name = if fold {
                    name.to_ascii_lowercase()
                } else {
                    name.clone()
                };
                Ok((name.into(), text(wanted, place)?))
            })
            .collect::<Result<Box<[_]>, TablesError>>()
    };
    Ok(MatchRow {
        port: wanted.port,
        method: one(&wanted.method)?,
        uri: one(&wanted.uri)?,
        fold_uri_case: wanted.ignore_uri_case,
        scheme: one(&wanted.scheme)?,
        authority: one(&wanted.authority)?,
        headers: many(&wanted.headers, true)?,
        without_headers: many(&wanted.without_headers, true)?,
        query: many(&wanted.query, false)?,
    })
}

fn text(wanted: &StringMatch, place: &str) -> Result<Text, TablesError> {
    Ok(match wanted {
        StringMatch::Exact(text) => Text::Exact(text.as_str().into()),
        StringMatch::Prefix(text) => Text::Prefix(text.as_str().into()),
        StringMatch::Regex(pattern) => Text::Regex(whole(pattern, place)?),
        StringMatch::Present => Text::Present,
    })
}

/// A regex that must match the whole value. Control has compiled both patterns the same way
/// (`rules/read/shared.rs`), so a user hears of a bad one before any sidecar does.
fn whole(pattern: &str, place: &str) -> Result<Regex, TablesError> {
    let compiled = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(REGEX_COMPILED_BYTES_MAX)
            .build()
            .map_err(|error| {
                TablesError::invalid(
                    place,
                    format!("regex {pattern:?} does not compile: {error}"),
                )
            })
    };
    compiled(pattern)?;
    compiled(&StringMatch::whole(pattern))
}
