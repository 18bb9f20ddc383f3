//! Which objects are in force, and what the others lack.

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::rules::{Object, ObjectKey};
use crate::testing::{example, model, objects, registry};

/// All statuses and what is in force, as text.
fn shown(resolution: &Resolution) -> String {
    let mut out = String::new();
    for status in &resolution.statuses {
        out.push_str(&format!("{} {}\n", status.key, status.state.word()));
        if let State::Inactive(missing) = &status.state {
            for one in missing {
                out.push_str(&format!("  {}:{one}\n", status.file));
            }
        }
        for note in &status.notes {
            out.push_str(&format!("  note: {note}\n"));
        }
    }
    for (key, object) in &resolution.effective.objects {
        out.push_str(&format!(
            "in force: {key} of {}:{}\n",
            object.file, object.first_line
        ));
    }
    for object in &resolution.effective.held {
        out.push_str(&format!("held: {} of {}\n", object.key, object.file));
    }
    out
}

fn check(resolution: &Resolution, wanted: &Expect) {
    wanted.assert_eq(&shown(resolution));
}

/// Applies files one after another, each as its own revision.
fn apply_all(files: &[&str]) -> Resolution {
    let mut last = Resolution::default();
    let mut all: Vec<Object> = Vec::new();
    for (at, file) in (1..).zip(files) {
        all.extend(example(file));
        last = model(at, all.clone()).resolve(&registry(), &last.effective);
    }
    last
}

