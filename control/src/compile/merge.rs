//! DestinationRules to traffic policies.

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

/// The rules of one service, first first: the policy is that of the first that has one; of subsets
/// with one name the first counts, on top of its own rule's policy, or of that one.
pub(super) fn merged(rules: &[(&ObjectKey, &DestinationRule)]) -> Merged {
    let none = PolicyGroups::default();
    let has_one = |rule: &DestinationRule| rule.policy != none;
    // Of a rule that is held in older versions too, for their subsets, only the newest speaks here.
    let newest = rules.chunk_by(|a, b| a.0 == b.0).filter_map(<[_]>::first);
    let mut having = newest.map(|(_, rule)| rule).filter(|rule| has_one(rule));
    let common = having.next().map_or(&none, |rule| &rule.policy);
    let mut whole = Merged::default();
    (whole.policy, whole.ports) = policies(common, &none);
    let mut subsets: BTreeMap<&str, Subset> = BTreeMap::new();
    for (_, rule) in rules {
        let parent = if has_one(rule) { &rule.policy } else { common };
        for subset in &rule.subsets {
            subsets.entry(&subset.name.value).or_insert_with(|| {
                let (policy, port_policies) = policies(&subset.policy, parent);
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
/// everything of the policy they stand in: groups they leave out are the defaults. So a port that
/// `own` names is as it says there; of one that only `parent` names `own` still says its groups
/// (Istio's `MergeSubsetTrafficPolicy`).
fn policies(
    own: &PolicyGroups,
    parent: &PolicyGroups,
) -> (TrafficPolicy, Vec<(u16, TrafficPolicy)>) {
    let none = PolicyGroups::default();
    let mut ports: BTreeMap<u16, TrafficPolicy> = BTreeMap::new();
    for (port, groups) in &own.ports {
        ports.entry(*port).or_insert_with(|| policy(groups, &none));
    }
    for (port, groups) in &parent.ports {
        ports.entry(*port).or_insert_with(|| policy(own, groups));
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
