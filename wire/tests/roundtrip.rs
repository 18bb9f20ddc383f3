//! Whatever values a message holds, decoding what was encoded gives them back.

use proptest::prelude::*;
use ringmesh_wire::report::{DURATION_BUCKETS_US, Series, SeriesValue};
use ringmesh_wire::snapshot::*;
use ringmesh_wire::*;

fn round<T>(value: &T) -> T
where
    T: serde::Serialize + serde::de::DeserializeOwned + codec::Validate,
{
    codec::decode(&codec::encode(value).expect("it encodes")).expect("it decodes")
}

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9][a-z0-9_-]{0,40}"
}

fn bucket() -> impl Strategy<Value = BucketId> {
    (
        any::<String>(),
        proptest::collection::vec("\\PC{0,60}", 0..8),
        1..u64::MAX,
        1..u64::MAX,
    )
        .prop_map(|(rule, values, amount_max, window_ms)| BucketId {
            rule,
            values,
            amount_max,
            window_ms,
        })
}

fn units() -> impl Strategy<Value = Units> {
    (
        any::<u64>(),
        proptest::collection::vec((any::<u64>(), any::<u64>()), 0..40),
    )
        .prop_map(|(free, mut busy)| {
            busy.sort_unstable();
            let busy = busy.into_iter();
            Units {
                free,
                busy: busy
                    .map(|(remaining_us, units)| Busy {
                        remaining_us,
                        units,
                    })
                    .collect(),
            }
        })
}

fn up() -> impl Strategy<Value = LeaseUp> {
    let held_rule = (any::<String>(), any::<u16>(), any::<u64>(), any::<bool>()).prop_map(
        |(rule, shard, slots, lapsed)| HeldRule {
            rule,
            shard,
            slots,
            lapsed,
        },
    );
    let held = (any::<u16>(), bucket(), units()).prop_map(|(shard, bucket, units)| Held {
        shard,
        bucket,
        units,
    });
    prop_oneof![
        (any::<u64>(), proptest::collection::vec(held_rule, 0..8))
            .prop_map(|(boot, rules)| LeaseUp::Hello { boot, rules }),
        proptest::collection::vec(held, 0..8).prop_map(LeaseUp::Hold),
        Just(LeaseUp::Ready),
        any::<u64>().prop_map(|seq| LeaseUp::Beat { seq }),
        (any::<u16>(), bucket(), any::<u64>(), any::<u64>()).prop_map(
            |(shard, bucket, need, demand)| LeaseUp::Want {
                shard,
                bucket,
                need,
                demand
            }
        ),
        (any::<u16>(), bucket(), units(), any::<u64>(), any::<bool>()).prop_map(
            |(shard, bucket, units, demand, answer)| LeaseUp::Return {
                shard,
                bucket,
                units,
                demand,
                answer
            }
        ),
        (any::<u16>(), any::<String>(), any::<u64>())
            .prop_map(|(shard, rule, slots)| LeaseUp::Released { shard, rule, slots }),
        Just(LeaseUp::Goodbye),
    ]
}

fn down() -> impl Strategy<Value = LeaseDown> {
    let kind = prop_oneof![
        Just(RecallKind::Spare),
        any::<u64>().prop_map(RecallKind::DownTo),
        Just(RecallKind::AfterSpend),
    ];
    let lent = (bucket(), units()).prop_map(|(bucket, units)| Lent { bucket, units });
    let touched = proptest::collection::vec(lent, 0..6);
    prop_oneof![
        (
            any::<u64>(),
            any::<u32>(),
            proptest::collection::vec(any::<String>(), 0..8)
        )
            .prop_map(|(seq, ttl_ms, rules)| LeaseDown::Renew { seq, ttl_ms, rules }),
        (any::<u16>(), any::<String>(), any::<u64>(), touched).prop_map(
            |(shard, rule, slots, touched)| LeaseDown::Seed {
                shard,
                rule,
                slots,
                touched
            }
        ),
        (any::<u16>(), bucket(), units()).prop_map(|(shard, bucket, units)| LeaseDown::Lend {
            shard,
            bucket,
            units
        }),
        (any::<u16>(), bucket(), any::<u64>(), kind).prop_map(|(shard, bucket, take, kind)| {
            LeaseDown::Recall {
                shard,
                bucket,
                take,
                kind,
            }
        }),
        (any::<u16>(), any::<String>())
            .prop_map(|(shard, rule)| LeaseDown::Surrender { shard, rule }),
    ]
}

