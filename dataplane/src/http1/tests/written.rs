//! Heads as they leave.

use super::*;

fn owned(fields: &[(&str, &str)]) -> Vec<(String, String)> {
    let pair = |(name, value): &(&str, &str)| ((*name).to_string(), (*value).to_string());
    fields.iter().map(pair).collect()
}

fn write(bytes: &str, plan: impl FnOnce(&Request<'_>) -> Vec<u8>) -> String {
    let (head, parsed) = request(bytes.as_bytes());
    assert_eq!(parsed, Parsed::Head(bytes.len()), "{bytes}");
    String::from_utf8(plan(&head.view(bytes.as_bytes()))).unwrap()
}

fn forward(bytes: &str, plan: RequestPlan<'_>) -> String {
    write(bytes, |view| {
        let mut out = Vec::new();
        let framing = view.framing();
        RequestPlan { framing, ..plan }.put(view, &mut out).unwrap();
        out
    })
}

#[test]
fn an_ordinary_request_leaves_byte_for_byte() {
    let bytes = "POST /a?b HTTP/1.1\r\nHoSt: reviews:9080\r\nUser-Agent: x\r\nX-Odd: \r\n\
        Content-Length: 5\r\nAccept: */*\r\n\r\n";
    assert_eq!(forward(bytes, RequestPlan::default()), bytes);
}

#[test]
fn what_belongs_to_the_hop_stays_behind() {
    let cases = [
        // (fields in, fields out)
        (
            "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\nA: b\r\n",
            "A: b\r\n",
        ),
        (
            "Proxy-Connection: keep-alive\r\nTE: trailers\r\nA: b\r\n",
            "A: b\r\n",
        ),
        ("Connection: x-hop\r\nX-Hop: 1\r\nA: b\r\n", "A: b\r\n"),
        (
            "X-Hop: 1\r\nA: b\r\nConnection: close, X-HOP\r\n",
            "A: b\r\n",
        ),
        ("Upgrade: websocket\r\nA: b\r\n", "A: b\r\n"),
        (
            "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nConnection: Upgrade, HTTP2-Settings\r\nA: b\r\n",
            "A: b\r\n",
        ),
        // What Connection may not take away.
        (
            "Connection: authorization\r\nAuthorization: x\r\n",
            "Authorization: x\r\n",
        ),
        (
            "Connection: cookie, x-request-id\r\nCookie: x\r\nX-Request-Id: 1\r\n",
            "Cookie: x\r\nX-Request-Id: 1\r\n",
        ),
        (
            "Connection: x-forwarded-for\r\nX-Forwarded-For: 1\r\n",
            "X-Forwarded-For: 1\r\n",
        ),
        (
            "Connection: x-ringmesh-source\r\nX-Ringmesh-Source: 1\r\n",
            "X-Ringmesh-Source: 1\r\n",
        ),
        (
            "Connection: content-length\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\n",
        ),
        // Space around values is written one way.
        ("A:b\r\nC:   d  \r\n", "A: b\r\nC: d\r\n"),
        // One length.
        (
            "Content-Length: 5\r\nContent-Length: 5\r\nA: b\r\n",
            "A: b\r\ncontent-length: 5\r\n",
        ),
        ("Content-Length: 5, 5\r\n", "content-length: 5\r\n"),
        (
            "Transfer-Encoding: Chunked\r\nA: b\r\n",
            "A: b\r\ntransfer-encoding: chunked\r\n",
        ),
        (
            "Expect: 100-continue\r\nContent-Length: 5\r\n",
            "Expect: 100-continue\r\nContent-Length: 5\r\n",
        ),
    ];
    for (before, after) in cases {
        let got = forward(
            &format!("POST / HTTP/1.1\r\nHost: a\r\n{before}\r\n"),
            RequestPlan::default(),
        );
        assert_eq!(
            got,
            format!("POST / HTTP/1.1\r\nHost: a\r\n{after}\r\n"),
            "{before}"
        );
    }
    let host = forward(
        "GET / HTTP/1.1\r\nHost: a\r\nConnection: host\r\n\r\n",
        RequestPlan::default(),
    );
    assert_eq!(host, "GET / HTTP/1.1\r\nHost: a\r\n\r\n");
}

#[test]
fn the_target_leaves_in_origin_form() {
    let plan = RequestPlan::default();
    let cases = [
        (
            "GET http://b:80/c?d HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET /c?d HTTP/1.1\r\nHost: b:80\r\n\r\n",
        ),
        (
            "GET http://b HTTP/1.1\r\nA: b\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nA: b\r\nHost: b\r\n\r\n",
        ),
        (
            "OPTIONS http://b HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: b\r\n\r\n",
        ),
        (
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "CONNECT b:1 HTTP/1.1\r\nHost: a\r\n\r\n",
            "CONNECT b:1 HTTP/1.1\r\nHost: b:1\r\n\r\n",
        ),
        ("GET / HTTP/1.0\r\n\r\n", "GET / HTTP/1.1\r\nhost: \r\n\r\n"),
        (
            "GET / HTTP/1.0\r\nExpect: 100-continue\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
        (
            "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        ),
    ];
    for (before, after) in cases {
        assert_eq!(forward(before, plan), after, "{before}");
    }
}

#[test]
fn only_what_was_proven_says_who_calls() {
    let forged = "GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Client-Cert: URI=spiffe://forged\r\n\
                  x-forwarded-client-CERT: again\r\nX: y\r\n\r\n";
    let plan = |client_cert| RequestPlan {
        client_cert,
        ..RequestPlan::default()
    };
    assert_eq!(forward(forged, plan(ClientCert::Keep)), forged);
    assert_eq!(
        forward(forged, plan(ClientCert::Strip)),
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"
    );
    assert_eq!(
        forward(forged, plan(ClientCert::Say("By=us;URI=them"))),
        "GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nx-forwarded-client-cert: By=us;URI=them\r\n\r\n"
    );
}

#[test]
fn plans_are_carried_out() {
    let bytes =
        "GET /a?b HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nX: y\r\n\r\n";
    let plan = RequestPlan {
        path: Some("/c"),
        host: Some("other"),
        request_id: Some("77"),
        close: true,
        ..RequestPlan::default()
    };
    assert_eq!(
        forward(bytes, plan),
        "GET /c?b HTTP/1.1\r\nHost: other\r\nX: y\r\nx-request-id: 77\r\nconnection: close\r\n\r\n"
    );
    let plan = RequestPlan {
        upgrade: true,
        ..RequestPlan::default()
    };
    assert_eq!(
        forward(bytes, plan),
        "GET /a?b HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nX: y\r\nconnection: upgrade\r\n\r\n"
    );
    let kept = "GET / HTTP/1.1\r\nHost: a\r\nX-Request-ID: 1\r\n\r\n";
    let plan = RequestPlan {
        request_id: Some("77"),
        ..RequestPlan::default()
    };
    assert_eq!(
        forward(kept, plan),
        "GET / HTTP/1.1\r\nHost: a\r\nx-request-id: 77\r\n\r\n"
    );
    assert_eq!(forward(kept, RequestPlan::default()), kept);
    // A path from a rule cannot break the request line.
    let plan = RequestPlan {
        path: Some("/a b\r\nX: y?\u{e4}"),
        ..RequestPlan::default()
    };
    assert_eq!(
        forward("GET / HTTP/1.1\r\nHost: a\r\n\r\n", plan),
        "GET /a%20b%0D%0AX:%20y%3F%C3%A4 HTTP/1.1\r\nHost: a\r\n\r\n"
    );
}

#[test]
fn rules_edit_in_layers() {
    let bytes = "GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\na: 2\r\nB: 3\r\nC: 4\r\n\r\n";
    let (remove, set) = (vec!["B".to_string()], owned(&[("a", "5"), ("d", "6")]));
    let add = owned(&[("c", "7"), ("d", "8")]);
    let first = Edits {
        remove: &remove,
        set: &set,
        add: &add,
    };
    let layers = [first];
    let plan = RequestPlan {
        edits: &layers,
        ..RequestPlan::default()
    };
    assert_eq!(
        forward(bytes, plan),
        "GET / HTTP/1.1\r\nHost: a\r\nC: 4\r\na: 5\r\nd: 6\r\nc: 7\r\nd: 8\r\n\r\n"
    );
    // The route's layer comes after the destination's and wins.
    let later_set = owned(&[("D", "9"), ("host", "z")]);
    let layers = [
        first,
        Edits {
            set: &later_set,
            ..Edits::default()
        },
    ];
    let plan = RequestPlan {
        edits: &layers,
        ..RequestPlan::default()
    };
    assert_eq!(
        forward(bytes, plan),
        "GET / HTTP/1.1\r\nHost: z\r\nC: 4\r\na: 5\r\nc: 7\r\nD: 9\r\n\r\n"
    );
}

#[test]
fn rules_cannot_break_the_message() {
    let bytes = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n";
    let remove = vec!["content-length".to_string(), "host".to_string()];
    let set = owned(&[
        ("transfer-encoding", "chunked"),
        ("content-length", "6"),
        ("connection", "close"),
        ("x", "a\r\nb: c"),
        ("bad name", "x"),
    ]);
    let layers = [Edits {
        remove: &remove,
        set: &set,
        add: &set,
    }];
    let plan = RequestPlan {
        edits: &layers,
        ..RequestPlan::default()
    };
    assert_eq!(forward(bytes, plan), bytes);
}

fn plan_for(to: Version, framing: Framing) -> ResponsePlan<'static> {
    ResponsePlan {
        to,
        framing,
        tells_length_only: false,
        keep_alive: true,
        upgrade: false,
        edits: &[],
    }
}

fn answer(bytes: &str, plan: &ResponsePlan<'_>) -> String {
    let (head, parsed) = response(bytes.as_bytes());
    assert_eq!(parsed, Parsed::Head(bytes.len()), "{bytes}");
    let mut out = Vec::new();
    plan.put(&head.view(bytes.as_bytes()), &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn responses_say_their_length_once() {
    use Framing::{Chunked, Length, UntilClose};
    use Version::{Http10, Http11};
    let cases = [
        (
            Http11,
            Length(5),
            "Content-Length: 5\r\nA: b\r\n",
            "Content-Length: 5\r\nA: b\r\n",
        ),
        (
            Http11,
            Length(5),
            "Content-Length: 5, 5\r\n",
            "content-length: 5\r\n",
        ),
        (
            Http11,
            Chunked,
            "Transfer-Encoding: chunked\r\nA: b\r\n",
            "A: b\r\ntransfer-encoding: chunked\r\n",
        ),
        (
            Http11,
            UntilClose,
            "A: b\r\nConnection: close\r\n",
            "A: b\r\ntransfer-encoding: chunked\r\n",
        ),
        (
            Http10,
            UntilClose,
            "A: b\r\n",
            "A: b\r\nconnection: close\r\n",
        ),
        (
            Http10,
            Chunked,
            "Transfer-Encoding: chunked\r\nA: b\r\n",
            "A: b\r\nconnection: close\r\n",
        ),
        (
            Http10,
            Length(5),
            "Content-Length: 5\r\n",
            "Content-Length: 5\r\nconnection: keep-alive\r\n",
        ),
        (
            Http11,
            Framing::None,
            "Keep-Alive: x\r\nA: b\r\n",
            "A: b\r\n",
        ),
        (
            Http11,
            Length(5),
            "Connection: x-y\r\nX-Y: z\r\nContent-Length: 5\r\n",
            "Content-Length: 5\r\n",
        ),
    ];
    for (to, framing, before, after) in cases {
        let got = answer(
            &format!("HTTP/1.1 200 Fine\r\n{before}\r\n"),
            &plan_for(to, framing),
        );
        assert_eq!(got, format!("HTTP/1.1 200 Fine\r\n{after}\r\n"), "{before}");
    }
}

#[test]
fn responses_without_a_body() {
    let length_only = ResponsePlan {
        tells_length_only: true,
        ..plan_for(Version::Http11, Framing::None)
    };
    let bytes = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n";
    assert_eq!(answer(bytes, &length_only), bytes, "HEAD tells the length");
    assert_eq!(
        answer(
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
            &plan_for(Version::Http11, Framing::None)
        ),
        "HTTP/1.1 204 No Content\r\n\r\n"
    );
    let closing = ResponsePlan {
        keep_alive: false,
        ..plan_for(Version::Http11, Framing::Length(0))
    };
    assert_eq!(
        answer("HTTP/1.0 404 Not\r\nContent-Length: 0\r\n\r\n", &closing),
        "HTTP/1.1 404 Not\r\nContent-Length: 0\r\nconnection: close\r\n\r\n"
    );
    let switching = ResponsePlan {
        upgrade: true,
        ..plan_for(Version::Http11, Framing::None)
    };
    assert_eq!(
        answer(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
            &switching
        ),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nconnection: upgrade\r\n\r\n"
    );
}

#[test]
fn interim_answers_are_forwarded() {
    let bytes =
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
    let (head, _) = response(bytes.as_bytes());
    let mut out = Vec::new();
    ResponsePlan::put_interim(&head.view(bytes.as_bytes()), &mut out).unwrap();
    assert_eq!(out, b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
}

#[test]
fn a_small_sink_is_an_error_and_not_a_panic() {
    let bytes = b"GET http://b/c HTTP/1.1\r\nHost: a\r\nA:b\r\n\r\n";
    let (head, _) = request(bytes);
    let view = head.view(bytes);
    let mut whole = Vec::new();
    RequestPlan::default().put(&view, &mut whole).unwrap();
    for len in 0..whole.len() {
        let mut space = vec![0; len];
        let result = RequestPlan::default().put(&view, &mut SliceSink::new(&mut space));
        assert_eq!(result, Err(Full), "{len}");
    }
    let mut space = vec![0; whole.len()];
    let mut sink = SliceSink::new(&mut space);
    RequestPlan::default().put(&view, &mut sink).unwrap();
    assert_eq!(sink.written(), whole);
}
