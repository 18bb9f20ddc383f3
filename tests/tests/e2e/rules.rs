//! The behaviour of each users' rule file, on processes. Time and chance at full length are the
//! demo's (`tests/demo.rs` runs it); here are order of application, activation and the edges.

use std::time::{Duration, Instant};

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::load::{Call, with_status};
use ringmesh_tests::mesh::Mesh;
use ringmesh_tests::{SOON, wait};

const CAST: [(&str, &str); 3] = [("reviews", "v2"), ("reviews", "v3"), ("ratings", "v1")];

fn status(mesh: &Mesh, version: &str) -> u16 {
    mesh.node("reviews", version)
        .call("ratings", "/ratings/0", &[])
        .expect("an answer")
        .status
}

fn becomes(mesh: &Mesh, version: &str, wanted: u16) {
    wait::until(&format!("{wanted} for {version}"), SOON, || {
        match status(mesh, version) {
            status if status == wanted => Ok(()),
            status => Err(status.to_string()),
        }
    })
    .expect("status");
}

#[test]
fn timeout_is_15_s_without_a_rule_and_10_s_with_it() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let mesh = Mesh::start("{}\n", &CAST);
    mesh.apply("subsets.yaml");
    let ratings = mesh.node("ratings", "v1");
    ratings.app.mode("hang").expect("mode");
    // The upper bounds leave a busy machine its time; with the rule it has to be less than without.
    for (rule, low_s, high_s) in [(None, 14.9, 25.0), (Some("timeout-10s.yaml"), 9.9, 14.5)] {
        if let Some(rule) = rule {
            mesh.apply(rule);
        }
        ratings.app.reset().expect("reset");
        let answer = mesh
            .node("reviews", "v3")
            .call("ratings", "/ratings/0", &[])
            .expect("an answer");
        assert_eq!(answer.status, 504, "{rule:?}");
        let took_s = answer.took.as_secs_f64();
        assert!((low_s..high_s).contains(&took_s), "{rule:?}: {took_s}");
        assert_eq!(
            answer.header("x-ringmesh-reason"),
            Some("timeout"),
            "{rule:?}"
        );
        assert_eq!(ratings.app.count().expect("count"), 1, "{rule:?}");
    }
}

#[test]
fn retries_go_to_a_hanging_callee_three_times_more() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let mesh = Mesh::start("{}\n", &CAST);
    mesh.apply("subsets.yaml");
    mesh.apply("retries-3x2s.yaml");
    let ratings = mesh.node("ratings", "v1");
    ratings.app.mode("hang").expect("mode");
    let answer = mesh
        .node("reviews", "v3")
        .call("ratings", "/ratings/0", &[])
        .expect("an answer");
    let arrivals = ratings.app.arrivals().expect("arrivals");
    assert_eq!((answer.status, arrivals.len()), (504, 4));
    for pair in arrivals.windows(2) {
        let gap_ms = (pair[1].at_us - pair[0].at_us) / 1000;
        assert!(
            (1_950..6_000).contains(&gap_ms),
            "{gap_ms} ms between tries"
        );
    }
    let ids: std::collections::BTreeSet<_> =
        arrivals.iter().map(|arrival| &arrival.request_id).collect();
    assert_eq!(ids.len(), 1, "one request, one id");
    // A try that answers ends it.
    ratings.app.mode("slow/1000").expect("mode");
    ratings.app.reset().expect("reset");
    assert_eq!(status(&mesh, "v3"), 200);
    assert_eq!(ratings.app.count().expect("count"), 1);
}

#[test]
fn a_rule_before_its_subsets_is_inactive_and_activates_by_itself() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let mesh = Mesh::start("{}\n", &CAST);
    becomes(&mesh, "v3", 200);
    let said = mesh.apply("fault-abort.yaml");
    assert!(said.contains("INACTIVE"), "{said}");
    assert!(said.contains("v1"), "names the missing subset: {said}");
    assert!(has_position(&said), "{said}");
    // The previous effective configuration stays: no 503, no abort.
    let call = Call {
        to: mesh.node("reviews", "v3").sidecar.outbound(),
        authority: "ratings:9080",
        target: "/ratings/0",
        caller: "reviews/v3",
    };
    let answers = call.times(100, 2).expect("answers");
    assert_eq!(with_status(&answers, 200), 100);
    mesh.apply("subsets.yaml");
    // 300 calls without one abort at 10 %: chance 1e-14.
    let answers = call.times(300, 4).expect("answers");
    assert!(with_status(&answers, 400) > 0);
    assert_eq!(with_status(&answers, 400) + with_status(&answers, 200), 300);
    // Taking the subsets away: again the last effective one, never a 503.
    mesh.delete("subsets.yaml");
    let answers = call.times(200, 4).expect("answers");
    assert_eq!(with_status(&answers, 503), 0);
}

