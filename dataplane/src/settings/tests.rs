use super::*;

const WHOLE: &str = r#"
node: reviews-v3-1
service: reviews
namespace: default
service_account: reviews
advertise: 10.0.0.5
locality: {region: r1, zone: z1}
labels: {app: reviews, version: v3}
ports:
  - {name: http, port: 9080, app: "127.0.0.1:9080"}
listeners: {outbound: "127.0.0.1:15001", inbound: "0.0.0.0:15006", mesh: "0.0.0.0:15008", admin: "127.0.0.1:15000"}
control: {address: "127.0.0.1:15012", token_file: join.token}
shards: auto
state_dir: /var/lib/ringmesh/reviews-v3-1
"#;

#[test]
fn the_file_of_interface_md_is_read_whole() {
    let settings = Settings::parse(WHOLE).unwrap();
    assert_eq!(settings.node.0, "reviews-v3-1");
    assert_eq!(settings.service.to_string(), "reviews.default");
    assert_eq!(settings.advertise, Some("10.0.0.5".parse().unwrap()));
    assert_eq!(settings.labels["version"], "v3");
    assert_eq!(settings.ports.len(), 1);
    assert_eq!(settings.ports[0].protocol, Protocol::Http1);
    assert_eq!(settings.ports[0].check, AppCheck::Tcp);
    let grpc = |check: &str, service: &str| {
        let text = format!(
            "node: n\nservice: s\nstate_dir: /x\nports:\n  - {{port: 80, check: {check}}}\n"
        );
        let settings = Settings::parse(&text).unwrap();
        let service = service.to_owned();
        assert_eq!(settings.ports[0].check, AppCheck::Grpc { service });
    };
    grpc("grpc", "");
    grpc("grpc shop.Cart", "shop.Cart");
    assert_eq!(
        settings.listeners.mesh,
        Some("0.0.0.0:15008".parse().unwrap())
    );
    let control = settings.control.unwrap();
    assert_eq!((control.host.as_str(), control.port), ("127.0.0.1", 15012));
    assert_eq!(control.token_file, Some("join.token".into()));
    assert_eq!(settings.shards, Shards::Auto);
    assert_eq!(settings.access_log, None);
}

#[test]
fn little_is_needed() {
    let settings = Settings::parse("node: a\nservice: s\nstate_dir: /tmp/x\n").unwrap();
    assert_eq!(settings.service.to_string(), "s.default");
    assert_eq!(settings.service_account, "s");
    assert_eq!(settings.control, None);
    assert!(settings.ports.is_empty());
    assert_eq!(
        settings.listeners.outbound,
        Some("127.0.0.1:15001".parse().unwrap())
    );
    assert_eq!(settings.drain_timeout, Duration::from_secs(10));
    let limits = crate::exchange::ConnLimits::default();
    assert_eq!(
        settings.idle_timeout.as_millis(),
        limits.idle_timeout_ms.into()
    );
    assert_eq!(
        settings.tcp_idle_timeout.as_millis(),
        limits.tcp_idle_timeout_ms.into()
    );
}

#[test]
fn optional_parts_are_read() {
    let text = r#"
node: a
service: s
state_dir: /tmp/x
drain_timeout: 500ms
idle_timeout: 1s
tcp_idle_timeout: 168h
shards: 3
access_log: {path: /tmp/log, forward: true}
listeners: {inbound: none, mesh: none, outbound: "127.0.0.1:0"}
control: {address: "[::1]:15012"}
ports:
  - {name: grpc-web, port: 80, app: "[::1]:8080", check: http /healthz}
  - {name: mysql, port: 3306, check: none}
  - {port: 81, protocol: tcp}
"#;
    let settings = Settings::parse(text).unwrap();
    assert_eq!(settings.shards, Shards::Count(3));
    assert_eq!(settings.drain_timeout, Duration::from_millis(500));
    assert_eq!(settings.idle_timeout, Duration::from_secs(1));
    assert_eq!(settings.tcp_idle_timeout, Duration::from_hours(168));
    assert_eq!(settings.listeners.inbound, None);
    assert_eq!(settings.control.unwrap().host, "::1");
    let path = "/healthz".to_owned();
    assert_eq!(settings.ports[0].check, AppCheck::Http { path });
    assert_eq!(settings.ports[0].protocol, Protocol::Http1);
    assert_eq!(settings.ports[1].protocol, Protocol::Tcp);
    assert_eq!(settings.ports[1].app, "127.0.0.1:3306".parse().unwrap());
    assert_eq!(settings.ports[2].protocol, Protocol::Tcp);
    assert!(settings.access_log.unwrap().forward);
}

