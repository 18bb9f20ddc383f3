//! A worker driven by operations on both of its sides: what a client and a server may do to it, in any
//! order. Compiled for tests and fuzzing only.
//!
//! Everything is on one thread and the real kernel; after each operation the ring turns until nothing
//! moves. Whatever comes, the app is sent well-formed requests of the sidecar's own making (but for tunnels that
//! a client asked for and was told it has), the client well-formed answers, no more of them than it asked for,
//! and in the end nothing is left under way.

mod check;

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmesh_wire::snapshot::{MtlsMode, RetryOn};

use super::port::Port;
use super::{WorkerPlan, alone};
use crate::accept::Role;
use crate::exchange::ConnLimits;
use crate::ring::{Park, Ring, RingPlan};
use crate::shard::{Collected, FromShard, Mailbox, ToShard};
use crate::tables::testing::{Draft, to};

/// What a client may say, whole or in pieces.
const REQUESTS: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\nHost: app\r\n\r\n",
    b"HEAD /a HTTP/1.1\r\nHost: app\r\n\r\n",
    b"POST /b HTTP/1.1\r\nHost: app\r\nContent-Length: 5\r\n\r\n",
    b"hello",
    b"PUT /c HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"GET / HTTP/1.0\r\nHost: app\r\nConnection: keep-alive\r\n\r\n",
    b"GET /d HTTP/1.1\r\nHost: app\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"CONNECT app:80 HTTP/1.1\r\nHost: app:80\r\n\r\n",
    b"POST /e HTTP/1.1\r\nHost: app\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: nobody\r\n\r\n",
    b"GET / HTTP/1.1\r\nHo",
    b"st: app\r\nConnection: close\r\n\r\n",
    b"\r\n",
];

/// What a server may say.
const ANSWERS: &[&[u8]] = &[
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
    b"hello",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"5\r\nhello\r\n",
    b"0\r\n\r\n",
    b"0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\nContent-Le",
    b"ngth: 0\r\n\r\n",
];

/// Operations of one run: more would only take longer.
const OPERATIONS_MAX: usize = 64;
/// Short, so that patience runs out within a run.
const PATIENCE_MS: u64 = 20;
/// How long anything may take that has to come to an end.
const END: Duration = Duration::from_secs(20);

/// Where the worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    /// Between an app and an endpoint of another service.
    Outbound,
    /// The same, with a route that tries again.
    Retries,
    /// Between callers and its app.
    Inbound,
}

/// Runs the operations that `bytes` spell, in each scene: one byte says what, the next which or how many, and
/// raw bytes follow where they are asked for.
///
/// # Panics
/// If something that must hold does not.
pub fn operations(bytes: &[u8]) {
    for scene in [Scene::Outbound, Scene::Retries, Scene::Inbound] {
        play(scene, bytes);
    }
}

fn play(scene: Scene, bytes: &[u8]) {
    let mut stage = Stage::set(scene);
    let mut rest = bytes;
    for _ in 0..OPERATIONS_MAX {
        let [what, which, more @ ..] = rest else {
            break;
        };
        rest = more;
        let which = usize::from(*which);
        match what % 12 {
            0..=2 => stage.client_sends(REQUESTS[which % REQUESTS.len()]),
            3..=5 => stage.server_sends(ANSWERS[which % ANSWERS.len()]),
            6 | 7 => {
                let (raw, more) = rest.split_at(which.min(rest.len()));
                rest = more;
                match what % 12 {
                    6 => stage.client_sends(raw),
                    _ => stage.server_sends(raw),
                }
            }
            8 if which % 2 == 0 => stage.client_finishes(),
            8 => stage.client_breaks_off(),
            9 if which % 2 == 0 => stage.server_finishes(),
            9 => stage.server_breaks_off(),
            10 => stage.time_passes(),
            _ => {}
        }
        stage.settle();
    }
    stage.end();
}

/// What passed at one end of a connection.
#[derive(Default)]
struct Talk {
    said: Vec<u8>,
    heard: Vec<u8>,
    /// The end was reset: more may have been on its way.
    broken_off: bool,
}

/// One end of a connection.
struct End {
    stream: TcpStream,
    talk: Talk,
}

