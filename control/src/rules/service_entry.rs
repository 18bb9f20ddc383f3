//! ServiceEntry: services without sidecars.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ringmesh_wire::v1::snapshot::{Resolution, ServicePort};

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
    /// What the addresses of names are; `None` is STATIC, where there are no names.
    pub resolution: Option<Resolution>,
    /// Endpoints. None but with a resolution: then each host is its own.
    pub endpoints: Vec<EntryEndpoint>,
}

/// A port.
#[derive(Debug, Clone)]
pub struct EntryPort {
    /// As clients see it.
    pub port: ServicePort,
    /// `targetPort`, where given.
    pub target: Option<u16>,
}

/// Where an endpoint is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Whereabouts {
    /// At an address.
    Address(IpAddr),
    /// Where a name leads, lower case; each sidecar resolves it.
    Name(String),
}

/// An endpoint.
#[derive(Debug, Clone)]
pub struct EntryEndpoint {
    /// Address or name.
    pub at: Whereabouts,
    /// Port by the name of the service port.
    pub ports: BTreeMap<String, u16>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Region and zone.
    pub locality: (String, String),
    /// Relative weight, at least 1.
    pub weight: u32,
}
