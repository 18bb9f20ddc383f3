//! What a user should know about an object that is in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::mixer_names::{USUAL_DIMENSIONS, handler_key, instance_key, instance_name};
use super::mixer_uses;
use super::registry::RegistryView;
use super::resolve::Effective;
use super::services::{Services, rules_of_service};
use crate::rules::mixer::{MemQuota, MemQuotaLimit, QuotaSpec, Rounded, Rule};
use crate::rules::traffic::VirtualService;
use crate::rules::{Kind, Object, ObjectKey, Place, ROOT_NAMESPACE, Spec};

/// Notes by object.
pub(super) fn notes(
    effective: &Effective,
    services: &Services<'_>,
    registry: &RegistryView,
) -> BTreeMap<ObjectKey, Vec<String>> {
    let mut notes = BTreeMap::new();
    routes(effective, &mut notes);
    destination_rules(effective, services, registry, &mut notes);
    for object in effective.objects.values() {
        match &object.spec {
            Spec::MemQuota(quota) => memquota(object, quota, effective, &mut notes),
            // A policy of targetRefs selects no workload; one of the root namespace holds in all.
            Spec::AuthorizationPolicy(authz) if authz.entries.is_empty() => {
                let root = object.key.namespace == ROOT_NAMESPACE;
                selector(object, registry, &authz.selector, root, &mut notes);
            }
            Spec::PeerAuthentication(auth) => {
                // A selector is of its own namespace, in the root namespace too.
                let all = object.key.namespace == ROOT_NAMESPACE && auth.selector.is_empty();
                selector(object, registry, &auth.selector, all, &mut notes);
            }
            Spec::QuotaSpec(spec) => unbound(object, spec, effective, &mut notes),
            Spec::Rule(rule) => actions(object, rule, effective, &mut notes),
            Spec::MeshSettings(_) => {
                let first = effective
                    .objects
                    .values()
                    .find(|o| matches!(o.spec, Spec::MeshSettings(_)));
                if let Some(first) = first.filter(|first| first.key != object.key) {
                    add(
                        &mut notes,
                        &object.key,
                        format!("{} counts instead: there is one", first.key),
                    );
                }
            }
            Spec::ServiceEntry(entry) => {
                for host in &entry.hosts {
                    let id = ringmesh_wire::ServiceId::new(&host.value, &object.key.namespace);
                    if registry.services.contains_key(&id) {
                        add(
                            &mut notes,
                            &object.key,
                            format!(
                                "host {} is a registered service: its sidecars count, not this entry",
                                host.value
                            ),
                        );
                    } else if services
                        .external
                        .get(&id)
                        .is_some_and(|o| o.key != object.key)
                    {
                        add(
                            &mut notes,
                            &object.key,
                            format!(
                                "host {} is declared by {} already, which counts",
                                host.value, services.external[&id].key
                            ),
                        );
                    }
                }
            }
            _ => {}
        }
    }
    notes
}

fn add(notes: &mut BTreeMap<ObjectKey, Vec<String>>, key: &ObjectKey, note: String) {
    notes.entry(key.clone()).or_default().push(note);
}

/// `FILE:PLACE`, as the missing references of objects that are not in force are told.
fn at(effective: &Effective, key: &ObjectKey, place: &Place) -> String {
    let object = effective.objects.get(key);
    object.map_or_else(|| place.to_string(), |object| object.at(place))
}

/// A policy for workloads nobody has registered: most often a label or the namespace is misspelled. Without
/// any registered workload nothing can be told.
fn selector(
    object: &Object,
    registry: &RegistryView,
    selector: &BTreeMap<String, String>,
    in_all_namespaces: bool,
    notes: &mut BTreeMap<ObjectKey, Vec<String>>,
) {
    let mut workloads = registry.services.iter().flat_map(|(id, service)| {
        let endpoints = service.endpoints.iter();
        endpoints.map(move |endpoint| (&id.namespace, &endpoint.labels))
    });
    let mut any = false;
    let selected = workloads.any(|(namespace, labels)| {
        any = true;
        (in_all_namespaces || *namespace == object.key.namespace)
            && selector
                .iter()
                .all(|(name, value)| labels.get(name) == Some(value))
    });
    if selected || !any {
        return;
    }
    let place = match in_all_namespaces {
        true => "any namespace".to_owned(),
        false => format!("namespace {}", object.key.namespace),
    };
    let labels: Vec<String> = selector
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let labels = match labels.is_empty() {
        true => String::new(),
        false => format!(" with {}", labels.join(",")),
    };
    let note = format!("selects no registered workload now: there is none{labels} in {place}");
    add(notes, &object.key, note);
}

