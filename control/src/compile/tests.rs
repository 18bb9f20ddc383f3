//! What sidecars get, as text under `golden/`; set `UPDATE_EXPECT=1` to write it anew.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use expect_test::{ExpectFile, expect_file};
use proptest::prelude::*;
use ringmesh_wire::v1::snapshot::{Body, QuotaRule};

use super::*;
use crate::model::Refused;
use crate::rules::{Kind, Object, ObjectKey};
use crate::testing::{example, model, node, objects, registry, trust};

fn compiled(all: Vec<Object>, scope: &NodeScope) -> (Snapshot, Vec<Explain>) {
    let resolution = model(7, all).resolve(&registry(), &Effective::default());
    compile(&resolution.effective, scope, &registry(), &trust()).unwrap()
}

/// Sections but for the services and endpoints of others.
fn shown(snapshot: &Snapshot, explain: &[Explain], about: &[&str]) -> String {
    let mut out = format!("revision {} for {}\n", snapshot.revision, snapshot.node);
    for section in &snapshot.sections {
        let body = section.open().unwrap();
        let other = match &body {
            Body::Service(service) => !about.contains(&service.id.name.as_str()),
            Body::Endpoints(endpoints) => !about.contains(&endpoints.service.name.as_str()),
            _ => false,
        };
        if other {
            writeln!(
                out,
                "{:?} {:?}: not shown",
                section.key.kind, section.key.name
            )
            .unwrap();
        } else {
            writeln!(
                out,
                "{:?} {:?}: {body:#?}",
                section.key.kind, section.key.name
            )
            .unwrap();
        }
    }
    for one in explain {
        writeln!(out, "why {}: {}", one.about, one.why).unwrap();
    }
    out
}

fn check(all: Vec<Object>, scope: &NodeScope, about: &[&str], wanted: &ExpectFile) {
    let (snapshot, explain) = compiled(all, scope);
    wanted.assert_eq(&shown(&snapshot, &explain, about));
}

#[test]
fn the_users_routes() {
    let files = ["subsets.yaml", "canary-1pct.yaml", "retries-3x2s.yaml"];
    let all = files.iter().flat_map(|file| example(file)).collect();
    check(
        all,
        &node("reviews", "v3"),
        &["ratings", "b"],
        &expect_file!["golden/routes.txt"],
    );
    let files = ["subsets.yaml", "fault-abort.yaml"];
    let all = files.iter().flat_map(|file| example(file)).collect();
    check(
        all,
        &node("reviews", "v3"),
        &[],
        &expect_file!["golden/fault-abort.txt"],
    );
}

#[test]
fn the_users_quota_and_denier() {
    check(
        example("memquota.yaml"),
        &node("ratings", "v1"),
        &[],
        &expect_file!["golden/memquota.txt"],
    );
    let files = ["quota-complete.yaml", "denier-complete.yaml"];
    let all = files.iter().flat_map(|file| example(file)).collect();
    check(
        all,
        &node("ratings", "v1"),
        &[],
        &expect_file!["golden/quota-complete.txt"],
    );
}

fn body(snapshot: &Snapshot, kind: ringmesh_wire::v1::SectionKind, name: &str) -> Option<Body> {
    let found = snapshot
        .sections
        .iter()
        .find(|section| section.key.kind == kind && section.key.name == name)?;
    Some(found.open().unwrap())
}

fn quotas(snapshot: &Snapshot) -> Vec<QuotaRule> {
    let bodies = snapshot
        .sections
        .iter()
        .map(|section| section.open().unwrap());
    bodies
        .filter_map(|body| match body {
            Body::Quota(quota) => Some(quota),
            _ => None,
        })
        .collect()
}

#[test]
fn memquota_alone_means_the_same_as_complete() {
    let scope = node("ratings", "v1");
    let alone = quotas(&compiled(example("memquota.yaml"), &scope).0);
    let complete = quotas(&compiled(example("quota-complete.yaml"), &scope).0);
    assert_eq!((alone.len(), complete.len()), (1, 1));
    assert_eq!(alone[0].name, "requestcount.quota.istio-system");
    let without = |quota: &QuotaRule| QuotaRule {
        dimensions: Vec::new(),
        ..quota.clone()
    };
    assert_eq!(without(&alone[0]), without(&complete[0]));
    let names = |quota: &QuotaRule| -> Vec<String> {
        quota
            .dimensions
            .iter()
            .map(|(name, _)| name.clone())
            .collect()
    };
    assert_eq!(names(&alone[0]), names(&complete[0]));
    // Two ratings sidecars share its buckets; nobody shares those of details.
    assert_eq!(alone[0].enforcers, 2);
    let details = quotas(&compiled(example("memquota.yaml"), &node("details", "v1")).0);
    assert_eq!(details[0].enforcers, 1);
}

