//! What HTTP/2 makes a shard keep is bounded for the shard, and small calls go on where it is used up.

use ringmesh_wire::report::{Series, SeriesValue};

use super::http2::{Outcome, Raw, block, frame};
use super::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;

const KEPT: &str = "ringmesh_kept_bytes";
const REFUSED: &str = "ringmesh_connections_refused_total";
const FRAME_BYTES: usize = 16 * 1024;
const MAX: usize = 1 << 20;
/// For longer than a test takes.
const DELAY_MS: u64 = 300_000;

/// `app` answers; calls of `slow` are held back in the sidecar.
fn bed(kept_bytes_max: usize) -> Bed {
    let (upstream, _) = hello();
    let address = upstream.ip().to_string();
    let mut draft =
        draft(upstream)
            .service("slow", &[80])
            .endpoint_with("slow", &address, &[], |endpoint| {
                endpoint.mesh_port = None;
                endpoint.ports[0].app_port = upstream.port();
            });
    let mut route = to(&[("slow", "", 1)]);
    route.fault = Some(Fault {
        delay: Some(Delay {
            per_million: 1_000_000,
            delay_ms: DELAY_MS,
        }),
        abort: None,
    });
    draft = draft.http("slow", vec![route]);
    let limits = ConnLimits {
        kept_bytes_max,
        ..ConnLimits::default()
    };
    Bed::start_with(&draft, Role::Outbound, limits)
}

fn head(method: &str, host: &str) -> Vec<u8> {
    block(&[
        (":method", method),
        (":scheme", "http"),
        (":authority", host),
        (":path", "/"),
    ])
}

/// A field of this many bytes, name and length included.
fn long_field(bytes: usize) -> Vec<u8> {
    let value = u32::try_from(bytes - 7).unwrap();
    // A literal without indexing; its value's length is an integer with a prefix of seven bits (RFC 7541
    // section 5.1).
    let mut field = vec![0, 1, b'x', 127];
    let mut rest = value - 127;
    while rest >= 128 {
        field.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    field.push(rest as u8);
    field.resize(field.len() + value as usize, b'y');
    field
}

/// All series of the shard; `None` if nothing has changed since they were asked for last.
fn collected(bed: &Bed) -> Option<Vec<Series>> {
    bed.mailbox.send(ToShard::Collect).unwrap();
    loop {
        match bed.next() {
            FromShard::Stats(stats) => return Some(crate::telemetry::merge(&[*stats])),
            FromShard::Quiet => return None,
            _ => {}
        }
    }
}

/// A gauge or counter among them, by its name and the value of its only label.
fn value(series: &[Series], name: &str, label: &str) -> Option<i64> {
    let one = series
        .iter()
        .find(|one| one.name == name && one.labels.iter().all(|(_, value)| value == label));
    one.map(|one| match one.value {
        SeriesValue::Gauge(value) => value,
        SeriesValue::Counter(value) => value as i64,
        _ => panic!("{name} is a number"),
    })
}

/// One of them; `None` also if nothing has changed since they were asked for last.
fn figure(bed: &Bed, name: &str, label: &str) -> Option<i64> {
    value(&collected(bed)?, name, label)
}

/// What is kept, once it is so.
fn until_kept(bed: &Bed, what: &str, is: impl Fn(i64) -> bool) {
    let until = Instant::now() + PATIENCE;
    let mut last = None;
    loop {
        last = figure(bed, KEPT, "").or(last);
        if last.is_some_and(&is) {
            return;
        }
        assert!(Instant::now() < until, "{what}: {last:?}");
    }
}

/// An upload of a body that nobody takes: as much as its window allows.
fn upload(raw: &mut Raw, stream: u32, bytes: usize) {
    raw.send(HEADERS, END_HEADERS, stream, &head("POST", "slow"));
    let mut left = bytes;
    while left > 0 {
        let now = left.min(FRAME_BYTES);
        raw.send(DATA, 0, stream, &vec![7; now]);
        left -= now;
    }
}

fn answers(bed: &Bed) {
    let mut small = Raw::open(bed);
    small.send(HEADERS, END_HEADERS, 1, &head("POST", "app"));
    small.send(DATA, END_STREAM, 1, b"a small call");
    assert_eq!(small.outcome(1), Outcome::Answer);
}

#[test]
fn bodies_nobody_takes_are_bounded_for_the_shard() {
    let bed = bed(MAX);
    let mut crowd = Vec::new();
    // Each connection could hold a hundred windows, all of them six times what the shard may keep.
    for _ in 0..4 {
        let mut raw = Raw::open(&bed);
        for stream in 0..25 {
            upload(&mut raw, 2 * stream + 1, 65_535);
        }
        crowd.push(raw);
    }
    let until = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < until, "nobody was shed");
        // Both of one look: what has changed is told once.
        let Some(series) = collected(&bed) else {
            continue;
        };
        let kept = value(&series, KEPT, "").unwrap_or(0);
        assert!(kept <= MAX as i64, "{kept} bytes kept");
        if value(&series, REFUSED, "shed").is_some() {
            break;
        }
    }
    answers(&bed);
    drop(crowd);
    until_kept(&bed, "all of it was given back", |kept| kept == 0);
}

