//! What the deciding rooms cost per request: 100 services x 10 routes, 20 AuthorizationPolicies,
//! 20 quotas, as a standalone sidecar enforces them.
//!
//! `cargo run --release -p ringmesh-dataplane --example decide [ROOM]`: nanoseconds per call, the
//! best of 20 rounds. With a room's name only that one runs, for callgrind or perf; a second word is
//! the number of rounds. With the word `callgrind` each room's calls are made in one [`measured`] call,
//! which callgrind is told to look at: `tests/tests/instructions.rs` holds the counts to their budgets.

use std::hint::black_box;
use std::time::Instant;

use ringmesh_dataplane::balance::{Balancer, ShardShare, Tried, Verdict};
use ringmesh_dataplane::http1::{
    BodyDecoder, ChunkEncoder, Framing, Parsed, Request, RequestHead, RequestPlan, Response,
    ResponseHead, ResponsePlan, Version, path,
};
use ringmesh_dataplane::policy::quota::{OfConnection, QuotaCells, QuotaMemo};
use ringmesh_dataplane::policy::{Attributes, Call, Notes, QuotaStep, check};

use ringmesh_dataplane::route::{Decided, choose};
use ringmesh_dataplane::tables::{QuotaIndex, Site, Tables, Target, Workload, WorkloadPort};
use ringmesh_dataplane::telemetry::{Direction, LogBuf, Meter, Outcome, Party, Transport};
use ringmesh_dataplane::time::Mono;
use ringmesh_dataplane::view::{Peer, PeerIdentity, RequestView};
use ringmesh_quota::Home;
use ringmesh_wire::snapshot::{
    Action, Applies, Authz, AuthzAction, AuthzRule, Body, Destination, Endpoint, EndpointPort,
    EndpointState, Endpoints, HeaderOps, HttpMatch, HttpRoute, Limit, Mesh, MtlsMode,
    OnQuotaUnavailable, Operation, OutboundMode, Outlier, Pattern, Policy, Protocol, QuotaRule,
    QuotaScope, Retry, Service, ServicePort, Source, StringMatch, TrafficPolicy, VirtualHost,
};
use ringmesh_wire::{
    Expr, ExprNode, NodeId, Revision, Section, ServiceId, Snapshot, SpiffeId, Value,
};

const SERVICES: usize = 100;
const ROUTES: usize = 10;
const POLICIES: usize = 20;
const QUOTAS: usize = 20;
/// Calls of one timed round.
const CALLS: u32 = 20_000;
/// Calls of one counted round: enough that what happens once in a hundred calls is in it.
const COUNTED_CALLS: u32 = 1_000;

const REQUEST: &[u8] = b"GET /api/v9/items/1234?page=2 HTTP/1.1\r\n\
host: service-57.default.svc.cluster.local:9080\r\n\
user-agent: bench/1.0\r\n\
accept: */*\r\n\
accept-encoding: gzip\r\n\
x-request-id: 7f1c2f0e-6c1a-4a56-9d53-9c1f5b0a7e11\r\n\
x-forwarded-proto: http\r\n\
cookie: session=0123456789abcdef\r\n\
x-tenant: blue\r\n\
end-user: jason\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\n\
server: bench\r\n\
date: Mon, 02 Nov 2026 10:00:00 GMT\r\n\
content-type: application/octet-stream\r\n\
content-length: 128\r\n\
cache-control: no-store\r\n\r\n";

const CHUNKED: &[u8] = b"5\r\nhello\r\n10;a=b\r\n0123456789abcdef\r\n0\r\nx-end: 1\r\n\r\n";

/// How a room's calls are made.
enum Mode {
    /// Rounds of which the best counts, all rooms or one.
    Timed { rounds: u32, only: Option<String> },
    /// Once each, for callgrind.
    Counted,
}

