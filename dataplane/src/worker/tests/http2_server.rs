//! A server that speaks HTTP/2 frame by frame, and may do so wrongly: what its client gets then.

use super::http2::{block, frame};
use super::*;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 0x1;
const ACK: u8 = 0x1;
const END_HEADERS: u8 = 0x4;

/// `:status: 200` of the static table.
const OK: &[u8] = &[0x88];

/// Answers every request with the frames that `script` makes for its stream, all in one write.
fn scripted(script: impl Fn(u32) -> Vec<u8> + Send + Sync + 'static) -> SocketAddr {
    let (at, _) = server(move |_, mut stream| {
        let mut preface = [0; 24];
        if stream.read_exact(&mut preface).is_err() {
            return;
        }
        let mut answer = frame(SETTINGS, 0, 0, &[]);
        loop {
            let mut head = [0; 9];
            if stream.read_exact(&mut head).is_err() {
                return;
            }
            let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
            let mut payload = vec![0; length as usize];
            if stream.read_exact(&mut payload).is_err() {
                return;
            }
            match (head[3], head[4] & ACK) {
                (SETTINGS, 0) => answer.extend(frame(SETTINGS, ACK, 0, &[])),
                (HEADERS, _) => {
                    let id = u32::from_be_bytes(head[5..].try_into().unwrap());
                    answer.extend(script(id));
                }
                _ => continue,
            }
            if stream.write_all(&answer).is_err() {
                return;
            }
            answer.clear();
        }
    });
    at
}

fn bed(at: SocketAddr) -> Bed {
    let mut draft = draft(at);
    draft.at("app").ports[0].protocol = Protocol::Http2;
    Bed::start(&draft, Role::Outbound)
}

/// The pieces of a chunked body.
fn unchunked(client: &mut TcpStream) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            let mut byte = [0];
            client.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        let size = std::str::from_utf8(&line).unwrap().trim_end();
        let size = usize::from_str_radix(size, 16).unwrap();
        let mut piece = vec![0; size + 2];
        client.read_exact(&mut piece).unwrap();
        assert!(piece.ends_with(b"\r\n"));
        piece.truncate(size);
        if size == 0 {
            return body;
        }
        body.extend(piece);
    }
}

/// However many of them are here at once, and whether or not their end fits behind them.
#[test]
fn a_body_in_any_number_of_frames_reaches_an_http1_client() {
    for size in [1, 600, 9_000, 16_384] {
        for count in 1..=7 {
            if size * count > 65_535 {
                continue;
            }
            let at = scripted(move |id| {
                let mut answer = frame(HEADERS, END_HEADERS, id, OK);
                for number in 1..=count {
                    let flags = if number == count { END_STREAM } else { 0 };
                    answer.extend(frame(DATA, flags, id, &vec![b'x'; size]));
                }
                answer
            });
            let bed = bed(at);
            let mut client = bed.client();
            // The second finds the connection made, and its answer comes in one piece.
            for _ in 0..2 {
                let request = b"GET / HTTP/1.1\r\nHost: app\r\n\r\n";
                client.write_all(request).unwrap();
                let head = read_head(&mut client).unwrap();
                assert!(
                    head.starts_with("HTTP/1.1 200 "),
                    "{count} of {size}: {head}"
                );
                assert_eq!(unchunked(&mut client).len(), count * size);
            }
        }
    }
}

/// What a client has of an answer that breaks RFC 9113.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Has {
    /// An answer of the sidecar's: status and reason.
    Refusal(&'static str, &'static str),
    /// The answer's head, and then its end broken off.
    Part,
    /// The answer.
    Whole,
}

fn head_with(fields: &[(&str, &str)]) -> Vec<u8> {
    [OK, &block(fields)].concat()
}