fn series() -> impl Strategy<Value = Series> {
    let buckets = DURATION_BUCKETS_US.len() + 1;
    let value = prop_oneof![
        any::<u64>().prop_map(SeriesValue::Counter),
        any::<i64>().prop_map(SeriesValue::Gauge),
        (
            // Their sum is a count too.
            proptest::collection::vec(0..=u64::MAX / buckets as u64, buckets),
            any::<u64>()
        )
            .prop_map(|(buckets, sum_us)| SeriesValue::DurationHistogram { buckets, sum_us }),
    ];
    let labels = proptest::collection::vec((any::<String>(), any::<String>()), 0..5);
    (any::<String>(), labels, value).prop_map(|(name, labels, value)| Series {
        name,
        labels,
        value,
    })
}

proptest! {
    #[test]
    fn lease_up_comes_back(message in up()) {
        prop_assert_eq!(round(&message), message);
    }

    #[test]
    fn lease_down_comes_back(message in down()) {
        prop_assert_eq!(round(&message), message);
    }

    #[test]
    fn a_report_comes_back(
        node in name(), boot: u64, sequence: u64,
        series in proptest::collection::vec(series(), 0..8),
    ) {
        let report = Report { node: NodeId(node), boot, sequence, series };
        prop_assert_eq!(round(&report), report);
    }

    #[test]
    fn a_log_batch_comes_back(node in name(), boot: u64, first: u64, dropped: u64, lines: Vec<String>) {
        let batch = LogBatch { node: NodeId(node), boot, first, dropped, lines };
        prop_assert_eq!(round(&batch), batch);
        let ack = LogAck { next: first };
        prop_assert_eq!(round(&ack), ack);
    }

    #[test]
    fn certificates_come_back(
        token_id: String, token_secret: String, node in name(),
        a: Vec<u8>, b: Vec<u8>, with_node: bool,
    ) {
        let enroll = Enroll {
            token_id, token_secret, node: NodeId(node),
            workload_csr: a.clone(), node_csr: b.clone(),
        };
        prop_assert_eq!(round(&enroll), enroll);
        let renew = Renew { workload_csr: a.clone(), node_csr: with_node.then(|| b.clone()) };
        prop_assert_eq!(round(&renew), renew);
        let issued = Issued { workload_chain: vec![a.clone()], node_chain: vec![b.clone()], roots: vec![a] };
        prop_assert_eq!(round(&issued), issued);
    }

    #[test]
    fn the_session_comes_back(
        node in name(), boot: u64, revision: u64, code: String, message: String, healthy: bool, port: u16,
    ) {
        let revision = Revision(revision);
        let hello = Hello {
            version_min: 1, version_max: 3, node: NodeId(node), boot,
            build: message.clone(), revision, have: Vec::new(),
        };
        prop_assert_eq!(round(&hello), hello);
        let welcome = Welcome { version: 1, boot, lease_ms: u32::from(port) };
        prop_assert_eq!(round(&welcome), welcome);
        let reject = Reject { code, message: message.clone() };
        prop_assert_eq!(round(&reject), reject);
        prop_assert_eq!(round(&Ack { revision }), Ack { revision });
        let nack = Nack { revision, reason: message.clone() };
        prop_assert_eq!(round(&nack), nack);
        let resolved = Resolved {
            names: vec![ResolvedName {
                name: "a".to_owned(),
                addresses: vec![std::net::Ipv4Addr::from(u32::from(port)).into()],
                trouble: "timeout".to_owned(),
            }],
        };
        prop_assert_eq!(round(&resolved), resolved);
        let health = AppHealth { ports: vec![PortHealth { port, healthy, detail: message }] };
        prop_assert_eq!(round(&health), health);
    }

    #[test]
    fn a_snapshot_comes_back_also_by_push_and_file(
        node in name(), revision: u64, timeout: u64, hosts in proptest::collection::btree_set(name(), 0..12),
    ) {
        let mesh = Mesh {
            trust_domain: "mesh.local".into(), default_timeout_ms: timeout,
            outbound: OutboundMode::AllowAny, on_quota_unavailable: OnQuotaUnavailable::Share,
            retry_non_idempotent: false, mtls: MtlsMode::Strict, mtls_ports: Vec::new(),
        };
        let mut sections = vec![Body::Mesh(mesh).seal("").unwrap()];
        for host in hosts {
            let routes = VirtualHost {
                name: host.clone(), hosts: vec![host.clone()], http: Vec::new(), tcp: Vec::new(),
            };
            sections.push(Body::Routes(routes).seal(host).unwrap());
        }
        let node = NodeId(node);
        let snapshot = Snapshot::new(Revision(revision), node.clone(), sections).unwrap();
        prop_assert_eq!(&round(&snapshot), &snapshot);
        let push = round(&snapshot.push_for(&std::collections::BTreeMap::new()));
        prop_assert_eq!(&Snapshot::with_push(None, &node, &push).unwrap(), &snapshot);
        let file = snapshot.to_file().unwrap();
        prop_assert_eq!(Snapshot::from_file(&file).unwrap(), snapshot);
    }
}

