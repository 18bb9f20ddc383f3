//! A sidecar that has nothing to do does nothing.

use std::time::{Duration, Instant};

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::ports::free_port;
use ringmesh_tests::upstream::Upstream;
use ringmesh_tests::{Conn, SOON, get, stage, wait};

use crate::standalone::{LOCAL, run_with};
use crate::watched::Watched;

/// Name of the first shard's threads.
const SHARD: &str = "shard-0-1";
/// How long it is watched.
const WATCHED: Duration = Duration::from_secs(3);

#[test]
fn an_idle_shard_is_not_woken_and_counts_again_when_it_is_used() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let (stage, upstream) = (stage(), Upstream::impatient(LOCAL));
    let admin = (LOCAL, free_port()).into();
    let (process, port) = run_with(
        &stage,
        "standalone",
        &upstream,
        "http",
        &[("ADMIN", &format!("{admin}"))],
    );
    let log = stage.dir().join("standalone/access.log");
    let watched = Watched::of(process.pid(), admin, log);
    // What follows the start takes a moment to be over.
    let (woken, agent) = wait::until("a quiet time", SOON, || {
        let begun = Instant::now();
        let before = (watched.wake_ups(SHARD), watched.wake_ups("ringmesh-proxy"));
        wait::until_after(begun, WATCHED);
        let woken = watched.wake_ups(SHARD) - before.0;
        let agent = watched.wake_ups("ringmesh-proxy") - before.1;
        if woken == 0 {
            Ok((woken, agent))
        } else {
            Err(format!("{woken} wake-ups"))
        }
    })
    .expect("an idle shard sleeps");
    assert_eq!(woken, 0);
    assert!(
        agent <= 2 * WATCHED.as_secs(),
        "the agent woke {agent} times in {WATCHED:?}"
    );

    // It was not asked for its figures; they come all the same.
    for n in 1..=3 {
        let answer = get((LOCAL, port).into(), "any.example", "/bytes/1", &[], SOON);
        assert_eq!(answer.expect("answer").status, 200);
        assert_eq!(watched.requests_once_logged_as(n, SOON), n);
    }
}

/// Memory an idle connection may hold in an unoptimised build, KiB; 14 before connections were
/// parked.
const IDLE_CONN_KIB_MAX: u64 = 4;
/// What the sidecar may have grown besides, KiB: pages touched for the first time.
const BESIDES_KIB_MAX: u64 = 1024;

#[test]
fn an_idle_connection_holds_little() {
    const CONNS: u64 = 400;
    if !has(&[Ability::Uring]) {
        return;
    }
    let (stage, upstream) = (stage(), Upstream::impatient(LOCAL));
    let (process, port) = run_with(&stage, "standalone", &upstream, "http", &[]);
    let to = (LOCAL, port).into();
    let log = stage.dir().join("standalone/access.log");
    let watched = Watched::of(process.pid(), to, log);
    // Else a page touched here and there would cost 2 MiB where the system gives them to everybody.
    assert!(!watched.takes_huge_pages());
    // What the first request touches is not the connections'.
    assert_eq!(
        get(to, "any.example", "/bytes/1", &[], SOON)
            .expect("first")
            .status,
        200
    );
    let before = watched.resident_kib();
    let mut idle: Vec<Conn> = (0..CONNS)
        .map(|_| {
            let mut conn = Conn::open(to, SOON).expect("connect");
            let answer = conn.get("any.example", "/bytes/1", &[]).expect("answer");
            assert_eq!(answer.status, 200);
            conn
        })
        .collect();
    let most = before + CONNS * IDLE_CONN_KIB_MAX + BESIDES_KIB_MAX;
    wait::until("idle connections to hold little", SOON, || {
        match watched.resident_kib() {
            now if now <= most => Ok(()),
            now => Err(format!(
                "{CONNS} connections hold {} KiB",
                now.saturating_sub(before)
            )),
        }
    })
    .expect("little memory");
    // Parked is not closed.
    for conn in &mut idle {
        let answer = conn.get("any.example", "/bytes/1", &[]).expect("answer");
        assert_eq!(answer.status, 200);
    }
}