impl Mode {
    fn of_arguments() -> Self {
        let mut words = std::env::args().skip(1);
        match words.next() {
            Some(word) if word == "callgrind" => Self::Counted,
            only => Self::Timed {
                rounds: words.next().and_then(|n| n.parse().ok()).unwrap_or(20),
                only,
            },
        }
    }

    fn run(&self, room: &str, body: &mut dyn FnMut()) {
        match self {
            Self::Timed { only, .. } if only.as_deref().is_some_and(|only| only != room) => {}
            Self::Timed { rounds, .. } => {
                let best = (0..*rounds)
                    .map(|_| {
                        let start = Instant::now();
                        for _ in 0..CALLS {
                            body();
                        }
                        start.elapsed().as_secs_f64() / f64::from(CALLS) * 1e9
                    })
                    .fold(f64::INFINITY, f64::min);
                println!("{room:10} {best:8.1} ns");
            }
            Self::Counted => {
                // What the first call makes is not what a call costs.
                body();
                measured(body);
                println!("{room} {COUNTED_CALLS}");
            }
        }
    }
}

/// Its name is what callgrind is told to look for.
#[inline(never)]
fn measured(body: &mut dyn FnMut()) {
    for _ in 0..COUNTED_CALLS {
        body();
    }
    black_box(());
}

fn main() {
    let mode = Mode::of_arguments();
    let tables = Tables::build(&snapshot(), &workload()).expect("the snapshot holds together");
    let mut head = RequestHead::new();
    let mut answer = ResponseHead::new();
    mode.run("parse", &mut || {
        let parsed = head.parse(black_box(REQUEST));
        assert!(black_box(parsed) == Parsed::Head(REQUEST.len()));
    });
    mode.run("answer", &mut || {
        let parsed = answer.parse(black_box(ANSWER));
        assert!(black_box(parsed) == Parsed::Head(ANSWER.len()));
    });
    let parsed = head.parse(REQUEST);
    assert!(parsed == Parsed::Head(REQUEST.len()));
    let headers = head.view(REQUEST);
    written(&mode, &headers, &answer.view(ANSWER));
    let request = RequestView {
        method: "GET",
        authority: "service-57.default.svc.cluster.local:9080",
        path: "/api/v9/items/1234",
        query: Some("page=2"),
        headers: &headers,
        port: 9080,
    };
    let peer = caller();
    let call = Call {
        site: Site::Inbound,
        peer: &peer,
        request: Some(&request),
        destination: ([127, 0, 0, 1], 8080).into(),
    };
    let mut random = fastrand::Rng::with_seed(1);
    let mut balancer = Balancer::new(ShardShare::WHOLE);
    balancer.swap(&tables);
    let home = Home {
        shard: 0,
        shards: 1,
        standalone: true,
    };
    let mut now = Mono(1_000_000_000);
    let mut quota = QuotaCells::new(home, 1);
    quota.swap(&tables, now);
    let mut meter = Meter::new();
    let mut log = LogBuf::new(1 << 20);

    let Target::Known(known) = tables.resolve_http(request.authority, None) else {
        panic!("the host is known");
    };
    let choice = choose(&tables, &known, &request, 1).expect("a route");
    let Decided::Forward { cluster, .. } = choice.decided else {
        panic!("forwarded");
    };
    mode.run("resolve", &mut || {
        black_box(tables.resolve_http(black_box(request.authority), None));
    });
    mode.run("route", &mut || {
        black_box(choose(&tables, &known, black_box(&request), random.u64(..)).is_ok());
    });
    mode.run("balance", &mut || {
        let random = random.u64(..);
        let tried = Tried::default();
        let pick = balancer
            .pick(&tables, cluster, Mono(1), random, &tried, None)
            .expect("an endpoint");
        balancer.finish(black_box(pick), Verdict::Answer(200), Mono(2));
    });
    mode.run("authz", &mut || {
        let mut none = NoQuota;
        assert!(black_box(check(&tables, black_box(&call), &mut none, Mono(1))).is_ok());
    });
    // With authorization; the cells looked for at each call, as on a connection's first.
    mode.run("searched", &mut || {
        now.0 += 10_000;
        let permit = check(&tables, black_box(&call), &mut quota, now);
        assert!(black_box(permit).is_ok());
    });
    // With authorization; the cells known, as from the second call of a connection on.
    let mut memo = QuotaMemo::default();
    mode.run("quota", &mut || {
        now.0 += 10_000;
        let mut step = OfConnection {
            cells: &mut quota,
            memo: &mut memo,
            site: Site::Inbound,
        };
        let permit = check(&tables, black_box(&call), &mut step, now);
        assert!(black_box(permit).is_ok());
    });
    let outcome = outcome(&peer, &request);
    mode.run("count", &mut || meter.record(black_box(&outcome)));
    mode.run("log", &mut || {
        log.push(black_box(&outcome));
        if log.is_ripe() {
            log.clear();
        }
    });
}

