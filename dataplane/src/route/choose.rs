//! The first route that matches, and one of its destinations.

use ringmesh_wire::snapshot::{HeaderOps, Protocol, Redirect};

use super::matching;
use crate::reason::Reason;
use crate::tables::{
    ActionRow, ClusterIndex, DestinationRow, Destined, RouteIndex, RouteRow, Tables,
};
use crate::view::RequestView;

/// What is to be done with a request.
#[derive(Debug, Clone, Copy)]
pub struct Choice<'t> {
    /// The route.
    pub index: RouteIndex,
    /// Its row: timeout, retries, fault, rewrite, headers (carried out after the destination's).
    pub route: &'t RouteRow,
    /// What it does.
    pub decided: Decided<'t>,
    /// Bytes of the path that a `uri.prefix` match took, for [`super::rewrite`]; `None` where the
    /// whole path matched.
    pub prefix_bytes: Option<usize>,
}

impl<'t> Choice<'t> {
    /// Where no rule says anything.
    fn default_route(tables: &'t Tables, cluster: ClusterIndex) -> Self {
        Self {
            index: RouteIndex::DEFAULT,
            route: tables.route(RouteIndex::DEFAULT),
            decided: Decided::Forward {
                cluster,
                headers: None,
            },
            prefix_bytes: None,
        }
    }
}

/// Where a matched request goes.
#[derive(Debug, Clone, Copy)]
pub enum Decided<'t> {
    /// To an upstream.
    Forward {
        /// Which.
        cluster: ClusterIndex,
        /// Header changes of the destination, before those of the route.
        headers: Option<&'t HeaderOps>,
    },
    /// Elsewhere, by the client itself.
    Redirect(&'t Redirect),
    /// Nowhere: answered here.
    Respond {
        /// Status.
        status: u16,
        /// Body.
        body: &'t str,
    },
}

/// Where an opaque connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpChoice {
    /// To this cluster.
    pub cluster: ClusterIndex,
}

/// Chooses the route of a request. `random` is 64 fresh random bits.
///
/// # Errors
/// [`Reason::NoRoute`] where the virtual host has rules and none matches (404);
/// [`Reason::NoCluster`] where the destination has no such port, or is not there at all (503).
pub fn choose<'t>(
    tables: &'t Tables,
    to: &Destined,
    request: &RequestView<'_>,
    random: u64,
) -> Result<Choice<'t>, Reason> {
    let ruled = to
        .virtual_host
        .map(|at| tables.virtual_host(at))
        .filter(|host| host.has_http());
    let Some(host) = ruled else {
        let service = to.service.ok_or(Reason::NoRoute)?;
        let cluster = tables.service(service).cluster(to.port);
        let cluster = cluster.ok_or(Reason::NoCluster)?;
        return Ok(Choice::default_route(tables, cluster));
    };
    for index in host.routes() {
        let route = tables.route(index);
        let Some(matched) = matching::first_match(&route.matches, request) else {
            continue;
        };
        let decided = match &route.action {
            ActionRow::Forward(to) => {
                let destination = split(to, random).ok_or(Reason::NoCluster)?;
                Decided::Forward {
                    cluster: destination
                        .cluster
                        .for_port(request.port)
                        .ok_or(Reason::NoCluster)?,
                    headers: destination.headers.as_deref(),
                }
            }
            ActionRow::Redirect(redirect) => Decided::Redirect(redirect),
            ActionRow::Respond { status, body } => Decided::Respond {
                status: *status,
                body,
            },
        };
        return Ok(Choice {
            index,
            route,
            decided,
            prefix_bytes: matched.prefix_bytes,
        });
    }
    Err(Reason::NoRoute)
}

/// Chooses the destination of an opaque connection: first TCP rule whose port fits, else the
/// service itself. `random` is 64 fresh random bits.
///
/// # Errors
/// [`Reason::NoCluster`] where neither leads to a cluster.
pub fn choose_tcp(tables: &Tables, to: &Destined, random: u64) -> Result<TcpChoice, Reason> {
    let rules = to
        .virtual_host
        .map_or(&[][..], |at| &tables.virtual_host(at).tcp);
    let rule = rules
        .iter()
        .find(|rule| rule.port.is_none_or(|port| port == to.port));
    let cluster = match rule {
        Some(rule) => split(&rule.destinations, random).and_then(|d| d.cluster.for_port(to.port)),
        None => to
            .service
            .and_then(|service| tables.service(service).cluster(to.port)),
    };
    cluster
        .map(|cluster| TcpChoice { cluster })
        .ok_or(Reason::NoCluster)
}

/// Chooses the route of a tunnel: by the rules for opaque connections where the port is one, else by
/// those for requests, to which CONNECT has a method and an authority but no path.
///
/// # Errors
/// As [`choose`] and [`choose_tcp`].
pub fn choose_tunnel<'t>(
    tables: &'t Tables,
    to: &Destined,
    request: &RequestView<'_>,
    random: u64,
) -> Result<Choice<'t>, Reason> {
    if matches!(tables.declared(to), Protocol::Tcp | Protocol::Tls) {
        let TcpChoice { cluster } = choose_tcp(tables, to, random)?;
        return Ok(Choice::default_route(tables, cluster));
    }
    choose(tables, to, request, random)
}

/// The destination that `random` falls on: share = weight / sum of weights.
///
/// Multiply-and-shift over 64 bits: with sums below 2^32 the bias is below 2^-32, far under what
/// any count of requests can show.
#[must_use]
pub fn split(destinations: &[DestinationRow], random: u64) -> Option<&DestinationRow> {
    match destinations {
        [] => None,
        [only] => Some(only),
        [.., last] => {
            let drawn = scaled(random, last.weight_end);
            destinations.iter().find(|d| drawn < d.weight_end)
        }
    }
}

/// `random` scaled to `0..below`.
pub(crate) fn scaled(random: u64, below: u64) -> u64 {
    // The high half of a 128-bit product is always below `below`.
    ((u128::from(random) * u128::from(below)) >> 64) as u64
}
