//! Heads that come in pieces and do not end: what they can hold is bounded, and others are served.

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
        std::thread::yield_now();
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

#[test]
fn a_byte_of_a_head_holds_no_receive_buffer() {
    let (upstream, _) = hello();
    let few = GroupPlan { start: 8, max: 8 };
    let plan = RingPlan {
        heads: few,
        ..RingPlan::default()
    };
    let limits = ConnLimits::default();
    let bed = Bed::start_turning(&draft(upstream), Role::Outbound, limits, plan, turn_until);
    // Eight times as many as there are buffers.
    // P may become the preface of HTTP/2, G is the beginning of a head.
    let crowd: Vec<TcpStream> = (0..64)
        .map(|at| {
            let mut client = bed.client();
            client.write_all(if at < 32 { b"P" } else { b"G" }).unwrap();
            client
        })
        .collect();
    until_kept(&bed, "all of them have begun", |kept| kept >= 32 * 512);
    assert!(bed.get("app").ends_with("hello"));
    drop(crowd);
}
