//! The data path on the real kernel: a worker on its own thread, clients and servers on loopback.

mod allocations;
mod ambiguity;
mod audited;
mod given_up;
mod grpc_calls;
mod http2;
mod http2_frames;
mod http2_given_up;
mod http2_memory;
mod http2_server;
mod http2_start;
mod idle_close;
mod lanes;
mod limits;
mod limits_http2;
mod mesh;
mod names;
mod protocol;
mod shared_connecting;
mod silence;
mod simulated;
mod slow_heads;
mod stalled;
mod talk;
mod tunnels;
mod turns;
mod undeclared;
mod weather;
mod websocket;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringmesh_wire::snapshot::{Abort, AbortWith, Delay, Fault, Protocol, RetryOn};

use super::port::Port;
use super::{WorkerPlan, alone};
use crate::accept::Role;
use crate::balance::ShardShare;
use crate::exchange::ConnLimits;
use crate::ring::{Park, Ring, RingPlan, Weather};
use crate::shard::{Collected, FromShard, Mailbox, ToShard};
use crate::tables::Tables;
use crate::tables::testing::{Draft, to};

const PATIENCE: Duration = Duration::from_secs(60);

/// One worker between a client and a server.
struct Bed {
    at: SocketAddr,
    _port: Port,
    mailbox: Mailbox<ToShard>,
    collected: Collected<FromShard>,
    thread: Option<JoinHandle<()>>,
}

impl Bed {
    fn start(draft: &Draft, role: Role) -> Self {
        Self::start_with(draft, role, ConnLimits::default())
    }

    fn start_with(draft: &Draft, role: Role, limits: ConnLimits) -> Self {
        Self::start_turning(draft, role, limits, RingPlan::default(), turn_until)
    }

    /// An outbound sidecar over a ring that faults.
    fn start_in(draft: &Draft, weather: Weather) -> Self {
        let (Weather::Windy(seed) | Weather::Stormy(seed)) = weather;
        let plan = RingPlan {
            weather: Some(weather),
            // Every other sky is one in which nothing is copied.
            zero_copy_min_bytes: (seed % 2 == 1).then_some(1),
            ..RingPlan::default()
        };
        Self::start_turning(
            draft,
            Role::Outbound,
            ConnLimits::default(),
            plan,
            turn_until,
        )
    }

    /// `turns` is the shard's loop.
    fn start_turning(
        draft: &Draft,
        role: Role,
        limits: ConnLimits,
        ring_plan: RingPlan,
        turns: impl FnOnce(&Ring, &dyn Fn() -> bool) + Send + 'static,
    ) -> Self {
        Self::start_as(ShardShare::WHOLE, draft, role, limits, ring_plan, turns)
    }

    /// As one shard of several.
    fn start_as(
        share: ShardShare,
        draft: &Draft,
        role: Role,
        limits: ConnLimits,
        ring_plan: RingPlan,
        turns: impl FnOnce(&Ring, &dyn Fn() -> bool) + Send + 'static,
    ) -> Self {
        let port = Port::new();
        let at = port.at;
        let plan = WorkerPlan {
            share,
            ..alone::plan(role, at, limits)
        };
        let (mailbox, collected, vacancy) = alone::vacancy();
        let thread = std::thread::spawn(move || {
            let (ring, done) = vacancy.take(&ring_plan, plan);
            turns(&ring, &|| done.get());
        });
        mailbox.send(ToShard::LogSpare(Vec::new())).unwrap();
        let bed = Self {
            at,
            _port: port,
            mailbox,
            collected,
            thread: Some(thread),
        };
        assert!(matches!(bed.next(), FromShard::Listening));
        bed.configure(draft.tables());
        bed
    }

    fn configure(&self, tables: Tables) {
        self.put_in_force(Arc::new(tables));
    }

