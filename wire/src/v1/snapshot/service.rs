//! Services, their endpoints and how to talk to them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::codec::Validate;
use crate::error::WireError;
use crate::ids::{NodeId, ServiceId};
use crate::spiffe::SpiffeId;

/// Application protocol of a port, by declaration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Protocol {
    /// Not declared: decided by looking.
    Auto,
    /// HTTP/1.x.
    Http1,
    /// HTTP/2 in clear text by prior knowledge.
    Http2,
    /// gRPC over HTTP/2.
    Grpc,
    /// Opaque bytes.
    Tcp,
    /// TLS of the app's own, passed through.
    Tls,
}

impl Protocol {
    /// Whether requests of this protocol are looked into.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http1 | Self::Http2 | Self::Grpc)
    }
}

/// A port of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServicePort {
    /// Number clients use.
    pub number: u16,
    /// Name, e.g. `http`.
    pub name: String,
    /// Protocol.
    pub protocol: Protocol,
}

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Balance {
    /// Two random ready endpoints, the one with fewer active requests (LEAST_CONN is its old name).
    LeastRequest,
    /// In turn.
    RoundRobin,
    /// By chance.
    Random,
    /// Where the app meant to go.
    Passthrough,
}

/// Circuit-breaker limits (Istio connectionPool); `u32::MAX` is "none".
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// TCP connections (`tcp.maxConnections`).
    pub connections_max: u32,
    /// Requests that wait for a connection (`http.http1MaxPendingRequests`).
    pub pending_max: u32,
    /// Requests under way (`http.http2MaxRequests`).
    pub requests_max: u32,
    /// Requests on one connection before it is closed (`http.maxRequestsPerConnection`).
    pub requests_per_connection_max: u32,
    /// Retries under way (`http.maxRetries`).
    pub retries_max: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: u32::MAX,
            pending_max: u32::MAX,
            requests_max: u32::MAX,
            requests_per_connection_max: u32::MAX,
            retries_max: u32::MAX,
        }
    }
}

/// Passive health (Istio outlierDetection). A count of 0 switches its
/// condition off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outlier {
    /// 5xx answers or local failures in a row.
    pub consecutive_5xx: u32,
    /// 502, 503, 504 or local failures in a row.
    pub consecutive_gateway: u32,
    /// Local failures in a row, where `split_local` is set.
    pub consecutive_local: u32,
    /// Local failures count apart from answers.
    pub split_local: bool,
    /// How often ejected endpoints are looked at, milliseconds.
    pub interval_ms: u64,
    /// Length of the first ejection, milliseconds; multiplied by how often in a row.
    pub base_ejection_ms: u64,
    /// Share of endpoints that may be out at once, percent.
    pub ejection_percent_max: u8,
    /// Below this share of healthy endpoints health is ignored, percent; 0 is never.
    pub min_health_percent: u8,
}

/// TLS towards the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum UpstreamTls {
    /// Mutual TLS exactly when the endpoint has a sidecar.
    Auto,
    /// Plaintext.
    Disable,
    /// Mutual TLS; endpoints without a sidecar are unusable (Istio ISTIO_MUTUAL).
    Mesh,
}

/// Traffic policy, already merged (DestinationRule).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficPolicy {
    /// Balancing.
    pub balance: Balance,
    /// Time to connect, milliseconds (default 10,000).
    pub connect_timeout_ms: u64,
    /// A pooled connection without a request is closed after this, milliseconds (default 1 h).
    pub idle_timeout_ms: u64,
    /// Limits.
    pub limits: Limits,
    /// Passive health.
    pub outlier: Option<Outlier>,
    /// TLS.
    pub tls: UpstreamTls,
}

impl Default for TrafficPolicy {
    fn default() -> Self {
        Self {
            balance: Balance::LeastRequest,
            connect_timeout_ms: 10_000,
            idle_timeout_ms: 3_600_000,
            limits: Limits::default(),
            outlier: None,
            tls: UpstreamTls::Auto,
        }
    }
}

/// A labelled slice of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subset {
    /// Name routes use.
    pub name: String,
    /// An endpoint belongs to it when all of these are equal.
    pub labels: BTreeMap<String, String>,
    /// Policy of the subset, merged.
    pub policy: TrafficPolicy,
    /// Policies of single ports, merged.
    pub port_policies: Vec<(u16, TrafficPolicy)>,
}

/// A service as callers see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub id: ServiceId,
    /// Every name a request of this sidecar's app may use, lower case, no port; `*.x` and `*`
    /// allowed for external services.
    pub hosts: Vec<String>,
    /// Virtual addresses.
    pub vips: Vec<IpAddr>,
    /// Ports.
    pub ports: Vec<ServicePort>,
    /// Identities its endpoints may show (secure naming). Empty for external services.
    pub identities: Vec<SpiffeId>,
    /// Policy where no subset is named, merged.
    pub policy: TrafficPolicy,
    /// Policies of single ports, merged.
    pub port_policies: Vec<(u16, TrafficPolicy)>,
    /// Subsets.
    pub subsets: Vec<Subset>,
    /// Declared by a ServiceEntry rather than registered by a sidecar: authorization and quota
    /// run at the caller's.
    pub external: bool,
}

/// How sure control is of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum EndpointState {
    /// Registered by a live lease, or static.
    Ready,
    /// From before a control restart; not yet confirmed.
    Unconfirmed,
    /// Its lease ended, but it is the service's last: used only if nothing else is left.
    LastKnown,
}

/// Where one service port is found on an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointPort {
    /// Port of the service.
    pub service_port: u16,
    /// Port of the app at this endpoint.
    pub app_port: u16,
}

/// One instance of a service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The sidecar beside it; `None` without one.
    pub node: Option<NodeId>,
    /// Its address.
    pub address: IpAddr,
    /// Its ports.
    pub ports: Vec<EndpointPort>,
    /// Port of its sidecar for mutual TLS; `None` without one.
    pub mesh_port: Option<u16>,
    /// Identity its sidecar must show.
    pub identity: Option<SpiffeId>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Region, may be empty.
    pub region: String,
    /// Zone, may be empty.
    pub zone: String,
    /// Relative weight, at least 1.
    pub weight: u32,
    /// How sure control is.
    pub state: EndpointState,
}

/// All endpoints of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Which service.
    pub service: ServiceId,
    /// They.
    pub endpoints: Vec<Endpoint>,
}

impl Validate for Service {
    fn validate(&self) -> Result<(), WireError> {
        self.id.validate()?;
        if self.hosts.is_empty() {
            return Err(WireError::Invalid(format!("service {}: no hosts", self.id)));
        }
        self.identities.iter().try_for_each(Validate::validate)
    }
}

impl Validate for Endpoints {
    fn validate(&self) -> Result<(), WireError> {
        self.service.validate()?;
        for endpoint in &self.endpoints {
            if endpoint.weight == 0 {
                return Err(WireError::Invalid(format!(
                    "endpoints of {}: {} has weight 0",
                    self.service, endpoint.address
                )));
            }
            endpoint.node.as_ref().map_or(Ok(()), Validate::validate)?;
            endpoint
                .identity
                .as_ref()
                .map_or(Ok(()), Validate::validate)?;
        }
        Ok(())
    }
}
