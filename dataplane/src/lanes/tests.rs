//! Two ends of a connection without a socket: what one says is what the other hears.

use std::collections::VecDeque;
use std::task::{Context, Poll, Waker};

use super::core::{Core, Side};
use super::frame::{Frame, FrameFault, HEAD_BYTES, LaneId};
use super::limits::{
    CANCELS_BURST, IDLE_FRAMES_BURST, LANES_MAX, RAPID_MS, TELL_TAKEN_BYTES, WINDOW_BYTES,
};
use crate::ring::tests::{TestRing, pattern, ring};
use crate::ring::{Chunk, Out, Ring};
use crate::time::Mono;

const NOW: Mono = Mono(0);

fn chunk(ring: &Ring, bytes: &[u8]) -> Chunk {
    let mut buf = ring.buf().unwrap();
    buf.extend_from_slice(bytes).unwrap();
    buf.freeze()
}

fn hear(core: &mut Core, ring: &Ring, bytes: &[u8]) -> Result<(), FrameFault> {
    hear_at(NOW, core, ring, bytes)
}

fn hear_at(now: Mono, core: &mut Core, ring: &Ring, bytes: &[u8]) -> Result<(), FrameFault> {
    for piece in bytes.chunks(16 * 1024) {
        core.receive(chunk(ring, piece), ring, now)?;
    }
    Ok(())
}

/// Sends as much as is taken; how much that was.
fn send(core: &mut Core, ring: &Ring, lane: LaneId, bytes: &[u8]) -> usize {
    let mut out = Out::new();
    for piece in bytes.chunks(16 * 1024) {
        out.push(chunk(ring, piece)).unwrap();
    }
    let mut sent = 0;
    let cx = Context::from_waker(Waker::noop());
    match core.poll_send(lane, &out, &mut sent, ring, &cx) {
        Poll::Ready(Ok(())) => assert_eq!(sent, bytes.len()),
        Poll::Ready(Err(error)) => panic!("{error}"),
        Poll::Pending => {}
    }
    sent
}

fn output(core: &mut Core, ring: &Ring) -> Vec<u8> {
    let mut bytes = Vec::new();
    while core.has_output() {
        let out = core.take_output(ring);
        core.pushed(out.len());
        bytes.extend(out.pieces().iter().flat_map(|piece| piece.iter().copied()));
    }
    bytes
}

/// What has come on a lane; `None` behind it: its end, or a reset.
fn read(core: &mut Core, lane: LaneId) -> (Vec<u8>, Option<bool>) {
    let mut bytes = Vec::new();
    loop {
        match core.try_recv(lane) {
            None => return (bytes, None),
            Some(Ok(chunk)) if chunk.is_empty() => return (bytes, Some(true)),
            Some(Ok(chunk)) => bytes.extend_from_slice(&chunk),
            Some(Err(_)) => return (bytes, Some(false)),
        }
    }
}

struct Pair {
    ring: TestRing,
    opener: Core,
    answerer: Core,
}

impl Pair {
    fn new() -> Self {
        Self {
            ring: ring(),
            opener: Core::new(Side::Opener, NOW),
            answerer: Core::new(Side::Answerer, NOW),
        }
    }

    fn forth(&mut self) {
        let said = output(&mut self.opener, &self.ring);
        hear(&mut self.answerer, &self.ring, &said).unwrap();
    }

    fn back(&mut self) {
        let said = output(&mut self.answerer, &self.ring);
        hear(&mut self.opener, &self.ring, &said).unwrap();
    }

    fn settle(&mut self) {
        while self.opener.has_output() || self.answerer.has_output() {
            self.forth();
            self.back();
        }
    }

    /// A lane both ends know.
    fn lane(&mut self) -> LaneId {
        let lane = self.opener.open().unwrap();
        assert_eq!(send(&mut self.opener, &self.ring, lane, b"hi"), 2);
        self.forth();
        assert_eq!(self.answerer.accept(), Some(lane));
        assert_eq!(read(&mut self.answerer, lane), (b"hi".to_vec(), None));
        lane
    }
}

