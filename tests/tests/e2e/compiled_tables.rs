//! What control compiles, a sidecar accepts and understands: the two crates never use each other,
//! so this is where their reading of a snapshot is held together.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use ringmesh_control::compile::{Mode, NodeScope, TrustView, compile};
use ringmesh_control::expr::ATTRIBUTES;
use ringmesh_control::model::{Effective, Model, RegisteredService, RegistryView};
use ringmesh_control::rules::{Object, parse};
use ringmesh_dataplane::tables::{Attribute, MapAttribute, Tables, Target, Workload};
use ringmesh_wire::v1::Snapshot;
use ringmesh_wire::v1::snapshot::{Endpoint, EndpointPort, EndpointState, Protocol, ServicePort};
use ringmesh_wire::{NodeId, Revision, ServiceId, SpiffeId};

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples")
}

fn objects(paths: &[PathBuf]) -> Vec<Object> {
    let files = paths.iter().map(|path| {
        let text = std::fs::read_to_string(path).unwrap();
        parse(&path.display().to_string(), &text).unwrap_or_else(|errors| panic!("{errors}"))
    });
    files.flatten().collect()
}

fn registry() -> RegistryView {
    let mut registry = RegistryView::default();
    for (last, (name, version)) in (1..).zip([
        ("reviews", "v1"),
        ("reviews", "v3"),
        ("ratings", "v1"),
        ("b", "v1.5"),
        ("b", "v2.0-alpha"),
    ]) {
        let identity = SpiffeId::workload("mesh.test", "default", name).unwrap();
        let service = registry
            .services
            .entry(ServiceId::new(name, "default"))
            .or_insert_with(|| RegisteredService {
                ports: vec![ServicePort {
                    number: 9080,
                    name: "http".to_owned(),
                    protocol: Protocol::Http1,
                }],
                identities: vec![identity.clone()],
                endpoints: Vec::new(),
            });
        service.endpoints.push(Endpoint {
            node: Some(NodeId(format!("{name}-{version}"))),
            address: [10, 0, 0, last].into(),
            ports: vec![EndpointPort {
                service_port: 9080,
                app_port: 9080,
            }],
            mesh_port: Some(15008),
            identity: Some(Box::new(identity)),
            labels: labels(name, version),
            region: String::new(),
            zone: String::new(),
            weight: 1,
            state: EndpointState::Ready,
        });
    }
    registry
}

fn labels(name: &str, version: &str) -> BTreeMap<String, String> {
    [("app", name), ("version", version)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn built(paths: &[PathBuf], service: &str, registry: &RegistryView, mode: Mode) -> Tables {
    let model = Model::new(Revision(1), objects(paths));
    let resolution = model.resolve(registry, &Effective::default());
    assert!(resolution.all_active(), "{:?}", resolution.statuses);
    let scope = NodeScope {
        node: NodeId("node".to_owned()),
        service: ServiceId::new(service, "default"),
        labels: labels(service, "v1"),
        ports: Vec::new(),
        mode,
    };
    let trust = TrustView {
        trust_domain: "mesh.test".to_owned(),
        ..TrustView::default()
    };
    let (snapshot, _) = compile(&resolution.effective, &scope, registry, &trust).unwrap();
    let snapshot = Snapshot::from_file(&snapshot.to_file().unwrap()).unwrap();
    let workload = Workload {
        service: scope.service,
        service_account: service.to_owned(),
        labels: scope.labels,
        ports: Vec::new(),
    };
    Tables::build(&snapshot, &workload).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn sidecars_take_every_example() {
    let rules = examples().join("rules");
    let subsets = rules.join("subsets.yaml");
    for name in [
        "canary-1pct",
        "denier-complete",
        "fault-abort",
        "fault-delay",
        "memquota",
        "quota-complete",
        "retries-3x2s",
        "timeout-10s",
    ] {
        let files = [subsets.clone(), rules.join(format!("{name}.yaml"))];
        for service in ["reviews", "ratings", "b"] {
            let tables = built(&files, service, &registry(), Mode::Mesh);
            for host in [
                "ratings",
                "ratings.default:9080",
                "RATINGS.default.svc.cluster.local",
            ] {
                let target = tables.resolve_http(host, None);
                assert!(
                    matches!(target, Target::Known(_)),
                    "{name} {host}: {target:?}"
                );
            }
        }
    }
}

#[test]
fn a_standalone_sidecar_knows_every_host() {
    let rules = examples().join("standalone/rules");
    let files = ["services", "routes", "policies", "quotas"];
    let files = files.map(|name| rules.join(format!("{name}.yaml")));
    let tables = built(
        &files,
        "standalone",
        &RegistryView::default(),
        Mode::Standalone,
    );
    for host in [
        "127.0.0.1:18080",
        "localhost",
        "any.thing:1",
        "s07.standalone.test",
    ] {
        let Target::Known(known) = tables.resolve_http(host, None) else {
            panic!("{host} is not known");
        };
        assert_eq!(known.port, 80);
        assert!(known.service.is_some() && known.virtual_host.is_some());
    }
}

#[test]
fn the_attributes_of_rules_are_those_sidecars_can_fill() {
    for (name, _) in ATTRIBUTES {
        let known = Attribute::parse(name).is_some() || MapAttribute::parse(name).is_some();
        assert!(known, "{name} is offered to rules but no sidecar fills it");
    }
}
