use std::net::SocketAddr;

use proptest::prelude::*;
use ringmesh_wire::snapshot::{
    Applies, AuthzAction, AuthzRule, Condition, IpBlock, Operation, Source,
};
use ringmesh_wire::{Expr, NodeIndex, ServiceId, Value};

use super::expr::{self, EvalError};
use super::{Attributes, Call, Notes, Permit, QuotaStep, Refusal, Val, check};
use crate::reason::Reason;
use crate::tables::testing::{Arena, Draft, Headers, from_to, get, glob, peer, stranger};
use crate::tables::{Program, QuotaIndex, Site, Stays, Tables};
use crate::time::Mono;
use crate::view::{Peer, RequestView};

/// A quota step that must not be reached, or is counted.
#[derive(Default)]
struct Quota {
    asked: u32,
    exhausted: Option<QuotaIndex>,
}

impl QuotaStep for Quota {
    fn charge(
        &mut self,
        _: &Tables,
        _: &[QuotaIndex],
        _: &Attributes<'_>,
        _: Mono,
        _: &mut Notes,
    ) -> Result<(), QuotaIndex> {
        self.asked += 1;
        self.exhausted.map_or(Ok(()), Err)
    }
}

fn destination() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8080))
}

fn judged<'t>(
    tables: &'t Tables,
    peer: &Peer,
    request: Option<&RequestView<'_>>,
) -> Result<Permit, Refusal<'t>> {
    let call = Call {
        site: Site::Inbound,
        peer,
        request,
        destination: destination(),
    };
    check(tables, &call, &mut Quota::default(), Mono(0))
}

fn passes(tables: &Tables, peer: &Peer, request: Option<&RequestView<'_>>) -> bool {
    match judged(tables, peer, request) {
        Ok(_) => true,
        Err(refusal) => {
            assert_eq!(refusal.reason, Reason::AuthzDenied);
            assert_eq!((refusal.status, refusal.grpc_status), (403, 7));
            assert_eq!(refusal.body, "RBAC: access denied");
            false
        }
    }
}

fn globs(all: &[&str]) -> Vec<ringmesh_wire::snapshot::Pattern> {
    all.iter().map(|text| glob(text)).collect()
}

fn from(source: Source) -> AuthzRule {
    AuthzRule {
        from: vec![source],
        ..AuthzRule::default()
    }
}

fn at(operation: Operation) -> AuthzRule {
    AuthzRule {
        to: vec![operation],
        ..AuthzRule::default()
    }
}

fn when(key: &str, values: &[&str], not_values: &[&str]) -> AuthzRule {
    AuthzRule {
        when: vec![Condition {
            key: key.into(),
            values: globs(values),
            not_values: globs(not_values),
        }],
        ..AuthzRule::default()
    }
}

#[test]
fn deny_wins_then_allow_is_needed_where_there_is_one() {
    use AuthzAction::{Allow, Audit, Deny};
    let all = || vec![AuthzRule::default()];
    let reviews = || {
        vec![from(Source {
            principals: globs(&["mesh.local/ns/default/sa/reviews"]),
            ..Source::default()
        })]
    };
    type Policies = Vec<(AuthzAction, Vec<AuthzRule>)>;
    let cases: [(Policies, bool); 11] = [
        (vec![], true),
        // Rules missing never match: ALLOW refuses everything, DENY nothing.
        (vec![(Allow, vec![])], false),
        (vec![(Deny, vec![])], true),
        // `rules: [{}]` matches all.
        (vec![(Allow, all())], true),
        (vec![(Deny, all())], false),
        (vec![(Deny, all()), (Allow, all())], false),
        (vec![(Allow, vec![]), (Allow, all())], true),
        (vec![(Allow, reviews())], true),
        (vec![(Deny, reviews())], false),
        (vec![(Audit, all())], true),
        (vec![(Audit, all()), (Allow, vec![])], false),
    ];
    for (policies, wanted) in cases {
        let mut draft = Draft::new();
        for (action, rules) in policies.clone() {
            draft = draft.authz("p", action, rules);
        }
        let tables = draft.tables();
        let got = passes(&tables, &peer("reviews", "v1"), Some(&get("r", "/", &())));
        assert_eq!(got, wanted, "{policies:?}");
    }
}

