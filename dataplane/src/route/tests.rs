use proptest::prelude::*;
use ringmesh_wire::snapshot::{
    Abort, AbortWith, Action, Delay, Fault, HttpMatch, Redirect, Retry, RetryOn, Rewrite,
    StringMatch, TcpRoute,
};

use super::choose::scaled;
use super::fault::{FaultPlan, decide};
use super::retry::{Next, RetryState, TryFacts, TryOutcome, is_idempotent};
use super::{Decided, choose, rewrite};
use crate::reason::Reason;
use crate::tables::testing::{Draft, Headers, exact, get, on, prefix, to, uri};
use crate::tables::{Destined, RouteIndex, Tables, Target};
use crate::view::RequestView;

fn draft() -> Draft {
    Draft::new()
        .service("reviews", &[9080])
        .subset("reviews", "v1", &[("version", "v1")])
        .subset("reviews", "v2", &[("version", "v2")])
        .endpoint("reviews", "10.0.0.1", &[("version", "v1")])
        .endpoint("reviews", "10.0.0.2", &[("version", "v2")])
        .service("two", &[8080, 9090])
}

fn known(tables: &Tables, request: &RequestView<'_>) -> Destined {
    match tables.resolve_http(request.authority, None) {
        Target::Known(known) => known,
        other => panic!("{other:?}"),
    }
}

/// Cluster the request goes to, or the reason it does not.
fn goes(tables: &Tables, request: &RequestView<'_>, random: u64) -> String {
    match choose(tables, &known(tables, request), request, random) {
        Ok(choice) => match choice.decided {
            Decided::Forward { cluster, .. } => tables.cluster(cluster).name.to_string(),
            Decided::Redirect(to) => format!("redirect {}", to.status),
            Decided::Respond { status, body } => format!("respond {status} {body}"),
        },
        Err(reason) => reason.code().into(),
    }
}

/// A table whose first route takes what `wanted` matches to v2, the rest to v1.
fn split_by(wanted: HttpMatch) -> Tables {
    let hit = on(wanted, to(&[("reviews", "v2", 1)]));
    draft()
        .http("reviews", vec![hit, to(&[("reviews", "v1", 1)])])
        .tables()
}

fn hits(tables: &Tables, request: &RequestView<'_>) -> bool {
    match goes(tables, request, 0).as_str() {
        "reviews.default:9080/v2" => true,
        "reviews.default:9080/v1" => false,
        other => panic!("{other}"),
    }
}

#[test]
fn paths_match_as_istio_says() {
    let regex = |text: &str| StringMatch::Regex(text.into());
    for (wanted, fold, path, hit) in [
        (prefix("/foo"), false, "/foobar", true),
        (prefix("/foo"), false, "/fo", false),
        (prefix("/Foo"), false, "/foo", false),
        (prefix("/Foo"), true, "/foo/x", true),
        (exact("/foo"), false, "/foo", true),
        (exact("/foo"), false, "/foo?x=1", true),
        (exact("/foo"), false, "/foo/", false),
        (exact("/FOO"), true, "/foo", true),
        (regex("/fo+"), false, "/foo", true),
        (regex("/fo+"), false, "/foo/x", false),
        (regex("/fo+"), false, "/x/foo", false),
        (regex("/a|/b"), false, "/b", true),
        (regex("/a|/b"), false, "/bc", false),
        // Case is never ignored for a regex.
        (regex("/FOO"), true, "/foo", false),
        (StringMatch::Present, false, "/any", true),
    ] {
        let wanted = HttpMatch {
            ignore_uri_case: fold,
            ..uri(wanted)
        };
        let tables = split_by(wanted.clone());
        assert_eq!(
            hits(&tables, &get("reviews", path, &())),
            hit,
            "{wanted:?} {path}"
        );
    }
}

