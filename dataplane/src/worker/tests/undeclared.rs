//! Ports of which nobody said what they speak.

use std::net::Shutdown;
use std::sync::atomic::AtomicBool;

use ringmesh_wire::report::{Series, SeriesValue};
use ringmesh_wire::snapshot::{Action, AuthzAction, MtlsMode, TcpRoute};

use super::mesh::Pair;
use super::*;
use crate::telemetry::merge;

/// Greets, then sends everything back.
fn greeter() -> (SocketAddr, Arc<AtomicUsize>) {
    server(|_, mut stream| {
        stream.write_all(b"220 ready\r\n").unwrap();
        let mut all = Vec::new();
        if stream.read_to_end(&mut all).is_ok() {
            let _ = stream.write_all(&all);
        }
    })
}

fn undeclared(upstream: SocketAddr) -> Draft {
    let mut draft = draft(upstream);
    let service = draft.at("app");
    service.hosts = vec!["*".into()];
    service.ports[0].protocol = Protocol::Auto;
    draft
}

/// A sidecar before an app, reached in plaintext.
fn before(app: SocketAddr) -> Draft {
    let mut draft = Draft::new();
    draft.mesh.mtls = MtlsMode::Permissive;
    let port = &mut draft.workload.ports[0];
    (port.app, port.mtls, port.protocol) = (app, MtlsMode::Permissive, Protocol::Auto);
    draft
}

/// Every way to a server: as the caller's sidecar, as the callee's.
fn ways(upstream: SocketAddr) -> [Bed; 2] {
    ways_with(upstream, ConnLimits::default())
}

fn ways_with(upstream: SocketAddr, limits: ConnLimits) -> [Bed; 2] {
    [
        Bed::start_with(&undeclared(upstream), Role::Outbound, limits),
        Bed::start_with(&before(upstream), Role::Inbound, limits),
    ]
}

fn greeting(client: &mut TcpStream) -> String {
    let mut bytes = [0; 11];
    client.read_exact(&mut bytes).unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn rest(client: &mut TcpStream) -> String {
    let mut text = String::new();
    client.read_to_string(&mut text).unwrap();
    text
}

/// What a shard counted under a name: the value of `label`, and how often.
fn counted(bed: &Bed, name: &str, label: &str) -> Vec<(String, u64)> {
    among(&collected(bed), name, label)
}

/// All that a shard counted; nothing where it has nothing new to tell.
fn collected(bed: &Bed) -> Vec<Series> {
    bed.mailbox.send(ToShard::Collect).unwrap();
    let stats = loop {
        match bed.next() {
            FromShard::Stats(stats) => break stats,
            FromShard::Quiet => return Vec::new(),
            FromShard::Log(_) => {}
            other => panic!("{other:?}"),
        }
    };
    merge(&[*stats])
}

fn among(series: &[Series], name: &str, label: &str) -> Vec<(String, u64)> {
    let named = series.iter().filter(|one| one.name == name);
    named
        .map(|one| {
            let count = match &one.value {
                SeriesValue::Counter(count) => *count,
                SeriesValue::DurationHistogram { buckets, .. } => buckets.iter().sum(),
                other => panic!("{other:?}"),
            };
            let value = one.labels.iter().find(|(name, _)| name == label);
            (
                value.map_or_else(String::new, |(_, value)| value.clone()),
                count,
            )
        })
        .collect()
}

/// What was detected, and how often: `protocol` of the metric and its count.
fn detections(bed: &Bed) -> Vec<(String, u64)> {
    counted(bed, "ringmesh_detection_duration_seconds", "protocol")
}

/// Waits until something is so.
/// A client that says nothing, for whom the server has been dialled all the same.
fn silent(bed: &Bed) -> TcpStream {
    const OPENED: &str = "ringmesh_upstream_connections_opened_total";
    let opened = || {
        counted(bed, OPENED, "")
            .iter()
            .map(|(_, count)| count)
            .sum()
    };
    let before: u64 = opened();
    let client = bed.client();
    // A shard with nothing new to tell says nothing: then nothing was dialled.
    wait_for("a connection for the silent", || opened() > before);
    client
}

#[test]
fn a_server_that_speaks_first_is_heard_and_remembered() {
    let (upstream, _) = greeter();
    for bed in ways(upstream) {
        for _ in 0..2 {
            let mut client = bed.client();
            assert_eq!(greeting(&mut client), "220 ready\r\n");
            client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(rest(&mut client), "GET / HTTP/1.1\r\n");
        }
        assert_eq!(detections(&bed), [("tcp_server_first".to_owned(), 2)]);
    }
}

#[test]
fn a_client_that_says_nothing_and_ends_still_gets_the_greeting() {
    let (upstream, _) = greeter();
    for bed in ways(upstream) {
        let mut client = bed.client();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut client), "220 ready\r\n");
    }
}

