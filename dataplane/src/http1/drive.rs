//! What the fuzz targets and the properties share: drive a decoder with hostile bytes and assert
//! what must hold whatever they are. Compiled for tests and fuzzing only.

use super::*;

/// Fields a head may gain when it is written: Host, a request id, a length, a connection option. A
/// head this near to its bound may be refused at the next hop.
const GAINED_MAX: usize = 4;

/// Parses a request, writes it again, parses that: same meaning, one length, one Host.
///
/// # Panics
/// If an invariant does not hold.
pub fn request_head(bytes: &[u8]) {
    let mut head = RequestHead::new();
    let whole = head.parse(bytes);
    let by_bytes = grow(bytes, |slice| RequestHead::parse(&mut head, slice));
    assert_same(whole, by_bytes);
    let Parsed::Head(len) = head.parse(bytes) else {
        return;
    };
    assert!(len <= bytes.len());
    let view = head.view(bytes);
    if view.fields().count() + GAINED_MAX > limits::FIELDS_MAX {
        return;
    }
    let plan = RequestPlan {
        framing: view.framing(),
        ..RequestPlan::default()
    };
    let mut out = Vec::new();
    assert_eq!(plan.put(&view, &mut out), Ok(()));
    let mut again = RequestHead::new();
    assert_eq!(again.parse(&out), Parsed::Head(out.len()), "{out:?}");
    let sent = again.view(&out);
    assert_eq!(sent.framing(), view.framing());
    assert_eq!(sent.method(), view.method());
    assert_eq!(sent.authority(), view.authority());
    assert_eq!((sent.path(), sent.query()), (view.path(), view.query()));
    assert_eq!(sent.version(), Version::Http11);
    assert!(sent.keep_alive() && sent.upgrade().is_none());
    for gone in [
        "connection",
        "keep-alive",
        "te",
        "upgrade",
        "proxy-connection",
    ] {
        assert!(
            sent.fields()
                .all(|(name, _)| !name.eq_ignore_ascii_case(gone))
        );
    }
    let mut twice = Vec::new();
    assert_eq!(plan.put(&sent, &mut twice), Ok(()));
    // Everything but the place of a length that had to be written anew stays as it is.
    assert_eq!(twice.len(), out.len());
}

/// The same for a response.
///
/// # Panics
/// If an invariant does not hold.
pub fn response_head(bytes: &[u8]) {
    let mut head = ResponseHead::new();
    let whole = head.parse(bytes);
    let by_bytes = grow(bytes, |slice| ResponseHead::parse(&mut head, slice));
    assert_same(whole, by_bytes);
    let Parsed::Head(len) = head.parse(bytes) else {
        return;
    };
    assert!(len <= bytes.len());
    let view = head.view(bytes);
    if view.fields().count() + GAINED_MAX > limits::FIELDS_MAX {
        return;
    }
    for to in [Version::Http10, Version::Http11] {
        let Ok(Next::Body(framing)) = view.next("GET", false) else {
            continue;
        };
        let plan = ResponsePlan {
            to,
            framing,
            tells_length_only: false,
            keep_alive: true,
            upgrade: false,
            edits: &[],
        };
        let mut out = Vec::new();
        assert_eq!(plan.put(&view, &mut out), Ok(()));
        let mut again = ResponseHead::new();
        assert_eq!(again.parse(&out), Parsed::Head(out.len()), "{out:?}");
        let sent = again.view(&out);
        assert_eq!(sent.status(), view.status());
        assert_eq!(sent.next("GET", false), Ok(Next::Body(plan.framing_out())));
        assert_eq!(sent.keep_alive(), plan.stays_open());
    }
}

/// Decodes chunked bytes whole and in slices of `step`: same payload, same end or same fault.
///
/// # Panics
/// If an invariant does not hold.
pub fn chunked(bytes: &[u8], step: usize) {
    let whole = walk(bytes, bytes.len());
    let cut = walk(bytes, step);
    assert_eq!(whole, cut);
}

type Walked = Result<(Vec<u8>, usize, Vec<u8>), BodyFault>;

fn walk(bytes: &[u8], step: usize) -> Walked {
    let mut decoder = BodyDecoder::new();
    decoder.begin(Framing::Chunked);
    let (mut payload, mut used) = (Vec::new(), 0);
    for slice in bytes.chunks(step.max(1)) {
        let mut rest = slice;
        while !decoder.is_over() && !rest.is_empty() {
            let piece = decoder.decode(rest)?;
            let taken = piece.skip + piece.payload;
            assert!(taken > 0 && taken <= rest.len());
            payload.extend_from_slice(&rest[piece.skip..taken]);
            used += taken;
            rest = &rest[taken..];
        }
    }
    Ok((payload, used, decoder.trailers().to_vec()))
}

/// Byte by byte, as the slowest peer would send it.
fn grow(bytes: &[u8], mut parse: impl FnMut(&[u8]) -> Parsed) -> Parsed {
    (1..=bytes.len())
        .map(|len| parse(&bytes[..len]))
        .find(|parsed| *parsed != Parsed::Partial)
        .unwrap_or(Parsed::Partial)
}

/// Slowly arriving bytes are judged alike; only a fault in an unfinished line may wait for its end.
fn assert_same(whole: Parsed, slow: Parsed) {
    match (whole, slow) {
        (Parsed::Refuse(_), Parsed::Partial) => {}
        (whole, slow) => assert_eq!(whole, slow),
    }
}