/// What is wrong, what the client has, and the frames of a stream.
type Case = (&'static str, Has, fn(u32) -> Vec<u8>);

fn hostile() -> Vec<Case> {
    const BAD: Has = Has::Refusal("503", "upstream_reset");
    const WHOLE: u8 = END_STREAM | END_HEADERS;
    vec![
        ("nothing wrong", Has::Whole, |id| {
            frame(HEADERS, WHOLE, id, &head_with(&[("content-length", "0")]))
        }),
        ("no :status", BAD, |id| {
            frame(HEADERS, WHOLE, id, &block(&[("a", "b")]))
        }),
        ("two :status", BAD, |id| {
            frame(HEADERS, WHOLE, id, &[OK, OK].concat())
        }),
        (":status behind a field", BAD, |id| {
            frame(HEADERS, WHOLE, id, &[&block(&[("a", "b")]), OK].concat())
        }),
        ("a :status that is none", BAD, |id| {
            frame(HEADERS, WHOLE, id, &block(&[(":status", "2oo")]))
        }),
        // RFC 9113 section 8.1.1 calls these two malformed; the h2 crate drops the field.
        ("a pseudo-header of requests", Has::Whole, |id| {
            frame(HEADERS, WHOLE, id, &head_with(&[(":path", "/")]))
        }),
        ("an upper-case name", BAD, |id| {
            frame(HEADERS, WHOLE, id, &head_with(&[("Name", "b")]))
        }),
        ("CR in a value", BAD, |id| {
            frame(HEADERS, WHOLE, id, &head_with(&[("a", "b\r\nc: d")]))
        }),
        ("a field of connections", BAD, |id| {
            frame(HEADERS, WHOLE, id, &head_with(&[("connection", "x")]))
        }),
        ("DATA before HEADERS", BAD, |id| {
            frame(DATA, 0, id, b"hello")
        }),
        ("more DATA than content-length", Has::Part, |id| {
            let head = head_with(&[("content-length", "3")]);
            let head = frame(HEADERS, END_HEADERS, id, &head);
            [head, frame(DATA, END_STREAM, id, b"hello")].concat()
        }),
        ("less DATA than content-length", Has::Part, |id| {
            let head = head_with(&[("content-length", "9")]);
            let head = frame(HEADERS, END_HEADERS, id, &head);
            [head, frame(DATA, END_STREAM, id, b"hello")].concat()
        }),
        ("no number for a content-length", BAD, |id| {
            let head = head_with(&[("content-length", "x")]);
            let head = frame(HEADERS, END_HEADERS, id, &head);
            [head, frame(DATA, END_STREAM, id, b"hello")].concat()
        }),
        ("trailers that do not end the stream", Has::Part, |id| {
            let head = frame(HEADERS, END_HEADERS, id, OK);
            let trailers = frame(HEADERS, END_HEADERS, id, &block(&[("a", "b")]));
            [head, frame(DATA, 0, id, b"hello"), trailers].concat()
        }),
        ("a pseudo-header in trailers", Has::Whole, |id| {
            let head = frame(HEADERS, END_HEADERS, id, OK);
            [
                head,
                frame(DATA, 0, id, b"hello"),
                frame(HEADERS, WHOLE, id, OK),
            ]
            .concat()
        }),
        ("PUSH_PROMISE where push is off", BAD, |id| {
            let promised = [&2_u32.to_be_bytes()[..], OK].concat();
            frame(PUSH_PROMISE, END_HEADERS, id, &promised)
        }),
        ("HEADERS on an idle stream", BAD, |id| {
            frame(HEADERS, WHOLE, id + 2, OK)
        }),
        ("HEADERS on an even stream", BAD, |_| {
            frame(HEADERS, WHOLE, 2, OK)
        }),
        ("an index that is none", BAD, |id| {
            frame(HEADERS, WHOLE, id, &[OK, &[0xff, 0x80, 0x01]].concat())
        }),
        ("CONTINUATION without end", BAD, |id| {
            let mut frames = frame(HEADERS, END_STREAM, id, OK);
            for _ in 0..10_000 {
                frames.extend(frame(CONTINUATION, 0, id, &block(&[("a", "b")])));
            }
            frames
        }),
        ("a field that is long once unpacked", BAD, |id| {
            // One of 4 KiB into the table, and then said by its index again and again.
            let mut fields = OK.to_vec();
            let value = "x".repeat(3_900);
            fields.extend([0x40, 1, b'a', 0x7f]);
            // RFC 7541 section 5.1: 3,900 - 127 in sevens.
            fields.extend([0xbd, 0x1d]);
            fields.extend(value.as_bytes());
            fields.extend([0xbe; 12_000]);
            frame(HEADERS, WHOLE, id, &fields)
        }),
        (
            "interim answers without end",
            Has::Refusal("502", "bad_response"),
            |id| {
                let interim = block(&[(":status", "103")]);
                frame(HEADERS, END_HEADERS, id, &interim).repeat(1_000)
            },
        ),
        ("101, which HTTP/2 has not", BAD, |id| {
            frame(HEADERS, END_HEADERS, id, &block(&[(":status", "101")]))
        }),
    ]
}

/// Nothing that breaks an answer's rules reaches the client as an answer, and the sidecar goes on.
#[test]
fn broken_answers_are_not_passed_on() {
    let (calm, _) = hello();
    for (what, wanted, script) in hostile() {
        let mut draft = draft(scripted(script));
        draft.at("app").ports[0].protocol = Protocol::Http2;
        draft = draft.service("calm", &[80]).endpoint_with(
            "calm",
            &calm.ip().to_string(),
            &[],
            |endpoint| {
                endpoint.mesh_port = None;
                endpoint.ports[0].app_port = calm.port();
            },
        );
        let bed = Bed::start(&draft, Role::Outbound);
        let mut client = bed.client();
        let request = b"GET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n";
        client.write_all(request).unwrap();
        let mut answer = Vec::new();
        let ended = client.read_to_end(&mut answer);
        let answer = String::from_utf8(answer).unwrap();
        let says = |text: &str| answer.contains(text);
        let has = match (ended.is_ok(), wanted) {
            (true, Has::Refusal(status, reason)) => {
                says(&format!("HTTP/1.1 {status} "))
                    && says(&format!("x-ringmesh-reason: {reason}\r\n"))
                    && !says("HTTP/1.1 200 ")
            }
            (true, Has::Whole) => answer.starts_with("HTTP/1.1 200 ") && !says(":path"),
            (ended, Has::Part) => !ended,
            (false, _) => false,
        };
        assert!(has, "{what}: {ended:?} {answer}");
        assert!(bed.get("calm").ends_with("hello"), "{what}");
    }
}
