//! A client that breaks RFC 9113 frame by frame, sections 3 to 8. What the h2 crate answers with another code than
//! the standard names is marked; nothing of it may reach the app or end more than its connection.

use super::http2::{Outcome, Raw, bed, block, frame};
use super::*;

const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const REFUSED: u32 = 7;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const WHOLE: u8 = END_STREAM | END_HEADERS;

type Fields = [(&'static str, &'static str)];

const METHOD: (&str, &str) = (":method", "GET");
const SCHEME: (&str, &str) = (":scheme", "http");
const AUTHORITY: (&str, &str) = (":authority", "app");
/// The app does not answer this one.
const HANG: (&str, &str) = (":path", "/hang");

fn get(path: &'static str, more: &Fields) -> Vec<u8> {
    block(&[&[METHOD, SCHEME, AUTHORITY, (":path", path)], more].concat())
}

/// A whole request on stream 1 that is answered unless something is wrong with it.
fn whole(fields: &Fields) -> Vec<u8> {
    frame(HEADERS, WHOLE, 1, &block(fields))
}

/// Stream 1 is open and its request under way; then `frames`.
fn open_and(frames: &[u8]) -> Vec<u8> {
    let open = frame(HEADERS, END_HEADERS, 1, &get("/hang", &[]));
    [&open, frames].concat()
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    let payload = [&id.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &payload)
}

fn go_away(code: u32) -> Outcome {
    Outcome::GoAway(code)
}

fn reset(code: u32) -> Outcome {
    Outcome::Reset(code)
}