#[test]
fn an_audit_is_noted_and_changes_nothing() {
    let reviews = from(Source {
        principals: globs(&["mesh.local/ns/default/sa/reviews"]),
        ..Source::default()
    });
    let tables = Draft::new()
        .authz("none", AuthzAction::Audit, vec![])
        .authz("a", AuthzAction::Audit, vec![reviews, AuthzRule::default()])
        .authz("b", AuthzAction::Audit, vec![AuthzRule::default()])
        .tables();
    for (caller, rule) in [(stranger(), 1), (peer("reviews", "v1"), 0)] {
        let permit = judged(&tables, &caller, None).unwrap();
        let audited = permit.notes().audited.unwrap();
        assert_eq!((audited.policy(&tables), audited.rule), ("a.default", rule));
    }
    // Refused calls are noted, too.
    let tables = Draft::new()
        .authz("d", AuthzAction::Deny, vec![AuthzRule::default()])
        .authz("a", AuthzAction::Audit, vec![AuthzRule::default()])
        .tables();
    let refusal = judged(&tables, &stranger(), None).unwrap_err();
    let audited = refusal.notes.audited.unwrap();
    assert_eq!(audited.policy(&tables), "a.default");
    let tables = Draft::new().authz("a", AuthzAction::Audit, vec![]).tables();
    let permit = judged(&tables, &stranger(), None).unwrap();
    assert_eq!(permit.notes().audited, None);
}

#[test]
fn sources_match_by_proven_identity_alone() {
    let principals = |all: &[&str]| Source {
        principals: globs(all),
        ..Source::default()
    };
    let not_principals = |all: &[&str]| Source {
        not_principals: globs(all),
        ..Source::default()
    };
    let namespaces = |all: &[&str]| Source {
        namespaces: globs(all),
        ..Source::default()
    };
    let not_namespaces = |all: &[&str]| Source {
        not_namespaces: globs(all),
        ..Source::default()
    };
    let blocks = |all: &[(&str, u8)]| {
        all.iter()
            .map(|(address, prefix_bits)| IpBlock {
                address: address.parse().unwrap(),
                prefix_bits: *prefix_bits,
            })
            .collect::<Vec<_>>()
    };
    let ip = |all: &[(&str, u8)]| Source {
        ip_blocks: blocks(all),
        ..Source::default()
    };
    let not_ip = |all: &[(&str, u8)]| Source {
        not_ip_blocks: blocks(all),
        ..Source::default()
    };
    // (rule, matches reviews, matches plaintext), both at 10.0.0.9.
    for (source, known, unknown) in [
        (
            principals(&["mesh.local/ns/default/sa/reviews"]),
            true,
            false,
        ),
        (principals(&["mesh.local/ns/default/sa/rev"]), false, false),
        (principals(&["mesh.local/*"]), true, false),
        (principals(&["*/reviews"]), true, false),
        (principals(&["*"]), true, false),
        (principals(&["x", "*"]), true, false),
        (not_principals(&["*"]), false, true),
        (not_principals(&["x"]), true, true),
        (namespaces(&["default"]), true, false),
        (namespaces(&["other"]), false, false),
        (not_namespaces(&["default"]), false, true),
        (ip(&[("10.0.0.0", 8)]), true, true),
        (ip(&[("10.0.0.9", 32)]), true, true),
        (ip(&[("10.0.0.8", 32)]), false, false),
        (ip(&[("10.0.0.8", 31)]), true, true),
        (ip(&[("0.0.0.0", 0)]), true, true),
        (ip(&[("::", 0)]), false, false),
        (ip(&[("::ffff:10.0.0.0", 104)]), true, true),
        (not_ip(&[("10.0.0.0", 8)]), false, false),
        (
            Source {
                not_principals: globs(&["x"]),
                ..principals(&["*"])
            },
            true,
            false,
        ),
        (
            Source {
                ip_blocks: blocks(&[("1.0.0.0", 8)]),
                ..principals(&["*"])
            },
            false,
            false,
        ),
    ] {
        let tables = Draft::new()
            .authz("p", AuthzAction::Allow, vec![from(source.clone())])
            .tables();
        let request = get("ratings", "/", &());
        let got =
            [peer("reviews", "v3"), stranger()].map(|peer| passes(&tables, &peer, Some(&request)));
        assert_eq!(got, [known, unknown], "{source:?}");
    }
}

