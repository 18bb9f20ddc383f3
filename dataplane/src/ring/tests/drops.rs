//! Futures dropped at any moment lose no bytes and free nothing early.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use super::*;

/// Polls a future once and drops it.
async fn glance<F: Future>(future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    poll_fn(move |cx| {
        Poll::Ready(match future.as_mut().poll(cx) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        })
    })
    .await
}

#[test]
fn a_receive_dropped_again_and_again_loses_nothing() {
    let ring = ring();
    let listener = listen(&ring);
    let sent = pattern(400_000);
    let copy = sent.clone();
    let talk = client(listener.local_addr(), move |stream| {
        write_all(&stream, &copy);
    });
    let inner = ring.clone();
    let got = drive(&ring, async move {
        let socket = listener.accept().await.unwrap();
        let mut all = Vec::new();
        loop {
            match glance(socket.recv()).await {
                None => inner.sleep_until(inner.now().plus_ms(1)).await,
                Some(chunk) => {
                    let chunk = chunk.unwrap();
                    if chunk.is_empty() {
                        return all;
                    }
                    all.extend_from_slice(&chunk);
                }
            }
        }
    });
    join(&ring, talk);
    assert!(got == sent);
}

#[test]
fn a_send_dropped_before_it_was_accepted_sends_nothing() {
    let ring = ring();
    let listener = listen(&ring);
    let stream = TcpStream::connect(listener.local_addr()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let inner = ring.clone();
    let accepted = drive(&ring, async move {
        let socket = listener.accept().await.unwrap();
        let mut accepted = 0_u32;
        let mut refused = 0;
        while refused < 100 {
            let mut buf = inner.buf().unwrap();
            buf.extend_from_slice(&accepted.to_be_bytes().repeat(1000))
                .unwrap();
            match glance(socket.send(buf.into())).await {
                Some(sent) => {
                    sent.unwrap();
                    accepted += 1;
                    refused = 0;
                }
                None => {
                    refused += 1;
                    inner.sleep_until(inner.now().plus_ms(1)).await;
                }
            }
        }
        accepted
    });
    let reader = std::thread::spawn(move || read_all(&stream).unwrap());
    let all = join(&ring, reader);
    assert_eq!(all.len(), accepted as usize * 4000);
    for (n, block) in all.chunks(4000).enumerate() {
        assert!(block.chunks(4).all(|word| word == (n as u32).to_be_bytes()));
    }
}

#[test]
fn buffers_in_flight_survive_everything_that_names_them() {
    let ring = ring();
    let listener = listen(&ring);
    let stream = TcpStream::connect(listener.local_addr()).unwrap();
    let inner = ring.clone();
    let accepted = drive(&ring, async move {
        let socket = listener.accept().await.unwrap();
        let mut accepted = 0;
        // Fill the connection until one send is stuck in flight; then socket, task and all go.
        loop {
            let mut buf = inner.buf().unwrap();
            buf.extend_from_slice(&[0xAB; 16_384]).unwrap();
            let mut waited = 0;
            let mut send = pin!(socket.send(buf.into()));
            while glance(send.as_mut()).await.is_none() {
                waited += 1;
                if waited == 20 {
                    return accepted;
                }
                inner.sleep_until(inner.now().plus_ms(1)).await;
            }
            accepted += 16_384;
        }
    });
    // Whoever takes the lent block now and scribbles on it would be seen by the peer.
    let mut scribbles: Vec<_> = (0..64).map(|_| ring.buf().unwrap()).collect();
    for buf in &mut scribbles {
        buf.extend_from_slice(&[0xCD; 16_384]).unwrap();
    }
    let reader = std::thread::spawn(move || read_all(&stream).unwrap());
    let all = join(&ring, reader);
    assert_eq!(all.len(), accepted);
    assert!(all.iter().all(|byte| *byte == 0xAB));
}

#[test]
fn a_dropped_connect_is_cancelled() {
    let ring = ring();
    // A listener with a full backlog does not answer: the connect stays in flight.
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let to = busy.local_addr().unwrap();
    let inner = ring.clone();
    drive(&ring, async move {
        for _ in 0..50 {
            drop(glance(Socket::connect(&inner, to)).await);
        }
    });
    until(&ring, || ring.conns() == 0);
}

#[test]
fn a_chunk_outlives_its_socket_and_its_ring_handle() {
    let ring = ring();
    let listener = listen(&ring);
    let stream = TcpStream::connect(listener.local_addr()).unwrap();
    write_all(&stream, b"to be kept");
    let chunk = drive(&ring, async move {
        let socket = listener.accept().await.unwrap();
        socket.recv().await.unwrap()
    });
    ring.close();
    drop(ring);
    assert_eq!(&*chunk, b"to be kept");
}

#[test]
fn a_listener_dropped_while_connections_wait_closes_them() {
    let ring = ring();
    let listener = listen(&ring);
    let streams: Vec<_> = (0..10)
        .map(|_| TcpStream::connect(listener.local_addr()).unwrap())
        .collect();
    drive(&ring, accept_then_drop(listener));
    let ends = std::thread::spawn(move || {
        for stream in streams {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let mut byte = [0];
            // Closed or reset, but ended.
            assert!(!matches!((&stream).read(&mut byte), Ok(1)));
        }
    });
    join(&ring, ends);
    until(&ring, || ring.conns() == 0);
}

async fn accept_then_drop(listener: Listener) {
    drop(listener.accept().await.unwrap());
}