/// (section, what, frames, what has to come of stream 1)
fn cases() -> Vec<(&'static str, &'static str, Vec<u8>, Outcome)> {
    let answered = || frame(HEADERS, WHOLE, 1, &get("/", &[]));
    let head = get("/", &[]);
    let with = |field| whole(&[METHOD, SCHEME, AUTHORITY, HANG, field]);
    vec![
        (
            "4.1",
            "an unknown kind",
            [frame(0xfa, 0xff, 7, b"abc"), answered()].concat(),
            Outcome::Answer,
        ),
        (
            "4.1",
            "the reserved bit",
            frame(HEADERS, WHOLE, 0x8000_0001, &head),
            Outcome::Answer,
        ),
        (
            "4.3",
            "a head in two pieces",
            [
                frame(HEADERS, END_STREAM, 1, &head[..9]),
                frame(CONTINUATION, END_HEADERS, 1, &head[9..]),
            ]
            .concat(),
            Outcome::Answer,
        ),
        (
            "4.3",
            "a head cut by PING",
            [
                frame(HEADERS, END_STREAM, 1, &head[..9]),
                frame(PING, 0, 0, &[0; 8]),
            ]
            .concat(),
            go_away(PROTOCOL),
        ),
        (
            "6.10",
            "CONTINUATION of another stream",
            [
                frame(HEADERS, END_STREAM, 1, &head[..9]),
                frame(CONTINUATION, END_HEADERS, 3, &head[9..]),
            ]
            .concat(),
            go_away(PROTOCOL),
        ),
        // STREAM_CLOSED in the standard.
        (
            "5.1",
            "DATA behind the end",
            [
                frame(HEADERS, WHOLE, 1, &get("/hang", &[])),
                frame(DATA, 0, 1, b"x"),
            ]
            .concat(),
            go_away(PROTOCOL),
        ),
        (
            "5.1.1",
            "a number that goes back",
            [frame(HEADERS, WHOLE, 3, &get("/hang", &[])), answered()].concat(),
            go_away(PROTOCOL),
        ),
        (
            "5.1.1",
            "HEADERS on stream 0",
            frame(HEADERS, WHOLE, 0, &head),
            go_away(PROTOCOL),
        ),
        (
            "6.1",
            "padding longer than DATA",
            open_and(&frame(DATA, PADDED, 1, &[9, 0])),
            go_away(PROTOCOL),
        ),
        (
            "6.2",
            "padding longer than HEADERS",
            frame(HEADERS, WHOLE | PADDED, 1, &[9, 0]),
            go_away(PROTOCOL),
        ),
        // A stream error of FRAME_SIZE in the standard.
        (
            "6.3",
            "PRIORITY of four bytes",
            frame(PRIORITY, 0, 1, &[0; 4]),
            go_away(PROTOCOL),
        ),
        (
            "6.4",
            "RST_STREAM of an idle stream",
            frame(RST_STREAM, 0, 1, &[0; 4]),
            go_away(PROTOCOL),
        ),
        (
            "6.4",
            "RST_STREAM of stream 0",
            frame(RST_STREAM, 0, 0, &[0; 4]),
            go_away(PROTOCOL),
        ),
        // FRAME_SIZE in the standard.
        (
            "6.4",
            "RST_STREAM of three bytes",
            open_and(&frame(RST_STREAM, 0, 1, &[0; 3])),
            go_away(PROTOCOL),
        ),
        (
            "6.5",
            "SETTINGS of a stream",
            frame(SETTINGS, 0, 1, &[]),
            go_away(PROTOCOL),
        ),
        // FRAME_SIZE in the standard.
        (
            "6.5",
            "an acknowledgement that says something",
            frame(SETTINGS, ACK, 0, &[0; 6]),
            go_away(PROTOCOL),
        ),
        (
            "6.5.2",
            "a setting nobody knows",
            [setting(0xfa, 7), answered()].concat(),
            Outcome::Answer,
        ),
        ("6.5.2", "push of 2", setting(2, 2), go_away(PROTOCOL)),
        // FLOW_CONTROL in the standard.
        (
            "6.5.2",
            "a window above the largest",
            setting(4, 0x8000_0000),
            go_away(PROTOCOL),
        ),
        (
            "6.5.2",
            "frames below the smallest",
            setting(5, 16_383),
            go_away(PROTOCOL),
        ),
        (
            "6.5.2",
            "frames above the largest",
            setting(5, 0x100_0000),
            go_away(PROTOCOL),
        ),
        (
            "8.4",
            "PUSH_PROMISE of a client",
            frame(
                PUSH_PROMISE,
                END_HEADERS,
                1,
                &[&[0, 0, 0, 2][..], &head].concat(),
            ),
            go_away(PROTOCOL),
        ),
        (
            "6.7",
            "PING of a stream",
            frame(PING, 0, 1, &[0; 8]),
            go_away(PROTOCOL),
        ),
        (
            "6.8",
            "GOAWAY of a stream",
            frame(GOAWAY, 0, 1, &[0; 8]),
            go_away(PROTOCOL),
        ),
        (
            "6.9",
            "WINDOW_UPDATE of zero",
            open_and(&frame(WINDOW_UPDATE, 0, 1, &[0; 4])),
            go_away(PROTOCOL),
        ),
        (
            "6.9",
            "WINDOW_UPDATE of an idle stream",
            frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]),
            go_away(PROTOCOL),
        ),
        (
            "6.9.1",
            "the connection's window runs over",
            frame(WINDOW_UPDATE, 0, 0, &[0x7f, 0xff, 0xff, 0xff]),
            go_away(FLOW_CONTROL),
        ),
        (
            "6.9.1",
            "a stream's window runs over",
            open_and(&frame(WINDOW_UPDATE, 0, 1, &[0x7f, 0xff, 0xff, 0xff])),
            reset(FLOW_CONTROL),
        ),
        (
            "8.1",
            "trailers that do not end it",
            open_and(&frame(HEADERS, END_HEADERS, 1, &block(&[("a", "b")]))),
            reset(PROTOCOL),
        ),
        // Malformed in the standard; the h2 crate leaves the field out, so nobody behind us sees it.
        (
            "8.1",
            "a pseudo-field in trailers",
            [
                frame(HEADERS, END_HEADERS, 1, &get("/echo", &[])),
                frame(HEADERS, WHOLE, 1, &block(&[(":path", "/x")])),
            ]
            .concat(),
            Outcome::Answer,
        ),
        (
            "8.1.1",
            "more than was said",
            [
                frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &get("/hang", &[("content-length", "1")]),
                ),
                frame(DATA, 0, 1, b"ab"),
            ]
            .concat(),
            reset(PROTOCOL),
        ),
        (
            "8.1.1",
            "less than was said",
            [
                frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &get("/hang", &[("content-length", "3")]),
                ),
                frame(DATA, END_STREAM, 1, b"ab"),
            ]
            .concat(),
            reset(PROTOCOL),
        ),
        (
            "8.2.2",
            "TE of another coding",
            with(("te", "gzip")),
            reset(PROTOCOL),
        ),
        (
            "8.2.2",
            "Keep-Alive",
            with(("keep-alive", "x")),
            reset(PROTOCOL),
        ),
        (
            "8.2.2",
            "Proxy-Connection",
            with(("proxy-connection", "x")),
            reset(PROTOCOL),
        ),
        (
            "8.2.2",
            "Transfer-Encoding",
            with(("transfer-encoding", "chunked")),
            reset(PROTOCOL),
        ),
        (
            "8.2.2",
            "Upgrade",
            with(("upgrade", "websocket")),
            reset(PROTOCOL),
        ),
        (
            "8.3",
            "a pseudo-field twice",
            with((":path", "/x")),
            reset(PROTOCOL),
        ),
        (
            "8.3",
            "a pseudo-field of responses",
            with((":status", "200")),
            reset(PROTOCOL),
        ),
        (
            "8.3",
            "a pseudo-field behind a field",
            whole(&[METHOD, SCHEME, AUTHORITY, ("a", "b"), HANG]),
            reset(PROTOCOL),
        ),
        // The h2 crate gives up the connection where a stream would do.
        (
            "8.3",
            "a pseudo-field nobody knows",
            with((":x", "y")),
            go_away(PROTOCOL),
        ),
        (
            "8.3.1",
            "no method",
            whole(&[SCHEME, AUTHORITY, HANG]),
            reset(PROTOCOL),
        ),
        (
            "8.3.1",
            "no scheme",
            whole(&[METHOD, AUTHORITY, HANG]),
            reset(PROTOCOL),
        ),
        (
            "8.3.1",
            "an empty path",
            whole(&[METHOD, SCHEME, AUTHORITY, (":path", "")]),
            reset(PROTOCOL),
        ),
        (
            "8.5",
            "CONNECT",
            whole(&[(":method", "CONNECT"), (":authority", "app:80")]),
            Outcome::Answer,
        ),
        (
            "8.5",
            "CONNECT with a path",
            whole(&[(":method", "CONNECT"), SCHEME, AUTHORITY, HANG]),
            reset(PROTOCOL),
        ),
        // RFC 8441 section 4.
        (
            "8.5",
            "a protocol without CONNECT",
            with((":protocol", "websocket")),
            reset(PROTOCOL),
        ),
        (
            "8.5",
            "a protocol without a path",
            whole(&[
                (":method", "CONNECT"),
                (":protocol", "websocket"),
                SCHEME,
                AUTHORITY,
            ]),
            reset(PROTOCOL),
        ),
    ]
}