#[test]
fn the_letters_ge_and_a_pause_are_still_http() {
    let (upstream, _) = hello();
    for bed in ways(upstream) {
        // With and without a verdict to go by.
        for _ in 0..2 {
            let mut client = bed.client();
            client.set_nodelay(true).unwrap();
            for piece in ["G", "E", "T / HTTP/1.1\r\nHost: app\r\n\r\n"] {
                // Longer than any patience on the way; and nobody says anything meanwhile.
                let pause = Some(Duration::from_millis(60));
                client.set_read_timeout(pause).unwrap();
                assert!(client.read(&mut [0; 1]).is_err());
                client.write_all(piece.as_bytes()).unwrap();
            }
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let answer = read_answer(&mut client);
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        }
        assert_eq!(detections(&bed), [("http1".to_owned(), 2)]);
    }
}

#[test]
fn http_uses_the_connection_that_was_made_for_it() {
    let (upstream, connections) = hello();
    // A client that stalls between its connect and its request is none that says nothing.
    let limits = ConnLimits {
        http_patience_ms: 10_000,
        ..ConnLimits::default()
    };
    for bed in ways_with(upstream, limits) {
        let before = connections.load(Ordering::SeqCst);
        let mut client = silent(&bed);
        for _ in 0..3 {
            client
                .write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
                .unwrap();
            assert!(read_answer(&mut client).ends_with("hello"));
        }
        // And so do others.
        for _ in 0..5 {
            assert!(bed.get("app").ends_with("hello"));
        }
        wait_for("the connection", || {
            connections.load(Ordering::SeqCst) > before
        });
        assert_eq!(detections(&bed), [("http1".to_owned(), 6)]);
        assert_eq!(connections.load(Ordering::SeqCst), before + 1);
    }
}

#[test]
fn what_was_remembered_decides_nothing() {
    // Greets, or waits for a request.
    let greets = Arc::new(AtomicBool::new(false));
    let how = Arc::clone(&greets);
    let (upstream, _) = server(move |_, mut stream| {
        let answer = match how.load(Ordering::SeqCst) {
            true => "220 ready\r\n",
            false if read_head(&mut stream).is_none() => return,
            false => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        };
        let _ = stream.write_all(answer.as_bytes());
        let _ = stream.read(&mut [0]);
    });
    for bed in ways(upstream) {
        for _ in 0..2 {
            greets.store(false, Ordering::SeqCst);
            assert!(bed.get("app").starts_with("HTTP/1.1 200 "));
            greets.store(true, Ordering::SeqCst);
            assert_eq!(greeting(&mut bed.client()), "220 ready\r\n");
        }
        let seen = detections(&bed);
        assert_eq!(
            seen,
            [("http1".to_owned(), 2), ("tcp_server_first".to_owned(), 2)]
        );
    }
}

#[test]
fn a_server_of_http_that_ends_before_it_is_asked_harms_no_request() {
    for farewell in [
        "HTTP/1.1 408 Request Timeout\r\nConnection: close\r\n\r\n",
        "",
    ] {
        // Hangs up on the next one, and serves the rest.
        let hangs_up = Arc::new(AtomicBool::new(false));
        let once = Arc::clone(&hangs_up);
        let (upstream, _) = server(move |_, mut stream| {
            if once.load(Ordering::SeqCst) {
                let _ = stream.write_all(farewell.as_bytes());
                // It is said only when it is true: a request that crosses the farewell gets it.
                drop(stream);
                once.store(false, Ordering::SeqCst);
            } else if read_head(&mut stream).is_some() {
                let answer =
                    "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";
                let _ = stream.write_all(answer.as_bytes());
            }
        });
        for bed in ways(upstream) {
            // Now the port is known for HTTP, and the impatient have time.
            assert!(bed.get("app").ends_with("hello"));
            hangs_up.store(true, Ordering::SeqCst);
            let mut client = silent(&bed);
            wait_for("hung up", || !hangs_up.load(Ordering::SeqCst));
            client
                .write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
                .unwrap();
            let answer = read_answer(&mut client);
            assert!(answer.ends_with("hello"), "{farewell:?}: {answer}");
        }
    }
}