#[test]
fn the_inbound_mode_is_redirect_unless_it_says_tproxy() {
    let mode = |more: &str| {
        let text = format!("node: a\nservice: s\nstate_dir: /tmp/x\n{more}");
        Settings::parse(&text).unwrap().listeners.inbound_mode
    };
    assert_eq!(mode(""), InboundMode::Redirect);
    let says = |word: &str| mode(&format!("listeners: {{inbound_mode: {word}}}\n"));
    assert_eq!(says("redirect"), InboundMode::Redirect);
    assert_eq!(says("tproxy"), InboundMode::Tproxy);
}

/// `(what is appended to a good file, line:column, field, a word of the complaint)`.
#[test]
fn every_mistake_is_told_with_its_place_and_what_would_be_right() {
    const BASE: &str = "node: a\nservice: s\nstate_dir: /tmp/x\n";
    let table = [
        (
            "colour: red\n",
            "4:1",
            "colour",
            "unknown field; one of node, service",
        ),
        ("shards: many\n", "4:9", "shards", "auto, all, or a number"),
        ("shards: 0\n", "4:9", "shards", "auto, all, or a number"),
        (
            "advertise: 300.0.0.1\n",
            "4:12",
            "advertise",
            "an IP address",
        ),
        (
            "advertise: 0.0.0.0\n",
            "4:12",
            "advertise",
            "nobody can be reached",
        ),
        ("locality: r1\n", "4:11", "locality", "a text stands here"),
        (
            "locality: {rack: 1}\n",
            "4:12",
            "locality.rack",
            "unknown field",
        ),
        (
            "labels: {version: 1.5}\n",
            "4:19",
            "labels.version",
            "in quotes",
        ),
        ("labels: [a]\n", "4:9", "labels", "a list stands here"),
        (
            "labels: {a: \"x\\ny\"}\n",
            "4:13",
            "labels.a",
            "printable text",
        ),
        ("ports: {}\n", "4:8", "ports", "a list of ports"),
        (
            "ports:\n  - {name: http}\n",
            "5:5",
            "ports[0].port",
            "missing",
        ),
        (
            "ports:\n  - {port: 70000}\n",
            "5:12",
            "ports[0].port",
            "out of range",
        ),
        (
            "ports:\n  - {port: \"80\"}\n",
            "5:12",
            "ports[0].port",
            "a text stands here",
        ),
        (
            "ports:\n  - {port: 80, app: localhost}\n",
            "5:21",
            "ports[0].app",
            "127.0.0.1",
        ),
        (
            "ports:\n  - {port: 80, protocol: smtp}\n",
            "5:26",
            "ports[0].protocol",
            "one of http",
        ),
        (
            "ports:\n  - {port: 80, check: ping}\n",
            "5:23",
            "ports[0].check",
            "tcp, none",
        ),
        (
            "ports:\n  - {port: 80, check: grpc a:b}\n",
            "5:23",
            "ports[0].check",
            "no gRPC service",
        ),
        (
            "ports:\n  - {port: 80}\n  - {port: 80}\n",
            "6:5",
            "ports[1]",
            "twice",
        ),
        (
            "listeners: {outbound: 15001}\n",
            "4:23",
            "listeners.outbound",
            "in quotes",
        ),
        (
            "listeners: {outbound: \":15001\"}\n",
            "4:23",
            "listeners.outbound",
            "not an address",
        ),
        (
            "listeners: {inbound_mode: nat}\n",
            "4:27",
            "listeners.inbound_mode",
            "no way to capture",
        ),
        (
            "listeners: {inbound: none, inbound_mode: tproxy}\n",
            "4:42",
            "listeners.inbound_mode",
            "loopback",
        ),
        (
            "listeners: {inbound: \"127.0.0.1:15006\", inbound_mode: tproxy}\n",
            "4:55",
            "listeners.inbound_mode",
            "loopback",
        ),
        (
            "listeners: {admin: \"0.0.0.0:1\"}\n",
            "4:20",
            "listeners.admin",
            "loopback only",
        ),
        ("dns: {servers: []}\n", "4:16", "dns.servers", "0 servers"),
        (
            "dns: {servers: [\"10.0.0.1\", \"resolver\"]}\n",
            "4:29",
            "dns.servers[1]",
            "not an IP address",
        ),
        (
            "dns: {refresh_min: 0s}\n",
            "4:20",
            "dns.refresh_min",
            "all the time",
        ),
        (
            "dns: {refresh_min: 10m}\n",
            "4:6",
            "dns",
            "longer than refresh_max",
        ),
        (
            "kept_memory: 64MB\n",
            "4:14",
            "kept_memory",
            "no amount of memory",
        ),
        (
            "kept_memory: 1KiB\n",
            "4:14",
            "kept_memory",
            "no amount of memory",
        ),
        (
            "zero_copy_min: 1KiB\n",
            "4:16",
            "zero_copy_min",
            "no amount of memory",
        ),
        (
            "zero_copy_min: 1MiB\n",
            "4:16",
            "zero_copy_min",
            "no amount of memory",
        ),
        (
            "listeners: {dns: none}\n",
            "4:13",
            "listeners.dns",
            "unknown field",
        ),
        (
            "control: {token_file: t}\n",
            "4:10",
            "control.address",
            "missing",
        ),
        (
            "control: {address: \"host\"}\n",
            "4:20",
            "control.address",
            "host and port",
        ),
        (
            "control: {address: \"h:0\"}\n",
            "4:20",
            "control.address",
            "host and port",
        ),
        (
            "access_log: {}\n",
            "4:13",
            "access_log",
            "neither path nor forward",
        ),
        (
            "access_log: /tmp/x\n",
            "4:13",
            "access_log",
            "none, or {path",
        ),
        ("idle_timeout: 0s\n", "4:15", "idle_timeout", "from 1s"),
        (
            "tcp_idle_timeout: 169h\n",
            "4:19",
            "tcp_idle_timeout",
            "to 168h",
        ),
        ("drain_timeout: 10\n", "4:16", "drain_timeout", "a unit"),
        ("drain_timeout: 2h\n", "4:16", "drain_timeout", "up to 1h"),
        (
            "drain_timeout: 1.5s\n",
            "4:16",
            "drain_timeout",
            "whole number",
        ),
        ("node: b\n", "4:1", "(the file)", "not readable as YAML"),
        ("x: [\n", "4:4", "(the file)", "not readable as YAML"),
    ];
    for (added, place, field, word) in table {
        let mistake = Settings::parse(&format!("{BASE}{added}")).unwrap_err();
        let shown = SettingsError::Mistake {
            file: "sidecar.yaml".into(),
            mistake,
        }
        .to_string();
        assert!(
            shown.starts_with(&format!("sidecar.yaml:{place}: {field}: ")),
            "{added:?} gave {shown}"
        );
        assert!(shown.contains(word), "{added:?} gave {shown}");
        assert!(!shown.contains('\n'), "{added:?} gave {shown}");
    }
}

