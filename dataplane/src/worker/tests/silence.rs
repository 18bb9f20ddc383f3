//! Sidecars and servers that fall silent: their host has lost its power, and no packet says so.

use std::sync::Mutex;

use socket2::{SockFilter, SockRef, Socket};

use crate::http2::Pings;

use http::HeaderValue;

use super::http2::{app, block_on, connect, grpc};
use super::limits_http2::one;
use super::mesh::Pair;
use super::*;

/// Bytes go both ways until the way is silenced; then no connection that was made before ends, and none of
/// them carries anything.
struct Way {
    silence: Silence,
    port: u16,
}

/// How many connections are silent, of how many; and their ends.
#[derive(Debug, Clone, Default)]
struct Silence(Arc<(AtomicUsize, AtomicUsize)>, Arc<Mutex<Vec<Socket>>>);

impl Silence {
    /// The kernel of the other host is gone, too: it acknowledges nothing.
    fn fall_deaf(&self) {
        self.fall();
        // BPF_RET with zero: no byte of any packet passes.
        let nothing = [SockFilter::new(0x06, 0, 0, 0)];
        for end in &*self.1.lock().unwrap() {
            end.attach_filter(&nothing).unwrap();
        }
    }

    fn fall(&self) {
        self.0
            .0
            .store(self.0.1.load(Ordering::SeqCst), Ordering::SeqCst);
    }

    fn lies_on(&self, connection: usize) -> bool {
        connection < self.0.0.load(Ordering::SeqCst)
    }
}

impl Way {
    fn to(port: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).unwrap();
        let way = Self {
            silence: Silence::default(),
            port: listener.local_addr().unwrap().port(),
        };
        let silence = way.silence.clone();
        std::thread::spawn(move || {
            for caller in listener.incoming() {
                let caller = caller.unwrap();
                let end = SockRef::from(&caller).try_clone().unwrap();
                silence.1.lock().unwrap().push(end);
                let number = silence.0.1.fetch_add(1, Ordering::SeqCst);
                let callee = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
                for (from, to) in [(&caller, &callee), (&callee, &caller)] {
                    let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                    let silence = silence.clone();
                    std::thread::spawn(move || carry(from, to, number, &silence));
                }
            }
        });
        way
    }
}