#[test]
fn a_missing_subset_keeps_a_rule_inactive_until_it_appears() {
    check(
        &apply_all(&["timeout-10s.yaml"]),
        &expect![[r#"
        VirtualService ratings.default INACTIVE
          timeout-10s.yaml:12:17: spec.http[0].route[0].destination.subset: subset v1 of ratings.default does not exist; apply a DestinationRule for ratings.default that defines it
    "#]],
    );
    check(
        &apply_all(&["timeout-10s.yaml", "subsets.yaml"]),
        &expect![[r#"
            VirtualService ratings.default ACTIVE
            DestinationRule ratings.default ACTIVE
            DestinationRule reviews.default ACTIVE
            in force: VirtualService ratings.default of timeout-10s.yaml:1
            in force: DestinationRule ratings.default of subsets.yaml:15
            in force: DestinationRule reviews.default of subsets.yaml:1
        "#]],
    );
}

#[test]
fn a_missing_host_keeps_a_rule_inactive_until_it_registers() {
    let rules = model(1, example("canary-1pct.yaml"));
    let nobody = RegistryView::default();
    let first = rules.resolve(&nobody, &Effective::default());
    check(
        &first,
        &expect![[r#"
        VirtualService b.default INACTIVE
          canary-1pct.yaml:11:15: spec.http[0].route[0].destination.host: host b.default does not exist; start a sidecar that registers it, or apply a ServiceEntry
          canary-1pct.yaml:15:15: spec.http[0].route[1].destination.host: host b.default does not exist; start a sidecar that registers it, or apply a ServiceEntry
        DestinationRule b.default INACTIVE
          canary-1pct.yaml:24:9: spec.host: host b.default does not exist; start a sidecar that registers it, or apply a ServiceEntry
    "#]],
    );
    let second = rules.resolve(&registry(), &first.effective);
    assert!(second.all_active(), "{}", shown(&second));
}

#[test]
fn a_rule_without_handler_and_instance_names_both() {
    check(
        &apply_all(&["rule-deny-reviews-v3.yaml"]),
        &expect![[r#"
        rule denyreviewsv3.default INACTIVE
          rule-deny-reviews-v3.yaml:8:14: spec.actions[0].handler: handler denyreviewsv3handler.denier.default does not exist; apply it
          rule-deny-reviews-v3.yaml:9:18: spec.actions[0].instances[0]: instance denyreviewsv3request.checknothing.default does not exist; apply it
    "#]],
    );
    check(
        &apply_all(&["denier-complete.yaml"]),
        &expect![[r#"
        rule denyreviewsv3.default ACTIVE
        denier denyreviewsv3handler.default ACTIVE
        checknothing denyreviewsv3request.default ACTIVE
        in force: rule denyreviewsv3.default of denier-complete.yaml:16
        in force: denier denyreviewsv3handler.default of denier-complete.yaml:1
        in force: checknothing denyreviewsv3request.default of denier-complete.yaml:10
    "#]],
    );
}

#[test]
fn memquota_works_alone_and_says_with_what() {
    check(
        &apply_all(&["memquota.yaml"]),
        &expect![[r#"
        memquota handler.istio-system ACTIVE
          note: requestcount.quota.istio-system: no quota instance of this name: the dimensions are source, sourceVersion, destination, destinationVersion; no rule: it holds for every request; no QuotaSpec: each request is charged 1 at every service
        in force: memquota handler.istio-system of memquota.yaml:1
    "#]],
    );
    check(
        &apply_all(&["quota-complete.yaml"]),
        &expect![[r#"
        rule quota.istio-system ACTIVE
        memquota handler.istio-system ACTIVE
        quota requestcount.istio-system ACTIVE
        QuotaSpec request-count.istio-system ACTIVE
        QuotaSpecBinding request-count.istio-system ACTIVE
        in force: rule quota.istio-system of quota-complete.yaml:35
        in force: memquota handler.istio-system of quota-complete.yaml:1
        in force: quota requestcount.istio-system of quota-complete.yaml:23
        in force: QuotaSpec request-count.istio-system of quota-complete.yaml:46
        in force: QuotaSpecBinding request-count.istio-system of quota-complete.yaml:57
    "#]],
    );
}

const V1: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [ratings]
  http: [{route: [{destination: {host: ratings, subset: v1}}], timeout: 1s}]
";
const V9: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [ratings]
  http: [{route: [{destination: {host: ratings, subset: v9}}], timeout: 9s}]
";

#[test]
fn what_was_in_force_stays_when_the_new_version_does_not_resolve() {
    let mut all = example("subsets.yaml");
    all.extend(objects(V1));
    let first = model(1, all.clone()).resolve(&registry(), &Effective::default());
    assert!(first.all_active());
    all.extend(objects(V9));
    let second = model(2, all).resolve(&registry(), &first.effective);
    check(
        &second,
        &expect![[r#"
        VirtualService ratings.default INACTIVE
          f.yaml:7:57: spec.http[0].route[0].destination.subset: subset v9 of ratings.default does not exist; apply a DestinationRule for ratings.default that defines it
          note: the version of f.yaml:1 stays in force
        DestinationRule ratings.default ACTIVE
        DestinationRule reviews.default ACTIVE
        in force: VirtualService ratings.default of f.yaml:1
        in force: DestinationRule ratings.default of subsets.yaml:15
        in force: DestinationRule reviews.default of subsets.yaml:1
    "#]],
    );
    let key = &objects(V1)[0].key;
    assert!(second.effective.objects[key].text.contains("1s"));
}

#[test]
fn what_was_in_force_stays_when_what_it_needs_is_deleted() {
    let mut all = example("subsets.yaml");
    all.extend(objects(V1));
    let first = model(1, all).resolve(&registry(), &Effective::default());
    let second = model(2, objects(V1)).resolve(&registry(), &first.effective);
    check(
        &second,
        &expect![[r#"
        VirtualService ratings.default INACTIVE
          f.yaml:7:57: spec.http[0].route[0].destination.subset: subset v1 of ratings.default does not exist; apply a DestinationRule for ratings.default that defines it
          note: it stays in force as it was, with what it referred to
        in force: VirtualService ratings.default of f.yaml:1
        held: DestinationRule ratings.default of subsets.yaml
    "#]],
    );
    // Again and again: what is held stays held.
    let third = model(3, objects(V1)).resolve(&registry(), &second.effective);
    assert_eq!(shown(&third), shown(&second));
    // Its deletion releases what was held.
    let fourth = model(4, []).resolve(&registry(), &third.effective);
    assert_eq!(shown(&fourth), "");

    let complete = model(1, example("denier-complete.yaml"));
    let first = complete.resolve(&registry(), &Effective::default());
    let second =
        model(2, example("rule-deny-reviews-v3.yaml")).resolve(&registry(), &first.effective);
    assert_eq!(second.effective.held.len(), 2, "{}", shown(&second));
}

const TO_PORT: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: ratings}
spec:
  hosts: [ratings]
  http: [{route: [{destination: {host: ratings, port: {number: 9081}}}]}]
  tcp: [{route: [{destination: {host: api.example.com, port: {number: 81}}}]}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: api}
spec:
  hosts: [api.example.com]
  ports: [{number: 80, name: http}, {number: 443, name: tls}]
  resolution: DNS
";

#[test]
fn a_route_to_a_port_the_service_does_not_have_is_not_in_force() {
    let first = model(1, objects(TO_PORT)).resolve(&registry(), &Effective::default());
    check(
        &first,
        &expect![[r#"
        VirtualService ratings.default INACTIVE
          f.yaml:7:64: spec.http[0].route[0].destination.port.number: port 9081 of ratings.default does not exist; its port is 9080
          f.yaml:8:71: spec.tcp[0].route[0].destination.port.number: port 81 of api.example.com.default does not exist; its ports are 80, 443
        ServiceEntry api.default ACTIVE
        in force: ServiceEntry api.default of f.yaml:10
    "#]],
    );
    // A port that goes later leaves the rest of the rule in force.
    let right = TO_PORT.replace("9081", "9080").replace("81}", "80}");
    let right = || model(2, objects(&right));
    let second = right().resolve(&registry(), &first.effective);
    assert!(second.all_active(), "{}", shown(&second));
    let mut without = registry();
    let ratings = ringmesh_wire::ServiceId::new("ratings", "default");
    without.services.get_mut(&ratings).unwrap().ports[0].number = 9082;
    let third = right().resolve(&without, &second.effective);
    check(
        &third,
        &expect![[r#"
            VirtualService ratings.default INACTIVE
              f.yaml:7:64: spec.http[0].route[0].destination.port.number: port 9080 of ratings.default does not exist; its port is 9082
              note: it stays in force as it was, with what it referred to
            ServiceEntry api.default ACTIVE
            in force: VirtualService ratings.default of f.yaml:1
            in force: ServiceEntry api.default of f.yaml:10
        "#]],
    );
}

/// A DestinationRule for ratings with these subsets; `version` makes their labels.
fn subsets_of_ratings(version: &str, names: &[&str]) -> Vec<Object> {
    let subsets: Vec<String> = names
        .iter()
        .map(|name| format!("{{name: {name}, labels: {{version: {version}}}}}"))
        .collect();
    objects(&format!(
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: ratings}}\n\
         spec: {{host: ratings, subsets: [{}]}}\n",
        subsets.join(", ")
    ))
}

#[test]
fn what_was_in_force_stays_when_what_it_needs_is_edited_away() {
    let with = |rule: Vec<Object>, routes: &[&str]| {
        let routes = routes.iter().flat_map(|text| objects(text));
        rule.into_iter().chain(routes).collect::<Vec<_>>()
    };
    let v9 = V9.replace("name: ratings", "name: nine");
    let mut last = Effective::default();
    let mut apply = |revision, all: Vec<Object>| {
        let resolution = model(revision, all).resolve(&registry(), &last);
        last = resolution.effective.clone();
        resolution
    };
    let first = apply(1, with(subsets_of_ratings("old", &["v1"]), &[V1]));
    assert!(first.all_active(), "{}", shown(&first));
    // The subset goes, the rule stays: again and again.
    let edited = || with(subsets_of_ratings("new", &["v9"]), &[V1, &v9]);
    let second = apply(2, edited());
    assert!(second.effective.objects.contains_key(&objects(V1)[0].key));
    assert_eq!(second.effective.held.len(), 1, "{}", shown(&second));
    for revision in 3..6 {
        assert_eq!(shown(&apply(revision, edited())), shown(&second));
    }
    // Two versions held at once, the newer first: both VirtualServices stay.
    let third = apply(6, with(subsets_of_ratings("newest", &["v2"]), &[V1, &v9]));
    let texts = |of: &Resolution| -> Vec<String> {
        let held = of.effective.held.iter();
        held.map(|object| object.text.to_string()).collect()
    };
    assert_eq!(texts(&third).len(), 2, "{}", shown(&third));
    assert!(
        texts(&third)[0].contains("version: new"),
        "{:?}",
        texts(&third)
    );
    let again = apply(7, with(subsets_of_ratings("newest", &["v2"]), &[V1, &v9]));
    assert_eq!(texts(&again), texts(&third));
    assert_eq!(shown(&again), shown(&third));
}

#[test]
fn two_virtual_services_for_one_host_are_told() {
    let other = V1
        .replace("name: ratings", "name: other")
        .replace("[ratings]", "[ratings.default]");
    let mut all = example("subsets.yaml");
    all.extend(objects(V1));
    all.extend(objects(&other));
    let both = model(1, all).resolve(&registry(), &Effective::default());
    let notes: Vec<&String> = both
        .statuses
        .iter()
        .filter(|status| status.key.kind == crate::rules::Kind::VirtualService)
        .flat_map(|status| &status.notes)
        .collect();
    assert_eq!(notes.len(), 2);
    assert!(notes[0].starts_with("host ratings.default is routed by ratings.default too"));
}

#[test]
fn a_rule_that_charges_nothing_says_so() {
    let rule = |instance: &str| {
        format!(
            "---\napiVersion: config.istio.io/v1alpha2\nkind: rule\nmetadata: {{name: {}, namespace: istio-system}}\n\
             spec: {{actions: [{{handler: handler.memquota, instances: [{instance}]}}]}}\n",
            instance.replace('.', "-")
        )
    };
    let instances = "apiVersion: config.istio.io/v1alpha2\nkind: quota\nmetadata: {name: other, namespace: istio-system}\n\
                     spec: {dimensions: {}}\n---\napiVersion: config.istio.io/v1alpha2\nkind: checknothing\n\
                     metadata: {name: nothing, namespace: istio-system}\nspec:\n";
    let mut all = example("memquota.yaml");
    all.extend(objects(&format!(
        "{instances}{}{}",
        rule("other.quota"),
        rule("nothing.checknothing")
    )));
    let resolution = model(1, all).resolve(&registry(), &Effective::default());
    assert!(resolution.all_active());
    let rules = resolution
        .statuses
        .iter()
        .filter(|s| s.key.kind == crate::rules::Kind::Rule);
    let notes: Vec<String> = rules.flat_map(|status| status.notes.clone()).collect();
    assert_eq!(notes.len(), 2, "{notes:?}");
    assert!(notes[0].ends_with(
        "nothing.checknothing.istio-system has no dimensions: memquota takes quota instances"
    ));
    assert!(
        notes[1].ends_with(
            "other.quota.istio-system has no limit in this memquota: nothing is charged"
        )
    );
}

const FILES: [&str; 6] = [
    "canary-1pct.yaml",
    "denier-complete.yaml",
    "fault-delay.yaml",
    "quota-complete.yaml",
    "subsets.yaml",
    "memquota.yaml",
];

proptest! {
    /// Documents in any order, applied in any number of steps, end in the same.
    #[test]
    fn order_does_not_matter(
        order in Just((0..16).collect::<Vec<usize>>()).prop_shuffle(),
        cuts in prop::collection::vec(any::<bool>(), 16),
    ) {
        let mut distinct: std::collections::BTreeMap<ObjectKey, Object> = Default::default();
        for object in FILES.iter().flat_map(|file| example(file)) {
            distinct.insert(object.key.clone(), object);
        }
        let all: Vec<Object> = distinct.into_values().collect();
        let wanted = model(1, all.clone()).resolve(&registry(), &Effective::default());
        let mut last = Resolution::default();
        let mut so_far = Vec::new();
        for (step, at) in order.iter().enumerate() {
            so_far.extend(all.get(*at).cloned());
            if cuts[step] || step + 1 == order.len() {
                last = model(1, so_far.clone()).resolve(&registry(), &last.effective);
            }
        }
        prop_assert!(all.len() <= order.len());
        prop_assert_eq!(shown(&last), shown(&wanted));
    }
}

/// All notes on objects whose name begins with `name`.
fn notes_on(text: &str, name: &str) -> Vec<String> {
    let resolution = model(1, objects(text)).resolve(&registry(), &Effective::default());
    let statuses = resolution.statuses.into_iter();
    statuses
        .filter(|status| status.key.name.starts_with(name))
        .flat_map(|status| status.notes)
        .collect()
}

#[test]
fn a_policy_that_selects_nobody_says_so() {
    let policy = |kind: &str, name: &str, namespace: &str, spec: &str| {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: {kind}\n\
             metadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n"
        )
    };
    let with = |app: &str| format!("{{selector: {{matchLabels: {{app: {app}}}}}}}");
    let authz = "AuthorizationPolicy";
    let note = |rest: &str| {
        vec![format!(
            "selects no registered workload now: there is none{rest}"
        )]
    };
    for (namespace, spec, wanted) in [
        ("default", with("reviews"), vec![]),
        (
            "default",
            with("reveiws"),
            note(" with app=reveiws in namespace default"),
        ),
        (
            "prod",
            with("reviews"),
            note(" with app=reviews in namespace prod"),
        ),
        ("prod", "{}".to_owned(), note(" in namespace prod")),
        ("istio-system", with("reviews"), vec![]),
        (
            "istio-system",
            with("reveiws"),
            note(" with app=reveiws in any namespace"),
        ),
    ] {
        let text = policy(authz, "one", namespace, &spec);
        assert_eq!(notes_on(&text, "one"), wanted, "{text}");
    }
    let strict = |app: &str| {
        format!("{{selector: {{matchLabels: {{app: {app}}}}}, mtls: {{mode: STRICT}}}}")
    };
    for (namespace, spec, wanted) in [
        ("default", strict("reviews"), vec![]),
        (
            "default",
            strict("reveiws"),
            note(" with app=reveiws in namespace default"),
        ),
        (
            "istio-system",
            strict("reviews"),
            note(" with app=reviews in namespace istio-system"),
        ),
        ("istio-system", "{mtls: {mode: STRICT}}".to_owned(), vec![]),
    ] {
        let text = policy("PeerAuthentication", "one", namespace, &spec);
        assert_eq!(notes_on(&text, "one"), wanted, "{text}");
    }
    // Nobody is there yet: nothing can be told.
    let lonely = objects(&policy(authz, "one", "default", &with("reviews")));
    let resolution = model(1, lonely).resolve(&RegistryView::default(), &Effective::default());
    assert_eq!(resolution.statuses[0].notes, [""; 0]);
}

#[test]
fn an_override_by_a_dimension_the_quota_has_not_says_so_with_its_place() {
    let memquota = "apiVersion: config.istio.io/v1alpha2\nkind: memquota\n\
                    metadata: {name: handler, namespace: istio-system}\nspec:\n  quotas:\n  \
                    - name: requestcount.quota.istio-system\n    maxAmount: 5\n    validDuration: 1s\n    overrides:\n    \
                    - dimensions:\n        destination: ratings\n        sorce: reviews\n      maxAmount: 1\n      validDuration: 1s\n";
    let wrong = |notes: &[String]| {
        let mut wrong = notes.iter().filter(|note| note.contains("sorce"));
        wrong.next().cloned()
    };
    let place = "12:9: spec.quotas[0].overrides[0].dimensions.sorce: requestcount.quota.istio-system has no dimension sorce";
    let note = wrong(&notes_on(memquota, "handler")).unwrap();
    assert!(note.contains(place), "{note}");
    assert!(
        note.ends_with("its dimensions are destination, destinationVersion, source, sourceVersion"),
        "{note}"
    );
    let instance = |dimensions: &str| {
        format!(
            "{memquota}---\napiVersion: config.istio.io/v1alpha2\nkind: quota\n\
             metadata: {{name: requestcount, namespace: istio-system}}\nspec: {{dimensions: {{{dimensions}}}}}\n"
        )
    };
    let has = instance("destination: destination.service, sorce: source.service");
    assert_eq!(wrong(&notes_on(&has, "handler")), None);
    let other = instance("destination: destination.service");
    let note = wrong(&notes_on(&other, "handler")).unwrap();
    assert!(note.ends_with("its dimensions are destination"), "{note}");
}