#[test]
fn headers_and_parameters_match_by_presence_and_value() {
    let header = |wanted| HttpMatch {
        headers: vec![("End-User".into(), wanted)],
        ..HttpMatch::default()
    };
    let without = |wanted| HttpMatch {
        without_headers: vec![("end-user".into(), wanted)],
        ..HttpMatch::default()
    };
    let query = |name: &str, wanted| HttpMatch {
        query: vec![(name.into(), wanted)],
        ..HttpMatch::default()
    };
    let present = StringMatch::Present;
    for (wanted, path, fields, hit) in [
        (
            header(exact("jason")),
            "/",
            &[("end-user", "jason")][..],
            true,
        ),
        (header(exact("jason")), "/", &[("end-user", "Jason")], false),
        (header(exact("jason")), "/", &[], false),
        (header(present.clone()), "/", &[("END-USER", "")], true),
        (header(present.clone()), "/", &[], false),
        (
            without(exact("jason")),
            "/",
            &[("end-user", "jason")],
            false,
        ),
        (without(exact("jason")), "/", &[("end-user", "other")], true),
        (without(exact("jason")), "/", &[], true),
        (without(present), "/", &[("end-user", "x")], false),
        (query("a", exact("")), "/?a", &[], true),
        (query("a", exact("")), "/?a=", &[], true),
        (query("a", exact("")), "/?a=1", &[], false),
        (query("a", exact("1")), "/?b=2&a=1", &[], true),
        (query("a", exact("1 2")), "/?a=1%202", &[], true),
        (query("a", prefix("1")), "/?a=12", &[], true),
        (query("a", prefix("12")), "/?a=1", &[], false),
        (
            query("a", StringMatch::Regex("[0-9]+".into())),
            "/?a=12",
            &[],
            true,
        ),
        (
            query("a", StringMatch::Regex("[0-9]+".into())),
            "/?a=1x",
            &[],
            false,
        ),
        (query("a", StringMatch::Present), "/", &[], false),
        (query("", exact("")), "/", &[], false),
    ] {
        let tables = split_by(wanted.clone());
        let fields = Headers(fields);
        let request = get("reviews", path, &fields);
        assert_eq!(hits(&tables, &request), hit, "{wanted:?} {path} {fields:?}");
    }
}

#[test]
fn conditions_of_a_block_are_anded_and_blocks_ored() {
    let both = HttpMatch {
        uri: Some(prefix("/a")),
        method: Some(exact("GET")),
        port: Some(9080),
        scheme: Some(exact("http")),
        authority: Some(prefix("reviews")),
        ..HttpMatch::default()
    };
    let mut hit = on(both, to(&[("reviews", "v2", 1)]));
    hit.matches.push(uri(exact("/b")));
    let tables = draft()
        .http("reviews", vec![hit, to(&[("reviews", "v1", 1)])])
        .tables();
    assert!(hits(&tables, &get("reviews", "/a", &())));
    assert!(hits(&tables, &get("reviews", "/b", &())));
    assert!(!hits(&tables, &get("reviews", "/c", &())));
    let post = RequestView {
        method: "POST",
        ..get("reviews", "/a", &())
    };
    assert!(!hits(&tables, &post));
    let elsewhere = RequestView {
        port: 1,
        ..get("reviews", "/a", &())
    };
    assert!(!hits(&tables, &elsewhere));
}

#[test]
fn the_first_match_wins_and_none_is_no_route() {
    let tables = draft()
        .http(
            "reviews",
            vec![
                on(uri(prefix("/a")), to(&[("reviews", "v1", 1)])),
                on(uri(prefix("/a/b")), to(&[("reviews", "v2", 1)])),
            ],
        )
        .tables();
    let at = |path: &str| goes(&tables, &get("reviews", path, &()), 0);
    assert_eq!(at("/a/b"), "reviews.default:9080/v1");
    assert_eq!(at("/x"), "no_route");
}

#[test]
fn a_service_without_rules_has_the_default_route() {
    let tables = draft().tables();
    let request = get("reviews", "/", &());
    let choice = choose(&tables, &known(&tables, &request), &request, 7).unwrap();
    assert_eq!(choice.index, RouteIndex::DEFAULT);
    assert_eq!(choice.route.timeout_ms, Some(15_000));
    assert_eq!(choice.route.retry.attempts, 2);
    assert_eq!(goes(&tables, &request, 7), "reviews.default:9080");
}