    fn put_in_force(&self, tables: Arc<Tables>) {
        let generation = tables.generation();
        self.mailbox.send(ToShard::Config(tables)).unwrap();
        loop {
            match self.next() {
                FromShard::InForce(got) => return assert_eq!(got, generation),
                // What was collected before.
                FromShard::Log(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn next(&self) -> FromShard {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.collected.take() {
                None | Some((_, FromShard::Stirring)) => {}
                Some((_, message)) => return message,
            }
            assert!(Instant::now() < until, "the worker says nothing");
            pause();
        }
    }

    /// The access log so far, as JSON objects.
    fn log(&self) -> Vec<serde_json::Value> {
        // The lines follow the figures: the second figures follow the lines.
        let mut figures = 0;
        let mut lines = Vec::new();
        self.mailbox.send(ToShard::Collect).unwrap();
        self.mailbox.send(ToShard::Collect).unwrap();
        while figures < 2 {
            match self.next() {
                FromShard::Log(bytes) => {
                    let text = std::str::from_utf8(&bytes).unwrap();
                    lines.extend(text.lines().map(|line| serde_json::from_str(line).unwrap()));
                    self.mailbox.send(ToShard::LogSpare(bytes)).unwrap();
                }
                FromShard::Stats(_) | FromShard::Quiet => figures += 1,
                other => panic!("{other:?}"),
            }
        }
        lines
    }

    fn client(&self) -> TcpStream {
        let stream = TcpStream::connect(self.at).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// One request on a connection of its own; the whole answer.
    fn ask(&self, request: &str) -> String {
        let mut client = self.client();
        client.write_all(request.as_bytes()).unwrap();
        read_answer(&mut client)
    }

    fn get(&self, host: &str) -> String {
        self.ask(&format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"))
    }
}

fn turn_until(ring: &Ring, is_done: &dyn Fn() -> bool) {
    while !is_done() {
        let _ = ring.turn(Park::Free);
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        let _ = self.mailbox.send(ToShard::Stop);
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(
                ended.is_ok() || std::thread::panicking(),
                "the worker panicked"
            );
        }
    }
}

/// Leaves the processor to those that are waited for.
fn pause() {
    std::thread::park_timeout(Duration::from_millis(1));
}

/// As [`pause`], of a test that awaits.
async fn moment() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

/// Waits for what comes to pass by itself.
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < end, "never: {what}");
        pause();
    }
}

/// Reads one answer with Content-Length, or to the end of the connection.
fn read_answer(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length")
                    .then(|| value.trim().parse().unwrap())
            });
            if length.is_some_and(|length: usize| body.len() >= length) {
                return text;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) => return String::from_utf8_lossy(&bytes).into_owned(),
            Ok(len) => bytes.extend_from_slice(&buffer[..len]),
            Err(error) => panic!("{error}; so far: {text:?}"),
        }
    }
}

fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => bytes.push(byte[0]),
            _ => return None,
        }
    }
    Some(String::from_utf8(bytes).unwrap())
}

/// A server: `serve` gets the number of the connection and the connection.
fn server(
    serve: impl Fn(usize, TcpStream) + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let (count, serve) = (Arc::clone(&connections), Arc::new(serve));
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let number = count.fetch_add(1, Ordering::SeqCst);
            let serve = Arc::clone(&serve);
            std::thread::spawn(move || serve(number, stream));
        }
    });
    (at, connections)
}

/// Answers every request with `hello` and keeps the connection.
fn hello() -> (SocketAddr, Arc<AtomicUsize>) {
    server(|_, mut stream| {
        while read_head(&mut stream).is_some() {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
                .unwrap();
        }
    })
}

/// A draft whose service `app` is served at `upstream`.
fn draft(upstream: SocketAddr) -> Draft {
    draft_at(&[upstream])
}

fn draft_at(upstreams: &[SocketAddr]) -> Draft {
    let mut draft = Draft::new().service("app", &[80]);
    for upstream in upstreams {
        draft = draft.endpoint_with("app", &upstream.ip().to_string(), &[], |endpoint| {
            endpoint.mesh_port = None;
            endpoint.ports[0].app_port = upstream.port();
        });
    }
    draft
}