/// Hosts more than one VirtualService speaks of, and rules behind a catch-all.
fn routes(effective: &Effective, notes: &mut BTreeMap<ObjectKey, Vec<String>>) {
    let mut by_host: BTreeMap<String, Vec<&ObjectKey>> = BTreeMap::new();
    for object in effective.objects.values() {
        let Spec::VirtualService(service) = &object.spec else {
            continue;
        };
        for host in &service.hosts {
            let name = full_host(&host.value, &object.key.namespace);
            by_host.entry(name).or_default().push(&object.key);
        }
        dead_rules(object, service, notes);
    }
    for (host, keys) in by_host {
        for key in &keys {
            let others: Vec<String> = keys
                .iter()
                .filter(|other| other != &key)
                .map(|other| other.full_name())
                .collect();
            if !others.is_empty() {
                add(
                    notes,
                    key,
                    format!(
                        "host {host} is routed by {} too: rules with conditions come first, the \
                         host's own namespace before others, then by namespace and name; of rules \
                         without conditions the first counts",
                        others.join(" and ")
                    ),
                );
            }
        }
    }
}

/// A host so that two ways to write it compare equal.
pub(super) fn full_host(host: &str, namespace: &str) -> String {
    super::services::mesh_name(host, namespace).map_or_else(|| host.to_owned(), |id| id.to_string())
}

fn dead_rules(
    object: &Object,
    service: &VirtualService,
    notes: &mut BTreeMap<ObjectKey, Vec<String>>,
) {
    let catch_all = service.http.iter().position(|rule| rule.matches.is_empty());
    if let Some(at) = catch_all
        && let Some(next) = service.http.get(at + 1)
    {
        add(
            notes,
            &object.key,
            format!(
                "{}: spec.http[{at}] matches everything, so the rules from here on are never reached",
                object.at(&next.place)
            ),
        );
    }
}

/// Two DestinationRules for one service; subsets nobody is in.
fn destination_rules(
    effective: &Effective,
    services: &Services<'_>,
    registry: &RegistryView,
    notes: &mut BTreeMap<ObjectKey, Vec<String>>,
) {
    for (id, rules) in rules_of_service(services, effective.objects.values()) {
        for (key, _) in rules.iter().skip(1) {
            add(
                notes,
                key,
                format!("{} is about {id} too and counts first", rules[0].0),
            );
        }
        let Some(registered) = registry.services.get(&id) else {
            continue;
        };
        if registered.endpoints.is_empty() {
            continue;
        }
        for (key, rule) in rules {
            for subset in &rule.subsets {
                let inside = registered.endpoints.iter().any(|endpoint| {
                    subset
                        .labels
                        .iter()
                        .all(|(name, value)| endpoint.labels.get(name) == Some(value))
                });
                if !inside {
                    add(
                        notes,
                        key,
                        format!(
                            "{}: no endpoint of {id} is in subset {} now",
                            at(effective, key, &subset.name.place),
                            subset.name.value
                        ),
                    );
                }
            }
        }
    }
}

/// What a memquota does on its own.
fn memquota(
    object: &Arc<Object>,
    quota: &MemQuota,
    effective: &Effective,
    notes: &mut BTreeMap<ObjectKey, Vec<String>>,
) {
    let is_instance = |name: &str| {
        effective
            .objects
            .values()
            .any(|o| matches!(o.spec, Spec::Quota(_)) && instance_name(&o.key) == name)
    };
    // A rule or QuotaSpec that waits does nothing yet, and yet who wrote it does not mean that the
    // limit holds without it.
    let rules = |o: &Object, name: &str| match &o.spec {
        Spec::Rule(rule) => mixer_uses::hands(rule, &o.key.namespace, &object.key, name),
        _ => false,
    };
    let unread = |kind, name: &str| effective.refused_may_name(kind, name);
    let named = unread(Kind::Rule, &object.key.name)
        || effective.spoken().any(|o| match &o.spec {
            Spec::Rule(rule) => mixer_uses::names(rule, &o.key.namespace, &object.key),
            _ => false,
        });
    let charges = |o: &Object, name: &str| match &o.spec {
        Spec::QuotaSpec(spec) => mixer_uses::units(spec, &o.key.namespace, name) > 0,
        _ => false,
    };
    for limit in &quota.quotas {
        for Rounded { written, window_s } in &limit.rounded {
            let (place, text) = (&written.place, &written.value);
            let note = format!(
                "{place}: {text} counts as {window_s}s: windows are whole seconds, rounded up"
            );
            add(notes, &object.key, note);
        }
        let name = &limit.name.value;
        unfit_overrides(object, limit, effective, notes);
        let in_force = || effective.objects.values();
        let ruled = in_force().any(|o| rules(o, name));
        if named && !ruled {
            let note =
                format!("{name}: no rule in force hands it to this handler: it is not enforced");
            add(notes, &object.key, note);
            continue;
        }
        let charged = in_force().any(|o| charges(o, name));
        let waits = || effective.waiting.iter().any(|o| charges(o, name));
        if !charged && (waits() || unread(Kind::QuotaSpec, name)) {
            let note = format!("{name}: no QuotaSpec in force names it: it is not enforced");
            add(notes, &object.key, note);
            continue;
        }
        let mut lacking = Vec::new();
        if !is_instance(name) {
            lacking.push("no quota instance of this name: the dimensions are source, sourceVersion, destination, destinationVersion");
        }
        if !ruled {
            lacking.push("no rule: it holds for every request");
        }
        if !charged {
            lacking.push("no QuotaSpec: each request is charged 1 at every service");
        }
        if !lacking.is_empty() {
            add(
                notes,
                &object.key,
                format!("{name}: {}", lacking.join("; ")),
            );
        }
    }
}

