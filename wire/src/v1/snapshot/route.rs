//! Routing: which requests go where, under which conditions (Istio VirtualService).

use serde::{Deserialize, Serialize};

use crate::codec::Validate;
use crate::error::WireError;
use crate::ids::ServiceId;

/// A condition on a string.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StringMatch {
    /// Equal.
    Exact(String),
    /// Begins with (plain prefix: `/foo` matches `/foobar`).
    Prefix(String),
    /// RE2 syntax; must match the whole value.
    Regex(String),
    /// There at all.
    Present,
}

impl StringMatch {
    /// The pattern that matches where all of a value matches `pattern`. It is compiled, within
    /// [`crate::limits::REGEX_COMPILED_BYTES_MAX`], beside `pattern` alone: else one like `a)(b`
    /// could leave its group.
    #[must_use]
    pub fn whole(pattern: &str) -> String {
        format!("\\A(?:{pattern})\\z")
    }
}

/// Conditions that must all hold.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpMatch {
    /// Path without query.
    pub uri: Option<StringMatch>,
    /// Exact and prefix of `uri` ignore ASCII case.
    pub ignore_uri_case: bool,
    /// Method.
    pub method: Option<StringMatch>,
    /// `http` or `https`.
    pub scheme: Option<StringMatch>,
    /// Host as sent.
    pub authority: Option<StringMatch>,
    /// Headers by lower-case name.
    pub headers: Vec<(String, StringMatch)>,
    /// Headers that must *not* match.
    pub without_headers: Vec<(String, StringMatch)>,
    /// Query parameters by name.
    pub query: Vec<(String, StringMatch)>,
    /// Port of the service the request was sent to.
    pub port: Option<u16>,
}

/// Changes to headers, carried out in the order remove, set, add.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeaderOps {
    /// Request headers to remove.
    pub request_remove: Vec<String>,
    /// Request headers to set.
    pub request_set: Vec<(String, String)>,
    /// Request headers to add.
    pub request_add: Vec<(String, String)>,
    /// Response headers to remove.
    pub response_remove: Vec<String>,
    /// Response headers to set.
    pub response_set: Vec<(String, String)>,
    /// Response headers to add.
    pub response_add: Vec<(String, String)>,
}

impl HeaderOps {
    /// Whether nothing is to be done.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One of the places a route sends requests to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destination {
    /// Service; its section is in the snapshot.
    pub service: ServiceId,
    /// Service port; `None` is the port the request was sent to, or the only one.
    pub port: Option<u16>,
    /// Subset; defined by the service's section.
    pub subset: Option<String>,
    /// Relative weight; destinations of weight 0 are left out by the compiler.
    pub weight: u32,
    /// Header changes for this destination, before those of the route.
    pub headers: HeaderOps,
}

/// A delay before the request goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delay {
    /// Share of requests, parts per million.
    pub per_million: u32,
    /// Length, milliseconds.
    pub delay_ms: u64,
}

/// What an aborted request is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AbortWith {
    /// An HTTP status; gRPC calls get the mapped status.
    Http(u16),
    /// A gRPC status.
    Grpc(u8),
}

/// An answer in place of the upstream's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Abort {
    /// Share of requests, parts per million.
    pub per_million: u32,
    /// The answer.
    pub with: AbortWith,
}

/// Injected faults; delay first, then abort, drawn independently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Delay.
    pub delay: Option<Delay>,
    /// Abort.
    pub abort: Option<Abort>,
}

/// Conditions under which a try is repeated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryOn {
    /// No connection could be made.
    pub connect_failure: bool,
    /// The upstream said it did not process the request.
    pub refused_stream: bool,
    /// The connection ended before a response.
    pub reset: bool,
    /// The try ran into its own timeout.
    pub try_timeout: bool,
    /// Any 5xx answer, reset or timeout.
    pub server_error: bool,
    /// 502, 503 or 504, reset or timeout.
    pub gateway_error: bool,
    /// 409.
    pub retriable_4xx: bool,
    /// These statuses, when really sent by the upstream.
    pub statuses: Vec<u16>,
    /// These gRPC statuses.
    pub grpc: Vec<u8>,
}

