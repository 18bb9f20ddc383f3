//! What is noted of an exchange on its way, for its one `Outcome`.

use std::net::SocketAddr;

use crate::policy::Audited;
use crate::reason::Reason;
use crate::tables::{ClusterIndex, RouteIndex, ServiceIndex};
use crate::time::Mono;

/// Filled in by the steps; read once at the end.
#[derive(Debug)]
pub(super) struct Record {
    /// When the head was complete.
    pub started: Mono,
    /// Status sent to the client; 0 if none was.
    pub status: u16,
    /// gRPC status, if the call is gRPC and one was seen or sent.
    pub grpc_status: Option<u8>,
    /// Why, if the answer was ours.
    pub reason: Reason,
    /// Policy, rule or quota that refused.
    pub policy: Option<Box<str>>,
    /// Route.
    pub route: Option<RouteIndex>,
    /// Service meant.
    pub service: Option<ServiceIndex>,
    /// Cluster chosen.
    pub cluster: Option<ClusterIndex>,
    /// Place of the endpoint in the cluster.
    pub endpoint: Option<usize>,
    /// Address of the endpoint.
    pub upstream: Option<SocketAddr>,
    /// Tries made.
    pub tries: u32,
    /// When the last try's request was sent.
    pub sent: Option<Mono>,
    /// When the final answer's head was complete.
    pub answered: Option<Mono>,
    /// Payload bytes of the request.
    pub bytes_in: u64,
    /// Payload bytes of the answer.
    pub bytes_out: u64,
    /// A fault delayed it.
    pub delayed: bool,
    /// The lane was a pooled one.
    pub reused: bool,
    /// The lane is mutual TLS.
    pub upstream_tls: bool,
    /// The destination is not the mesh's.
    pub passthrough: bool,
    /// The AUDIT policy that matched.
    pub audited: Option<Audited>,
    /// Its name, where the tables may be gone by the end: of opaque connections.
    pub audit_policy: Option<Box<str>>,
}

impl Record {
    /// A fresh one.
    #[must_use]
    pub(super) fn new(started: Mono) -> Self {
        Self {
            started,
            status: 0,
            grpc_status: None,
            reason: Reason::None,
            policy: None,
            route: None,
            service: None,
            cluster: None,
            endpoint: None,
            upstream: None,
            tries: 0,
            sent: None,
            answered: None,
            bytes_in: 0,
            bytes_out: 0,
            delayed: false,
            reused: false,
            upstream_tls: false,
            passthrough: false,
            audited: None,
            audit_policy: None,
        }
    }
}
