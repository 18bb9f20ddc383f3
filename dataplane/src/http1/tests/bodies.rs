//! Bodies: what is payload, what ends, what is refused.

use super::*;

/// What comes of a chunked body: payload, trailers, what is left over.
pub(crate) type Decoding = Result<(&'static [u8], &'static [u8], &'static [u8]), BodyFault>;

pub(crate) const CHUNKED: &[(&[u8], Decoding)] = &[
    (b"0\r\n\r\n", Ok((b"", b"", b""))),
    (b"3\r\nabc\r\n0\r\n\r\n", Ok((b"abc", b"", b""))),
    (b"3\r\nabc\r\n0\r\n\r\nGET /", Ok((b"abc", b"", b"GET /"))),
    (
        b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
        Ok((b"abcde", b"", b"")),
    ),
    (
        b"A\r\n0123456789\r\n0\r\n\r\n",
        Ok((b"0123456789", b"", b"")),
    ),
    (
        b"a\r\n0123456789\r\n0\r\n\r\n",
        Ok((b"0123456789", b"", b"")),
    ),
    (
        b"0000000000000003\r\nabc\r\n000\r\n\r\n",
        Ok((b"abc", b"", b"")),
    ),
    (b"3;a=b\r\nabc\r\n0;c\r\n\r\n", Ok((b"abc", b"", b""))),
    (
        b"3 \t;a=\"b c\"\r\nabc\r\n0\r\n\r\n",
        Ok((b"abc", b"", b"")),
    ),
    (
        b"0\r\nX: y\r\nZ:\r\n\r\n",
        Ok((b"", b"X: y\r\nZ:\r\n", b"")),
    ),
    // Fields that may not trail are dropped, the others stay.
    (
        b"0\r\nContent-Length: 5\r\nX: y\r\nHost: b\r\n\r\n",
        Ok((b"", b"X: y\r\n", b"")),
    ),
    (b"\r\n", Err(BodyFault::ChunkSize)),
    (b"x\r\n", Err(BodyFault::ChunkSize)),
    (b"0x3\r\nabc\r\n", Err(BodyFault::ChunkSize)),
    (b"-1\r\n", Err(BodyFault::ChunkSize)),
    (b"+3\r\nabc", Err(BodyFault::ChunkSize)),
    (b" 3\r\nabc", Err(BodyFault::ChunkSize)),
    (b"3 \r\nabc\r\n0\r\n\r\n", Err(BodyFault::ChunkSize)),
    (b"00000000000000003\r\nabc", Err(BodyFault::ChunkSize)),
    (b"FFFFFFFFFFFFFFFF0\r\n", Err(BodyFault::ChunkSize)),
    (b"3\nabc\r\n0\r\n\r\n", Err(BodyFault::ChunkSize)),
    (b"3\r\rabc", Err(BodyFault::LineEnd)),
    (b"3;a\nabc\r\n0\r\n\r\n", Err(BodyFault::ChunkExtension)),
    (b"3;a\0\r\nabc\r\n0\r\n\r\n", Err(BodyFault::ChunkExtension)),
    (b"3\r\nabcd\r\n0\r\n\r\n", Err(BodyFault::LineEnd)),
    (b"3\r\nabc\n0\r\n\r\n", Err(BodyFault::LineEnd)),
    (b"3\r\nabc0\r\n\r\n", Err(BodyFault::LineEnd)),
    (b"0\r\n\n", Err(BodyFault::LineEnd)),
    (b"0\r\nX: y\n\r\n", Err(BodyFault::LineEnd)),
    (b"0\r\nX\r\n\r\n", Err(BodyFault::Trailer)),
    (b"0\r\nX : y\r\n\r\n", Err(BodyFault::Trailer)),
    (b"0\r\n X: y\r\n\r\n", Err(BodyFault::Trailer)),
    (b"0\r\nX: a\rb\r\n\r\n", Err(BodyFault::Trailer)),
    (b"0\r\nX: a\0b\r\n\r\n", Err(BodyFault::Trailer)),
    (b"3\r\nab", Err(BodyFault::Truncated)),
    (b"3\r\nabc\r\n", Err(BodyFault::Truncated)),
    (b"0\r\n", Err(BodyFault::Truncated)),
    (b"0\r\nX: y\r\n", Err(BodyFault::Truncated)),
    (b"", Err(BodyFault::Truncated)),
];

#[test]
fn chunked_bodies() {
    for (input, want) in CHUNKED {
        for step in 1..=input.len().max(1) {
            let got = decode_all(Framing::Chunked, input, step);
            match (got, want) {
                (Ok((payload, used, decoder)), Ok((body, trailers, left))) => {
                    assert_eq!(&payload, body, "{input:?} by {step}");
                    assert_eq!(decoder.trailers(), *trailers, "{input:?} by {step}");
                    assert_eq!(&input[used..], *left, "{input:?} by {step}");
                }
                (Err(got), Err(want)) => assert_eq!(got, *want, "{input:?} by {step}"),
                (got, want) => panic!("{input:?} by {step}: {got:?}, not {want:?}"),
            }
        }
    }
}

#[test]
fn lengths_end_where_they_say() {
    for step in 1..8 {
        let (payload, used, _) = decode_all(Framing::Length(3), b"abcGET", step).unwrap();
        assert_eq!((&payload[..], used), (&b"abc"[..], 3));
        let (payload, used, _) = decode_all(Framing::None, b"GET", step).unwrap();
        assert_eq!((payload.len(), used), (0, 0));
        let (payload, ..) = decode_all(Framing::UntilClose, b"abc", step).unwrap();
        assert_eq!(payload, b"abc");
        let cut = decode_all(Framing::Length(4), b"abc", step).unwrap_err();
        assert_eq!(cut, BodyFault::Truncated);
    }
}

#[test]
fn a_peer_cannot_send_framing_for_ever() {
    let one_long = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(300));
    let fault = decode_all(Framing::Chunked, one_long.as_bytes(), 64).unwrap_err();
    assert_eq!(fault, BodyFault::ChunkExtension);
    let mut many = format!("1;{}\r\na\r\n", "x".repeat(200)).repeat(100);
    many.push_str("0\r\n\r\n");
    let fault = decode_all(Framing::Chunked, many.as_bytes(), 64).unwrap_err();
    assert_eq!(fault, BodyFault::ChunkExtension);
    let spaces = format!("1{}", " ".repeat(20_000));
    let fault = decode_all(Framing::Chunked, spaces.as_bytes(), 64).unwrap_err();
    assert_eq!(fault, BodyFault::ChunkExtension);
    let trailers = format!("0\r\n{}\r\n", "x: y\r\n".repeat(2_000));
    let fault = decode_all(Framing::Chunked, trailers.as_bytes(), 64).unwrap_err();
    assert_eq!(fault, BodyFault::TrailerTooLarge);
    let dropped = format!("0\r\n{}\r\n", "host: y\r\n".repeat(2_000));
    let fault = decode_all(Framing::Chunked, dropped.as_bytes(), 64).unwrap_err();
    assert_eq!(fault, BodyFault::TrailerTooLarge);
}