#[test]
fn timeouts_take_the_mesh_default_and_zero_is_none() {
    let timeouts = |default_ms: u64| {
        let with = |timeout_ms| {
            let mut route = to(&[("reviews", "", 1)]);
            route.timeout_ms = timeout_ms;
            route
        };
        let mut draft = draft().http("reviews", vec![with(None), with(Some(0)), with(Some(10))]);
        draft.mesh.default_timeout_ms = default_ms;
        let tables = draft.tables();
        let routes = tables.virtual_hosts()[0].routes();
        routes
            .map(|at| tables.route(at).timeout_ms)
            .collect::<Vec<_>>()
    };
    assert_eq!(timeouts(15_000), [Some(15_000), None, Some(10)]);
    assert_eq!(timeouts(0), [None, None, Some(10)]);
}

#[test]
fn a_destination_without_a_port_keeps_the_request_port() {
    let tables = draft()
        .http("reviews", vec![to(&[("two", "", 1)])])
        .tables();
    let at = |port| {
        let request = RequestView {
            port,
            ..get("reviews", "/", &())
        };
        goes(&tables, &request, 0)
    };
    assert_eq!(at(9090), "two.default:9090");
    assert_eq!(at(8080), "two.default:8080");
    assert_eq!(at(9080), "no_cluster");
}

#[test]
fn what_a_route_names_and_is_not_there_costs_its_own_share_only() {
    let mut no_port = to(&[("reviews", "", 1)]);
    if let Action::Forward(to) = &mut no_port.action {
        to[0].port = Some(1);
    }
    let tcp = |service: &str| TcpRoute {
        port: None,
        destinations: match to(&[(service, "", 1)]).action {
            Action::Forward(to) => to,
            other => panic!("{other:?}"),
        },
    };
    let mut draft = draft().http(
        "reviews",
        vec![
            on(uri(exact("/service")), to(&[("nowhere", "", 1)])),
            on(uri(exact("/subset")), to(&[("reviews", "v9", 1)])),
            on(uri(exact("/ports")), to(&[("two", "v9", 1)])),
            on(uri(exact("/port")), no_port),
            to(&[("reviews", "v9", 1), ("reviews", "v1", 1)]),
        ],
    );
    draft.hosts[0].tcp = vec![tcp("nowhere")];
    let tables = draft.tables();
    let at = |path, random| goes(&tables, &get("reviews", path, &()), random);
    for path in ["/service", "/subset", "/ports", "/port"] {
        assert_eq!(at(path, 0), "no_cluster", "{path}");
    }
    assert_eq!(at("/", 0), "no_cluster");
    assert_eq!(at("/", u64::MAX), "reviews.default:9080/v1");
    let to = known(&tables, &get("reviews", "/", &()));
    assert_eq!(super::choose_tcp(&tables, &to, 0), Err(Reason::NoCluster));
}

#[test]
fn redirects_and_answers_go_nowhere() {
    let mut redirect = on(uri(prefix("/old")), to(&[("reviews", "", 1)]));
    redirect.action = Action::Redirect(Redirect {
        uri: Some("/new".into()),
        authority: None,
        scheme: None,
        status: 301,
    });
    let mut respond = to(&[("reviews", "", 1)]);
    respond.action = Action::Respond {
        status: 418,
        body: "no".into(),
    };
    let tables = draft().http("reviews", vec![redirect, respond]).tables();
    assert_eq!(
        goes(&tables, &get("reviews", "/old", &()), 0),
        "redirect 301"
    );
    assert_eq!(
        goes(&tables, &get("reviews", "/", &()), 0),
        "respond 418 no"
    );
}

#[test]
fn the_rewrite_knows_what_matched() {
    let with = |wanted: StringMatch| {
        let mut route = on(uri(wanted), to(&[("reviews", "", 1)]));
        route.rewrite = Some(Rewrite {
            uri: Some("/new".into()),
            authority: Some("elsewhere".into()),
        });
        let tables = draft().http("reviews", vec![route]).tables();
        let request = get("reviews", "/old/x", &());
        let choice = choose(&tables, &known(&tables, &request), &request, 0).unwrap();
        assert_eq!(rewrite::authority(&choice), Some("elsewhere"));
        let path = rewrite::path(&choice, request.path);
        format!("{}{}", path.head, path.tail)
    };
    assert_eq!(with(prefix("/old")), "/new/x");
    assert_eq!(with(exact("/old/x")), "/new");
    assert_eq!(with(StringMatch::Regex("/o.*".into())), "/new");
}