#[test]
fn strict_turns_inactive_into_refusal() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let mesh = Mesh::start("{}\n", &[]);
    let rule = include_str!("../../../examples/rules/timeout-10s.yaml");
    let ran = mesh.try_apply("strict.yaml", rule, &["--strict"]);
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(has_position(&ran.err), "{ran:?}");
    let listed = mesh
        .control
        .tool(&["get"])
        .expect("tool")
        .done()
        .expect("get");
    assert!(!listed.contains("ratings"), "{listed}");
}

#[test]
fn a_deny_rule_alone_is_inactive_and_with_its_parts_denies_v3_only() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let mesh = Mesh::start("{}\n", &CAST);
    let said = mesh.apply("rule-deny-reviews-v3.yaml");
    assert!(said.contains("INACTIVE"), "{said}");
    for missing in ["denyreviewsv3handler", "denyreviewsv3request"] {
        assert!(said.contains(missing), "names {missing}: {said}");
    }
    becomes(&mesh, "v3", 200);
    mesh.apply("denier-complete.yaml");
    becomes(&mesh, "v3", 403);
    let ratings = mesh.node("ratings", "v1");
    ratings.app.reset().expect("reset");
    let denied = mesh
        .node("reviews", "v3")
        .call("ratings", "/ratings/0", &[])
        .expect("an answer");
    assert_eq!(denied.status, 403);
    assert!(denied.text().contains("Not allowed"), "{}", denied.text());
    assert_eq!(status(&mesh, "v2"), 200);
    assert_eq!(ratings.app.count().expect("count"), 1);
    mesh.delete("denier-complete.yaml");
    becomes(&mesh, "v3", 200);
}

#[test]
fn memquota_alone_and_with_its_parts_limits_v3_to_one_in_five_seconds() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let mesh = Mesh::start("{}\n", &CAST);
    becomes(&mesh, "v3", 200);
    for rule in ["memquota.yaml", "quota-complete.yaml"] {
        mesh.apply(rule);
        let ratings = mesh.node("ratings", "v1");
        ratings.app.reset().expect("reset");
        let start = Instant::now();
        let call = Call {
            to: mesh.node("reviews", "v3").sidecar.outbound(),
            authority: "ratings:9080",
            target: "/ratings/0",
            caller: "reviews/v3",
        };
        let mut statuses = Vec::new();
        let mut inside = 0;
        while start.elapsed() < Duration::from_millis(4_500) {
            let answers = call.times(5, 1).expect("answers");
            let count = ratings.app.count().expect("count");
            // What was answered later, on a machine with much else to do, may have been in the next five seconds.
            if start.elapsed() >= Duration::from_secs(5) {
                break;
            }
            inside = count;
            statuses.extend(answers.iter().map(|answer| answer.status));
            wait::pass(Duration::from_millis(50));
        }
        let allowed = statuses.iter().filter(|status| **status == 200).count();
        assert_eq!(allowed, 1, "{rule}: {statuses:?}");
        assert!(
            statuses.iter().all(|status| matches!(status, 200 | 429)),
            "{rule}: {statuses:?}"
        );
        assert_eq!(inside, 1, "{rule}");
        // Another caller has its own bucket and its own limit: 5 in 10 s. Within 9 s the first is not back yet.
        let other = Call {
            to: mesh.node("reviews", "v2").sidecar.outbound(),
            ..call
        };
        let mut allowed = 0;
        wait::until_true("five of v2", Duration::from_secs(9), || {
            allowed += with_status(&other.times(5, 1).expect("answers"), 200);
            allowed >= 5
        })
        .expect("five of v2");
        let all_taken = Instant::now();
        assert_eq!(allowed, 5, "{rule}");
        // One sidecar enforces it and holds everything.
        let shown = mesh.control.tool(&["quota"]).expect("quota").done();
        let shown = shown.expect("quota");
        assert!(
            shown.contains("64/64") && shown.contains("granting"),
            "{rule}: {shown}"
        );
        mesh.delete(rule);
        becomes(&mesh, "v3", 200);
        // The next rule has the same name and dimensions: both callers' windows must be over.
        wait::until_after(all_taken, Duration::from_millis(10_500));
    }
}

/// `file:line:column`.
fn has_position(text: &str) -> bool {
    text.split_whitespace().any(|word| {
        let mut parts = word.split(':');
        let file = parts.next().unwrap_or_default();
        let numbers = parts
            .take(2)
            .filter(|part| part.parse::<u32>().is_ok())
            .count();
        file.contains(".yaml") && numbers == 2
    })
}
