//! Bad input at the sidecar's ports: the RFC's answer or a close, never a hang past its timeout,
//! never a panic, and good requests beside it go on.

use std::time::{Duration, Instant};

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::mesh::Mesh;
use ringmesh_tests::upstream::Upstream;
use ringmesh_tests::{Conn, Node, SOON, get, stage, wait};

use crate::standalone::{LOCAL, run};

/// Longer than the sidecar's own patience with a head (docs), so that a hang shows.
const PATIENCE: Duration = Duration::from_secs(75);

#[test]
fn garbage_gets_the_rfc_s_answer_or_a_close() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let (stage, upstream) = (stage(), Upstream::http(LOCAL));
    let (mut process, port) = run(&stage, "standalone", &upstream, "http");
    let to = (LOCAL, port).into();
    let mut random = vec![0_u8; 2_000];
    fastrand::Rng::with_seed(11).fill(&mut random);
    let long = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "y".repeat(300_000)
    );
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[7; 600][..]].concat();
    let cases: [(&str, &[u8], &[u16]); 14] = [
        ("random bytes", &random, &[400, 505, 501]),
        ("TLS to a plain port", &hello, &[400]),
        ("no host", b"GET / HTTP/1.1\r\n\r\n", &[400]),
        ("two hosts", b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", &[400]),
        ("bare LF in a name", b"GET / HTTP/1.1\r\nhost: a\r\nx\n: y\r\n\r\n", &[400]),
        ("space before colon", b"GET / HTTP/1.1\r\nhost: a\r\nx : y\r\n\r\n", &[400]),
        ("obs-fold", b"GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n z\r\n\r\n", &[400]),
        ("length and chunked", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", &[400]),
        ("two lengths", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabc", &[400]),
        ("signed length", b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +3\r\n\r\nabc", &[400]),
        ("unknown coding", b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: zstd, chunked\r\n\r\n0\r\n\r\n", &[501, 400]),
        ("bad chunk", b"POST /echo HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", &[400]),
        ("a head too long", long.as_bytes(), &[431, 400]),
        ("a NUL in a value", b"GET / HTTP/1.1\r\nhost: a\r\nx: y\0z\r\n\r\n", &[400]),
    ];
    for (name, bytes, wanted) in cases {
        let mut conn = Conn::open(to, PATIENCE).expect("connect");
        // The peer may answer and close before it has read all.
        let _ = conn.send(bytes);
        match conn.answer(Instant::now()) {
            Ok(answer) => {
                assert!(wanted.contains(&answer.status), "{name}: {}", answer.status);
                conn.rest()
                    .unwrap_or_else(|error| panic!("{name}: not closed: {error}"));
            }
            Err(error) => {
                let closed = matches!(
                    error.kind(),
                    std::io::ErrorKind::UnexpectedEof | std::io::ErrorKind::ConnectionReset
                );
                assert!(closed, "{name}: neither answered nor closed: {error}");
            }
        }
        let good = get(to, "a", "/bytes/10", &[], SOON).expect("a good request");
        assert_eq!(good.status, 200, "after {name}");
    }
    assert!(process.runs());
}

/// A connection that begins as HTTP/2 and goes on as something else is told so and closed.
#[test]
fn nonsense_behind_the_http2_preface_is_told_and_closed() {
    const GOAWAY: u8 = 7;
    if !has(&[Ability::Uring]) {
        return;
    }
    let (stage, upstream) = (stage(), Upstream::http(LOCAL));
    let (_process, port) = run(&stage, "standalone", &upstream, "http");
    let to = (LOCAL, port).into();
    let mut conn = Conn::open(to, PATIENCE).expect("connect");
    conn.send(&[&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0xff; 600]].concat())
        .expect("send");
    let said = conn.rest().expect("a close");
    let mut rest = &said[..];
    let mut kinds = Vec::new();
    while let [a, b, c, kind, ..] = rest {
        kinds.push(*kind);
        let len = 9 + usize::from(*a) * 65_536 + usize::from(*b) * 256 + usize::from(*c);
        rest = rest.get(len..).unwrap_or_default();
    }
    assert!(kinds.contains(&GOAWAY), "{kinds:?}");
    let good = get(to, "a", "/bytes/10", &[], SOON).expect("a good request");
    assert_eq!(good.status, 200);
}

#[test]
fn half_requests_time_out_and_half_closed_clients_are_answered() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let (stage, upstream) = (stage(), Upstream::http(LOCAL));
    let (mut process, port) = run(&stage, "standalone", &upstream, "http");
    let to = (LOCAL, port).into();
    // FIN after a full request is legal: the answer comes.
    let mut conn = Conn::open(to, SOON).expect("connect");
    conn.send(b"GET /bytes/100000 HTTP/1.1\r\nhost: a\r\n\r\n")
        .expect("send");
    conn.finish();
    assert_eq!(
        conn.answer(Instant::now()).expect("answer").body.len(),
        100_000
    );
    // FIN inside a head or a body: closed, not waited for.
    for half in [
        &b"GET / HTT"[..],
        b"POST /echo HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc",
    ] {
        let mut conn = Conn::open(to, SOON).expect("connect");
        conn.send(half).expect("send");
        conn.finish();
        conn.rest().expect("a close");
    }
    // Half a head that never goes on: answered or closed in the head's time, while others are served.
    let mut slow = Conn::open(to, PATIENCE).expect("connect");
    slow.send(b"GET / HTTP/1.1\r\nhost: a\r\nx: ")
        .expect("send");
    assert_eq!(
        get(to, "a", "/bytes/1", &[], SOON)
            .expect("beside it")
            .status,
        200
    );
    let rest = slow.rest().expect("a close within the head's time");
    let text = String::from_utf8_lossy(&rest).into_owned();
    assert!(
        rest.is_empty() || text.starts_with("HTTP/1.1 408"),
        "{text}"
    );
    assert!(process.runs());
}

#[test]
fn a_pipelining_client_gets_its_answers_in_order() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let (stage, upstream) = (stage(), Upstream::http(LOCAL));
    let (_process, port) = run(&stage, "standalone", &upstream, "http");
    let mut conn = Conn::open((LOCAL, port).into(), SOON).expect("connect");
    let sizes = [10, 20_000, 3, 0, 70_000, 1];
    let all: String = sizes
        .iter()
        .map(|size| format!("GET /bytes/{size} HTTP/1.1\r\nhost: a\r\n\r\n"))
        .collect();
    conn.send(all.as_bytes()).expect("send");
    for size in sizes {
        assert_eq!(
            conn.answer(Instant::now()).expect("answer").body.len(),
            size
        );
    }
}

#[test]
fn plain_and_foreign_bytes_at_the_mesh_port_are_closed() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let mesh = Mesh::start("{}\n", &[("reviews", "v3"), ("ratings", "v1")]);
    let works = |node: &Node| {
        node.call("ratings", "/ratings/0", &[])
            .is_ok_and(|answer| answer.status == 200)
    };
    wait::until_true("a working pair", SOON, || works(mesh.node("reviews", "v3")))
        .expect("a working pair");
    let mut random = vec![0_u8; 5_000];
    fastrand::Rng::with_seed(12).fill(&mut random);
    let sidecar = &mesh.node("ratings", "v1").sidecar;
    for bytes in [
        &b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"[..],
        &random,
        b"\x16\x03\x01\x40\x00",
        b"",
    ] {
        let mut conn = Conn::open(sidecar.mesh(), PATIENCE).expect("connect");
        let _ = conn.send(bytes);
        if bytes.is_empty() {
            conn.finish();
        }
        conn.rest().expect("a close");
        assert!(works(mesh.node("reviews", "v3")));
    }
    assert_eq!(
        sidecar
            .records()
            .iter()
            .filter(|record| record["status"] == 200 && record["path"] == "/")
            .count(),
        0
    );
}
