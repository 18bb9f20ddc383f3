//! DestinationRules to traffic policies (SEMANTICS 3.1).

use std::collections::BTreeMap;

use ringmesh_wire::v1::snapshot::{Subset, TrafficPolicy};

use crate::rules::ObjectKey;
use crate::rules::traffic::{DestinationRule, PolicyGroups};

/// Policy of a service: whole, by port, and its subsets.
#[derive(Debug, Clone, Default)]
pub(super) struct Merged {
    pub(super) policy: TrafficPolicy,
    pub(super) ports: Vec<(u16, TrafficPolicy)>,
    pub(super) subsets: Vec<Subset>,
}

/// The rules of one service, first first: its policy counts; of subsets with one name the first.
pub(super) fn merged(rules: &[(&ObjectKey, &DestinationRule)]) -> Merged {
    let mut whole = Merged::default();
    if let Some((_, first)) = rules.first() {
        (whole.policy, whole.ports) = policies(&first.policy, &PolicyGroups::default());
    }
    let mut subsets: BTreeMap<&str, Subset> = BTreeMap::new();
    for (_, rule) in rules {
        for subset in &rule.subsets {
            subsets.entry(&subset.name.value).or_insert_with(|| {
                let (policy, port_policies) = policies(&subset.policy, &rule.policy);
                Subset {
                    name: subset.name.value.clone(),
                    labels: subset.labels.clone(),
                    policy,
                    port_policies,
                }
            });
        }
    }
    whole.subsets = subsets.into_values().collect();
    whole
}

/// Group by group: what `own` says, else `parent`, else the default. A port's settings replace
/// everything: groups they leave out are the defaults, not the parent's.
fn policies(
    own: &PolicyGroups,
    parent: &PolicyGroups,
) -> (TrafficPolicy, Vec<(u16, TrafficPolicy)>) {
    let none = PolicyGroups::default();
    let mut ports: BTreeMap<u16, TrafficPolicy> = BTreeMap::new();
    for (port, groups) in own.ports.iter().chain(&parent.ports) {
        ports.entry(*port).or_insert_with(|| policy(groups, &none));
    }
    (policy(own, parent), ports.into_iter().collect())
}

fn policy(own: &PolicyGroups, parent: &PolicyGroups) -> TrafficPolicy {
    let mut policy = TrafficPolicy::default();
    if let Some(balance) = own.balance.or(parent.balance) {
        policy.balance = balance;
    }
    if let Some(pool) = own.pool.or(parent.pool) {
        policy.connect_timeout_ms = pool.connect_timeout_ms;
        policy.idle_timeout_ms = pool.idle_timeout_ms;
        policy.limits = pool.limits;
    }
    policy.outlier = own.outlier.or(parent.outlier);
    if let Some(tls) = own.tls.or(parent.tls) {
        policy.tls = tls;
    }
    policy
}