/// A document of Mixer's API in istio-system.
fn mixer(kind: &str, name: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: config.istio.io/v1alpha2\nkind: {kind}\n\
         metadata: {{name: {name}, namespace: istio-system}}\nspec: {spec}\n"
    )
}

#[test]
fn every_quota_has_a_name_of_its_own() {
    let names = |text: &str| -> Vec<String> {
        let (snapshot, _) = compiled(objects(text), &node("ratings", "v1"));
        quotas(&snapshot).into_iter().map(|q| q.name).collect()
    };
    let limits = "{quotas: [{name: a.quota.istio-system, maxAmount: 5, validDuration: 1s}]}";
    let generic = format!("{{compiledAdapter: memquota, params: {limits}}}");
    let one = mixer("memquota", "one", limits);
    let two = mixer("memquota", "two", limits);
    assert_eq!(names(&one), ["a.quota.istio-system"]);
    assert_eq!(
        names(&format!("{one}{two}")),
        [
            "a.quota.istio-system#one.istio-system",
            "a.quota.istio-system#two.istio-system"
        ]
    );
    // Two kinds of handler with one name.
    assert_eq!(
        names(&format!("{one}{}", mixer("handler", "one", &generic))),
        [
            "a.quota.istio-system#one.istio-system#handler/one.istio-system",
            "a.quota.istio-system#one.istio-system#memquota/one.istio-system",
        ]
    );
    // One rule that hands an instance to two handlers.
    let instance = mixer("quota", "a", "{dimensions: {}}");
    let rule = "{actions: [{handler: one.memquota, instances: [a.quota]}, \
                {handler: two.memquota, instances: [a.quota]}]}";
    let rule = mixer("rule", "both", rule);
    assert_eq!(
        names(&format!("{one}{two}{instance}{rule}")),
        [
            "a.quota.istio-system#both.istio-system#memquota/one.istio-system",
            "a.quota.istio-system#both.istio-system#memquota/two.istio-system",
        ]
    );
}

#[test]
fn a_limit_whose_rule_is_not_in_force_limits_nobody() {
    let limits = "{quotas: [{name: a.quota.istio-system, maxAmount: 5, validDuration: 1s}]}";
    let memquota = mixer("memquota", "one", limits);
    let instance = mixer("quota", "a", "{dimensions: {}}");
    let rule = mixer(
        "rule",
        "r",
        "{actions: [{handler: one.memquota, instances: [a.quota]}]}",
    );
    let spec = |also: &str| {
        let spec = format!("{{rules: [{{quotas: [{{quota: a, charge: 2}}{also}]}}]}}");
        mixer("QuotaSpec", "s", &spec)
    };
    let binding = |also: &str| {
        let spec = format!("{{quotaSpecs: [{{name: s}}{also}], services: [{{service: '*'}}]}}");
        mixer("QuotaSpecBinding", "b", &spec)
    };
    // Charges, and the notes of the mesh without what the compiler adds.
    let outcome = |texts: &[&str]| {
        let resolution =
            model(1, objects(&texts.concat())).resolve(&registry(), &Effective::default());
        let scope = node("ratings", "v1");
        let (snapshot, _) = compile(&resolution.effective, &scope, &registry(), &trust()).unwrap();
        let charges: Vec<u64> = quotas(&snapshot).iter().map(|q| q.charge).collect();
        let notes: Vec<String> = resolution
            .statuses
            .into_iter()
            .flat_map(|s| s.notes)
            .collect();
        (charges, notes.join("\n"))
    };
    assert_eq!(outcome(&[&memquota]).0, [1], "alone it holds for all");
    let whole = [&*memquota, &*instance, &*rule, &*spec(""), &*binding("")];
    assert_eq!(outcome(&whole), (vec![2], String::new()));

    let (charges, notes) = outcome(&[&memquota, &rule]);
    assert_eq!(charges, [0; 0], "the rule waits for its instance");
    let note =
        "a.quota.istio-system: no rule in force hands it to this handler: it is not enforced";
    assert_eq!(notes, note);
    // A rule that hands it something else: as in Mixer, nobody asks for this limit.
    let other = mixer(
        "rule",
        "r",
        "{actions: [{handler: one.memquota, instances: [b.quota]}]}",
    );
    let b = mixer("quota", "b", "{dimensions: {}}");
    let (charges, notes) = outcome(&[&memquota, &instance, &b, &other]);
    assert_eq!(charges, [0; 0]);
    assert!(notes.contains(note), "{notes}");

    let waiting = spec(", {quota: nowhere}");
    let (charges, notes) = outcome(&[&memquota, &instance, &rule, &waiting]);
    assert_eq!(charges, [0; 0], "the QuotaSpec waits");
    assert_eq!(
        notes,
        "a.quota.istio-system: no QuotaSpec in force names it: it is not enforced"
    );

    let waiting = binding(", {name: nowhere}");
    let (charges, notes) = outcome(&[&memquota, &instance, &rule, &spec(""), &waiting]);
    assert_eq!(charges, [0; 0], "the binding waits");
    assert_eq!(
        notes,
        "no QuotaSpecBinding in force names it: nothing is charged by it"
    );
}