#[test]
fn what_is_written_in_one_turn_leaves_as_one_piece() {
    let mut pair = Pair::new();
    for _ in 0..20 {
        let lane = pair.opener.open().unwrap();
        send(&mut pair.opener, &pair.ring, lane, &[b'x'; 100]);
    }
    let out = pair.opener.take_output(&pair.ring);
    assert_eq!(
        (out.pieces().len(), out.len()),
        (1, 20 * (100 + HEAD_BYTES))
    );
    assert!(!pair.opener.has_output());
}

#[test]
fn a_lane_that_nobody_reads_holds_up_no_other() {
    let mut pair = Pair::new();
    let (stuck, other) = (pair.lane(), pair.lane());
    let window = WINDOW_BYTES as usize;
    let bytes = pattern(2 * window);
    let mut sent = 0;
    // Two bytes had been sent and read, which is too little to be told.
    for len in [window / 2, window / 2 - 2] {
        let part = &bytes[sent..sent + len];
        sent += send(&mut pair.opener, &pair.ring, stuck, part);
        pair.settle();
    }
    assert_eq!(sent, window - 2);
    assert_eq!(send(&mut pair.opener, &pair.ring, stuck, b"more"), 0);
    assert!(pair.answerer.kept() <= window);
    assert_eq!(send(&mut pair.opener, &pair.ring, other, b"moves"), 5);
    pair.settle();
    assert_eq!(read(&mut pair.answerer, other).0, b"moves");
    // What is read may be sent again.
    assert_eq!(read(&mut pair.answerer, stuck).0, bytes[..sent]);
    pair.settle();
    let (ring, more) = (&pair.ring, &bytes[sent..sent + 100]);
    assert_eq!(send(&mut pair.opener, ring, stuck, more), 100);
}

/// A lane that found no buffer is output to be: whoever sends looks again, and wakes it.
#[test]
fn who_finds_no_buffer_is_not_forgotten() {
    let mut pair = Pair::new();
    let lane = pair.lane();
    let mut out = Out::new();
    out.push(chunk(&pair.ring, b"hello")).unwrap();
    let all: Vec<_> = std::iter::from_fn(|| pair.ring.buf()).collect();
    let cx = Context::from_waker(Waker::noop());
    let mut sent = 0;
    let polled = pair
        .opener
        .poll_send(lane, &out, &mut sent, &pair.ring, &cx);
    assert!(polled.is_pending());
    assert!(pair.opener.has_output());
    assert!(pair.opener.take_starved());
    drop(all);
    let polled = pair
        .opener
        .poll_send(lane, &out, &mut sent, &pair.ring, &cx);
    assert!(polled.is_ready());
    assert!(!output(&mut pair.opener, &pair.ring).is_empty());
}

#[test]
fn tiny_pieces_that_nobody_reads_hold_few_buffers() {
    let mut pair = Pair::new();
    let lane = pair.lane();
    for _ in 0..2_000 {
        send(&mut pair.opener, &pair.ring, lane, b"y");
        // A record, and so a buffer, each.
        pair.forth();
    }
    let mut chunks = 0;
    while let Some(Ok(_)) = pair.answerer.try_recv(lane) {
        chunks += 1;
    }
    assert!(chunks <= 4, "{chunks}");
}

#[test]
fn the_places_of_lanes_that_ended_are_used_again_and_no_others() {
    let mut pair = Pair::new();
    let lanes: Vec<LaneId> = (0..LANES_MAX).map(|_| pair.lane()).collect();
    assert_eq!(pair.opener.open(), None);
    // Ended by both; given up by the opener; by the answerer.
    let [ended, dropped, refused] = [lanes[0], lanes[1], lanes[2]];
    pair.opener.end(ended);
    pair.settle();
    assert_eq!(read(&mut pair.answerer, ended), (Vec::new(), Some(true)));
    pair.answerer.let_go(ended);
    pair.opener.reset(dropped);
    pair.answerer.reset(refused);
    assert_eq!(pair.opener.room(), 0, "nothing is settled yet");
    pair.settle();
    for lane in [ended, dropped, refused] {
        pair.opener.let_go(lane);
    }
    assert_eq!(read(&mut pair.answerer, dropped).1, Some(false));
    pair.answerer.let_go(dropped);
    pair.answerer.let_go(refused);
    pair.settle();
    assert_eq!(pair.opener.room(), 3);
    let again = pair.lane();
    assert_eq!((again.place(), again.uses()), (ended.place(), 2));
    assert_eq!(pair.answerer.cancelled, 1, "the one given up by its caller");
}

