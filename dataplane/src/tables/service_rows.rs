//! Services, clusters and endpoints.

use std::net::{IpAddr, SocketAddr};

use ringmesh_wire::snapshot::{EndpointState, ServicePort, TrafficPolicy};
use ringmesh_wire::{NodeId, ServiceId, SpiffeId};

use crate::reason::Reason;

use super::index::{ClusterIndex, ServiceIndex, VirtualHostIndex};

/// A service.
#[derive(Debug)]
pub struct ServiceRow {
    /// Its name.
    pub id: ServiceId,
    /// For logs, labels and attributes: `name.namespace`; of a host outside the mesh the host, as in Istio.
    pub name: Box<str>,
    /// Its ports.
    pub ports: Box<[ServicePort]>,
    /// Identities its servers may show, sorted.
    pub identities: Box<[SpiffeId]>,
    /// Without sidecars: policy runs at the caller's.
    pub external: bool,
    /// The virtual host of its first host that has one.
    pub virtual_host: Option<VirtualHostIndex>,
    /// Its clusters without a subset, in the order of `ports`.
    pub(super) clusters: Box<[ClusterIndex]>,
}

impl ServiceRow {
    /// The cluster of one of its ports, without a subset.
    #[must_use]
    pub fn cluster(&self, port: u16) -> Option<ClusterIndex> {
        let at = self.ports.iter().position(|p| p.number == port)?;
        self.clusters.get(at).copied()
    }

    /// A port by number.
    #[must_use]
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|p| p.number == number)
    }
}

/// Names a cluster across snapshots.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClusterKey {
    /// Service.
    pub service: ServiceId,
    /// Service port.
    pub port: u16,
    /// Subset.
    pub subset: Option<Box<str>>,
}

/// What a route points at: one port of one service, whole or a subset of it.
#[derive(Debug)]
pub struct ClusterRow {
    /// Its name across snapshots.
    pub key: ClusterKey,
    /// `name.namespace:port` or `name.namespace:port/subset`, for logs and metrics.
    pub name: Box<str>,
    /// Its service.
    pub service: ServiceIndex,
    /// The port's declaration.
    pub port: ServicePort,
    /// Merged policy.
    pub policy: TrafficPolicy,
    /// SNI towards its sidecars: `p{PORT}.{service}.{namespace}.ringmesh`.
    pub sni: Box<str>,
    /// Usable endpoints.
    pub endpoints: Box<[EndpointRow]>,
    /// Some of its endpoints are known by a name that leads nowhere yet.
    pub unresolved: bool,
}

impl ClusterRow {
    /// Why there is nobody to send to, where there is nobody.
    #[must_use]
    pub fn nobody(&self) -> Reason {
        match self.unresolved {
            true => Reason::NameUnresolved,
            false => Reason::NoEndpoint,
        }
    }

    /// Whether its connections are counted.
    #[must_use]
    pub fn limits_connections(&self) -> bool {
        self.policy.limits.connections_max != u32::MAX
    }

    /// Whether its connections or those who wait for one are counted.
    #[must_use]
    pub fn limits_connecting(&self) -> bool {
        self.limits_connections() || self.policy.limits.pending_max != u32::MAX
    }
}

/// How an endpoint is reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Link {
    /// Plaintext to the app (or whatever listens there).
    Plain(SocketAddr),
    /// Mutual TLS to the sidecar's mesh port.
    Mesh(SocketAddr),
    /// Plaintext to the local app in a client's name (TPROXY): a connection that serves nobody else.
    Client {
        /// The app, where the client called it.
        app: SocketAddr,
        /// Whom the app sees.
        client: IpAddr,
    },
}

impl Link {
    /// The address to connect to.
    #[must_use]
    pub fn address(self) -> SocketAddr {
        match self {
            Self::Plain(address) | Self::Mesh(address) | Self::Client { app: address, .. } => {
                address
            }
        }
    }
}

/// An endpoint of a cluster.
#[derive(Debug)]
pub struct EndpointRow {
    /// How it is reached under the cluster's TLS policy.
    pub link: Link,
    /// Address and app port: its name across snapshots, and what logs show.
    pub address: SocketAddr,
    /// Where it is one endpoint of many addresses (Istio's DNS_ROUND_ROBIN): they, in the order in which a new
    /// connection tries them, at most [`EndpointRow::AMONG_MAX`]. Else empty, and `link` says where.
    pub among: Box<[SocketAddr]>,
    /// The sidecar beside it.
    pub node: Option<NodeId>,
    /// Identity its sidecar must show.
    pub identity: Option<SpiffeId>,
    /// Label `version`, may be empty.
    pub version: Box<str>,
    /// Zone, may be empty.
    pub zone: Box<str>,
    /// Relative weight, at least 1.
    pub weight: u32,
    /// How sure control is.
    pub state: EndpointState,
}

impl EndpointRow {
    /// Addresses one connection tries at most. A name with more has a fault elsewhere if none of these
    /// answers.
    pub const AMONG_MAX: usize = 8;

    /// Every address a new connection may go to.
    pub fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let only = self.among.is_empty().then(|| self.link.address());
        only.into_iter().chain(self.among.iter().copied())
    }
}
