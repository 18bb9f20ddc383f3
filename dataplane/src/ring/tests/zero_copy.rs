//! Sends without a copy: every byte arrives, and every buffer comes home, whatever becomes of the
//! connection. On loopback the kernel copies at the receiver, so these say nothing about speed.

use super::super::groups::Size;
use super::*;
use crate::ring::zero_copy::{COPIES_MAX, LENT_BYTES_MAX, LENT_CONN_BYTES_MAX};

const FROM_BYTES: u32 = 8 * 1024;

fn plan() -> RingPlan {
    RingPlan {
        zero_copy_min_bytes: Some(FROM_BYTES),
        ..RingPlan::default()
    }
}

/// A ring that takes the kernel's reports of copies for the opposite, as on a network.
fn believing() -> TestRing {
    let ring = ring_with(&plan());
    ring.core.faults.spare_copies();
    ring
}

fn lent(ring: &Ring) -> usize {
    ring.core.zero_copy.lent_bytes()
}

/// Whether no buffer is used or lent.
fn all_home(ring: &Ring) -> bool {
    lent(ring) == 0
        && ring.core.ops.borrow().len() == 1
        && [Size::Heads, Size::Bulk].map(|size| ring.core.group(size).pool().out()) == [0, 0]
        && ring.core.bufs_out() == 0
}

fn filled(ring: &Ring, bytes: &[u8]) -> Buf {
    let mut buf = ring.buf().unwrap();
    buf.extend_from_slice(bytes).unwrap();
    buf
}

/// Sends all of `bytes`, `pieces` buffers at a time.
async fn send_all(
    ring: &Ring,
    socket: &Socket,
    bytes: &[u8],
    pieces: usize,
) -> std::io::Result<()> {
    let mut chunks = bytes.chunks(16 * 1024);
    loop {
        let mut out = Out::new();
        for chunk in chunks.by_ref().take(pieces) {
            out.push(filled(ring, chunk)).unwrap();
        }
        if out.is_empty() {
            return Ok(());
        }
        socket.send(out).await?;
    }
}

/// Sends without an end until no more is accepted: the peer does not read.
async fn send_until_stuck(ring: &Ring, socket: &Socket) {
    loop {
        let out = Out::pair(
            filled(ring, &[7; 16_384]),
            filled(ring, &[8; 16_384]).freeze(),
        );
        let send = std::pin::pin!(socket.send(out));
        let late = std::pin::pin!(ring.sleep_until(ring.now().plus_ms(100)));
        if crate::wait::or_timeout(send, late).await.is_none() {
            return;
        }
    }
}

fn listening(ring: &Ring) -> (Listener, SocketAddr) {
    let listener = listen(ring);
    let at = listener.local_addr();
    (listener, at)
}

#[test]
fn it_is_off_unless_asked_for() {
    let ring = ring();
    assert_eq!(ring.picked().send_zc, SendZc::Off);
    let ring = ring_with(&plan());
    assert_eq!(ring.picked().send_zc, SendZc::From(FROM_BYTES));
    assert!(
        ring.picked().to_string().ends_with("send_zc=from_8192"),
        "{}",
        ring.picked()
    );
}

#[test]
fn where_the_kernel_copies_it_is_given_up_and_every_byte_arrives() {
    let ring = ring_with(&plan());
    let (listener, at) = listening(&ring);
    let sent = pattern(200_000);
    // A connection is told once and copies from then on.
    for talk in 0..COPIES_MAX {
        assert_eq!(
            ring.picked().send_zc,
            SendZc::From(FROM_BYTES),
            "after {talk} connections"
        );
        let reader = client(at, |stream| read_all(&stream).unwrap());
        let socket = Rc::new(drive(&ring, accept_one(&listener)));
        let (inner, writer, copy) = (ring.clone(), Rc::clone(&socket), sent.clone());
        drive(&ring, async move {
            // One send, and when its report is here, others.
            let (first, rest) = copy.split_at(16_384);
            send_all(&inner, &writer, first, 1).await.unwrap();
            while lent(&inner) > 0 {
                inner.sleep_until(inner.now().plus_ms(1)).await;
            }
            assert!(writer.conn.copies.get(), "loopback copies");
            send_all(&inner, &writer, rest, 8).await.unwrap();
            assert_eq!(lent(&inner), 0);
        });
        drop(socket);
        assert!(join(&ring, reader) == sent);
    }
    assert_eq!(ring.picked().send_zc, SendZc::Copied);
    assert_eq!(ring.picked().send_zc.as_str(), "copied");
    let reader = client(at, |stream| read_all(&stream).unwrap());
    let socket = drive(&ring, accept_one(&listener));
    let (inner, copy) = (ring.clone(), sent.clone());
    drive(&ring, async move {
        send_all(&inner, &socket, &copy, 8).await.unwrap();
        assert_eq!(lent(&inner), 0);
    });
    assert!(join(&ring, reader) == sent);
    drop(listener);
    until(&ring, || all_home(&ring));
}

