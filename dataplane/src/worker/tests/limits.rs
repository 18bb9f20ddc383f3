//! `connectionPool`: one limit for all shards of a sidecar, exact, and no fault of the endpoint.

use std::sync::{Condvar, Mutex};

use ringmesh_wire::snapshot::{Limits, Outlier};

use super::*;
use crate::shard::Peers;

/// A server that holds every request until it is let go.
#[derive(Debug, Default)]
pub(super) struct Gate {
    state: Mutex<Inside>,
    changed: Condvar,
}

#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Inside {
    now: usize,
    pub(super) most: usize,
    pub(super) all: usize,
    open: bool,
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.now += 1;
        state.all += 1;
        state.most = state.most.max(state.now);
        self.changed.notify_all();
        while !state.open {
            state = self.changed.wait(state).unwrap();
        }
        state.now -= 1;
    }

    pub(super) fn set_open(&self, open: bool) {
        self.state.lock().unwrap().open = open;
        self.changed.notify_all();
    }

    /// Waits until that many requests are inside.
    pub(super) fn wait_for(&self, inside: usize) {
        let state = self.state.lock().unwrap();
        let (_unused, timeout) = self
            .changed
            .wait_timeout_while(state, PATIENCE, |state| state.now < inside)
            .unwrap();
        assert!(!timeout.timed_out(), "{inside} requests were never inside");
    }

    pub(super) fn seen(&self) -> Inside {
        *self.state.lock().unwrap()
    }
}

pub(super) fn gated() -> (SocketAddr, Arc<AtomicUsize>, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let inside = Arc::clone(&gate);
    let (at, connections) = server(move |_, mut stream| {
        while read_head(&mut stream).is_some() {
            inside.pass();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    });
    (at, connections, gate)
}

pub(super) fn limited(upstream: SocketAddr, limits: Limits) -> Draft {
    let mut draft = draft(upstream);
    let policy = &mut draft.at("app").policy;
    policy.limits = limits;
    // The first fault of the endpoint would eject it.
    policy.outlier = Some(Outlier {
        consecutive_5xx: 1,
        consecutive_gateway: 1,
        consecutive_local: 1,
        split_local: false,
        interval_ms: 10_000,
        base_ejection_ms: 600_000,
        ejection_percent_max: 100,
        min_health_percent: 0,
    });
    draft
}

/// Workers that are the shards of one sidecar.
pub(super) fn shards(count: u32, draft: &Draft) -> Vec<Bed> {
    let beds: Vec<Bed> = (0..count)
        .map(|shard| {
            let share = ShardShare {
                shard,
                shards: count,
            };
            let plan = RingPlan::default();
            let limits = ConnLimits::default();
            Bed::start_as(share, draft, Role::Outbound, limits, plan, turn_until)
        })
        .collect();
    let all: Arc<[_]> = beds.iter().map(|bed| bed.mailbox.clone()).collect();
    for (own, bed) in beds.iter().enumerate() {
        let peers = Peers::new(own, Arc::clone(&all));
        bed.mailbox.send(ToShard::Peers(peers)).unwrap();
    }
    beds
}

/// Sends a request and does not wait for its answer.
pub(super) fn begin(bed: &Bed) -> TcpStream {
    let mut client = bed.client();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
        .unwrap();
    client
}

fn is_overflow(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 503 ") && answer.contains("x-ringmesh-reason: overflow")
}

/// Answered at last; a shard that was kept from its CPU for longer than an answer may take lets a
/// request be refused, so room that is there is found in a few tries.
fn get_in_the_end(bed: &Bed) -> String {
    let mut answer = String::new();
    for _ in 0..200 {
        answer = bed.get("app");
        if !is_overflow(&answer) {
            break;
        }
    }
    answer
}

/// Begins requests until one is inside that was not before.
fn enter(bed: &Bed, gate: &Gate) -> TcpStream {
    for _ in 0..200 {
        let all = gate.seen().all;
        let client = begin(bed);
        client
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            if gate.seen().all > all {
                client.set_read_timeout(Some(PATIENCE)).unwrap();
                return client;
            }
            if matches!(client.peek(&mut [0]), Ok(1)) {
                break;
            }
        }
    }
    panic!("there is room, and nobody finds it");
}

