//! One exchange, as logs and metrics see it.

use std::net::SocketAddr;

use ringmesh_wire::ServiceId;

use super::recent::Names;
use crate::reason::Reason;
use crate::view::PeerIdentity;

/// Relative to the local workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// A call of the local app.
    Outbound,
    /// A call to the local app.
    Inbound,
}

impl Direction {
    /// For logs and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Outbound => "outbound",
            Self::Inbound => "inbound",
        }
    }
}

/// What was carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// HTTP/1.x.
    Http1,
    /// HTTP/2.
    Http2,
    /// gRPC.
    Grpc,
    /// Opaque bytes: one outcome per connection.
    Tcp,
}

impl Transport {
    /// For logs and labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
        }
    }
}

/// Source or destination. Empty strings where something is not known. A service's name is in one piece or in
/// two; the services that are called have it in one, which for a host outside the mesh is the host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Party<'a> {
    /// Service name, or all of it.
    pub service: &'a str,
    /// Its namespace; empty where the name is whole.
    pub namespace: &'a str,
    /// Label `version`.
    pub version: &'a str,
}

impl<'a> Party<'a> {
    /// A service, perhaps with the version of one of its workloads.
    #[must_use]
    pub fn of(service: &'a ServiceId, version: &'a str) -> Self {
        Self {
            service: &service.name,
            namespace: &service.namespace,
            version,
        }
    }

    /// A service that is called, by its whole name.
    #[must_use]
    pub fn called(name: &'a str, version: &'a str) -> Self {
        Self {
            service: name,
            namespace: "",
            version,
        }
    }

    /// A caller, as far as it proved itself.
    #[must_use]
    pub fn peer(identity: Option<&'a PeerIdentity>) -> Self {
        identity.map_or_else(Self::default, |peer| {
            let version = peer.labels.get("version").map_or("", String::as_str);
            Self::of(&peer.service, version)
        })
    }
}

/// Yes-or-no facts of an exchange.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flags {
    /// The downstream connection is mutual TLS.
    pub downstream_tls: bool,
    /// The upstream connection is mutual TLS.
    pub upstream_tls: bool,
    /// The upstream connection was a pooled one.
    pub reused: bool,
    /// A delay was injected.
    pub delayed: bool,
    /// The destination is not the mesh's (ALLOW_ANY).
    pub passthrough: bool,
}

/// Exactly one per exchange. Everything is borrowed and copied once, into the counters and the log.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// Relative to the local workload.
    pub direction: Direction,
    /// What was carried.
    pub transport: Transport,
    /// What the names below come from, where that can be told.
    pub names: Option<Names>,
    /// Who called.
    pub source: Party<'a>,
    /// Who was called.
    pub destination: Party<'a>,
    /// Route by name; empty if none was chosen.
    pub route: &'a str,
    /// Cluster by name; empty if none was chosen.
    pub cluster: &'a str,
    /// Endpoint of the last try.
    pub endpoint: Option<SocketAddr>,
    /// Address of the downstream peer.
    pub peer_address: Option<SocketAddr>,
    /// Principal of the downstream peer, without `spiffe://`.
    pub peer_principal: &'a str,
    /// Method; empty for opaque connections.
    pub method: &'a str,
    /// Host as sent.
    pub authority: &'a str,
    /// Path as sent, with or without query as the caller decides.
    pub path: &'a str,
    /// Status sent downstream; 0 if none was (opaque, or the client was gone).
    pub status: u16,
    /// gRPC status, if one was seen.
    pub grpc_status: Option<u8>,
    /// Why, if the mesh itself ended it.
    pub reason: Reason,
    /// Policy, rule or quota that refused; empty otherwise.
    pub policy: &'a str,
    /// Bytes from downstream, body only for requests.
    pub bytes_in: u64,
    /// Bytes to downstream, body only for responses.
    pub bytes_out: u64,
    /// Wall clock at the start, microseconds since 1970.
    pub start_unix_us: u64,
    /// From request head to the end of the response, microseconds.
    pub total_us: u64,
    /// From the last try's first byte upstream to its response head, microseconds.
    pub upstream_us: Option<u64>,
    /// Waiting for a connection, microseconds.
    pub queue_us: u64,
    /// Tries made upstream.
    pub attempts: u32,
    /// `x-request-id`.
    pub request_id: &'a str,
    /// The first AUDIT policy that matched, and its first rule that did, counted from 0.
    pub audited: Option<(&'a str, u32)>,
    /// Yes-or-no facts.
    pub flags: Flags,
}

impl Outcome<'_> {
    /// One of which nothing is known yet; fill in what is.
    #[must_use]
    pub fn new(direction: Direction, transport: Transport) -> Self {
        Self {
            direction,
            transport,
            names: None,
            source: Party::default(),
            destination: Party::default(),
            route: "",
            cluster: "",
            endpoint: None,
            peer_address: None,
            peer_principal: "",
            method: "",
            authority: "",
            path: "",
            status: 0,
            grpc_status: None,
            reason: Reason::None,
            policy: "",
            bytes_in: 0,
            bytes_out: 0,
            start_unix_us: 0,
            total_us: 0,
            upstream_us: None,
            queue_us: 0,
            attempts: 0,
            request_id: "",
            audited: None,
            flags: Flags::default(),
        }
    }
}