#[test]
fn small_calls_go_on_where_all_of_it_is_used() {
    let bed = bed(MAX);
    let mut big = Raw::open(&bed);
    let mut kept = 0;
    let mut stream = 1;
    while kept + 65_535 < MAX {
        upload(&mut big, stream, 65_535);
        (kept, stream) = (kept + 65_535, stream + 2);
    }
    let least = (kept - 2 * FRAME_BYTES) as i64;
    until_kept(&bed, "all that was sent is held", |kept| kept >= least);
    answers(&bed);
    // One that needs more loses its connection, and is told which streams may have been processed (RFC 9113
    // section 6.8).
    let mut other = Raw::open(&bed);
    other.send(HEADERS, END_HEADERS | END_STREAM, 1, &head("GET", "app"));
    assert_eq!(other.outcome(1), Outcome::Answer);
    assert_eq!(figure(&bed, REFUSED, "shed"), None);
    let slow = [3, 5, 7];
    for stream in slow {
        other.send(HEADERS, END_HEADERS, stream, &head("POST", "slow"));
    }
    other.settle();
    for stream in slow {
        for _ in 0..3 {
            other.send(DATA, 0, stream, &[7; FRAME_BYTES]);
        }
    }
    other.send(HEADERS, END_HEADERS | END_STREAM, 9, &head("GET", "app"));
    assert_eq!(other.goodbye(), (7, ENHANCE_YOUR_CALM));
    assert_eq!(other.outcome(3), Outcome::End);
    assert_eq!(figure(&bed, REFUSED, "shed"), Some(1));
    answers(&bed);
    drop(big);
    until_kept(&bed, "all of it was given back", |kept| kept == 0);
}

#[test]
fn heads_that_do_not_end_are_bounded_for_the_shard() {
    let bed = bed(4 * FRAME_BYTES);
    let begun = |frames: usize| {
        let mut raw = Raw::open(&bed);
        let field = long_field(FRAME_BYTES - 64);
        raw.send(HEADERS, 0, 1, &[&head("GET", "app")[..], &field].concat());
        for _ in 1..frames {
            raw.send(CONTINUATION, 0, 1, &field);
        }
        raw
    };
    // The first frame of each is free.
    let mut crowd: Vec<Raw> = (0..8).map(|_| begun(1)).collect();
    answers(&bed);
    crowd.extend((0..8).map(|_| begun(3)));
    // Of the others there is room for two.
    let until = Instant::now() + PATIENCE;
    while figure(&bed, REFUSED, "shed").is_none_or(|shed| shed < 6) {
        assert!(Instant::now() < until, "six are too many");
    }
    answers(&bed);
    drop(crowd);
    until_kept(&bed, "all of it was given back", |kept| kept == 0);
}

#[test]
fn large_heads_are_refused_where_there_is_no_room_and_may_be_sent_again() {
    let bed = bed(3 * FRAME_BYTES);
    let large = |raw: &mut Raw, stream: u32, host: &str| {
        let field = long_field(FRAME_BYTES - 256);
        let block = [&head("GET", host)[..], &field].concat();
        raw.write(&frame(HEADERS, END_HEADERS | END_STREAM, stream, &block));
    };
    let mut raw = Raw::open(&bed);
    large(&mut raw, 1, "slow");
    until_kept(&bed, "the first head is kept", |kept| kept > 0);
    large(&mut raw, 3, "app");
    assert_eq!(raw.outcome(3), Outcome::Reset(REFUSED_STREAM));
    // With the first one its room is free.
    const CANCEL: u32 = 8;
    raw.send(3, 0, 1, &CANCEL.to_be_bytes());
    until_kept(&bed, "all of it was given back", |kept| kept == 0);
    large(&mut raw, 5, "app");
    assert_eq!(raw.outcome(5), Outcome::Answer);
}
