use proptest::prelude::*;
use ringmesh_wire::report::{DURATION_BUCKETS_US, Series, SeriesValue};

use super::{
    Changes, Direction, Event, Flags, LogBuf, Meter, Names, Outcome, Party, SERIES_MAX, Transport,
    merge,
};
use crate::reason::Reason;

fn outcome() -> Outcome<'static> {
    Outcome {
        source: Party {
            service: "reviews",
            namespace: "default",
            version: "v3",
        },
        destination: Party {
            service: "ratings",
            namespace: "default",
            version: "v1",
        },
        route: "ratings.default#0",
        cluster: "ratings.default:9080/v1",
        endpoint: Some("10.0.0.1:19080".parse().unwrap()),
        peer_address: Some("[2001:db8::1]:40000".parse().unwrap()),
        peer_principal: "mesh.local/ns/default/sa/reviews",
        method: "GET",
        authority: "ratings:9080",
        path: "/ratings/0",
        status: 200,
        bytes_in: 3,
        bytes_out: 128,
        start_unix_us: 1_700_000_000_123_456,
        total_us: 420,
        upstream_us: Some(400),
        queue_us: 1,
        attempts: 1,
        request_id: "abc",
        flags: Flags {
            downstream_tls: true,
            ..Flags::default()
        },
        ..Outcome::new(Direction::Inbound, Transport::Http1)
    }
}

fn logged(outcome: &Outcome<'_>) -> String {
    let mut log = LogBuf::new(64 * 1024);
    assert!(log.push(outcome));
    String::from_utf8(log.lines().to_vec()).unwrap()
}

