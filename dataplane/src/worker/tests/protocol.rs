//! HTTP/1.1 end to end: hostile heads and answers, and the rules a proxy has to keep.

use super::*;
use crate::http1::HeadFault;
use crate::http1::tests::heads::{REQUESTS, RESPONSES};

/// Reads until the other end closes.
fn read_to_end(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer is an end too.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or("none")
}

/// Every ambiguous head gets its answer and a close, and nothing of it reaches the app, not even what
/// stands behind it.
#[test]
fn ambiguous_requests_are_refused_and_smuggle_nothing() {
    let (upstream, connections) = hello();
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    let mut refused = 0;
    for (case, head, want) in REQUESTS {
        let Err(fault) = want else { continue };
        // Served, by another room.
        if *fault == HeadFault::Http2Preface {
            continue;
        }
        let mut client = bed.client();
        client.write_all(head).unwrap();
        client
            .write_all(b"GET /smuggled HTTP/1.1\r\nHost: app\r\n\r\n")
            .unwrap();
        let answer = read_to_end(&mut client);
        let refusal = fault.refusal();
        assert_eq!(
            status(&answer),
            refusal.status.to_string(),
            "{case}: {answer}"
        );
        let reason = format!("x-ringmesh-reason: {}\r\n", refusal.reason.code());
        assert!(answer.contains(&reason), "{case}: {answer}");
        assert!(answer.contains("connection: close\r\n"), "{case}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{case}: {answer}");
        refused += 1;
    }
    assert!(refused > 60);
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    assert_eq!(bed.log().len(), refused);
}

/// A faulty answer becomes 502 and its connection is not used again.
#[test]
fn ambiguous_answers_become_502() {
    let faulty: Vec<_> = RESPONSES
        .iter()
        .filter(|(_, _, want)| want.is_err())
        .collect();
    let count = faulty.len();
    let (upstream, connections) = server(move |number, mut stream| {
        if read_head(&mut stream).is_some() {
            stream.write_all(faulty[number].1).unwrap();
            // Keeps the connection, in case somebody trusts it.
            let _ = read_head(&mut stream);
        }
    });
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    for number in 0..count {
        let answer = bed.get("app");
        assert_eq!(status(&answer), "502", "{number}: {answer}");
        assert!(
            answer.contains("x-ringmesh-reason: bad_response\r\n"),
            "{answer}"
        );
    }
    assert_eq!(connections.load(Ordering::SeqCst), count);
}

/// An upstream that answers the first request of each connection with `answer`, after the head, and
/// then closes if `close`.
fn answering(answer: &'static [u8], close: bool) -> (SocketAddr, Arc<AtomicUsize>) {
    server(move |_, mut stream| {
        while read_head(&mut stream).is_some() {
            stream.write_all(answer).unwrap();
            if close {
                return;
            }
        }
    })
}

fn through(answer: &'static [u8], close: bool, request: &str) -> String {
    let (upstream, _) = answering(answer, close);
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    let mut client = bed.client();
    client.write_all(request.as_bytes()).unwrap();
    // A broken answer may have reset the connection by now.
    let _ = client.shutdown(std::net::Shutdown::Write);
    read_to_end(&mut client)
}

const GET: &str = "GET / HTTP/1.1\r\nHost: app\r\n\r\n";

