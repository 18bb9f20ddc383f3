//! Floods of HTTP/2 frames against the real sidecar: whoever sends them is hung up on, and neither its memory nor
//! its CPU nor anybody else pays for it. What is found stands in docs/http2.md.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::ports::free_port;
use ringmesh_tests::upstream::Upstream;
use ringmesh_tests::{Conn, SOON, Stop, stage, wait};

use crate::standalone::{LOCAL, run_with};
use crate::watched::Watched;

/// Frames of one flood at most: a hundred times what is bearable.
const FRAMES_MAX: u32 = 100_000;
/// Frames of one write; as many as a connection may have streams.
const AT_ONCE: u32 = 100;

/// What the sidecar's memory may grow by with a flood, KiB: half of what its pools of buffers may be
/// (docs/bounds.md). Seen: 5 MiB where answers are not taken, less than 1 MiB otherwise.
const GROWTH_MAX_KIB: u64 = 32 * 1024;
/// CPU for a frame that was taken, for a connection, and for an answer to somebody else, whose cost is measured
/// before. Of an unoptimised build on a machine with other work; seen: some milliseconds, 80 for a hundred
/// answers that are not taken.
const CPU_PER_FRAME: Duration = Duration::from_micros(30);
const CPU_PER_FLOOD: Duration = Duration::from_millis(300);
const CPU_PER_ANSWER: u32 = 3;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const ACK: u8 = 0x1;
const END_STREAM: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

const ENHANCE_YOUR_CALM: u32 = 11;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len())
        .expect("a length")
        .to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A request's fields, without indexing (RFC 7541 section 6.2.2).
fn get(path: &str) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "any.example"),
        (":path", path),
    ] {
        block.push(0);
        for text in [name, value] {
            block.push(u8::try_from(text.len()).expect("a short text"));
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// How the connection has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// GOAWAY ENHANCE_YOUR_CALM.
    Calmed,
    /// It stands: what it asks for is bounded, and it gets no more.
    Stands,
}

struct Flood {
    what: &'static str,
    /// Said first, behind the preface and SETTINGS.
    first: Vec<u8>,
    /// The frames of the flood by number, and how many frames each time.
    next: fn(u32) -> Vec<u8>,
    frames_each: u32,
    ends: Ends,
}

/// A stream that stays open, for floods on one.
fn open() -> Vec<u8> {
    frame(HEADERS, END_HEADERS, 1, &get("/echo"))
}

/// SETTINGS_INITIAL_WINDOW_SIZE of 0.
fn shut() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])
}

fn large(n: u32) -> Vec<u8> {
    let block = get("/bytes/10000000");
    frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 1, &block)
}

fn floods() -> Vec<Flood> {
    let flood = |what, first, next, frames_each, ends| Flood {
        what,
        first,
        next,
        frames_each,
        ends,
    };
    vec![
        flood(
            "rapid reset",
            Vec::new(),
            |n| {
                let stream = 2 * n + 1;
                let mut bytes = frame(HEADERS, END_HEADERS | END_STREAM, stream, &get("/bytes/1"));
                bytes.extend(frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()));
                bytes
            },
            2,
            Ends::Calmed,
        ),
        flood(
            "CONTINUATION",
            frame(HEADERS, END_STREAM, 1, &get("/bytes/1")),
            |_| frame(CONTINUATION, 0, 1, b"\0\x01a\x01b"),
            1,
            Ends::Calmed,
        ),
        flood(
            "empty CONTINUATION",
            frame(HEADERS, END_STREAM, 1, &get("/bytes/1")),
            |_| frame(CONTINUATION, 0, 1, b""),
            1,
            Ends::Calmed,
        ),
        flood(
            "SETTINGS",
            Vec::new(),
            |_| frame(SETTINGS, 0, 0, &[]),
            1,
            Ends::Calmed,
        ),
        flood(
            "SETTINGS that change windows",
            open(),
            |n| frame(SETTINGS, 0, 0, &[0, 4, 0, 0, (n % 200) as u8, 0]),
            1,
            Ends::Calmed,
        ),
        flood(
            "PING",
            Vec::new(),
            |_| frame(PING, 0, 0, &[7; 8]),
            1,
            Ends::Calmed,
        ),
        flood(
            "answers to PING",
            Vec::new(),
            |_| frame(PING, ACK, 0, &[7; 8]),
            1,
            Ends::Calmed,
        ),
        flood(
            "empty DATA",
            open(),
            |_| frame(DATA, 0, 1, &[]),
            1,
            Ends::Calmed,
        ),
        flood(
            "WINDOW_UPDATE",
            Vec::new(),
            |_| frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
            1,
            Ends::Calmed,
        ),
        flood(
            "WINDOW_UPDATE of a stream",
            open(),
            |_| frame(WINDOW_UPDATE, 0, 1, &1_u32.to_be_bytes()),
            1,
            Ends::Calmed,
        ),
        // An entry of the dynamic table that is named again and again (an HPACK bomb).
        flood(
            "a small head that is a large one",
            {
                let mut block = get("/bytes/1");
                block.extend(b"\x40\x01a\x7f\xe1\x1c");
                block.extend([b'x'; 3_808]);
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &block)
            },
            |n| {
                let block = [get("/bytes/1"), vec![0xbe; 4_000]].concat();
                frame(HEADERS, END_HEADERS | END_STREAM, 2 * n + 3, &block)
            },
            1,
            Ends::Calmed,
        ),
        // Answers nobody takes, of as many streams as there may be ...
        flood("shut windows", shut(), large, 1, Ends::Stands),
        // ... and of more.
        flood("streams above the limit", shut(), large, 1, Ends::Calmed),
    ]
}

