//! Quotas as they hold at one sidecar: memquota, with instance, rule, QuotaSpec and binding where
//! they are given, and the usual values where not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringmesh_quota::RuleFacts;
use ringmesh_wire::v1::snapshot::{Applies, LimitOverride, QuotaRule, lease_name};
use ringmesh_wire::v1::{Expr, ExprNode, Value};
use ringmesh_wire::{NodeId, ServiceId};

use xxhash_rust::xxh3::xxh3_64;

use super::policy::destinations_of;
use super::{Mode, NodeScope, Parts};
use crate::expr::{self, Attributes, compile_value, evaluate};
use crate::model::{USUAL_DIMENSIONS, instance_name, mixer_uses};
use crate::rules::mixer::{BoundService, MemQuotaLimit};
use crate::rules::{Kind, Object, ObjectKey, Spec};

/// A limit with the rule that puts it in force, the same for all nodes.
#[derive(Debug)]
pub(super) struct Quota<'a> {
    name: String,
    limit: &'a MemQuotaLimit,
    /// Namespace whose destinations it holds for; the root one is all.
    namespace: &'a str,
    when: Option<&'a Expr>,
    dimensions: Vec<(String, Expr)>,
    charges: Vec<Charge<'a>>,
}

/// Units, and the services that are charged them.
#[derive(Debug)]
struct Charge<'a> {
    units: u64,
    /// `None` is all.
    services: Option<Vec<&'a BoundService>>,
}

/// All quotas in force, each with a name of its own: one name is one bucket, so where several rules
/// or handlers use an instance, their names are added, as far as needed to tell them apart.
pub(super) fn quotas<'a>(parts: &Parts<'a>) -> Vec<Quota<'a>> {
    // With each the two names to add: the rule's, or the handler's where there is none; and the
    // handler's with its kind. No handler gives one instance two limits, so the two tell all apart.
    let mut all: Vec<([String; 2], Quota<'a>)> = Vec::new();
    // A rule in force may need a handler that was deleted: its limits hold as long.
    for object in parts.in_force_or_held() {
        let (handler, Spec::MemQuota(memquota)) = (&object.key, &object.spec) else {
            continue;
        };
        for limit in &memquota.quotas {
            let dimensions = dimensions(parts, &limit.name.value);
            let quota = |namespace, when| Quota {
                name: limit.name.value.clone(),
                limit,
                namespace,
                when,
                dimensions: dimensions.clone(),
                charges: charges(parts, &limit.name.value),
            };
            let by = |by: &ObjectKey| {
                let handler_name = handler.full_name();
                [
                    by.full_name(),
                    format!("{}/{handler_name}", handler.kind.name()),
                ]
            };
            let rules = rules_of(parts, handler, &limit.name.value);
            if rules.is_empty() && is_alone(parts, handler) {
                all.push((by(handler), quota(handler.namespace.as_str(), None)));
            }
            for (key, when) in rules {
                all.push((by(key), quota(key.namespace.as_str(), when)));
            }
        }
    }
    for more in 0..2 {
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        for (_, quota) in &all {
            *count.entry(quota.name.clone()).or_default() += 1;
        }
        for (names, quota) in &mut all {
            if count[&quota.name] > 1 {
                quota.name = format!("{}#{}", quota.name, names[more]);
            }
        }
    }
    all.into_iter().map(|(_, quota)| quota).collect()
}

fn dimensions(parts: &Parts<'_>, name: &str) -> Vec<(String, Expr)> {
    let instance = parts
        .effective
        .objects
        .values()
        .chain(&parts.effective.held);
    let found = instance
        .filter(|object| instance_name(&object.key) == name)
        .find_map(|object| match &object.spec {
            Spec::Quota(quota) => Some(quota.dimensions.clone()),
            _ => None,
        });
    found.unwrap_or_else(|| {
        USUAL_DIMENSIONS
            .iter()
            .filter_map(|(name, text)| Some(((*name).to_owned(), compile_value(text).ok()?)))
            .collect()
    })
}

/// Rules that hand this instance to this handler, with their conditions.
fn rules_of<'a>(
    parts: &Parts<'a>,
    handler: &ObjectKey,
    instance: &str,
) -> Vec<(&'a ObjectKey, Option<&'a Expr>)> {
    let objects = parts.effective.objects.iter();
    objects
        .filter_map(|(key, object)| {
            let Spec::Rule(rule) = &object.spec else {
                return None;
            };
            let uses = mixer_uses::hands(rule, &key.namespace, handler, instance);
            uses.then_some((key, rule.when.as_ref()))
        })
        .collect()
}

/// Whether no rule at all names a handler. One that is not in force says that its limits are not
/// meant for every request, though not yet for which.
fn is_alone(parts: &Parts<'_>, handler: &ObjectKey) -> bool {
    !parts.effective.refused_may_name(Kind::Rule, &handler.name)
        && parts.effective.spoken().all(|object| match &object.spec {
            Spec::Rule(rule) => !mixer_uses::names(rule, &object.key.namespace, handler),
            _ => true,
        })
}

