//! Rules in force and the registry, compiled to one snapshot per sidecar.
//!
//! Owns: the meaning of rules (merging, defaults, who gets what). May not: do I/O, know the time,
//! draw random numbers. Doors: [`compile`], or for many nodes [`Base::new`] once and
//! [`Base::snapshot`] for each.
//!
//! Invariants: equal inputs give equal bytes, so equal section hashes; what a snapshot names is in
//! it.

mod merge;
mod policy;
mod principals;
mod quota;
mod routes;
mod scope;
mod services;
mod vips;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use ringmesh_wire::v1::snapshot::{Body, Mesh, Service, Trust};
use ringmesh_wire::v1::{Section, Snapshot};

use crate::model::{Effective, RegistryView, Services};
use crate::rules::settings::MeshSettings;
use crate::rules::{Object, ObjectKey, Spec};

pub use scope::{Mode, NodePort, NodeScope, TrustView};
pub use vips::assign_vips;

/// Why a part of the snapshot is as it is, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explain {
    /// Section or object it is about, e.g. `VirtualService ratings.default`.
    pub about: String,
    /// What was decided and why.
    pub why: String,
}

/// A snapshot could not be made. Never the user's fault alone: what users can do wrong is found
/// earlier, except for a size limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompileError {
    /// What was being built.
    pub about: String,
    /// What is wrong.
    pub why: String,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.about, self.why)
    }
}

impl std::error::Error for CompileError {}

/// The inputs, and what is looked up in them again and again.
#[derive(Debug)]
struct Parts<'a> {
    effective: &'a Effective,
    registry: &'a RegistryView,
    trust: &'a TrustView,
    known: Services<'a>,
}

impl<'a> Parts<'a> {
    /// Objects in force, then those held for others, of each the newest version.
    fn in_force_or_held(&self) -> impl Iterator<Item = &'a Arc<Object>> {
        let (objects, held) = (&self.effective.objects, &self.effective.held);
        let newest = held.iter().enumerate().filter(|(at, object)| {
            !objects.contains_key(&object.key)
                && held[..*at].iter().all(|newer| newer.key != object.key)
        });
        objects.values().chain(newest.map(|(_, object)| object))
    }

    /// An object in force, or one that is held for another.
    fn find(&self, key: &ObjectKey) -> Option<&'a Arc<Object>> {
        let held = self.effective.held.iter();
        let in_force = self.effective.objects.get(key);
        in_force.or_else(|| held.into_iter().find(|object| object.key == *key))
    }
}

/// What all sidecars share, made once per revision.
#[derive(Debug)]
pub struct Base<'a> {
    parts: Parts<'a>,
    settings: MeshSettings,
    /// Services, without the names that depend on the node.
    services: Vec<Service>,
    /// Each of them sealed as a node of another namespace sees it.
    from_elsewhere: Vec<Section>,
    /// Endpoints and trust.
    shared: Vec<Section>,
    quotas: Vec<quota::Quota<'a>>,
}

/// A namespace nobody can have (names are never empty): services seen from there have no short name.
const ELSEWHERE: &str = "";