/// As in Mixer; who wrote it is told.
#[test]
fn a_window_in_parts_of_a_second_is_a_longer_one_and_says_so() {
    let limits = "{quotas: [{name: a.quota.istio-system, maxAmount: 5, validDuration: 1ms, overrides: [\
                  {dimensions: {to: x}, maxAmount: 1, validDuration: 1500ms}, \
                  {dimensions: {to: y}, maxAmount: 1, validDuration: 2000ms}]}]}";
    let text =
        mixer("memquota", "one", limits) + &mixer("quota", "a", "{dimensions: {to: '\"x\"'}}");
    let resolution = model(1, objects(&text)).resolve(&registry(), &Effective::default());
    let scope = node("ratings", "v1");
    let (snapshot, _) = compile(&resolution.effective, &scope, &registry(), &trust()).unwrap();
    let [quota] = &*quotas(&snapshot) else {
        panic!("one quota");
    };
    let overrides = quota.overrides.iter().map(|over| over.limit.window_ms);
    assert_eq!(quota.limit.window_ms, 1_000);
    assert_eq!(overrides.collect::<Vec<_>>(), [2_000, 2_000]);
    let notes = resolution.statuses.into_iter().flat_map(|s| s.notes);
    let notes: Vec<String> = notes.filter(|note| note.contains("counts as")).collect();
    let wanted = [
        "5:75: spec.quotas[0].validDuration: 1ms counts as 1s: windows are whole seconds, rounded up",
        "5:143: spec.quotas[0].overrides[0].validDuration: 1500ms counts as 2s: windows are whole seconds, rounded up",
    ];
    assert_eq!(notes, wanted);
}

/// What it says of the limit is not known, so the limit is not taken for one without it.
#[test]
fn a_limit_that_an_unreadable_object_may_speak_of_limits_nobody() {
    let limits = "{quotas: [{name: a.quota.istio-system, maxAmount: 5, validDuration: 1s}]}";
    let memquota = mixer("memquota", "one", limits);
    let spec = mixer(
        "QuotaSpec",
        "s",
        "{rules: [{quotas: [{quota: a, charge: 2}]}]}",
    );
    let instance = mixer("quota", "a", "{dimensions: {}}");
    let charges = |texts: &[&str], kind: Kind, text: &str| {
        let key = ObjectKey {
            kind,
            namespace: "istio-system".into(),
            name: "old".into(),
        };
        let refused = Refused {
            key: key.clone(),
            file: "old.yaml".into(),
            text: text.into(),
            errors: Vec::new(),
        };
        let mut model = model(1, objects(&texts.concat()));
        model.refused.insert(key, Arc::new(refused));
        let effective = model.resolve(&registry(), &Effective::default()).effective;
        let scope = node("ratings", "v1");
        let (snapshot, _) = compile(&effective, &scope, &registry(), &trust()).unwrap();
        let quotas = quotas(&snapshot);
        quotas.iter().map(|q| q.charge).collect::<Vec<_>>()
    };
    let whole = [&*memquota, &*instance, &*spec];
    let nobody: [u64; 0] = [];
    assert_eq!(charges(&whole, Kind::Rule, "handler: two.memquota"), [2]);
    assert_eq!(charges(&whole, Kind::Rule, "handler: one.memquota"), nobody);
    let plain = [&*memquota, &*instance];
    assert_eq!(charges(&plain, Kind::QuotaSpec, "quota: b"), [1]);
    assert_eq!(charges(&plain, Kind::QuotaSpec, "quota: a"), nobody);
    let binding = Kind::QuotaSpecBinding;
    assert_eq!(charges(&whole, binding, "name: t"), [2]);
    assert_eq!(charges(&whole, binding, "name: s"), nobody);
}

