//! Which protocol a connection speaks, by its first bytes.
//!
//! Pure, and never by time: a slow or short first segment asks for more bytes, it does not turn HTTP
//! into TCP. How long to wait, and what silence means, is the caller's to say.
//! Invariant: the answer for a longer prefix never contradicts a decided answer for a shorter one.

mod verdicts;

pub use verdicts::{Place, Verdict, Verdicts};

use crate::http1::limits::LEADING_EMPTY_LINES_MAX;

/// More bytes than this are never needed: the longest thing looked for is the HTTP/2 preface (24
/// bytes); a method may have 23, less the empty lines before it.
pub const DETECT_BYTES_MAX: usize = 24;

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detected {
    /// A request line of HTTP/1.x.
    Http1,
    /// HTTP/2 by prior knowledge.
    H2Preface,
    /// A TLS client hello.
    TlsHello,
    /// Something else: opaque bytes.
    Other,
    /// Cannot be told yet.
    NeedMore,
}

/// What a client says first (RFC 9113 section 3.4).
pub const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether a connection that begins with these bytes speaks HTTP/2; `None`: cannot be told yet.
#[must_use]
pub fn is_h2_preface(first: &[u8]) -> Option<bool> {
    if first.starts_with(H2_PREFACE) {
        Some(true)
    } else if H2_PREFACE.starts_with(first) {
        None
    } else {
        Some(false)
    }
}

/// Looks at the first bytes of a connection.
#[must_use]
pub fn detect(first: &[u8]) -> Detected {
    let first = &first[..first.len().min(DETECT_BYTES_MAX)];
    if first.is_empty() {
        return Detected::NeedMore;
    }
    if first[0] == 0x16 {
        return tls(first);
    }
    match is_h2_preface(first) {
        Some(true) => Detected::H2Preface,
        Some(false) => http1(first),
        None => Detected::NeedMore,
    }
}

/// Record of type handshake (22), major version 3, holding a client hello (1): RFC 8446 section 5.1.
fn tls(first: &[u8]) -> Detected {
    let fits = |at: usize, test: fn(u8) -> bool| first.get(at).is_none_or(|b| test(*b));
    if !fits(1, |b| b == 3) || !fits(2, |b| b <= 4) || !fits(5, |b| b == 1) {
        Detected::Other
    } else if first.len() < 6 {
        Detected::NeedMore
    } else {
        Detected::TlsHello
    }
}

/// A method (letters, `-`, `_`), a space, and the beginning of a target. Registered methods are upper
/// case; others are legal, but most text protocols that begin with a word use lower case or digits
/// later, and a wrong "HTTP" would end in 400 where a wrong "opaque" still works.
fn http1(first: &[u8]) -> Detected {
    // Empty lines before a request are legal (RFC 9112 section 2.2).
    let mut begin = first;
    for _ in 0..LEADING_EMPTY_LINES_MAX {
        match begin {
            [b'\r'] if first.len() < DETECT_BYTES_MAX => return Detected::NeedMore,
            [b'\r', b'\n', rest @ ..] => begin = rest,
            _ => break,
        }
    }
    let is_method = |b: &u8| b.is_ascii_uppercase() || matches!(b, b'-' | b'_');
    let method = begin.iter().take_while(|b| is_method(b)).count();
    match begin.get(method..).unwrap_or(b"") {
        [] if first.len() < DETECT_BYTES_MAX => Detected::NeedMore,
        _ if method == 0 => Detected::Other,
        [b' ', target @ ..] => match begins_a_target(&begin[..method], target) {
            Some(true) => Detected::Http1,
            None if first.len() < DETECT_BYTES_MAX => Detected::NeedMore,
            Some(false) | None => Detected::Other,
        },
        _ => Detected::Other,
    }
}

/// `/path`, `*`, `http://...`, or `host:port` after CONNECT; `None`: too short to tell.
fn begins_a_target(method: &[u8], target: &[u8]) -> Option<bool> {
    const ABSOLUTE: &[u8] = b"http://";
    let first = *target.first()?;
    if method == b"CONNECT" {
        return Some(first.is_ascii_alphanumeric() || first == b'[');
    }
    if matches!(first, b'/' | b'*') {
        return Some(true);
    }
    let len = target.len().min(ABSOLUTE.len());
    if !target[..len].eq_ignore_ascii_case(&ABSOLUTE[..len]) {
        return Some(false);
    }
    (len == ABSOLUTE.len()).then_some(true)
}