impl End {
    fn over(stream: TcpStream) -> Self {
        stream.set_nonblocking(true).expect("nonblocking");
        stream.set_nodelay(true).expect("nodelay");
        Self {
            stream,
            talk: Talk::default(),
        }
    }

    fn send(&mut self, bytes: &[u8]) {
        // The other end may be gone, or take no more.
        if let Ok(len) = self.stream.write(bytes) {
            self.talk.said.extend_from_slice(&bytes[..len]);
        }
    }

    /// Takes what has arrived; whether anything had.
    fn hear(&mut self) -> bool {
        let before = self.talk.heard.len();
        let mut room = [0; 4_096];
        loop {
            match self.stream.read(&mut room) {
                Ok(0) => break,
                Ok(len) => self.talk.heard.extend_from_slice(&room[..len]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        self.talk.heard.len() > before
    }

    fn reset(mut self) -> Talk {
        self.hear();
        self.talk.broken_off = true;
        // Without it the end is in order, which is another operation.
        let _ = socket2::SockRef::from(&self.stream).set_linger(Some(Duration::ZERO));
        self.talk
    }

    fn leave(mut self) -> Talk {
        self.hear();
        self.talk
    }
}

impl Scene {
    fn role(self) -> Role {
        match self {
            Self::Outbound | Self::Retries => Role::Outbound,
            Self::Inbound => Role::Inbound,
        }
    }

    fn draft(self, upstream: SocketAddr) -> Draft {
        let mut draft = Draft::new();
        if self == Self::Inbound {
            draft.mesh.mtls = MtlsMode::Permissive;
            draft.workload.ports[0].app = upstream;
            return draft;
        }
        draft = draft.service("app", &[80]).endpoint_with(
            "app",
            &upstream.ip().to_string(),
            &[],
            |endpoint| {
                endpoint.mesh_port = None;
                endpoint.ports[0].app_port = upstream.port();
            },
        );
        if self == Self::Retries {
            let mut route = to(&[("app", "", 1)]);
            route.retry.attempts = 2;
            route.retry.per_try_timeout_ms = PATIENCE_MS / 2;
            route.retry.on = RetryOn {
                connect_failure: true,
                reset: true,
                try_timeout: true,
                server_error: true,
                statuses: vec![413],
                ..RetryOn::default()
            };
            draft.mesh.retry_non_idempotent = true;
            draft = draft.http("app", vec![route]);
        }
        draft
    }
}

struct Stage {
    scene: Scene,
    ring: Ring,
    done: Rc<Cell<bool>>,
    mailbox: Mailbox<ToShard>,
    collected: Collected<FromShard>,
    at: SocketAddr,
    _port: Port,
    listener: TcpListener,
    client: Option<End>,
    server: Option<End>,
    /// Of clients and servers that left: what a server may hear depends on what clients heard, maybe later.
    clients: Vec<Talk>,
    servers: Vec<Talk>,
}

impl Stage {
    fn set(scene: Scene) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("listen");
        listener.set_nonblocking(true).expect("nonblocking");
        let upstream = listener.local_addr().expect("address");
        let port = Port::new();
        let at = port.at;
        let limits = ConnLimits {
            head_timeout_ms: PATIENCE_MS,
            keep_alive_timeout_ms: PATIENCE_MS,
            idle_timeout_ms: PATIENCE_MS,
            tcp_idle_timeout_ms: PATIENCE_MS,
            ..ConnLimits::default()
        };
        let plan = WorkerPlan {
            log_bytes: 0,
            ..alone::plan(scene.role(), at, limits)
        };
        let (mailbox, collected, vacancy) = alone::vacancy();
        let (ring, done) = vacancy.take(&RingPlan::default(), plan);
        let mut draft = scene.draft(upstream);
        draft.mesh.default_timeout_ms = 2 * PATIENCE_MS;
        let stage = Self {
            scene,
            ring,
            done,
            mailbox,
            collected,
            at,
            _port: port,
            listener,
            client: None,
            server: None,
            clients: Vec::new(),
            servers: Vec::new(),
        };
        stage.wait(|said| matches!(said, FromShard::Listening));
        let tables = ToShard::Config(Arc::new(draft.tables()));
        assert!(stage.mailbox.send(tables).is_ok());
        stage.wait(|said| matches!(said, FromShard::InForce(_)));
        stage
    }

    /// Turns the ring until the worker says it.
    fn wait(&self, is_it: impl Fn(&FromShard) -> bool) {
        let until = Instant::now() + END;
        loop {
            let _ = self.ring.turn(Park::No);
            while let Some((_, said)) = self.collected.take() {
                if is_it(&said) {
                    return;
                }
            }
            assert!(Instant::now() < until, "something is left under way");
        }
    }

    fn client(&mut self) -> &mut End {
        let at = self.at;
        self.client
            .get_or_insert_with(|| End::over(TcpStream::connect(at).expect("connect")))
    }

    fn client_sends(&mut self, bytes: &[u8]) {
        self.client().send(bytes);
    }

    fn server_sends(&mut self, bytes: &[u8]) {
        if let Some(server) = &mut self.server {
            server.send(bytes);
        }
    }

    fn client_finishes(&mut self) {
        if let Some(client) = &self.client {
            let _ = client.stream.shutdown(Shutdown::Write);
        }
    }

    fn client_breaks_off(&mut self) {
        if let Some(client) = self.client.take() {
            self.clients.push(client.reset());
        }
    }

    fn server_finishes(&mut self) {
        if let Some(server) = &self.server {
            let _ = server.stream.shutdown(Shutdown::Write);
        }
    }

    fn server_breaks_off(&mut self) {
        if let Some(server) = self.server.take() {
            self.servers.push(server.reset());
        }
    }

    fn time_passes(&self) {
        let until = Instant::now() + Duration::from_millis(PATIENCE_MS / 2);
        while Instant::now() < until {
            let _ = self.ring.turn(Park::No);
        }
    }

    /// Turns the ring until nothing more comes of what was done.
    fn settle(&mut self) {
        let mut quiet = 0;
        while quiet < 4 {
            let _ = self.ring.turn(Park::No);
            let mut moved = false;
            if let Ok((stream, _)) = self.listener.accept() {
                if let Some(before) = self.server.replace(End::over(stream)) {
                    self.servers.push(before.leave());
                }
                moved = true;
            }
            for end in [&mut self.client, &mut self.server].into_iter().flatten() {
                moved |= end.hear();
            }
            quiet = if moved { 0 } else { quiet + 1 };
            while self.collected.take().is_some() {}
        }
    }

    fn check(&self) {
        let tunnels: Vec<_> = self.clients.iter().filter_map(check::client).collect();
        // A sidecar's app is asked for its tunnels; here no connection may be one from its first byte on.
        let tunnels = match self.scene {
            Scene::Outbound | Scene::Retries => tunnels,
            Scene::Inbound => Vec::new(),
        };
        for server in &self.servers {
            check::server(server, &tunnels);
        }
    }

    /// Both sides leave; the worker has to come to rest and to an end.
    fn end(mut self) {
        self.settle();
        self.clients.extend(self.client.take().map(End::leave));
        self.servers.extend(self.server.take().map(End::leave));
        self.check();
        drop(self.listener);
        assert!(self.mailbox.send(ToShard::Drain).is_ok());
        let until = Instant::now() + END;
        let mut drained = false;
        while !drained {
            let _ = self.ring.turn(Park::No);
            while let Some((_, said)) = self.collected.take() {
                drained |= matches!(said, FromShard::Drained);
            }
            assert!(Instant::now() < until, "something is left under way");
        }
        assert!(self.mailbox.send(ToShard::Stop).is_ok());
        while !self.done.get() {
            let _ = self.ring.turn(Park::No);
            assert!(Instant::now() < until, "the worker does not end");
        }
        // Listeners still wait in the kernel; a ring that is only dropped would never be freed.
        self.ring.close();
    }
}

#[cfg(test)]
mod tests {
    use super::operations;

    /// Sequences that once went wrong, or that are worth keeping.
    #[test]
    fn kept_sequences_hold() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/regressions/exchange");
        let mut count = 0;
        for entry in std::fs::read_dir(folder).unwrap() {
            operations(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0);
    }

    #[test]
    fn random_sequences_hold() {
        for seed in 0..150 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let mut bytes = vec![0; rng.usize(2..100)];
            rng.fill(&mut bytes);
            println!("seed {seed}");
            operations(&bytes);
        }
    }
}
