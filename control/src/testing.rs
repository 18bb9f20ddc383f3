//! A small mesh for tests: the registry of the demo and the users' own files.

use std::collections::BTreeMap;

use ringmesh_wire::v1::snapshot::{Endpoint, EndpointPort, EndpointState, Protocol, ServicePort};
use ringmesh_wire::{NodeId, Revision, ServiceId, SpiffeId};

use crate::compile::{Mode, NodePort, NodeScope, TrustView};
use crate::model::{Model, RegisteredService, RegistryView};
use crate::rules::{Object, parse};

/// A file of examples/rules.
pub(crate) fn example(name: &str) -> Vec<Object> {
    let path = format!("{}/../examples/rules/{name}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap();
    parse(name, &text).unwrap_or_else(|errors| panic!("{errors}"))
}

pub(crate) fn objects(text: &str) -> Vec<Object> {
    parse("f.yaml", text).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

pub(crate) fn model(revision: u64, objects: impl IntoIterator<Item = Object>) -> Model {
    Model::new(Revision(revision), objects)
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

/// Workloads: service, version, number of instances.
const WORKLOADS: [(&str, &str, u8); 8] = [
    ("productpage", "v1", 1),
    ("details", "v1", 1),
    ("reviews", "v1", 1),
    ("reviews", "v2", 1),
    ("reviews", "v3", 1),
    ("ratings", "v1", 2),
    ("b", "v1.5", 1),
    ("b", "v2.0-alpha", 1),
];

pub(crate) fn registry() -> RegistryView {
    let mut registry = RegistryView::default();
    let mut last = 0;
    for (name, version, instances) in WORKLOADS {
        let id = ServiceId::new(name, "default");
        let identity = SpiffeId::workload("mesh.test", "default", name).unwrap();
        let service = registry
            .services
            .entry(id)
            .or_insert_with(|| RegisteredService {
                ports: vec![ServicePort {
                    number: 9080,
                    name: "http".to_owned(),
                    protocol: Protocol::Http1,
                }],
                identities: vec![identity.clone()],
                endpoints: Vec::new(),
            });
        for instance in 1..=instances {
            last += 1;
            service.endpoints.push(Endpoint {
                node: Some(NodeId(format!("{name}-{version}-{instance}"))),
                address: [10, 0, 0, last].into(),
                ports: vec![EndpointPort {
                    service_port: 9080,
                    app_port: 9080,
                }],
                mesh_port: Some(15008),
                identity: Some(identity.clone()),
                labels: labels(&[("app", name), ("version", version)]),
                region: String::new(),
                zone: String::new(),
                weight: 1,
                state: EndpointState::Ready,
            });
        }
    }
    registry
}

pub(crate) fn node(service: &str, version: &str) -> NodeScope {
    NodeScope {
        node: NodeId(format!("{service}-{version}-1")),
        service: ServiceId::new(service, "default"),
        labels: labels(&[("app", service), ("version", version)]),
        ports: vec![NodePort {
            name: "http".to_owned(),
            port: 9080,
            protocol: Protocol::Http1,
        }],
        mode: Mode::Mesh,
    }
}

pub(crate) fn trust() -> TrustView {
    TrustView {
        trust_domain: "mesh.test".to_owned(),
        roots: vec![vec![1, 2, 3]],
        revoked_serials: Vec::new(),
    }
}
