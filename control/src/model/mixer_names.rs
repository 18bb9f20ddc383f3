//! Names of Mixer objects: `NAME`, `NAME.KIND`, `NAME.NAMESPACE`, `NAME.KIND.NAMESPACE`.

use crate::rules::{Kind, ObjectKey};

const HANDLERS: [Kind; 3] = [Kind::MemQuota, Kind::Denier, Kind::Handler];
const INSTANCES: [Kind; 3] = [Kind::Quota, Kind::CheckNothing, Kind::Instance];

/// Dimensions of a quota without an instance of its own (examples/rules/memquota.yaml).
pub(crate) const USUAL_DIMENSIONS: [(&str, &str); 4] = [
    (
        "destination",
        "destination.labels[\"app\"] | destination.service.name | \"unknown\"",
    ),
    (
        "destinationVersion",
        "destination.labels[\"version\"] | \"unknown\"",
    ),
    (
        "source",
        "source.labels[\"app\"] | source.service.name | \"unknown\"",
    ),
    ("sourceVersion", "source.labels[\"version\"] | \"unknown\""),
];

/// The handler a rule of `namespace` means; `Err` is the full name of one of a kind there is not.
pub(crate) fn handler_key(reference: &str, namespace: &str) -> Result<ObjectKey, String> {
    key(reference, namespace, &HANDLERS, Kind::Handler)
}

/// The instance a rule of `namespace` means.
pub(crate) fn instance_key(reference: &str, namespace: &str) -> Result<ObjectKey, String> {
    key(reference, namespace, &INSTANCES, Kind::Instance)
}

/// The full name of an instance: what memquota calls it.
pub(crate) fn instance_name(key: &ObjectKey) -> String {
    format!("{}.{}.{}", key.name, key.kind, key.namespace)
}

fn key(
    reference: &str,
    namespace: &str,
    kinds: &[Kind],
    generic: Kind,
) -> Result<ObjectKey, String> {
    let kind_of = |word: &str| kinds.iter().copied().find(|kind| kind.name() == word);
    let made = |kind, namespace: &str, name: &str| {
        Ok(ObjectKey {
            kind,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        })
    };
    let parts: Vec<&str> = reference.split('.').collect();
    match parts.as_slice() {
        [name] => made(generic, namespace, name),
        [name, second] => match kind_of(second) {
            Some(kind) => made(kind, namespace, name),
            None if is_foreign_kind(second) => Err(format!("{reference}.{namespace}")),
            None => made(generic, second, name),
        },
        [name, second, third] => match kind_of(second) {
            Some(kind) => made(kind, third, name),
            None => Err(reference.to_owned()),
        },
        _ => Err(reference.to_owned()),
    }
}

/// Adapters and templates of Mixer that ringmesh does not have: not namespaces.
fn is_foreign_kind(word: &str) -> bool {
    matches!(
        word,
        "prometheus"
            | "stdio"
            | "fluentd"
            | "statsd"
            | "listchecker"
            | "listentry"
            | "logentry"
            | "metric"
            | "redisquota"
            | "rbac"
            | "opa"
            | "kubernetesenv"
            | "tracespan"
            | "authorization"
    )
}
