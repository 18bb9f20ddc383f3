//! One message of every kind, with every field and variant that can hold something.

#![allow(dead_code, reason = "each test file uses its part")]

use std::collections::BTreeMap;
use std::net::IpAddr;

use ringmesh_wire::codec::{self, Validate};
use ringmesh_wire::expr::{ExprNode, Value};
use ringmesh_wire::frame::{self, Kind};
use ringmesh_wire::report::{DURATION_BUCKETS_US, Series, SeriesValue};
use ringmesh_wire::session::RegisteredPort;
use ringmesh_wire::snapshot::*;
use ringmesh_wire::*;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A sample, encoded, and a decoder that encodes again what it read.
pub(crate) struct Sample {
    /// File name under `golden/v1/`, without `.bin`.
    pub(crate) name: &'static str,
    /// The whole frame.
    pub(crate) bytes: Vec<u8>,
    /// Decodes a frame and says whether it is this sample.
    pub(crate) equal: Equal,
}

type Equal = Box<dyn Fn(&[u8]) -> Result<bool, WireError>>;

/// A decoder by kind.
pub(crate) fn decode_frame(bytes: &[u8]) -> Result<(), WireError> {
    let (header, payload) = frame::open(bytes)?;
    decode_payload(header.kind, payload)
}

/// The decoder of one kind, on bytes no checksum guards.
pub(crate) fn decode_payload(kind: Kind, payload: &[u8]) -> Result<(), WireError> {
    match kind {
        Kind::Hello => codec::decode::<Hello>(payload).map(drop),
        Kind::Welcome => codec::decode::<Welcome>(payload).map(drop),
        Kind::Reject => codec::decode::<Reject>(payload).map(drop),
        Kind::Push => codec::decode::<Push>(payload).map(drop),
        Kind::Ack => codec::decode::<Ack>(payload).map(drop),
        Kind::Nack => codec::decode::<Nack>(payload).map(drop),
        Kind::Register => codec::decode::<Registration>(payload).map(drop),
        Kind::AppHealth => codec::decode::<AppHealth>(payload).map(drop),
        Kind::Resolved => codec::decode::<Resolved>(payload).map(drop),
        Kind::Enroll => codec::decode::<Enroll>(payload).map(drop),
        Kind::Renew => codec::decode::<Renew>(payload).map(drop),
        Kind::Issued => codec::decode::<Issued>(payload).map(drop),
        Kind::LeaseUp => codec::decode::<LeaseUp>(payload).map(drop),
        Kind::LeaseDown => codec::decode::<LeaseDown>(payload).map(drop),
        Kind::Report => codec::decode::<Report>(payload).map(drop),
        Kind::LogBatch => codec::decode::<LogBatch>(payload).map(drop),
        Kind::LogAck => codec::decode::<LogAck>(payload).map(drop),
        Kind::Snapshot => codec::decode::<Snapshot>(payload).and_then(|snapshot| {
            snapshot
                .sections
                .iter()
                .try_for_each(|section| section.open().map(drop))
        }),
    }
}

