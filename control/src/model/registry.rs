//! What the registry knows, as plain values: services, their endpoints and identities.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ringmesh_wire::v1::snapshot::{Endpoint, ServicePort};
use ringmesh_wire::{ServiceId, SpiffeId};

/// The registered services.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegistryView {
    /// By name.
    pub services: BTreeMap<ServiceId, RegisteredService>,
    /// Virtual addresses given out before; kept as long as they fit `vip_range`. May be empty: then
    /// all are computed from the names alone.
    pub vips: BTreeMap<ServiceId, IpAddr>,
}

/// One registered service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RegisteredService {
    /// Its ports, by number.
    pub ports: Vec<ServicePort>,
    /// Identities its sidecars may show, sorted.
    pub identities: Vec<SpiffeId>,
    /// Its endpoints, in a stable order.
    pub endpoints: Vec<Endpoint>,
}
