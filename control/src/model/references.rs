//! What an object refers to, and which of that is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringmesh_wire::ServiceId;

use super::mixer_names::{handler_key, instance_key, instance_name};
use super::services::{Services, mesh_name, rules_of_service};
use super::status::{Missing, MissingKind};
use crate::rules::mixer::{QuotaSpec, QuotaSpecBinding, Rule};
use crate::rules::traffic::{RouteTo, RuleAction, VirtualService};
use crate::rules::{Object, ObjectKey, Spec};

/// Everything a reference can find.
#[derive(Debug)]
pub(super) struct Found<'a> {
    services: &'a Services<'a>,
    /// Objects as written now.
    current: &'a BTreeMap<ObjectKey, Arc<Object>>,
    /// Objects that were in force before and are not written any more, or differently.
    past: BTreeMap<&'a ObjectKey, &'a Arc<Object>>,
    /// Subsets defined now, and by past DestinationRules: of one there may be several versions, and
    /// what the newest no longer says an older one still does.
    subsets: BTreeSet<(ServiceId, &'a str)>,
    past_subsets: BTreeMap<(ServiceId, &'a str), &'a Arc<Object>>,
    /// Quota instances some memquota gives a limit, by full name.
    limited: BTreeSet<&'a str>,
}

/// Objects of the past an object needs.
pub(super) type Held<'a> = Vec<&'a Arc<Object>>;

impl<'a> Found<'a> {
    /// `past` goes from new to old.
    pub(super) fn new(
        services: &'a Services<'a>,
        current: &'a BTreeMap<ObjectKey, Arc<Object>>,
        in_force: &'a BTreeMap<ObjectKey, Arc<Object>>,
        past: impl IntoIterator<Item = &'a Arc<Object>>,
    ) -> Self {
        let mut subsets = BTreeSet::new();
        for (id, rules) in rules_of_service(services, in_force.values()) {
            let names = rules.iter().flat_map(|(_, rule)| &rule.subsets);
            subsets.extend(names.map(|subset| (id.clone(), subset.name.value.as_str())));
        }
        let (mut newest, mut past_subsets) = (BTreeMap::new(), BTreeMap::new());
        for object in past {
            newest.entry(&object.key).or_insert(object);
            if let Spec::DestinationRule(rule) = &object.spec
                && let Some(id) = services.find(&rule.host.value, &object.key.namespace)
            {
                for subset in &rule.subsets {
                    let name = (id.clone(), subset.name.value.as_str());
                    past_subsets.entry(name).or_insert(object);
                }
            }
        }
        let limited = current
            .values()
            .filter_map(|object| match &object.spec {
                Spec::MemQuota(quota) => Some(&quota.quotas),
                _ => None,
            })
            .flatten()
            .map(|limit| limit.name.value.as_str())
            .collect();
        Self {
            services,
            current,
            past: newest,
            subsets,
            past_subsets,
            limited,
        }
    }

    /// What is missing of what `object` refers to. With `held`, things of the past count too, and
    /// those used are added to it.
    pub(super) fn missing(&self, object: &Object, held: Option<&mut Held<'a>>) -> Vec<Missing> {
        let mut look = Look {
            found: self,
            namespace: &object.key.namespace,
            held,
            missing: Vec::new(),
        };
        match &object.spec {
            Spec::VirtualService(service) => look.routes(service),
            Spec::DestinationRule(rule) => {
                look.service(&rule.host);
            }
            Spec::AuthorizationPolicy(policy) => {
                for entry in &policy.entries {
                    let key = ObjectKey {
                        kind: crate::rules::Kind::ServiceEntry,
                        namespace: object.key.namespace.clone(),
                        name: entry.value.clone(),
                    };
                    look.object(&entry.place, MissingKind::ServiceEntry, &key, "apply it");
                }
            }
            Spec::Rule(rule) => look.rule(rule),
            Spec::QuotaSpec(spec) => look.quota_spec(spec),
            Spec::QuotaSpecBinding(binding) => look.binding(binding),
            _ => {}
        }
        look.missing.sort();
        look.missing.dedup();
        look.missing
    }
}

struct Look<'l, 'a> {
    found: &'l Found<'a>,
    namespace: &'l str,
    held: Option<&'l mut Held<'a>>,
    missing: Vec<Missing>,
}

impl Look<'_, '_> {
    fn miss(
        &mut self,
        place: &crate::rules::Place,
        kind: MissingKind,
        name: impl Into<String>,
        fix: impl Into<String>,
    ) {
        self.missing.push(Missing {
            place: place.clone(),
            kind,
            name: name.into(),
            fix: fix.into(),
        });
    }

    fn service(&mut self, host: &crate::rules::At<String>) -> Option<ServiceId> {
        let found = self.found.services.find(&host.value, self.namespace);
        if found.is_none() {
            let name = mesh_name(&host.value, self.namespace)
                .map_or_else(|| host.value.clone(), |id| id.to_string());
            self.miss(
                &host.place,
                MissingKind::Host,
                name,
                "start a sidecar that registers it, or apply a ServiceEntry",
            );
        }
        found
    }

    /// Whether an object is written now, or is held.
    fn object(
        &mut self,
        place: &crate::rules::Place,
        kind: MissingKind,
        key: &ObjectKey,
        fix: &str,
    ) -> bool {
        if self.found.current.contains_key(key) {
            return true;
        }
        if let (Some(held), Some(past)) = (self.held.as_deref_mut(), self.found.past.get(key)) {
            held.push(past);
            return true;
        }
        let name = match kind {
            MissingKind::Handler | MissingKind::Instance => instance_name(key),
            _ => key.full_name(),
        };
        self.miss(place, kind, name, fix);
        false
    }

    fn routes(&mut self, service: &VirtualService) {
        for rule in &service.http {
            if let RuleAction::Forward(to) = &rule.action {
                to.iter().for_each(|to| self.destination(to));
            }
        }
        for rule in &service.tcp {
            rule.to.iter().for_each(|to| self.destination(to));
        }
    }

    fn destination(&mut self, to: &RouteTo) {
        let Some(id) = self.service(&to.host) else {
            return;
        };
        self.port(to, &id);
        let Some(subset) = &to.subset else { return };
        let name = (id, subset.value.as_str());
        if self.found.subsets.contains(&name) {
            return;
        }
        if let (Some(held), Some(past)) =
            (self.held.as_deref_mut(), self.found.past_subsets.get(&name))
        {
            held.push(past);
            return;
        }
        let (id, subset_name) = name;
        self.miss(
            &subset.place,
            MissingKind::Subset,
            format!("{subset_name} of {id}"),
            format!("apply a DestinationRule for {id} that defines it"),
        );
    }

    /// A version that was in force may name a port that has gone since: sidecars answer 503 there,
    /// which is nearer to what was meant than a service without its rules.
    fn port(&mut self, to: &RouteTo, id: &ServiceId) {
        let Some(port) = &to.port else { return };
        let ports = self.found.services.ports(id);
        if self.held.is_some() || ports.contains(&port.value) {
            return;
        }
        let known: Vec<String> = ports.iter().map(u16::to_string).collect();
        self.miss(
            &port.place,
            MissingKind::Port,
            format!("{} of {id}", port.value),
            match known.as_slice() {
                [] => "the service has no ports".to_owned(),
                [only] => format!("its port is {only}"),
                _ => format!("its ports are {}", known.join(", ")),
            },
        );
    }

    fn rule(&mut self, rule: &Rule) {
        for action in &rule.actions {
            match handler_key(&action.handler.value, self.namespace) {
                Ok(key) => {
                    self.object(
                        &action.handler.place,
                        MissingKind::Handler,
                        &key,
                        "apply it",
                    );
                }
                Err(name) => self.miss(
                    &action.handler.place,
                    MissingKind::Handler,
                    name,
                    "the adapters are memquota and denier",
                ),
            }
            for instance in &action.instances {
                match instance_key(&instance.value, self.namespace) {
                    Ok(key) => {
                        self.object(&instance.place, MissingKind::Instance, &key, "apply it");
                    }
                    Err(name) => self.miss(
                        &instance.place,
                        MissingKind::Instance,
                        name,
                        "the templates are quota and checknothing",
                    ),
                }
            }
        }
    }

    fn quota_spec(&mut self, spec: &QuotaSpec) {
        for (quota, _) in &spec.charges {
            let Ok(key) = spec_quota_key(&quota.value, self.namespace) else {
                self.miss(
                    &quota.place,
                    MissingKind::Instance,
                    quota.value.clone(),
                    "name a quota instance",
                );
                continue;
            };
            if !self.found.limited.contains(instance_name(&key).as_str()) {
                let generic = ObjectKey {
                    kind: crate::rules::Kind::Instance,
                    ..key.clone()
                };
                if !self.found.current.contains_key(&generic) {
                    self.object(&quota.place, MissingKind::Instance, &key, "apply it");
                }
            }
        }
    }

    fn binding(&mut self, binding: &QuotaSpecBinding) {
        for (spec, namespace) in &binding.specs {
            let key = ObjectKey {
                kind: crate::rules::Kind::QuotaSpec,
                namespace: namespace.clone(),
                name: spec.value.clone(),
            };
            self.object(&spec.place, MissingKind::QuotaSpec, &key, "apply it");
        }
    }
}

/// The quota instance a QuotaSpec of `namespace` means: there a bare name is a `quota`.
pub(crate) fn spec_quota_key(reference: &str, namespace: &str) -> Result<ObjectKey, String> {
    if reference.contains('.') {
        instance_key(reference, namespace)
    } else {
        instance_key(&format!("{reference}.quota"), namespace)
    }
}
