//! Bytes arrive whole, in order and once.

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::super::groups::Size;
use super::*;

#[test]
fn every_size_is_echoed_unchanged() {
    let ring = ring();
    let to = echo_server(&ring);
    let sizes = [
        1,
        2,
        100,
        4095,
        4096,
        4097,
        16_384,
        65_535,
        65_536,
        65_537,
        300_000,
        1 << 20,
    ];
    let talk = client(to, move |stream| {
        for size in sizes {
            let sent = pattern(size);
            let writer = stream.try_clone().unwrap();
            let writing = std::thread::spawn({
                let sent = sent.clone();
                move || write_all(&writer, &sent)
            });
            let mut back = vec![0; size];
            (&stream).read_exact(&mut back).unwrap();
            writing.join().unwrap();
            assert!(back == sent, "{size} bytes came back changed");
        }
    });
    join(&ring, talk);
}

#[test]
fn sixty_four_mebibytes_keep_their_hash() {
    const MIB: usize = 64;
    let ring = ring();
    let to = echo_server(&ring);
    let block = pattern(1 << 20);
    let talk = client(to, move |stream| {
        let writer = stream.try_clone().unwrap();
        let writing = std::thread::spawn(move || {
            let mut hash = Xxh3::new();
            for round in 0..MIB {
                let turned = [&block[round..], &block[..round]].concat();
                hash.update(&turned);
                write_all(&writer, &turned);
            }
            writer.shutdown(std::net::Shutdown::Write).unwrap();
            hash.digest()
        });
        let mut hash = Xxh3::new();
        let mut buffer = vec![0; 1 << 16];
        let mut total = 0;
        loop {
            let got = (&stream).read(&mut buffer).unwrap();
            if got == 0 {
                break;
            }
            total += got;
            hash.update(&buffer[..got]);
        }
        assert_eq!(total, MIB << 20);
        assert_eq!(hash.digest(), writing.join().unwrap());
    });
    join(&ring, talk);
}

#[test]
fn a_gathered_send_keeps_the_order_of_its_pieces() {
    let ring = ring();
    let listener = listen(&ring);
    let to = listener.local_addr();
    let body = pattern(100_000);
    let talk = client(to, {
        let body = body.clone();
        move |stream| {
            write_all(&stream, &body);
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            read_all(&stream).unwrap()
        }
    });
    let inner = ring.clone();
    let expected = drive(&ring, async move {
        let socket = listener.accept().await.unwrap();
        let mut expected = Vec::new();
        for round in 0.. {
            let mut chunk = socket.recv().await.unwrap();
            if chunk.is_empty() {
                break;
            }
            let mut head = inner.buf().unwrap();
            head.extend_from_slice(format!("<{round}>").as_bytes())
                .unwrap();
            expected.extend_from_slice(&head);
            expected.extend_from_slice(&chunk);
            let tail = chunk.split_to(chunk.len() / 2);
            let mut out = Out::pair(head, tail);
            out.push(chunk).unwrap();
            out.push(Chunk::from_static(b"</>")).unwrap();
            expected.extend_from_slice(b"</>");
            socket.send(out).await.unwrap();
        }
        expected
    });
    assert_eq!(xxh3_64(&join(&ring, talk)), xxh3_64(&expected));
}

#[test]
fn two_hundred_connections_at_once() {
    let ring = ring();
    let to = echo_server(&ring);
    let talk = std::thread::spawn(move || {
        let streams: Vec<_> = (0..200)
            .map(|_| {
                let stream = TcpStream::connect(to).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream
            })
            .collect();
        for round in 0..20 {
            for (n, stream) in streams.iter().enumerate() {
                write_all(stream, format!("{round:04}-{n:04}").as_bytes());
            }
            for (n, mut stream) in streams.iter().enumerate() {
                let mut back = [0; 9];
                stream.read_exact(&mut back).unwrap();
                assert_eq!(back, *format!("{round:04}-{n:04}").as_bytes());
            }
        }
    });
    join(&ring, talk);
    until(&ring, || ring.conns() == 0);
}