#[test]
fn a_mapped_peer_address_is_its_v4_address() {
    let source = Source {
        ip_blocks: vec![IpBlock {
            address: "10.0.0.0".parse().unwrap(),
            prefix_bits: 8,
        }],
        ..Source::default()
    };
    let tables = Draft::new()
        .authz("p", AuthzAction::Allow, vec![from(source)])
        .tables();
    let mapped = Peer {
        address: "[::ffff:10.1.2.3]:1".parse().unwrap(),
        identity: None,
    };
    assert!(passes(&tables, &mapped, None));
}

#[test]
fn operations_match_the_request() {
    let empty = Operation::default;
    for (operation, wanted) in [
        (
            Operation {
                methods: globs(&["GET"]),
                ..empty()
            },
            true,
        ),
        (
            Operation {
                methods: globs(&["get"]),
                ..empty()
            },
            false,
        ),
        (
            Operation {
                not_methods: globs(&["GET"]),
                ..empty()
            },
            false,
        ),
        (
            Operation {
                paths: globs(&["/a/*"]),
                ..empty()
            },
            true,
        ),
        (
            Operation {
                paths: globs(&["*/b"]),
                ..empty()
            },
            true,
        ),
        (
            Operation {
                paths: globs(&["/a/b?q=1"]),
                ..empty()
            },
            false,
        ),
        (
            Operation {
                not_paths: globs(&["/a/b"]),
                ..empty()
            },
            false,
        ),
        (
            Operation {
                hosts: globs(&["RATINGS"]),
                ..empty()
            },
            true,
        ),
        (
            Operation {
                hosts: globs(&["ratings:9080"]),
                ..empty()
            },
            true,
        ),
        (
            Operation {
                hosts: globs(&["ratings:1"]),
                ..empty()
            },
            false,
        ),
        (
            Operation {
                not_hosts: globs(&["rat*"]),
                ..empty()
            },
            false,
        ),
        // Workload port, not service port.
        (
            Operation {
                ports: vec![8080],
                ..empty()
            },
            true,
        ),
        (
            Operation {
                ports: vec![9080],
                ..empty()
            },
            false,
        ),
        (
            Operation {
                not_ports: vec![8080],
                ..empty()
            },
            false,
        ),
        (
            Operation {
                ports: vec![8080],
                methods: globs(&["POST"]),
                ..empty()
            },
            false,
        ),
    ] {
        let tables = Draft::new()
            .authz("p", AuthzAction::Allow, vec![at(operation.clone())])
            .tables();
        let request = get("Ratings:9080", "/a/b?q=1", &());
        assert_eq!(
            passes(&tables, &stranger(), Some(&request)),
            wanted,
            "{operation:?}"
        );
    }
}

