//! Requests given up by clients before they are on their way, or while their answer is silent.

use std::sync::Mutex;

use ringmesh_wire::snapshot::Limits;
use socket2::SockRef;

use super::http2::{block_on, connect, request};
use super::limits::{begin, gated, limited};
use super::*;

/// A client that is killed, or whose host says so for it.
fn reset(client: TcpStream) {
    SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
}

/// The lines of the requests that clients gave up, once there are so many.
fn wait_for_given_up(bed: &Bed, count: usize) {
    let until = Instant::now() + PATIENCE;
    let mut given_up = 0;
    while given_up < count {
        let log = bed.log();
        for line in &log {
            assert_eq!(line["status"], 499, "{line}");
            assert_eq!(line["reason"], "client_gone", "{line}");
        }
        given_up += log.len();
        assert!(Instant::now() < until, "{given_up} of {count} were noticed");
        pause();
    }
}

/// Sends a request twice where one may wait: the one that does, after the other was refused.
fn waits(bed: &Bed, request: &str) -> TcpStream {
    let mut clients = [bed.client(), bed.client()];
    for client in &mut clients {
        client.write_all(request.as_bytes()).unwrap();
        client.set_nonblocking(true).unwrap();
    }
    let [mut a, mut b] = clients;
    let until = Instant::now() + PATIENCE;
    while b.peek(&mut [0]).is_err() {
        assert!(Instant::now() < until, "none is refused");
        std::mem::swap(&mut a, &mut b);
        pause();
    }
    b.set_nonblocking(false).unwrap();
    let refused = read_answer(&mut b);
    assert!(refused.contains("x-ringmesh-reason: overflow"), "{refused}");
    assert_eq!(bed.log().len(), 1);
    a.set_nonblocking(false).unwrap();
    a
}

fn one_place() -> Limits {
    Limits {
        connections_max: 1,
        pending_max: 1,
        ..Limits::default()
    }
}

#[test]
fn who_gives_up_in_line_leaves_the_place() {
    let (upstream, _, gate) = gated();
    let bed = Bed::start(&limited(upstream, one_place()), Role::Outbound);
    let mut first = begin(&bed);
    gate.wait_for(1);
    for request in [
        "GET / HTTP/1.1\r\nHost: app\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 3\r\n\r\nabc",
    ] {
        reset(waits(&bed, request));
        wait_for_given_up(&bed, 1);
    }
    block_on(async {
        let mut sender = connect(bed.at).await;
        let (mut one, _) = sender.send_request(request("GET", "/"), true).unwrap();
        let mut sender = sender.ready().await.unwrap();
        let (mut other, _) = sender.send_request(request("GET", "/"), true).unwrap();
        let refused = tokio::select! {
            refused = &mut one => refused,
            refused = &mut other => refused,
        };
        assert_eq!(refused.unwrap().status(), 503);
        assert_eq!(bed.log().len(), 1);
        // Given up by whom nothing holds any more.
        drop((one, other));
        while bed.log().is_empty() {
            moment().await;
        }
    });
    // The place is free again, and nobody's request reached the app who does not wait for it.
    let mut last = begin(&bed);
    gate.set_open(true);
    assert!(read_answer(&mut first).ends_with("hello"));
    assert!(read_answer(&mut last).ends_with("hello"));
    assert_eq!(gate.seen().all, 2);
}

/// What comes behind a request that is in line is the next one, and the end of what comes no farewell.
#[test]
fn who_says_more_in_line_or_nothing_more_waits_on() {
    let (upstream, _, gate) = gated();
    let bed = Bed::start(&limited(upstream, one_place()), Role::Outbound);
    let mut first = begin(&bed);
    gate.wait_for(1);
    let mut waits = waits(&bed, "GET / HTTP/1.1\r\nHost: app\r\n\r\n");
    waits
        .write_all(b"GET /next HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")
        .unwrap();
    waits.shutdown(std::net::Shutdown::Write).unwrap();
    gate.set_open(true);
    assert!(read_answer(&mut first).ends_with("hello"));
    let mut answers = String::new();
    waits.read_to_string(&mut answers).unwrap();
    assert_eq!(answers.matches("hello").count(), 2, "{answers}");
}

#[test]
fn who_gives_up_in_an_injected_delay_is_noticed() {
    let (upstream, connections) = hello();
    let mut route = to(&[("app", "", 1)]);
    route.fault = Some(Fault {
        delay: Some(Delay {
            per_million: 1_000_000,
            delay_ms: 600_000,
        }),
        abort: None,
    });
    let draft = draft(upstream).http("app", vec![route]);
    let bed = Bed::start(&draft, Role::Outbound);
    reset(begin(&bed));
    wait_for_given_up(&bed, 1);
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[test]
fn who_gives_up_a_silent_answer_is_noticed() {
    let (told, hears) = std::sync::mpsc::channel();
    let told = Mutex::new(told);
    let (upstream, _) = server(move |_, mut stream| {
        let _ = read_head(&mut stream);
        let begin = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
        stream.write_all(begin).unwrap();
        // Nothing more is said, until the sidecar has no use for it.
        let end = stream.read(&mut [0]);
        told.lock().unwrap().send(end.unwrap_or(0)).unwrap();
    });
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    let mut client = begin(&bed);
    let head = read_head(&mut client).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    // Its line end goes out with what follows.
    let mut piece = [0; 8];
    client.read_exact(&mut piece).unwrap();
    reset(client);
    assert_eq!(hears.recv_timeout(PATIENCE), Ok(0));
    let log = bed.log();
    assert_eq!(log[0]["reason"], "client_gone", "{}", log[0]);
}
