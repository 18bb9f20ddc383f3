//! `examples/pair/run`: two sidecars with mutual TLS between them, bodies as in a direct call.

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::upstream::Upstream;
use ringmesh_tests::{SOON, stage, wait};

use crate::standalone::{LOCAL, http_bodies_are_identical, opaque_bytes_are_identical, run};

#[test]
fn http_bodies_through_the_pair_are_identical() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let (stage, upstream) = (stage(), Upstream::http(LOCAL));
    let (mut process, port) = run(&stage, "pair", &upstream, "http");
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

#[test]
fn opaque_bytes_through_the_pair_are_identical() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let (stage, upstream) = (stage(), Upstream::echo(LOCAL));
    let (_process, port) = run(&stage, "pair", &upstream, "tcp");
    opaque_bytes_are_identical(port);
}