impl<'a> Base<'a> {
    /// Prepares what does not depend on the node.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn new(
        effective: &'a Effective,
        registry: &'a RegistryView,
        trust: &'a TrustView,
    ) -> Result<Self, CompileError> {
        let entries = effective.objects.values().chain(&effective.held);
        let parts = Parts {
            effective,
            registry,
            trust,
            known: Services::new(registry, entries),
        };
        let settings = settings(effective);
        let services = services::services(effective, registry, &parts.known, &settings);
        let from_elsewhere = services
            .iter()
            .map(|service| service_section(service, ELSEWHERE, &parts.known))
            .collect::<Result<_, _>>()?;
        let mut shared =
            services::endpoints(registry, &parts.known, &policy::Demands::new(effective))?;
        let mut revoked_serials = trust.revoked_serials.clone();
        revoked_serials.sort();
        let trusted = Trust {
            roots: trust.roots.clone(),
            revoked_serials,
        };
        shared.push(sealed(&Body::Trust(trusted), "")?);
        let quotas = quota::quotas(&parts);
        Ok(Self {
            parts,
            settings,
            services,
            from_elsewhere,
            shared,
            quotas,
        })
    }

    /// What the quota authority must know: every lease there can be, and who takes part in it.
    #[must_use]
    pub fn quota_facts(&self) -> Vec<ringmesh_quota::RuleFacts> {
        let quotas = self.quotas.iter();
        quotas.flat_map(|quota| quota.facts(&self.parts)).collect()
    }

    /// The settings of the mesh in force.
    #[must_use]
    pub fn settings(&self) -> &MeshSettings {
        &self.settings
    }

    /// Every service with its virtual addresses, for `ringmesh hosts` and for keeping them.
    #[must_use]
    pub fn services(&self) -> &[Service] {
        &self.services
    }

    /// The snapshot of one node.
    ///
    /// # Errors
    /// [`CompileError`].
    pub fn snapshot(&self, node: &NodeScope) -> Result<(Snapshot, Vec<Explain>), CompileError> {
        let parts = &self.parts;
        let mut explain = Vec::new();
        let mut sections = self.shared.clone();
        for (service, from_elsewhere) in self.services.iter().zip(&self.from_elsewhere) {
            let depends = service.external || service.id.namespace == node.service.namespace;
            sections.push(if depends {
                service_section(service, &node.service.namespace, &parts.known)?
            } else {
                from_elsewhere.clone()
            });
        }
        sections.push(sealed(&Body::Mesh(self.mesh(node, &mut explain)), "")?);
        sections.extend(routes::routes(
            parts.effective,
            &parts.known,
            node,
            &mut explain,
        )?);
        let policy = policy::policy(parts, node, &mut explain);
        if !policy.authz.is_empty() || !policy.checks.is_empty() {
            sections.push(sealed(&Body::Policy(policy), "")?);
        }
        for rule in self.quotas.iter().flat_map(|quota| quota.at(parts, node)) {
            let name = rule.name.clone();
            sections.push(sealed(&Body::Quota(rule), &name)?);
        }
        let snapshot = Snapshot::new(parts.effective.revision, node.node.clone(), sections)
            .map_err(|error| CompileError {
                about: format!("snapshot of {}", node.node),
                why: error.to_string(),
            })?;
        Ok((snapshot, explain))
    }

    fn mesh(&self, node: &NodeScope, explain: &mut Vec<Explain>) -> Mesh {
        let (mtls, mtls_ports) = policy::mtls(&self.parts, node, explain);
        Mesh {
            trust_domain: self.parts.trust.trust_domain.clone(),
            default_timeout_ms: self.settings.default_timeout_ms,
            outbound: self.settings.outbound,
            on_quota_unavailable: self.settings.on_quota_unavailable,
            retry_non_idempotent: self.settings.retry_non_idempotent,
            mtls,
            mtls_ports,
        }
    }
}

/// The first MeshSettings by name, or the usual ones.
fn settings(effective: &Effective) -> MeshSettings {
    let mut objects = effective.objects.values();
    objects
        .find_map(|object| match &object.spec {
            Spec::MeshSettings(settings) => Some(settings.clone()),
            _ => None,
        })
        .unwrap_or_default()
}

fn service_section(
    service: &Service,
    namespace: &str,
    known: &Services<'_>,
) -> Result<Section, CompileError> {
    let mut service = service.clone();
    service.hosts = services::hosts(&service, namespace, known);
    let name = service.id.to_string();
    sealed(&Body::Service(service), &name)
}

fn sealed(body: &Body, name: &str) -> Result<Section, CompileError> {
    body.seal(name).map_err(|error| CompileError {
        about: format!("section {name:?}"),
        why: error.to_string(),
    })
}

/// Compiles the snapshot of one node.
///
/// # Errors
/// [`CompileError`].
pub fn compile(
    effective: &Effective,
    node: &NodeScope,
    registry: &RegistryView,
    trust: &TrustView,
) -> Result<(Snapshot, Vec<Explain>), CompileError> {
    Base::new(effective, registry, trust)?.snapshot(node)
}
