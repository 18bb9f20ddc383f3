//! Who may call: AuthorizationPolicies, deniers and mutual TLS, as they hold at one sidecar.

use std::collections::{BTreeMap, BTreeSet};

use ringmesh_wire::ServiceId;
use ringmesh_wire::v1::snapshot::{
    Applies, Authz, CheckRule, Denial, Endpoint, EndpointPort, MtlsMode, Policy,
};

use super::services::entry_of;
use super::{Explain, Mode, NodeScope, Parts, principals};
use crate::model::{Effective, handler_key};
use crate::rules::security::{AuthorizationPolicy, PeerAuthentication};
use crate::rules::{Kind, ObjectKey, ROOT_NAMESPACE, Spec};

/// Whether all labels of a selector are those of the workload; an empty one selects all.
fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector
        .iter()
        .all(|(name, value)| labels.get(name) == Some(value))
}

/// Whether anybody can call the workload: a standalone sidecar without ports only calls.
fn is_called(node: &NodeScope) -> bool {
    node.mode == Mode::Mesh || !node.ports.is_empty()
}

/// Where a rule of `namespace` that is about destinations holds, seen from a node: its own inbound
/// calls, and calls to services without sidecars.
pub(super) fn destinations_of(
    parts: &Parts<'_>,
    namespace: &str,
    node: &NodeScope,
) -> Vec<Applies> {
    let mut places = Vec::new();
    let own = namespace == ROOT_NAMESPACE || namespace == node.service.namespace;
    if own && is_called(node) {
        places.push(Applies::Inbound);
    }
    places.extend(
        external_namespaces(parts)
            .into_iter()
            .filter(|external| namespace == ROOT_NAMESPACE || namespace == *external)
            .map(|external| Applies::OutboundNamespace(external.to_owned())),
    );
    places
}

/// Namespaces that have services without sidecars.
pub(super) fn external_namespaces<'p>(parts: &'p Parts<'_>) -> BTreeSet<&'p str> {
    let ids = parts.known.external.keys();
    ids.map(|id| id.namespace.as_str()).collect()
}

/// AuthorizationPolicies and check rules.
pub(super) fn policy(parts: &Parts<'_>, node: &NodeScope, explain: &mut Vec<Explain>) -> Policy {
    let mut policy = Policy::default();
    for (key, object) in &parts.effective.objects {
        match &object.spec {
            Spec::AuthorizationPolicy(authz) => {
                let places = authz_places(parts, key, authz, node);
                if !places.is_empty() {
                    explain.push(Explain {
                        about: key.to_string(),
                        why: format!("holds for {}", shown(&places)),
                    });
                }
                policy.authz.extend(places.into_iter().map(|applies| Authz {
                    name: key.full_name(),
                    action: authz.action,
                    rules: principals::in_mesh(&authz.rules, &parts.trust.trust_domain),
                    applies,
                }));
            }
            Spec::Rule(rule) => {
                let places = destinations_of(parts, &key.namespace, node);
                for deny in denials(parts, key, rule) {
                    policy.checks.extend(places.iter().map(|applies| CheckRule {
                        name: key.full_name(),
                        when: rule.when.clone(),
                        deny: deny.clone(),
                        applies: applies.clone(),
                    }));
                }
            }
            _ => {}
        }
    }
    policy
}

fn shown(places: &[Applies]) -> String {
    let words: Vec<String> = places
        .iter()
        .map(|place| match place {
            Applies::Inbound => "calls to this workload".to_owned(),
            Applies::Outbound(id) => format!("calls to {id}"),
            Applies::OutboundNamespace(namespace) => {
                format!("calls to services without sidecars of namespace {namespace}")
            }
        })
        .collect();
    words.join(" and ")
}

fn authz_places(
    parts: &Parts<'_>,
    key: &ObjectKey,
    authz: &AuthorizationPolicy,
    node: &NodeScope,
) -> Vec<Applies> {
    let root = key.namespace == ROOT_NAMESPACE;
    if !authz.entries.is_empty() {
        let mut places = Vec::new();
        for name in &authz.entries {
            let entry = parts.find(&ObjectKey {
                kind: Kind::ServiceEntry,
                namespace: key.namespace.clone(),
                name: name.value.clone(),
            });
            let hosts = entry.and_then(|object| entry_of(object));
            places.extend(
                hosts
                    .into_iter()
                    .flat_map(|entry| &entry.hosts)
                    .map(|host| Applies::Outbound(ServiceId::new(&host.value, &key.namespace))),
            );
        }
        places
            .retain(|place| matches!(place, Applies::Outbound(id) if parts.known.is_external(id)));
        return places;
    }
    let mut places = Vec::new();
    let own = root || key.namespace == node.service.namespace;
    if own && is_called(node) && selects(&authz.selector, &node.labels) {
        places.push(Applies::Inbound);
    }
    if node.mode == Mode::Standalone && authz.selector.is_empty() {
        places.extend(
            external_namespaces(parts)
                .into_iter()
                .filter(|external| root || key.namespace == *external)
                .map(|external| Applies::OutboundNamespace(external.to_owned())),
        );
    }
    places
}

