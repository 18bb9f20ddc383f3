//! What wakes a turn up: a send that is done at once and that nobody waits for does not, one that stalls
//! keeps nobody asleep.

use std::io::ErrorKind;
use std::time::Instant;

use super::*;

/// A connection whose other end is in this thread.
fn pair(ring: &Ring, listener: &Rc<Listener>) -> (Rc<Socket>, TcpStream) {
    let to = listener.local_addr();
    let peer = std::thread::spawn(move || TcpStream::connect(to).unwrap());
    let listener = Rc::clone(listener);
    let socket = drive(ring, async move { listener.accept().await.unwrap() });
    let peer = join(ring, peer);
    peer.set_nodelay(true).unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    (Rc::new(socket), peer)
}

#[test]
fn a_send_that_is_done_at_once_is_no_reason_to_wake_up() {
    let ring = ring();
    let listener = Rc::new(listen(&ring));
    let (socket, peer) = pair(&ring, &listener);
    let echoing = Rc::clone(&socket);
    assert!(ring.spawn(async move {
        loop {
            let ball = echoing.recv().await.unwrap();
            if ball.is_empty() || echoing.send(ball.into()).await.is_err() {
                return;
            }
        }
    }));
    ring.turn(Park::No);
    for _ in 0..3 {
        write_all(&peer, b"ball");
        // The ball has come, and goes back with the next turn.
        while ring.turn(Park::Free).polls == 0 {}
        let begun = Instant::now();
        let turn = ring.turn(Park::Until(ring.now() + PATIENCE));
        assert_eq!(turn.completions, 1, "{turn:?}");
        assert!(
            begun.elapsed() >= Duration::from_millis(2),
            "woken by its own send after {:?}",
            begun.elapsed()
        );
        let mut ball = [0; 4];
        (&peer).read_exact(&mut ball).unwrap();
    }
}

#[test]
fn a_send_that_somebody_waits_for_is_one() {
    const SENDS: u32 = 16;
    let ring = ring();
    let listener = Rc::new(listen(&ring));
    // The best of some: this machine may be busy with other things.
    let fastest = (0..5)
        .map(|_| {
            let (socket, peer) = pair(&ring, &listener);
            let begun = Instant::now();
            drive(&ring, async move {
                for _ in 0..SENDS {
                    let piece = Chunk::from_static(b"piece");
                    socket.send(piece.into()).await.unwrap();
                }
                socket.flush().await.unwrap();
            });
            let took = begun.elapsed();
            until(&ring, || ring.conns() == 0);
            assert_eq!(read_all(&peer).unwrap(), b"piece".repeat(SENDS as usize));
            took
        })
        .min()
        .unwrap();
    // Otherwise each would take as long as the ring sleeps for want of news.
    assert!(fastest < SENDS * Duration::from_millis(2), "{fastest:?}");
}

#[test]
fn a_send_that_stalls_keeps_nobody_asleep() {
    let ring = ring();
    let listener = Rc::new(listen(&ring));
    let (stalled, reader) = pair(&ring, &listener);
    let (other, writer) = pair(&ring, &listener);
    let heard = Rc::new(RefCell::new(0));
    let count = Rc::clone(&heard);
    assert!(ring.spawn(async move {
        while let Ok(chunk) = other.recv().await {
            if chunk.is_empty() {
                return;
            }
            *count.borrow_mut() += chunk.len();
        }
    }));
    const BLOCK: usize = 8 << 10;
    let sent = Rc::new(RefCell::new(0_usize));
    let (sending, total) = (Rc::clone(&stalled), Rc::clone(&sent));
    let inner = ring.clone();
    assert!(ring.spawn(async move {
        loop {
            let mut block = inner.buf().unwrap();
            block.extend_from_slice(&[7; BLOCK]).unwrap();
            if sending.send(block.into()).await.is_err() {
                return;
            }
            *total.borrow_mut() += BLOCK;
        }
    }));
    // Nobody reads: sooner or later a send does not end. Whatever is written on the other connection
    // is heard all the same, however long the ring may sleep.
    let mut quiet = 0;
    let mut written = 0;
    while quiet < 50 {
        let before = *sent.borrow();
        write_all(&writer, b"x");
        written += 1;
        while *heard.borrow() < written {
            ring.turn(Park::Free);
        }
        quiet = if *sent.borrow() == before {
            quiet + 1
        } else {
            0
        };
    }
    // What stalled goes on when it is read.
    let before = *sent.borrow();
    let reading = std::thread::spawn(move || {
        let mut block = vec![0; before];
        (&reader).read_exact(&mut block).map(|()| reader)
    });
    until(&ring, || *sent.borrow() > before);
    let reader = join(&ring, reading).unwrap();
    drop(reader);
}

#[test]
fn the_last_bytes_and_the_end_arrive_together() {
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
            .send_last(Chunk::from_static(b"everything").into())
            .await
            .unwrap();
        let more = socket.send(Chunk::from_static(b"more").into()).await;
        assert_eq!(more.unwrap_err().kind(), ErrorKind::BrokenPipe);
        // Said already.
        socket.shutdown_write();
        assert_eq!(drain(&socket).await.unwrap(), b"thanks");
    });
    assert_eq!(join(&ring, talk), b"everything");
}
