//! Rough traffic for a time: churn, resets, slow readers, uploads that break off, upgrades and tunnels,
//! an upstream that closes idle connections and resets answers. Then nothing may have grown, and every
//! count must agree with every other.
//!
//! `make test` soaks for ten seconds; `make soak` sets `RINGMESH_SOAK_SECONDS`.

mod certificates;
mod clients;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::ports::free_port;
use ringmesh_tests::upstream::Upstream;
use ringmesh_tests::{SOON, stage, wait};

use crate::standalone::{LOCAL, run_with};
use crate::watched::Watched;
use clients::{Seen, Soaking};

/// Resident memory may differ this much between the first third and the end, KiB: buffers that
/// happen to be in use, pages the allocator keeps.
const GROWTH_KIB_MAX: u64 = 8 * 1024;

/// How long to soak; `None` in `make test`.
fn asked_for() -> Option<Duration> {
    let text = std::env::var("RINGMESH_SOAK_SECONDS").ok()?;
    let seconds = text.parse().expect("RINGMESH_SOAK_SECONDS: a number");
    Some(Duration::from_secs(seconds))
}

#[test]
fn rough_traffic_leaves_nothing_behind_and_all_counts_agree() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let time = asked_for().unwrap_or(Duration::from_secs(10));
    let (stage, upstream) = (stage(), Upstream::impatient(LOCAL));
    let admin = (LOCAL, free_port()).into();
    let (mut process, port) = run_with(
        &stage,
        "standalone",
        &upstream,
        "http",
        &[("ADMIN", &format!("{admin}"))],
    );
    let to = (LOCAL, port).into();
    let watched = Watched::of(
        process.pid(),
        admin,
        stage.dir().join("standalone/access.log"),
    );
    let at_rest = watched.descriptors();

    let stop = Arc::new(AtomicBool::new(false));
    let clients = Soaking::start(to, &stop);
    let (start, third) = (Instant::now(), time / 3);
    wait::until_after(start, third);
    let early = watched.resident_kib();
    let mut told = Instant::now();
    while start.elapsed() < time {
        wait::pass(Duration::from_millis(100).min(time.saturating_sub(start.elapsed())));
        assert!(process.runs(), "the sidecar ended");
        if told.elapsed() >= Duration::from_secs(30) {
            told = Instant::now();
            let (fds, kib) = (watched.descriptors(), watched.resident_kib());
            println!(
                "{:>4} s: {fds} descriptors, {kib} KiB",
                start.elapsed().as_secs()
            );
        }
    }
    let late = watched.resident_kib();
    stop.store(true, Ordering::Relaxed);
    let seen: Seen = clients.join();
    println!("{seen:?}; resident {early} KiB after a third, {late} KiB at the end");

    // Whoever behaved was served, whatever the others did.
    assert_eq!(seen.wrong, Vec::<String>::new());
    assert!(seen.good >= 100, "{seen:?}");
    assert!(
        late <= early + GROWTH_KIB_MAX,
        "resident memory grew from {early} to {late} KiB"
    );
    // All connections are gone, on both sides.
    watched.wait_for_descriptors(at_rest);
    // One log line per counted request, and no whole answer without one.
    let counted = watched.requests_once_logged(SOON);
    assert!(
        counted >= seen.good + seen.cut && counted <= seen.begun,
        "{counted} requests counted; {seen:?}"
    );
    assert_eq!(watched.lost_log_lines(), 0);
    assert_eq!(process.stop().expect("TERM ends it").code(), Some(0));
}