/// Draws of the weighted split against the exact binomial bound: |hits - n p| within 5 standard
/// deviations (one failure in 1.7 million for a correct split; the seeds are fixed).
#[test]
fn shares_are_weights_over_their_sum() {
    let mut random = fastrand::Rng::with_seed(0x5eed);
    for (first, second) in [(99, 1), (1, 99), (1, 1), (3, 4), (999, 1), (u32::MAX, 1)] {
        let tables = draft()
            .http(
                "reviews",
                vec![to(&[("reviews", "v1", first), ("reviews", "v2", second)])],
            )
            .tables();
        let request = get("reviews", "/", &());
        let n = 40_000u32;
        let hits = (0..n)
            .filter(|_| goes(&tables, &request, random.u64(..)).ends_with("/v2"))
            .count();
        let p = f64::from(second) / (f64::from(first) + f64::from(second));
        let mean = f64::from(n) * p;
        let spread = 5.0 * (mean * (1.0 - p)).sqrt().max(0.2);
        let off = (hits as f64 - mean).abs();
        assert!(off <= spread, "{first}:{second}: {hits} of {n}");
    }
}

/// A counter in disguise would show evenly spaced hits; gaps between hits of a fair draw are
/// geometric, so their standard deviation is close to their mean.
#[test]
fn a_one_percent_share_has_geometric_gaps() {
    let mut random = fastrand::Rng::with_seed(7);
    let mut gaps = Vec::new();
    let mut gap = 0u32;
    for _ in 0..200_000 {
        gap += 1;
        if scaled(random.u64(..), 100) >= 99 {
            gaps.push(f64::from(gap));
            gap = 0;
        }
    }
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let variance = gaps.iter().map(|g| (g - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
    assert!((90.0..110.0).contains(&mean), "{mean}");
    assert!((0.9..1.1).contains(&(variance.sqrt() / mean)), "{variance}");
}

#[test]
fn faults_are_drawn_independently_and_in_proportion() {
    let fault = |delay: u32, abort: u32| Fault {
        delay: Some(Delay {
            per_million: delay,
            delay_ms: 5_000,
        }),
        abort: Some(Abort {
            per_million: abort,
            with: AbortWith::Http(400),
        }),
    };
    let plan = |delay_ms, abort| FaultPlan { delay_ms, abort };
    let abort = Some(AbortWith::Http(400));
    assert_eq!(decide(&fault(1_000_000, 0), u64::MAX, 0), plan(5_000, None));
    assert_eq!(decide(&fault(0, 1_000_000), 0, u64::MAX), plan(0, abort));
    assert_eq!(decide(&fault(0, 0), 0, 0), plan(0, None));
    // 0.0001 % is the smallest share there is.
    assert_eq!(decide(&fault(1, 1), 0, u64::MAX), plan(5_000, None));

    let mut random = fastrand::Rng::with_seed(3);
    let (mut delayed, mut aborted, mut both) = (0, 0, 0);
    for _ in 0..100_000 {
        let drawn = decide(&fault(100_000, 500_000), random.u64(..), random.u64(..));
        delayed += u32::from(drawn.delay_ms > 0);
        aborted += u32::from(drawn.abort.is_some());
        both += u32::from(drawn.delay_ms > 0 && drawn.abort.is_some());
    }
    assert!((9_500..10_500).contains(&delayed), "{delayed}");
    assert!((49_200..50_800).contains(&aborted), "{aborted}");
    assert!((4_650..5_350).contains(&both), "{both}");
}

const FACTS: TryFacts = TryFacts {
    idempotent: true,
    sent: true,
    replayable: true,
    response_begun: false,
    remaining_ms: Some(10_000),
    retry_non_idempotent: false,
};

const POST: TryFacts = TryFacts {
    idempotent: false,
    ..FACTS
};

fn answer(status: u16) -> TryOutcome {
    TryOutcome::Answer {
        status,
        grpc_status: None,
    }
}

fn on_retry(on: RetryOn) -> Retry {
    Retry {
        attempts: 3,
        per_try_timeout_ms: 2_000,
        on,
    }
}

fn retries(rule: &Retry, outcome: TryOutcome, facts: &TryFacts) -> bool {
    matches!(
        RetryState::default().next(rule, outcome, facts, 0),
        Next::Retry { .. }
    )
}

#[test]
fn the_default_retries_only_what_was_not_processed() {
    let rule = Retry::default();
    for (outcome, facts, wanted) in [
        (TryOutcome::ConnectFailure, POST, true),
        (TryOutcome::Refused, POST, true),
        (TryOutcome::Reset { reused: false }, FACTS, false),
        (TryOutcome::TryTimeout, FACTS, false),
        (answer(503), FACTS, false),
        (TryOutcome::Shed, FACTS, false),
        (
            TryOutcome::Answer {
                status: 200,
                grpc_status: Some(14),
            },
            POST,
            true,
        ),
    ] {
        assert_eq!(retries(&rule, outcome, &facts), wanted, "{outcome:?}");
    }
}

#[test]
fn conditions_cover_what_envoy_says_they_do() {
    let none = RetryOn::default();
    let server = RetryOn {
        server_error: true,
        ..none.clone()
    };
    let gateway = RetryOn {
        gateway_error: true,
        ..none.clone()
    };
    let reset = RetryOn {
        reset: true,
        ..none.clone()
    };
    let status = RetryOn {
        statuses: vec![503],
        ..none.clone()
    };
    let by_timeout = RetryOn {
        try_timeout: true,
        ..none.clone()
    };
    let conflict = RetryOn {
        retriable_4xx: true,
        ..none
    };
    let fresh = TryOutcome::Reset { reused: false };
    for (on, outcome, facts, wanted) in [
        (&server, answer(500), POST, true),
        (&server, answer(499), POST, false),
        (&server, TryOutcome::TryTimeout, POST, true),
        (&server, fresh, POST, true),
        (&gateway, answer(502), POST, true),
        (&gateway, answer(500), POST, false),
        (&gateway, TryOutcome::ConnectFailure, POST, true),
        (&reset, fresh, POST, true),
        (&reset, TryOutcome::TryTimeout, POST, true),
        (&reset, answer(503), POST, false),
        // A status really sent, never one the mesh made.
        (&status, answer(503), POST, true),
        (&status, fresh, POST, false),
        (&status, TryOutcome::Shed, POST, false),
        (&conflict, answer(409), POST, true),
        (&conflict, answer(404), POST, false),
        (&by_timeout, TryOutcome::TryTimeout, FACTS, true),
        (&by_timeout, TryOutcome::TryTimeout, POST, false),
        (&by_timeout, fresh, FACTS, false),
    ] {
        let rule = on_retry(on.clone());
        assert_eq!(
            retries(&rule, outcome, &facts),
            wanted,
            "{on:?} {outcome:?}"
        );
    }
    let rule = on_retry(by_timeout);
    let unsent = TryFacts {
        sent: false,
        ..POST
    };
    let literal = TryFacts {
        retry_non_idempotent: true,
        ..POST
    };
    assert!(retries(&rule, TryOutcome::TryTimeout, &unsent));
    assert!(retries(&rule, TryOutcome::TryTimeout, &literal));
}

#[test]
fn nothing_is_repeated_that_cannot_be() {
    let rule = on_retry(RetryOn {
        server_error: true,
        ..RetryOn::default()
    });
    for facts in [
        TryFacts {
            response_begun: true,
            ..FACTS
        },
        TryFacts {
            replayable: false,
            ..FACTS
        },
        TryFacts {
            remaining_ms: Some(0),
            ..FACTS
        },
    ] {
        assert!(!retries(&rule, answer(503), &facts), "{facts:?}");
        assert!(!retries(&rule, TryOutcome::Reset { reused: true }, &facts));
    }
}

#[test]
fn attempts_count_retries_and_zero_is_none() {
    for attempts in [0, 1, 3] {
        let rule = Retry {
            attempts,
            ..on_retry(RetryOn {
                server_error: true,
                ..RetryOn::default()
            })
        };
        let mut state = RetryState::default();
        let mut made = 0;
        while let Next::Retry { .. } = state.next(&rule, answer(503), &FACTS, 1) {
            made += 1;
        }
        assert_eq!((made, state.used()), (attempts, attempts));
    }
}

#[test]
fn the_idle_race_costs_one_free_repetition() {
    let none = Retry {
        attempts: 0,
        ..Retry::default()
    };
    let raced = TryOutcome::Reset { reused: true };
    let mut state = RetryState::default();
    assert_eq!(
        state.next(&none, raced, &FACTS, 9),
        Next::Retry { backoff_ms: 0 }
    );
    assert_eq!(state.next(&none, raced, &FACTS, 9), Next::GiveUp);
    assert!(!retries(&none, raced, &POST));
    let unsent = TryFacts {
        sent: false,
        ..POST
    };
    assert!(retries(&none, raced, &unsent));
}

#[test]
fn methods_are_idempotent_by_rfc_9110() {
    for (method, wanted) in [
        ("GET", true),
        ("HEAD", true),
        ("PUT", true),
        ("DELETE", true),
        ("OPTIONS", true),
        ("TRACE", true),
        ("POST", false),
        ("PATCH", false),
        ("CONNECT", false),
        ("get", false),
    ] {
        assert_eq!(is_idempotent(method), wanted, "{method}");
    }
}

proptest! {
    /// Full jitter: retry n waits below (2^n - 1) * 25 ms and 250 ms, and reaches both ends.
    #[test]
    fn backoffs_stay_in_their_window(random: u64) {
        let rule = Retry { attempts: 8, ..on_retry(RetryOn { server_error: true, ..RetryOn::default() }) };
        let mut state = RetryState::default();
        for bound in [25, 75, 175, 250, 250, 250, 250, 250] {
            let Next::Retry { backoff_ms } = state.next(&rule, answer(500), &FACTS, random) else {
                panic!("a retry");
            };
            prop_assert!(backoff_ms < bound);
            prop_assert_eq!(backoff_ms, scaled(random, bound));
        }
    }

    /// A retry whose back-off ends after the route's timeout is not begun.
    #[test]
    fn no_retry_begins_after_the_end(random: u64, remaining in 1u64..300) {
        let rule = on_retry(RetryOn { server_error: true, ..RetryOn::default() });
        let facts = TryFacts { remaining_ms: Some(remaining), ..FACTS };
        if let Next::Retry { backoff_ms } = RetryState::default().next(&rule, answer(500), &facts, random) {
            prop_assert!(backoff_ms < remaining);
        }
    }

    /// List order is precedence: the choice is the first route whose prefix fits, by definition.
    #[test]
    fn the_first_fitting_prefix_wins(
        prefixes in proptest::collection::vec("/[ab]{0,3}", 1..8),
        path in "/[ab]{0,5}",
    ) {
        let routes = prefixes.iter().enumerate().map(|(at, text)| {
            let mut route = on(uri(prefix(text)), to(&[("reviews", "", 1)]));
            route.name = at.to_string();
            route
        });
        let tables = draft().http("reviews", routes.collect()).tables();
        let request = get("reviews", &path, &());
        let got = choose(&tables, &known(&tables, &request), &request, 0)
            .map(|choice| choice.route.name.parse::<usize>().unwrap());
        let wanted = prefixes.iter().position(|text| path.starts_with(text.as_str()));
        prop_assert_eq!(got.ok(), wanted);
        if wanted.is_none() {
            let reason = choose(&tables, &known(&tables, &request), &request, 0).unwrap_err();
            prop_assert_eq!(reason, Reason::NoRoute);
        }
    }

    /// No path, query or header value panics a matcher.
    #[test]
    fn any_request_is_judged(path in "\\PC{0,40}", query in "\\PC{0,40}", value in "\\PC{0,20}") {
        let mut wanted = uri(StringMatch::Regex("/[a-z]+".into()));
        wanted.query = vec![("a".into(), exact("b"))];
        wanted.headers = vec![("x".into(), prefix("y"))];
        wanted.ignore_uri_case = true;
        let tables = split_by(wanted);
        let fields = [("x", value.as_str())];
        let headers = Headers(&fields);
        let request = RequestView { path: &path, query: Some(&query), ..get("reviews", "/", &headers) };
        hits(&tables, &request);
    }
}