/// The rule says that it stays in force as it was, with what it referred to: so do limit and charge.
#[test]
fn a_limit_outlives_its_handler_while_its_rule_is_in_force() {
    let limits = "{quotas: [{name: a.quota.istio-system, maxAmount: 5, validDuration: 1s}]}";
    let memquota = mixer("memquota", "one", limits);
    let generic = format!("{{compiledAdapter: memquota, params: {limits}}}");
    let generic = mixer("handler", "two", &generic);
    let instance = mixer("quota", "a", "{dimensions: {}}");
    let rule = |handler: &str| {
        let actions = format!("{{actions: [{{handler: {handler}, instances: [a.quota]}}]}}");
        mixer("rule", "r", &actions)
    };
    let spec = "{rules: [{quotas: [{quota: a, charge: 2}]}]}";
    let spec = mixer("QuotaSpec", "s", spec);
    let binding = "{quotaSpecs: [{name: s}], services: [{name: ratings, namespace: default}]}";
    let binding = mixer("QuotaSpecBinding", "b", binding);
    for (handler, named) in [(&memquota, "one.memquota"), (&generic, "two.handler")] {
        let rule = rule(named);
        let whole = [&**handler, &*instance, &*rule, &*spec, &*binding];
        let first = model(1, objects(&whole.concat())).resolve(&registry(), &Effective::default());
        let kept = |texts: &[&str], before: &Effective, revision: u64| {
            model(revision, objects(&texts.concat())).resolve(&registry(), before)
        };
        let charged = |effective: &Effective, service: &str| {
            let scope = node(service, "v1");
            let (snapshot, _) = compile(effective, &scope, &registry(), &trust()).unwrap();
            let quotas = quotas(&snapshot).into_iter();
            quotas
                .map(|q| (q.name, q.charge, q.limit))
                .collect::<Vec<_>>()
        };
        let was = charged(&first.effective, "ratings");
        assert_eq!(was.len(), 1, "{was:?}");
        // What is deleted: the handler; with it the instance; and the QuotaSpec, which the binding needs.
        let without: [&[&str]; 3] = [
            &[&instance, &rule, &spec, &binding],
            &[&rule, &spec, &binding],
            &[&rule, &binding],
        ];
        let mut last = first;
        for (revision, texts) in (2..).zip(without) {
            last = kept(texts, &last.effective, revision);
            assert_eq!(charged(&last.effective, "ratings"), was, "{texts:?}");
            assert_eq!(charged(&last.effective, "reviews"), [], "{texts:?}");
        }
        // With the rule goes what was held for it.
        let gone = kept(&[&binding], &last.effective, 9);
        assert_eq!(charged(&gone.effective, "ratings"), []);
    }
}

#[test]
fn overrides_name_services_in_any_form() {
    let limits = "{quotas: [{name: a.quota.istio-system, maxAmount: 5, validDuration: 1s, overrides: [\
                  {dimensions: {to: ratings.default.svc.cluster.local, host: a.b.svc}, maxAmount: 1, validDuration: 1s}]}]}";
    let memquota = mixer("memquota", "one", limits);
    let dimensions = "{dimensions: {to: 'destination.labels[\"app\"] | destination.service', host: request.host}}";
    let instance = mixer("quota", "a", dimensions);
    let rules = objects(&format!("{memquota}{instance}"));
    let quotas = quotas(&compiled(rules, &node("ratings", "v1")).0);
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        quotas[0].overrides[0].dimensions,
        [pair("host", "a.b.svc"), pair("to", "ratings.default")]
    );
}

const CALLERS: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [ratings]
  http:
  - name: for-v3
    match: [{sourceLabels: {version: v3}, uri: {prefix: /a}}, {sourceNamespace: other}]
    route: [{destination: {host: ratings}}]
  - name: for-all-of-v3
    match: [{sourceLabels: {version: v3}}]
    route: [{destination: {host: ratings}}]
  - name: last
    route: [{destination: {host: ratings}}]
";

fn route_names(snapshot: &Snapshot, name: &str) -> Vec<(String, usize)> {
    let kind = ringmesh_wire::v1::SectionKind::Routes;
    let Some(Body::Routes(routes)) = body(snapshot, kind, name) else {
        panic!("no routes {name}");
    };
    let routes = routes.http.iter();
    routes
        .map(|route| (route.name.clone(), route.matches.len()))
        .collect()
}

