//! Virtual hosts and routes, with names resolved and patterns compiled.

use regex::bytes::Regex;
use ringmesh_wire::snapshot::{Fault, HeaderOps, Redirect, Retry, Rewrite};

use super::index::{ClusterIndex, RouteIndex};

/// A condition on text.
#[derive(Debug)]
pub enum Text {
    /// Equal.
    Exact(Box<str>),
    /// Begins with.
    Prefix(Box<str>),
    /// Matches as a whole.
    Regex(Regex),
    /// There at all.
    Present,
}

impl Text {
    /// Whether `value` meets the condition.
    #[must_use]
    pub fn is_match(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => wanted.as_bytes() == value,
            Self::Prefix(wanted) => value.starts_with(wanted.as_bytes()),
            Self::Regex(wanted) => wanted.is_match(value),
            Self::Present => true,
        }
    }

    /// The same, where exact and prefix ignore ASCII case (never a regex).
    #[must_use]
    pub fn is_match_folded(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => wanted.as_bytes().eq_ignore_ascii_case(value),
            Self::Prefix(wanted) => value
                .get(..wanted.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(wanted.as_bytes())),
            Self::Regex(_) | Self::Present => self.is_match(value),
        }
    }
}

/// Conditions that must all hold, cheapest first.
#[derive(Debug)]
pub struct MatchRow {
    /// Service port.
    pub port: Option<u16>,
    /// Method.
    pub method: Option<Text>,
    /// Path without query.
    pub uri: Option<Text>,
    /// Exact and prefix of `uri` ignore ASCII case.
    pub fold_uri_case: bool,
    /// Scheme.
    pub scheme: Option<Text>,
    /// Host as sent.
    pub authority: Option<Text>,
    /// Headers by lower-case name.
    pub headers: Box<[(Box<str>, Text)]>,
    /// Headers that must not match.
    pub without_headers: Box<[(Box<str>, Text)]>,
    /// Query parameters.
    pub query: Box<[(Box<str>, Text)]>,
}

/// Which cluster a destination is, given the port the request was sent to.
#[derive(Debug)]
pub enum ClusterChoice {
    /// Named, or the service's only port.
    Fixed(ClusterIndex),
    /// The cluster of the request's own port, by port.
    ByPort(Box<[(u16, ClusterIndex)]>),
    /// What the rule names is not in the snapshot.
    Missing,
}

impl ClusterChoice {
    /// The cluster for a request to `port`; `None` where the service has no such port, or is not
    /// there.
    #[must_use]
    pub fn for_port(&self, port: u16) -> Option<ClusterIndex> {
        match self {
            Self::Fixed(cluster) => Some(*cluster),
            Self::ByPort(ports) => ports.iter().find(|(p, _)| *p == port).map(|(_, c)| *c),
            Self::Missing => None,
        }
    }
}

/// One of the places a route sends to.
#[derive(Debug)]
pub struct DestinationRow {
    /// Where.
    pub cluster: ClusterChoice,
    /// Sum of the weights up to and with this one.
    pub weight_end: u64,
    /// Header changes, before those of the route; `None` if there are none.
    pub headers: Option<Box<HeaderOps>>,
}

/// What happens to a matched request.
#[derive(Debug)]
pub enum ActionRow {
    /// Sent to one of these; empty only for [`RouteIndex::DEFAULT`], whose cluster is the
    /// service's own.
    Forward(Box<[DestinationRow]>),
    /// Redirected.
    Redirect(Redirect),
    /// Answered here.
    Respond {
        /// Status.
        status: u16,
        /// Body.
        body: Box<str>,
    },
}

/// One rule of a virtual host.
#[derive(Debug)]
pub struct RouteRow {
    /// Name for logs.
    pub name: Box<str>,
    /// Any of these; empty matches everything.
    pub matches: Box<[MatchRow]>,
    /// What to do.
    pub action: ActionRow,
    /// Faults.
    pub fault: Option<Fault>,
    /// Whole time allowed, milliseconds, mesh default filled in; `None` is no limit.
    pub timeout_ms: Option<u64>,
    /// Retries.
    pub retry: Retry,
    /// Target changes.
    pub rewrite: Option<Rewrite>,
    /// Header changes; `None` if there are none.
    pub headers: Option<Box<HeaderOps>>,
}

/// A rule for opaque connections.
#[derive(Debug)]
pub struct TcpRouteRow {
    /// Service port; `None` is every port.
    pub port: Option<u16>,
    /// Sent to one of these.
    pub destinations: Box<[DestinationRow]>,
}

/// Routing of some hosts.
#[derive(Debug)]
pub struct VirtualHostRow {
    /// `NAME.NAMESPACE` of the object.
    pub name: Box<str>,
    /// Its HTTP routes, first match wins: from here..
    pub(super) routes_start: u32,
    /// ..to before here.
    pub(super) routes_end: u32,
    /// TCP rules, first match wins.
    pub tcp: Box<[TcpRouteRow]>,
}

impl VirtualHostRow {
    /// Its HTTP routes, first match wins.
    pub fn routes(&self) -> impl Iterator<Item = RouteIndex> + use<> {
        (self.routes_start..self.routes_end).map(RouteIndex)
    }

    /// Whether it has rules for HTTP at all; one with TCP rules alone leaves HTTP to the default.
    #[must_use]
    pub fn has_http(&self) -> bool {
        self.routes_start < self.routes_end
    }
}
