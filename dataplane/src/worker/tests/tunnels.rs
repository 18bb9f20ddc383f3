//! CONNECT and Upgrade: connections that stop being HTTP.

use std::net::Shutdown;

use ringmesh_wire::snapshot::{Applies, Authz, AuthzAction, OutboundMode};

use super::*;

/// Greets, takes everything, answers it reversed: both directions at once, each with its own end.
fn reverser() -> (SocketAddr, Arc<AtomicUsize>) {
    server(|_, mut stream| {
        stream.write_all(b"greeting").unwrap();
        let mut said = Vec::new();
        if stream.read_to_end(&mut said).is_ok() {
            said.reverse();
            let _ = stream.write_all(&said);
        }
    })
}

fn connect_to(authority: &str) -> String {
    format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n")
}

/// Asks for a tunnel, sends `early` without waiting, then `late`, and half-closes. The answer's head
/// and what came through.
fn through(bed: &Bed, authority: &str, early: &str, late: &str) -> (String, String) {
    let mut client = bed.client();
    let request = connect_to(authority) + early;
    client.write_all(request.as_bytes()).unwrap();
    let head = read_head(&mut client).unwrap();
    // After a refusal nobody may be listening.
    let _ = client.write_all(late.as_bytes());
    let _ = client.shutdown(Shutdown::Write);
    let mut rest = Vec::new();
    let _ = client.read_to_end(&mut rest);
    (head, String::from_utf8(rest).unwrap())
}

const OPEN: &str = "HTTP/1.1 200 Connection established\r\n\r\n";

#[test]
fn connect_to_a_service_opens_a_tunnel_to_an_endpoint() {
    for protocol in [Protocol::Http1, Protocol::Tcp, Protocol::Auto] {
        let (upstream, connections) = reverser();
        let mut draft = draft(upstream);
        draft.at("app").ports[0].protocol = protocol;
        let bed = Bed::start(&draft, Role::Outbound);
        for (early, late) in [("", "abc"), ("ab", "c"), ("abc", "")] {
            let (head, rest) = through(&bed, "app:80", early, late);
            assert_eq!(head, OPEN, "{protocol:?}");
            assert_eq!(rest, "greetingcba", "{protocol:?}");
        }
        assert_eq!(connections.load(Ordering::SeqCst), 3);
        let log = bed.log();
        assert_eq!(log.len(), 3);
        assert_eq!(log[0]["method"], "CONNECT", "{}", log[0]);
        assert_eq!(log[0]["status"], 200, "{}", log[0]);
        assert_eq!(log[0]["bytes_in"], 3, "{}", log[0]);
        assert_eq!(log[0]["bytes_out"], 11, "{}", log[0]);
    }
}

/// An endpoint's own address means that endpoint; an address nobody knows is dialled as it is.
#[test]
fn connect_to_an_address_is_a_connection_to_it() {
    let (upstream, _) = reverser();
    let (outside, _) = reverser();
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    for at in [upstream, outside] {
        let (head, rest) = through(&bed, &at.to_string(), "", "abc");
        assert_eq!((&*head, &*rest), (OPEN, "greetingcba"), "{at}");
    }
    let log = bed.log();
    assert_eq!(log[0]["cluster"], "app.default:80", "{}", log[0]);
    assert_eq!(log[1]["passthrough"], true, "{}", log[1]);
}