#[test]
fn a_server_that_ends_its_side_at_once_still_hears_the_client() {
    let (heard, told) = std::sync::mpsc::channel();
    let (upstream, _) = server(move |_, mut stream| {
        stream.shutdown(Shutdown::Write).unwrap();
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let _ = heard.send(all);
    });
    for bed in ways(upstream) {
        let mut client = bed.client();
        client.write_all(b"\x00one way").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut client), "");
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), b"\x00one way");
    }
}

#[test]
fn an_early_connection_counts_in_its_clusters_limit() {
    let (upstream, connections) = greeter();
    let mut draft = undeclared(upstream);
    draft.at("app").policy.limits.connections_max = 1;
    let bed = Bed::start(&draft, Role::Outbound);
    let mut first = bed.client();
    assert_eq!(greeting(&mut first), "220 ready\r\n");
    assert!(
        bed.client().read_exact(&mut [0]).is_err(),
        "above the limit"
    );
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    drop(first);
    wait_for("room again", || bed.client().read_exact(&mut [0]).is_ok());

    // Requests need it, and find it, whoever it was made for.
    let (upstream, connections) = hello();
    let mut draft = undeclared(upstream);
    draft.at("app").policy.limits.connections_max = 1;
    let bed = Bed::start(&draft, Role::Outbound);
    let mut client = silent(&bed);
    let mut others: Vec<TcpStream> = (0..3).map(|_| bed.client()).collect();
    for other in &mut others {
        other
            .write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
            .unwrap();
    }
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
        .unwrap();
    for waiting in others.iter_mut().chain([&mut client]) {
        assert!(read_answer(waiting).ends_with("hello"));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn a_connection_made_under_old_rules_is_judged_by_the_new_ones() {
    let (heard, told) = std::sync::mpsc::channel();
    let (upstream, _) = server(move |_, mut stream| {
        let mut all = Vec::new();
        let _ = stream.read_to_end(&mut all);
        let _ = heard.send(all);
    });
    let bed = Bed::start(&before(upstream), Role::Inbound);
    let mut client = silent(&bed);
    let refusing = before(upstream).authz("nobody", AuthzAction::Allow, Vec::new());
    bed.configure(refusing.tables());
    client.write_all(b"\x00secret").unwrap();
    assert!(client.read_exact(&mut [0]).is_err());
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), b"");

    // Nor does a request find a connection that the new rules would not have made.
    let (old, _) = server(|_, mut stream| {
        let _ = stream.read(&mut [0]);
    });
    let (new, connections) = hello();
    let bed = Bed::start(&undeclared(old), Role::Outbound);
    let mut client = silent(&bed);
    bed.configure(undeclared(new).tables());
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
        .unwrap();
    assert!(read_answer(&mut client).ends_with("hello"));
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn both_sides_of_the_mesh_hear_who_speaks_first() {
    let pair = Pair::of(Protocol::Auto, greeter());
    for _ in 0..2 {
        let mut client = pair.caller.client();
        assert_eq!(greeting(&mut client), "220 ready\r\n");
        client.write_all(b"\x00back").unwrap();
        client.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut client), "\x00back");
    }
    let pair = Pair::of(Protocol::Auto, hello());
    // Once before anybody spoke, and at once.
    let mut client = silent(&pair.caller);
    for client in [&mut client, &mut pair.caller.client()] {
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: ratings\r\n\r\n")
            .unwrap();
        assert!(read_answer(client).ends_with("hello"));
    }
    assert_eq!(detections(&pair.caller), [("http1".to_owned(), 2)]);
    let log = pair.callee.log();
    assert_eq!(
        log.iter().filter(|line| line["status"] == 200).count(),
        2,
        "{log:?}"
    );
}

#[test]
fn the_tls_of_the_app_is_not_touched() {
    let (upstream, _) = server(|_, mut stream| {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        stream.write_all(&all).unwrap();
    });
    // A client hello as far as anybody looks, in two segments.
    let hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 and so on";
    // The callee's side, where a hello may also be a sidecar's, has tests with whole hellos.
    let [bed, _] = ways(upstream);
    let mut client = bed.client();
    client.set_nodelay(true).unwrap();
    client.write_all(&hello[..3]).unwrap();
    client.write_all(&hello[3..]).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut back = Vec::new();
    client.read_to_end(&mut back).unwrap();
    assert_eq!(back, hello);
    assert_eq!(detections(&bed), [("tls".to_owned(), 1)]);
}