#[test]
fn gathered_and_single_buffers_arrive_whole_and_come_home() {
    let ring = believing();
    let (listener, at) = listening(&ring);
    for pieces in [1, 2, 8] {
        let sent = pattern(3_000_000 + pieces);
        let reader = client(at, |stream| read_all(&stream).unwrap());
        let socket = drive(&ring, accept_one(&listener));
        let (inner, copy) = (ring.clone(), sent.clone());
        let lent_most = drive(&ring, async move {
            let most = Rc::new(std::cell::Cell::new(0));
            for part in copy.chunks(128 * 1024) {
                send_all(&inner, &socket, part, pieces).await.unwrap();
                most.set(most.get().max(lent(&inner)));
            }
            most.get()
        });
        assert!(lent_most > 0, "nothing went without a copy");
        assert!(join(&ring, reader) == sent);
    }
    assert_eq!(ring.picked().send_zc, SendZc::From(FROM_BYTES));
    drop(listener);
    until(&ring, || all_home(&ring) && ring.conns() == 0);
}

#[test]
fn received_buffers_are_sent_on_without_a_copy() {
    let ring = believing();
    let at = echo_server(&ring);
    let sent = pattern(2_000_000);
    let copy = sent.clone();
    let talk = client(at, move |stream| {
        let writer = stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            write_all(&writer, &copy);
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let back = read_all(&stream).unwrap();
        writing.join().unwrap();
        back
    });
    assert!(join(&ring, talk) == sent);
    until(&ring, || ring.conns() == 0 && lent(&ring) == 0);
    assert_eq!(ring.core.group(Size::Heads).pool().out(), 0);
    assert_eq!(ring.core.group(Size::Bulk).pool().out(), 0);
}

#[test]
fn small_sends_copy() {
    let ring = believing();
    let (listener, at) = listening(&ring);
    let reader = client(at, |stream| read_all(&stream).unwrap());
    let socket = drive(&ring, accept_one(&listener));
    let inner = ring.clone();
    drive(&ring, async move {
        for _ in 0..100 {
            let out = Out::from(filled(&inner, &[1; FROM_BYTES as usize - 1]));
            socket.send(out).await.unwrap();
            assert_eq!(lent(&inner), 0);
        }
    });
    assert_eq!(join(&ring, reader).len(), 100 * (FROM_BYTES as usize - 1));
}

/// Slow readers hold what one of them may, and together what all of them may; then sends copy.
#[test]
fn what_is_lent_is_bounded_for_a_connection_and_for_the_ring() {
    let ring = believing();
    let (listener, at) = listening(&ring);
    let mut held = Vec::new();
    for _ in 0..8 {
        let stream = TcpStream::connect(at).unwrap();
        let socket = Rc::new(drive(&ring, accept_one(&listener)));
        let (inner, writer) = (ring.clone(), Rc::clone(&socket));
        drive(&ring, async move {
            send_until_stuck(&inner, &writer).await;
        });
        let of_conn = socket.conn.lent_bytes();
        assert!(of_conn <= LENT_CONN_BYTES_MAX, "{of_conn}");
        held.push((stream, socket));
    }
    let all: usize = held
        .iter()
        .map(|(_, socket)| socket.conn.lent_bytes())
        .sum();
    assert_eq!(all, lent(&ring));
    assert!(
        all > LENT_BYTES_MAX / 2 && all <= LENT_BYTES_MAX,
        "{all} bytes lent"
    );
    // All leave, some of them in order.
    for (at, (stream, socket)) in held.into_iter().enumerate() {
        match at % 4 {
            0 => socket.reset(),
            1 => socket.cutter().cut(),
            2 => drop(stream),
            _ => {}
        }
    }
    drop(listener);
    until(&ring, || ring.conns() == 0 && all_home(&ring));
}

