//! Which Mixer objects use which, as written: the one in force and the one that waits for what it
//! lacks alike.

use super::mixer_names::{handler_key, instance_key, instance_name};
use super::references::spec_quota_key;
use crate::rules::ObjectKey;
use crate::rules::mixer::{QuotaSpec, QuotaSpecBinding, Rule};

/// Whether a rule of `namespace` names this handler, whatever it hands to it.
pub(crate) fn names(rule: &Rule, namespace: &str, handler: &ObjectKey) -> bool {
    let mut actions = rule.actions.iter();
    actions.any(|action| handler_key(&action.handler.value, namespace).as_ref() == Ok(handler))
}

/// Whether a rule of `namespace` hands this instance, by full name, to this handler.
pub(crate) fn hands(rule: &Rule, namespace: &str, handler: &ObjectKey, instance: &str) -> bool {
    rule.actions.iter().any(|action| {
        handler_key(&action.handler.value, namespace).as_ref() == Ok(handler)
            && action.instances.iter().any(|reference| {
                instance_key(&reference.value, namespace)
                    .is_ok_and(|key| instance_name(&key) == instance)
            })
    })
}

/// Units that a QuotaSpec of `namespace` charges for an instance; 0 if it does not name it.
pub(crate) fn units(spec: &QuotaSpec, namespace: &str, instance: &str) -> u64 {
    let named = spec.charges.iter().filter(|(quota, _)| {
        spec_quota_key(&quota.value, namespace).is_ok_and(|key| {
            let plain = instance_name(&key);
            plain == instance || plain.replace(".quota.", ".instance.") == instance
        })
    });
    named.map(|(_, units)| *units).sum()
}

/// Whether a binding names this QuotaSpec.
pub(crate) fn binds(binding: &QuotaSpecBinding, spec: &ObjectKey) -> bool {
    let mut names = binding.specs.iter();
    names.any(|(name, namespace)| name.value == spec.name && *namespace == spec.namespace)
}