#[test]
fn who_writes_to_a_lane_that_nobody_holds_is_told() {
    let mut pair = Pair::new();
    let lane = pair.lane();
    pair.opener.let_go(lane);
    pair.settle();
    // As over a socket: the end first, and that nobody listens only if there is something to hear.
    assert_eq!(read(&mut pair.answerer, lane), (Vec::new(), Some(true)));
    send(&mut pair.answerer, &pair.ring, lane, b"late");
    pair.settle();
    let cx = Context::from_waker(Waker::noop());
    let out = Out::from(Chunk::from_static(b"later"));
    let sent = pair.answerer.poll_send(lane, &out, &mut 0, &pair.ring, &cx);
    assert!(matches!(sent, Poll::Ready(Err(_))), "{sent:?}");
    pair.answerer.let_go(lane);
    pair.settle();
    assert_eq!(
        (pair.opener.has_lanes(), pair.answerer.has_lanes()),
        (false, false)
    );
}

#[test]
fn an_answer_that_came_before_a_reset_is_read() {
    let mut pair = Pair::new();
    let lane = pair.lane();
    send(&mut pair.opener, &pair.ring, lane, b"a body nobody reads");
    pair.forth();
    send(&mut pair.answerer, &pair.ring, lane, b"413");
    pair.answerer.end(lane);
    pair.answerer.let_go(lane);
    pair.settle();
    assert_eq!(read(&mut pair.opener, lane).0, b"413");
}

#[test]
fn after_the_last_lane_none_is_opened_and_those_under_way_go_on() {
    let mut pair = Pair::new();
    let lane = pair.lane();
    // One that the other side has not heard of.
    let unheard = pair.opener.open().unwrap();
    pair.answerer.say_last();
    pair.settle();
    assert!(pair.opener.is_last() && pair.answerer.is_last());
    assert!(!pair.opener.is_quiet(lane), "a pool does not lend it");
    assert_eq!(pair.opener.open(), None);
    assert_eq!(pair.answerer.accept(), Some(unheard));
    for lane in [lane, unheard] {
        send(&mut pair.opener, &pair.ring, lane, b"more");
        pair.settle();
        assert_eq!(read(&mut pair.answerer, lane).0, b"more");
    }
}

