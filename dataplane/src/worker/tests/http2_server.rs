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
                assert!(head.starts_with("HTTP/1.1 200 "), "{count} of {size}: {head}");
                assert_eq!(unchunked(&mut client).len(), count * size);
            }
        }
    }
}
