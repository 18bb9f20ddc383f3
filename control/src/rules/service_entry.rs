//! ServiceEntry: services without sidecars.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ringmesh_wire::v1::snapshot::ServicePort;

use super::place::At;

/// A service declared rather than registered.
#[derive(Debug, Clone)]
pub struct ServiceEntry {
    /// Hosts, lower case; each becomes a service. `*.x` and `*` allowed.
    pub hosts: Vec<At<String>>,
    /// Virtual addresses.
    pub addresses: Vec<IpAddr>,
    /// Ports, and where the endpoints listen if elsewhere.
    pub ports: Vec<EntryPort>,
    /// Endpoints.
    pub endpoints: Vec<StaticEndpoint>,
}

/// A port.
#[derive(Debug, Clone)]
pub struct EntryPort {
    /// As clients see it.
    pub port: ServicePort,
    /// `targetPort`, where given.
    pub target: Option<u16>,
}

/// An endpoint by address.
#[derive(Debug, Clone)]
pub struct StaticEndpoint {
    /// Address.
    pub address: IpAddr,
    /// Port by the name of the service port.
    pub ports: BTreeMap<String, u16>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Region and zone.
    pub locality: (String, String),
    /// Relative weight, at least 1.
    pub weight: u32,
}
