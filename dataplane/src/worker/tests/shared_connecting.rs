//! A connection that is being made for one call, and others that wait for it.

use super::http2::{app, block_on, connect, grpc};
use super::mesh::Pair;
use super::*;

/// A way to `port` on which nothing of a connection moves until the sender says so, once for each.
fn gated(port: u16) -> (u16, std::sync::mpsc::Sender<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap().port();
    let (open, gate) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for caller in listener.incoming() {
            let caller = caller.unwrap();
            let _ = gate.recv();
            let callee = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
            for (from, to) in [(&caller, &callee), (&callee, &caller)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                std::thread::spawn(move || std::io::copy(&mut from, &mut to));
            }
        }
    });
    (at, open)
}

fn call(timeout: &'static str) -> http::Request<()> {
    let mut call = grpc("/");
    *call.uri_mut() = "http://ratings/".parse().unwrap();
    let timeout = http::HeaderValue::from_static(timeout);
    call.headers_mut().insert("grpc-timeout", timeout);
    call
}

/// The deadline of the call that wanted the connection first ends that call, and no other.
#[test]
fn a_connection_in_the_making_outlives_the_call_it_was_begun_for() {
    let (at, seen) = app();
    let mut open = None;
    let pair = Pair::by_way_of(
        Protocol::Http2,
        (at, Arc::default()),
        ConnLimits::default(),
        |port| {
            let (port, gate) = gated(port);
            open = Some(gate);
            port
        },
    );
    block_on(async {
        let mut sender = connect(pair.caller.at).await;
        let (hasty, _) = sender.send_request(call("200m"), true).unwrap();
        let mut sender = sender.ready().await.unwrap();
        let (patient, _) = sender.send_request(call("5S"), true).unwrap();
        let hasty = hasty.await.unwrap();
        assert_eq!(hasty.headers()["grpc-status"], "4", "{hasty:?}");
        // Once: another try on another connection would not come through.
        let open = open.unwrap();
        open.send(()).unwrap();
        let patient = patient.await.unwrap();
        assert!(
            !patient.headers().contains_key("grpc-status"),
            "{patient:?}"
        );
    });
    assert_eq!(seen.calls.load(Ordering::SeqCst), 1);
}
