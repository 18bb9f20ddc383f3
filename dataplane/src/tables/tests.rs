use std::net::SocketAddr;

use ringmesh_wire::snapshot::{
    Applies, EndpointState, MtlsMode, OutboundMode, Protocol, Resolution, StringMatch, TcpRoute,
    UpstreamTls,
};
use ringmesh_wire::{ServiceId, SpiffeId};

use super::testing::{Draft, on, to, uri};
use super::{
    ClusterKey, ClusterRow, Destined, EndpointRow, Link, Tables, Target, TcpTarget, Tunnel,
};
use crate::reason::Reason;

fn draft() -> Draft {
    Draft::new()
        .service("reviews", &[9080])
        .subset("reviews", "v3", &[("version", "v3")])
        .endpoint("reviews", "10.0.0.1", &[("version", "v1"), ("app", "x")])
        .endpoint("reviews", "10.0.0.3", &[("version", "v3"), ("app", "x")])
        .service("two", &[8080, 9090])
        .service("web", &[80, 8443])
}

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// What a target is, in short: `service:port`, `(host)`, `!only`, or the variant.
fn shown(tables: &Tables, target: Target) -> String {
    match target {
        Target::Known(Destined {
            virtual_host,
            service,
            port,
            only,
        }) => {
            let service = service.map_or("-", |at| &tables.service(at).id.name);
            let rules = virtual_host.map_or_else(String::new, |at| {
                format!(" ({})", tables.virtual_host(at).name)
            });
            let only = only.map_or_else(String::new, |only| format!(" !{only}"));
            format!("{service}:{port}{rules}{only}")
        }
        Target::Passthrough(to) => format!("passthrough {to}"),
        Target::Unknown => "unknown".into(),
    }
}

#[test]
fn tables_may_cross_threads() {
    fn crosses<T: Send + Sync>() {}
    crosses::<Tables>();
}

#[test]
fn subsets_select_by_equality_on_all_labels() {
    let mut draft = draft().subset("reviews", "odd", &[("version", "v3"), ("app", "y")]);
    draft = draft.subset("reviews", "every", &[]);
    let tables = draft.tables();
    let addresses = |subset: Option<&str>| -> Vec<String> {
        let key = ClusterKey {
            service: ServiceId::new("reviews", "default"),
            port: 9080,
            subset: subset.map(Into::into),
        };
        let cluster = tables.cluster(tables.cluster_by_key(&key).unwrap());
        let endpoints = cluster.endpoints.iter();
        endpoints.map(|e| e.address.to_string()).collect()
    };
    assert_eq!(addresses(None), ["10.0.0.1:19080", "10.0.0.3:19080"]);
    assert_eq!(addresses(Some("v3")), ["10.0.0.3:19080"]);
    assert_eq!(addresses(Some("odd")), [""; 0]);
    assert_eq!(addresses(Some("every")).len(), 2);
}

#[test]
fn links_follow_the_tls_policy() {
    for (tls, mesh_port, wanted) in [
        (UpstreamTls::Auto, Some(15_008), Some("mesh 10.0.0.9:15008")),
        (UpstreamTls::Auto, None, Some("plain 10.0.0.9:10080")),
        (
            UpstreamTls::Disable,
            Some(15_008),
            Some("plain 10.0.0.9:10080"),
        ),
        (UpstreamTls::Mesh, Some(15_008), Some("mesh 10.0.0.9:15008")),
        (UpstreamTls::Mesh, None, None),
    ] {
        let mut draft = Draft::new()
            .service("a", &[80])
            .endpoint_with("a", "10.0.0.9", &[], |e| e.mesh_port = mesh_port);
        draft.at("a").policy.tls = tls;
        let tables = draft.tables();
        let got = tables.clusters()[0]
            .endpoints
            .first()
            .map(|e| match e.link {
                Link::Plain(to) => format!("plain {to}"),
                Link::Mesh(to) => format!("mesh {to}"),
                Link::Client { .. } => panic!("no endpoint is reached in a client's name"),
            });
        assert_eq!(got.as_deref(), wanted, "{tls:?} {mesh_port:?}");
    }
    assert_eq!(
        &*draft().tables().clusters()[0].sni,
        "p9080.reviews.default.ringmesh"
    );
}