/// A client that sends what it likes.
struct Hostile(TcpStream);

impl Hostile {
    fn begin(to: SocketAddr, first: &[u8]) -> Self {
        let mut socket = TcpStream::connect(to).expect("connect");
        socket.set_read_timeout(Some(SOON)).expect("a timeout");
        let start = [
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            &*frame(SETTINGS, 0, 0, &[]),
            first,
        ];
        socket.write_all(&start.concat()).expect("a beginning");
        Self(socket)
    }

    /// The next frame: kind, flags, payload; `None` at the end.
    fn next(&mut self) -> Option<(u8, u8, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).expect("a length")];
        self.0.read_exact(&mut payload).ok()?;
        Some((head[3], head[4], payload))
    }

    /// Code of the GOAWAY that has to come, or that its PING is still answered.
    fn end(&mut self) -> Result<u32, Ends> {
        loop {
            match self.next().expect("GOAWAY, or an answer to PING") {
                (GOAWAY, _, payload) => {
                    let code = payload[4..8].try_into().expect("a code");
                    return Ok(u32::from_be_bytes(code));
                }
                (PING, ACK, payload) if payload == LAST => return Err(Ends::Stands),
                _ => {}
            }
        }
    }
}

/// The PING behind a flood that is no reason to hang up.
const LAST: [u8; 8] = *b"the last";

/// Sends a flood until nobody takes it; how many frames that were.
fn flood(mut to: TcpStream, flood: &Flood) -> u64 {
    let mut sent = 0;
    let rounds = FRAMES_MAX / flood.frames_each / AT_ONCE;
    for round in 0..rounds {
        let numbers = round * AT_ONCE..(round + 1) * AT_ONCE;
        let bytes: Vec<u8> = numbers.flat_map(flood.next).collect();
        if to.write_all(&bytes).is_err() {
            return sent;
        }
        sent += u64::from(AT_ONCE * flood.frames_each);
        if flood.ends == Ends::Stands {
            let _ = to.write_all(&frame(PING, 0, 0, &LAST));
            return sent;
        }
    }
    sent
}

#[test]
fn floods_cost_little_and_others_are_served_meanwhile() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let (stage, upstream) = (stage(), Upstream::http(LOCAL));
    let admin = (LOCAL, free_port()).into();
    let environment = [("ADMIN", &*format!("{admin}"))];
    let (process, port) = run_with(&stage, "standalone", &upstream, "http", &environment);
    let log = stage.dir().join("standalone/access.log");
    let sidecar = Watched::of(process.pid(), admin, log);
    let to: SocketAddr = (LOCAL, port).into();
    let (stop, answers) = (Stop::default(), AtomicU64::new(0));
    let bystander = || {
        let mut conn = Conn::open(to, SOON).expect("connect");
        while !stop.flag().load(Ordering::Relaxed) {
            let answer = conn.get("any.example", "/bytes/128", &[]).expect("answer");
            assert_eq!(answer.status, 200);
            answers.fetch_add(1, Ordering::Relaxed);
        }
    };
    let answered = |more: u64| {
        let from = answers.load(Ordering::Relaxed);
        wait::until_true("answers to somebody else", SOON, || {
            answers.load(Ordering::Relaxed) >= from + more
        })
        .expect("answered");
    };
    std::thread::scope(|scope| {
        let _end = stop.at_end();
        scope.spawn(bystander);
        answered(200);
        let (cpu, from) = (sidecar.cpu(), answers.load(Ordering::Relaxed));
        answered(1_000);
        let calm = (answers.load(Ordering::Relaxed) - from) as u32;
        let per_answer = (sidecar.cpu() - cpu) / calm;
        println!(
            "{} us of CPU for an answer to somebody else",
            per_answer.as_micros()
        );
        println!("| flood | frames taken | CPU ms | memory, KiB | answers to others meanwhile |");
        for flood_of in floods() {
            let what = flood_of.what;
            let (cpu, memory, from) = (
                sidecar.cpu(),
                sidecar.resident_kib(),
                answers.load(Ordering::Relaxed),
            );
            let mut hostile = Hostile::begin(to, &flood_of.first);
            let writer = hostile.0.try_clone().expect("a handle");
            let (sent, end) = std::thread::scope(|scope| {
                let writing = scope.spawn(|| flood(writer, &flood_of));
                let end = hostile.end();
                // Nothing more is read, and the sidecar takes no more.
                if end.is_ok() {
                    let _ = hostile.0.shutdown(Shutdown::Both);
                }
                (writing.join().expect("a flood"), end)
            });
            let wanted = match flood_of.ends {
                Ends::Calmed => Ok(ENHANCE_YOUR_CALM),
                stands @ Ends::Stands => Err(stands),
            };
            assert_eq!(end, wanted, "{what}");
            // Long enough for what it has asked for to come, too.
            answered(100);
            let others = answers.load(Ordering::Relaxed) - from;
            let cpu = sidecar.cpu() - cpu;
            let grown = sidecar.resident_kib().saturating_sub(memory);
            let beside = per_answer * u32::try_from(others).expect("answers");
            println!(
                "| {what} | {sent} | {} | {grown} | {others} |",
                cpu.saturating_sub(beside).as_millis()
            );
            assert!(sent < u64::from(FRAMES_MAX), "{what}: all of it was taken");
            assert!(grown <= GROWTH_MAX_KIB, "{what}: {grown} KiB more");
            let frames = u32::try_from(sent).expect("frames");
            let allowed = CPU_PER_FLOOD + CPU_PER_FRAME * frames + beside * CPU_PER_ANSWER;
            assert!(
                cpu <= allowed,
                "{what}: {cpu:?} of CPU, {allowed:?} are allowed"
            );
        }
    });
}