#[test]
fn one_shard_may_use_the_whole_limit_and_no_more() {
    let (upstream, _, gate) = gated();
    let limits = Limits {
        requests_max: 4,
        ..Limits::default()
    };
    let beds = shards(3, &limited(upstream, limits));
    // The credits wander from shard to shard with the load.
    for bed in &beds {
        gate.set_open(false);
        let mut inside: Vec<TcpStream> = (0..4).map(|_| enter(bed, &gate)).collect();
        gate.wait_for(4);
        for other in &beds {
            let refused = other.get("app");
            assert!(is_overflow(&refused), "{refused}");
        }
        gate.set_open(true);
        for client in &mut inside {
            assert!(read_answer(client).ends_with("hello"));
        }
    }
    // A refusal is no fault of the endpoint: it was not ejected.
    for bed in &beds {
        assert!(get_in_the_end(bed).ends_with("hello"));
    }
    assert_eq!(gate.seen().most, 4);
}

#[test]
fn under_load_from_all_sides_a_limit_holds() {
    let (upstream, _, gate) = gated();
    gate.set_open(true);
    let limits = Limits {
        requests_max: 3,
        ..Limits::default()
    };
    let beds = shards(2, &limited(upstream, limits));
    let answered = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for nth in 0..8 {
            let (bed, answered) = (&beds[nth % 2], &answered);
            scope.spawn(move || {
                for _ in 0..100 {
                    let answer = bed.get("app");
                    if answer.ends_with("hello") {
                        answered.fetch_add(1, Ordering::SeqCst);
                    } else {
                        assert!(is_overflow(&answer), "{answer}");
                    }
                }
            });
        }
    });
    assert!(gate.seen().most <= 3);
    assert!(answered.load(Ordering::SeqCst) > 0);
}

#[test]
fn a_lowered_limit_holds_wherever_the_credits_lie() {
    let (upstream, _, gate) = gated();
    let of = |requests_max| {
        let limits = Limits {
            requests_max,
            ..Limits::default()
        };
        limited(upstream, limits)
    };
    let beds = shards(3, &of(9));
    let mut inside: Vec<TcpStream> = (0..9).map(|_| enter(&beds[0], &gate)).collect();
    gate.set_open(true);
    for client in &mut inside {
        assert!(read_answer(client).ends_with("hello"));
    }
    for bed in &beds {
        bed.configure(of(2).tables());
    }
    gate.set_open(false);
    let mut inside: Vec<TcpStream> = (0..2).map(|_| enter(&beds[2], &gate)).collect();
    for bed in &beds {
        let refused = bed.get("app");
        assert!(is_overflow(&refused), "{refused}");
    }
    gate.set_open(true);
    for client in &mut inside {
        assert!(read_answer(client).ends_with("hello"));
    }
}