#[test]
fn conditions_look_at_their_key() {
    let fields = Headers(&[("x-token", "abc")]);
    for (rule, wanted) in [
        (when("request.headers[X-Token]", &["abc"], &[]), true),
        (when("request.headers[x-token]", &["a*"], &["abd"]), true),
        (when("request.headers[x-token]", &[], &["abc"]), false),
        (when("request.headers[other]", &["*"], &[]), false),
        (when("request.headers[other]", &[], &["*"]), true),
        (when("source.namespace", &["default"], &[]), true),
        (when("source.principal", &["*/reviews"], &[]), true),
        (when("source.principal", &[], &["*/reviews"]), false),
        (when("source.ip", &["10.0.0.0/24"], &["10.0.0.8"]), true),
        (when("source.ip", &["10.0.0.8"], &[]), false),
        (when("destination.port", &["8080", "1"], &[]), true),
        (when("destination.port", &[], &["8080"]), false),
    ] {
        let tables = Draft::new()
            .authz("p", AuthzAction::Allow, vec![rule.clone()])
            .tables();
        let request = get("ratings", "/", &fields);
        let got = passes(&tables, &peer("reviews", "v1"), Some(&request));
        assert_eq!(got, wanted, "{rule:?}");
    }
    for bad in [
        when("request.auth.claims[x]", &["a"], &[]),
        when("source.ip", &["10.*"], &[]),
        when("source.ip", &["10.0.0.0/33"], &[]),
        when("destination.port", &["http"], &[]),
    ] {
        let draft = Draft::new().authz("p", AuthzAction::Allow, vec![bad.clone()]);
        let error = draft.build().unwrap_err().to_string();
        assert!(error.contains("authorization policy p.default"), "{error}");
    }
}

#[test]
fn on_a_tcp_port_allow_fails_and_deny_denies_more() {
    let http = || Operation {
        methods: globs(&["DELETE"]),
        ..Operation::default()
    };
    let http_and_port = |port| Operation {
        ports: vec![port],
        ..http()
    };
    let header = || when("request.headers[x]", &["1"], &[]);
    let tables = |action, rule| Draft::new().authz("p", action, vec![rule]).tables();
    for (action, rule, wanted) in [
        (AuthzAction::Allow, at(http()), false),
        (AuthzAction::Allow, at(http_and_port(8080)), false),
        (AuthzAction::Allow, header(), false),
        (
            AuthzAction::Allow,
            at(Operation {
                ports: vec![8080],
                ..Operation::default()
            }),
            true,
        ),
        (AuthzAction::Deny, at(http()), false),
        (AuthzAction::Deny, at(http_and_port(8080)), false),
        (AuthzAction::Deny, at(http_and_port(1)), true),
        (AuthzAction::Deny, header(), false),
    ] {
        let tables = tables(action, rule.clone());
        assert_eq!(
            passes(&tables, &stranger(), None),
            wanted,
            "{action:?} {rule:?}"
        );
    }
}

#[test]
fn the_users_denier_refuses_reviews_v3_alone() {
    let tables = Draft::new()
        .denier("denyreviewsv3", Some(from_to("ratings", "reviews", "v3")))
        .tables();
    let forged = Headers(&[
        ("x-source-labels", "app=reviews,version=v3"),
        (
            "x-forwarded-client-cert",
            "URI=spiffe://mesh.local/ns/default/sa/reviews",
        ),
    ]);
    let request = get("ratings", "/", &forged);
    let refusal = judged(&tables, &peer("reviews", "v3"), Some(&request)).unwrap_err();
    assert_eq!(refusal.reason, Reason::CheckDenied);
    assert_eq!((refusal.status, refusal.grpc_status), (403, 7));
    assert_eq!(
        refusal.body,
        "PERMISSION_DENIED:denyreviewsv3handler.default:Not allowed"
    );
    assert_eq!(refusal.policy, "denyreviewsv3.default");
    let v2 = judged(&tables, &peer("reviews", "v2"), Some(&request)).unwrap();
    assert_eq!(v2.notes().expression_errors, 0);
    // Plaintext has no labels whatever its headers say: an error, counted, and no match.
    let plain = judged(&tables, &stranger(), Some(&request)).unwrap();
    assert_eq!(plain.notes().expression_errors, 1);
    assert!(judged(&tables, &peer("reviews", "v3"), None).is_err());
}