/// What QuotaSpecs and their bindings say about an instance; without any, 1 everywhere. Where the
/// only ones are not in force, nothing is charged.
fn charges<'a>(parts: &Parts<'a>, instance: &str) -> Vec<Charge<'a>> {
    let units = |object: &Object| match &object.spec {
        Spec::QuotaSpec(spec) => mixer_uses::units(spec, &object.key.namespace, instance),
        _ => 0,
    };
    let mut found = Vec::new();
    for object in parts.in_force_or_held() {
        let units = units(object);
        if units > 0 {
            found.push(Charge {
                units,
                services: bound(parts, &object.key),
            });
        }
    }
    let unread = parts.effective.refused_may_name(Kind::QuotaSpec, instance);
    let unspoken = || parts.effective.spoken().all(|object| units(object) == 0);
    if found.is_empty() && !unread && unspoken() {
        found.push(Charge {
            units: 1,
            services: None,
        });
    }
    found
}

/// The services bindings name for a QuotaSpec; `None` is all: no binding, or `'*'`. None where its
/// bindings are not in force.
fn bound<'a>(parts: &Parts<'a>, spec: &ObjectKey) -> Option<Vec<&'a BoundService>> {
    let binding = |object: &'a Arc<Object>| match &object.spec {
        Spec::QuotaSpecBinding(binding) => Some(binding).filter(|b| mixer_uses::binds(b, spec)),
        _ => None,
    };
    let unread = parts
        .effective
        .refused_may_name(Kind::QuotaSpecBinding, &spec.name);
    if !unread && parts.effective.spoken().filter_map(binding).count() == 0 {
        return None;
    }
    let in_force = parts.effective.objects.values().filter_map(binding);
    let services: Vec<&BoundService> = in_force.flat_map(|binding| &binding.services).collect();
    let all = services.iter().any(|s| matches!(s, BoundService::All));
    (!all).then_some(services)
}

