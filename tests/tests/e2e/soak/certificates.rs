//! Certificates that end all the time under traffic: five seconds for a minute in `make test`, a minute for as long as
//! `make soak` soaks. Nobody may notice.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::echo::{Echo, ping, tunnel};
use ringmesh_tests::load::{Call, statuses, with_status};
use ringmesh_tests::mesh::Mesh;
use ringmesh_tests::{SOON, Sidecar, Stop, grpc_python, repository, wait};

use super::asked_for;
use crate::foreign::Server;
use crate::watched::Metrics;

/// How long one opaque connection is pinged, once per [`PAUSE`]: less than what a certificate has left when it is
/// replaced. Opaque connections that live longer than their certificates are cut, and that is told in `docs/mutual-tls.md`.
const TUNNEL_LASTS: Duration = Duration::from_secs(1);
const PAUSE: Duration = Duration::from_millis(20);

#[test]
fn short_certificates_rotate_under_http_and_opaque_traffic_and_nobody_notices() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let (life_s, time) = match asked_for() {
        Some(time) => (60, time),
        None => (5, Duration::from_secs(60)),
    };
    let cast = [("reviews", "v3"), ("ratings", "v1")];
    let mesh = Mesh::start(&format!("svid_life: {life_s}s\n"), &cast);
    let echo = Echo::start(&mesh);
    let reviews = mesh.node("reviews", "v3");
    let outbound = reviews.sidecar.outbound();
    let call = Call {
        to: outbound,
        authority: "ratings:9080",
        target: "/ratings/0",
        caller: "reviews/v3",
    };
    mesh.wait_for_a_call();
    wait::until("the first tunnel", SOON, || tunnel(outbound)).expect("a tunnel");
    // Calls of gRPC, where there is a client: HTTP/2 between the sidecars, and streams over a connection's end.
    let interop = has(&[Ability::Grpcio]).then(|| Interop::start(&mesh, outbound));
    let sidecars = [
        reviews.sidecar.admin(),
        mesh.node("ratings", "v1").sidecar.admin(),
        echo.sidecar.admin(),
    ];
    let sums = |name: &str| sidecars.map(|admin| Metrics::of(admin).sum(name));
    // Before everybody has heard of everybody a call may be refused.
    let (renewed, refused, retried) = (
        sums("ringmesh_svid_renewals_total"),
        sums("ringmesh_connections_refused_total"),
        sums("ringmesh_retries_total"),
    );
    let handshakes = sums("ringmesh_tls_handshakes_total");

    let stop = Stop::default();
    let (answers, pings) = std::thread::scope(|scope| {
        let kept = scope.spawn(|| paced(&stop, || call.times(4, 1)));
        let fresh = scope.spawn(|| paced(&stop, || call.times(2, 2)));
        // So many that they share connections with lanes.
        let crowd = scope.spawn(|| paced(&stop, || call.times(32, 16)));
        let opaque = scope.spawn(|| {
            let mut pings = 0_u64;
            while !stop.flag().load(Ordering::Relaxed) {
                let opened = Instant::now();
                let mut stream = tunnel(outbound)?;
                // By the clock and not by a number of pings: those take longer where there is little CPU.
                while opened.elapsed() < TUNNEL_LASTS {
                    let failed = |error: std::io::Error| {
                        format!("a ping {:?} after the call: {error}", opened.elapsed())
                    };
                    ping(&mut stream).map_err(failed)?;
                    pings += 1;
                    wait::pass(PAUSE);
                }
            }
            Ok::<_, String>(pings)
        });
        let begun = Instant::now();
        let working = stop.at_end();
        while begun.elapsed() < time && !kept.is_finished() && !opaque.is_finished() {
            wait::pass(Duration::from_millis(100));
        }
        drop(working);
        let mut answers = kept.join().expect("a thread").expect("answers");
        answers.extend(fresh.join().expect("a thread").expect("answers"));
        answers.extend(crowd.join().expect("a thread").expect("answers"));
        let pings = opaque.join().expect("a thread");
        (answers, pings.expect("every ping comes back"))
    });
    let lanes = Metrics::of(sidecars[0]).sum("ringmesh_lanes_opened_total");
    assert!(lanes > 0, "nothing went over lanes");
    if let Some(interop) = interop {
        let (calls, messages) = interop.end();
        println!("{calls} calls of gRPC, {messages} messages of streams");
        assert!(calls > 0 && messages > 0);
    }
    let since = |name: &str, before: [u64; 3]| {
        let now = sums(name);
        [0, 1, 2].map(|at| now[at] - before[at])
    };
    let renewed = since("ringmesh_svid_renewals_total", renewed);
    let handshakes = since("ringmesh_tls_handshakes_total", handshakes);
    println!(
        "{life_s} s certificates for {time:?}: {}; {pings} pings; renewals {renewed:?}, handshakes {handshakes:?}",
        statuses(&answers)
    );
    assert_eq!(
        with_status(&answers, 200) as usize,
        answers.len(),
        "{}",
        statuses(&answers)
    );
    assert!(!answers.is_empty() && pings > 0);
    assert_eq!(since("ringmesh_connections_refused_total", refused), [0; 3]);
    assert_eq!(since("ringmesh_retries_total", retried), [0; 3]);
    // Due at half of their life; on a busy host each may come late by half as much again. Fewer would leave a
    // certificate so little that the next delay ends it.
    let due = time.as_secs() * 2 / life_s;
    for count in renewed {
        assert!(count >= due * 2 / 3, "{renewed:?}, of {due} due");
    }
    // Connections are renewed with their certificates; the caller has no callers.
    assert!(handshakes[1] > 0 && handshakes[2] > 0, "{handshakes:?}");
}

/// A server of gRPC in the mesh, and a client that calls it until it is told to end.
struct Interop {
    _server: Server,
    _sidecar: Sidecar,
    client: Child,
}

impl Interop {
    fn start(mesh: &Mesh, outbound: SocketAddr) -> Self {
        let server = Server::grpcio();
        let (_, sidecar) = mesh.serve("interop", server.address, "{name: grpc, port: 9090,");
        wait::until("a call of gRPC", SOON, || {
            let mut client = Self::client(outbound);
            drop(client.stdin.take());
            match client.wait() {
                Ok(status) if status.success() => Ok(()),
                other => Err(format!("{other:?}")),
            }
        })
        .expect("the sidecars have heard of each other");
        Self {
            _server: server,
            _sidecar: sidecar,
            client: Self::client(outbound),
        }
    }

    fn client(outbound: SocketAddr) -> Child {
        Command::new(grpc_python())
            .arg(repository("tests/clients/grpc_paced.py"))
            .args([&outbound.to_string(), "interop:9090"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python")
    }

    /// Calls and messages that went well: all of them.
    fn end(mut self) -> (u64, u64) {
        drop(self.client.stdin.take());
        let output = self.client.wait_with_output().expect("its output");
        assert!(output.status.success(), "a call failed, as said above");
        let said = String::from_utf8_lossy(&output.stdout);
        let (calls, messages) = said.trim().split_once(' ').expect("two numbers");
        (
            calls.parse().expect("a number"),
            messages.parse().expect("a number"),
        )
    }
}

fn paced<T>(stop: &Stop, work: impl Fn() -> Result<Vec<T>, String>) -> Result<Vec<T>, String> {
    let mut all = Vec::new();
    while !stop.flag().load(Ordering::Relaxed) {
        all.extend(work()?);
        wait::pass(PAUSE);
    }
    Ok(all)
}
