//! Whatever comes: no panic, no disagreement between cuts, and what leaves reads as what came.

use super::*;
use proptest::prelude::*;

/// Bytes that are nearly a head: the dangerous kind.
fn nearly(kind: &'static str) -> impl Strategy<Value = Vec<u8>> {
    let line = prop::sample::select(vec![
        "Host: a",
        "Host: b",
        "Content-Length: 5",
        "Content-Length: 05",
        "Content-Length: +5",
        "Transfer-Encoding: chunked",
        "Transfer-Encoding: gzip",
        "Connection: close, x",
        "X: y",
        "X : y",
        " folded",
        "Upgrade: h2c",
        "Expect: 100-continue",
        "",
    ]);
    let end = prop::sample::select(vec!["\r\n", "\r\n", "\r\n", "\r\n", "\n", "\r", "\0"]);
    let lines = prop::collection::vec((line, end.clone()), 0..8);
    (
        prop::sample::select(kind.split('|').collect::<Vec<_>>()),
        end,
        lines,
    )
        .prop_map(|(first, first_end, lines)| {
            let mut bytes = [first, first_end].concat();
            for (line, end) in lines {
                bytes.push_str(line);
                bytes.push_str(end);
            }
            bytes.push_str("\r\n\r\n");
            bytes.into_bytes()
        })
}

const REQUEST_LINES: &str = "GET / HTTP/1.1|POST /a?b HTTP/1.1|GET http://c/d HTTP/1.1|CONNECT a:1 HTTP/1.1|GET / HTTP/1.0|OPTIONS * HTTP/1.1|GET  / HTTP/1.1|GET";
const STATUS_LINES: &str =
    "HTTP/1.1 200 OK|HTTP/1.0 200|HTTP/1.1 101 X|HTTP/1.1 204 |HTTP/1.1 999 X|HTTP/1.1";

fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(
        prop_oneof![4 => any::<u8>(), 1 => Just(b'\r'), 1 => Just(b'\n'), 1 => Just(b':')],
        0..200,
    )
}

proptest! {
    #[test]
    fn requests_never_panic_and_leave_unambiguous(bytes in prop_oneof![
        3 => nearly(REQUEST_LINES),
        1 => any_bytes(),
    ]) {
        drive::request_head(&bytes);
    }

    #[test]
    fn responses_never_panic_and_leave_unambiguous(bytes in prop_oneof![
        3 => nearly(STATUS_LINES),
        1 => any_bytes(),
    ]) {
        drive::response_head(&bytes);
    }

    #[test]
    fn chunked_never_panics_and_cuts_change_nothing(
        bytes in prop_oneof![
            any_bytes(),
            prop::collection::vec(prop::sample::select(vec![
                "1\r\na\r\n", "5\r\nhello\r\n", "0\r\n", "\r\n", "X: y\r\n", ";", "a", "\n",
                "ffffffffffffffff", "3;x=y\r\nabc\r\n",
            ]), 0..10).prop_map(|parts| parts.concat().into_bytes()),
        ],
        step in 1_usize..9,
    ) {
        drive::chunked(&bytes, step);
    }

    #[test]
    fn chunked_bodies_survive_the_way(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..6),
        step in 1_usize..50,
    ) {
        let mut out = Vec::new();
        let mut encoder = ChunkEncoder::new();
        for piece in &pieces {
            encoder.piece(piece.len(), &mut out).unwrap();
            out.extend_from_slice(piece);
        }
        encoder.last(b"", &mut out).unwrap();
        let (payload, used, _) = decode_all(Framing::Chunked, &out, step).unwrap();
        prop_assert_eq!(payload, pieces.concat());
        prop_assert_eq!(used, out.len());
    }
}

/// What fuzzing found once (`dataplane/fuzz/regressions/TARGET/`) stays found.
#[test]
fn committed_regressions_replay() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/regressions");
    let mut replayed = 0;
    for (target, drive) in [
        ("request_head", drive::request_head as fn(&[u8])),
        ("response_head", drive::response_head),
        ("chunked", |bytes| drive::chunked(bytes, 1)),
    ] {
        let Ok(files) = std::fs::read_dir(root.join(target)) else {
            continue;
        };
        for file in files {
            drive(&std::fs::read(file.unwrap().path()).unwrap());
            replayed += 1;
        }
    }
    assert!(replayed > 0);
}