#[test]
fn a_denier_answers_with_its_own_status() {
    for (code, wanted) in [
        (7, Some((403, "PERMISSION_DENIED:h.ns:no"))),
        (9, Some((400, "FAILED_PRECONDITION:h.ns:no"))),
        (8, Some((429, "RESOURCE_EXHAUSTED:h.ns:no"))),
        (16, Some((401, "UNAUTHENTICATED:h.ns:no"))),
        (99, Some((500, "UNKNOWN:h.ns:no"))),
        (0, None),
    ] {
        let mut draft = Draft::new().denier("d", None);
        let deny = &mut draft.policy.checks[0].deny;
        deny.grpc_status = code;
        deny.handler = "h.ns".into();
        deny.message = "no".into();
        let tables = draft.tables();
        let got = judged(&tables, &stranger(), None)
            .err()
            .map(|refusal| (refusal.status, refusal.body));
        assert_eq!(got, wanted, "{code}");
    }
}

#[test]
fn quota_comes_last_and_only_for_those_who_may() {
    use ringmesh_wire::snapshot::{Limit, QuotaRule, QuotaScope};
    let with = |action| {
        let mut draft = Draft::new().authz("p", action, vec![AuthzRule::default()]);
        draft.quotas.push(QuotaRule {
            name: "requestcount.quota.istio-system".into(),
            when: None,
            dimensions: Vec::new(),
            charge: 1,
            limit: Limit {
                amount_max: 1,
                window_ms: 1_000,
            },
            overrides: Vec::new(),
            scope: QuotaScope::Dimensions,
            applies: Applies::Inbound,
            enforcers: 1,
            group: 0,
        });
        draft.tables()
    };
    let asked = |tables: &Tables, exhausted| {
        let mut quota = Quota {
            asked: 0,
            exhausted,
        };
        let peer = stranger();
        let call = Call {
            site: Site::Inbound,
            peer: &peer,
            request: None,
            destination: destination(),
        };
        let result = check(tables, &call, &mut quota, Mono(0));
        let result = result.map_err(|r| (r.reason, r.status, r.grpc_status, r.body.to_owned()));
        (quota.asked, result.map(drop))
    };
    let denied = asked(&with(AuthzAction::Deny), None);
    assert_eq!(denied.0, 0);
    assert!(denied.1.is_err());
    assert_eq!(asked(&with(AuthzAction::Allow), None), (1, Ok(())));
    let body = "RESOURCE_EXHAUSTED:Quota is exhausted for: requestcount.quota.istio-system";
    assert_eq!(
        asked(&with(AuthzAction::Allow), Some(QuotaIndex::of(0))),
        (1, Err((Reason::QuotaExhausted, 429, 8, body.to_owned())))
    );
}

#[test]
fn outbound_policies_act_for_their_services_alone() {
    let mut draft = Draft::new()
        .service("api", &[443])
        .service("other", &[443])
        .service("internal", &[443])
        .authz("one", AuthzAction::Deny, vec![AuthzRule::default()])
        .denier("all", Some(from_to("x", "ratings", "v1")));
    draft.at("api").external = true;
    draft.at("other").external = true;
    draft.policy.authz[0].applies = Applies::Outbound(ServiceId::new("api", "default"));
    draft.policy.checks[0].applies = Applies::OutboundNamespace("default".into());
    // The source is the local workload; labels of an external destination are not known.
    let mut source = Arena::default();
    let (key, text) = (source.key("source.labels", "app"), source.text("ratings"));
    source.eq(key, text);
    draft.policy.checks[0].when = Some(source.expr());
    let tables = draft.tables();
    let at = |service: &str| {
        let service = ServiceId::new(service, "default");
        let app = stranger();
        let call = Call {
            site: Site::Outbound(tables.service_by_id(&service).unwrap()),
            peer: &app,
            request: None,
            destination: destination(),
        };
        check(&tables, &call, &mut Quota::default(), Mono(0))
            .map(drop)
            .map_err(|refusal| refusal.reason)
    };
    assert_eq!(at("api"), Err(Reason::AuthzDenied));
    assert_eq!(at("other"), Err(Reason::CheckDenied));
    assert_eq!(at("internal"), Ok(()));
    assert!(judged(&tables, &stranger(), None).is_ok());
}

type Evaluated = Result<Option<String>, EvalError>;