#[test]
fn a_line_is_one_json_object() {
    let line = logged(&outcome());
    let wanted = concat!(
        r#"{"ts":"2023-11-14T22:13:20.123456Z","protocol":"http1","direction":"inbound","#,
        r#""source":"reviews.default","source_version":"v3","destination":"ratings.default","#,
        r#""destination_version":"v1","route":"ratings.default#0","#,
        r#""cluster":"ratings.default:9080/v1","principal":"mesh.local/ns/default/sa/reviews","#,
        r#""method":"GET","authority":"ratings:9080","#,
        r#""path":"/ratings/0","status":200,"reason":"-","endpoint":"10.0.0.1:19080","#,
        r#""peer":"[2001:db8:0:0:0:0:0:1]:40000","#,
        r#""bytes_in":3,"bytes_out":128,"duration_us":420,"upstream_us":400,"queue_us":1,"#,
        r#""attempts":1,"request_id":"abc","mtls":true}"#,
        "\n"
    );
    assert_eq!(line, wanted);
    let audited = logged(&Outcome {
        audited: Some(("watch.default", 12)),
        ..outcome()
    });
    let more = r#","mtls":true,"audited":true,"audit_policy":"watch.default","audit_rule":12}"#;
    assert_eq!(audited, wanted.replace(r#","mtls":true}"#, more));
    let bare = logged(&Outcome::new(Direction::Outbound, Transport::Tcp));
    serde_json::from_str::<serde_json::Value>(&bare).unwrap();
}

#[test]
fn dates_are_right_at_the_edges() {
    for (unix_s, wanted) in [
        (0, "1970-01-01T00:00:00.000000Z"),
        (951_782_399, "2000-02-28T23:59:59.000000Z"),
        (951_782_400, "2000-02-29T00:00:00.000000Z"),
        (951_868_800, "2000-03-01T00:00:00.000000Z"),
        (1_735_689_599, "2024-12-31T23:59:59.000000Z"),
        (1_735_689_600, "2025-01-01T00:00:00.000000Z"),
        (4_107_542_400, "2100-03-01T00:00:00.000000Z"),
    ] {
        let line = logged(&Outcome {
            start_unix_us: unix_s * 1_000_000,
            ..outcome()
        });
        assert!(line.contains(wanted), "{line}");
    }
}

/// The text of a second is kept for the lines after it.
#[test]
fn times_in_one_log_are_as_in_logs_of_their_own() {
    let mut random = fastrand::Rng::with_seed(3);
    let mut log = LogBuf::new(64 * 1024);
    let mut unix_us = 0;
    for _ in 0..500 {
        let outcome = Outcome {
            start_unix_us: unix_us,
            ..outcome()
        };
        log.clear();
        assert!(log.push(&outcome));
        assert_eq!(std::str::from_utf8(log.lines()), Ok(&*logged(&outcome)));
        unix_us += random.u64(0..3_000_000);
        // Requests may end in another order than they began.
        unix_us -= random.u64(0..=unix_us.min(1_000_000));
    }
}

/// More names than there are places for, in a mixed order: each line and label set is what it is where
/// nothing was kept.
#[test]
fn names_that_are_kept_are_the_names_of_their_outcome() {
    let mut random = fastrand::Rng::with_seed(9);
    let texts: Vec<[String; 3]> = (0..900)
        .map(|n| [format!("s{n}"), format!("r{n}"), "c".repeat(1 + n)])
        .collect();
    let (mut log, mut kept, mut fresh) = (LogBuf::new(64 * 1024), Meter::new(), Meter::new());
    for _ in 0..6_000 {
        // Few of them often, so that there is something to be found; statuses differ by themselves.
        let below = [12, texts.len()][random.usize(0..2)];
        let n = random.usize(0..below);
        let [service, route, cluster] = &texts[n];
        let plain = Outcome {
            source: Party {
                service,
                ..outcome().source
            },
            route,
            cluster,
            status: random.u16(200..203),
            ..outcome()
        };
        let known = Outcome {
            names: Some(Names {
                direction: plain.direction,
                generation: n as u64 / 300,
                connection: n as u64 % 3,
                called: [n as u32 % 300, Names::NONE],
                chosen: [7, n as u32 % 7],
            }),
            ..plain
        };
        log.clear();
        assert!(log.push(&known));
        assert_eq!(std::str::from_utf8(log.lines()), Ok(&*logged(&plain)));
        kept.record(&known);
        fresh.record(&plain);
    }
    assert_eq!(kept.collect(), fresh.collect());
}

/// Whatever byte stands wherever among eight that are looked at together.
#[test]
fn no_byte_that_needs_an_escape_is_missed() {
    for len in 1..=17 {
        for at in 0..len {
            for byte in 0..0x80_u8 {
                let mut path = vec![b'a'; len];
                path[at] = byte;
                let path = String::from_utf8(path).unwrap();
                let line = logged(&Outcome {
                    path: &path,
                    ..outcome()
                });
                let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
                assert_eq!(parsed["path"], *path, "{byte:#x} at {at} of {len}");
            }
        }
    }
}

#[test]
fn every_octet_and_number_is_written_in_full() {
    for octet in 0..=255 {
        let at = std::net::SocketAddr::from(([octet, 0, 255, octet], u16::from(octet) * 257));
        let line = logged(&Outcome {
            endpoint: Some(at),
            bytes_in: u64::from(octet) * 9 + 1,
            bytes_out: u64::MAX >> (octet % 64),
            ..outcome()
        });
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(parsed["endpoint"], *at.to_string());
        assert_eq!(parsed["bytes_in"], u64::from(octet) * 9 + 1);
        assert_eq!(parsed["bytes_out"], u64::MAX >> (octet % 64));
    }
}

#[test]
fn a_line_without_room_is_dropped_whole_and_counted() {
    let one = logged(&outcome()).len();
    let mut log = LogBuf::new(one * 2 + one / 2);
    assert!(log.push(&outcome()));
    assert!(log.push(&outcome()));
    assert!(!log.push(&outcome()));
    assert_eq!(log.counts(), (2, 1));
    assert_eq!(log.lines().iter().filter(|b| **b == b'\n').count(), 2);
    assert!(log.lines().ends_with(b"}\n"));
    let room = log.lines().as_ptr();
    let taken = log.take(Vec::new());
    assert_eq!(taken.len(), one * 2);
    assert!(log.is_empty());
    assert!(log.push(&outcome()));
    // The taken buffer comes back as room, and nothing is allocated.
    drop(log.take(taken));
    assert!(log.push(&outcome()));
    assert_eq!(log.lines().as_ptr(), room);
}

#[test]
fn lines_are_ripe_before_there_is_no_room_and_a_resting_log_takes_them_again() {
    let one = logged(&outcome()).len();
    let mut log = LogBuf::new(one * 100);
    let mut pushed = 0;
    while !log.is_ripe() {
        assert!(log.push(&outcome()));
        pushed += 1;
    }
    assert!((88..=91).contains(&pushed), "ripe with {pushed} of 100");
    // With lines in it there is nothing to give back.
    log.rest();
    assert_eq!(log.lines().len(), one * pushed);
    log.clear();
    log.rest();
    assert!(log.is_empty() && !log.is_ripe());
    for _ in 0..100 {
        assert!(log.push(&outcome()));
    }
    assert!(!log.push(&outcome()));
}

#[test]
fn counters_add_up_and_buckets_are_by_upper_bound() {
    let mut meter = Meter::new();
    for total_us in [1, 100, 101, 250, 60_000_000, 60_000_001, u64::MAX / 2] {
        meter.record(&Outcome {
            total_us,
            ..outcome()
        });
    }
    meter.record(&Outcome {
        status: 503,
        reason: Reason::NoEndpoint,
        ..outcome()
    });
    meter.record(&Outcome {
        bytes_out: 7,
        ..Outcome::new(Direction::Outbound, Transport::Tcp)
    });
    meter.count(Event::Retried);
    meter.refused(Reason::PlaintextRefused);
    assert_eq!(meter.series(), 3);
    // Two shards with the same counts: twice everything.
    let series = merge(&[meter.collect(), meter.collect()]);
    let find = |name: &str, label: (&str, &str)| -> &Series {
        let mut fitting = series
            .iter()
            .filter(|s| s.name == name && s.labels.contains(&(label.0.into(), label.1.into())));
        let one = fitting.next().unwrap();
        assert!(fitting.next().is_none());
        one
    };
    let ok = find("ringmesh_requests_total", ("response_code", "200"));
    assert_eq!(ok.value, SeriesValue::Counter(14));
    assert!(ok.labels.is_sorted());
    assert!(
        ok.labels
            .contains(&("source".into(), "reviews.default".into()))
    );
    let refused = find("ringmesh_requests_total", ("reason", "no_endpoint"));
    assert_eq!(refused.value, SeriesValue::Counter(2));
    let durations = find(
        "ringmesh_request_duration_seconds",
        ("response_code", "200"),
    );
    let SeriesValue::DurationHistogram { buckets, .. } = &durations.value else {
        panic!("a histogram");
    };
    assert_eq!(buckets.len(), DURATION_BUCKETS_US.len() + 1);
    assert_eq!(buckets[..3], [4, 4, 0]);
    assert_eq!(buckets[17..], [2, 4]);
    let tcp = find("ringmesh_tcp_sent_bytes_total", ("source", "unknown"));
    assert_eq!(tcp.value, SeriesValue::Counter(14));
    let plaintext = ("reason", "plaintext_refused");
    let closed = find("ringmesh_connections_refused_total", plaintext);
    assert_eq!(closed.value, SeriesValue::Counter(2));
    let retried = series.iter().find(|s| s.name == "ringmesh_retries_total");
    assert_eq!(retried.unwrap().value, SeriesValue::Counter(2));
}

#[test]
fn over_the_cap_everything_is_still_counted() {
    let mut meter = Meter::new();
    let names: Vec<String> = (0..SERIES_MAX * 2).map(|n| format!("s{n}")).collect();
    for _ in 0..2 {
        for name in &names {
            let mut one = outcome();
            one.source.service = name;
            meter.record(&one);
            one.direction = Direction::Outbound;
            meter.record(&one);
        }
    }
    assert_eq!(meter.series(), SERIES_MAX + 2);
    let series = merge(&[meter.collect()]);
    let mut total = 0;
    let mut overflow = 0;
    for one in series
        .iter()
        .filter(|s| s.name == "ringmesh_requests_total")
    {
        let SeriesValue::Counter(count) = one.value else {
            panic!("a counter");
        };
        total += count;
        if one.labels.contains(&("source".into(), "overflow".into())) {
            overflow += count;
        }
    }
    assert_eq!(total, SERIES_MAX as u64 * 8);
    assert_eq!(overflow, SERIES_MAX as u64 * 6);
}

#[test]
fn only_changes_are_reported() {
    let mut meter = Meter::new();
    let mut changes = Changes::default();
    meter.record(&outcome());
    let first = merge(&[meter.collect()]);
    assert_eq!(changes.of(&first), first);
    // Not acknowledged: sent again.
    assert_eq!(changes.of(&first), first);
    changes.acknowledge(first.clone());
    assert_eq!(changes.of(&first), []);
    meter.count(Event::Accepted);
    let second = merge(&[meter.collect()]);
    let changed = changes.of(&second);
    assert_eq!(changed.len(), 1);
    assert_eq!(changed[0].name, Event::Accepted.metric());
}

proptest! {
    /// Whatever a client sends: one line, one JSON object, the value comes back.
    #[test]
    fn every_line_parses(
        path in "\\PC{0,30}",
        control in "[\\x00-\\x1f\"\\\\\u{7f}\u{2028}a]{0,30}",
        status: u16,
        total_us: u64,
    ) {
        let line = logged(&Outcome {
            path: &path,
            authority: &control,
            status,
            total_us,
            ..outcome()
        });
        prop_assert_eq!(line.matches('\n').count(), 1);
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        prop_assert_eq!(parsed["authority"].as_str().unwrap_or(""), &control);
        prop_assert_eq!(parsed["path"].as_str().unwrap_or(""), &path);
        prop_assert_eq!(parsed["status"].as_u64(), Some(status.into()));
        prop_assert_eq!(parsed["duration_us"].as_u64(), Some(total_us));
    }

    /// A long value is cut at a character, and the line still parses.
    #[test]
    fn long_values_are_cut(unit in "[aé€😀]{1,3}", times in 1_000usize..3_000) {
        let path = unit.repeat(times);
        let line = logged(&Outcome { path: &path, ..outcome() });
        let parsed: serde_json::Value = serde_json::from_str(&line).unwrap();
        let kept = parsed["path"].as_str().unwrap();
        prop_assert!(path.starts_with(kept) && kept.len() <= 4_096);
        prop_assert!(kept.len() == path.len() || kept.len() > 4_092);
    }

    /// Label sets are kept apart exactly where a label differs.
    #[test]
    fn label_sets_are_exact(names in proptest::collection::vec(("[ab]{0,2}", "[ab]{0,2}", "[ab]{0,2}"), 1..60)) {
        let mut meter = Meter::new();
        let mut wanted = std::collections::BTreeMap::new();
        for (service, namespace, version) in &names {
            let source = Party { service, namespace, version };
            meter.record(&Outcome { source, ..outcome() });
            *wanted.entry((service, namespace, version)).or_insert(0u64) += 1;
        }
        prop_assert_eq!(meter.series(), wanted.len());
        let stats = meter.collect();
        let mut counts: Vec<u64> = stats.series.iter().map(|s| s.values.count).collect();
        let mut wanted: Vec<u64> = wanted.into_values().collect();
        counts.sort_unstable();
        wanted.sort_unstable();
        prop_assert_eq!(counts, wanted);
    }
}