/// (what is shown, request, upstream's answer, upstream closes, what the client gets)
#[test]
fn answers_are_framed_for_the_client() {
    let old = "GET / HTTP/1.0\r\nHost: app\r\n\r\n";
    let head = "HEAD / HTTP/1.1\r\nHost: app\r\n\r\n";
    let cases: &[(&str, &str, &'static [u8], bool, &str)] = &[
        (
            "until close becomes chunked",
            GET,
            b"HTTP/1.1 200 OK\r\n\r\nhello",
            true,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
        (
            "chunked becomes until close for HTTP/1.0",
            old,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            false,
            "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nhello",
        ),
        (
            "trailers are kept, extensions are not",
            GET,
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nA: b\r\n\r\n",
            false,
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nA: b\r\n\r\n",
        ),
        (
            "HEAD has a length and no body",
            head,
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            false,
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        ),
        (
            "204 has neither",
            GET,
            b"HTTP/1.1 204 No Content\r\nA: b\r\n\r\n",
            false,
            "HTTP/1.1 204 No Content\r\nA: b\r\n\r\n",
        ),
        (
            "interim answers go through",
            GET,
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            false,
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        (
            "but not to HTTP/1.0",
            old,
            b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            false,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: close\r\n\r\nok",
        ),
        (
            "hop-by-hop fields stay behind",
            GET,
            b"HTTP/1.1 200 OK\r\nConnection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 2\r\n\r\nok",
            false,
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
    ];
    for (case, request, answer, close, want) in cases {
        assert_eq!(through(answer, *close, request), *want, "{case}");
    }
}

/// A body cut short is a cut connection for the client, never a shorter body.
#[test]
fn a_truncated_answer_is_not_a_short_one() {
    let got = through(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        true,
        GET,
    );
    assert!(!got.ends_with("0\r\n\r\n"), "{got}");
    let got = through(
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
        true,
        GET,
    );
    // Nine were promised: whoever got five knows that some are missing.
    assert!(got.is_empty() || got.contains("Content-Length: 9"), "{got}");
    let got = through(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        false,
        GET,
    );
    assert!(!got.ends_with("0\r\n\r\n"), "{got}");
}

/// What the app receives, byte for byte.
#[test]
fn requests_arrive_as_promised() {
    let (sender, received) = std::sync::mpsc::channel();
    let sender = std::sync::Mutex::new(sender);
    let (upstream, _) = server(move |_, mut stream| {
        while let Some(head) = read_head(&mut stream) {
            sender.lock().unwrap().send(head).unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                .unwrap();
        }
    });
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    let cases = [
        (
            "GET /a?b HTTP/1.1\r\nHoSt: app\r\nX-Request-Id: 1\r\nA: b\r\n\r\n",
            "GET /a?b HTTP/1.1\r\nHoSt: app\r\nX-Request-Id: 1\r\nA: b\r\n\r\n",
        ),
        (
            "GET http://app/a HTTP/1.1\r\nHost: other\r\nX-Request-Id: 1\r\nProxy-Connection: keep-alive\r\n\r\n",
            "GET /a HTTP/1.1\r\nHost: app\r\nX-Request-Id: 1\r\n\r\n",
        ),
        (
            "GET /a/../b//c/%2e/%61 HTTP/1.1\r\nHost: app\r\nX-Request-Id: 1\r\n\r\n",
            "GET /b/c/a HTTP/1.1\r\nHost: app\r\nX-Request-Id: 1\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: app\r\nX-Request-Id: 1\r\nConnection: x-a, authorization\r\nX-A: b\r\nAuthorization: c\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: app\r\nX-Request-Id: 1\r\nAuthorization: c\r\n\r\n",
        ),
        (
            "GET / HTTP/1.1\r\nHost: app\r\nX-Request-Id: 1\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: app\r\nX-Request-Id: 1\r\n\r\n",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: app\r\nX-Request-Id: 1\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: app\r\nX-Request-Id: 1\r\n\r\n",
        ),
    ];
    for (sent, want) in cases {
        let answer = bed.ask(sent);
        assert_eq!(status(&answer), "200", "{sent}: {answer}");
        assert_eq!(received.recv_timeout(PATIENCE).unwrap(), want);
    }
}

/// The client waits for leave to send; the app gives it, or refuses before a body byte was sent.
#[test]
fn expectations_are_the_apps_to_answer() {
    let (upstream, _) = server(|_, mut stream| {
        while let Some(head) = read_head(&mut stream) {
            assert!(head.contains("Expect: 100-continue"), "{head}");
            if head.contains("/refuse") {
                stream
                    .write_all(
                        b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
                    )
                    .unwrap();
                return;
            }
            stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").unwrap();
            let mut body = [0; 5];
            stream.read_exact(&mut body).unwrap();
            assert_eq!(&body, b"hello");
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                .unwrap();
        }
    });
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    let ask = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: app\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"
        )
    };
    let mut client = bed.client();
    client.write_all(ask("/").as_bytes()).unwrap();
    let interim = read_head(&mut client).unwrap();
    assert!(interim.starts_with("HTTP/1.1 100 "), "{interim}");
    client.write_all(b"hello").unwrap();
    assert!(read_answer(&mut client).ends_with("ok"));

    let mut client = bed.client();
    client.write_all(ask("/refuse").as_bytes()).unwrap();
    let answer = read_head(&mut client).unwrap();
    assert_eq!(status(&answer), "413", "{answer}");
    // The body was never sent: the connection cannot be used for another request.
    assert!(answer.contains("connection: close\r\n"), "{answer}");
}

/// An answer that comes before the whole body was sent gets through.
#[test]
fn early_answers_get_through() {
    let (upstream, _) = server(|_, mut stream| {
        if read_head(&mut stream).is_some() {
            stream
                .write_all(
                    b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nstop",
                )
                .unwrap();
            // Takes what still comes, as a polite server does.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    let mut client = bed.client();
    client
        .write_all(
            b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        )
        .unwrap();
    // No last chunk: the body goes on for ever, as far as anyone knows.
    let answer = read_answer(&mut client);
    assert_eq!(status(&answer), "413", "{answer}");
    assert!(answer.ends_with("stop"), "{answer}");
}

/// A client that writes all of its upload before it reads has the answer, too (RFC 9112 section 9.6).
#[test]
fn an_early_answer_survives_a_long_upload() {
    const LENGTH: usize = 32 << 20;
    let (upstream, _) = server(|_, mut stream| {
        if read_head(&mut stream).is_some() {
            let answer =
                b"HTTP/1.1 413 Too Large\r\nContent-Length: 4\r\nConnection: close\r\n\r\nstop";
            stream.write_all(answer).unwrap();
        }
    });
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    let mut client = bed.client();
    write!(
        client,
        "PUT / HTTP/1.1\r\nHost: app\r\nContent-Length: {LENGTH}\r\n\r\n"
    )
    .unwrap();
    let piece = vec![b'x'; 1 << 20];
    for _ in 0..LENGTH / piece.len() {
        client.write_all(&piece).unwrap();
    }
    let answer = read_answer(&mut client);
    assert_eq!(status(&answer), "413", "{answer}");
    assert!(answer.ends_with("stop"), "{answer}");
}

/// HTTP/1.0 waits for the end of an answer unless it is told that there is none, which the mesh's own answers
/// do not tell.
#[test]
fn an_answer_of_the_mesh_ends_a_connection_of_http10() {
    let (upstream, _) = hello();
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    for (host, wanted) in [("nobody", "502"), ("app", "200")] {
        let mut client = bed.client();
        let request = format!("GET / HTTP/1.0\r\nHost: {host}\r\nConnection: keep-alive\r\n\r\n");
        client.write_all(request.as_bytes()).unwrap();
        let answer = read_answer(&mut client);
        assert_eq!(status(&answer), wanted, "{answer}");
        match host {
            "app" => {
                assert!(answer.contains("connection: keep-alive\r\n"), "{answer}");
                client.write_all(request.as_bytes()).unwrap();
                assert_eq!(status(&read_answer(&mut client)), "200");
            }
            _ => {
                assert!(answer.contains("connection: close\r\n"), "{answer}");
                assert_eq!(client.read(&mut [0]).unwrap(), 0, "it goes on");
            }
        }
    }
}

/// The id of a request from outside of the mesh could be another request's: the app and the log have a fresh
/// one. The app's own, and what its sidecar sends on, stay.
#[test]
fn a_request_id_of_the_outside_is_replaced() {
    const SENT: &str = "11111111-1111-4111-8111-111111111111";
    let (told, hears) = std::sync::mpsc::channel();
    let told = std::sync::Mutex::new(told);
    let (app, _) = server(move |_, mut stream| {
        while let Some(head) = read_head(&mut stream) {
            told.lock().unwrap().send(head.to_lowercase()).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
            stream.write_all(answer).unwrap();
        }
    });
    let mut inbound = Draft::new();
    inbound.mesh.mtls = ringmesh_wire::snapshot::MtlsMode::Permissive;
    inbound.workload.ports[0].app = app;
    let mut disabled = inbound.clone();
    disabled.mesh.mtls = ringmesh_wire::snapshot::MtlsMode::Disable;
    let house = crate::tls::tests::House::new();
    for (draft, role, stays) in [
        (draft(app), Role::Outbound, true),
        (inbound, Role::Inbound, false),
        (disabled, Role::Inbound, true),
    ] {
        let bed = Bed::start(&draft, role);
        let material = house.material(&crate::tls::tests::workload("ratings", "ratings", "v1"));
        (bed.mailbox.send(ToShard::Tls(Arc::new(material.unwrap())))).unwrap();
        let request = format!(
            "GET / HTTP/1.1\r\nHost: app\r\nX-Request-Id: {SENT}\r\nx-request-id: 2\r\n\r\n"
        );
        assert_eq!(status(&bed.ask(&request)), "200");
        let head = hears.recv_timeout(PATIENCE).unwrap();
        assert_eq!(head.contains(SENT), stays, "{head}");
        let log = bed.log();
        assert_eq!(log[0]["request_id"] == SENT, stays, "{}", log[0]);
        let logged = log[0]["request_id"].as_str().unwrap();
        assert!(
            head.contains(&format!("x-request-id: {logged}\r\n")),
            "{head}"
        );
        assert_eq!(
            head.matches("x-request-id").count(),
            1 + usize::from(stays),
            "{head}"
        );
    }
}

/// After 101 both directions are bytes, each with its own end.
#[test]
fn upgrades_become_tunnels() {
    let (upstream, _) = server(|_, mut stream| {
        let Some(head) = read_head(&mut stream) else {
            return;
        };
        assert!(head.contains("Upgrade: websocket\r\n"), "{head}");
        assert!(
            head.to_ascii_lowercase()
                .contains("connection: upgrade\r\n"),
            "{head}"
        );
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nserver first")
            .unwrap();
        let mut said = Vec::new();
        stream.read_to_end(&mut said).unwrap();
        said.reverse();
        stream.write_all(&said).unwrap();
    });
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    let mut client = bed.client();
    client
        .write_all(
            b"GET / HTTP/1.1\r\nHost: app\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        )
        .unwrap();
    let head = read_head(&mut client).unwrap();
    assert_eq!(status(&head), "101", "{head}");
    assert!(head.contains("Upgrade: websocket\r\n"), "{head}");
    let mut first = [0; 12];
    client.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"server first");
    client.write_all(b"GET / HTTP/1.1").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(read_to_end(&mut client), "1.1/PTTH / TEG");
}

/// A body that breaks its framing ends the exchange; what stands behind it is not a request.
#[test]
fn broken_bodies_end_the_connection() {
    let (upstream, _) = server(|_, mut stream| {
        while let Some(head) = read_head(&mut stream) {
            assert!(!head.contains("smuggled"), "{head}");
        }
    });
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    for body in [
        "x\r\n",
        "5\r\nhelloGET /smuggled HTTP/1.1\r\nHost: app\r\n\r\n",
        "ffffffffffffffff0\r\n",
        "5\nhello\r\n0\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
    ] {
        let mut client = bed.client();
        let head = "POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n";
        client.write_all(head.as_bytes()).unwrap();
        client.write_all(body.as_bytes()).unwrap();
        client
            .write_all(b"GET /smuggled HTTP/1.1\r\nHost: app\r\n\r\n")
            .unwrap();
        let answer = read_to_end(&mut client);
        assert!(
            answer.is_empty() || status(&answer) == "400",
            "{body:?}: {answer}"
        );
        assert!(
            answer.matches("HTTP/1.1").count() <= 1,
            "{body:?}: {answer}"
        );
    }
}

/// A server that writes head and body apart, with Nagle's algorithm on, sends the body when the head
/// is acknowledged; the kernel by itself does that 40 ms later once a connection has been used for a
/// while.
#[test]
fn an_answer_written_in_two_parts_does_not_wait_for_an_acknowledgement() {
    let (upstream, _) = server(|_, mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let mut body = vec![0; if head.starts_with("POST ") { 5 } else { 0 }];
            stream.read_exact(&mut body).unwrap();
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
                .unwrap();
            stream.write_all(b"hello").unwrap();
        }
    });
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    let mut client = bed.client();
    for head in [
        "GET / HTTP/1.1\r\nHost: app\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\n",
    ] {
        let mut took = Vec::new();
        for _ in 0..60 {
            let begun = Instant::now();
            client.write_all(head.as_bytes()).unwrap();
            if head.starts_with("POST") {
                client.write_all(b"hello").unwrap();
            }
            assert!(read_answer(&mut client).ends_with("hello"));
            took.push(begun.elapsed());
        }
        // The first ones are acknowledged at once anyway; the quickest, since others use this machine.
        let quickest = took[30..].iter().min().unwrap();
        assert!(*quickest < Duration::from_millis(30), "{head}{took:?}");
    }
}
