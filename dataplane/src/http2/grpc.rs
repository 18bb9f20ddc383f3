//! What the mesh has to know of gRPC (grpc/grpc doc/PROTOCOL-HTTP2.md).

use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::http1::Answer;
use crate::reason::Reason;

/// Name of the field that tells how a call ended.
pub const STATUS: HeaderName = HeaderName::from_static("grpc-status");
const MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
/// How long a call may take.
pub const TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Whether a content type is gRPC's own. `application/grpc-web` is another protocol, for HTTP/1.1.
#[must_use]
pub fn is_grpc(content_type: &[u8]) -> bool {
    const TYPE: &[u8] = b"application/grpc";
    content_type
        .get(..TYPE.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(TYPE))
        && matches!(
            content_type.get(TYPE.len()),
            None | Some(b'+' | b';' | b' ')
        )
}

/// The status an answer of the mesh itself has in gRPC. Clients repeat UNAVAILABLE, so a quota must
/// not be told as that.
#[must_use]
pub fn status_of(answer: &Answer<'_>) -> u8 {
    if let Some(status) = answer.grpc_status {
        return status;
    }
    match answer.reason {
        Reason::QuotaExhausted => RESOURCE_EXHAUSTED,
        Reason::AuthzDenied | Reason::CheckDenied | Reason::PlaintextRefused => PERMISSION_DENIED,
        Reason::Timeout | Reason::TryTimeout => DEADLINE_EXCEEDED,
        Reason::NoRoute
        | Reason::UnknownDestination
        | Reason::UnsupportedProtocol
        | Reason::UpgradeUnsupported => UNIMPLEMENTED,
        _ => of_http(answer.status),
    }
}

/// The caller gave it up.
pub const CANCELLED: u8 = 1;
const UNKNOWN: u8 = 2;
const DEADLINE_EXCEEDED: u8 = 4;
const PERMISSION_DENIED: u8 = 7;
const RESOURCE_EXHAUSTED: u8 = 8;
const UNIMPLEMENTED: u8 = 12;
const INTERNAL: u8 = 13;
/// It may be tried again; also what a stream that is cut comes to.
pub const UNAVAILABLE: u8 = 14;
const UNAUTHENTICATED: u8 = 16;

/// What a client takes an answer without `grpc-status` for, by its HTTP status (grpc/grpc
/// doc/http-grpc-status-mapping.md). One of 200, too, is a failed call.
#[must_use]
pub fn of_http(status: u16) -> u8 {
    match status {
        400 | 431 => INTERNAL,
        401 => UNAUTHENTICATED,
        403 => PERMISSION_DENIED,
        404 => UNIMPLEMENTED,
        429 | 502..=504 => UNAVAILABLE,
        _ => UNKNOWN,
    }
}

/// An answer of the mesh itself: headers alone, HTTP 200, the truth in `grpc-status`.
#[must_use]
pub fn trailers_only(answer: &Answer<'_>) -> http::Response<()> {
    let mut response = http::Response::new(());
    let fields = response.headers_mut();
    fields.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/grpc"),
    );
    put_status(answer, fields);
    response
}

/// What ends an answer under way where the mesh ends it: the head has gone out, but not the truth.
#[must_use]
pub fn trailers(answer: &Answer<'_>) -> HeaderMap {
    let mut fields = HeaderMap::new();
    put_status(answer, &mut fields);
    fields
}

fn put_status(answer: &Answer<'_>, fields: &mut HeaderMap) {
    fields.insert(STATUS, HeaderValue::from(u16::from(status_of(answer))));
    let message = percent_encoded(&answer.body);
    if let Ok(message) = HeaderValue::try_from(message) {
        fields.insert(MESSAGE, message);
    }
    if answer.reason != Reason::None {
        fields.insert(
            HeaderName::from_static("x-ringmesh-reason"),
            HeaderValue::from_static(answer.reason.code()),
        );
    }
}

fn percent_encoded(parts: &[&str]) -> String {
    let mut out = String::new();
    for byte in parts.iter().flat_map(|part| part.bytes()) {
        match byte {
            b' '..=b'~' if byte != b'%' => out.push(char::from(byte)),
            _ => {
                const HEX: &[u8; 16] = b"0123456789ABCDEF";
                out.push('%');
                out.push(char::from(HEX[usize::from(byte >> 4)]));
                out.push(char::from(HEX[usize::from(byte & 15)]));
            }
        }
    }
    out
}

/// A `grpc-status` value: digits, and nothing else.
#[must_use]
pub fn status(value: &[u8]) -> Option<u8> {
    if !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// The `grpc-status` among trailer lines.
#[must_use]
pub fn status_in(lines: &[u8]) -> Option<u8> {
    const NAME: &[u8] = b"grpc-status:";
    lines.split(|b| *b == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(NAME.len())?;
        let value = value.trim_ascii();
        name.eq_ignore_ascii_case(NAME).then(|| status(value))?
    })
}

/// A framed `HealthCheckRequest` of gRPC health v1 for `service`; `None` if its name is longer than a
/// frame may be.
#[must_use]
pub fn health_request(service: &str) -> Option<Vec<u8>> {
    /// Field 1, length-delimited.
    const SERVICE: u8 = 0x0a;
    let mut message = Vec::with_capacity(2 + service.len());
    if !service.is_empty() {
        message.push(SERVICE);
        let mut len = service.len();
        while len >= 0x80 {
            message.push(0x80 | (len & 0x7f) as u8);
            len >>= 7;
        }
        message.push(u8::try_from(len).ok()?);
        message.extend_from_slice(service.as_bytes());
    }
    let mut framed = vec![0];
    framed.extend_from_slice(&u32::try_from(message.len()).ok()?.to_be_bytes());
    framed.extend_from_slice(&message);
    Some(framed)
}

