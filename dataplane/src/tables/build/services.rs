//! Services x ports x subsets = clusters, with their endpoints and addresses.

use std::collections::HashMap;
use std::net::SocketAddr;

use ringmesh_wire::ServiceId;
use ringmesh_wire::snapshot::{
    Endpoint, Endpoints, Service, ServicePort, Subset, TrafficPolicy, UpstreamTls,
};

use crate::tables::error::TablesError;
use crate::tables::index::{ClusterIndex, ServiceIndex};
use crate::tables::resolve::AddressEntry;
use crate::tables::seeded::SeededMap;
use crate::tables::service_rows::{ClusterKey, ClusterRow, EndpointRow, Link, ServiceRow};
use crate::tables::text::normal_ip;

pub(super) struct Services {
    pub(super) rows: Vec<ServiceRow>,
    pub(super) clusters: Vec<ClusterRow>,
    pub(super) by_id: HashMap<ServiceId, ServiceIndex>,
    pub(super) clusters_by_key: HashMap<ClusterKey, ClusterIndex>,
    pub(super) addresses: SeededMap<SocketAddr, AddressEntry>,
}

pub(super) fn build(
    services: &[Service],
    endpoints: &HashMap<ServiceId, Endpoints>,
) -> Result<Services, TablesError> {
    let mut built = Services {
        rows: Vec::with_capacity(services.len()),
        clusters: Vec::new(),
        by_id: HashMap::with_capacity(services.len()),
        clusters_by_key: HashMap::new(),
        addresses: SeededMap::default(),
    };
    for (at, service) in services.iter().enumerate() {
        built.by_id.insert(service.id.clone(), ServiceIndex::of(at));
    }
    if let Some(orphan) = endpoints.keys().find(|id| !built.by_id.contains_key(id)) {
        return Err(TablesError::missing(
            format!("endpoints of {orphan}"),
            format!("service {orphan}"),
        ));
    }
    for (at, service) in services.iter().enumerate() {
        let endpoints = endpoints
            .get(&service.id)
            .map_or(&[][..], |section| &section.endpoints);
        built.add(ServiceIndex::of(at), service, endpoints);
    }
    // Virtual addresses first, whichever service comes first: they are the names' own.
    for (at, service) in services.iter().enumerate() {
        built.add_addresses(service, ServiceIndex::of(at));
    }
    for (at, service) in services.iter().enumerate() {
        let endpoints = endpoints
            .get(&service.id)
            .map_or(&[][..], |section| &section.endpoints);
        built.add_endpoint_addresses(endpoints, ServiceIndex::of(at));
    }
    Ok(built)
}

impl Services {
    fn add(&mut self, index: ServiceIndex, service: &Service, endpoints: &[Endpoint]) {
        let mut whole = Vec::with_capacity(service.ports.len());
        for port in &service.ports {
            let policy = policy_of(&service.policy, &service.port_policies, port.number);
            whole.push(self.add_cluster(index, service, port, None, policy, endpoints));
        }
        for subset in &service.subsets {
            for port in &service.ports {
                let policy = policy_of(&subset.policy, &subset.port_policies, port.number);
                self.add_cluster(index, service, port, Some(subset), policy, endpoints);
            }
        }
        let mut identities = service.identities.clone();
        identities.sort_unstable();
        self.rows.push(ServiceRow {
            id: service.id.clone(),
            name: service.id.to_string().into(),
            ports: service.ports.clone().into(),
            identities: identities.into(),
            external: service.external,
            virtual_host: None,
            clusters: whole.into(),
        });
    }

    fn add_cluster(
        &mut self,
        index: ServiceIndex,
        service: &Service,
        port: &ServicePort,
        subset: Option<&Subset>,
        policy: TrafficPolicy,
        endpoints: &[Endpoint],
    ) -> ClusterIndex {
        let at = ClusterIndex::of(self.clusters.len());
        let key = ClusterKey {
            service: service.id.clone(),
            port: port.number,
            subset: subset.map(|s| s.name.as_str().into()),
        };
        let name = match subset {
            Some(subset) => format!("{}:{}/{}", service.id, port.number, subset.name),
            None => format!("{}:{}", service.id, port.number),
        };
        let endpoints = endpoints
            .iter()
            .filter(|e| subset.is_none_or(|s| is_in(s, e)))
            .filter_map(|e| endpoint_row(e, port.number, policy.tls));
        self.clusters.push(ClusterRow {
            name: name.into(),
            service: index,
            port: port.clone(),
            sni: format!("p{}.{}.ringmesh", port.number, service.id).into(),
            endpoints: endpoints.collect(),
            policy,
            key: key.clone(),
        });
        self.clusters_by_key.insert(key, at);
        at
    }

    fn add_addresses(&mut self, service: &Service, index: ServiceIndex) {
        for (vip, port) in service
            .vips
            .iter()
            .flat_map(|vip| service.ports.iter().map(move |port| (vip, port)))
        {
            let address = SocketAddr::new(normal_ip(*vip), port.number);
            self.addresses.entry(address).or_insert(AddressEntry {
                service: index,
                port: port.number,
                endpoint: false,
            });
        }
    }

    fn add_endpoint_addresses(&mut self, endpoints: &[Endpoint], index: ServiceIndex) {
        for (endpoint, port) in endpoints
            .iter()
            .flat_map(|e| e.ports.iter().map(move |port| (e, port)))
        {
            let address = SocketAddr::new(normal_ip(endpoint.address), port.app_port);
            self.addresses.entry(address).or_insert(AddressEntry {
                service: index,
                port: port.service_port,
                endpoint: true,
            });
        }
    }
}

fn policy_of(whole: &TrafficPolicy, ports: &[(u16, TrafficPolicy)], port: u16) -> TrafficPolicy {
    let own = ports.iter().find(|(number, _)| *number == port);
    own.map_or(whole, |(_, policy)| policy).clone()
}

/// Equality on all labels (SEMANTICS 3.2).
fn is_in(subset: &Subset, endpoint: &Endpoint) -> bool {
    subset
        .labels
        .iter()
        .all(|(key, value)| endpoint.labels.get(key) == Some(value))
}

/// The endpoint's row for one port; `None` where it does not serve it, or cannot under this TLS
/// mode.
fn endpoint_row(endpoint: &Endpoint, port: u16, tls: UpstreamTls) -> Option<EndpointRow> {
    let served = endpoint.ports.iter().find(|p| p.service_port == port)?;
    let ip = normal_ip(endpoint.address);
    let address = SocketAddr::new(ip, served.app_port);
    let mesh = endpoint.mesh_port.map(|port| SocketAddr::new(ip, port));
    let link = match (tls, mesh) {
        (UpstreamTls::Auto | UpstreamTls::Mesh, Some(mesh)) => Link::Mesh(mesh),
        (UpstreamTls::Mesh, None) => return None,
        (UpstreamTls::Auto, None) | (UpstreamTls::Disable, _) => Link::Plain(address),
    };
    Some(EndpointRow {
        link,
        address,
        node: endpoint.node.clone(),
        identity: endpoint.identity.clone(),
        version: endpoint
            .labels
            .get("version")
            .map_or("", String::as_str)
            .into(),
        zone: endpoint.zone.as_str().into(),
        weight: endpoint.weight,
        state: endpoint.state,
    })
}