/// Evaluates for reviews v3 calling `GET ratings:9080/a?b=c` with header `x: 1`.
fn evaluated(build: impl FnOnce(&mut Arena) -> NodeIndex) -> Evaluated {
    let mut arena = Arena::default();
    build(&mut arena);
    eval(&arena.expr(), &peer("reviews", "v3"))
}

fn eval(expr: &Expr, peer: &Peer) -> Evaluated {
    let tables = Draft::new().tables();
    let fields = Headers(&[("x", "1"), ("name", "x")]);
    let request = get("ratings:9080", "/a?b=c", &fields);
    let call = Call {
        site: Site::Inbound,
        peer,
        request: Some(&request),
        destination: destination(),
    };
    let attributes = Attributes::new(&tables, &call);
    let program = Program::lower(expr);
    expr::value(&program, &attributes).map(|value| {
        value.map(|value| {
            let mut text = Vec::new();
            value.append_to(&mut text);
            String::from_utf8(text).unwrap()
        })
    })
}

#[test]
fn attributes_have_their_values() {
    let known = |name: &str| evaluated(|a| a.attribute(name)).unwrap();
    for (name, wanted) in [
        ("source.ip", Some("10.0.0.9")),
        ("source.port", Some("40000")),
        ("source.service", Some("reviews.default")),
        ("source.service.name", Some("reviews")),
        ("source.namespace", Some("default")),
        ("source.principal", Some("mesh.local/ns/default/sa/reviews")),
        ("source.user", Some("mesh.local/ns/default/sa/reviews")),
        ("destination.ip", Some("127.0.0.1")),
        ("destination.port", Some("8080")),
        ("destination.service", Some("ratings.default")),
        ("destination.service.name", Some("ratings")),
        ("destination.namespace", Some("default")),
        ("request.method", Some("GET")),
        ("request.path", Some("/a?b=c")),
        ("request.url_path", Some("/a")),
        ("request.host", Some("ratings:9080")),
        ("request.scheme", Some("http")),
        ("request.useragent", None),
        ("context.protocol", Some("http")),
        ("connection.mtls", Some("true")),
        ("no.such.attribute", None),
    ] {
        assert_eq!(known(name).as_deref(), wanted, "{name}");
    }
    // Plaintext: an address, and nothing else of the source.
    for (name, wanted) in [
        ("source.ip", Some("10.0.0.9")),
        ("source.service", None),
        ("source.namespace", None),
        ("source.principal", None),
        ("connection.mtls", Some("false")),
    ] {
        let mut arena = Arena::default();
        arena.attribute(name);
        let got = eval(&arena.expr(), &stranger()).unwrap();
        assert_eq!(got.as_deref(), wanted, "{name}");
    }
}

/// As in Istio: a host outside the mesh has no other name.
#[test]
fn the_destination_service_outside_the_mesh_is_the_host() {
    let mut draft = Draft::new();
    let cases = [
        ("api.example.com", "api.example.com"),
        ("*.example.org", "*.example.org"),
        // A ServiceEntry may stand for a service of the mesh that has no sidecar.
        ("billing", "billing.default"),
        ("billing.shop.svc.cluster.local", "billing.shop"),
    ];
    for (host, _) in cases {
        draft = draft.service("new", &[443]);
        let service = draft.at("new");
        service.id.name = host.into();
        service.hosts = vec![host.into()];
        service.external = true;
    }
    // Without the entry of its own it is a service with a dot in its name.
    draft = draft.service("b.c", &[443]);
    let tables = draft.tables();
    for (host, wanted) in cases.into_iter().chain([("b.c", "b.c.default")]) {
        let service = ServiceId::new(host, "default");
        let app = stranger();
        let call = Call {
            site: Site::Outbound(tables.service_by_id(&service).unwrap()),
            peer: &app,
            request: None,
            destination: destination(),
        };
        let attributes = Attributes::new(&tables, &call);
        for (attribute, wanted) in [
            ("destination.service", wanted),
            ("destination.service.host", wanted),
            ("destination.service.name", host),
            ("destination.service.namespace", "default"),
        ] {
            let mut arena = Arena::default();
            arena.attribute(attribute);
            let program = Program::lower(&arena.expr());
            let value = expr::value(&program, &attributes);
            let mut text = Vec::new();
            value.unwrap().unwrap().append_to(&mut text);
            assert_eq!(text, wanted.as_bytes(), "{attribute} of {host}");
        }
    }
}

