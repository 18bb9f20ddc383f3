//! `examples/pair/run`: two sidecars with mutual TLS between them, bodies as in a direct call.

use std::net::SocketAddr;

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::ports::free_port;
use ringmesh_tests::upstream::Upstream;
use ringmesh_tests::{Conn, SOON, stage, wait};

use crate::standalone::{
    LOCAL, http_bodies_are_identical, opaque_bytes_are_identical, run, run_patiently, run_with,
};
use crate::watched::Metrics;

#[test]
fn http_bodies_through_the_pair_are_identical() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let (stage, upstream) = (stage(), Upstream::http(LOCAL));
    let (mut process, port) = run_patiently(&stage, "pair", &upstream, "http");
    http_bodies_are_identical(port, &upstream);
    // TERM ends the children too: their pids were printed after `ready`.
    let log = process.log();
    let mut lines = log.lines().skip_while(|line| *line != "ready").skip(1);
    let pids: Vec<String> = lines
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .map(str::to_owned)
        .collect();
    assert_eq!(pids.len(), 2, "{log}");
    assert_eq!(process.stop().expect("TERM ends it").code(), Some(0));
    for pid in pids {
        let comm = format!("/proc/{pid}/comm");
        wait::until_true(&format!("the end of {pid}"), SOON, || {
            !std::fs::read_to_string(&comm).is_ok_and(|name| name.starts_with("ringmesh"))
        })
        .expect("ended");
    }
}

/// Sixty-four at once: they share connections, each gets its own answers, bodies above a lane's window
/// included, and both sidecars count the same.
#[test]
fn many_clients_of_the_pair_share_connections_and_get_their_own_answers() {
    const CLIENTS: u64 = 64;
    const ROUNDS: u64 = 30;
    if !has(&[Ability::Uring]) {
        return;
    }
    let (stage, upstream) = (stage(), Upstream::http(LOCAL));
    let admins = [free_port(), free_port()].map(|port| SocketAddr::from((LOCAL, port)));
    let [caller, callee] = admins.map(|admin| admin.to_string());
    let set = [("CALLER_ADMIN", &*caller), ("CALLEE_ADMIN", &*callee)];
    let (_process, port) = run_with(&stage, "pair", &upstream, "http", &set);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let mut conn = Conn::open((LOCAL, port).into(), SOON).expect("connect");
                for round in 0..ROUNDS {
                    let len = match (client + round) % 10 {
                        0 => 200_000 + client,
                        _ => 100 + client,
                    };
                    let path = format!("/bytes/{len}");
                    let answer = conn.get("any.example", &path, &[]).expect("answer");
                    assert_eq!((answer.status, answer.body.len() as u64), (200, len));
                }
            });
        }
    });
    for admin in admins {
        wait::until("all are counted", SOON, || {
            match Metrics::of(admin).sum("ringmesh_requests_total") {
                counted if counted == CLIENTS * ROUNDS => Ok(()),
                counted => Err(format!("{counted}")),
            }
        })
        .expect("counted");
    }
    let metrics = Metrics::of(admins[1]);
    let lanes = metrics.sum("ringmesh_lanes_accepted_total");
    let connections = metrics.sum("ringmesh_tls_handshakes_total");
    assert!(lanes > 0, "nobody shared");
    assert!(
        connections < CLIENTS / 2,
        "{connections} connections, {lanes} lanes"
    );
}

#[test]
fn opaque_bytes_through_the_pair_are_identical() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let (stage, upstream) = (stage(), Upstream::echo(LOCAL));
    let (_process, port) = run(&stage, "pair", &upstream, "tcp");
    opaque_bytes_are_identical(port);
}