/// Whether a framed `HealthCheckResponse` says SERVING; `None` if it is none.
#[must_use]
pub fn health_serving(framed: &[u8]) -> Option<bool> {
    const SERVING: u64 = 1;
    let (head, message) = framed.split_first_chunk::<5>()?;
    let [0, len @ ..] = *head else { return None };
    if u32::from_be_bytes(len) as usize != message.len() {
        return None;
    }
    let mut status = 0;
    let mut rest = message;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        match key & 7 {
            0 => {
                let value = varint(&mut rest)?;
                if key >> 3 == 1 {
                    status = value;
                }
            }
            // Of a later version of the message.
            1 => rest = rest.get(8..)?,
            2 => {
                let len = usize::try_from(varint(&mut rest)?).ok()?;
                rest = rest.get(len..)?;
            }
            5 => rest = rest.get(4..)?,
            _ => return None,
        }
    }
    Some(status == SERVING)
}

/// A protobuf varint at the start of `bytes`, taken off.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for at in 0..10 {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// A `grpc-timeout`, milliseconds, rounded up; `None` if it is none.
#[must_use]
pub fn timeout_ms(value: &[u8]) -> Option<u64> {
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => number * 3_600_000,
        b'M' => number * 60_000,
        b'S' => number * 1_000,
        b'm' => number,
        b'u' => number.div_ceil(1_000),
        b'n' => number.div_ceil(1_000_000),
        _ => return None,
    })
}

/// Tells the next hop how much time is left.
pub fn set_timeout_ms(fields: &mut HeaderMap, left_ms: u64) {
    // At most eight digits: above, seconds.
    let text = match left_ms {
        0..=99_999_999 => format!("{left_ms}m"),
        _ => format!("{}S", (left_ms / 1_000).min(99_999_999)),
    };
    if let Ok(value) = HeaderValue::try_from(text) {
        fields.insert(TIMEOUT, value);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn health_is_serving_or_not_or_no_answer() {
        let framed = |message: &[u8]| [&[0, 0, 0, 0, message.len() as u8], message].concat();
        for (message, wanted) in [
            (&[8_u8, 1][..], Some(true)),
            (&[8, 2], Some(false)),
            (&[], Some(false)),
            // The last one counts; others are of later versions.
            (&[8, 2, 8, 1], Some(true)),
            (
                &[8, 1, 0x12, 3, b'a', b'b', b'c', 0x1d, 0, 0, 0, 0],
                Some(true),
            ),
            (&[8], None),
            (&[0x12, 9, 1], None),
            (&[0x0b], None),
        ] {
            assert_eq!(health_serving(&framed(message)), wanted, "{message:?}");
        }
        assert_eq!(health_serving(&[1, 0, 0, 0, 2, 8, 1]), None, "compressed");
        assert_eq!(health_serving(&[0, 0, 0, 0, 3, 8, 1]), None, "cut");
        assert_eq!(health_request("").unwrap(), [0; 5]);
        let long = "s".repeat(200);
        let request = health_request(&long).unwrap();
        assert_eq!(request[..8], [0, 0, 0, 0, 203, 0x0a, 0xc8, 1]);
        assert_eq!(&request[8..], long.as_bytes());
    }

    #[test]
    fn a_status_is_digits_alone() {
        for (value, want) in [
            (&b"0"[..], Some(0)),
            (b"16", Some(16)),
            (b"+4", None),
            (b"-1", None),
            (b"", None),
            (b"256", None),
            (b"4 ", None),
        ] {
            assert_eq!(status(value), want, "{value:?}");
        }
        assert_eq!(status_in(b"x-a: 1\r\nGRPC-Status: 5\r\n"), Some(5));
        assert_eq!(status_in(b"grpc-status: +5\r\n"), None);
    }

    #[test]
    fn a_timeout_is_digits_and_a_unit() {
        for (value, want) in [
            (&b"1H"[..], Some(3_600_000)),
            (b"2M", Some(120_000)),
            (b"3S", Some(3_000)),
            (b"4m", Some(4)),
            (b"1001u", Some(2)),
            (b"1n", Some(1)),
            (b"0S", Some(0)),
            (b"99999999H", Some(359_999_996_400_000)),
            (b"123456789m", None),
            (b"S", None),
            (b"", None),
            (b"+1S", None),
            (b"1s", None),
        ] {
            assert_eq!(timeout_ms(value), want, "{value:?}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = timeout_ms(&bytes);
            let _ = status(&bytes);
            let _ = status_in(&bytes);
            let _ = health_serving(&bytes);
        }

        /// The next hop is never told a longer time than there is, and loses less than a second.
        #[test]
        fn what_is_told_is_what_is_left(left_ms in 0..100_000_000_000_u64) {
            let mut fields = HeaderMap::new();
            set_timeout_ms(&mut fields, left_ms);
            let told = timeout_ms(fields[TIMEOUT].as_bytes()).unwrap();
            let sayable = left_ms.min(99_999_999_000);
            prop_assert!(told <= left_ms);
            prop_assert!(told + 1_000 > sayable, "{told} of {left_ms}");
        }
    }
}
