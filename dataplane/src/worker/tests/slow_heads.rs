//! Heads that come in pieces and do not end: what they can hold is bounded, and others are served.

use ringmesh_wire::snapshot::MtlsMode;

use super::*;
use crate::ring::GroupPlan;

/// Opens a connection and sends `bytes` of a head that does not end.
fn slow(bed: &Bed, bytes: usize) -> TcpStream {
    let mut client = bed.client();
    client.write_all(b"GET / HTTP/1.1\r\nX: ").unwrap();
    // It may have been told already that there is no room.
    let _ = client.write_all(&vec![b'x'; bytes]);
    client
}

/// What the shard says it keeps, as it changes.
fn until_kept(bed: &Bed, what: &str, is: impl Fn(i64) -> bool) -> i64 {
    let until = Instant::now() + PATIENCE;
    loop {
        bed.mailbox.send(ToShard::Collect).unwrap();
        if let FromShard::Stats(stats) = bed.next() {
            let series = crate::telemetry::merge(&[*stats]);
            let kept = series.iter().find(|one| one.name == "ringmesh_kept_bytes");
            let ringmesh_wire::report::SeriesValue::Gauge(kept) = kept.unwrap().value else {
                panic!("it is a gauge");
            };
            if is(kept) {
                return kept;
            }
        }
        assert!(Instant::now() < until, "{what}");
    }
}

