//! Ends of connections: FIN, reset, refusal.

use std::io::ErrorKind;
use std::net::Shutdown;

use super::*;

#[test]
fn the_peers_fin_ends_only_its_direction() {
    let ring = ring();
    let listener = listen(&ring);
    let talk = client(listener.local_addr(), |stream| {
        write_all(&stream, b"question");
        stream.shutdown(Shutdown::Write).unwrap();
        read_all(&stream).unwrap()
    });
    drive(&ring, async move {
        let socket = listener.accept().await.unwrap();
        assert_eq!(drain(&socket).await.unwrap(), b"question");
        assert!(socket.recv().await.unwrap().is_empty(), "a FIN stays one");
        socket
            .send(Chunk::from_static(b"late answer").into())
            .await
            .unwrap();
    });
    assert_eq!(join(&ring, talk), b"late answer");
}

#[test]
fn our_fin_ends_only_our_direction_and_follows_what_was_accepted() {
    let ring = ring();
    let listener = listen(&ring);
    let talk = client(listener.local_addr(), |stream| {
        let all = read_all(&stream).unwrap();
        write_all(&stream, b"thanks");
        all
    });
    drive(&ring, async move {
        let socket = listener.accept().await.unwrap();
        socket
            .send(Chunk::from_static(b"everything").into())
            .await
            .unwrap();
        socket.shutdown_write();
        let more = socket.send(Chunk::from_static(b"more").into()).await;
        assert_eq!(more.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(drain(&socket).await.unwrap(), b"thanks");
    });
    assert_eq!(join(&ring, talk), b"everything");
}

#[test]
fn a_reset_is_told_from_a_fin() {
    let ring = ring();
    let listener = listen(&ring);
    let talk = client(listener.local_addr(), |stream| {
        let mut byte = [0; 1];
        (&stream).read_exact(&mut byte).unwrap();
        socket2::SockRef::from(&stream)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    });
    drive(&ring, async move {
        let socket = listener.accept().await.unwrap();
        socket.send(Chunk::from_static(b"x").into()).await.unwrap();
        let error = drain(&socket).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    });
    join(&ring, talk);
}

#[test]
fn our_reset_reaches_the_peer_as_one() {
    let ring = ring();
    let listener = listen(&ring);
    let talk = client(listener.local_addr(), |stream| {
        read_all(&stream).unwrap_err().kind()
    });
    drive(&ring, async move {
        let socket = listener.accept().await.unwrap();
        socket.reset();
    });
    assert_eq!(join(&ring, talk), ErrorKind::ConnectionReset);
    until(&ring, || ring.conns() == 0);
}

#[test]
fn what_was_accepted_goes_out_after_the_socket_is_dropped() {
    let ring = ring();
    let listener = listen(&ring);
    let body = pattern(16_000);
    let talk = client(listener.local_addr(), |stream| read_all(&stream).unwrap());
    let inner = ring.clone();
    let copy = body.clone();
    drive(&ring, async move {
        let socket = listener.accept().await.unwrap();
        let mut buf = inner.buf().unwrap();
        buf.extend_from_slice(&copy).unwrap();
        socket.send(buf.into()).await.unwrap();
    });
    assert!(join(&ring, talk) == body);
}

#[test]
fn a_peer_that_never_reads_is_given_up_after_the_linger_time() {
    let ring = ring_with(&RingPlan {
        linger_ms: 50,
        ..RingPlan::default()
    });
    let listener = listen(&ring);
    let stream = TcpStream::connect(listener.local_addr()).unwrap();
    let inner = ring.clone();
    drive(&ring, async move {
        let socket = listener.accept().await.unwrap();
        // More than both socket buffers hold: at some point a send stays in flight.
        loop {
            let mut buf = inner.buf().unwrap();
            buf.extend_from_slice(&[7; 16_384]).unwrap();
            let send = std::pin::pin!(socket.send(buf.into()));
            let stuck = std::pin::pin!(inner.sleep_until(inner.now().plus_ms(100)));
            if crate::wait::or_timeout(send, stuck).await.is_none() {
                return;
            }
        }
    });
    assert_eq!(ring.conns(), 1, "a send is in flight");
    until(&ring, || ring.conns() == 0);
    let reader = std::thread::spawn(move || read_all(&stream).unwrap_err().kind());
    assert_eq!(join(&ring, reader), ErrorKind::ConnectionReset);
}

#[test]
fn a_refused_connect_says_so() {
    let ring = ring();
    let vacant = crate::vacant::Vacant::new([127, 0, 0, 1]);
    let inner = ring.clone();
    let error = drive(&ring, async move {
        Socket::connect(&inner, vacant.at).await.unwrap_err()
    });
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[test]
fn an_accepted_socket_has_nodelay() {
    let ring = ring();
    let listener = listen(&ring);
    let _stream = TcpStream::connect(listener.local_addr()).unwrap();
    drive(&ring, async move {
        let socket = listener.accept().await.unwrap();
        assert!(socket.conn.sys().tcp_nodelay().unwrap());
    });
}

#[test]
fn the_end_of_an_idle_connection_shows_without_waiting_for_it() {
    let ring = ring();
    let listener = listen(&ring);
    // More than one receive may bring, so that it has to be armed again by itself.
    let body = pattern(100_000);
    let copy = body.clone();
    let talk = client(listener.local_addr(), move |stream| {
        write_all(&stream, &copy);
        let mut byte = [0];
        (&stream).read_exact(&mut byte).unwrap();
    });
    let socket = Rc::new(drive(
        &ring,
        async move { listener.accept().await.unwrap() },
    ));
    let reader = Rc::clone(&socket);
    drive(&ring, async move {
        let mut left = body.len();
        while left > 0 {
            left -= reader.recv().await.unwrap().len();
        }
        reader.send(Chunk::from_static(b"x").into()).await.unwrap();
    });
    assert!(socket.try_recv().is_none());
    join(&ring, talk);
    until(&ring, || {
        socket
            .try_recv()
            .is_some_and(|end| end.is_ok_and(|chunk| chunk.is_empty()))
    });
}