#[test]
fn expressions_follow_presence() {
    type Build = fn(&mut Arena) -> NodeIndex;
    let yes = || Ok(Some("true".to_owned()));
    let no = || Ok(Some("false".to_owned()));
    let text = |text: &str| Ok(Some(text.to_owned()));
    let cases: Vec<(&str, Build, Evaluated)> = vec![
        (
            "source.labels[\"app\"] == \"reviews\"",
            |a| {
                let (key, text) = (a.key("source.labels", "app"), a.text("reviews"));
                a.eq(key, text)
            },
            yes(),
        ),
        (
            "source.labels[\"none\"]",
            |a| a.key("source.labels", "none"),
            Ok(None),
        ),
        (
            "source.labels[\"none\"] == \"x\"",
            |a| {
                let (key, text) = (a.key("source.labels", "none"), a.text("x"));
                a.eq(key, text)
            },
            Err(EvalError::Absent),
        ),
        (
            "source.labels[\"none\"] != \"x\"",
            |a| {
                let (key, text) = (a.key("source.labels", "none"), a.text("x"));
                a.ne(key, text)
            },
            Err(EvalError::Absent),
        ),
        (
            "source.labels[\"none\"] | source.service | \"unknown\"",
            |a| {
                let none = a.key("source.labels", "none");
                let service = a.attribute("source.service");
                let first = a.otherwise(none, service);
                let unknown = a.text("unknown");
                a.otherwise(first, unknown)
            },
            text("reviews.default"),
        ),
        (
            "\"\" | \"unknown\": presence decides, not emptiness",
            |a| {
                let (empty, unknown) = (a.text(""), a.text("unknown"));
                a.otherwise(empty, unknown)
            },
            text(""),
        ),
        (
            "false && (absent == \"x\"): short circuit",
            |a| {
                let truth = a.value(Value::Bool(false));
                let (absent, text) = (a.attribute("no.such"), a.text("x"));
                let bad = a.eq(absent, text);
                a.and(truth, bad)
            },
            no(),
        ),
        (
            "true || (absent == \"x\"): short circuit",
            |a| {
                let truth = a.value(Value::Bool(true));
                let (absent, text) = (a.attribute("no.such"), a.text("x"));
                let bad = a.eq(absent, text);
                a.or(truth, bad)
            },
            yes(),
        ),
        (
            "(absent == \"x\") || true: no way around",
            |a| {
                let (absent, text) = (a.attribute("no.such"), a.text("x"));
                let bad = a.eq(absent, text);
                let truth = a.value(Value::Bool(true));
                a.or(bad, truth)
            },
            Err(EvalError::Absent),
        ),
        (
            "true == \"x\"",
            |a| {
                let (truth, text) = (a.value(Value::Bool(true)), a.text("x"));
                a.eq(truth, text)
            },
            Err(EvalError::Type),
        ),
        (
            "\"x\" && true",
            |a| {
                let (text, truth) = (a.text("x"), a.value(Value::Bool(true)));
                a.and(text, truth)
            },
            Err(EvalError::Type),
        ),
        (
            "ip(\"::ffff:10.0.0.9\") == source.ip",
            |a| {
                let ip = a.value(Value::Ip("::ffff:10.0.0.9".parse().unwrap()));
                let source = a.attribute("source.ip");
                a.eq(ip, source)
            },
            yes(),
        ),
        (
            "destination.port == 8080",
            |a| {
                let (port, number) = (a.attribute("destination.port"), a.value(Value::Int(8080)));
                a.eq(port, number)
            },
            yes(),
        ),
        (
            "request.path == \"/a?b=c\"",
            |a| {
                let (path, text) = (a.attribute("request.path"), a.text("/a?b=c"));
                a.eq(path, text)
            },
            yes(),
        ),
        (
            "\"*.default\" is no pattern for ==",
            |a| {
                let (service, text) = (a.attribute("source.service"), a.text("*.default"));
                a.eq(service, text)
            },
            no(),
        ),
        (
            "match(source.service, \"*.default\")",
            |a| {
                let (service, text) = (a.attribute("source.service"), a.text("*.default"));
                a.matches(service, text)
            },
            yes(),
        ),
        (
            "match(source.service, \"reviews.d*\")",
            |a| {
                let (service, text) = (a.attribute("source.service"), a.text("reviews.d*"));
                a.matches(service, text)
            },
            yes(),
        ),
        (
            "match(request.url_path, \"/a\")",
            |a| {
                let (path, text) = (a.attribute("request.url_path"), a.text("/a"));
                a.matches(path, text)
            },
            yes(),
        ),
        (
            "match(request.url_path, \"*longer/than/a\")",
            |a| {
                let (path, text) = (a.attribute("request.url_path"), a.text("*longer/than/a"));
                a.matches(path, text)
            },
            no(),
        ),
        (
            "request.headers[\"X\"]",
            |a| a.key("request.headers", "X"),
            text("1"),
        ),
        (
            "request.headers[request.headers[\"name\"]]",
            |a| {
                let map = a.attribute("request.headers");
                let key = a.key("request.headers", "name");
                a.index(map, key)
            },
            text("1"),
        ),
        (
            "source.labels == source.labels: maps do not compare",
            |a| {
                let (one, two) = (a.attribute("source.labels"), a.attribute("source.labels"));
                a.eq(one, two)
            },
            Err(EvalError::Type),
        ),
        (
            "source.service == source.service",
            |a| {
                let (one, two) = (a.attribute("source.service"), a.attribute("source.service"));
                a.eq(one, two)
            },
            yes(),
        ),
    ];
    for (what, build, wanted) in cases {
        assert_eq!(evaluated(build), wanted, "{what}");
    }
}

