//! `connectionPool` where the endpoint speaks HTTP/2: a connection carries many streams, and counts once.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Mutex;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use ringmesh_wire::snapshot::{Balance, Limits};

use super::http2::{block_on, connect};
use super::limits::{limited, shards};
use super::*;

/// What the apps of a service saw together.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) connections: usize,
    /// Connections with a call on them.
    busy: usize,
    pub(super) busy_most: usize,
    pub(super) calls: usize,
}

pub(super) type Shared = Arc<Mutex<Seen>>;

/// A call of a connection.
struct Call {
    of_connection: Rc<Cell<usize>>,
    seen: Shared,
}

impl Call {
    fn new(of_connection: &Rc<Cell<usize>>, seen: &Shared) -> Self {
        of_connection.set(of_connection.get() + 1);
        let mut all = seen.lock().unwrap();
        all.calls += 1;
        if of_connection.get() == 1 {
            all.busy += 1;
            all.busy_most = all.busy_most.max(all.busy);
        }
        Self {
            of_connection: Rc::clone(of_connection),
            seen: Arc::clone(seen),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.of_connection.set(self.of_connection.get() - 1);
        if self.of_connection.get() == 0 {
            self.seen.lock().unwrap().busy -= 1;
        }
    }
}

/// An app that speaks HTTP/2: a call ends when its request does. `/last` is the last of its connection.
pub(super) fn app(seen: &Shared, streams_max: Option<u32>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let seen = Arc::clone(seen);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let serve = async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                tokio::task::spawn_local(carry(socket, streams_max, Arc::clone(&seen)));
            }
        };
        tokio::task::LocalSet::new().block_on(&runtime, serve);
    });
    at
}