#[test]
fn a_greeting_is_not_told_to_those_whom_policy_refuses() {
    let (upstream, connections) = greeter();
    // ALLOW without a rule allows nobody.
    let draft = before(upstream).authz("nobody", AuthzAction::Allow, Vec::new());
    let bed = Bed::start(&draft, Role::Inbound);
    let mut client = bed.client();
    let mut said = Vec::new();
    let end = client.read_to_end(&mut said);
    assert!(end.is_err() && said.is_empty(), "{end:?} {said:?}");
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let log = bed.log();
    assert_eq!(log.len(), 1);
    assert_eq!(log[0]["bytes_out"], 0, "{}", log[0]);
    assert_ne!(log[0]["reason"], "-", "{}", log[0]);
}

#[test]
fn without_a_server_http_is_told_so_and_others_are_ended() {
    let nowhere = Port::new();
    for bed in ways(nowhere.at) {
        // Before it is known for HTTP, whose clients may be silent for as long as they like.
        let mut silent = bed.client();
        let ended = silent.read(&mut [0; 1]).map_err(|error| error.kind());
        assert_eq!(ended, Err(std::io::ErrorKind::ConnectionReset));
        let answer = bed.get("app");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
}

/// A listener for any host, whose rules name both kinds, before a server that declares HTTP.
#[test]
fn a_server_that_declares_http_is_not_called_before_it_is_asked() {
    let (upstream, connections) = hello();
    let mut draft = draft(upstream).http("*", vec![to(&[("app", "", 1)])]);
    let Action::Forward(destinations) = to(&[("app", "", 1)]).action else {
        unreachable!()
    };
    draft.hosts[0].tcp = vec![TcpRoute {
        port: None,
        destinations,
    }];
    let bed = Bed::start(&draft, Role::Outbound);
    // Accepted before the other one, and so served by the time that one has its answer.
    let mut silent = bed.client();
    assert!(bed.get("app").ends_with("hello"));
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    silent
        .write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
        .unwrap();
    assert!(read_answer(&mut silent).ends_with("hello"));
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

/// As a service outside the mesh, on a port nobody declared.
fn outside(upstream: SocketAddr) -> Draft {
    let host = "api.example.com";
    let mut draft = Draft::new().service(host, &[80]);
    draft = draft.endpoint_with(host, &upstream.ip().to_string(), &[], |endpoint| {
        endpoint.mesh_port = None;
        endpoint.ports[0].app_port = upstream.port();
    });
    let service = draft.at(host);
    service.hosts = vec!["*".into()];
    service.external = true;
    service.ports[0].protocol = Protocol::Auto;
    draft
}

#[test]
fn a_host_outside_the_mesh_is_called_by_its_name_in_log_and_metrics() {
    let (http, _) = hello();
    let (opaque, _) = greeter();
    let host = || vec![("api.example.com".to_owned(), 1)];
    for (upstream, metric) in [
        (http, "ringmesh_requests_total"),
        (opaque, "ringmesh_tcp_connections_closed_total"),
    ] {
        let bed = Bed::start(&outside(upstream), Role::Outbound);
        let mut client = bed.client();
        if upstream == http {
            let request = b"GET / HTTP/1.1\r\nHost: api.example.com\r\n\r\n";
            client.write_all(request).unwrap();
            let answer = read_answer(&mut client);
            assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        } else {
            assert_eq!(greeting(&mut client), "220 ready\r\n");
            client.shutdown(Shutdown::Write).unwrap();
            assert_eq!(rest(&mut client), "");
        }
        let mut seen = Vec::new();
        wait_for("a count of the exchange", || {
            seen = collected(&bed);
            !among(&seen, metric, "destination").is_empty()
        });
        for name in [metric, "ringmesh_detection_duration_seconds"] {
            assert_eq!(among(&seen, name, "destination"), host(), "{name}");
        }
    }
    let bed = Bed::start(&outside(opaque), Role::Outbound);
    let mut client = bed.client();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut client), "220 ready\r\n");
    let mut log = Vec::new();
    wait_for("a line", || {
        log = bed.log();
        !log.is_empty()
    });
    assert_eq!(log[0]["destination"], "api.example.com", "{}", log[0]);
    assert_eq!(log[0]["source"], "ratings.default", "{}", log[0]);
}