#[test]
fn conditions_on_the_caller_are_decided_here() {
    let to = |version: &str| {
        let (snapshot, _) = compiled(objects(CALLERS), &node("reviews", version));
        route_names(&snapshot, "ratings.default")
    };
    assert_eq!(
        to("v3"),
        [("for-v3".to_owned(), 1), ("for-all-of-v3".to_owned(), 0)]
    );
    assert_eq!(to("v2"), [("last".to_owned(), 0)]);
}

#[test]
fn rules_of_several_objects_for_one_host_are_joined() {
    let one = |name: &str, namespace: &str, rules: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
             spec:\n  hosts: [ratings.default]\n  http:\n{rules}"
        )
    };
    let to = "route: [{destination: {host: ratings.default}}]";
    let text = one(
        "a",
        "alien",
        &format!(
            "  - {{name: a1, match: [{{uri: {{prefix: /a}}}}], {to}}}\n  - {{name: a2, {to}}}\n"
        ),
    ) + &one(
        "z",
        "default",
        &format!(
            "  - {{name: z1, match: [{{uri: {{prefix: /z}}}}], {to}}}\n  - {{name: z2, {to}}}\n"
        ),
    );
    let (snapshot, explain) = compiled(objects(&text), &node("reviews", "v1"));
    let names: Vec<String> = route_names(&snapshot, "z.default+a.alien")
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    assert_eq!(names, ["z1", "a1", "z2"]);
    assert!(
        explain
            .iter()
            .any(|e| e.about == "routes z.default+a.alien")
    );
}

const POLICY: &str = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: ratings}
spec:
  host: ratings
  trafficPolicy:
    loadBalancer: {simple: ROUND_ROBIN}
    connectionPool: {tcp: {maxConnections: 7, connectTimeout: 1s}}
    portLevelSettings:
    - port: {number: 9080}
      outlierDetection: {consecutive5xxErrors: 3}
  subsets:
  - name: v1
    labels: {version: v1}
    trafficPolicy:
      connectionPool: {http: {http1MaxPendingRequests: 9}}
";

#[test]
fn a_subsets_policy_is_merged_group_by_group() {
    let (snapshot, _) = compiled(objects(POLICY), &node("reviews", "v1"));
    let kind = ringmesh_wire::v1::SectionKind::Service;
    let Some(Body::Service(service)) = body(&snapshot, kind, "ratings.default") else {
        panic!("no service");
    };
    use ringmesh_wire::v1::snapshot::Balance;
    let subset = &service.subsets[0].policy;
    // The group is replaced whole, other groups are inherited.
    assert_eq!(subset.balance, Balance::RoundRobin);
    assert_eq!(subset.limits.connections_max, u32::MAX);
    assert_eq!(subset.limits.pending_max, 9);
    assert_eq!(subset.connect_timeout_ms, 10_000);
    assert_eq!(service.policy.limits.connections_max, 7);
    // A port's settings replace everything, with defaults for what they leave out.
    let (port, policy) = &service.port_policies[0];
    assert_eq!((*port, policy.balance), (9080, Balance::LeastRequest));
    assert_eq!(policy.outlier.unwrap().consecutive_5xx, 3);
    assert_eq!(policy.limits.connections_max, u32::MAX);
    // Where the subset names no ports, its groups are laid over those of the port.
    let [(9080, on_port)] = service.subsets[0].port_policies.as_slice() else {
        panic!("{:?}", service.subsets[0].port_policies);
    };
    assert_eq!(on_port.limits.pending_max, 9);
    assert_eq!(on_port.outlier, policy.outlier);
    assert_eq!(on_port.balance, Balance::LeastRequest);
    // Where it does, that is all there is.
    let own = POLICY.replace(
        "      connectionPool: {http: {http1MaxPendingRequests: 9}}\n",
        "      connectionPool: {http: {http1MaxPendingRequests: 9}}\n      \
         portLevelSettings: [{port: {number: 9080}, loadBalancer: {simple: RANDOM}}]\n",
    );
    let service = ratings_of(&own);
    let (_, on_port) = &service.subsets[0].port_policies[0];
    assert_eq!(on_port.balance, Balance::Random);
    assert_eq!(on_port.limits.pending_max, u32::MAX);
    assert_eq!(on_port.outlier, None);
}

/// The service `ratings` of these rules.
fn ratings_of(rules: &str) -> Service {
    let (snapshot, _) = compiled(objects(rules), &node("reviews", "v1"));
    let kind = ringmesh_wire::v1::SectionKind::Service;
    match body(&snapshot, kind, "ratings.default") {
        Some(Body::Service(service)) => service,
        other => panic!("{other:?}"),
    }
}