async fn carry(socket: tokio::net::TcpStream, streams_max: Option<u32>, seen: Shared) {
    let mut builder = h2::server::Builder::new();
    if let Some(max) = streams_max {
        builder.max_concurrent_streams(max);
    }
    let Ok(mut connection) = builder.handshake(socket).await else {
        return;
    };
    seen.lock().unwrap().connections += 1;
    let calls = Rc::default();
    while let Some(Ok((request, respond))) = connection.accept().await {
        if request.uri().path() == "/last" {
            connection.graceful_shutdown();
        }
        tokio::task::spawn_local(answer(request, respond, Call::new(&calls, &seen)));
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    call: Call,
) {
    let Ok(mut stream) = respond.send_response(Response::new(()), false) else {
        return;
    };
    let mut body = request.into_body();
    while let Some(Ok(piece)) = body.data().await {
        let _ = body.flow_control().release_capacity(piece.len());
    }
    // Before the last bytes leave.
    drop(call);
    let _ = stream.send_data(Bytes::from_static(b"hello"), true);
}

pub(super) fn service(apps: &[SocketAddr], limits: Limits) -> Draft {
    let mut draft = limited(apps[0], limits);
    for app in &apps[1..] {
        draft = draft.endpoint_with("app", &app.ip().to_string(), &[], |endpoint| {
            endpoint.mesh_port = None;
            endpoint.ports[0].app_port = app.port();
        });
    }
    let service = draft.at("app");
    service.ports[0].protocol = Protocol::Http2;
    service.policy.balance = Balance::RoundRobin;
    draft
}

/// A sidecar before one app.
fn bed(limits: Limits, streams_max: Option<u32>) -> (Bed, Shared) {
    let seen = Shared::default();
    let at = app(&seen, streams_max);
    (Bed::start(&service(&[at], limits), Role::Outbound), seen)
}

/// A call that lasts until its request is ended.
pub(super) struct Open {
    answer: ResponseFuture,
    body: Option<RecvStream>,
    request: SendStream<Bytes>,
}

impl Open {
    pub(super) async fn begin(sender: &mut SendRequest<Bytes>, path: &str) -> Self {
        let mut ready = sender.clone().ready().await.unwrap();
        let request = Request::post(format!("http://app{path}")).body(());
        let (answer, request) = ready.send_request(request.unwrap(), false).unwrap();
        *sender = ready;
        Self {
            answer,
            body: None,
            request,
        }
    }

    /// Status and reason of its answer.
    async fn answered(&mut self) -> (u16, String) {
        let (head, body) = (&mut self.answer).await.unwrap().into_parts();
        self.body = Some(body);
        let reason = head.headers.get("x-ringmesh-reason");
        let reason = reason.map_or("", |reason| reason.to_str().unwrap());
        (head.status.as_u16(), reason.to_owned())
    }

    /// The app has it.
    pub(super) async fn is_inside(&mut self) {
        assert_eq!(self.answered().await, (200, String::new()));
    }

    pub(super) async fn end(mut self) {
        self.request.send_data(Bytes::new(), true).unwrap();
        if self.body.is_none() {
            self.is_inside().await;
        }
        let mut body = self.body.unwrap();
        let mut bytes = Vec::new();
        while let Some(piece) = body.data().await {
            bytes.extend_from_slice(&piece.unwrap());
        }
        assert_eq!(bytes, b"hello");
    }
}

/// One whole call.
async fn call(sender: &mut SendRequest<Bytes>, path: &str) {
    Open::begin(sender, path).await.end().await;
}

pub(super) fn one() -> Limits {
    Limits {
        connections_max: 1,
        ..Limits::default()
    }
}

#[test]
fn many_streams_share_the_only_connection() {
    let (bed, seen) = bed(one(), None);
    block_on(async {
        let mut sender = connect(bed.at).await;
        let mut calls = Vec::new();
        for _ in 0..80 {
            calls.push(Open::begin(&mut sender, "/").await);
        }
        for call in &mut calls {
            call.is_inside().await;
        }
        for call in calls {
            call.end().await;
        }
    });
    let seen = seen.lock().unwrap();
    assert_eq!((seen.connections, seen.calls), (1, 80));
}

/// Also before it is known how many those are: none is sent to be refused, and none waits behind the others.
#[test]
fn a_burst_at_a_server_of_few_streams_is_spread_over_connections() {
    let (bed, seen) = bed(Limits::default(), Some(4));
    block_on(async {
        let mut sender = connect(bed.at).await;
        let mut calls = Vec::new();
        for _ in 0..40 {
            calls.push(Open::begin(&mut sender, "/").await);
        }
        for call in &mut calls {
            call.is_inside().await;
        }
        for call in calls {
            call.end().await;
        }
    });
    let log = bed.log();
    let tries: u64 = log
        .iter()
        .map(|line| line["attempts"].as_u64().unwrap())
        .sum();
    assert_eq!(tries, 40, "none was sent in vain");
    let seen = seen.lock().unwrap();
    assert_eq!((seen.connections, seen.calls), (10, 40));
}

#[test]
fn above_its_streams_requests_wait_and_above_those_the_answer_is_overflow() {
    let limits = Limits {
        pending_max: 1,
        ..one()
    };
    let (bed, seen) = bed(limits, Some(2));
    block_on(async {
        let mut sender = connect(bed.at).await;
        // How many streams it takes is known from here on.
        call(&mut sender, "/").await;
        let mut inside = Vec::new();
        for _ in 0..2 {
            let mut call = Open::begin(&mut sender, "/").await;
            call.is_inside().await;
            inside.push(call);
        }
        let mut third = Open::begin(&mut sender, "/").await;
        let mut fourth = Open::begin(&mut sender, "/").await;
        // One waits, the other is refused while it does.
        let (refused, waits) = tokio::select! {
            answer = third.answered() => (answer, fourth),
            answer = fourth.answered() => (answer, third),
        };
        assert_eq!(refused, (503, "overflow".into()));
        inside.pop().unwrap().end().await;
        waits.end().await;
        inside.pop().unwrap().end().await;
        // A refusal is no fault of the endpoint: it was not ejected.
        call(&mut sender, "/").await;
    });
    let log = bed.log();
    let refused = log.iter().filter(|line| line["reason"] == "overflow");
    assert_eq!(refused.count(), 1, "{log:#?}");
    assert_eq!(seen.lock().unwrap().connections, 1);
}

/// Two endpoints of a service that may have one connection: each has it in turn, even while calls to one of
/// them never cease.
#[test]
fn an_endpoint_makes_room_for_another() {
    let seen = Shared::default();
    let apps = [app(&seen, None), app(&seen, None)];
    let bed = Bed::start(&service(&apps, one()), Role::Outbound);
    block_on(async {
        let mut sender = connect(bed.at).await;
        // Idle, it is closed.
        for _ in 0..6 {
            call(&mut sender, "/").await;
        }
        // In use, it takes no more calls: these are for both endpoints in turn, and more wait for either
        // than are inside.
        let mut calls = std::collections::VecDeque::new();
        for _ in 0..10 {
            calls.push_back(Open::begin(&mut sender, "/").await);
        }
        for _ in 0..30 {
            calls.push_back(Open::begin(&mut sender, "/").await);
            calls.pop_front().unwrap().end().await;
        }
        for call in calls {
            call.end().await;
        }
    });
    let seen = seen.lock().unwrap();
    assert_eq!((seen.calls, seen.busy_most), (46, 1));
}

#[test]
fn the_only_connection_goes_to_the_shard_that_needs_it() {
    let seen = Shared::default();
    let at = app(&seen, None);
    let beds = shards(2, &service(&[at], one()));
    block_on(async {
        let mut senders = [connect(beds[0].at).await, connect(beds[1].at).await];
        for turn in 0..6 {
            call(&mut senders[turn % 2], "/").await;
        }
        // Each turn takes it away from the other, which has to close it.
        assert_eq!(seen.lock().unwrap().connections, 6);
    });
    assert_eq!(seen.lock().unwrap().busy_most, 1);
}

#[test]
fn a_place_comes_back_however_the_connection_ends() {
    let seen = Shared::default();
    let nobody = Port::new();
    for (app, fails) in [
        (app(&seen, None), None),
        (nobody.at, Some("connect_failure")),
    ] {
        let mut draft = service(&[app], one());
        draft.at("app").policy.outlier = None;
        let bed = Bed::start(&draft, Role::Outbound);
        block_on(async {
            let mut sender = connect(bed.at).await;
            for _ in 0..5 {
                let mut last = Open::begin(&mut sender, "/last").await;
                match fails {
                    None => last.end().await,
                    Some(reason) => assert_eq!(last.answered().await, (503, reason.into())),
                }
            }
        });
    }
    // The server has ended each of them after a call.
    assert_eq!(seen.lock().unwrap().connections, 5);
}

#[test]
fn a_connection_serves_as_many_streams_as_the_rule_says() {
    let per_connection = |requests_per_connection_max, connections_max| Limits {
        requests_per_connection_max,
        connections_max,
        ..Limits::default()
    };
    // One after the other.
    let (sidecar, seen) = bed(per_connection(2, u32::MAX), None);
    block_on(async {
        let mut sender = connect(sidecar.at).await;
        for _ in 0..6 {
            call(&mut sender, "/").await;
        }
    });
    assert_eq!(seen.lock().unwrap().connections, 3);
    // At once, and none of them is cut off.
    for (connections_max, busy_most) in [(u32::MAX, 10), (1, 1)] {
        let (sidecar, seen) = bed(per_connection(3, connections_max), None);
        block_on(async {
            let mut sender = connect(sidecar.at).await;
            let mut calls = Vec::new();
            for _ in 0..30 {
                calls.push(Open::begin(&mut sender, "/").await);
            }
            if connections_max > 1 {
                for call in &mut calls {
                    call.is_inside().await;
                }
            }
            for call in calls {
                call.end().await;
            }
        });
        let seen = seen.lock().unwrap();
        assert_eq!((seen.connections, seen.busy_most), (10, busy_most));
    }
}
