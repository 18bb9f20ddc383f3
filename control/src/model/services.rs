//! Which services there are, and what a host in a rule means.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringmesh_wire::ServiceId;

use super::registry::RegistryView;
use crate::rules::traffic::DestinationRule;
use crate::rules::{Object, ObjectKey, Spec};

/// All services: registered ones and those of ServiceEntries. A registered one hides an entry of
/// its name.
#[derive(Debug)]
pub(crate) struct Services<'a> {
    registry: &'a RegistryView,
    /// ServiceEntry of each external service.
    pub(crate) external: BTreeMap<ServiceId, &'a Arc<Object>>,
    /// External services by host, first namespace first.
    by_host: BTreeMap<&'a str, Vec<ServiceId>>,
}

impl<'a> Services<'a> {
    /// Of two ServiceEntries with one host in one namespace, the first by name counts.
    pub(crate) fn new(
        registry: &'a RegistryView,
        objects: impl IntoIterator<Item = &'a Arc<Object>>,
    ) -> Self {
        let mut services = Self {
            registry,
            external: BTreeMap::new(),
            by_host: BTreeMap::new(),
        };
        for object in objects {
            let Spec::ServiceEntry(entry) = &object.spec else {
                continue;
            };
            for host in &entry.hosts {
                let id = ServiceId::new(&host.value, &object.key.namespace);
                if registry.services.contains_key(&id) || services.external.contains_key(&id) {
                    continue;
                }
                services.external.insert(id.clone(), object);
                let same = services.by_host.entry(&host.value).or_default();
                same.push(id);
                same.sort();
            }
        }
        services
    }

    /// The service a host means in a rule of `namespace`: short names are looked up there.
    pub(crate) fn find(&self, host: &str, namespace: &str) -> Option<ServiceId> {
        if let Some(here) = self.by_host.get(host) {
            let own = here.iter().find(|id| id.namespace == namespace);
            if let Some(id) = own.or_else(|| here.first().filter(|_| host.contains(['.', '*']))) {
                return Some(id.clone());
            }
        }
        let id = mesh_name(host, namespace)?;
        (self.registry.services.contains_key(&id) || self.external.contains_key(&id)).then_some(id)
    }

    /// The numbers of a service's ports.
    pub(crate) fn ports(&self, id: &ServiceId) -> Vec<u16> {
        if let Some(registered) = self.registry.services.get(id) {
            return registered.ports.iter().map(|port| port.number).collect();
        }
        match self.external.get(id).map(|object| &object.spec) {
            Some(Spec::ServiceEntry(entry)) => {
                entry.ports.iter().map(|port| port.port.number).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Whether it is a service without sidecars.
    pub(crate) fn is_external(&self, id: &ServiceId) -> bool {
        self.external.contains_key(id)
    }
}

/// What a host would be called in the mesh: `NAME`, `NAME.NAMESPACE`, or with `.svc...` behind.
pub(crate) fn mesh_name(host: &str, namespace: &str) -> Option<ServiceId> {
    let mut parts = host.split('.');
    let name = parts.next().filter(|name| *name != "*")?;
    let namespace = parts.next().unwrap_or(namespace);
    match parts.next() {
        None => Some(ServiceId::new(name, namespace)),
        Some("svc") => {
            let rest: Vec<&str> = parts.collect();
            (rest.is_empty() || rest == ["cluster", "local"])
                .then(|| ServiceId::new(name, namespace))
        }
        Some(_) => None,
    }
}

/// DestinationRules by the service they are about, those of the service's own namespace first, then
/// by namespace and name: the first that says something about a subset or the policy counts.
pub(crate) fn rules_of_service<'a>(
    services: &Services<'_>,
    objects: impl IntoIterator<Item = &'a Arc<Object>>,
) -> BTreeMap<ServiceId, Vec<(&'a ObjectKey, &'a DestinationRule)>> {
    let mut found: BTreeMap<ServiceId, Vec<(&ObjectKey, &DestinationRule)>> = BTreeMap::new();
    for object in objects {
        if let Spec::DestinationRule(rule) = &object.spec
            && let Some(id) = services.find(&rule.host.value, &object.key.namespace)
        {
            found.entry(id).or_default().push((&object.key, rule));
        }
    }
    for (id, rules) in &mut found {
        rules.sort_by_key(|(key, _)| {
            (
                key.namespace != id.namespace,
                key.namespace.clone(),
                key.name.clone(),
            )
        });
    }
    found
}
