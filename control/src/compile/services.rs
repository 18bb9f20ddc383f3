//! Services and their endpoints.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ringmesh_wire::ServiceId;
use ringmesh_wire::v1::Section;
use ringmesh_wire::v1::snapshot::{
    Body, Endpoint, EndpointPort, EndpointState, Endpoints, NamedEndpoint, Names, Service,
    ServicePort,
};

use super::merge::{Merged, merged};
use super::policy::Demands;
use super::{CompileError, assign_vips, sealed};
use crate::model::{Effective, RegistryView, Services, rules_of_service};
use crate::rules::service_entry::{ServiceEntry, Whereabouts};
use crate::rules::settings::MeshSettings;
use crate::rules::{Object, Spec};

/// Every service as all sidecars see it, but for the names that depend on where one stands.
pub(super) fn services(
    effective: &Effective,
    registry: &RegistryView,
    known: &Services<'_>,
    settings: &MeshSettings,
) -> Vec<Service> {
    let rules = rules_of_service(known, effective.objects.values().chain(&effective.held));
    let policy = |id: &ServiceId| rules.get(id).map(|rules| merged(rules)).unwrap_or_default();
    let vips = vips(registry, known, settings);
    let mut all = Vec::with_capacity(registry.services.len() + known.external.len());
    for (id, registered) in &registry.services {
        let vip = vips.get(id).copied();
        all.push(service(
            id,
            registered.ports.clone(),
            vip.into_iter().collect(),
            policy(id),
        ));
        if let Some(service) = all.last_mut() {
            service.identities.clone_from(&registered.identities);
        }
    }
    for (id, object) in &known.external {
        let Some(entry) = entry_of(object) else {
            continue;
        };
        let own = entry.addresses.clone();
        let addresses = match vips.get(id) {
            Some(vip) if own.is_empty() => vec![*vip],
            _ => own,
        };
        let ports = entry.ports.iter().map(|port| port.port.clone()).collect();
        let mut service = service(id, ports, addresses, policy(id));
        service.external = true;
        all.push(service);
    }
    all.sort_by(|a, b| a.id.cmp(&b.id));
    all
}

pub(super) fn entry_of(object: &Object) -> Option<&ServiceEntry> {
    match &object.spec {
        Spec::ServiceEntry(entry) => Some(entry),
        _ => None,
    }
}

fn vips(
    registry: &RegistryView,
    known: &Services<'_>,
    settings: &MeshSettings,
) -> BTreeMap<ServiceId, IpAddr> {
    let external = known.external.iter().filter(|(id, object)| {
        !id.name.starts_with('*') && entry_of(object).is_some_and(|e| e.addresses.is_empty())
    });
    let all = registry.services.keys().chain(external.map(|(id, _)| id));
    assign_vips(settings.vip_range, all, &registry.vips)
}

fn service(id: &ServiceId, ports: Vec<ServicePort>, vips: Vec<IpAddr>, merged: Merged) -> Service {
    Service {
        id: id.clone(),
        hosts: Vec::new(),
        vips,
        ports,
        identities: Vec::new(),
        policy: merged.policy,
        port_policies: merged.ports,
        subsets: merged.subsets,
        external: false,
    }
}

/// Every name of a service for a sidecar of `namespace`.
pub(super) fn hosts(service: &Service, namespace: &str, known: &Services<'_>) -> Vec<String> {
    let id = &service.id;
    if service.external && id.name.contains(['.', '*']) {
        // Two namespaces may declare one host; a sidecar means that of its own, else the first.
        let meant = known.find(&id.name, namespace).as_ref() == Some(id);
        return vec![if meant {
            id.name.clone()
        } else {
            id.to_string()
        }];
    }
    mesh_hosts(id, namespace)
}