/// When and how often a request is tried again.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retry {
    /// Retries after the first try; 0 is none.
    pub attempts: u32,
    /// Length of one try until response headers, milliseconds; 0 is the route's timeout.
    pub per_try_timeout_ms: u64,
    /// When.
    pub on: RetryOn,
}

impl Default for Retry {
    /// A route without `retries`: 2 on conditions in which nothing was processed.
    fn default() -> Self {
        Self {
            attempts: 2,
            per_try_timeout_ms: 0,
            on: RetryOn {
                connect_failure: true,
                refused_stream: true,
                grpc: vec![14, 1],
                ..RetryOn::default()
            },
        }
    }
}

/// Changes to the forwarded request's target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewrite {
    /// New path, or new prefix where the route matched by prefix.
    pub uri: Option<String>,
    /// New Host.
    pub authority: Option<String>,
}

/// An answer that sends the client elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redirect {
    /// New path.
    pub uri: Option<String>,
    /// New authority.
    pub authority: Option<String>,
    /// New scheme.
    pub scheme: Option<String>,
    /// 301, 302, 303, 307 or 308.
    pub status: u16,
}

/// What happens to a matched request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// Sent to one of these, by weight.
    Forward(Vec<Destination>),
    /// Redirected.
    Redirect(Redirect),
    /// Answered here.
    Respond {
        /// Status.
        status: u16,
        /// Body.
        body: String,
    },
}

/// One rule of a virtual host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpRoute {
    /// Name for logs: the route's own, or `OBJECT.NAMESPACE#INDEX`.
    pub name: String,
    /// Any of these; empty matches everything.
    pub matches: Vec<HttpMatch>,
    /// What to do.
    pub action: Action,
    /// Faults.
    pub fault: Option<Fault>,
    /// Whole time allowed, milliseconds; `None` is the mesh default, `Some(0)` none.
    pub timeout_ms: Option<u64>,
    /// Retries.
    pub retry: Retry,
    /// Target changes.
    pub rewrite: Option<Rewrite>,
    /// Header changes.
    pub headers: HeaderOps,
}

/// A rule for opaque connections.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TcpRoute {
    /// Service port; `None` is every port.
    pub port: Option<u16>,
    /// Sent to one of these, by weight.
    pub destinations: Vec<Destination>,
}

/// Routing of some hosts: a VirtualService as this sidecar sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VirtualHost {
    /// `NAME.NAMESPACE` of the object.
    pub name: String,
    /// Hosts, lower case, no port: exact, `*.suffix`, or `*`.
    pub hosts: Vec<String>,
    /// HTTP rules, first match wins; none matching is 404.
    pub http: Vec<HttpRoute>,
    /// TCP rules, first match wins.
    pub tcp: Vec<TcpRoute>,
}

impl Validate for VirtualHost {
    fn validate(&self) -> Result<(), WireError> {
        let invalid = |why: &str| Err(WireError::Invalid(format!("routes {}: {why}", self.name)));
        if self.hosts.is_empty() {
            return invalid("no hosts");
        }
        let forwards = self.http.iter().filter_map(|route| match &route.action {
            Action::Forward(to) => Some(to),
            Action::Redirect(_) | Action::Respond { .. } => None,
        });
        for to in forwards.chain(self.tcp.iter().map(|route| &route.destinations)) {
            if to.is_empty() || to.iter().any(|d| d.weight == 0) {
                return invalid("a route has no destination, or one of weight 0");
            }
        }
        for route in &self.http {
            let shares = route.fault.iter().flat_map(|f| {
                [
                    f.delay.as_ref().map(|d| d.per_million),
                    f.abort.as_ref().map(|a| a.per_million),
                ]
            });
            if shares.flatten().any(|share| share > 1_000_000) {
                return invalid("a fault's share is over 100 %");
            }
        }
        Ok(())
    }
}
