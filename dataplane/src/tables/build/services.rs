//! Services x ports x subsets = clusters, with their endpoints and addresses.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use ringmesh_wire::ServiceId;
use ringmesh_wire::ids::short_form;
use ringmesh_wire::snapshot::{
    Endpoint, EndpointState, Endpoints, NamedEndpoint, Names, Resolution, Service, ServicePort,
    Subset, TrafficPolicy, UpstreamTls,
};

use crate::tables::answers::{Answers, on_port};
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

/// An endpoint of a service, before it is looked at by port.
struct Known<'s> {
    endpoint: Cow<'s, Endpoint>,
    /// All addresses of its name where they are one endpoint, else empty.
    among: &'s [IpAddr],
}

/// The endpoints of one service.
struct AllKnown<'s> {
    all: Vec<Known<'s>>,
    /// Some of them are known by name.
    named: bool,
    /// A name leads nowhere yet.
    unresolved: bool,
}

pub(super) fn build(
    services: &[Service],
    endpoints: &HashMap<ServiceId, Endpoints>,
    names: &HashMap<ServiceId, Names>,
    answers: &Answers,
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
    let mut with_endpoints = endpoints.keys().chain(names.keys());
    if let Some(orphan) = with_endpoints.find(|id| !built.by_id.contains_key(id)) {
        return Err(TablesError::missing(
            format!("endpoints of {orphan}"),
            format!("service {orphan}"),
        ));
    }
    let known: Vec<AllKnown<'_>> = services
        .iter()
        .map(|service| known(endpoints.get(&service.id), names.get(&service.id), answers))
        .collect();
    for (at, (service, known)) in services.iter().zip(&known).enumerate() {
        built.add(ServiceIndex::of(at), service, known);
    }
    // Virtual addresses first, whichever service comes first: they are the names' own.
    for (at, service) in services.iter().enumerate() {
        built.add_addresses(service, ServiceIndex::of(at));
    }
    for (at, known) in known.iter().enumerate() {
        built.add_endpoint_addresses(&known.all, ServiceIndex::of(at));
    }
    Ok(built)
}

/// What the snapshot says by address, and what its names lead to.
fn known<'s>(
    endpoints: Option<&'s Endpoints>,
    names: Option<&Names>,
    answers: &'s Answers,
) -> AllKnown<'s> {
    let by_address = endpoints.map_or(&[][..], |section| &section.endpoints);
    let mut known = AllKnown {
        all: by_address
            .iter()
            .map(|endpoint| Known {
                endpoint: Cow::Borrowed(endpoint),
                among: &[],
            })
            .collect(),
        named: names.is_some(),
        unresolved: false,
    };
    for (names, named) in names
        .into_iter()
        .flat_map(|n| n.endpoints.iter().map(move |e| (n, e)))
    {
        let Some(addresses) = answers.of(&named.name) else {
            known.unresolved = true;
            continue;
        };
        match names.resolution {
            Resolution::Each => {
                // In an order of its own: servers like to turn theirs with every answer.
                let mut list = addresses.list.clone();
                list.sort_unstable();
                known.all.extend(list.into_iter().map(|address| Known {
                    endpoint: Cow::Owned(resolved(named, address)),
                    among: &[],
                }));
            }
            Resolution::One => known.all.push(Known {
                endpoint: Cow::Owned(resolved(named, addresses.anchor)),
                among: &addresses.list,
            }),
        }
    }
    known
}

/// The endpoint that `named` is at one of its addresses.
fn resolved(named: &NamedEndpoint, address: IpAddr) -> Endpoint {
    Endpoint {
        node: None,
        address,
        ports: named.ports.clone(),
        mesh_port: None,
        identity: None,
        labels: named.labels.clone(),
        region: named.region.clone(),
        zone: named.zone.clone(),
        weight: named.weight,
        state: EndpointState::Ready,
    }
}

/// What logs, labels and attributes call a service.
fn name_of(service: &Service) -> Box<str> {
    let name = &service.id.name;
    // A ServiceEntry may also declare a host of the mesh: `ratings`, or its long name.
    match service.external && name.contains(['.', '*']) {
        true => short_form(name).unwrap_or(name).into(),
        false => service.id.to_string().into(),
    }
}

impl Services {
    fn add(&mut self, index: ServiceIndex, service: &Service, endpoints: &AllKnown<'_>) {
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
            name: name_of(service),
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
        known: &AllKnown<'_>,
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
        let fitting = known
            .all
            .iter()
            .filter(|known| subset.is_none_or(|s| is_in(s, &known.endpoint)));
        let mut endpoints: Vec<EndpointRow> = fitting
            .filter_map(|known| endpoint_row(known, port.number, policy.tls))
            .collect();
        if known.named {
            // Two names may lead to one address, and an endpoint's address is its name.
            let mut seen = HashSet::new();
            endpoints.retain(|row| seen.insert(row.address));
        }
        self.clusters.push(ClusterRow {
            name: name.into(),
            service: index,
            port: port.clone(),
            sni: format!("p{}.{}.ringmesh", port.number, service.id).into(),
            endpoints: endpoints.into(),
            unresolved: known.unresolved,
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

    fn add_endpoint_addresses(&mut self, known: &[Known<'_>], index: ServiceIndex) {
        for (known, port) in known
            .iter()
            .flat_map(|known| known.endpoint.ports.iter().map(move |port| (known, port)))
        {
            // Where they are one endpoint, whoever dials one of them means it whole.
            let (own, endpoint) = match known.among {
                [] => (std::slice::from_ref(&known.endpoint.address), true),
                among => (among, false),
            };
            for address in on_port(own, port.app_port) {
                self.addresses.entry(address).or_insert(AddressEntry {
                    service: index,
                    port: port.service_port,
                    endpoint,
                });
            }
        }
    }
}

fn policy_of(whole: &TrafficPolicy, ports: &[(u16, TrafficPolicy)], port: u16) -> TrafficPolicy {
    let own = ports.iter().find(|(number, _)| *number == port);
    own.map_or(whole, |(_, policy)| policy).clone()
}

/// Equality on all labels.
fn is_in(subset: &Subset, endpoint: &Endpoint) -> bool {
    subset
        .labels
        .iter()
        .all(|(key, value)| endpoint.labels.get(key) == Some(value))
}

/// The endpoint's row for one port; `None` where it does not serve it, or cannot under this TLS
/// mode.
fn endpoint_row(known: &Known<'_>, port: u16, tls: UpstreamTls) -> Option<EndpointRow> {
    let endpoint = &*known.endpoint;
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
        among: on_port(
            known
                .among
                .get(..EndpointRow::AMONG_MAX)
                .unwrap_or(known.among),
            served.app_port,
        ),
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