#[test]
fn payload_is_named_in_place() {
    let mut decoder = BodyDecoder::new();
    decoder.begin(Framing::Chunked);
    let input = b"5\r\nhello\r\n0\r\n\r\nnext";
    let piece = decoder.decode(input).unwrap();
    assert_eq!((piece.skip, piece.payload, piece.end), (3, 5, false));
    let piece = decoder.decode(&input[8..]).unwrap();
    assert_eq!((piece.skip, piece.payload, piece.end), (7, 0, true));
}

#[test]
fn chunks_are_written_with_one_buffer_each() {
    let mut out = Vec::new();
    let mut encoder = ChunkEncoder::new();
    for piece in [&b"hello"[..], b"", &[b'x'; 300]] {
        encoder.piece(piece.len(), &mut out).unwrap();
        out.extend_from_slice(piece);
    }
    encoder.last(b"X: y\r\n", &mut out).unwrap();
    let want = [
        b"5\r\nhello\r\n12c\r\n",
        &[b'x'; 300][..],
        b"\r\n0\r\nX: y\r\n\r\n",
    ]
    .concat();
    assert_eq!(out, want);
    let (payload, used, decoder) = decode_all(Framing::Chunked, &out, 7).unwrap();
    assert_eq!((payload.len(), used), (305, out.len()));
    assert_eq!(decoder.trailers(), b"X: y\r\n");
    let mut empty = Vec::new();
    ChunkEncoder::new().last(b"", &mut empty).unwrap();
    assert_eq!(empty, b"0\r\n\r\n");
}