#[test]
fn what_breaks_the_standard_ends_a_stream_or_its_connection() {
    let (bed, seen) = bed();
    let mut others = Vec::new();
    let mut answered = 0;
    for (section, what, frames, wanted) in cases() {
        let mut raw = Raw::open(&bed);
        raw.write(&frames);
        let got = raw.outcome(1);
        if got != wanted {
            others.push(format!("{section} {what}: {got:?}, not {wanted:?}"));
        }
        answered += usize::from(wanted == Outcome::Answer && section < "8");
    }
    assert!(others.is_empty(), "{others:#?}");
    // Those that hang were begun before they broke; the rest never came to the app.
    let calls = seen.calls.load(Ordering::SeqCst);
    assert!((answered..=answered + 12).contains(&calls), "{calls}");
}

/// RFC 9113 section 5.1.2: what is above the number we told was not processed.
#[test]
fn streams_above_the_limit_are_refused() {
    let (bed, _) = bed();
    let mut raw = Raw::open(&bed);
    for number in 0..=crate::http2::limits::STREAMS_MAX {
        raw.send(HEADERS, WHOLE, 2 * number + 1, &get("/hang", &[]));
    }
    let last = 2 * crate::http2::limits::STREAMS_MAX + 1;
    assert_eq!(raw.outcome(last), reset(REFUSED));
}

/// CVE-2024-27316: a head that never ends is cut off long before memory is.
#[test]
fn a_head_without_end_is_cut_off() {
    let (bed, _) = bed();
    let mut raw = Raw::open(&bed);
    raw.send(HEADERS, END_STREAM, 1, &get("/", &[]));
    let piece = frame(CONTINUATION, 0, 1, &block(&[("a", "b")]));
    let mut writer = raw.socket();
    let writing =
        std::thread::spawn(move || (0..1_000_000).all(|_| writer.write_all(&piece).is_ok()));
    let outcome = raw.outcome(1);
    assert!(matches!(outcome, Outcome::GoAway(_)), "{outcome:?}");
    drop(raw);
    assert!(!writing.join().unwrap(), "all of it was taken");
}