#[test]
fn what_breaks_the_protocol_ends_it() {
    let data = |lane, open, end, len: u16| {
        let frame = Frame::Data {
            lane,
            open,
            end,
            len,
        };
        let mut bytes = frame.encode().to_vec();
        bytes.resize(HEAD_BYTES + usize::from(len), b'x');
        bytes
    };
    let (first, second) = (LaneId::new(0, 1), LaneId::new(1, 1));
    let begun = data(first, true, false, 3);
    let joined = |parts: &[Vec<u8>]| parts.concat();
    let taken = |lane, bytes| Frame::Taken { lane, bytes }.encode().to_vec();
    let last = Frame::Last.encode().to_vec();
    let flood = |frame: Frame| frame.encode().repeat(IDLE_FRAMES_BURST as usize + 1);
    let mut cancels = Vec::new();
    for uses in 1..=CANCELS_BURST + 1 {
        let lane = LaneId::new(0, uses);
        cancels.push(data(lane, true, false, 1));
        cancels.push(Frame::Reset { lane }.encode().to_vec());
    }
    for (name, bytes, fault) in [
        (
            "bytes of no lane",
            data(first, false, false, 3),
            FrameFault::Unknown,
        ),
        ("window of no lane", taken(second, 1), FrameFault::Unknown),
        (
            "reset of no lane",
            Frame::Reset { lane: second }.encode().to_vec(),
            FrameFault::Unknown,
        ),
        (
            "opened twice",
            joined(&[begun.clone(), begun.clone()]),
            FrameFault::Open,
        ),
        (
            "no such place",
            data(LaneId::new(64, 1), true, false, 1),
            FrameFault::Open,
        ),
        (
            "used never",
            data(LaneId::new(0, 0), true, false, 1),
            FrameFault::Open,
        ),
        (
            "after the last",
            joined(&[last.clone(), begun.clone()]),
            FrameFault::Open,
        ),
        ("two last", joined(&[last.clone(), last]), FrameFault::Flood),
        (
            "too much",
            joined(&[
                data(first, true, false, 65_535),
                data(first, false, false, 2),
            ]),
            FrameFault::Window,
        ),
        (
            "more credit than is",
            joined(&[begun.clone(), taken(first, 1)]),
            FrameFault::Window,
        ),
        (
            "behind the end",
            joined(&[data(first, true, true, 1), data(first, false, false, 1)]),
            FrameFault::Window,
        ),
        ("pings", flood(Frame::Ping(1)), FrameFault::Flood),
        ("pongs", flood(Frame::Pong(1)), FrameFault::Flood),
        (
            "no frame",
            b"GET / HTTP/1.1\r\n".to_vec(),
            FrameFault::Malformed,
        ),
    ] {
        let mut pair = Pair::new();
        let heard = hear(&mut pair.answerer, &pair.ring, &bytes);
        assert_eq!(heard, Err(fault), "{name}");
    }
    // Lanes opened and given up at once, each settled.
    let mut pair = Pair::new();
    let heard = cancels.iter().try_for_each(|frame| {
        let heard = hear(&mut pair.answerer, &pair.ring, frame);
        if let Some(id) = pair.answerer.accept() {
            pair.answerer.let_go(id);
        }
        output(&mut pair.answerer, &pair.ring);
        heard
    });
    assert_eq!(heard, Ok(()), "an end that was said is no cancel");
    // And the side that opens is asked for none.
    let mut pair = Pair::new();
    assert_eq!(
        hear(&mut pair.opener, &pair.ring, &begun),
        Err(FrameFault::Open)
    );
}

/// Opens lanes and gives each up after a while, until that is a fault or has gone on for long; how many were.
fn opened_and_given_up(after_ms: u64) -> (u32, Result<(), FrameFault>) {
    let mut pair = Pair::new();
    for uses in 1..=2 * CANCELS_BURST {
        let lane = LaneId::new(0, uses);
        let open = Frame::Data {
            lane,
            open: true,
            end: false,
            len: 0,
        };
        let heard = hear(&mut pair.answerer, &pair.ring, &open.encode()).and_then(|()| {
            let reset = Frame::Reset { lane }.encode();
            let at = NOW.plus_ms(after_ms);
            hear_at(at, &mut pair.answerer, &pair.ring, &reset)
        });
        if heard.is_err() {
            return (uses, heard);
        }
        output(&mut pair.answerer, &pair.ring);
        // Who serves it sees that it is over.
        assert_eq!(pair.answerer.accept(), Some(lane));
        pair.answerer.let_go(lane);
    }
    (2 * CANCELS_BURST, Ok(()))
}

#[test]
fn lanes_opened_and_given_up_at_once_end_it_in_the_long_run() {
    let fault = Err(FrameFault::Flood);
    assert_eq!(opened_and_given_up(0), (CANCELS_BURST + 1, fault));
    // Some are back by then.
    let (uses, end) = opened_and_given_up(RAPID_MS - 1);
    assert!(end == fault && uses < CANCELS_BURST + 100, "{uses}");
}

/// Callers whose time is over while the app hangs.
#[test]
fn lanes_given_up_after_a_while_end_nothing() {
    assert_eq!(opened_and_given_up(RAPID_MS), (2 * CANCELS_BURST, Ok(())));
}