#[test]
fn above_its_memory_a_shard_sheds_heads_in_pieces_and_serves_whole_ones() {
    const MAX: usize = 1 << 20;
    let (upstream, _) = hello();
    let limits = ConnLimits {
        kept_bytes_max: MAX,
        ..ConnLimits::default()
    };
    let bed = Bed::start_with(&draft(upstream), Role::Outbound, limits);
    let mut crowd: Vec<TcpStream> = (0..100).map(|_| slow(&bed, 40_000)).collect();
    // Those for whom there was no room are told so, each as it asks for more.
    let mut shed = 0;
    for client in &mut crowd {
        client.set_nonblocking(true).unwrap();
    }
    let until = Instant::now() + PATIENCE;
    while shed < 70 {
        assert!(Instant::now() < until, "only {shed} of 100 were shed");
        crowd.retain_mut(|client| {
            let mut answer = [0; 512];
            match client.read(&mut answer) {
                Ok(len) => {
                    let text = String::from_utf8_lossy(&answer[..len]);
                    assert!(text.starts_with("HTTP/1.1 503 "), "{text}");
                    assert!(text.contains("x-ringmesh-reason: shed\r\n"), "{text}");
                    shed += 1;
                    false
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => true,
                // Told, and reset for what it went on to send.
                Err(_) => {
                    shed += 1;
                    false
                }
            }
        });
        pause();
    }
    let kept = until_kept(&bed, "something is kept", |kept| kept > 0);
    assert!(kept <= MAX as i64, "{kept} bytes kept");
    assert!(
        bed.get("app").ends_with("hello"),
        "a whole head needs nothing kept"
    );
    drop(crowd);
    until_kept(&bed, "all of it was given back", |kept| kept == 0);
}

/// A sidecar with eight receive buffers for heads.
fn with_few_buffers(draft: &Draft, role: Role) -> Bed {
    let few = GroupPlan { start: 8, max: 8 };
    let plan = RingPlan {
        heads: few,
        ..RingPlan::default()
    };
    Bed::start_turning(draft, role, ConnLimits::default(), plan, turn_until)
}

/// Eight times as many clients as there are buffers, each of which says this and waits.
fn crowd(bed: &Bed, says: impl Fn(usize) -> &'static [u8]) -> Vec<TcpStream> {
    let one = |at| {
        let mut client = bed.client();
        client.write_all(says(at)).unwrap();
        client
    };
    (0..64).map(one).collect()
}

#[test]
fn a_byte_of_a_head_holds_no_receive_buffer() {
    let (upstream, _) = hello();
    let bed = with_few_buffers(&draft(upstream), Role::Outbound);
    // P may become the preface of HTTP/2, G is the beginning of a head.
    let crowd = crowd(&bed, |at| if at < 32 { b"P" } else { b"G" });
    until_kept(&bed, "all of them have begun", |kept| kept >= 32 * 512);
    assert!(bed.get("app").ends_with("hello"));
    drop(crowd);
}

#[test]
fn a_byte_on_an_undeclared_port_holds_no_receive_buffer() {
    let (upstream, _) = hello();
    let mut outbound = draft(upstream);
    let service = outbound.at("app");
    service.hosts = vec!["*".into()];
    service.ports[0].protocol = Protocol::Auto;
    for (draft, role) in [
        (outbound, Role::Outbound),
        (before(upstream, Protocol::Auto), Role::Inbound),
    ] {
        let bed = with_few_buffers(&draft, role);
        let crowd = crowd(&bed, |at| if at < 32 { b"PRI" } else { b"GE" });
        assert!(bed.get("app").ends_with("hello"));
        drop(crowd);
    }
}

/// Where mutual TLS and plaintext share a port the first bytes are looked at, too, and more of a hello.
#[test]
fn the_beginning_of_a_hello_holds_no_receive_buffer() {
    let (upstream, _) = hello();
    let bed = with_few_buffers(&before(upstream, Protocol::Http1), Role::Inbound);
    let begun = crowd(&bed, |_| b"\x16\x03");
    assert!(bed.get("app").ends_with("hello"));
    let more = crowd(&bed, |_| b"\x16\x03\x01\x02\x00\x01\x00\x01");
    until_kept(&bed, "all of them have begun", |kept| kept >= 64 * 512);
    assert!(bed.get("app").ends_with("hello"));
    drop((begun, more));
    until_kept(&bed, "all of it was given back", |kept| kept == 0);
}

#[test]
fn above_its_memory_a_shard_sheds_hellos_in_pieces() {
    const ROOM: usize = 8;
    let (upstream, _) = hello();
    let limits = ConnLimits {
        kept_bytes_max: ROOM * 512,
        // Nobody is cut off for being slow here.
        handshake_timeout_ms: 600_000,
        ..ConnLimits::default()
    };
    let draft = before(upstream, Protocol::Http1);
    let bed = Bed::start_with(&draft, Role::Inbound, limits);
    let mut hellos = crowd(&bed, |_| b"\x16\x03\x01\x02\x00\x01\x00\x01");
    for client in &hellos {
        client.set_nonblocking(true).unwrap();
    }
    let until = Instant::now() + PATIENCE;
    while hellos.len() > ROOM {
        assert!(Instant::now() < until, "{} are still there", hellos.len());
        hellos.retain_mut(|client| {
            let read = client.read(&mut [0]);
            read.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
        });
        pause();
    }
    until_kept(&bed, "as many as have room wait", |kept| {
        kept == (ROOM * 512) as i64
    });
    assert_eq!(hellos.len(), ROOM);
    assert!(bed.get("app").ends_with("hello"), "others are served");
}

/// What was understood of HTTP/2 holds no buffer while nothing more comes.
#[test]
fn an_idle_connection_of_http2_holds_no_receive_buffer() {
    const BEGIN: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    let (upstream, _) = hello();
    let bed = with_few_buffers(&draft(upstream), Role::Outbound);
    let mut crowd = crowd(&bed, |_| BEGIN);
    for client in &mut crowd {
        // Our own settings, and the acknowledgement of theirs: all of it was read.
        let mut heard = Vec::new();
        while !heard
            .windows(9)
            .any(|frame| frame == b"\0\0\0\x04\x01\0\0\0\0")
        {
            let mut room = [0; 256];
            let len = client.read(&mut room).unwrap();
            assert!(len > 0, "the connection was ended");
            heard.extend_from_slice(&room[..len]);
        }
    }
    assert!(bed.get("app").ends_with("hello"));
    drop(crowd);
}

/// Wherever the first bytes are looked at, who begins has to go on; and what was not understood in time does not
/// pass as bytes of some kind.
#[test]
fn a_beginning_that_stops_is_cut_off() {
    let (upstream, connections) = hello();
    let mut outbound = draft(upstream);
    let service = outbound.at("app");
    service.hosts = vec!["*".into()];
    service.ports[0].protocol = Protocol::Auto;
    let limits = ConnLimits {
        head_timeout_ms: 200,
        ..ConnLimits::default()
    };
    for (draft, role) in [
        (outbound, Role::Outbound),
        (before(upstream, Protocol::Auto), Role::Inbound),
        (before(upstream, Protocol::Http1), Role::Inbound),
    ] {
        let bed = Bed::start_with(&draft, role, limits);
        let mut client = bed.client();
        client.write_all(b"GE").unwrap();
        // Its end, and not a byte before it.
        match client.read(&mut [0]) {
            Ok(0) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
            other => panic!("{role:?}: {other:?}"),
        }
        // Who goes on in time is served.
        drop(bed);
        let bed = Bed::start(&draft, role);
        let mut slow = bed.client();
        slow.write_all(b"GE").unwrap();
        slow.write_all(b"T / HTTP/1.1\r\nHost: app\r\n\r\n")
            .unwrap();
        assert!(read_answer(&mut slow).ends_with("hello"));
    }
    assert!(connections.load(Ordering::SeqCst) >= 3);
}

/// A sidecar before an app, reached in plaintext and with mutual TLS.
fn before(app: SocketAddr, protocol: Protocol) -> Draft {
    let mut draft = Draft::new();
    draft.mesh.mtls = MtlsMode::Permissive;
    let port = &mut draft.workload.ports[0];
    (port.app, port.mtls, port.protocol) = (app, MtlsMode::Permissive, protocol);
    draft
}
