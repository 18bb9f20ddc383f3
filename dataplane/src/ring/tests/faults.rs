//! The ring in bad weather: no byte is lost, doubled or out of place, and nothing hangs.

use super::super::groups::Size;
use super::*;
use crate::ring::Weather;

/// Peers that talk at once.
pub(super) const PEERS: usize = 6;

pub(super) fn ring_in(weather: Weather) -> TestRing {
    ring_with(&plan_in(weather))
}

fn plan_in(weather: Weather) -> RingPlan {
    RingPlan {
        weather: Some(weather),
        // Few, so that buffers run out by themselves as well.
        heads: GroupPlan { start: 4, max: 8 },
        bulk: GroupPlan { start: 2, max: 4 },
        ..RingPlan::default()
    }
}

/// As [`ring_in`], with every send tried without a copy.
fn lending_ring_in(weather: Weather) -> TestRing {
    ring_with(&RingPlan {
        zero_copy_min_bytes: Some(1),
        ..plan_in(weather)
    })
}

/// Sends everything in uneven pieces while reading it back; what came back.
pub(super) fn talk_unevenly(
    seed: u64,
) -> impl FnOnce(TcpStream) -> (Vec<u8>, std::io::Result<Vec<u8>>) {
    move |stream| {
        let mut rng = fastrand::Rng::with_seed(seed);
        let sent = pattern(rng.usize(1..200_000));
        let came = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut rest = &sent[..];
                while !rest.is_empty() {
                    let (piece, more) = rest.split_at(rng.usize(1..=rest.len().min(20_000)));
                    if (&stream).write_all(piece).is_err() {
                        return;
                    }
                    rest = more;
                }
                let _ = stream.shutdown(std::net::Shutdown::Write);
            });
            read_all(&stream)
        });
        (sent, came)
    }
}

#[test]
fn in_wind_every_byte_arrives_in_its_place() {
    every_byte_arrives_in_wind(ring_in);
}

#[test]
fn in_wind_every_byte_arrives_without_copies_too() {
    every_byte_arrives_in_wind(lending_ring_in);
}

fn every_byte_arrives_in_wind(ring_in: fn(Weather) -> TestRing) {
    let mut refused = 0;
    for seed in 0..40 {
        let ring = ring_in(Weather::Windy(seed));
        let to = echo_server(&ring);
        let peers: Vec<_> = (0..PEERS)
            .map(|peer| client(to, talk_unevenly(seed * 100 + peer as u64)))
            .collect();
        for peer in peers {
            let (sent, came) = join(&ring, peer);
            assert!(came.unwrap() == sent, "seed {seed}");
        }
        refused += ring.core.faults.made();
        nothing_is_left(&ring, seed);
    }
    assert!(refused > 300, "only {refused} operations were refused");
}

#[test]
fn in_a_storm_what_arrives_is_a_beginning_and_nothing_hangs() {
    what_arrives_in_a_storm_is_a_beginning(ring_in);
}

#[test]
fn in_a_storm_what_arrives_without_copies_is_a_beginning_too() {
    what_arrives_in_a_storm_is_a_beginning(lending_ring_in);
}

/// Every connection has ended, and no buffer is in use or lent.
pub(super) fn nothing_is_left(ring: &Ring, seed: u64) {
    until(ring, || {
        ring.conns() == 0 && ring.core.zero_copy.lent_bytes() == 0
    });
    for size in [Size::Heads, Size::Bulk] {
        assert_eq!(ring.core.group(size).pool().out(), 0, "seed {seed}");
    }
}

fn what_arrives_in_a_storm_is_a_beginning(ring_in: fn(Weather) -> TestRing) {
    let (mut whole, mut broken) = (0, 0);
    for seed in 0..12 {
        let ring = ring_in(Weather::Stormy(seed));
        let to = echo_server(&ring);
        let peers: Vec<_> = (0..PEERS)
            .map(|peer| client(to, talk_unevenly(seed * 100 + peer as u64)))
            .collect();
        for peer in peers {
            match join(&ring, peer) {
                (sent, Ok(came)) if came.len() == sent.len() => {
                    assert!(came == sent, "seed {seed}");
                    whole += 1;
                }
                (sent, came) => {
                    let came = came.unwrap_or_default();
                    assert!(sent.starts_with(&came), "seed {seed}: not a beginning");
                    broken += 1;
                }
            }
        }
        nothing_is_left(&ring, seed);
    }
    assert!(whole > 0 && broken > 0, "{whole} whole, {broken} broken");
}

#[test]
fn connecting_in_a_storm_ends_one_way_or_the_other() {
    let (mut made, mut failed) = (0, 0);
    for seed in 0..100 {
        let ring = ring_in(Weather::Stormy(seed));
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to = server.local_addr().unwrap();
        let inner = ring.clone();
        match drive(
            &ring,
            async move { Socket::connect(&inner, to).await.map(drop) },
        ) {
            Ok(()) => made += 1,
            Err(_) => failed += 1,
        }
        until(&ring, || ring.conns() == 0);
    }
    assert!(made > 0 && failed > 0, "{made} made, {failed} failed");
}