#[test]
fn any_bytes_are_borne() {
    let ring = ring();
    let mut random = fastrand::Rng::with_seed(5);
    for round in 0..400 {
        let mut bytes = Vec::new();
        while bytes.len() < 4_000 {
            let lane = LaneId::new(random.u8(..3), random.u32(..3));
            let len = random.u16(..300);
            let frame = match random.u8(..10) {
                0..6 => Frame::Data {
                    lane,
                    open: random.bool(),
                    end: random.u8(..8) == 0,
                    len,
                },
                6 => Frame::Taken {
                    lane,
                    bytes: len.max(1),
                },
                7 => Frame::Reset { lane },
                8 => Frame::Ping(7),
                _ => Frame::Last,
            };
            bytes.extend(frame.encode());
            if let Frame::Data { len, .. } = frame {
                bytes.resize(bytes.len() + usize::from(len), round as u8);
            }
            if random.u8(..40) == 0 {
                bytes.push(random.u8(..));
            }
        }
        let step = random.usize(1..5_000);
        super::drive::frames(&bytes, step);
        super::drive::hostile(&ring, &bytes, step);
    }
}

/// One direction of a lane as it should be.
#[derive(Default)]
struct Direction {
    /// Sent and not read.
    under_way: VecDeque<u8>,
    ended: bool,
}

/// Two ends do what they like; whatever is read is what was sent, in order, and everything arrives.
#[test]
fn lanes_carry_bytes_whatever_happens_on_the_others() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut pair = Pair::new();
        let mut lanes: Vec<(LaneId, [Direction; 2])> = Vec::new();
        for _ in 0..600 {
            let at = random.usize(..lanes.len().max(1));
            match random.u8(..12) {
                0 if lanes.len() < 12 => {
                    let lane = pair.lane();
                    lanes.push((lane, Default::default()));
                }
                1..5 => {
                    let Some((lane, ways)) = lanes.get_mut(at) else {
                        continue;
                    };
                    let forth = random.bool();
                    let way = &mut ways[usize::from(forth)];
                    if way.ended {
                        continue;
                    }
                    let len = match random.u8(..8) {
                        0 => random.usize(..60_000),
                        _ => random.usize(1..400),
                    };
                    let bytes: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
                    let core = match forth {
                        true => &mut pair.opener,
                        false => &mut pair.answerer,
                    };
                    let sent = send(core, &pair.ring, *lane, &bytes);
                    way.under_way.extend(&bytes[..sent]);
                    if sent < len {
                        // Given up half-way: it may only be reset.
                        core.reset(*lane);
                        pair.settle();
                        pair.opener.let_go(*lane);
                        pair.answerer.let_go(*lane);
                        lanes.swap_remove(at);
                    }
                }
                5..9 => {
                    let Some((lane, ways)) = lanes.get_mut(at) else {
                        continue;
                    };
                    let forth = random.bool();
                    let core = match forth {
                        true => &mut pair.answerer,
                        false => &mut pair.opener,
                    };
                    let way = &mut ways[usize::from(forth)];
                    let (bytes, end) = read(core, *lane);
                    let sent: Vec<u8> = way.under_way.drain(..bytes.len()).collect();
                    assert!(bytes == sent, "seed {seed}");
                    if let Some(is_end) = end {
                        assert!(
                            is_end && way.ended && way.under_way.is_empty(),
                            "seed {seed}"
                        );
                    }
                }
                9 => {
                    let Some((lane, ways)) = lanes.get_mut(at) else {
                        continue;
                    };
                    let forth = random.bool();
                    ways[usize::from(forth)].ended = true;
                    match forth {
                        true => pair.opener.end(*lane),
                        false => pair.answerer.end(*lane),
                    }
                }
                10 => pair.forth(),
                _ => pair.back(),
            }
        }
        pair.settle();
        for (lane, mut ways) in lanes {
            for (forth, core) in [(1, &mut pair.answerer), (0, &mut pair.opener)] {
                let bytes = read(core, lane).0;
                let sent: Vec<u8> = ways[forth].under_way.drain(..).collect();
                assert!(bytes == sent, "seed {seed}");
                core.let_go(lane);
            }
        }
        pair.settle();
        assert_eq!(
            (pair.opener.has_lanes(), pair.answerer.has_lanes()),
            (false, false),
            "seed {seed}"
        );
        assert_eq!((pair.opener.kept(), pair.answerer.kept()), (0, 0));
        assert!(!pair.opener.is_busy() && !pair.answerer.is_busy());
    }
}

const _: () = assert!(
    TELL_TAKEN_BYTES < WINDOW_BYTES,
    "who waits for credit is told in time"
);
