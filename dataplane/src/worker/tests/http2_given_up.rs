//! Calls in HTTP/2 that one side gives up: cancels, resets, and connections whose server goes away. The other
//! side hears of it, and no other call does.

use bytes::Bytes;
use h2::Reason;

use super::http2::{Raw, Seen, app, bed, block, block_on, connect, frame, grpc, read, request};
use super::mesh::Pair;
use super::*;

async fn cancelled_at_the_app(seen: &Seen) {
    while !seen.cancelled.load(Ordering::SeqCst) {
        moment().await;
    }
}

#[test]
fn a_cancelled_call_is_cancelled_at_the_app() {
    let (bed, seen) = bed();
    block_on(async {
        let mut sender = connect(bed.at).await;
        let (response, mut stream) = sender.send_request(request("GET", "/hang"), true).unwrap();
        while seen.calls.load(Ordering::SeqCst) == 0 {
            moment().await;
        }
        stream.send_reset(Reason::CANCEL);
        drop(response);
        cancelled_at_the_app(&seen).await;
    });
    assert_eq!(bed.log()[0]["status"], 499);
}

/// Also when the whole body came first: nothing more is sent to the app, and the client still watched.
#[test]
fn a_call_cancelled_after_its_body_is_cancelled_at_the_app() {
    let (bed, seen) = bed();
    block_on(async {
        let mut sender = connect(bed.at).await;
        let call = grpc("/read-and-hang");
        let (response, mut upload) = sender.send_request(call, false).unwrap();
        let reached = async |step: usize| {
            while seen.calls.load(Ordering::SeqCst) < step {
                moment().await;
            }
        };
        // The call has come, without its body; then that has been read to its end.
        reached(1).await;
        upload.send_data(Bytes::from_static(b"all"), true).unwrap();
        reached(2).await;
        upload.send_reset(Reason::CANCEL);
        drop(response);
        cancelled_at_the_app(&seen).await;
    });
    // And not by the route's timeout.
    assert_eq!(bed.log()[0]["status"], 499);
}

/// Also while its body waits for an app that takes no more of it.
#[test]
fn a_call_cancelled_in_its_body_is_cancelled_at_the_app() {
    // More than the app's window, and no more than the sidecar is sure to let come: its own window, and the
    // half of it that was passed on, since it gives back in halves and only whole frames.
    const TAKEN_BYTES: usize = 65_535 + 32_768;
    let (bed, seen) = bed();
    block_on(async {
        let mut sender = connect(bed.at).await;
        let (response, mut upload) = sender.send_request(grpc("/hang"), false).unwrap();
        let mut left = TAKEN_BYTES;
        while left > 0 {
            upload.reserve_capacity(left);
            let room = std::future::poll_fn(|cx| upload.poll_capacity(cx)).await;
            let now = room.unwrap().unwrap().min(left);
            upload.send_data(vec![b'x'; now].into(), false).unwrap();
            left -= now;
        }
        upload.send_reset(Reason::CANCEL);
        drop(response);
        cancelled_at_the_app(&seen).await;
    });
    // And not by the route's timeout.
    assert_eq!(bed.log()[0]["status"], 499);
}

/// In one read with a piece of the body it is still the client's own doing.
#[test]
fn a_reset_beside_data_is_the_client_who_left() {
    let (bed, _) = bed();
    let open = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "app"),
        (":path", "/hang"),
    ];
    let mut frames = frame(1, 0x4, 1, &block(&open));
    frames.extend_from_slice(&frame(0, 0, 1, b"half"));
    frames.extend_from_slice(&frame(3, 0, 1, &8_u32.to_be_bytes()));
    let mut raw = Raw::open(&bed);
    raw.write(&frames);
    let until = Instant::now() + PATIENCE;
    let line = loop {
        if let Some(line) = bed.log().pop() {
            break line;
        }
        assert!(Instant::now() < until, "it is not told of");
    };
    assert_eq!(line["status"], 499, "{line}");
    assert_eq!(line["reason"], "client_gone", "{line}");
}