/// What is written again, and bodies.
fn written(mode: &Mode, request: &Request<'_>, answer: &Response<'_>) {
    let mut out = Vec::with_capacity(4096);
    mode.run("request", &mut || {
        out.clear();
        let plan = RequestPlan {
            path: Some("/api/v9/items/1234"),
            ..RequestPlan::default()
        };
        assert!(plan.put(black_box(request), &mut out).is_ok());
        black_box(&out);
    });
    mode.run("reply", &mut || {
        out.clear();
        let plan = ResponsePlan {
            to: Version::Http11,
            framing: Framing::Length(128),
            tells_length_only: false,
            keep_alive: true,
            upgrade: false,
            edits: &[],
        };
        assert!(plan.put(black_box(answer), &mut out).is_ok());
        black_box(&out);
    });
    let mut clean = String::new();
    mode.run("path", &mut || {
        let rules = path::PathRules::default();
        black_box(path::normalise(
            black_box("/api//v9/./items/%31234"),
            rules,
            &mut clean,
        ));
    });
    let mut decoder = BodyDecoder::new();
    mode.run("chunks", &mut || {
        out.clear();
        decoder.begin(Framing::Chunked);
        let mut encoder = ChunkEncoder::new();
        let mut rest: &[u8] = black_box(CHUNKED);
        while !decoder.is_over() {
            let decoded = decoder.decode(rest).expect("well chunked");
            let (_, behind) = rest.split_at(decoded.skip);
            let (payload, behind) = behind.split_at(decoded.payload);
            if !payload.is_empty() {
                assert!(encoder.piece(payload.len(), &mut out).is_ok());
            }
            rest = behind;
        }
        assert!(encoder.last(decoder.trailers(), &mut out).is_ok());
        black_box(&out);
    });
}

struct NoQuota;

impl QuotaStep for NoQuota {
    fn charge(
        &mut self,
        _: &Tables,
        _: &[QuotaIndex],
        _: &Attributes<'_>,
        _: Mono,
        _: &mut Notes,
    ) -> Result<(), QuotaIndex> {
        Ok(())
    }
}