/// Overrides by a dimension the quota does not have: they never fit.
fn unfit_overrides(
    object: &Arc<Object>,
    limit: &MemQuotaLimit,
    effective: &Effective,
    notes: &mut BTreeMap<ObjectKey, Vec<String>>,
) {
    let name = &limit.name.value;
    let instances = effective.objects.values().chain(&effective.held);
    let own = instances
        .filter(|o| instance_name(&o.key) == *name)
        .find_map(|o| match &o.spec {
            Spec::Quota(quota) => Some(
                quota
                    .dimensions
                    .iter()
                    .map(|(name, _)| name.as_str())
                    .collect(),
            ),
            _ => None,
        });
    let own: Vec<&str> = own.unwrap_or_else(|| USUAL_DIMENSIONS.map(|(name, _)| name).to_vec());
    for dimension in &limit.override_dimensions {
        if own.contains(&dimension.value.as_str()) {
            continue;
        }
        let note = format!(
            "{}: {name} has no dimension {}: this override never holds; its dimensions are {}",
            object.at(&dimension.place),
            dimension.value,
            if own.is_empty() {
                "none".to_owned()
            } else {
                own.join(", ")
            },
        );
        add(notes, &object.key, note);
    }
}

/// Actions of a rule that do nothing: a limit is asked for that nobody has set (Mixer granted it
/// without a word), or for something that has no dimensions.
fn actions(
    object: &Arc<Object>,
    rule: &Rule,
    effective: &Effective,
    notes: &mut BTreeMap<ObjectKey, Vec<String>>,
) {
    let find = |key: &ObjectKey| effective.objects.get(key).map(|object| &object.spec);
    for action in &rule.actions {
        let Ok(handler) = handler_key(&action.handler.value, &object.key.namespace) else {
            continue;
        };
        let Some(Spec::MemQuota(memquota)) = find(&handler) else {
            continue;
        };
        for reference in &action.instances {
            let Ok(key) = instance_key(&reference.value, &object.key.namespace) else {
                continue;
            };
            let name = instance_name(&key);
            let why = match find(&key) {
                Some(Spec::CheckNothing) => "has no dimensions: memquota takes quota instances",
                _ if memquota.quotas.iter().any(|limit| limit.name.value == name) => continue,
                _ => "has no limit in this memquota: nothing is charged",
            };
            add(
                notes,
                &object.key,
                format!("{}: {name} {why}", object.at(&reference.place)),
            );
        }
    }
}

fn unbound(
    object: &Arc<Object>,
    _: &QuotaSpec,
    effective: &Effective,
    notes: &mut BTreeMap<ObjectKey, Vec<String>>,
) {
    let binds = |o: &Arc<Object>| match &o.spec {
        Spec::QuotaSpecBinding(binding) => mixer_uses::binds(binding, &object.key),
        _ => false,
    };
    if effective.objects.values().any(binds) {
        return;
    }
    let unread = effective.refused_may_name(Kind::QuotaSpecBinding, &object.key.name);
    let note = if unread || effective.waiting.iter().any(binds) {
        "no QuotaSpecBinding in force names it: nothing is charged by it"
    } else {
        "no QuotaSpecBinding names it: it is charged at every service"
    };
    add(notes, &object.key, note.to_owned());
}