#[test]
fn a_ring_connects_to_a_ring() {
    let ring = ring();
    let to = echo_server(&ring);
    let inner = ring.clone();
    let sent = pattern(500_000);
    let copy = sent.clone();
    let back = drive(&ring, async move {
        let socket = Rc::new(Socket::connect(&inner, to).await.unwrap());
        assert_eq!(socket.peer_addr(), to);
        for listener in ["0.0.0.0:1".parse().unwrap(), socket.local_addr()] {
            assert_eq!(socket.original_dst(listener), None);
        }
        let writer = Rc::clone(&socket);
        let bufs = inner.clone();
        assert!(inner.spawn(async move {
            for piece in copy.chunks(10_000) {
                let mut buf = bufs.buf().unwrap();
                buf.extend_from_slice(piece).unwrap();
                writer.send(buf.into()).await.unwrap();
            }
            writer.shutdown_write();
        }));
        drain(&socket).await.unwrap()
    });
    assert!(back == sent);
}

/// Addresses of loopback are this host's own, so no rules are needed for the answers; the right to it is.
#[test]
fn a_connection_in_a_clients_name_comes_from_its_address_and_no_port_of_its_own() {
    let ring = ring();
    let options = ListenOptions {
        transparent: true,
        ..ListenOptions::default()
    };
    let listener = match Listener::bind(&ring, "127.0.0.1:0".parse().unwrap(), &options) {
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => return,
        listener => listener.unwrap(),
    };
    let (at, client) = (listener.local_addr(), "127.9.9.9".parse().unwrap());
    let inner = ring.clone();
    drive(&ring, async move {
        let mut ports = Vec::new();
        let mut kept = Vec::new();
        for _ in 0..3 {
            let ours = Socket::connect_as(&inner, at, client, 1338).await.unwrap();
            let theirs = listener.accept().await.unwrap();
            assert_eq!(theirs.peer_addr(), ours.local_addr());
            assert_eq!(theirs.peer_addr().ip(), client);
            assert_eq!(theirs.tproxied_dst(at), None, "it came to the listener");
            ports.push(ours.local_addr().port());
            kept.push((ours, theirs));
        }
        assert!(ports.iter().all(|port| (10_240..32_768).contains(port)));
        ports.dedup();
        assert_eq!(ports.len(), kept.len());
    });
}

/// Whoever keeps a window that is used up keeps no buffer with it.
#[test]
fn a_buffer_goes_home_with_its_last_byte() {
    let ring = ring();
    let listener = listen(&ring);
    let stream = TcpStream::connect(listener.local_addr()).unwrap();
    write_all(&stream, b"hello");
    let socket = drive(&ring, accept_one(&listener));
    let mut chunk = drive(&ring, async move { socket.recv().await.unwrap() });
    let out = || ring.core.group(Size::Heads).pool().out();
    chunk.advance(4);
    assert_eq!((&*chunk, out()), (&b"o"[..], 1));
    chunk.advance(1);
    assert_eq!((&*chunk, out()), (&b""[..], 0));
}

#[test]
fn giving_back_room_loses_nothing_that_has_come() {
    let ring = ring();
    let listener = listen(&ring);
    let stream = TcpStream::connect(listener.local_addr()).unwrap();
    write_all(&stream, b"one");
    let socket = Rc::new(drive(&ring, accept_one(&listener)));
    let next = || {
        let socket = Rc::clone(&socket);
        drive(&ring, async move { socket.recv().await.unwrap().to_vec() })
    };
    assert_eq!(next(), b"one");
    socket.slim();
    write_all(&stream, b"two");
    let out = || ring.core.group(Size::Heads).pool().out();
    until(&ring, || out() == 1);
    // It has come and nobody has taken it.
    socket.slim();
    assert_eq!(next(), b"two");
    socket.slim();
    drop(stream);
    assert_eq!(next(), b"");
}