fn named(host: &str, resolution: Resolution, names: &[&str]) -> Names {
    let endpoint = |name: &&str| NamedEndpoint {
        name: (*name).to_owned(),
        ports: Vec::new(),
        labels: std::collections::BTreeMap::new(),
        region: String::new(),
        zone: String::new(),
        weight: 1,
    };
    Names {
        service: ServiceId::new(host, "default"),
        resolution,
        endpoints: names.iter().map(endpoint).collect(),
    }
}

#[test]
fn what_an_older_reader_does_not_know_is_left_out_for_it_and_the_file_says_its_version() {
    let mesh = Mesh {
        trust_domain: "mesh.local".into(),
        default_timeout_ms: 1,
        outbound: OutboundMode::AllowAny,
        on_quota_unavailable: OnQuotaUnavailable::Share,
        retry_non_idempotent: false,
        mtls: MtlsMode::Strict,
        mtls_ports: Vec::new(),
    };
    let names = named("a.example", Resolution::Each, &["a.example"]);
    let mut sections = vec![Body::Mesh(mesh).seal("").unwrap()];
    let old = Snapshot::new(Revision(1), NodeId("n".into()), sections.clone()).unwrap();
    sections.push(Body::Names(names).seal("a.example.default").unwrap());
    let new = Snapshot::new(Revision(1), NodeId("n".into()), sections).unwrap();
    let nothing = std::collections::BTreeMap::new();
    assert_eq!((old.schema(), old.push_for(&nothing).schema()), (1, 1));
    assert_eq!((new.schema(), new.push_for(&nothing).schema()), (2, 2));
    assert_eq!(new.for_version(2), new);
    assert_eq!(new.for_version(1), old);
    let schema = |file: &[u8]| frame::open(file).unwrap().0.schema;
    assert_eq!(schema(&old.to_file().unwrap()), 1);
    assert_eq!(schema(&new.to_file().unwrap()), 2);
}

#[test]
fn names_that_break_their_rules_are_not_sealed() {
    let many: Vec<String> = (0..257).map(|n| format!("n{n}.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let mut weightless = named("a", Resolution::Each, &["a.example"]);
    weightless.endpoints[0].weight = 0;
    let cases = [
        (
            named("a", Resolution::Each, &[]),
            "0 of them, 1 to 256 may be",
        ),
        (
            named("a", Resolution::Each, &many),
            "257 of them, 1 to 256 may be",
        ),
        (
            named("a", Resolution::One, &["a.example", "b.example"]),
            "2 of them, 1 to 1 may be",
        ),
        (weightless, "a.example has weight 0"),
    ];
    for (names, wrong) in cases {
        let refused = Body::Names(names).seal("a.default").unwrap_err();
        assert!(refused.to_string().contains(wrong), "{refused}");
    }
    let bad = named("a", Resolution::Each, &["a b"]);
    assert!(Body::Names(bad).seal("a.default").is_err());
}