#[test]
fn of_several_destination_rules_the_first_with_a_policy_says_it() {
    use ringmesh_wire::v1::snapshot::Balance;
    let rule = |name: &str, fields: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
             metadata: {{name: {name}}}\nspec: {{host: ratings, {fields}}}\n"
        )
    };
    let balance = |simple: &str| format!("trafficPolicy: {{loadBalancer: {{simple: {simple}}}}}");
    let subset = |name: &str| format!("subsets: [{{name: {name}, labels: {{version: v1}}}}]");
    let service = ratings_of(&format!(
        "{}{}{}",
        rule("a", &subset("one")),
        rule(
            "b",
            &format!("{}, {}", balance("ROUND_ROBIN"), subset("two"))
        ),
        rule("c", &format!("{}, {}", balance("RANDOM"), subset("three"))),
    ));
    assert_eq!(service.policy.balance, Balance::RoundRobin);
    let subsets: Vec<(&str, Balance)> = service
        .subsets
        .iter()
        .map(|subset| (subset.name.as_str(), subset.policy.balance))
        .collect();
    assert_eq!(
        subsets,
        [
            ("one", Balance::RoundRobin),
            ("three", Balance::Random),
            ("two", Balance::RoundRobin),
        ]
    );
}

const PEER: &str = "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: mesh, namespace: istio-system}
spec: {mtls: {mode: PERMISSIVE}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: ratings}
spec:
  selector: {matchLabels: {app: ratings}}
  mtls: {mode: UNSET}
  portLevelMtls: {9080: {mode: DISABLE}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: whole}
spec: {mtls: {mode: UNSET}}
";

#[test]
fn the_narrowest_peer_authentication_that_says_something_counts() {
    use ringmesh_wire::v1::snapshot::MtlsMode;
    let mesh = |text: &str, scope: &NodeScope| {
        let (snapshot, _) = compiled(objects(text), scope);
        match snapshot.sections[0].open().unwrap() {
            Body::Mesh(mesh) => mesh,
            other => panic!("{other:?}"),
        }
    };
    let ratings = mesh(PEER, &node("ratings", "v1"));
    assert_eq!(ratings.mtls, MtlsMode::Permissive);
    assert_eq!(ratings.mtls_ports, [(9080, MtlsMode::Disable)]);
    let reviews = mesh(PEER, &node("reviews", "v1"));
    assert!(reviews.mtls_ports.is_empty());
    assert_eq!(mesh("", &node("reviews", "v1")).mtls, MtlsMode::Strict);
}

fn peer_authentication(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: security.istio.io/v1\nkind: PeerAuthentication\n\
         metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
    )
}

/// How callers reach the endpoints of `reviews`, by version: with mutual TLS or without.
fn ways_to_reviews(rules: &str) -> BTreeMap<String, Vec<bool>> {
    let (snapshot, _) = compiled(objects(rules), &node("productpage", "v1"));
    let kind = ringmesh_wire::v1::SectionKind::Endpoints;
    let Some(Body::Endpoints(endpoints)) = body(&snapshot, kind, "reviews.default") else {
        panic!("no endpoints");
    };
    let mut ways: BTreeMap<String, Vec<bool>> = BTreeMap::new();
    for endpoint in endpoints.endpoints {
        assert_eq!(endpoint.mesh_port.is_some(), endpoint.identity.is_some());
        ways.entry(endpoint.labels["version"].clone())
            .or_default()
            .push(endpoint.mesh_port.is_some());
    }
    ways
}

