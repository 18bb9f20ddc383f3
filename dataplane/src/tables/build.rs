//! Snapshot to tables: every reference resolved, every pattern compiled.

mod policies;
mod routes;
mod services;

pub(crate) use policies::of_grpc;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};

use ringmesh_wire::snapshot::{
    Applies, Body, Endpoints, Mesh, MtlsMode, Names, Policy, QuotaRule, Service, Trust, VirtualHost,
};
use ringmesh_wire::{ServiceId, Snapshot, SpiffeId};

use super::answers::Answers;
use super::error::TablesError;
use super::hosts::HostIndex;
use super::index::{ServiceIndex, VirtualHostIndex};
use super::policy_rows::Site;
use super::service_rows::ServiceRow;
use super::workload::Workload;
use super::{Generation, Tables};
use crate::view::PeerIdentity;

/// Sections by kind, decoded.
struct Opened {
    mesh: Mesh,
    trust: Trust,
    services: Vec<Service>,
    endpoints: HashMap<ServiceId, Endpoints>,
    names: HashMap<ServiceId, Names>,
    virtual_hosts: Vec<VirtualHost>,
    policy: Policy,
    quotas: Vec<QuotaRule>,
}

fn open(snapshot: &Snapshot) -> Result<Opened, TablesError> {
    let mut mesh = None;
    let mut rest = Opened {
        mesh: Mesh {
            trust_domain: String::new(),
            default_timeout_ms: 0,
            outbound: ringmesh_wire::snapshot::OutboundMode::RegistryOnly,
            on_quota_unavailable: ringmesh_wire::snapshot::OnQuotaUnavailable::Deny,
            retry_non_idempotent: false,
            mtls: MtlsMode::Strict,
            mtls_ports: Vec::new(),
        },
        trust: Trust::default(),
        services: Vec::new(),
        endpoints: HashMap::new(),
        names: HashMap::new(),
        virtual_hosts: Vec::new(),
        policy: Policy::default(),
        quotas: Vec::new(),
    };
    for section in &snapshot.sections {
        let body = section.open().map_err(|source| TablesError::Section {
            section: format!("{:?} {:?}", section.key.kind, section.key.name),
            source,
        })?;
        match body {
            Body::Mesh(body) => mesh = Some(body),
            Body::Trust(body) => rest.trust = body,
            Body::Service(body) => rest.services.push(body),
            Body::Endpoints(body) => {
                rest.endpoints.insert(body.service.clone(), body);
            }
            Body::Routes(body) => rest.virtual_hosts.push(body),
            Body::Policy(body) => rest.policy = body,
            Body::Quota(body) => rest.quotas.push(body),
            Body::Names(body) => {
                rest.names.insert(body.service.clone(), body);
            }
        }
    }
    rest.mesh = mesh.ok_or_else(|| TablesError::missing("the snapshot", "the mesh section"))?;
    Ok(rest)
}

pub(super) fn build(
    snapshot: &Snapshot,
    workload: &Workload,
    answers: &Answers,
) -> Result<Tables, TablesError> {
    static BUILDS: AtomicU64 = AtomicU64::new(0);
    let opened = open(snapshot)?;
    let mesh = opened.mesh;
    let services = services::build(&opened.services, &opened.endpoints, &opened.names, answers)?;
    let routes = routes::build(&opened.virtual_hosts, &opened.services, &services, &mesh)?;
    let mut policies = policies::build(&opened.policy, &opened.quotas, &services)?;

    let mut hosts = HostIndex::default();
    for (at, service) in opened.services.iter().enumerate() {
        for host in &service.hosts {
            hosts.insert(host, None, Some(ServiceIndex::of(at)));
        }
    }
    for (at, virtual_host) in opened.virtual_hosts.iter().enumerate() {
        for host in &virtual_host.hosts {
            hosts.insert(host, Some(VirtualHostIndex::of(at)), None);
        }
    }
    for service in &opened.services {
        hosts.share(&service.hosts);
    }
    hosts.finish();
    let mut service_rows = services.rows;
    for (row, service) in service_rows.iter_mut().zip(&opened.services) {
        let mut names = service.hosts.iter();
        row.virtual_host = names.find_map(|host| hosts.find(host).virtual_host);
    }

    let outbound_policy = (0..service_rows.len())
        .map(|at| {
            policies
                .outbound
                .remove(&ServiceIndex::of(at))
                .map(Box::new)
        })
        .collect();
    Ok(Tables {
        revision: snapshot.revision,
        node: snapshot.node.clone(),
        own: own_identity(&mesh, workload)?,
        workload: with_mtls(workload, &mesh),
        mesh,
        trust: opened.trust,
        generation: Generation(BUILDS.fetch_add(1, Ordering::Relaxed)),
        services: service_rows.into(),
        clusters: services.clusters.into(),
        virtual_hosts: routes.virtual_hosts.into(),
        routes: routes.routes.into(),
        quotas: policies.quotas.into(),
        inbound_policy: policies.inbound,
        outbound_policy,
        hosts,
        addresses: services.addresses,
        services_by_id: services.by_id,
        clusters_by_key: services.clusters_by_key,
    })
}

fn own_identity(mesh: &Mesh, workload: &Workload) -> Result<PeerIdentity, TablesError> {
    let spiffe = SpiffeId::workload(
        &mesh.trust_domain,
        &workload.service.namespace,
        &workload.service_account,
    )
    .map_err(|error| TablesError::invalid("the local workload", error.to_string()))?;
    Ok(PeerIdentity {
        spiffe,
        service: workload.service.clone(),
        labels: workload.labels.clone(),
    })
}

/// Port over mesh setting; ports in the snapshot are workload ports.
fn with_mtls(workload: &Workload, mesh: &Mesh) -> Workload {
    let mut workload = workload.clone();
    for port in &mut workload.ports {
        let own = mesh.mtls_ports.iter().find(|(p, _)| *p == port.app.port());
        port.mtls = own.map_or(mesh.mtls, |(_, mode)| *mode);
    }
    workload
}

fn service_named(
    by_id: &HashMap<ServiceId, ServiceIndex>,
    id: &ServiceId,
    by: &str,
) -> Result<ServiceIndex, TablesError> {
    by_id
        .get(id)
        .copied()
        .ok_or_else(|| TablesError::missing(by, format!("service {id}")))
}

/// Every site a policy acts at: one, or all services without sidecars of a namespace.
fn sites(
    applies: &Applies,
    services: &services::Services,
    by: &str,
) -> Result<Vec<Site>, TablesError> {
    Ok(match applies {
        Applies::Inbound => vec![Site::Inbound],
        Applies::Outbound(service) => {
            vec![Site::Outbound(service_named(&services.by_id, service, by)?)]
        }
        Applies::OutboundNamespace(namespace) => {
            let inside = |row: &&ServiceRow| row.external && row.id.namespace == *namespace;
            let fitting = services.rows.iter().filter(inside);
            fitting
                .filter_map(|row| services.by_id.get(&row.id).copied())
                .map(Site::Outbound)
                .collect()
        }
    })
}