fn sample<T>(name: &'static str, kind: Kind, value: T) -> Sample
where
    T: Serialize + DeserializeOwned + Validate + PartialEq + 'static,
{
    sample_of(1, name, kind, value)
}

fn sample_of<T>(schema: u16, name: &'static str, kind: Kind, value: T) -> Sample
where
    T: Serialize + DeserializeOwned + Validate + PartialEq + 'static,
{
    let payload = codec::encode(&value).expect("a sample encodes");
    let bytes = frame::seal_as(schema, kind, Revision(7), &payload).expect("a sample fits");
    let equal = move |bytes: &[u8]| {
        let (header, payload) = frame::open(bytes)?;
        Ok(header.kind == kind && codec::decode::<T>(payload)? == value)
    };
    Sample {
        name,
        bytes,
        equal: Box::new(equal),
    }
}

fn text(text: &str) -> String {
    text.to_owned()
}

fn node() -> NodeId {
    NodeId("reviews-v3-1".into())
}

fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([
        (text("app"), text("reviews")),
        (text("version"), text("v3")),
    ])
}

fn address() -> IpAddr {
    IpAddr::from([10, 0, 0, 5])
}

fn expression() -> Expr {
    let constant = |value| ExprNode::Const(value);
    Expr {
        nodes: vec![
            ExprNode::Attribute(text("source.labels")),
            constant(Value::String(text("app"))),
            ExprNode::Index(0, 1),
            constant(Value::String(text("unknown"))),
            ExprNode::Default(2, 3),
            constant(Value::Int(-5)),
            constant(Value::Double(1.5)),
            ExprNode::Eq(5, 6),
            constant(Value::Bool(true)),
            constant(Value::Ip(address())),
            constant(Value::DurationNs(15_000_000)),
            ExprNode::Ne(9, 10),
            ExprNode::And(7, 8),
            ExprNode::Or(12, 11),
            ExprNode::Match(4, 3),
            ExprNode::And(13, 14),
        ],
    }
}

fn bucket() -> BucketId {
    BucketId {
        rule: text("requestcount.quota.istio-system#00000000deadbeef"),
        values: vec![text("ratings"), text("v1"), text("reviews"), text("v3")],
        amount_max: 5,
        window_ms: 10_000,
    }
}

fn units() -> Units {
    let busy = |remaining_us, units| Busy {
        remaining_us,
        units,
    };
    Units {
        free: 2,
        busy: vec![busy(1_500_000, 1), busy(9_999_999, 2)],
    }
}

fn sections() -> Vec<Section> {
    let limit = |amount_max, window_ms| Limit {
        amount_max,
        window_ms,
    };
    let quota = QuotaRule {
        name: text("requestcount.quota.istio-system"),
        when: Some(expression()),
        dimensions: vec![
            (text("destination"), expression()),
            (text("source"), expression()),
        ],
        charge: 1,
        limit: limit(5_000, 1_000),
        overrides: vec![LimitOverride {
            dimensions: vec![(text("destination"), text("ratings"))],
            limit: limit(5, 10_000),
        }],
        scope: QuotaScope::Dimensions,
        applies: Applies::Inbound,
        enforcers: 2,
        group: 0xdead_beef,
    };
    let mesh = Mesh {
        trust_domain: text("mesh.local"),
        default_timeout_ms: 15_000,
        outbound: OutboundMode::AllowAny,
        on_quota_unavailable: OnQuotaUnavailable::Share,
        retry_non_idempotent: false,
        mtls: MtlsMode::Strict,
        mtls_ports: vec![(9_080, MtlsMode::Permissive)],
    };
    let reviews = ServiceId::new("reviews", "default");
    let destination = Destination {
        service: reviews.clone(),
        port: Some(9_080),
        subset: Some(text("v3")),
        weight: 1,
        headers: HeaderOps::default(),
    };
    let route = HttpRoute {
        name: text("reviews.default#0"),
        matches: vec![HttpMatch {
            uri: Some(StringMatch::Prefix(text("/reviews"))),
            headers: vec![(text("end-user"), StringMatch::Exact(text("jason")))],
            ..HttpMatch::default()
        }],
        action: Action::Forward(vec![destination]),
        fault: Some(Fault {
            delay: Some(Delay {
                per_million: 100_000,
                delay_ms: 5_000,
            }),
            abort: Some(Abort {
                per_million: 100_000,
                with: AbortWith::Http(400),
            }),
        }),
        timeout_ms: Some(10_000),
        retry: Retry::default(),
        rewrite: None,
        headers: HeaderOps::default(),
    };
    let hosts = VirtualHost {
        name: text("reviews.default"),
        hosts: vec![text("reviews")],
        http: vec![route],
        tcp: Vec::new(),
    };
    let endpoints = Endpoints {
        service: reviews,
        endpoints: vec![Endpoint {
            node: Some(node()),
            address: address(),
            ports: vec![EndpointPort {
                service_port: 9_080,
                app_port: 9_080,
            }],
            mesh_port: Some(15_008),
            identity: SpiffeId::workload("mesh.local", "default", "reviews").ok(),
            labels: labels(),
            region: text("r1"),
            zone: text("z1"),
            weight: 1,
            state: EndpointState::Ready,
        }],
    };
    [
        (Body::Quota(quota), "requestcount.quota.istio-system"),
        (Body::Mesh(mesh), ""),
        (Body::Trust(Trust::default()), ""),
        (Body::Routes(hosts), "reviews.default"),
        (Body::Endpoints(endpoints), "reviews.default"),
    ]
    .into_iter()
    .map(|(body, name)| body.seal(name).expect("a sample is valid"))
    .collect()
}

/// A snapshot that takes schema 2.
fn named() -> Snapshot {
    let endpoint = |name: &str| NamedEndpoint {
        name: text(name),
        ports: vec![EndpointPort {
            service_port: 443,
            app_port: 8_443,
        }],
        labels: labels(),
        region: text("r1"),
        zone: text("z1"),
        weight: 2,
    };
    let names = |host: &str, resolution, endpoints| {
        let service = ServiceId::new(host, "default");
        let name = service.to_string();
        let names = Names {
            service,
            resolution,
            endpoints,
        };
        Body::Names(names).seal(name).expect("a sample is valid")
    };
    let each = vec![endpoint("a.example.com"), endpoint("b.example.com")];
    let mut sections = sections();
    sections.push(names("api.example.com", Resolution::Each, each));
    let one = vec![endpoint("cdn.example.com")];
    sections.push(names("cdn.example.com", Resolution::One, one));
    Snapshot::new(Revision(7), node(), sections).expect("it is valid")
}

/// One of every kind; of the lease messages one of every variant.
pub(crate) fn all() -> Vec<Sample> {
    let snapshot = Snapshot::new(Revision(7), node(), sections()).expect("it is valid");
    let push = snapshot.push_for(&BTreeMap::new());
    let named = named();
    let named_push = named.push_for(&BTreeMap::new());
    let mut all = vec![
        sample(
            "hello",
            Kind::Hello,
            Hello {
                version_min: 1,
                version_max: 1,
                node: node(),
                boot: 0x0123_4567_89ab_cdef,
                build: text("ringmesh-proxy 0.1.0"),
                revision: Revision(6),
                have: snapshot.order(),
            },
        ),
        sample(
            "welcome",
            Kind::Welcome,
            Welcome {
                version: 1,
                boot: 42,
                lease_ms: 2_500,
            },
        ),
        sample(
            "reject",
            Kind::Reject,
            Reject {
                code: text("token_used"),
                message: text("this token was used before; make another one"),
            },
        ),
        sample("push", Kind::Push, push),
        sample(
            "ack",
            Kind::Ack,
            Ack {
                revision: Revision(7),
            },
        ),
        sample(
            "nack",
            Kind::Nack,
            Nack {
                revision: Revision(7),
                reason: text("routes: subset v9 is missing"),
            },
        ),
        sample("register", Kind::Register, registration()),
        sample(
            "app_health",
            Kind::AppHealth,
            AppHealth {
                ports: vec![PortHealth {
                    port: 9_080,
                    healthy: false,
                    detail: text("connection refused"),
                }],
            },
        ),
        sample(
            "enroll",
            Kind::Enroll,
            Enroll {
                token_id: text("t1"),
                token_secret: text("s3cret"),
                node: node(),
                workload_csr: vec![0x30, 1],
                node_csr: vec![0x30, 2],
            },
        ),
        sample(
            "renew",
            Kind::Renew,
            Renew {
                workload_csr: vec![0x30, 1],
                node_csr: Some(vec![0x30, 2]),
            },
        ),
        sample(
            "issued",
            Kind::Issued,
            Issued {
                workload_chain: vec![vec![0x30, 1], vec![0x30, 2]],
                node_chain: vec![vec![0x30, 3]],
                roots: vec![vec![0x30, 4]],
            },
        ),
        sample("report", Kind::Report, report()),
        sample(
            "log_batch",
            Kind::LogBatch,
            LogBatch {
                node: node(),
                boot: 42,
                first: 100,
                dropped: 3,
                lines: vec![text("{\"status\":200}"), text("{\"status\":429}")],
            },
        ),
        sample("log_ack", Kind::LogAck, LogAck { next: 102 }),
        sample("snapshot", Kind::Snapshot, snapshot),
        sample_of(2, "resolved", Kind::Resolved, resolved()),
        sample_of(named_push.schema(), "push_names", Kind::Push, named_push),
        sample_of(named.schema(), "snapshot_names", Kind::Snapshot, named),
    ];
    all.extend(ups());
    all.extend(downs());
    all
}

fn resolved() -> Resolved {
    let name = |name, addresses: &[[u8; 4]], trouble| ResolvedName {
        name: text(name),
        addresses: addresses.iter().map(|four| IpAddr::from(*four)).collect(),
        trouble: text(trouble),
    };
    Resolved {
        names: vec![
            name(
                "eu.payments.example.com",
                &[[10, 0, 0, 7], [10, 0, 0, 8]],
                "",
            ),
            name("us.payments.example.com", &[], "timeout"),
        ],
    }
}

fn registration() -> Registration {
    Registration {
        service: ServiceId::new("reviews", "default"),
        service_account: text("reviews"),
        labels: labels(),
        address: address(),
        mesh_port: 15_008,
        ports: vec![RegisteredPort {
            name: text("http"),
            port: 9_080,
            app_port: 9_081,
            protocol: Protocol::Http1,
            healthy: true,
        }],
        region: text("r1"),
        zone: text("z1"),
    }
}

fn report() -> Report {
    let series = |name: &str, value| Series {
        name: text(name),
        labels: vec![(text("direction"), text("inbound"))],
        value,
    };
    Report {
        node: node(),
        boot: 42,
        sequence: 9,
        series: vec![
            series("ringmesh_requests_total", SeriesValue::Counter(12)),
            series("ringmesh_conns", SeriesValue::Gauge(-1)),
            series(
                "ringmesh_request_duration",
                SeriesValue::DurationHistogram {
                    buckets: (0..=DURATION_BUCKETS_US.len() as u64).collect(),
                    sum_us: 1_234,
                },
            ),
        ],
    }
}

fn ups() -> Vec<Sample> {
    let up = |name, message: LeaseUp| sample(name, Kind::LeaseUp, message);
    vec![
        up(
            "lease_up_hello",
            LeaseUp::Hello {
                boot: 42,
                rules: vec![HeldRule {
                    rule: bucket().rule,
                    shard: 1,
                    slots: u64::MAX,
                    lapsed: true,
                }],
            },
        ),
        up(
            "lease_up_hold",
            LeaseUp::Hold(vec![Held {
                shard: 1,
                bucket: bucket(),
                units: units(),
            }]),
        ),
        up("lease_up_ready", LeaseUp::Ready),
        up("lease_up_beat", LeaseUp::Beat { seq: 3 }),
        up(
            "lease_up_want",
            LeaseUp::Want {
                shard: 1,
                bucket: bucket(),
                need: 2,
                demand: 17,
            },
        ),
        up(
            "lease_up_return",
            LeaseUp::Return {
                shard: 1,
                bucket: bucket(),
                units: units(),
                demand: 17,
                answer: true,
            },
        ),
        up(
            "lease_up_released",
            LeaseUp::Released {
                shard: 1,
                rule: bucket().rule,
                slots: 0xff,
            },
        ),
        up("lease_up_goodbye", LeaseUp::Goodbye),
    ]
}

fn downs() -> Vec<Sample> {
    let down = |name, message: LeaseDown| sample(name, Kind::LeaseDown, message);
    let rule = || bucket().rule;
    let lent = Lent {
        bucket: bucket(),
        units: units(),
    };
    vec![
        down(
            "lease_down_renew",
            LeaseDown::Renew {
                seq: 3,
                ttl_ms: 5_000,
                rules: vec![rule()],
            },
        ),
        down(
            "lease_down_seed",
            LeaseDown::Seed {
                shard: 1,
                rule: rule(),
                slots: 0xff,
                touched: vec![lent],
            },
        ),
        down(
            "lease_down_release",
            LeaseDown::Release {
                shard: 1,
                rule: rule(),
                slots: 0xf,
            },
        ),
        down(
            "lease_down_lend",
            LeaseDown::Lend {
                shard: 1,
                bucket: bucket(),
                units: units(),
            },
        ),
        down(
            "lease_down_recall",
            LeaseDown::Recall {
                shard: 1,
                bucket: bucket(),
                take: 2,
                kind: RecallKind::DownTo(3),
            },
        ),
        down(
            "lease_down_surrender",
            LeaseDown::Surrender {
                shard: 1,
                rule: rule(),
            },
        ),
    ]
}
