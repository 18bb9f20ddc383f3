//! The ring over a fake kernel: whole networks in one thread, repeatable by their seeds.

use super::faults::nothing_is_left;
use super::*;
use crate::ring::Weather;
use crate::time::Mono;

/// Peers that talk at once.
const PEERS: usize = 4;

fn world(seed: u64, weather: Option<Weather>) -> TestRing {
    ring_with(&RingPlan {
        simulated: Some(seed),
        weather,
        // Few, so that buffers run out by themselves as well; but both ends of a connection take theirs
        // from here, and with fewer a sender may hold what its receiver waits for.
        heads: GroupPlan { start: 4, max: 64 },
        bulk: GroupPlan { start: 2, max: 16 },
        zero_copy_min_bytes: (seed % 2 == 1).then_some(1),
        ..RingPlan::default()
    })
}

/// What a peer sent, and what came back of it.
type Talked = (Vec<u8>, std::io::Result<Vec<u8>>);

/// Connects, sends everything in uneven pieces and reads it back at the same time.
async fn talk(ring: Ring, to: SocketAddr, seed: u64) -> Talked {
    let mut rng = fastrand::Rng::with_seed(seed);
    let sent = pattern(rng.usize(1..200_000));
    let socket = match Socket::connect(&ring, to).await {
        Ok(socket) => socket,
        Err(error) => return (sent, Err(error)),
    };
    let say = async {
        let mut rest = &sent[..];
        while !rest.is_empty() {
            let (piece, more) = rest.split_at(rng.usize(1..=rest.len().min(16_000)));
            let Some(mut buf) = ring.buf() else {
                ring.sleep_until(ring.now().plus_ms(1)).await;
                continue;
            };
            buf.extend_from_slice(piece).unwrap();
            if socket.send(buf.freeze().into()).await.is_err() {
                return;
            }
            rest = more;
        }
        socket.shutdown_write();
    };
    let mut heard = std::pin::pin!(drain(&socket));
    // Nobody says more to whom he cannot hear any more.
    let came = tokio::select! {
        biased;
        came = &mut heard => came,
        () = say => heard.await,
    };
    (sent, came)
}

/// What all peers of an echo in a world had, and the world's history.
fn echoes(seed: u64, weather: Option<Weather>) -> (Vec<Talked>, u64) {
    let ring = world(seed, weather);
    let to = echo_server(&ring);
    let talked = Rc::new(RefCell::new(Vec::new()));
    for peer in 0..PEERS {
        let talk = talk(ring.clone(), to, seed * 100 + peer as u64);
        let talked = Rc::clone(&talked);
        assert!(ring.spawn(async move {
            let this = talk.await;
            talked.borrow_mut().push(this);
        }));
    }
    until(&ring, || talked.borrow().len() == PEERS);
    nothing_is_left(&ring, seed);
    let history = ring.network().unwrap().history();
    (talked.take(), history)
}

#[test]
fn every_byte_arrives_in_its_place() {
    for seed in 0..100 {
        let weather = (seed % 3 > 0).then_some(Weather::Windy(seed));
        for (sent, came) in echoes(seed, weather).0 {
            assert!(came.unwrap() == sent, "seed {seed}");
        }
    }
}

#[test]
fn in_a_storm_what_arrives_is_a_beginning_and_nothing_hangs() {
    let (mut whole, mut broken) = (0, 0);
    for seed in 0..100 {
        for (sent, came) in echoes(seed, Some(Weather::Stormy(seed))).0 {
            match came {
                Ok(came) if came == sent => whole += 1,
                came => {
                    let came = came.unwrap_or_default();
                    assert!(sent.starts_with(&came), "seed {seed}: not a beginning");
                    broken += 1;
                }
            }
        }
    }
    assert!(whole > 20 && broken > 20, "{whole} whole, {broken} broken");
}

#[test]
fn a_seed_is_one_history() {
    for seed in 0..20 {
        let (_, first) = echoes(seed, Some(Weather::Stormy(seed)));
        let (_, second) = echoes(seed, Some(Weather::Stormy(seed)));
        let (_, other) = echoes(seed + 1_000, Some(Weather::Stormy(seed)));
        assert_eq!(first, second, "seed {seed}");
        assert_ne!(first, other, "seed {seed}");
    }
}

#[test]
fn a_year_passes_at_once() {
    const YEAR_MS: u64 = 365 * 24 * 3_600_000;
    let ring = world(1, None);
    let inner = ring.clone();
    let wake = ring.now().plus_ms(YEAR_MS);
    let woken = Rc::new(std::cell::Cell::new(Mono(0)));
    let told = Rc::clone(&woken);
    assert!(ring.spawn(async move {
        inner.sleep_until(wake).await;
        told.set(inner.now());
    }));
    while woken.get() == Mono(0) {
        let _ = ring.turn(Park::Free);
    }
    assert!(woken.get() >= wake && woken.get() <= wake.plus_ms(2));
}

#[test]
fn nobody_listens_nobody_connects() {
    let ring = world(1, None);
    let inner = ring.clone();
    let to = "10.0.0.1:80".parse().unwrap();
    let failed = drive(&ring, async move { Socket::connect(&inner, to).await });
    let error = failed.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    until(&ring, || ring.conns() == 0);
    assert_eq!(ring.network().unwrap().links(), 0);
}