fn carry(mut from: TcpStream, mut to: TcpStream, number: usize, silence: &Silence) {
    let mut bytes = [0; 16 * 1024];
    loop {
        let len = from.read(&mut bytes).unwrap_or(0);
        if silence.lies_on(number) {
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
    timeout_ms: 2_500,
};

fn pair(protocol: Protocol, app: SocketAddr) -> (Pair, Silence) {
    let limits = ConnLimits {
        pings: PINGS,
        ..ConnLimits::default()
    };
    let mut silence = None;
    let pair = Pair::by_way_of(protocol, (app, Arc::default()), limits, |port| {
        let way = Way::to(port);
        silence = Some(way.silence.clone());
        way.port
    });
    (pair, silence.unwrap())
}

fn call(path: &str) -> http::Request<()> {
    let mut call = grpc("/");
    *call.uri_mut() = format!("http://ratings{path}").parse().unwrap();
    call
}

#[test]
fn a_silent_sidecar_is_given_up_by_both_ends_and_a_slow_one_is_not() {
    let (at, seen) = app();
    let (pair, silence) = pair(Protocol::Http2, at);
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
        silence.fall();
        let answer = lost.await.unwrap();
        // Not 4: before the route's 15 s were over.
        assert_eq!(answer.headers()["grpc-status"], "14");
        assert_eq!(answer.headers()["x-ringmesh-reason"], "upstream_reset");
        while !seen.cancelled.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

/// A sidecar in front of a server without one, by way of which it is called.
fn plain(server: SocketAddr) -> (Bed, Silence) {
    let way = Way::to(server.port());
    // Not the address it is called from: an app of the same host does not vanish.
    let mut draft = draft((Ipv4Addr::new(127, 0, 0, 2), way.port).into());
    draft.at("app").ports[0].protocol = Protocol::Http2;
    let limits = ConnLimits {
        pings: PINGS,
        ..ConnLimits::default()
    };
    let bed = Bed::start_with(&draft, Role::Outbound, limits);
    (bed, way.silence)
}

async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Its server is asked nothing that it might take amiss: the kernel finds out, whether anything is under way to
/// it or not.
#[test]
fn a_server_whose_host_is_gone_is_given_up() {
    let (at, seen) = app();
    let (bed, silence) = plain(at);
    block_on(async {
        let mut sender = connect(bed.at).await;
        let (lost, _) = sender.send_request(grpc("/hang"), true).unwrap();
        until(|| seen.calls.load(Ordering::SeqCst) == 1).await;
        silence.fall_deaf();
        let answer = lost.await.unwrap();
        // Not `timeout`: before the route's 15 s were over.
        assert_eq!(answer.headers()["x-ringmesh-reason"], "upstream_reset");

        let mut sender = sender.ready().await.unwrap();
        let (answer, _) = sender.send_request(grpc("/"), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        assert_eq!(seen.connections.load(Ordering::SeqCst), 2);
        silence.fall_deaf();
        let mut sender = sender.ready().await.unwrap();
        let (lost, _) = sender.send_request(grpc("/"), true).unwrap();
        let answer = lost.await.unwrap();
        assert_eq!(answer.headers()["x-ringmesh-reason"], "upstream_reset");
    });
}

/// A server that hangs, on a host that lives.
#[test]
fn who_was_given_up_without_a_word_is_asked_no_more_on_the_same_connection() {
    let (at, seen) = app();
    let (bed, silence) = plain(at);
    block_on(async {
        let mut sender = connect(bed.at).await;
        let (answer, _) = sender.send_request(grpc("/"), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        silence.fall();
        let mut call = grpc("/");
        let deadline = HeaderValue::from_static("1500m");
        call.headers_mut().insert("grpc-timeout", deadline);
        let mut sender = sender.ready().await.unwrap();
        let (lost, _) = sender.send_request(call, true).unwrap();
        assert_eq!(lost.await.unwrap().headers()["grpc-status"], "4");
        let mut sender = sender.ready().await.unwrap();
        let (answer, _) = sender.send_request(grpc("/"), true).unwrap();
        let answer = answer.await.unwrap();
        assert!(
            !answer.headers().contains_key("x-ringmesh-reason"),
            "{answer:?}"
        );
        assert_eq!(seen.connections.load(Ordering::SeqCst), 2);
    });
}

/// One that took too long to answer and then speaks again has not lost its connection, which may be the only one.
#[test]
fn who_speaks_again_is_asked_on_the_same_connection() {
    let (at, seen) = app();
    let mut draft = draft(at);
    draft.at("app").ports[0].protocol = Protocol::Http2;
    draft.at("app").policy.limits = one();
    let bed = Bed::start(&draft, Role::Outbound);
    block_on(async {
        let sender = connect(bed.at).await;
        let mut sender = sender.ready().await.unwrap();
        let (answer, mut stays) = sender.send_request(grpc("/echo"), false).unwrap();
        let mut echo = answer.await.unwrap().into_body();
        let mut slow = grpc("/hang");
        let deadline = HeaderValue::from_static("1500m");
        slow.headers_mut().insert("grpc-timeout", deadline);
        let mut sender = sender.ready().await.unwrap();
        let (late, _) = sender.send_request(slow, true).unwrap();
        assert_eq!(late.await.unwrap().headers()["grpc-status"], "4");
        // The server says something on the stream that stays.
        stays.send_data("word".into(), false).unwrap();
        assert_eq!(echo.data().await.unwrap().unwrap(), "word");
        let mut sender = sender.ready().await.unwrap();
        let (answer, _) = sender.send_request(grpc("/"), true).unwrap();
        assert_eq!(answer.await.unwrap().status(), 200);
        assert_eq!(seen.connections.load(Ordering::SeqCst), 1);
    });
}

/// Requests that share a connection share its end: those that may be sent again are, on a new one.
#[test]
fn a_silent_sidecar_with_lanes_is_given_up_and_what_may_be_asked_again_is() {
    // From so many requests on they share.
    const ALONE: usize = 5;
    let asked = Arc::new(AtomicUsize::new(0));
    let answers = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (count, does) = (Arc::clone(&asked), Arc::clone(&answers));
    let (app, _) = server(move |_, mut stream| {
        while read_head(&mut stream).is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            while !does.load(Ordering::SeqCst) {
                std::thread::park();
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
    });
    let (pair, silence) = pair(Protocol::Http1, app);
    let inside = |many: usize| {
        let until = Instant::now() + PATIENCE;
        while asked.load(Ordering::SeqCst) < many {
            assert!(Instant::now() < until, "{many} are never asked");
            pause();
        }
    };
    let mut begun = 0;
    let mut begin = |method: &str| {
        let mut client = pair.caller.client();
        let request = format!("{method} / HTTP/1.1\r\nHost: ratings\r\nContent-Length: 0\r\n\r\n");
        client.write_all(request.as_bytes()).unwrap();
        begun += 1;
        inside(begun);
        client
    };
    let _alone: Vec<TcpStream> = (0..ALONE).map(|_| begin("GET")).collect();
    let mut posts = [begin("POST"), begin("POST")];
    let mut gets = [begin("GET"), begin("GET")];
    assert_eq!(
        Pair::counted(&pair.caller, "ringmesh_lanes_opened_total"),
        4
    );
    silence.fall();
    answers.store(true, Ordering::SeqCst);
    for client in &mut gets {
        let answer = read_answer(client);
        assert!(answer.ends_with("hello"), "{answer}");
    }
    for client in &mut posts {
        let answer = read_answer(client);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(
            answer.contains("x-ringmesh-reason: upstream_reset\r\n"),
            "{answer}"
        );
    }
    // They were asked once more, and nothing else was.
    assert_eq!(asked.load(Ordering::SeqCst), begun + gets.len());
}