/// Whether what a server says before it was asked anything is HTTP's: an HTTP/2 server may send its
/// SETTINGS at once (RFC 9113 section 3.4), and some HTTP/1.1 servers say 408 to a long silence. Such
/// a server waits for a client that speaks HTTP; every other word of a server's is a greeting.
#[must_use]
pub fn is_http_greeting(greeting: &[u8]) -> bool {
    const SETTINGS: u8 = 4;
    match greeting {
        // Length, type, no flags, stream 0 (sections 4.1 and 6.5); six bytes a setting.
        [high, mid, low, SETTINGS, 0, 0, 0, 0, 0, ..] => {
            u32::from_be_bytes([0, *high, *mid, *low]).is_multiple_of(6)
        }
        _ => greeting.starts_with(b"HTTP/1."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn first_bytes_say_the_protocol() {
        let cases: &[(&[u8], Detected)] = &[
            (b"", Detected::NeedMore),
            (b"G", Detected::NeedMore),
            (b"GE", Detected::NeedMore),
            (b"GET", Detected::NeedMore),
            (b"GET ", Detected::NeedMore),
            (b"GET /", Detected::Http1),
            (b"GET / HTTP/1.1\r\n", Detected::Http1),
            (b"\r", Detected::NeedMore),
            (b"\r\n", Detected::NeedMore),
            (b"\r\nGET /", Detected::Http1),
            (b"\r\n\r", Detected::NeedMore),
            (b"\r\n\r\n\r\n\r\nGET /", Detected::Http1),
            (b"\r\n\r\n\r\n\r\n\r\nGET /", Detected::Other),
            (b"OPTIONS *", Detected::Http1),
            (b"GET http:", Detected::NeedMore),
            (b"GET http://a/", Detected::Http1),
            (b"HELO host.example.org\r\n", Detected::Other),
            (b"FETCH http", Detected::NeedMore),
            (b"CONNECT a:1", Detected::Http1),
            (b"CONNECT [::1]:1", Detected::Http1),
            (b"M-SEARCH *", Detected::Http1),
            (b"P", Detected::NeedMore),
            (b"PRI", Detected::NeedMore),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", Detected::NeedMore),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Detected::H2Preface),
            (
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00",
                Detected::H2Preface,
            ),
            // Not the preface after all: http1 refuses it with a clear answer.
            (b"PRI * HTTP/1.1\r\n", Detected::Http1),
            (b"\x16", Detected::NeedMore),
            (b"\x16\x03\x01\x02\x00", Detected::NeedMore),
            (b"\x16\x03\x01\x02\x00\x01", Detected::TlsHello),
            (b"\x16\x03\x01\x02\x00\x02", Detected::Other),
            (b"\x16\x02", Detected::Other),
            (b"get / HTTP/1.1", Detected::Other),
            (b"SSH-2.0-OpenSSH", Detected::Other),
            (b"\x00\x01", Detected::Other),
            (b"*1\r\n$4\r\nPING", Detected::Other),
            (b"EHLO example.org\r\n", Detected::Other),
            (b"AAAAAAAAAAAAAAAAAAAAAAAAAAAAA", Detected::Other),
            (b" GET /", Detected::Other),
        ];
        for (bytes, want) in cases {
            assert_eq!(detect(bytes), *want, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn a_greeting_of_http_is_told_from_others() {
        let cases: &[(&[u8], bool)] = &[
            (b"", false),
            (b"220 ready\r\n", false),
            (b"HTTP/1.1 408 Request Timeout\r\n", true),
            (b"HTTP", false),
            // Empty, and with one setting and what follows it.
            (b"\0\0\0\x04\0\0\0\0\0", true),
            (b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0d\0\0", true),
            // Cut short, an acknowledgement, of a stream, of another length, another frame.
            (b"\0\0\0\x04\0\0\0\0", false),
            (b"\0\0\0\x04\x01\0\0\0\0", false),
            (b"\0\0\0\x04\0\0\0\0\x01", false),
            (b"\0\0\x05\x04\0\0\0\0\0", false),
            (b"\0\0\0\x06\0\0\0\0\0", false),
            // MariaDB: length, sequence number 0, protocol 10, version.
            (b"\x5d\0\0\0\x0a5.5.5-10.11.6-MariaDB\0", false),
            (b"SSH-2.0-OpenSSH_9.2\r\n", false),
        ];
        for (bytes, want) in cases {
            let shown = String::from_utf8_lossy(bytes);
            assert_eq!(is_http_greeting(bytes), *want, "{shown:?}");
        }
    }

    proptest! {
        #[test]
        fn what_follows_a_greeting_does_not_change_it(
            begin in prop_oneof![
                Just(b"HTTP/1.".to_vec()),
                any::<[u8; 3]>().prop_map(|[a, b, c]| vec![a, b, c, 4, 0, 0, 0, 0, 0]),
                prop::collection::vec(any::<u8>(), 9..12),
            ],
            rest in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            let whole = [&begin[..], &rest].concat();
            prop_assert_eq!(is_http_greeting(&begin), is_http_greeting(&whole));
        }

        #[test]
        fn more_bytes_never_contradict(bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..40),
            "(GET|PRI|POST|CONNECT|X) ?[/*ha\\[]?.{0,30}".prop_map(String::into_bytes),
            (0..H2_PREFACE.len(), any::<u8>()).prop_map(|(at, byte)| {
                let mut bytes = H2_PREFACE.to_vec();
                bytes[at] = byte;
                bytes
            }),
        ]) {
            let mut decided = None;
            for len in 0..=bytes.len() {
                let now = detect(&bytes[..len]);
                match decided {
                    Some(before) => prop_assert_eq!(before, now),
                    None if now != Detected::NeedMore => decided = Some(now),
                    None => prop_assert!(len < DETECT_BYTES_MAX),
                }
            }
        }
    }
}
