//! For whom a snapshot is made.

use std::collections::BTreeMap;

use ringmesh_wire::v1::snapshot::Protocol;
use ringmesh_wire::{NodeId, ServiceId};

/// Whether there is a control service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// There is; endpoints come from the registry.
    Mesh,
    /// There is none: static endpoints, and the namespace's policies hold for its external
    /// services too, since nothing else could enforce them.
    Standalone,
}

/// One sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeScope {
    /// Its name.
    pub node: NodeId,
    /// The service it stands beside.
    pub service: ServiceId,
    /// Labels of its workload.
    pub labels: BTreeMap<String, String>,
    /// Ports of its workload.
    pub ports: Vec<NodePort>,
    /// With or without control.
    pub mode: Mode,
}

/// A port of a workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePort {
    /// Name.
    pub name: String,
    /// Number.
    pub port: u16,
    /// Protocol.
    pub protocol: Protocol,
}

/// Whom sidecars trust.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustView {
    /// Trust domain.
    pub trust_domain: String,
    /// Root certificates (DER).
    pub roots: Vec<Vec<u8>>,
    /// Serial numbers of revoked certificates, big endian.
    pub revoked_serials: Vec<Vec<u8>>,
}