/// RST_STREAM keeps its code on its way, whoever gives up (RFC 9113 section 7).
#[test]
fn a_reset_is_passed_on_with_its_code_both_ways() {
    let (bed, seen) = bed();
    let codes = [
        Reason::CANCEL,
        Reason::INTERNAL_ERROR,
        Reason::ENHANCE_YOUR_CALM,
        Reason::from(0xfeed),
    ];
    block_on(async {
        let mut sender = connect(bed.at).await;
        for code in codes {
            sender = sender.ready().await.unwrap();
            let call = request("POST", &format!("/reset/{}", u32::from(code)));
            let (response, mut upload) = sender.send_request(call, false).unwrap();
            let mut body = response.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "half");
            upload.send_data(Bytes::new(), true).unwrap();
            let end = read(&mut body).await.unwrap_err();
            assert!(end.is_remote(), "{end}");
            assert_eq!(end.reason(), Some(code));

            sender = sender.ready().await.unwrap();
            seen.cancelled.store(false, Ordering::SeqCst);
            let calls = seen.calls.load(Ordering::SeqCst);
            let (response, mut upload) = sender.send_request(grpc("/hang"), false).unwrap();
            while seen.calls.load(Ordering::SeqCst) == calls {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            upload.send_reset(code);
            while !seen.cancelled.load(Ordering::SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(Reason::from(seen.code.load(Ordering::SeqCst)), code);
            drop(response);
        }
        // What would be a lie after the head is said otherwise.
        for code in [Reason::REFUSED_STREAM, Reason::NO_ERROR] {
            sender = sender.ready().await.unwrap();
            let call = request("POST", &format!("/reset/{}", u32::from(code)));
            let (response, mut upload) = sender.send_request(call, false).unwrap();
            let mut body = response.await.unwrap().into_body();
            assert_eq!(body.data().await.unwrap().unwrap(), "half");
            upload.send_data(Bytes::new(), true).unwrap();
            let end = read(&mut body).await.unwrap_err();
            assert_eq!(end.reason(), Some(Reason::INTERNAL_ERROR));
        }
    });
}

/// Between sidecars one connection carries them all. Each client stays within what a client may.
#[test]
fn what_many_clients_cancel_ends_no_call_of_another() {
    const CLIENTS: usize = 40;
    const CALLS: usize = 20;
    let (at, seen) = app();
    let pair = Pair::of(Protocol::Http2, (at, Arc::default()));
    let call = |path: &str| {
        let mut call = grpc("/");
        *call.uri_mut() = format!("http://ratings{path}").parse().unwrap();
        call
    };
    block_on(async {
        let mut other = connect(pair.caller.at).await;
        let (response, mut speaks) = other.send_request(call("/echo"), false).unwrap();
        let mut hears = response.await.unwrap().into_body();
        for client in 0..CLIENTS {
            let mut sender = connect(pair.caller.at).await;
            let mut calls = Vec::new();
            for _ in 0..CALLS {
                sender = sender.ready().await.unwrap();
                calls.push(sender.send_request(call("/hang"), true).unwrap());
            }
            while seen.calls.load(Ordering::SeqCst) < 1 + (client + 1) * CALLS {
                moment().await;
            }
            drop(calls);
            speaks.send_data(Bytes::from_static(b"x"), false).unwrap();
            assert_eq!(hears.data().await.unwrap().unwrap(), "x", "{client}");
        }
    });
}

#[test]
fn what_a_server_did_not_process_is_asked_again() {
    let (bed, seen) = bed();
    block_on(async {
        let mut sender = connect(bed.at).await;
        let (response, _) = sender
            .send_request(request("POST", "/refuse-once"), true)
            .unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    });
    assert_eq!(seen.calls.load(Ordering::SeqCst), 2);
    // It refused one call, not its connection.
    assert_eq!(seen.connections.load(Ordering::SeqCst), 1);
}

/// A server that ends its connection after each call costs no call.
#[test]
fn a_server_that_goes_away_loses_no_call() {
    let (bed, seen) = bed();
    block_on(async {
        let mut sender = connect(bed.at).await;
        for _ in 0..20 {
            sender = sender.ready().await.unwrap();
            let (response, _) = sender.send_request(request("GET", "/last"), true).unwrap();
            let mut response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            assert_eq!(read(response.body_mut()).await.unwrap().0, b"hello");
        }
    });
    assert!(seen.connections.load(Ordering::SeqCst) > 1);
}

/// What the mesh itself says to a gRPC client it says in gRPC's terms.
/// HTTP/2 servers may send their SETTINGS before the client's preface: no greeting of an opaque
/// protocol, or gRPC would go past the rules for HTTP on every port that declares nothing.
/// Nor while other calls keep its connection open, and without a retry.
#[test]
fn nobody_joins_a_connection_whose_server_goes_away() {
    let (at, seen) = app();
    let mut draft = draft(at);
    draft.at("app").ports[0].protocol = Protocol::Http2;
    let mut once = to(&[("app", "", 1)]);
    once.retry.attempts = 0;
    let bed = Bed::start(&draft.http("app", vec![once]), Role::Outbound);
    block_on(async {
        let mut sender = connect(bed.at).await;
        let mut open = Vec::new();
        for n in 1..=10 {
            sender = sender.ready().await.unwrap();
            open.push(sender.send_request(grpc("/hang"), false).unwrap());
            while seen.calls.load(Ordering::SeqCst) < 2 * n - 1 {
                moment().await;
            }
            sender = sender.ready().await.unwrap();
            let (response, _) = sender.send_request(request("GET", "/last"), true).unwrap();
            assert_eq!(response.await.unwrap().status(), 200, "{n}");
        }
        assert_eq!(seen.connections.load(Ordering::SeqCst), open.len());
    });
}