/// (what is asked, how it is refused). Whatever stands behind is not a request: the connection closes.
#[test]
fn connect_is_refused_with_its_reason() {
    let (guarded, connections) = reverser();
    let (outside, _) = reverser();
    let nobody = Port::new();
    let mut draft = draft(nobody.at);
    draft.mesh.outbound = OutboundMode::RegistryOnly;
    draft = draft.service("guarded", &[80]);
    draft.at("guarded").external = true;
    draft = draft.endpoint_with("guarded", "127.0.0.1", &[], |endpoint| {
        endpoint.mesh_port = None;
        endpoint.ports[0].app_port = guarded.port();
    });
    draft.policy.authz.push(Authz {
        name: "nobody.default".into(),
        action: AuthzAction::Allow,
        rules: Vec::new(),
        applies: Applies::Outbound(ringmesh_wire::ServiceId::new("guarded", "default")),
    });
    let bed = Bed::start(&draft, Role::Outbound);
    let (outside, own) = (outside.to_string(), bed.at.to_string());
    let cases = [
        ("elsewhere.example:443", "502", "unknown_destination"),
        (&*outside, "502", "unknown_destination"),
        ("app:443", "502", "unknown_destination"),
        ("app:80", "503", "connect_failure"),
        ("guarded:80", "403", "authz_denied"),
        (&*own, "502", "unknown_destination"),
    ];
    for (authority, status, reason) in cases {
        let smuggled = "GET / HTTP/1.1\r\nHost: app\r\n\r\n";
        let (head, rest) = through(&bed, authority, smuggled, "");
        assert_eq!(head.split(' ').nth(1), Some(status), "{authority}: {head}");
        let line = format!("x-ringmesh-reason: {reason}\r\n");
        assert!(head.contains(&line), "{authority}: {head}");
        assert!(
            head.contains("connection: close\r\n"),
            "{authority}: {head}"
        );
        assert!(!rest.contains("HTTP/1.1"), "{authority}: {rest}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    assert_eq!(bed.log().len(), cases.len());
}

#[test]
fn a_tunnel_to_the_sidecar_itself_is_a_loop() {
    let (upstream, _) = hello();
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    for at in [bed.at.to_string(), format!("0.0.0.0:{}", bed.at.port())] {
        let (head, _) = through(&bed, &at, "", "");
        assert!(head.contains("x-ringmesh-reason: loop\r\n"), "{at}: {head}");
    }
}

/// The app's proxy has its own rules about CONNECT: it is asked, and what it says is what counts.
#[test]
fn connect_that_arrives_for_the_app_is_the_apps_to_answer() {
    let (app, _) = server(|_, mut stream| {
        let head = read_head(&mut stream).unwrap();
        if head.starts_with("CONNECT b:1 ") {
            // A length in this answer means nothing (RFC 9110 section 9.3.6).
            stream
                .write_all(b"HTTP/1.1 200 Fine\r\nContent-Length: 4\r\n\r\ngreeting")
                .unwrap();
            let mut said = Vec::new();
            stream.read_to_end(&mut said).unwrap();
            said.reverse();
            stream.write_all(&said).unwrap();
        } else {
            stream
                .write_all(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
            assert_eq!(
                read_head(&mut stream),
                None,
                "a tunnel's bytes as a request"
            );
        }
    });
    let mut draft = Draft::new();
    draft.workload.ports[0].app = app;
    draft.mesh.mtls = ringmesh_wire::snapshot::MtlsMode::Permissive;
    let bed = Bed::start(&draft, Role::Inbound);
    for (early, late) in [("", "abc"), ("ab", "c")] {
        let (head, rest) = through(&bed, "b:1", early, late);
        assert_eq!(head, "HTTP/1.1 200 Fine\r\n\r\n");
        assert_eq!(rest, "greetingcba");
    }
    let smuggled = "GET / HTTP/1.1\r\nHost: app\r\n\r\n";
    let (head, rest) = through(&bed, "c:1", smuggled, "");
    assert!(head.starts_with("HTTP/1.1 407 "), "{head}");
    assert!(head.contains("connection: close\r\n"), "{head}");
    assert_eq!(rest, "");
}

/// What a client sends behind an upgrade without waiting for the answer is the new protocol's, or
/// the next request if there is none.
#[test]
fn bytes_behind_an_upgrade_are_not_lost() {
    let (upstream, _) = server(|_, mut stream| {
        while let Some(head) = read_head(&mut stream) {
            if !head.contains("Upgrade: echo") {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .unwrap();
                continue;
            }
            stream
                .write_all(b"HTTP/1.1 101 Yes\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
                .unwrap();
            let mut said = Vec::new();
            stream.read_to_end(&mut said).unwrap();
            stream.write_all(&said).unwrap();
        }
    });
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    let upgrade = |to: &str| {
        format!("GET / HTTP/1.1\r\nHost: app\r\nConnection: upgrade\r\nUpgrade: {to}\r\n\r\n")
    };
    let mut client = bed.client();
    client
        .write_all((upgrade("echo") + "early").as_bytes())
        .unwrap();
    let head = read_head(&mut client).unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    client.write_all(b" late").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "early late");

    let mut client = bed.client();
    let next = "GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n";
    client
        .write_all((upgrade("other") + next).as_bytes())
        .unwrap();
    let mut both = String::new();
    client.read_to_string(&mut both).unwrap();
    assert_eq!(both.matches("HTTP/1.1 200 OK").count(), 2, "{both}");
}

/// Where a body ends and a new protocol begins, nobody can say: the upgrade is not passed on.
#[test]
fn an_upgrade_with_a_body_is_an_ordinary_request() {
    let (upstream, _) = server(|_, mut stream| {
        let head = read_head(&mut stream).unwrap().to_ascii_lowercase();
        assert!(!head.contains("upgrade"), "{head}");
        stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .unwrap();
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    let answer = bed.ask(
        "POST / HTTP/1.1\r\nHost: app\r\nConnection: upgrade\r\nUpgrade: echo\r\nContent-Length: 1\r\n\r\nx",
    );
    assert!(answer.ends_with("ok"), "{answer}");
}

#[test]
fn a_silent_tunnel_is_ended() {
    let (upstream, _) = reverser();
    let limits = ConnLimits {
        tcp_idle_timeout_ms: 100,
        ..ConnLimits::default()
    };
    let bed = Bed::start_with(&draft(upstream), Role::Outbound, limits);
    let mut client = bed.client();
    client.write_all(connect_to("app:80").as_bytes()).unwrap();
    assert_eq!(read_head(&mut client).unwrap(), OPEN);
    let _ = client.read_to_end(&mut Vec::new());
    let log = bed.log();
    assert_eq!(log[0]["reason"], "idle_timeout", "{}", log[0]);
}