#[test]
fn a_request_and_its_answer_go_through_and_the_lane_is_used_again() {
    let (upstream, connections) = hello();
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    let mut client = bed.client();
    for _ in 0..3 {
        client
            .write_all(b"GET /x?y=1 HTTP/1.1\r\nHost: app\r\n\r\n")
            .unwrap();
        let answer = read_answer(&mut client);
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert!(answer.ends_with("hello"), "{answer}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let log = bed.log();
    assert_eq!(log.len(), 3);
    assert_eq!(log[0]["status"], 200, "{}", log[0]);
}

#[test]
fn no_connection_keeps_an_old_configuration() {
    let (upstream, _) = hello();
    let mut outbound = draft(upstream);
    let mut undeclared = outbound.clone();
    let mut inbound = Draft::new();
    inbound.mesh.mtls = ringmesh_wire::snapshot::MtlsMode::Permissive;
    inbound.workload.ports[0].app = upstream;
    inbound.workload.ports[0].protocol = Protocol::Tcp;
    for draft in [&mut outbound, &mut undeclared] {
        draft.at("app").hosts = vec!["*".into()];
    }
    undeclared.at("app").ports[0].protocol = Protocol::Auto;
    for (draft, role) in [
        (outbound, Role::Outbound),
        (undeclared, Role::Outbound),
        (inbound, Role::Inbound),
    ] {
        let bed = Bed::start(&draft, role);
        let old = Arc::new(draft.tables());
        bed.put_in_force(Arc::clone(&old));
        // One in the middle of its life, and one that has not begun.
        let (mut client, _silent) = (bed.client(), bed.client());
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
            .unwrap();
        assert!(read_answer(&mut client).ends_with("hello"));
        bed.configure(draft.tables());
        let until = Instant::now() + PATIENCE;
        while Arc::strong_count(&old) > 1 {
            assert!(Instant::now() < until, "{role:?}: somebody holds it");
            pause();
        }
        // And the connection is served on.
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
            .unwrap();
        assert!(read_answer(&mut client).ends_with("hello"));
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (upstream, _) = server(|_, mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}",
                path.len()
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    let mut client = bed.client();
    let mut requests = String::new();
    for n in 0..20 {
        requests += &format!("GET /{n:03} HTTP/1.1\r\nHost: app\r\n\r\n");
    }
    client.write_all(requests.as_bytes()).unwrap();
    for n in 0..20 {
        let head = read_head(&mut client).unwrap();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        let mut body = [0; 4];
        client.read_exact(&mut body).unwrap();
        assert_eq!(std::str::from_utf8(&body).unwrap(), format!("/{n:03}"));
    }
}

#[test]
fn bodies_of_both_framings_arrive_whole() {
    let (upstream, _) = server(|_, mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let lower = head.to_ascii_lowercase();
            let mut body = Vec::new();
            if lower.contains("transfer-encoding: chunked") {
                loop {
                    let mut line = Vec::new();
                    let mut byte = [0];
                    while !line.ends_with(b"\r\n") {
                        stream.read_exact(&mut byte).unwrap();
                        line.push(byte[0]);
                    }
                    let size = std::str::from_utf8(&line).unwrap().trim();
                    let size = usize::from_str_radix(size, 16).unwrap();
                    let mut piece = vec![0; size + 2];
                    stream.read_exact(&mut piece).unwrap();
                    body.extend_from_slice(&piece[..size]);
                    if size == 0 {
                        break;
                    }
                }
            } else if let Some(length) = lower.split("content-length: ").nth(1) {
                let length = length.split("\r\n").next().unwrap().parse().unwrap();
                body.resize(length, 0);
                stream.read_exact(&mut body).unwrap();
            }
            let sum: u64 = body.iter().map(|b| u64::from(*b)).sum();
            let text = format!("{} {sum}", body.len());
            // Back in chunks.
            let answer = format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{text}\r\n0\r\n\r\n",
                text.len()
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    let body: Vec<u8> = (0..3_000_000_u32)
        .map(|n| b'a' + u8::try_from(n % 26).unwrap())
        .collect();
    let sum: u64 = body.iter().map(|b| u64::from(*b)).sum();
    let expected = format!("{} {sum}", body.len());

    let mut client = bed.client();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: app\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).unwrap();
    client.write_all(&body).unwrap();
    let mut head = read_head(&mut client).unwrap();
    assert!(head.contains("chunked"), "{head}");
    let mut rest = vec![0; 4 + expected.len() + 7];
    client.read_exact(&mut rest).unwrap();
    assert!(String::from_utf8_lossy(&rest).contains(&expected));

    client
        .write_all(b"POST / HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n")
        .unwrap();
    for piece in body.chunks(70_001) {
        client
            .write_all(format!("{:x}\r\n", piece.len()).as_bytes())
            .unwrap();
        client.write_all(piece).unwrap();
        client.write_all(b"\r\n").unwrap();
    }
    client.write_all(b"0\r\n\r\n").unwrap();
    head = read_head(&mut client).unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    client.read_exact(&mut rest).unwrap();
    assert!(String::from_utf8_lossy(&rest).contains(&expected));
}

#[test]
fn every_cut_of_a_request_gives_the_same_answer() {
    let (upstream, _) = hello();
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    let request = "GET /some/path HTTP/1.1\r\nHost: app\r\nX-One: 1\r\n\r\n";
    for at in 1..request.len() {
        let mut client = bed.client();
        client.set_nodelay(true).unwrap();
        client.write_all(&request.as_bytes()[..at]).unwrap();
        client.write_all(&request.as_bytes()[at..]).unwrap();
        let answer = read_answer(&mut client);
        assert!(answer.ends_with("\r\n\r\nhello"), "cut at {at}: {answer}");
    }
}

#[test]
fn unknown_hosts_and_bad_heads_are_answered_with_their_reason() {
    let (upstream, connections) = hello();
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    let unknown = bed.get("nobody");
    assert!(unknown.starts_with("HTTP/1.1 502 "), "{unknown}");
    assert!(
        unknown.contains("x-ringmesh-reason: unknown_destination"),
        "{unknown}"
    );
    for (bad, status) in [
        ("GET / HTTP/1.1\r\n\r\n", 400),
        (
            "GET / HTTP/1.1\r\nHost: app\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
            400,
        ),
        ("\u{16}\u{3}\u{1}\u{0}garbage\r\n\r\n", 400),
    ] {
        let answer = bed.ask(bad);
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{bad:?}: {answer}"
        );
        assert!(answer.contains("connection: close"), "{answer}");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    assert_eq!(bed.log().len(), 4);
}

#[test]
fn a_timeout_answers_504_when_it_is_due() {
    let (upstream, _) = server(|_, mut stream| {
        let _ = read_head(&mut stream);
        let _ = stream.read(&mut [0]);
    });
    let mut draft = draft(upstream);
    let mut route = to(&[("app", "", 1)]);
    route.timeout_ms = Some(300);
    draft = draft.http("app", vec![route]);
    let bed = Bed::start(&draft, Role::Outbound);
    let begun = Instant::now();
    let answer = bed.get("app");
    let took = begun.elapsed();
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(answer.contains("x-ringmesh-reason: timeout"), "{answer}");
    assert!(took >= Duration::from_millis(295), "{took:?}");
    assert!(took < Duration::from_secs(5), "{took:?}");
}

#[test]
fn a_hanging_try_is_repeated_at_another_endpoint() {
    let (hanging, hung) = server(|_, mut stream| {
        let _ = read_head(&mut stream);
        let _ = stream.read(&mut [0]);
    });
    let (good, _) = hello();
    let mut draft = draft_at(&[hanging, good]);
    let mut route = to(&[("app", "", 1)]);
    route.retry.attempts = 3;
    route.retry.per_try_timeout_ms = 200;
    route.retry.on = RetryOn {
        try_timeout: true,
        ..RetryOn::default()
    };
    draft = draft.http("app", vec![route]);
    let bed = Bed::start(&draft, Role::Outbound);
    for _ in 0..8 {
        let answer = bed.get("app");
        assert!(answer.ends_with("hello"), "{answer}");
    }
    assert!(
        hung.load(Ordering::SeqCst) > 0,
        "by chance no try met the hanging endpoint"
    );
}

#[test]
fn every_try_hangs_and_the_count_is_one_plus_retries() {
    let (hanging, hung) = server(|_, mut stream| {
        let _ = read_head(&mut stream);
        let _ = stream.read(&mut [0]);
    });
    let mut draft = draft(hanging);
    let mut route = to(&[("app", "", 1)]);
    route.retry.attempts = 3;
    route.retry.per_try_timeout_ms = 100;
    route.retry.on = RetryOn {
        try_timeout: true,
        ..RetryOn::default()
    };
    draft = draft.http("app", vec![route]);
    let bed = Bed::start(&draft, Role::Outbound);
    let answer = bed.get("app");
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(
        answer.contains("x-ringmesh-reason: try_timeout"),
        "{answer}"
    );
    // The last has been accepted, and perhaps not been counted yet.
    wait_for("the fourth try", || hung.load(Ordering::SeqCst) >= 4);
    assert_eq!(hung.load(Ordering::SeqCst), 4);
}

#[test]
fn a_pooled_connection_that_the_server_closed_is_no_error() {
    // Answers one request per connection and closes without saying so.
    let (upstream, _) = server(|_, mut stream| {
        if read_head(&mut stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
    });
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    let mut client = bed.client();
    for n in 0..200 {
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
            .unwrap();
        let answer = read_answer(&mut client);
        assert!(answer.ends_with("hello"), "request {n}: {answer}");
    }
}

#[test]
fn a_server_that_died_with_several_pooled_connections_is_no_error() {
    const POOLED: usize = 4;
    // Holds the first answers until all connections are open, and resets those on their next request.
    let open = Arc::new(std::sync::Barrier::new(POOLED));
    let (upstream, connections) = server(move |number, mut stream| {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
        if number < POOLED {
            let _ = read_head(&mut stream);
            open.wait();
            let _ = stream.write_all(answer);
            // Closed with the rest of the request unread: the kernel answers with a reset.
            let _ = stream.read(&mut [0]);
            return;
        }
        while read_head(&mut stream).is_some() {
            let _ = stream.write_all(answer);
        }
    });
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    let mut clients: Vec<TcpStream> = (0..POOLED).map(|_| bed.client()).collect();
    for client in &mut clients {
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
            .unwrap();
    }
    for client in &mut clients {
        assert!(read_answer(client).ends_with("hello"));
    }
    let answer = bed.get("app");
    assert!(answer.ends_with("hello"), "{answer}");
    assert_eq!(connections.load(Ordering::SeqCst), POOLED + 1);
}

#[test]
fn faults_abort_and_delay() {
    let (upstream, connections) = hello();
    let mut draft = draft(upstream);
    let mut route = to(&[("app", "", 1)]);
    route.fault = Some(Fault {
        delay: Some(Delay {
            per_million: 1_000_000,
            delay_ms: 200,
        }),
        abort: Some(Abort {
            per_million: 1_000_000,
            with: AbortWith::Http(418),
        }),
    });
    draft = draft.http("app", vec![route]);
    let bed = Bed::start(&draft, Role::Outbound);
    let begun = Instant::now();
    let answer = bed.get("app");
    assert!(begun.elapsed() >= Duration::from_millis(195));
    assert!(answer.starts_with("HTTP/1.1 418 "), "{answer}");
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[test]
fn a_swap_changes_the_next_request_of_an_open_connection() {
    let (first, _) = hello();
    let (second, _) = server(|_, mut stream| {
        while read_head(&mut stream).is_some() {
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nworld")
                .unwrap();
        }
    });
    let bed = Bed::start(&draft(first), Role::Outbound);
    let mut client = bed.client();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
        .unwrap();
    assert!(read_answer(&mut client).ends_with("hello"));
    bed.configure(draft(second).tables());
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
        .unwrap();
    assert!(read_answer(&mut client).ends_with("world"));
}

#[test]
fn inbound_goes_to_the_app() {
    let (app, _) = hello();
    let mut draft = Draft::new();
    draft.workload.ports[0].app = app;
    draft.mesh.mtls = ringmesh_wire::snapshot::MtlsMode::Permissive;
    let bed = Bed::start(&draft, Role::Inbound);
    assert!(bed.get("ratings").ends_with("hello"));
}

#[test]
fn plaintext_to_a_strict_port_never_reaches_the_app() {
    let (app, connections) = hello();
    let mut draft = Draft::new();
    draft.workload.ports[0].app = app;
    let bed = Bed::start(&draft, Role::Inbound);
    let mut client = bed.client();
    let _ = client.write_all(b"GET / HTTP/1.1\r\nHost: ratings\r\n\r\n");
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    assert!(answer.is_empty());
    assert_eq!(connections.load(Ordering::SeqCst), 0);
}

#[test]
fn opaque_bytes_go_both_ways_and_half_closes_stay() {
    let (upstream, _) = server(|_, mut stream| {
        stream.write_all(b"server first\n").unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        all.reverse();
        stream.write_all(&all).unwrap();
    });
    let mut draft = draft(upstream);
    let service = draft.at("app");
    service.hosts = vec!["*".into()];
    service.ports[0].protocol = Protocol::Tcp;
    let bed = Bed::start(&draft, Role::Outbound);
    let mut client = bed.client();
    let mut greeting = [0; 13];
    client.read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"server first\n");
    client.write_all(b"abc").unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "cba");
}

#[test]
fn above_its_bound_a_shard_sheds() {
    let (upstream, _) = hello();
    let limits = ConnLimits {
        conns_max: 2,
        ..ConnLimits::default()
    };
    let bed = Bed::start_with(&draft(upstream), Role::Outbound, limits);
    let mut kept = [bed.client(), bed.client()];
    for client in &mut kept {
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
            .unwrap();
        assert!(read_answer(client).ends_with("hello"));
    }
    let answer = bed.get("app");
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("x-ringmesh-reason: shed"), "{answer}");
}

#[test]
fn a_slow_head_is_cut_off() {
    let (upstream, _) = hello();
    let limits = ConnLimits {
        head_timeout_ms: 200,
        ..ConnLimits::default()
    };
    let bed = Bed::start_with(&draft(upstream), Role::Outbound, limits);
    let mut client = bed.client();
    client.write_all(b"GET / HTTP/1.1\r\nHo").unwrap();
    let answer = read_answer(&mut client);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}