#[test]
fn a_missing_or_empty_file_is_told() {
    for text in ["", "# nothing\n", "[]", "node", "node: a\n"] {
        let mistake = Settings::parse(text).unwrap_err();
        assert!(!mistake.right.is_empty(), "{text:?} gave {mistake:?}");
    }
    let error = Settings::load(Path::new("/nonexistent/sidecar.yaml")).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/sidecar.yaml"));
}

#[test]
fn a_bad_node_name_is_told() {
    for bad in ["\"\"", "\"a b\"", ".a", "a/b"] {
        let text = format!("node: {bad}\nservice: s\nstate_dir: /x\n");
        let mistake = Settings::parse(&text).unwrap_err();
        assert_eq!((mistake.line, mistake.field.as_str()), (1, "node"), "{bad}");
    }
}

#[test]
fn paths_are_relative_to_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("sidecar.yaml");
    let text = "node: a\nservice: s\nstate_dir: state\naccess_log: {path: /var/log/a}\n\
                control: {address: \"h:1\", token_file: join.token}\n";
    std::fs::write(&file, text).unwrap();
    let settings = Settings::load(&file).unwrap();
    assert_eq!(settings.state_dir, dir.path().join("state"));
    assert_eq!(
        settings.control.unwrap().token_file,
        Some(dir.path().join("join.token"))
    );
    assert_eq!(settings.access_log.unwrap().path, Some("/var/log/a".into()));
}

#[test]
fn a_node_called_no_is_no_boolean() {
    let settings = Settings::parse("node: n\nservice: no\nstate_dir: /x\n").unwrap();
    assert_eq!(
        (settings.node.0.as_str(), settings.service.name.as_str()),
        ("n", "no")
    );
}

#[test]
fn name_servers_and_memory_are_read() {
    let more = "dns: {servers: [\"10.0.0.1\", \"[::1]:5353\"], refresh_min: 1s, refresh_max: 1m}\nkept_memory: 2GiB\n";
    let settings = Settings::parse(&format!("node: n\nservice: s\nstate_dir: /x\n{more}")).unwrap();
    let servers: Vec<String> = settings
        .dns
        .servers
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(servers, ["10.0.0.1:53", "[::1]:5353"]);
    assert_eq!(settings.dns.refresh_max, Duration::from_secs(60));
    assert_eq!(settings.kept_memory, 2 << 30);
    let defaults = Settings::parse("node: n\nservice: s\nstate_dir: /x\n").unwrap();
    assert_eq!(defaults.dns, Dns::default());
    assert_eq!(defaults.kept_memory, 64 << 20);
}