#[test]
fn callers_do_without_mutual_tls_exactly_where_a_port_takes_plaintext_only() {
    let mutual = ways_to_reviews("");
    assert!(mutual.len() > 1, "{mutual:?}");
    assert!(mutual.values().flatten().all(|way| *way), "{mutual:?}");
    let plain: BTreeMap<String, Vec<bool>> = mutual
        .iter()
        .map(|(version, ways)| (version.clone(), vec![false; ways.len()]))
        .collect();
    let at = peer_authentication;
    let disable = "{mtls: {mode: DISABLE}}";
    // By mesh; by namespace; narrower says otherwise, both ways round; another namespace's is no
    // business of this one.
    let mesh = at("all", "istio-system", disable);
    assert_eq!(ways_to_reviews(&mesh), plain);
    let namespace = at("all", "default", disable);
    assert_eq!(ways_to_reviews(&namespace), plain);
    assert_eq!(ways_to_reviews(&at("all", "elsewhere", disable)), mutual);
    for mode in ["STRICT", "PERMISSIVE"] {
        let other = format!("{{mtls: {{mode: {mode}}}}}");
        assert_eq!(
            ways_to_reviews(&format!("{mesh}{}", at("all", "default", &other))),
            mutual
        );
    }
    let unset = at("all", "default", "{mtls: {mode: UNSET}}");
    assert_eq!(ways_to_reviews(&format!("{mesh}{unset}")), plain);
    // By workload.
    let v1 = "{selector: {matchLabels: {version: v1}}, mtls: {mode: DISABLE}}";
    let by_workload = ways_to_reviews(&at("v1", "default", v1));
    assert_eq!(by_workload["v1"], plain["v1"]);
    assert_eq!(by_workload["v2"], mutual["v2"]);
    // By port: of the workload, and only where the selector holds.
    let port = |port: u16| {
        format!(
            "{{selector: {{matchLabels: {{version: v1}}}}, mtls: {{mode: STRICT}}, \
             portLevelMtls: {{{port}: {{mode: DISABLE}}}}}}"
        )
    };
    let by_port = ways_to_reviews(&at("v1", "default", &port(9080)));
    assert_eq!(by_port["v1"], plain["v1"]);
    assert_eq!(by_port["v2"], mutual["v2"]);
    assert_eq!(ways_to_reviews(&at("v1", "default", &port(9081))), mutual);
    // Back from a wider DISABLE.
    let back =
        "{selector: {matchLabels: {version: v1}}, portLevelMtls: {9080: {mode: PERMISSIVE}}}";
    let back = ways_to_reviews(&format!("{mesh}{}", at("v1", "default", back)));
    assert_eq!(back["v1"], mutual["v1"]);
    assert_eq!(back["v2"], plain["v2"]);
}

const EXTERNAL: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api}
spec:
  hosts: [api.example.com, \"*\"]
  ports: [{number: 80, name: http}, {number: 443, name: tls, targetPort: 8443}]
  resolution: STATIC
  endpoints: [{address: 192.0.2.1, ports: {http: 8080}}, {address: 192.0.2.2, weight: 3}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: everyone}
spec: {rules: [{}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: entry}
spec:
  targetRefs: [{kind: ServiceEntry, name: api}]
  rules: [{to: [{operation: {methods: [GET]}}]}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: selected}
spec: {selector: {matchLabels: {app: ratings}}, action: DENY, rules: [{}]}
";

#[test]
fn policies_of_external_services_hold_at_the_caller() {
    let mut scope = node("reviews", "v1");
    let all = || {
        let mut all = objects(EXTERNAL);
        all.extend(example("memquota.yaml"));
        all
    };
    check(
        all(),
        &scope,
        &["api.example.com", "*"],
        &expect_file!["golden/external-mesh.txt"],
    );
    scope.mode = Mode::Standalone;
    check(
        all(),
        &scope,
        &["api.example.com", "*"],
        &expect_file!["golden/external-standalone.txt"],
    );
}

const NAMED: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: own}
spec:
  hosts: [A.example.com, b.example.com]
  ports: [{number: 80, name: http}, {number: 443, name: tls, targetPort: 8443}]
  resolution: DNS
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: others}
spec:
  hosts: [c.example.com, \"*.d.example.com\"]
  ports: [{number: 80, name: http}]
  resolution: DNS
  endpoints:
  - {address: EU.example.com, ports: {http: 8080}, weight: 3, labels: {version: v1}, locality: r1/z1}
  - {address: 192.0.2.1}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: cdn}
spec:
  hosts: [cdn.example.com]
  ports: [{number: 80, name: http}]
  resolution: DNS_ROUND_ROBIN
";

/// `service resolution: name ports weight labels zone, ...; addresses`.
fn named(snapshot: &Snapshot) -> Vec<String> {
    let mut all = Vec::new();
    for section in &snapshot.sections {
        let Ok(Body::Names(names)) = section.open() else {
            continue;
        };
        assert_eq!(section.key.name, names.service.to_string());
        let endpoints: Vec<String> = names
            .endpoints
            .iter()
            .map(|e| {
                let ports = e
                    .ports
                    .iter()
                    .map(|p| format!("{}>{}", p.service_port, p.app_port));
                let ports: Vec<String> = ports.collect();
                format!(
                    "{} {} {} {:?} {}",
                    e.name,
                    ports.join("+"),
                    e.weight,
                    e.labels,
                    e.zone
                )
            })
            .collect();
        let kind = ringmesh_wire::v1::SectionKind::Endpoints;
        let Some(Body::Endpoints(beside)) = body(snapshot, kind, &section.key.name) else {
            panic!("no endpoints section");
        };
        let beside: Vec<_> = beside
            .endpoints
            .iter()
            .map(|e| e.address.to_string())
            .collect();
        all.push(format!(
            "{} {:?}: {}; {}",
            names.service.name,
            names.resolution,
            endpoints.join(", "),
            beside.join("+")
        ));
    }
    all
}