/// Whoever takes a lent buffer and writes to it would be seen by the peer.
#[test]
fn lent_buffers_survive_their_socket() {
    let ring = believing();
    let (listener, at) = listening(&ring);
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let inner = ring.clone();
    let accepted = drive(&ring, async move {
        let socket = listener.accept().await.unwrap();
        let mut accepted = 0;
        // As much as is lent at once: none of these sends waits for the one before.
        for _ in 0..LENT_CONN_BYTES_MAX / (2 * 16_384) {
            let out = Out::pair(
                filled(&inner, &[0xAB; 16_384]),
                filled(&inner, &[0xAB; 16_384]).freeze(),
            );
            let send = std::pin::pin!(socket.send(out));
            let late = std::pin::pin!(inner.sleep_until(inner.now().plus_ms(100)));
            if crate::wait::or_timeout(send, late).await.is_none() {
                break;
            }
            accepted += 2 * 16_384;
        }
        accepted
    });
    assert_eq!(ring.conns(), 1, "the connection waits for its buffers");
    let mut scribbles: Vec<_> = (0..256).map(|_| ring.buf().unwrap()).collect();
    for buf in &mut scribbles {
        buf.extend_from_slice(&[0xCD; 16_384]).unwrap();
    }
    let reader = std::thread::spawn(move || read_all(&stream).unwrap());
    let all = join(&ring, reader);
    assert_eq!(all.len(), accepted);
    assert!(all.iter().all(|byte| *byte == 0xAB));
    drop(scribbles);
    until(&ring, || ring.conns() == 0 && all_home(&ring));
}

/// The end of the stream does not wait for the buffers.
#[test]
fn the_end_is_told_while_buffers_are_lent() {
    let ring = believing();
    let (listener, at) = listening(&ring);
    let sent = pattern(16_384);
    let reader = client(at, |stream| {
        let all = read_all(&stream).unwrap();
        // The other direction still stands until we leave as well.
        (all, stream)
    });
    let (inner, copy) = (ring.clone(), sent.clone());
    drive(&ring, async move {
        let socket = listener.accept().await.unwrap();
        send_all(&inner, &socket, &copy, 1).await.unwrap();
    });
    let (all, _stream) = join(&ring, reader);
    assert!(all == sent);
    until(&ring, || ring.conns() == 0 && all_home(&ring));
}

#[test]
fn a_peer_that_takes_nothing_holds_lent_buffers_for_the_linger_time_at_most() {
    let ring = ring_with(&RingPlan {
        linger_ms: 50,
        ..plan()
    });
    ring.core.faults.spare_copies();
    let (listener, at) = listening(&ring);
    let stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let inner = ring.clone();
    drive(&ring, async move {
        let socket = listener.accept().await.unwrap();
        send_until_stuck(&inner, &socket).await;
        assert!(lent(&inner) > 0);
    });
    until(&ring, || ring.conns() == 0 && all_home(&ring));
    let reader = std::thread::spawn(move || read_all(&stream).unwrap_err().kind());
    assert_eq!(join(&ring, reader), std::io::ErrorKind::ConnectionReset);
}

#[test]
fn a_peer_that_resets_sends_the_buffers_home() {
    let ring = believing();
    let (listener, at) = listening(&ring);
    let stream = TcpStream::connect(at).unwrap();
    let socket = Rc::new(drive(&ring, accept_one(&listener)));
    drop(listener);
    let (inner, writer) = (ring.clone(), Rc::clone(&socket));
    drive(&ring, async move {
        send_until_stuck(&inner, &writer).await;
    });
    assert!(lent(&ring) > 0);
    socket2::SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
    let (inner, writer) = (ring.clone(), Rc::clone(&socket));
    let end = drive(&ring, async move {
        loop {
            let out = Out::from(filled(&inner, &[1; 16_384]));
            if let Err(error) = writer.send(out).await {
                return error.kind();
            }
        }
    });
    assert!(
        matches!(
            end,
            std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
        ),
        "{end:?}"
    );
    until(&ring, || lent(&ring) == 0);
    drop(socket);
    until(&ring, || ring.conns() == 0 && all_home(&ring));
}

/// A ring that is closed with buffers lent lets go of its connections and waits for the buffers.
#[test]
fn closing_the_ring_waits_for_lent_buffers() {
    let ring = believing();
    let (listener, at) = listening(&ring);
    let sent = pattern(LENT_CONN_BYTES_MAX);
    let reader = client(at, |stream| read_all(&stream).unwrap());
    let (inner, copy) = (ring.clone(), sent.clone());
    drive(&ring, async move {
        let socket = listener.accept().await.unwrap();
        send_all(&inner, &socket, &copy, 8).await.unwrap();
        socket.flush().await.unwrap();
    });
    ring.close();
    assert_eq!(lent(&ring), 0);
    assert!(reader.join().unwrap() == sent);
}