#[test]
fn sends_without_a_copy_are_off_unless_asked_for() {
    let read = |more: &str| {
        let text = format!("node: n\nservice: s\nstate_dir: /x\n{more}");
        Settings::parse(&text).unwrap().zero_copy_min_bytes
    };
    assert_eq!(read(""), None);
    assert_eq!(read("zero_copy_min: off\n"), None);
    assert_eq!(read("zero_copy_min: 32KiB\n"), Some(32 << 10));
    assert_eq!(read("zero_copy_min: 512KiB\n"), Some(512 << 10));
}

#[test]
fn names_of_services_are_such_that_rules_can_name_them() {
    let parse = |service: &str, namespace: &str| {
        let text =
            format!("node: n\nservice: {service}\nnamespace: {namespace}\nstate_dir: /tmp/x\n");
        Settings::parse(&text).map(|_| ())
    };
    for (service, namespace, line, field) in [
        ("Reviews", "default", 2, "service"),
        ("reviews.v1", "default", 2, "service"),
        ("reviews-", "default", 2, "service"),
        ("reviews", "Prod", 3, "namespace"),
        ("reviews", "a.b", 3, "namespace"),
    ] {
        let mistake = parse(service, namespace).unwrap_err();
        assert_eq!(
            (mistake.line, mistake.field.as_str()),
            (line, field),
            "{mistake:?}"
        );
        assert!(mistake.right.contains("small letters"), "{mistake:?}");
    }
    assert_eq!(parse("my_reviews-2", "team_a"), Ok(()));
}

#[test]
fn two_listeners_on_one_address_are_refused_with_the_place() {
    let parse = |listeners: &str| {
        let text = format!("node: n\nservice: s\nstate_dir: /tmp/x\nlisteners: {{{listeners}}}\n");
        Settings::parse(&text).map(|_| ())
    };
    for (listeners, field) in [
        (
            r#"outbound: "127.0.0.1:9", mesh: "127.0.0.1:9""#,
            "listeners.mesh",
        ),
        (
            r#"inbound: "0.0.0.0:9", mesh: "127.0.0.1:9""#,
            "listeners.mesh",
        ),
        (r#"inbound: "[::]:9", mesh: "[::1]:9""#, "listeners.mesh"),
        (
            r#"admin: "127.0.0.1:9", mesh: "0.0.0.0:9""#,
            "listeners.admin",
        ),
        (r#"admin: "127.0.0.1:15001""#, "listeners.admin"),
        (r#"inbound: "0.0.0.0:15008""#, "listeners.inbound"),
    ] {
        let mistake = parse(listeners).unwrap_err();
        assert_eq!(
            (mistake.line, mistake.field.as_str()),
            (4, field),
            "{mistake:?}"
        );
        assert!(mistake.column > 13, "{mistake:?}");
    }
    for listeners in [
        r#"outbound: "127.0.0.1:9", inbound: "127.0.0.1:9""#,
        r#"outbound: "127.0.0.1:9", mesh: "10.0.0.1:9""#,
        r#"outbound: "127.0.0.1:0", inbound: "127.0.0.1:0", mesh: "127.0.0.1:0", admin: "127.0.0.1:0""#,
        r#"mesh: "0.0.0.0:9", admin: "[::1]:9""#,
        r#"inbound: "[::]:9", mesh: "0.0.0.0:9""#,
    ] {
        assert_eq!(parse(listeners), Ok(()), "{listeners}");
    }
}

/// A listener takes its own family only: `[::]` is no exception.
#[test]
fn the_address_others_are_told_leads_to_the_mesh_listener() {
    let parse = |more: &str| {
        let text = format!("node: n\nservice: s\nstate_dir: /tmp/x\n{more}\n");
        Settings::parse(&text).map(|_| ())
    };
    let ports = "ports: [{name: http, port: 80}]";
    for told in [
        "advertise: fd00::5",
        "advertise: 10.0.0.5\nlisteners: {mesh: \"[::]:15008\"}",
    ] {
        let mistake = parse(&format!("{told}\n{ports}")).unwrap_err();
        assert_eq!((mistake.line, mistake.field.as_str()), (4, "advertise"));
        // One that only calls is not reached at all.
        assert_eq!(parse(told), Ok(()), "{told}");
    }
    for told in [
        "advertise: 10.0.0.5",
        "advertise: fd00::5\nlisteners: {mesh: \"[::]:15008\"}",
        "advertise: fd00::5\nlisteners: {mesh: \"[fd00::5]:15008\"}",
    ] {
        assert_eq!(parse(&format!("{told}\n{ports}")), Ok(()), "{told}");
    }
}