#[test]
fn names_travel_as_names() {
    let (snapshot, _) = compiled(objects(NAMED), &node("reviews", "v1"));
    assert_eq!(
        named(&snapshot),
        [
            "*.d.example.com Each: eu.example.com 80>8080 3 {\"version\": \"v1\"} z1; 192.0.2.1",
            "a.example.com Each: a.example.com 80>80+443>8443 1 {} ; ",
            "b.example.com Each: b.example.com 80>80+443>8443 1 {} ; ",
            "c.example.com Each: eu.example.com 80>8080 3 {\"version\": \"v1\"} z1; 192.0.2.1",
            "cdn.example.com One: cdn.example.com 80>80 1 {} ; ",
        ]
    );
    assert_eq!(snapshot.schema(), 2);
    let (without, _) = compiled(objects(EXTERNAL), &node("reviews", "v1"));
    assert_eq!(without.schema(), 1, "without names it is as it was");
}

#[test]
fn a_held_subset_is_still_compiled() {
    let mut all = example("subsets.yaml");
    all.extend(example("timeout-10s.yaml"));
    let first = model(1, all).resolve(&registry(), &Effective::default());
    let second = model(2, example("timeout-10s.yaml")).resolve(&registry(), &first.effective);
    let scope = node("reviews", "v1");
    let (snapshot, _) = compile(&second.effective, &scope, &registry(), &trust()).unwrap();
    let kind = ringmesh_wire::v1::SectionKind::Service;
    let Some(Body::Service(service)) = body(&snapshot, kind, "ratings.default") else {
        panic!("no service");
    };
    assert_eq!(service.subsets.len(), 1);
    assert_eq!(route_names(&snapshot, "ratings.default").len(), 1);
    // Edited so that subset and policy go: the old version speaks for its subset only.
    let rule = |fields: &str| {
        format!(
            "---\napiVersion: networking.istio.io/v1\nkind: DestinationRule\n\
             metadata: {{name: ratings}}\nspec: {{host: ratings{fields}}}\n"
        )
    };
    let full = ", trafficPolicy: {loadBalancer: {simple: RANDOM}}, \
                subsets: [{name: v1, labels: {version: v1}}]";
    let version = |revision, fields: &str, before: &Effective| {
        let mut all = objects(&rule(fields));
        all.extend(example("timeout-10s.yaml"));
        model(revision, all).resolve(&registry(), before).effective
    };
    let first = version(1, full, &Effective::default());
    let second = version(2, "", &first);
    let (snapshot, _) = compile(&second, &scope, &registry(), &trust()).unwrap();
    let Some(Body::Service(service)) = body(&snapshot, kind, "ratings.default") else {
        panic!("no service");
    };
    use ringmesh_wire::v1::snapshot::Balance;
    assert_eq!(service.policy.balance, Balance::LeastRequest);
    assert_eq!(service.subsets[0].policy.balance, Balance::Random);
}

proptest! {
    /// The snapshot does not depend on the order of the documents, and a change of one object
    /// changes no section but its own.
    #[test]
    fn equal_rules_give_equal_sections(order in Just((0..14).collect::<Vec<usize>>()).prop_shuffle()) {
        let files = ["subsets.yaml", "canary-1pct.yaml", "timeout-10s.yaml", "quota-complete.yaml", "denier-complete.yaml"];
        let all: Vec<Object> = files.iter().flat_map(|file| example(file)).collect();
        let scope = node("ratings", "v1");
        let (wanted, _) = compiled(all.clone(), &scope);
        let shuffled = order.iter().filter_map(|at| all.get(*at).cloned()).collect();
        let (got, _) = compiled(shuffled, &scope);
        prop_assert_eq!(&got, &wanted);
        let mut changed = all;
        changed.extend(example("retries-3x2s.yaml"));
        let (other, _) = compiled(changed, &scope);
        let differing: Vec<String> = other
            .order()
            .into_iter()
            .zip(wanted.order())
            .filter(|(a, b)| a != b)
            .map(|((key, _), _)| key.name)
            .collect();
        prop_assert_eq!(differing, vec!["ratings.default".to_owned()]);
    }
}
