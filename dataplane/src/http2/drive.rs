//! The decoders of this room on any bytes, for fuzzers and their kept findings.
//!
//! # Panics
//! All of them where a property does not hold: that is what a fuzzer looks for.

use bytes::Bytes;
use http::header::{HeaderName, HeaderValue};
use http::uri::PathAndQuery;

use super::frames::Frames;
use super::held::Held;
use super::{grpc, head, websocket};
use crate::http1::{Parsed, RequestHead};
use crate::time::Mono;

/// Any written head and trailer lines are read or refused.
pub fn written(bytes: &[u8]) {
    let bytes = Bytes::copy_from_slice(bytes);
    let _ = head::request(&bytes, true);
    let _ = head::response(&bytes);
    let _ = head::trailers(&bytes);
}

/// Deadlines and statuses.
pub fn grpc(bytes: &[u8]) {
    let _ = grpc::timeout_ms(bytes);
    let _ = grpc::status(bytes);
    let _ = grpc::status_in(bytes);
    let _ = grpc::health_serving(bytes);
}

/// Frames are the same frames however their bytes are cut.
pub fn frames(bytes: &[u8]) {
    let now = Mono::default();
    let (mut whole, mut cut) = (Frames::behind(0, now), Frames::behind(0, now));
    let (mut held, mut held_cut) = (Held::of_client(), Held::of_client());
    whole.pass(bytes, &mut held);
    for byte in bytes {
        cut.pass(std::slice::from_ref(byte), &mut held_cut);
    }
    assert_eq!(format!("{whole:?}"), format!("{cut:?}"));
    assert_eq!(format!("{held:?}"), format!("{held_cut:?}"));
    let _ = whole.is_flood(now);
}

/// A request as the h2 crate may hand it over is one whole head or a refusal. The first line is the
/// path, each other one a field. So is one that asks for WebSocket, and it still asks for that.
pub fn spelled(bytes: &[u8]) {
    let mut lines = bytes.split(|b| *b == b'\n');
    let path = PathAndQuery::try_from(lines.next().unwrap_or_default());
    let (mut parts, ()) = http::Request::new(()).into_parts();
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = path.ok();
    let Ok(uri) = http::Uri::from_parts(uri) else {
        return;
    };
    parts.uri = uri;
    for line in lines.take(200) {
        let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = HeaderValue::from_bytes(value.get(1..).unwrap_or_default());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            parts.headers.append(name, value);
        }
    }
    let (mut out, mut spelled) = (Vec::new(), RequestHead::new());
    if head::put_request(&parts, true, &mut spelled, &mut out).is_ok() {
        assert_parsed_alike(&out, &spelled);
    }
    let protocol = h2::ext::Protocol::from_static("websocket");
    let told = websocket::put_request(&mut parts, &protocol, [0, 1], &mut spelled, &mut out);
    if told.is_ok() {
        assert_parsed_alike(&out, &spelled);
        assert!(websocket::accept_of(&spelled.view(&out)).is_some());
    }
}

/// Parsing the text says what was said while it was spelled.
fn assert_parsed_alike(text: &[u8], spelled: &RequestHead) {
    let mut parser = RequestHead::new();
    let parsed = parser.parse(text);
    assert_eq!(
        parsed,
        Parsed::Head(text.len()),
        "something is left behind the head"
    );
    assert_eq!(format!("{parser:?}"), format!("{spelled:?}"));
}