#[test]
fn requests_share_the_connections_there_may_be_in_order() {
    let (upstream, connections, gate) = gated();
    let limits = Limits {
        connections_max: 1,
        ..Limits::default()
    };
    let bed = Bed::start(&limited(upstream, limits), Role::Outbound);
    let mut clients: Vec<TcpStream> = (0..5).map(|_| begin(&bed)).collect();
    gate.wait_for(1);
    gate.set_open(true);
    for client in &mut clients {
        assert!(read_answer(client).ends_with("hello"));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    assert_eq!(gate.seen().most, 1);
}

#[test]
fn above_the_pending_requests_the_answer_is_overflow_at_once() {
    let (upstream, connections, gate) = gated();
    let limits = Limits {
        connections_max: 1,
        pending_max: 1,
        ..Limits::default()
    };
    let bed = Bed::start(&limited(upstream, limits), Role::Outbound);
    let mut first = begin(&bed);
    gate.wait_for(1);
    let mut others: Vec<TcpStream> = (0..4).map(|_| begin(&bed)).collect();
    // One waits; the rest are refused while the first is still inside.
    let mut refused = 0;
    wait_for("three that are refused", || {
        others.retain_mut(|client| {
            client.set_nonblocking(true).unwrap();
            let waits = client.peek(&mut [0]).is_err();
            client.set_nonblocking(false).unwrap();
            if !waits {
                let answer = read_answer(client);
                assert!(is_overflow(&answer), "{answer}");
                refused += 1;
            }
            waits
        });
        refused == 3
    });
    gate.set_open(true);
    assert!(read_answer(&mut first).ends_with("hello"));
    assert!(bed.get("app").ends_with("hello"));
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn the_only_connection_goes_to_the_shard_that_needs_it() {
    let (upstream, connections, gate) = gated();
    gate.set_open(true);
    let limits = Limits {
        connections_max: 1,
        ..Limits::default()
    };
    let beds = shards(2, &limited(upstream, limits));
    for turn in 0..6 {
        let answer = beds[turn % 2].get("app");
        assert!(answer.ends_with("hello"), "turn {turn}: {answer}");
    }
    // Each turn takes it away from the other, which has to close it.
    assert_eq!(connections.load(Ordering::SeqCst), 6);
    // And with both at once, nobody starves.
    std::thread::scope(|scope| {
        for nth in 0..4 {
            let bed = &beds[nth % 2];
            scope.spawn(move || {
                for _ in 0..10 {
                    let answer = bed.get("app");
                    assert!(answer.ends_with("hello"), "{answer}");
                }
            });
        }
    });
    assert_eq!(gate.seen().most, 1);
}

#[test]
fn a_connection_serves_as_many_requests_as_the_rule_says() {
    let (upstream, connections, gate) = gated();
    gate.set_open(true);
    let limits = Limits {
        requests_per_connection_max: 2,
        ..Limits::default()
    };
    let bed = Bed::start(&limited(upstream, limits), Role::Outbound);
    let mut client = bed.client();
    for _ in 0..6 {
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
            .unwrap();
        assert!(read_answer(&mut client).ends_with("hello"));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 3);
}

#[test]
fn opaque_connections_are_counted_and_refused_above_the_limit() {
    let (upstream, _) = server(|_, mut stream| {
        stream.write_all(b"x").unwrap();
        let _ = stream.read(&mut [0]);
    });
    let limits = Limits {
        connections_max: 2,
        ..Limits::default()
    };
    let mut draft = limited(upstream, limits);
    let service = draft.at("app");
    service.hosts = vec!["*".into()];
    service.ports[0].protocol = Protocol::Tcp;
    let bed = Bed::start(&draft, Role::Outbound);
    let mut kept = [bed.client(), bed.client()];
    for client in &mut kept {
        client.read_exact(&mut [0]).unwrap();
    }
    assert!(bed.client().read_exact(&mut [0]).is_err());
    let [gone, _kept] = kept;
    drop(gone);
    let until = Instant::now() + PATIENCE;
    while bed.client().read_exact(&mut [0]).is_err() {
        assert!(Instant::now() < until, "the place is not given back");
    }
    let log = bed.log();
    assert!(log.iter().any(|line| line["reason"] == "overflow"));
}

#[test]
fn clients_that_are_slow_have_no_endpoint_ejected() {
    const BODY: usize = 64 << 20;
    let (upstream, _) = server(|_, mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let answered = if head.starts_with("GET /big ") {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n");
                stream
                    .write_all(head.as_bytes())
                    .and_then(|()| stream.write_all(&vec![b'x'; BODY]))
            } else if head.starts_with("POST ") {
                // It answers when it has the body.
                stream.read_exact(&mut [0; 10]).and(Ok(()))
            } else {
                stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")
            };
            if answered.is_err() {
                return;
            }
        }
    });
    let mut route = to(&[("app", "", 1)]);
    route.timeout_ms = Some(2_000);
    // One fault of the endpoint ejects it.
    let draft = limited(upstream, Limits::default()).http("app", vec![route]);
    let bed = Bed::start(&draft, Role::Outbound);
    assert!(bed.get("app").ends_with("hello"));

    let mut reader = bed.client();
    reader
        .write_all(b"GET /big HTTP/1.1\r\nHost: app\r\n\r\n")
        .unwrap();
    let mut sender = bed.client();
    sender
        .write_all(b"POST / HTTP/1.1\r\nHost: app\r\nContent-Length: 10\r\n\r\nhalf")
        .unwrap();
    let answer = read_answer(&mut sender);
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    // Not all of it comes, since it was not read in time.
    let mut came = Vec::new();
    let _ = reader.read_to_end(&mut came);
    assert!(came.len() < BODY, "{}", came.len());

    let answer = bed.get("app");
    assert!(answer.ends_with("hello"), "{answer}");
}