#[test]
fn a_port_policy_replaces_the_service_policy() {
    let mut draft = draft();
    let service = draft.at("two");
    service.policy.connect_timeout_ms = 1;
    let mut own = service.policy.clone();
    own.connect_timeout_ms = 2;
    service.port_policies.push((9090, own));
    let tables = draft.tables();
    let timeouts: Vec<_> = tables
        .clusters()
        .iter()
        .filter(|c| c.key.service.name == "two")
        .map(|c| (c.port.number, c.policy.connect_timeout_ms))
        .collect();
    assert_eq!(timeouts, [(8080, 1), (9090, 2)]);
}

#[test]
fn what_is_missing_is_named() {
    type Change<'a> = &'a dyn Fn(&mut Draft);
    let case = |change: Change<'_>| {
        let mut draft = draft();
        change(&mut draft);
        draft.build().unwrap_err().to_string()
    };
    let cases: [(Change<'_>, &str); 3] = [
        (
            &|d| {
                d.endpoints.insert("ghost".into(), Vec::new());
            },
            "service ghost.default",
        ),
        (
            &|d| {
                *d = d.clone().denier("deny", None);
                d.policy.checks[0].applies = Applies::Outbound(ServiceId::new("ghost", "default"));
            },
            "service ghost.default",
        ),
        (
            &|d| {
                let wanted = uri(StringMatch::Regex("(".into()));
                *d = d
                    .clone()
                    .http("x", vec![on(wanted, to(&[("reviews", "", 1)]))]);
            },
            "regex \"(\" does not compile",
        ),
    ];
    for (change, wanted) in cases {
        let error = case(change);
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn a_regex_cannot_leave_its_anchors_or_eat_memory() {
    for pattern in ["a)(b", "a|b)|(?:c", r"(?:\w{1000}){1000}"] {
        let wanted = uri(StringMatch::Regex(pattern.into()));
        let draft = draft().http("x", vec![on(wanted, to(&[("reviews", "", 1)]))]);
        assert!(draft.build().is_err(), "{pattern}");
    }
}

#[test]
fn hosts_are_found_exact_then_longest_suffix_then_any() {
    let mut draft = draft()
        .http("*.example.com", vec![to(&[("reviews", "", 1)])])
        .http("*.eu.example.com", vec![to(&[("reviews", "", 1)])])
        .http("www.example.com", vec![to(&[("reviews", "", 1)])]);
    draft.mesh.outbound = OutboundMode::RegistryOnly;
    let tables = draft.tables();
    for (authority, wanted) in [
        ("reviews", "reviews:9080"),
        ("reviews:9080", "reviews:9080"),
        ("REVIEWS.Default:9080", "reviews:9080"),
        ("reviews.default.svc.cluster.local.", "reviews:9080"),
        ("reviews:9081", "unknown"),
        ("two:9090", "two:9090"),
        // Two HTTP ports, neither of them 80: nothing says which.
        ("two", "unknown"),
        ("web", "web:80"),
        ("web:8443", "web:8443"),
        ("www.example.com", "-:80 (www.example.com.default)"),
        ("www.example.com:8080", "-:8080 (www.example.com.default)"),
        ("a.example.com", "-:80 (any.example.com.default)"),
        ("a.b.example.com", "-:80 (any.example.com.default)"),
        ("a.eu.example.com", "-:80 (any.eu.example.com.default)"),
        ("example.com", "unknown"),
        ("xexample.com", "unknown"),
        ("", "unknown"),
        ("reviews:", "unknown"),
        ("reviews:+80", "unknown"),
        ("reviews:99999", "unknown"),
        ("[::1]:9080", "unknown"),
    ] {
        let got = tables.resolve_http(authority, None);
        assert_eq!(shown(&tables, got), wanted, "{authority:?}");
    }
    let long = "a".repeat(10_000);
    assert_eq!(tables.resolve_http(&long, None), Target::Unknown);
}

#[test]
fn rules_for_one_name_of_a_service_hold_for_all_of_them() {
    let tables = draft()
        .http("*.default.svc.cluster.local", vec![to(&[("two", "", 1)])])
        .http("*", vec![to(&[("web", "", 1)])])
        .tables();
    for authority in [
        "reviews:9080",
        "reviews.default:9080",
        "reviews.default.svc.cluster.local:9080",
    ] {
        let got = tables.resolve_http(authority, None);
        let wanted = "reviews:9080 (any.default.svc.cluster.local.default)";
        assert_eq!(shown(&tables, got), wanted, "{authority}");
    }
}

#[test]
fn who_dials_an_endpoint_is_routed_like_any_other() {
    let tables = draft().tables();
    let dialled = Destined {
        virtual_host: None,
        service: None,
        port: 9080,
        only: Some(addr("10.0.0.3:19080")),
    };
    let has = |row: &ClusterRow| {
        row.endpoints
            .iter()
            .any(|e| Some(e.address) == dialled.only)
    };
    let (with, without): (Vec<_>, Vec<_>) = tables.clusters.iter().partition(|row| has(row));
    assert!(!with.is_empty() && !without.is_empty());
    for row in with {
        assert_eq!(dialled.only_in(row), dialled.only);
    }
    for row in without {
        assert_eq!(dialled.only_in(row), None);
    }
}

#[test]
fn any_host_takes_what_nothing_else_does() {
    let mut draft = draft().http("*", vec![to(&[("reviews", "", 1)])]);
    draft.at("web").hosts = vec!["*".into()];
    draft.at("web").ports.truncate(1);
    let tables = draft.tables();
    for (authority, wanted) in [
        ("anything", "web:80 (any.default)"),
        ("127.0.0.1:18080", "web:80 (any.default)"),
        ("[::1]:18080", "web:80 (any.default)"),
        ("", "web:80 (any.default)"),
        // Rules for any host hold for a service without rules of its own.
        ("reviews", "reviews:9080 (any.default)"),
    ] {
        let got = tables.resolve_http(authority, None);
        assert_eq!(shown(&tables, got), wanted, "{authority:?}");
    }
    // And for opaque connections in direct mode.
    assert!(matches!(
        tables.resolve_tcp(None),
        TcpTarget::Known(Destined { port: 80, .. })
    ));
}

#[test]
fn tunnels_go_where_a_connection_to_the_authority_would() {
    let mut draft = draft().http("reviews", vec![to(&[("reviews", "", 1)])]);
    draft.at("reviews").vips = vec!["10.96.0.1".parse().unwrap()];
    let cases = [
        ("reviews:9080", None, "reviews:9080 (reviews.default)"),
        ("reviews:1", None, "unknown"),
        ("nobody:80", None, "unknown"),
        ("10.96.0.1:9080", None, "reviews:9080 (reviews.default)"),
        (
            "[::ffff:10.96.0.1]:9080",
            None,
            "reviews:9080 (reviews.default)",
        ),
        (
            "10.0.0.3:19080",
            None,
            "reviews:9080 (reviews.default) !10.0.0.3:19080",
        ),
        ("9.9.9.9:443", None, "passthrough 9.9.9.9:443"),
        ("[2001:db8::1]:443", None, "passthrough [2001:db8::1]:443"),
        // Somebody else was dialled to open it, unless it leads into the mesh.
        ("9.9.9.9:443", Some("8.8.8.8:3128"), "there"),
        ("nobody:443", Some("8.8.8.8:3128"), "there"),
        ("nobody:443", Some("10.96.0.1:9080"), "there"),
        ("reviews:9080", Some("10.0.0.3:19080"), "there"),
        (
            "reviews:9080",
            Some("8.8.8.8:3128"),
            "reviews:9080 (reviews.default)",
        ),
    ];
    let tables = draft.tables();
    for (authority, dialled, wanted) in cases {
        let got = match tables.resolve_tunnel(authority, dialled.map(addr)) {
            Tunnel::Here(target) => shown(&tables, target),
            Tunnel::There => "there".to_owned(),
        };
        assert_eq!(got, wanted, "{authority:?} {dialled:?}");
    }
    draft.mesh.outbound = OutboundMode::RegistryOnly;
    assert_eq!(
        draft.tables().resolve_tunnel("9.9.9.9:443", None),
        Tunnel::Here(Target::Unknown)
    );
}

#[test]
fn addresses_come_before_names() {
    let mut draft = draft().http("reviews", vec![to(&[("reviews", "", 1)])]);
    draft.at("reviews").vips = vec!["10.96.0.1".parse().unwrap()];
    let tables = draft.tables();
    for (authority, dialled, wanted) in [
        // Virtual address and port, whatever Host says.
        ("web", "10.96.0.1:9080", "reviews:9080 (reviews.default)"),
        (
            "web",
            "[::ffff:10.96.0.1]:9080",
            "reviews:9080 (reviews.default)",
        ),
        // Registered endpoint.
        (
            "web",
            "10.0.0.3:19080",
            "reviews:9080 (reviews.default) !10.0.0.3:19080",
        ),
        // Host; its port, else the dialled one.
        ("reviews", "9.9.9.9:9080", "reviews:9080 (reviews.default)"),
        (
            "reviews:9080",
            "9.9.9.9:1",
            "reviews:9080 (reviews.default)",
        ),
        ("reviews", "9.9.9.9:1", "passthrough 9.9.9.9:1"),
        // The VIP with another port is nobody's.
        ("nobody", "10.96.0.1:1", "passthrough 10.96.0.1:1"),
        ("nobody", "9.9.9.9:80", "passthrough 9.9.9.9:80"),
    ] {
        let got = tables.resolve_http(authority, Some(addr(dialled)));
        assert_eq!(shown(&tables, got), wanted, "{authority:?} {dialled}");
    }
    assert_eq!(
        tables.resolve_tcp(Some(addr("9.9.9.9:80"))),
        TcpTarget::Passthrough(addr("9.9.9.9:80"))
    );
    draft.mesh.outbound = OutboundMode::RegistryOnly;
    let closed = draft.tables();
    assert_eq!(
        closed.resolve_http("nobody", Some(addr("9.9.9.9:80"))),
        Target::Unknown
    );
    assert_eq!(
        closed.resolve_tcp(Some(addr("9.9.9.9:80"))),
        TcpTarget::Unknown
    );
    assert_eq!(closed.resolve_tcp(None), TcpTarget::Unknown);
}

#[test]
fn secure_naming_asks_service_and_endpoint() {
    let id = |account: &str| SpiffeId::workload("mesh.local", "default", account).unwrap();
    let mut draft = Draft::new()
        .service("reviews", &[9080])
        .endpoint("reviews", "10.0.0.1", &[])
        .endpoint_with("reviews", "10.0.0.2", &[], |e| e.identity = Some(id("b")));
    draft.at("reviews").identities = vec![id("c"), id("b"), id("a")];
    let tables = draft.tables();
    let cluster = tables
        .service(
            tables
                .service_by_id(&ServiceId::new("reviews", "default"))
                .unwrap(),
        )
        .cluster(9080)
        .unwrap();
    let [loose, bound] = &*tables.cluster(cluster).endpoints else {
        panic!("two endpoints");
    };
    for account in ["a", "b", "c"] {
        assert!(tables.server_may_be(cluster, loose, &id(account)));
        assert_eq!(
            tables.server_may_be(cluster, bound, &id(account)),
            account == "b"
        );
    }
    assert!(!tables.server_may_be(cluster, loose, &id("impostor")));
}

#[test]
fn inbound_ports_have_their_mtls_mode() {
    let mut draft = draft();
    let second = super::WorkloadPort {
        name: "admin".into(),
        number: 9081,
        protocol: Protocol::Tcp,
        app: addr("127.0.0.1:8081"),
        mtls: MtlsMode::Disable,
    };
    draft.workload.ports.push(second);
    draft.mesh.mtls_ports = vec![(8081, MtlsMode::Permissive)];
    let tables = draft.tables();
    assert_eq!(tables.inbound_port(9080).unwrap().mtls, MtlsMode::Strict);
    assert_eq!(
        tables.inbound_port(9081).unwrap().mtls,
        MtlsMode::Permissive
    );
    assert!(tables.inbound_port(1).is_none());
    assert_eq!(
        tables.own_identity().spiffe.principal(),
        "mesh.local/ns/default/sa/ratings"
    );
}

#[test]
fn tcp_rules_choose_by_port_then_the_service() {
    let mut draft = draft().http("two", Vec::new());
    draft.at("two").vips = vec!["10.96.0.2".parse().unwrap()];
    let ringmesh_wire::snapshot::Action::Forward(destinations) = to(&[("reviews", "", 1)]).action
    else {
        unreachable!()
    };
    draft.hosts[0].tcp = vec![TcpRoute {
        port: Some(9090),
        destinations,
    }];
    let tables = draft.tables();
    for (port, wanted) in [(8080, "two.default:8080"), (9090, "reviews.default:9080")] {
        let TcpTarget::Known(to) = tables.resolve_tcp(Some(addr(&format!("10.96.0.2:{port}"))))
        else {
            panic!("known");
        };
        let choice = crate::route::choose_tcp(&tables, &to, 0).unwrap();
        assert_eq!(&*tables.cluster(choice.cluster).name, wanted);
    }
}

#[test]
fn last_known_endpoints_stay_in_the_row() {
    let draft = Draft::new()
        .service("a", &[80])
        .endpoint_with("a", "10.0.0.1", &[], |e| e.state = EndpointState::LastKnown);
    assert_eq!(draft.tables().clusters()[0].endpoints.len(), 1);
}

/// Endpoints of a cluster, in short: `address`, or `anchor=[addresses]`.
fn endpoints(tables: &Tables, service: &str, subset: Option<&str>) -> Vec<String> {
    let key = ClusterKey {
        service: ServiceId::new(service, "default"),
        port: 80,
        subset: subset.map(Into::into),
    };
    let cluster = tables.cluster(tables.cluster_by_key(&key).unwrap());
    let shown = cluster.endpoints.iter().map(|row| match &*row.among {
        [] => row.address.to_string(),
        among => format!("{}={among:?}", row.address),
    });
    shown.collect()
}

#[test]
fn names_become_endpoints_of_their_addresses_one_each_or_one_for_all() {
    let each = |names: &[&str]| {
        Draft::new()
            .service("each", &[80])
            .subset("each", "b", &[("name", "b.example")])
            .named("each", Resolution::Each, names, 8080)
    };
    let unresolved = each(&["a.example", "b.example"]);
    let tables = unresolved.tables();
    let cluster = &tables.clusters()[0];
    assert!(cluster.endpoints.is_empty());
    assert_eq!(cluster.nobody(), Reason::NameUnresolved);
    let half = unresolved.answer("b.example", "10.0.0.2", &["10.0.0.2", "10.0.0.1"]);
    let tables = half.tables();
    let sorted = ["10.0.0.1:8080", "10.0.0.2:8080"];
    assert_eq!(endpoints(&tables, "each", None), sorted);
    assert_eq!(endpoints(&tables, "each", Some("b")), sorted);
    // Two names that lead to one address are one endpoint.
    let whole = half.answer("a.example", "10.0.0.1", &["fd00::1", "10.0.0.1"]);
    let tables = whole.tables();
    assert_eq!(
        endpoints(&tables, "each", None),
        ["10.0.0.1:8080", "[fd00::1]:8080", "10.0.0.2:8080"]
    );
    let dialled = tables.resolve_tcp(Some(addr("10.0.0.2:8080")));
    assert!(
        matches!(dialled, TcpTarget::Known(to) if to.only == Some(addr("10.0.0.2:8080"))),
        "{dialled:?}"
    );

    let one =
        Draft::new()
            .service("one", &[80])
            .named("one", Resolution::One, &["a.example"], 8080);
    assert_eq!(one.tables().clusters()[0].nobody(), Reason::NameUnresolved);
    let list = ["fd00::1", "10.0.0.1", "10.0.0.7"];
    let tables = one.clone().answer("a.example", "10.0.0.9", &list).tables();
    assert_eq!(
        endpoints(&tables, "one", None),
        ["10.0.0.9:8080=[[fd00::1]:8080, 10.0.0.1:8080, 10.0.0.7:8080]"]
    );
    // Whoever dials any of its addresses means it whole.
    let dialled = tables.resolve_tcp(Some(addr("10.0.0.7:8080")));
    assert!(
        matches!(dialled, TcpTarget::Known(to) if to.only.is_none()),
        "{dialled:?}"
    );
    let many: Vec<String> = (1..=32).map(|last| format!("10.0.1.{last}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let tables = one.answer("a.example", "10.0.1.1", &many).tables();
    let among = &tables.clusters()[0].endpoints[0].among;
    assert_eq!(among.len(), EndpointRow::AMONG_MAX);
}

#[test]
fn names_of_a_service_that_is_not_there_are_refused() {
    let mut draft =
        Draft::new()
            .service("a", &[80])
            .named("a", Resolution::Each, &["a.example"], 80);
    draft.services.clear();
    let refused = draft.build().unwrap_err().to_string();
    assert!(refused.contains("endpoints of a.default"), "{refused}");
}
