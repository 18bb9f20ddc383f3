//! Splicing: every byte in its place, in any weather, and the sockets as before afterwards.

use super::faults::{PEERS, ring_in, talk_unevenly};
use super::*;
use crate::ring::Weather;

/// Sends everything back where it came from by splicing, to the end.
async fn spliced_echo(socket: Socket) -> std::io::Result<u64> {
    let mut bytes = 0;
    socket.hold().await;
    let mut splice = Splice::start(&socket, &socket)?;
    loop {
        match splice.step().await? {
            Spliced::Bytes(moved) => bytes += u64::from(moved),
            Spliced::End => break,
            // In bad weather, for a moment; here there is no other way to go on.
            Spliced::NoPipe => {}
        }
    }
    drop(splice);
    socket.shutdown_write();
    Ok(bytes)
}

fn spliced_echo_server(ring: &Ring) -> SocketAddr {
    let listener = listen(ring);
    let at = listener.local_addr();
    let inner = ring.clone();
    assert!(ring.spawn(async move {
        while let Ok(socket) = listener.accept().await {
            assert!(inner.spawn(async {
                let _ = spliced_echo(socket).await;
            }));
        }
    }));
    at
}

#[test]
fn spliced_bytes_arrive_in_their_places_in_any_wind() {
    let mut refused = 0;
    for seed in 0..24 {
        let ring = ring_in(Weather::Windy(seed));
        let to = spliced_echo_server(&ring);
        let peers: Vec<_> = (0..PEERS)
            .map(|peer| client(to, talk_unevenly(seed * 100 + peer as u64)))
            .collect();
        for peer in peers {
            let (sent, came) = join(&ring, peer);
            assert!(came.unwrap() == sent, "seed {seed}");
        }
        until(&ring, || ring.conns() == 0);
        refused += ring.core.faults.made();
    }
    assert!(refused > 100, "only {refused} operations were refused");
}

#[test]
fn in_a_storm_spliced_bytes_are_a_beginning_and_nothing_hangs() {
    let (mut whole, mut broken) = (0, 0);
    for seed in 0..12 {
        let ring = ring_in(Weather::Stormy(seed));
        let to = spliced_echo_server(&ring);
        let peers: Vec<_> = (0..PEERS)
            .map(|peer| client(to, talk_unevenly(seed * 100 + peer as u64)))
            .collect();
        for peer in peers {
            let (sent, came) = join(&ring, peer);
            let came = came.unwrap_or_default();
            assert!(sent.starts_with(&came), "seed {seed}: not a beginning");
            if came.len() == sent.len() {
                whole += 1;
            } else {
                broken += 1;
            }
        }
        until(&ring, || ring.conns() == 0);
    }
    assert!(whole > 0 && broken > 0, "{whole} whole, {broken} broken");
}

#[test]
fn a_splice_is_an_episode_between_ordinary_receives() {
    let ring = ring();
    let listener = listen(&ring);
    let talk = client(listener.local_addr(), |stream| {
        let mut back = [0; 5];
        for word in [b"first", b"other", b"third"] {
            write_all(&stream, word);
            (&stream).read_exact(&mut back).unwrap();
            assert_eq!(&back, word);
        }
    });
    drive(&ring, async move {
        let socket = listener.accept().await.unwrap();
        let chunk = socket.recv().await.unwrap();
        socket.send(chunk.into()).await.unwrap();
        // Held with a receive in flight: what it still brings is not lost.
        socket.hold().await;
        assert!(
            socket
                .try_recv()
                .is_none_or(|more| !more.unwrap().is_empty())
        );
        socket.flush().await.unwrap();
        let mut splice = Splice::start(&socket, &socket).unwrap();
        assert_eq!(splice.step().await.unwrap(), Spliced::Bytes(5));
        drop(splice);
        let chunk = socket.recv().await.unwrap();
        assert_eq!(&*chunk, b"third");
        socket.send(chunk.into()).await.unwrap();
        assert!(socket.recv().await.unwrap().is_empty());
    });
    join(&ring, talk);
}

#[test]
fn pipes_are_bounded_and_held_only_with_bytes_in_them() {
    let ring = ring_with(&RingPlan {
        pipes_max: 1,
        ..RingPlan::default()
    });
    let listener = listen(&ring);
    // One that never reads what comes back, until the only pipe is stuck with its bytes.
    let stuck = TcpStream::connect(listener.local_addr()).unwrap();
    let inner = ring.clone();
    let other = client(listener.local_addr(), |stream| {
        while (&stream).write_all(b"more").is_ok() && (&stream).read_exact(&mut [0; 4]).is_ok() {}
    });
    let flood = std::thread::spawn({
        let mut stuck = stuck.try_clone().unwrap();
        move || while stuck.write_all(&[1; 1 << 16]).is_ok() {}
    });
    drive(&ring, async move {
        let (one, two) = (
            listener.accept().await.unwrap(),
            listener.accept().await.unwrap(),
        );
        for socket in [&one, &two] {
            socket.hold().await;
        }
        let mut splices = [
            Splice::start(&one, &one).unwrap(),
            Splice::start(&two, &two).unwrap(),
        ];
        let mut refused = false;
        while !refused {
            for splice in &mut splices {
                let late = std::pin::pin!(inner.sleep_until(inner.now().plus_ms(100)));
                let step = crate::wait::or_timeout(splice.step(), late).await;
                refused |= matches!(step, Some(Ok(Spliced::NoPipe)));
                assert!(!matches!(step, Some(Err(_) | Ok(Spliced::End))), "{step:?}");
            }
        }
        drop(splices);
        one.reset();
        two.reset();
    });
    join(&ring, other);
    flood.join().unwrap();
    drop(stuck);
    until(&ring, || ring.conns() == 0);
}
