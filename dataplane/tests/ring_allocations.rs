//! In steady state the ring allocates nothing: not per receive, not per send, not per timer.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::cell::Cell;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use ringmesh_dataplane::ring::{ListenOptions, Listener, Out, Park, Ring, RingPlan, Socket};

const WARM_UP: u32 = 1000;
const ROUND_TRIPS: u32 = 10_000;

/// Answers like a proxy does: a head from the pool, the body as it was received, an idle timer.
async fn serve(ring: Ring, socket: Socket, served: Rc<Cell<u32>>) {
    loop {
        let mut idle = std::pin::pin!(ring.sleep_until(ring.now().plus_ms(15_000)));
        let mut recv = std::pin::pin!(socket.recv());
        let received = std::future::poll_fn(|cx| {
            if let std::task::Poll::Ready(received) = recv.as_mut().poll(cx) {
                return std::task::Poll::Ready(Some(received));
            }
            idle.as_mut().poll(cx).map(|()| None)
        });
        let Some(Ok(body)) = received.await else {
            return;
        };
        if body.is_empty() {
            return;
        }
        let mut head = ring.buf().unwrap();
        head.extend_from_slice(b"head:").unwrap();
        socket.send(Out::pair(head, body)).await.unwrap();
        served.set(served.get() + 1);
    }
}

fn talk(to: SocketAddr, message: Vec<u8>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(60)))
            .unwrap();
        let mut back = vec![0; message.len() + 5];
        for _ in 0..WARM_UP + ROUND_TRIPS {
            stream.write_all(&message).unwrap();
            stream.read_exact(&mut back).unwrap();
            assert_eq!(&back[5..], message);
        }
    })
}

fn turn_until(ring: &Ring, served: &Cell<u32>, count: u32) {
    while served.get() < count {
        ring.turn(Park::Until(ring.now().plus_ms(100)));
    }
}

#[test]
fn ten_thousand_round_trips_allocate_nothing() {
    let ring = Ring::new(&RingPlan::default()).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(&ring, any, &ListenOptions::default()).unwrap();
    let to = listener.local_addr();
    let served = Rc::new(Cell::new(0));
    let (inner, count) = (ring.clone(), Rc::clone(&served));
    assert!(ring.spawn(async move {
        while let Ok(socket) = listener.accept().await {
            assert!(inner.spawn(serve(inner.clone(), socket, Rc::clone(&count))));
        }
    }));
    // Small enough to arrive in one piece.
    let talks = [100, 1000].map(|len| talk(to, vec![b'x'; len]));
    turn_until(&ring, &served, 2 * WARM_UP);
    let allocated = allocation_counter::measure(|| {
        turn_until(&ring, &served, 2 * (WARM_UP + ROUND_TRIPS));
    });
    for talk in talks {
        while !talk.is_finished() {
            ring.turn(Park::Until(ring.now().plus_ms(10)));
        }
        talk.join().unwrap();
    }
    ring.close();
    assert_eq!(allocated.count_total, 0, "{allocated:?}");
}