/// The refusals of a rule: one per action whose handler is a denier.
fn denials(parts: &Parts<'_>, key: &ObjectKey, rule: &crate::rules::mixer::Rule) -> Vec<Denial> {
    rule.actions
        .iter()
        .filter_map(|action| {
            let handler = handler_key(&action.handler.value, &key.namespace).ok()?;
            let Spec::Denier(denier) = &parts.find(&handler)?.spec else {
                return None;
            };
            Some(Denial {
                grpc_status: denier.grpc_status,
                handler: handler.full_name(),
                message: denier.message.clone(),
            })
        })
        .collect()
}

/// Mutual TLS of the workload: port over workload over namespace over mesh; of two at one level the
/// first by name. Nothing said anywhere is STRICT, our choice, or plaintext where there is no
/// trust at all (standalone).
pub(super) fn mtls(
    parts: &Parts<'_>,
    node: &NodeScope,
    explain: &mut Vec<Explain>,
) -> (MtlsMode, Vec<(u16, MtlsMode)>) {
    let demands = Demands::new(parts.effective);
    let demand = demands.of(&node.service.namespace, &node.labels);
    let (mode, why) = match demand.said {
        Some((key, mode)) => (mode, format!("by {key}")),
        None if parts.trust.roots.is_empty() && node.mode == Mode::Standalone => (
            MtlsMode::Disable,
            "there are no certificates without a control service".to_owned(),
        ),
        None => (
            MtlsMode::Strict,
            "no PeerAuthentication says otherwise".to_owned(),
        ),
    };
    explain.push(Explain {
        about: "mutual TLS".to_owned(),
        why: format!("{mode:?}: {why}"),
    });
    (mode, demand.ports)
}

/// The PeerAuthentications in force.
pub(super) struct Demands<'a>(Vec<(&'a ObjectKey, &'a PeerAuthentication)>);

/// What they say of one workload.
struct Demand<'a> {
    /// Of ports without a mode of their own, and who says so.
    said: Option<(&'a ObjectKey, MtlsMode)>,
    /// By workload port.
    ports: Vec<(u16, MtlsMode)>,
}

impl<'a> Demands<'a> {
    pub(super) fn new(effective: &'a Effective) -> Self {
        let objects = effective.objects.iter();
        let all = objects.filter_map(|(key, object)| match &object.spec {
            Spec::PeerAuthentication(auth) => Some((key, auth)),
            _ => None,
        });
        Self(all.collect())
    }

    /// The workload of a namespace with these labels. A selector is of its own namespace, in the
    /// root namespace too.
    fn of(&self, namespace: &str, labels: &BTreeMap<String, String>) -> Demand<'a> {
        let workload = self.0.iter().find(|(key, auth)| {
            key.namespace == namespace
                && !auth.selector.is_empty()
                && selects(&auth.selector, labels)
        });
        let whole = |namespace: &str| {
            let mut all = self.0.iter();
            all.find(|(key, auth)| key.namespace == namespace && auth.selector.is_empty())
        };
        let levels = [workload, whole(namespace), whole(ROOT_NAMESPACE)];
        let mut levels = levels.into_iter().flatten();
        let said = levels.find_map(|(key, auth)| Some((*key, auth.mode?)));
        let ports = workload.map_or_else(Vec::new, |(_, auth)| {
            let modes = auth.ports.iter();
            modes
                .filter_map(|(port, mode)| Some((*port, (*mode)?)))
                .collect()
        });
        Demand { said, ports }
    }

    /// Endpoints as callers reach them. Where a port takes plaintext only, nobody may try mutual TLS: it
    /// is told as an endpoint of its own, at the same address and without a mesh port.
    pub(super) fn as_called(&self, namespace: &str, endpoints: &[Endpoint]) -> Vec<Endpoint> {
        let mut called = Vec::with_capacity(endpoints.len());
        for endpoint in endpoints {
            let demand = match self.0.is_empty() || endpoint.mesh_port.is_none() {
                true => None,
                false => Some(self.of(namespace, &endpoint.labels)),
            };
            let is_plain = |port: &EndpointPort| {
                demand.as_ref().is_some_and(|demand| {
                    let own = demand.ports.iter().find(|(at, _)| *at == port.app_port);
                    let mode = own.copied().or(demand.said.map(|(_, mode)| (0, mode)));
                    mode.is_some_and(|(_, mode)| mode == MtlsMode::Disable)
                })
            };
            let (plain, mutual): (Vec<EndpointPort>, Vec<EndpointPort>) =
                endpoint.ports.iter().partition(|port| is_plain(port));
            if plain.is_empty() {
                called.push(endpoint.clone());
                continue;
            }
            if !mutual.is_empty() {
                called.push(Endpoint {
                    ports: mutual,
                    ..endpoint.clone()
                });
            }
            called.push(Endpoint {
                ports: plain,
                mesh_port: None,
                identity: None,
                ..endpoint.clone()
            });
        }
        called
    }
}
