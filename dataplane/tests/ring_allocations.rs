//! In steady state the ring allocates nothing: not per receive, not per send, not per timer.
//!
//! It does where more is under way at once than ever before (a send borrows a box, and boxes are kept
//! for the next). So one thread plays both sides: from the first round on, all connections talk at
//! once, and no scheduler decides in which round they do so first.

#![expect(clippy::unwrap_used, reason = "a test fails where it cannot go on")]

use std::future::Future;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use ringmesh_dataplane::ring::{ListenOptions, Listener, Out, Park, Ring, RingPlan, Socket};

const WARM_UP: u32 = 1000;
/// Of both connections together.
const ROUND_TRIPS: u32 = 10_000;
/// Small enough to arrive in one piece.
const MESSAGE_BYTES: [usize; 2] = [100, 1000];

/// Answers like a proxy does: a head from the pool, the body as it was received, an idle timer.
async fn serve(ring: Ring, socket: Socket) {
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
    }
}

struct Client {
    stream: TcpStream,
    message: Vec<u8>,
    answer: Vec<u8>,
    read: usize,
}

impl Client {
    fn connect(to: SocketAddr, message_bytes: usize) -> Self {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_nonblocking(true).unwrap();
        Self {
            stream,
            message: vec![b'x'; message_bytes],
            answer: vec![0; message_bytes + 5],
            read: 0,
        }
    }

    fn ask(&mut self) {
        self.stream.write_all(&self.message).unwrap();
        self.read = 0;
    }

    fn is_answered(&mut self) -> bool {
        match self.stream.read(&mut self.answer[self.read..]) {
            Ok(bytes) => {
                assert_ne!(bytes, 0, "closed");
                self.read += bytes;
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
        self.read == self.answer.len()
    }
}

/// Every client asks, and every one is answered.
fn round(ring: &Ring, clients: &mut [Client]) {
    for client in &mut *clients {
        client.ask();
    }
    for client in clients {
        while !client.is_answered() {
            ring.turn(Park::No);
        }
        assert_eq!(client.answer[5..], client.message);
    }
}

#[test]
fn ten_thousand_round_trips_allocate_nothing() {
    let ring = Ring::new(&RingPlan::default()).unwrap();
    let any = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(&ring, any, &ListenOptions::default()).unwrap();
    let to = listener.local_addr();
    let inner = ring.clone();
    assert!(ring.spawn(async move {
        while let Ok(socket) = listener.accept().await {
            assert!(inner.spawn(serve(inner.clone(), socket)));
        }
    }));
    let mut clients = MESSAGE_BYTES.map(|bytes| Client::connect(to, bytes));
    for _ in 0..WARM_UP {
        round(&ring, &mut clients);
    }
    let allocated = allocation_counter::measure(|| {
        for _ in 0..ROUND_TRIPS / 2 {
            round(&ring, &mut clients);
        }
    });
    drop(clients);
    ring.close();
    assert_eq!(allocated.count_total, 0, "{allocated:?}");
}