fn labels(app: &str, version: &str) -> std::collections::BTreeMap<String, String> {
    [("app", app), ("version", version)]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn caller() -> Peer {
    Peer {
        address: ([10, 0, 0, 9], 40_000).into(),
        identity: Some(Box::new(PeerIdentity {
            spiffe: SpiffeId::workload("mesh.local", "default", "reviews").expect("an id"),
            service: ServiceId::new("reviews", "default"),
            labels: labels("reviews", "v2"),
        })),
    }
}

fn workload() -> Workload {
    Workload {
        service: ServiceId::new("ratings", "default"),
        service_account: "ratings".into(),
        labels: labels("ratings", "v1"),
        ports: vec![WorkloadPort {
            name: "http".into(),
            number: 9080,
            protocol: Protocol::Http1,
            app: ([127, 0, 0, 1], 8080).into(),
            mtls: MtlsMode::Strict,
        }],
    }
}

fn outcome<'a>(peer: &'a Peer, request: &RequestView<'a>) -> Outcome<'a> {
    Outcome {
        source: Party::peer(peer.identity.as_deref()),
        destination: Party {
            service: "ratings",
            namespace: "default",
            version: "v1",
        },
        route: "service-57.default#9",
        cluster: "service-57.default:9080",
        endpoint: Some(([10, 0, 57, 1], 9080).into()),
        peer_address: Some(peer.address),
        peer_principal: "mesh.local/ns/default/sa/reviews",
        method: request.method,
        authority: request.authority,
        path: request.path,
        status: 200,
        bytes_out: 128,
        start_unix_us: 1_763_800_000_000_000,
        total_us: 212,
        upstream_us: Some(180),
        attempts: 1,
        request_id: "7f1c2f0e-6c1a-4a56-9d53-9c1f5b0a7e11",
        ..Outcome::new(Direction::Inbound, Transport::Http1)
    }
}

fn snapshot() -> Snapshot {
    let mesh = Mesh {
        trust_domain: "mesh.local".into(),
        default_timeout_ms: 15_000,
        outbound: OutboundMode::AllowAny,
        on_quota_unavailable: OnQuotaUnavailable::Share,
        retry_non_idempotent: false,
        mtls: MtlsMode::Strict,
        mtls_ports: Vec::new(),
    };
    let mut sections = vec![sealed(&Body::Mesh(mesh), "")];
    for n in 0..SERVICES {
        add_service(n, &mut sections);
    }
    let policy = Policy {
        authz: (0..POLICIES).map(authz).collect(),
        checks: Vec::new(),
    };
    sections.push(sealed(&Body::Policy(policy), ""));
    for n in 0..QUOTAS {
        let rule = quota(n);
        sections.push(sealed(&Body::Quota(rule.clone()), &rule.name));
    }
    Snapshot::new(Revision(1), NodeId("ratings-v1-1".into()), sections).expect("a snapshot")
}

fn sealed(body: &Body, name: &str) -> Section {
    body.seal(name).expect("a section")
}

fn add_service(n: usize, sections: &mut Vec<Section>) {
    let name = format!("service-{n}");
    let id = ServiceId::new(&name, "default");
    let hosts = vec![
        name.clone(),
        format!("{name}.default"),
        format!("{name}.default.svc.cluster.local"),
    ];
    let outlier = Outlier {
        consecutive_5xx: 5,
        consecutive_gateway: 0,
        consecutive_local: 0,
        split_local: false,
        interval_ms: 10_000,
        base_ejection_ms: 30_000,
        ejection_percent_max: 10,
        min_health_percent: 0,
    };
    let service = Service {
        id: id.clone(),
        hosts: hosts.clone(),
        vips: Vec::new(),
        ports: vec![ServicePort {
            number: 9080,
            name: "http".into(),
            protocol: Protocol::Http1,
        }],
        identities: Vec::new(),
        policy: TrafficPolicy {
            outlier: Some(outlier),
            ..TrafficPolicy::default()
        },
        port_policies: Vec::new(),
        subsets: Vec::new(),
        external: false,
    };
    let endpoint = |m: u8| Endpoint {
        node: None,
        address: [10, 0, u8::try_from(n).expect("small"), m].into(),
        ports: vec![EndpointPort {
            service_port: 9080,
            app_port: 9080,
        }],
        mesh_port: Some(15_008),
        identity: None,
        labels: labels(&name, "v1"),
        region: String::new(),
        zone: String::new(),
        weight: 1,
        state: EndpointState::Ready,
    };
    let endpoints = Endpoints {
        service: id.clone(),
        endpoints: (1..=10).map(endpoint).collect(),
    };
    let virtual_host = VirtualHost {
        name: id.to_string(),
        hosts,
        http: (0..ROUTES).map(|at| route(&id, at)).collect(),
        tcp: Vec::new(),
    };
    let key = id.to_string();
    sections.push(sealed(&Body::Service(service), &key));
    sections.push(sealed(&Body::Endpoints(endpoints), &key));
    sections.push(sealed(&Body::Routes(virtual_host), &key));
}

/// Prefixes `/api/v0/` to `/api/v9/`; every third asks for a header too.
fn route(service: &ServiceId, at: usize) -> HttpRoute {
    let destination = |weight| Destination {
        service: service.clone(),
        port: None,
        subset: None,
        weight,
        headers: HeaderOps::default(),
    };
    let headers = match at % 3 {
        0 => vec![("end-user".into(), StringMatch::Exact("jason".into()))],
        _ => Vec::new(),
    };
    HttpRoute {
        name: format!("{service}#{at}"),
        matches: vec![HttpMatch {
            uri: Some(StringMatch::Prefix(format!("/api/v{at}/"))),
            headers,
            ..HttpMatch::default()
        }],
        action: Action::Forward(vec![destination(99), destination(1)]),
        fault: None,
        timeout_ms: Some(10_000),
        retry: Retry::default(),
        rewrite: None,
        headers: HeaderOps::default(),
    }
}

/// Ten DENY that miss late, ten ALLOW of which the last matches.
fn authz(n: usize) -> Authz {
    let deny = n.is_multiple_of(2);
    let last = n == POLICIES - 1;
    let path = match (deny, last) {
        (true, _) => format!("/admin/{n}/"),
        (false, true) => "/api/".into(),
        (false, false) => format!("/internal/{n}/"),
    };
    Authz {
        name: format!("policy-{n}.default"),
        action: if deny {
            AuthzAction::Deny
        } else {
            AuthzAction::Allow
        },
        rules: vec![AuthzRule {
            from: vec![Source {
                principals: vec![
                    Pattern::Exact("mesh.local/ns/default/sa/productpage".into()),
                    Pattern::Exact("mesh.local/ns/default/sa/reviews".into()),
                ],
                ..Source::default()
            }],
            to: vec![Operation {
                methods: vec![Pattern::Exact("POST".into()), Pattern::Exact("GET".into())],
                paths: vec![Pattern::Prefix(path)],
                ..Operation::default()
            }],
            when: Vec::new(),
        }],
        applies: Applies::Inbound,
    }
}

/// The users' memquota: four dimensions with defaults.
fn quota(n: usize) -> QuotaRule {
    let dimension = |map: &str, label: &str| {
        let attribute = |name: &str| ExprNode::Attribute(name.into());
        let text = |text: &str| ExprNode::Const(Value::String(text.into()));
        Expr {
            nodes: vec![
                attribute(&format!("{map}.labels")),
                text(label),
                ExprNode::Index(0, 1),
                attribute(&format!("{map}.service")),
                ExprNode::Default(2, 3),
                text("unknown"),
                ExprNode::Default(4, 5),
            ],
        }
    };
    QuotaRule {
        name: format!("requestcount-{n}.quota.istio-system"),
        when: Some(Expr {
            nodes: vec![
                ExprNode::Attribute("destination.namespace".into()),
                ExprNode::Const(Value::String("default".into())),
                ExprNode::Eq(0, 1),
                ExprNode::Attribute("context.protocol".into()),
                ExprNode::Const(Value::String(format!("udp-{n}"))),
                ExprNode::Ne(3, 4),
                ExprNode::And(2, 5),
            ],
        }),
        dimensions: vec![
            ("destination".into(), dimension("destination", "app")),
            (
                "destinationVersion".into(),
                dimension("destination", "version"),
            ),
            ("source".into(), dimension("source", "app")),
            ("sourceVersion".into(), dimension("source", "version")),
        ],
        charge: 1,
        limit: Limit {
            amount_max: 1_000_000_000,
            window_ms: 1_000,
        },
        overrides: Vec::new(),
        scope: QuotaScope::Dimensions,
        applies: Applies::Inbound,
        enforcers: 1,
        group: 0,
    }
}