/// `NAME` (in its own namespace), `NAME.NAMESPACE`, and the long forms people know.
pub(super) fn mesh_hosts(id: &ServiceId, namespace: &str) -> Vec<String> {
    let full = id.to_string();
    let mut hosts = vec![
        format!("{full}.svc"),
        format!("{full}.svc.cluster.local"),
        full,
    ];
    if id.namespace == namespace {
        hosts.push(id.name.clone());
    }
    hosts
        .iter_mut()
        .for_each(|host| host.make_ascii_lowercase());
    hosts.sort();
    hosts
}

/// The sealed endpoints of every service.
pub(super) fn endpoints(
    registry: &RegistryView,
    known: &Services<'_>,
    demands: &Demands<'_>,
) -> Result<Vec<Section>, CompileError> {
    let mut sections = Vec::new();
    for (id, registered) in &registry.services {
        let called = demands.as_called(&id.namespace, &registered.endpoints);
        sections.push(section(id, called)?);
    }
    for (id, object) in &known.external {
        if let Some(entry) = entry_of(object) {
            sections.push(section(id, static_endpoints(entry))?);
            sections.extend(names(id, entry)?);
        }
    }
    Ok(sections)
}

fn section(id: &ServiceId, endpoints: Vec<Endpoint>) -> Result<Section, CompileError> {
    let body = Body::Endpoints(Endpoints {
        service: id.clone(),
        endpoints,
    });
    sealed(&body, &id.to_string())
}

fn static_endpoints(entry: &ServiceEntry) -> Vec<Endpoint> {
    let endpoints = entry.endpoints.iter();
    endpoints
        .filter_map(|endpoint| match endpoint.at {
            Whereabouts::Address(address) => Some((endpoint, address)),
            Whereabouts::Name(_) => None,
        })
        .map(|(endpoint, address)| Endpoint {
            node: None,
            address,
            ports: endpoint_ports(entry, &endpoint.ports),
            mesh_port: None,
            identity: None,
            labels: endpoint.labels.clone(),
            region: endpoint.locality.0.clone(),
            zone: endpoint.locality.1.clone(),
            weight: endpoint.weight,
            state: EndpointState::Ready,
        })
        .collect()
}

/// The endpoints that each sidecar resolves: those given by name, or without any the host itself.
fn names(id: &ServiceId, entry: &ServiceEntry) -> Result<Option<Section>, CompileError> {
    let Some(resolution) = entry.resolution else {
        return Ok(None);
    };
    let by_name = entry.endpoints.iter();
    let mut endpoints: Vec<NamedEndpoint> = by_name
        .filter_map(|endpoint| match &endpoint.at {
            Whereabouts::Name(name) => Some((endpoint, name)),
            Whereabouts::Address(_) => None,
        })
        .map(|(endpoint, name)| NamedEndpoint {
            name: name.clone(),
            ports: endpoint_ports(entry, &endpoint.ports),
            labels: endpoint.labels.clone(),
            region: endpoint.locality.0.clone(),
            zone: endpoint.locality.1.clone(),
            weight: endpoint.weight,
        })
        .collect();
    if entry.endpoints.is_empty() {
        endpoints.push(NamedEndpoint {
            name: id.name.clone(),
            ports: endpoint_ports(entry, &BTreeMap::new()),
            labels: BTreeMap::new(),
            region: String::new(),
            zone: String::new(),
            weight: 1,
        });
    }
    if endpoints.is_empty() {
        return Ok(None);
    }
    let body = Body::Names(Names {
        service: id.clone(),
        resolution,
        endpoints,
    });
    sealed(&body, &id.to_string()).map(Some)
}

/// Where an endpoint with `own` ports by name serves the ports of its entry.
fn endpoint_ports(entry: &ServiceEntry, own: &BTreeMap<String, u16>) -> Vec<EndpointPort> {
    let ports = entry.ports.iter();
    ports
        .map(|port| EndpointPort {
            service_port: port.port.number,
            app_port: own
                .get(&port.port.name)
                .copied()
                .or(port.target)
                .unwrap_or(port.port.number),
        })
        .collect()
}
