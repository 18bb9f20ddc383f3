//! Nobody takes more than their share.

use super::super::groups::Size;
use super::*;

/// One reader that stalls must not drain the buffers of the others.
#[test]
fn a_stalled_reader_does_not_starve_others() {
    let ring = ring();
    let listener = listen(&ring);
    let to = listener.local_addr();
    // The stalled ones: their sockets receive one chunk and then are left alone.
    let stalled: Vec<_> = (0..40)
        .map(|_| {
            let stream = TcpStream::connect(to).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    let held = Rc::new(RefCell::new(Vec::new()));
    for _ in 0..40 {
        let socket = drive(&ring, accept_one(&listener));
        held.borrow_mut().push(socket);
    }
    for stream in &stalled {
        while (&mut &*stream).write(&[1; 65_536]).is_ok() {}
    }
    for n in 0..40 {
        let held = Rc::clone(&held);
        drive(&ring, async move {
            let socket = held.borrow_mut().pop().unwrap();
            let chunk = socket.recv().await.unwrap();
            assert!(!chunk.is_empty());
            held.borrow_mut().insert(0, socket);
            drop((n, chunk));
        });
    }
    let queued = ring.core.group(Size::Heads).pool().out();
    assert!(
        queued < 2000,
        "{queued} of 4096 blocks are held by stalled readers"
    );
    // A quick one is answered.
    let quick = client(to, |stream| {
        for _ in 0..100 {
            write_all(&stream, b"ping");
            let mut back = [0; 4];
            (&stream).read_exact(&mut back).unwrap();
        }
    });
    let socket = drive(&ring, accept_one(&listener));
    assert!(ring.spawn(echo(socket)));
    join(&ring, quick);
    assert_eq!(ring.core.group(Size::Heads).paused(), 0);
}

/// With hardly any buffers everything still arrives; running out is a pause.
#[test]
fn running_out_of_buffers_is_a_pause() {
    let tiny = GroupPlan { start: 2, max: 4 };
    let ring = ring_with(&RingPlan {
        heads: tiny,
        bulk: tiny,
        ..RingPlan::default()
    });
    let to = echo_server(&ring);
    let talks: Vec<_> = (0..20)
        .map(|n| {
            client(to, move |stream| {
                let sent = pattern(200_000 + n);
                let writer = stream.try_clone().unwrap();
                let copy = sent.clone();
                let writing = std::thread::spawn(move || {
                    write_all(&writer, &copy);
                    writer.shutdown(std::net::Shutdown::Write).unwrap();
                });
                let back = read_all(&stream).unwrap();
                writing.join().unwrap();
                assert!(back == sent);
            })
        })
        .collect();
    for talk in talks {
        join(&ring, talk);
    }
    let pauses = ring.core.group(Size::Heads).pauses();
    assert!(
        pauses > 0,
        "twenty connections on four buffers never ran out"
    );
    until(&ring, || ring.conns() == 0);
    assert_eq!(ring.core.group(Size::Heads).pool().out(), 0);
    assert_eq!(ring.core.group(Size::Bulk).pool().out(), 0);
}

/// A peer that sends byte by byte to a reader that is busy does not cost a block per byte.
#[test]
fn tiny_segments_share_blocks() {
    let ring = ring();
    let listener = listen(&ring);
    let stream = TcpStream::connect(listener.local_addr()).unwrap();
    stream.set_nodelay(true).unwrap();
    let socket = Rc::new(drive(&ring, accept_one(&listener)));
    let reader = Rc::clone(&socket);
    write_all(&stream, b"0");
    let first = drive(&ring, async move { reader.recv().await.unwrap() });
    let sent = pattern(1500);
    for byte in &sent {
        write_all(&stream, std::slice::from_ref(byte));
        ring.turn(Park::No);
    }
    assert!(ring.core.group(Size::Heads).pool().out() <= 3);
    drop(first);
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    assert!(drive(&ring, async move { drain(&socket).await.unwrap() }) == sent);
}

/// Without the kernel's byte limit (before 6.18) we stop receives ourselves.
#[test]
fn without_the_kernels_limit_receives_are_cancelled() {
    let ring = ring();
    ring.core.kernel.set_recv_limit(false);
    let to = echo_server(&ring);
    let talk = client(to, |stream| {
        let sent = pattern(3_000_000);
        let writer = stream.try_clone().unwrap();
        let copy = sent.clone();
        let writing = std::thread::spawn(move || {
            write_all(&writer, &copy);
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let back = read_all(&stream).unwrap();
        writing.join().unwrap();
        assert!(back == sent);
    });
    join(&ring, talk);
}

#[test]
fn a_full_submission_queue_loses_nothing() {
    let ring = ring_with(&RingPlan {
        sq_entries: 2,
        cq_entries: 4,
        ..RingPlan::default()
    });
    let to = echo_server(&ring);
    let talks: Vec<_> = (0..50)
        .map(|n| {
            client(to, move |stream| {
                let sent = pattern(1000 + n);
                write_all(&stream, &sent);
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                assert!(read_all(&stream).unwrap() == sent);
            })
        })
        .collect();
    for talk in talks {
        join(&ring, talk);
    }
}

/// A socket whose receive was paused goes on when a buffer comes home, with no other event.
#[test]
fn a_paused_socket_needs_no_other_event_to_go_on() {
    let one = GroupPlan { start: 1, max: 1 };
    let ring = ring_with(&RingPlan {
        heads: one,
        bulk: one,
        ..RingPlan::default()
    });
    let listener = listen(&ring);
    let streams = [1, 2].map(|_| TcpStream::connect(listener.local_addr()).unwrap());
    for stream in &streams {
        write_all(stream, b"hello");
    }
    let first = drive(&ring, accept_one(&listener));
    let held = drive(&ring, async move { first.recv().await.unwrap() });
    let second = drive(&ring, accept_one(&listener));
    let got = Rc::new(RefCell::new(None));
    let result = Rc::clone(&got);
    assert!(ring.spawn(async move {
        *result.borrow_mut() = Some(second.recv().await.unwrap());
    }));
    until(&ring, || ring.core.group(Size::Heads).paused() == 1);
    assert!(ring.spawn(async move { drop(held) }));
    let start = ring.now();
    while got.borrow().is_none() {
        ring.turn(Park::Until(start + PATIENCE));
    }
    assert!(
        ring.now() < start + PATIENCE / 2,
        "it slept over the buffer"
    );
    assert_eq!(&**got.borrow().as_ref().unwrap(), b"hello");
}

/// Slow readers that hold every bulk buffer slow a quick transfer down but do not stop it.
#[test]
fn slow_readers_in_bulk_leave_a_way_for_a_quick_transfer() {
    let ring = ring_with(&RingPlan {
        heads: GroupPlan {
            start: 64,
            max: 512,
        },
        bulk: GroupPlan { start: 4, max: 4 },
        ..RingPlan::default()
    });
    let listener = listen(&ring);
    let to = listener.local_addr();
    let slow: Vec<_> = (0..8)
        .map(|_| {
            let stream = TcpStream::connect(to).unwrap();
            stream.set_nonblocking(true).unwrap();
            stream
        })
        .collect();
    let held = Rc::new(RefCell::new(Vec::new()));
    for _ in &slow {
        let socket = Rc::new(drive(&ring, accept_one(&listener)));
        let chunks = Rc::clone(&held);
        // Takes chunks and keeps them until bulk is empty: a reader whose own peer has stalled.
        assert!(ring.spawn(async move {
            while let Ok(chunk) = socket.recv().await {
                if chunk.is_empty() {
                    return;
                }
                if chunk.len() > 4096 {
                    chunks.borrow_mut().push(chunk);
                    std::future::pending::<()>().await;
                }
            }
        }));
    }
    let bulk_is_out = || ring.core.group(Size::Bulk).pool().out() == 4;
    until(&ring, || {
        for stream in &slow {
            let _ = (&mut &*stream).write(&[1; 65_536]);
        }
        bulk_is_out()
    });
    let quick = client(to, |stream| {
        let sent = pattern(1 << 20);
        let writer = stream.try_clone().unwrap();
        let copy = sent.clone();
        let writing = std::thread::spawn(move || {
            write_all(&writer, &copy);
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let back = read_all(&stream).unwrap();
        writing.join().unwrap();
        assert!(back == sent);
    });
    let socket = drive(&ring, accept_one(&listener));
    assert!(ring.spawn(echo(socket)));
    join(&ring, quick);
    assert!(bulk_is_out(), "the slow ones still hold what they held");
}

/// Memory that was needed once is given back, and what comes later is not harmed.
#[test]
fn trimming_gives_pages_back_and_harms_nothing() {
    let ring = ring();
    let to = echo_server(&ring);
    let inner = ring.clone();
    for round in 0..3 {
        let inner = inner.clone();
        let sent = pattern(3_000_000 + round);
        let copy = sent.clone();
        let talk = client(to, move |stream| {
            let writer = stream.try_clone().unwrap();
            let writing = std::thread::spawn(move || {
                write_all(&writer, &copy);
                writer.shutdown(std::net::Shutdown::Write).unwrap();
            });
            let back = read_all(&stream).unwrap();
            writing.join().unwrap();
            back
        });
        until(&ring, || {
            inner.trim();
            talk.is_finished()
        });
        assert!(talk.join().unwrap() == sent);
    }
}