#[test]
fn how_long_a_value_stays_is_known() {
    let stays = |build: &dyn Fn(&mut Arena)| {
        let mut arena = Arena::default();
        build(&mut arena);
        Program::lower(&arena.expr()).stays()
    };
    let caller = stays(&|a| {
        let (label, service) = (a.key("source.labels", "x"), a.attribute("source.service"));
        a.otherwise(label, service);
    });
    assert_eq!(caller, Stays::ForCaller);
    let address = stays(&|a| {
        let (label, ip) = (a.key("source.labels", "x"), a.attribute("source.ip"));
        a.otherwise(label, ip);
    });
    assert_eq!(address, Stays::ForConnection);
    let method = stays(&|a| {
        let (ip, method) = (a.attribute("source.ip"), a.attribute("request.method"));
        a.otherwise(ip, method);
    });
    assert_eq!(method, Stays::ForRequest);
    let header = stays(&|a| {
        a.key("request.headers", "x");
    });
    assert_eq!(header, Stays::ForRequest);
}

proptest! {
    /// A composed text compares like the text it stands for, at every split.
    #[test]
    fn parts_compare_as_one_text(first in "[ab]{0,4}", second in "[ab]{0,4}", other in "[ab.]{0,9}") {
        let parts = Val::Parts(&first, b'.', &second);
        let joined = format!("{first}.{second}");
        prop_assert_eq!(parts.is_text(other.as_bytes()), joined == other);
        prop_assert!(parts.is_text(joined.as_bytes()));
    }

    /// An address lies in a block exactly if their first bits agree.
    #[test]
    fn blocks_hold_what_shares_their_prefix(network: u32, address: u32, bits in 0u8..=32) {
        let block = crate::tables::Address::block(
            std::net::Ipv4Addr::from_bits(network).into(), bits,
        );
        let same = bits == 0 || network >> (32 - u32::from(bits)) == address >> (32 - u32::from(bits));
        prop_assert_eq!(block.contains(std::net::Ipv4Addr::from_bits(address).into()), same);
    }
}