impl Quota<'_> {
    /// Units a request to `service` is charged.
    fn units(&self, service: &ServiceId) -> u64 {
        let charged = self.charges.iter().filter(|charge| {
            charge.services.as_ref().is_none_or(|services| {
                services.iter().any(|bound| match bound {
                    BoundService::All => true,
                    BoundService::Named {
                        name, namespace, ..
                    } => *name == service.name && *namespace == service.namespace,
                })
            })
        });
        charged.map(|charge| charge.units).sum()
    }

    /// The quota as it holds at a node; several where it holds in several places.
    pub(super) fn at(&self, parts: &Parts<'_>, node: &NodeScope) -> Vec<QuotaRule> {
        let mut rules = Vec::new();
        for applies in destinations_of(parts, self.namespace, node) {
            match applies {
                Applies::Inbound => {
                    let units = self.units(&node.service);
                    let enforcers = self.inbound_enforcers(parts, node);
                    let group = self.group(&node.service, &node.labels);
                    rules.extend(self.rule(units, Applies::Inbound, "", enforcers, group));
                }
                Applies::OutboundNamespace(namespace) => {
                    rules.extend(self.outbound(parts, &namespace));
                }
                Applies::Outbound(_) => {}
            }
        }
        rules
    }

    /// For the services without sidecars of a namespace: one rule if all are charged alike.
    fn outbound(&self, parts: &Parts<'_>, namespace: &str) -> Vec<QuotaRule> {
        let everyone = nodes(parts).len();
        if self.charges.iter().all(|charge| charge.services.is_none()) {
            let units = self.charges.iter().map(|charge| charge.units).sum();
            let applies = Applies::OutboundNamespace(namespace.to_owned());
            let rule = self.rule(units, applies, &format!("@{namespace}"), everyone, 0);
            return rule.into_iter().collect();
        }
        let services = parts.known.external.keys();
        services
            .filter(|id| id.namespace == namespace)
            .filter_map(|id| {
                let applies = Applies::Outbound(id.clone());
                self.rule(self.units(id), applies, &format!("@{id}"), everyone, 0)
            })
            .collect()
    }

    fn rule(
        &self,
        units: u64,
        applies: Applies,
        suffix: &str,
        enforcers: usize,
        group: u64,
    ) -> Option<QuotaRule> {
        (units > 0).then(|| QuotaRule {
            name: format!("{}{suffix}", self.name),
            when: self.when.cloned(),
            dimensions: self.dimensions.clone(),
            charge: units,
            limit: self.limit.limit,
            overrides: self.overrides(),
            scope: self.limit.scope,
            applies,
            enforcers: u32::try_from(enforcers.max(1)).unwrap_or(u32::MAX),
            group,
        })
    }

    /// The overrides as written, but for names of services, which come in their short form as the
    /// dimensions do.
    fn overrides(&self) -> Vec<LimitOverride> {
        // Not where the value may also be what a client wrote, in whatever form.
        let of_services = |name: &str| {
            let found = self.dimensions.iter().find(|(own, _)| own == name);
            let nodes = found.map_or(&[][..], |(_, expr)| &expr.nodes);
            let any = |is: fn(&str) -> bool| {
                let mut nodes = nodes.iter();
                nodes.any(|node| matches!(node, ExprNode::Attribute(name) if is(name)))
            };
            any(expr::is_service) && !any(|name| name.starts_with("request."))
        };
        let mut overrides = self.limit.overrides.clone();
        for (name, value) in overrides.iter_mut().flat_map(|over| &mut over.dimensions) {
            if of_services(name)
                && let Ok(short) = expr::short(value)
            {
                *value = short.to_owned();
            }
        }
        overrides
    }

    /// Sidecars that may charge the same buckets as this one: those whose dimensions that depend on
    /// the destination alone have the same values.
    fn inbound_enforcers(&self, parts: &Parts<'_>, node: &NodeScope) -> usize {
        let own = self.bucket_part(&node.service, &node.labels);
        let others = nodes(parts)
            .into_iter()
            .filter(|(name, service, labels)| {
                *name != node.node.0
                    && (self.namespace == crate::rules::ROOT_NAMESPACE
                        || self.namespace == service.namespace)
                    && self.units(service) > 0
                    && self.bucket_part(service, labels) == own
            })
            .count();
        others + 1
    }

    /// Names those that [`Self::inbound_enforcers`] counts.
    fn group(&self, service: &ServiceId, labels: &BTreeMap<String, String>) -> u64 {
        match self.bucket_part(service, labels) {
            part if part.is_empty() => 0,
            part => xxh3_64(format!("{part:?}").as_bytes()).max(1),
        }
    }

    /// Which sidecars the quota authority must know of, for every rule any of them has.
    pub(super) fn facts(&self, parts: &Parts<'_>) -> Vec<RuleFacts> {
        let mut enforcers: BTreeMap<String, BTreeSet<NodeId>> = BTreeMap::new();
        for (node, service, labels) in nodes(parts) {
            let scope = NodeScope {
                node: NodeId(node.to_owned()),
                service: service.clone(),
                labels: labels.clone(),
                ports: Vec::new(),
                mode: Mode::Mesh,
            };
            for applies in destinations_of(parts, self.namespace, &scope) {
                let names: Vec<String> = match applies {
                    Applies::Inbound if self.units(service) > 0 => {
                        vec![lease_name(&self.name, self.group(service, labels))]
                    }
                    Applies::OutboundNamespace(namespace) => {
                        let rules = self.outbound(parts, &namespace);
                        rules.iter().map(QuotaRule::lease_name).collect()
                    }
                    Applies::Inbound | Applies::Outbound(_) => Vec::new(),
                };
                for name in names {
                    enforcers
                        .entry(name)
                        .or_default()
                        .insert(scope.node.clone());
                }
            }
        }
        let limits = self.limit.overrides.iter().map(|over| over.limit);
        let window_ms_max = limits
            .chain([self.limit.limit])
            .map(|limit| limit.window_ms)
            .max();
        let facts = enforcers.into_iter().map(|(name, enforcers)| RuleFacts {
            name,
            window_ms_max: window_ms_max.unwrap_or(0),
            limit: Some(self.limit.limit),
            enforcers,
        });
        facts.collect()
    }

    /// Values of the dimensions that only the destination decides. A shared override bucket has none.
    fn bucket_part(
        &self,
        service: &ServiceId,
        labels: &BTreeMap<String, String>,
    ) -> Vec<Option<Value>> {
        if self.limit.scope == ringmesh_wire::v1::snapshot::QuotaScope::Override {
            return Vec::new();
        }
        let known = destination(service, labels);
        let by_destination = self.dimensions.iter().filter(|(_, expr)| {
            expr.nodes.iter().all(|node| match node {
                ExprNode::Attribute(name) => {
                    known.values.contains_key(name) || known.maps.contains_key(name)
                }
                _ => true,
            })
        });
        by_destination
            .map(|(_, expr)| evaluate(expr, &known))
            .collect()
    }
}

/// The attributes of a destination that are known beforehand.
fn destination(service: &ServiceId, labels: &BTreeMap<String, String>) -> Attributes {
    let mut known = Attributes::default();
    for (name, value) in [
        ("destination.service", service.to_string()),
        ("destination.service.host", service.to_string()),
        ("destination.service.name", service.name.clone()),
        ("destination.service.namespace", service.namespace.clone()),
        ("destination.namespace", service.namespace.clone()),
        ("destination.workload.namespace", service.namespace.clone()),
    ] {
        known.values.insert(name.to_owned(), Value::String(value));
    }
    known
        .maps
        .insert("destination.labels".to_owned(), labels.clone());
    known
}

/// Every sidecar the registry knows, once per service it stands beside.
fn nodes<'p>(
    parts: &'p Parts<'_>,
) -> BTreeSet<(&'p str, &'p ServiceId, &'p BTreeMap<String, String>)> {
    let services = parts.registry.services.iter();
    services
        .flat_map(|(id, registered)| registered.endpoints.iter().map(move |e| (id, e)))
        .filter_map(|(id, e)| Some((e.node.as_ref()?.0.as_str(), id, &e.labels)))
        .collect()
}
