//! Sidecars that fall silent: their host has lost its power, and no packet says so.

use crate::http2::Pings;

use super::http2::{app, block_on, connect, grpc};
use super::mesh::Pair;
use super::*;

/// Bytes go both ways until `silent`; then no connection ends and none carries anything.
struct Way {
    silent: Arc<std::sync::atomic::AtomicBool>,
    port: u16,
}

impl Way {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let way = Self {
            silent: Arc::default(),
            port: listener.local_addr().unwrap().port(),
        };
        let silent = Arc::clone(&way.silent);
        std::thread::spawn(move || {
            for caller in listener.incoming() {
                let caller = caller.unwrap();
                let callee = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
                for (from, to) in [(&caller, &callee), (&callee, &caller)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let silent = Arc::clone(&silent);
                    std::thread::spawn(move || carry(from, to, &silent));
                }
            }
        });
        way
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, silent: &std::sync::atomic::AtomicBool) {
    let mut bytes = [0; 16 * 1024];
    loop {
        let len = from.read(&mut bytes).unwrap_or(0);
        if silent.load(Ordering::SeqCst) {
            // Nobody hears of an end either.
            loop {
                std::thread::park();
            }
        }
        if len == 0 || to.write_all(&bytes[..len]).is_err() {
            let _ = to.shutdown(std::net::Shutdown::Write);
            return;
        }
    }
}

const PINGS: Pings = Pings {
    interval_ms: 100,
    timeout_ms: 1_000,
};

fn pair() -> (Pair, Arc<std::sync::atomic::AtomicBool>, Arc<http2::Seen>) {
    let (at, seen) = app();
    let limits = ConnLimits {
        pings: PINGS,
        ..ConnLimits::default()
    };
    let mut silent = None;
    let pair = Pair::by_way_of(Protocol::Http2, (at, Arc::default()), limits, |port| {
        let way = Way::to(port);
        silent = Some(Arc::clone(&way.silent));
        way.port
    });
    (pair, silent.unwrap(), seen)
}

fn call(path: &str) -> http::Request<()> {
    let mut call = grpc("/");
    *call.uri_mut() = format!("http://ratings{path}").parse().unwrap();
    call
}

#[test]
fn a_silent_sidecar_is_given_up_by_both_ends_and_a_slow_one_is_not() {
    let (pair, silent, seen) = pair();
    block_on(async {
        let sender = connect(pair.caller.at).await;
        // The app takes its time, and the sidecars answer each other's PINGs meanwhile.
        let mut sender = sender.ready().await.unwrap();
        let (slow, _) = sender.send_request(call("/hang"), true).unwrap();
        let patience = Duration::from_millis(PINGS.interval_ms * 2 + PINGS.timeout_ms * 2);
        let mut slow = std::pin::pin!(slow);
        let answer = tokio::time::timeout(patience, slow.as_mut());
        assert!(answer.await.is_err(), "a slow answer is no death");
        assert!(!seen.cancelled.load(Ordering::SeqCst));

        let mut sender = sender.ready().await.unwrap();
        let (lost, _) = sender.send_request(call("/hang"), true).unwrap();
        while seen.calls.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        silent.store(true, Ordering::SeqCst);
        let begun = Instant::now();
        let answer = lost.await.unwrap();
        // Far before the route's 15 s.
        assert!(
            begun.elapsed() < Duration::from_secs(8),
            "{:?}",
            begun.elapsed()
        );
        assert_eq!(answer.headers()["grpc-status"], "14");
        assert_eq!(answer.headers()["x-ringmesh-reason"], "upstream_reset");
        while !seen.cancelled.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}
