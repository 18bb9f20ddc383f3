//! Heads in HTTP/2's terms to and from the canonical form, which is HTTP/1.1 as [`crate::http1`]
//! reads and writes it (RFC 9113 section 8).
//!
//! Pure. What arrives is only spelled here; [`crate::http1`] judges it like any other head, so a
//! request means the same whichever version brought it. It does so while it is spelled: that parsing the
//! text would say the same is what the tests hold.

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, StatusCode, Uri, Version};

use crate::http1::{HeadFault, RequestHead, ResponseHead, Spelling, may_not_trail};

/// Spells a request into the emptied `out`, judged by `parser`. `ended`: no body follows.
///
/// # Errors
/// What [`crate::http1`] refuses, and besides:
/// [`HeadFault::HostDiffers`]: Host and `:authority` name different servers (RFC 9113 section 8.3.1).
/// [`HeadFault::Connect`]: of tunnels only those of RFC 8441 are carried ([`super::websocket`]).
pub fn put_request(
    parts: &http::request::Parts,
    ended: bool,
    parser: &mut RequestHead,
    out: &mut Vec<u8>,
) -> Result<(), HeadFault> {
    spell_request(parts, parser, out, |spelling, has_length| {
        if !ended && !has_length {
            spelling.field(b"transfer-encoding", b"chunked");
        }
    })
}

/// [`put_request`] with the fields at the end that `more` tells; it hears whether a length is said.
pub(super) fn spell_request(
    parts: &http::request::Parts,
    parser: &mut RequestHead,
    out: &mut Vec<u8>,
    more: impl FnOnce(&mut Spelling<'_>, bool),
) -> Result<(), HeadFault> {
    if parts.method == Method::CONNECT {
        return Err(HeadFault::Connect);
    }
    let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
    let host = parts.headers.get(http::header::HOST);
    let host = match (parts.uri.authority(), host) {
        (Some(authority), Some(host))
            if !authority
                .as_str()
                .as_bytes()
                .eq_ignore_ascii_case(host.as_bytes()) =>
        {
            return Err(HeadFault::HostDiffers);
        }
        (Some(authority), _) => Some(authority.as_str().as_bytes()),
        // Without, it is left to the parser, which misses it.
        (None, host) => host.map(HeaderValue::as_bytes),
    };
    let method = parts.method.as_str().as_bytes();
    parser.spell(out, method, target.as_bytes(), |spelling| {
        if let Some(host) = host {
            spelling.field(b"host", host);
        }
        let has_length = put_fields(&parts.headers, spelling);
        more(spelling, has_length);
    })
}

/// Spells a response, interim or final, into the emptied `out`, judged by `parser`. It says nothing of the
/// body's length unless the sender did: the frames do.
///
/// # Errors
/// What [`crate::http1`] refuses.
pub fn put_response(
    parts: &http::response::Parts,
    parser: &mut ResponseHead,
    out: &mut Vec<u8>,
) -> Result<(), HeadFault> {
    parser.spell(out, parts.status, "", |spelling| {
        put_fields(&parts.headers, spelling);
    })
}

/// Spells trailers as lines, without fields that may not stand there (RFC 9110 section 6.5.1).
pub fn put_trailers(fields: &HeaderMap, out: &mut Vec<u8>) {
    for (name, value) in fields {
        let name = name.as_str().as_bytes();
        if !may_not_trail(name) {
            for part in [name, b": ", value.as_bytes(), b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
    }
}

/// Spells all fields but Host; whether a length is among them.
pub(super) fn put_fields(fields: &HeaderMap, spelling: &mut Spelling<'_>) -> bool {
    let (mut has_length, mut has_cookie) = (false, false);
    for (name, value) in fields {
        if name == http::header::HOST {
            continue;
        }
        if name == http::header::COOKIE {
            has_cookie = true;
            continue;
        }
        has_length |= name == http::header::CONTENT_LENGTH;
        spelling.field(name.as_str().as_bytes(), value.as_bytes());
    }
    if has_cookie {
        // Crumbs are joined for those who know one Cookie (RFC 9113 section 8.2.3).
        let crumbs = fields.get_all(http::header::COOKIE).iter();
        spelling.joined(b"cookie", crumbs.map(HeaderValue::as_bytes), b"; ");
    }
    has_length
}

/// A target in HTTP/2's terms. What HTTP/1.1 clients are suffered to write raw and the `http` crate is not
/// (`{"a<b"}` in a query) is encoded, which means the same (RFC 3986 section 2.4).
fn path_and_query(target: &Bytes) -> Option<PathAndQuery> {
    if let Ok(target) = PathAndQuery::from_maybe_shared(target.clone()) {
        return Some(target);
    }
    let mut encoded = Vec::with_capacity(target.len() + 16);
    for byte in target {
        match byte {
            b'"' => encoded.extend_from_slice(b"%22"),
            b'<' => encoded.extend_from_slice(b"%3C"),
            b'>' => encoded.extend_from_slice(b"%3E"),
            b'`' => encoded.extend_from_slice(b"%60"),
            other => encoded.push(*other),
        }
    }
    PathAndQuery::from_maybe_shared(Bytes::from(encoded)).ok()
}

/// Reads a head that [`crate::http1::RequestPlan`] wrote; `None` if it cannot be said in HTTP/2.
/// `trailers`: the client takes trailers, and the next may know.
#[must_use]
pub fn request(head: &Bytes, trailers: bool) -> Option<http::Request<()>> {
    let (line, host, mut fields) = split(head, true)?;
    let mut words = line.splitn(3, |b| *b == b' ');
    let (method, target) = (words.next()?, words.next()?);
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(path_and_query(&head.slice_ref(target))?);
    let mut request = http::Request::new(());
    match host {
        Some(host) if !host.is_empty() => {
            uri.scheme = Some(Scheme::HTTP);
            uri.authority = Some(Authority::from_maybe_shared(head.slice_ref(host)).ok()?);
            *request.version_mut() = Version::HTTP_2;
        }
        // HTTP/1.0 need not say whom it asks; `h2` knows this case by the version.
        _ => *request.version_mut() = Version::HTTP_11,
    }
    *request.method_mut() = Method::from_bytes(method).ok()?;
    *request.uri_mut() = Uri::from_parts(uri).ok()?;
    if trailers {
        fields.insert(http::header::TE, HeaderValue::from_static("trailers"));
    }
    *request.headers_mut() = fields;
    Some(request)
}

/// Reads a head that [`crate::http1::ResponsePlan`] or [`crate::http1::Answer`] wrote; `None` if it
/// cannot be said in HTTP/2.
#[must_use]
pub fn response(head: &Bytes) -> Option<http::Response<()>> {
    let (line, _, fields) = split(head, false)?;
    let status = line.split(|b| *b == b' ').nth(1)?;
    let mut response = http::Response::new(());
    *response.status_mut() = StatusCode::from_bytes(status).ok()?;
    *response.headers_mut() = fields;
    Some(response)
}

/// Reads trailer lines; those that cannot be said are left out.
#[must_use]
pub fn trailers(lines: &[u8]) -> HeaderMap {
    let lines = Bytes::copy_from_slice(lines);
    let mut fields = HeaderMap::new();
    for line in lines_of(&lines) {
        if let Some((name, value)) = name_and_value(line) {
            let _ = field(&lines, name, value, &mut fields);
        }
    }
    fields
}

/// Fields there is room for at once; a map of more grows.
const ROOM_MAX: usize = 64;

/// A written head in its parts.
type Parts<'h> = (&'h [u8], Option<&'h [u8]>, HeaderMap);

/// First line, Host and fields of a written head, without those that belong to a connection (RFC
/// 9113 section 8.2.2). Host is told apart only of a request, where it becomes `:authority`.
fn split(head: &Bytes, is_request: bool) -> Option<Parts<'_>> {
    let mut host = None;
    let mut lines = lines_of(head);
    let first = lines.next()?;
    // Room for what is here and no more: a larger map is beyond the allocator's quick lists. Beside the
    // fields there are a first line and an empty one.
    let count = memchr::memchr_iter(b'\n', head).count().saturating_sub(2);
    let mut fields = HeaderMap::with_capacity(count.min(ROOM_MAX));
    for line in lines {
        let (name, value) = name_and_value(line)?;
        // By length first: nearly every field differs in that.
        match name.len() {
            4 if is_request && name.eq_ignore_ascii_case(b"host") => host = host.or(Some(value)),
            7 if name.eq_ignore_ascii_case(b"upgrade") => {}
            10 if name.eq_ignore_ascii_case(b"connection") => {}
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {}
            _ => field(head, name, value, &mut fields)?,
        }
    }
    Some((first, host, fields))
}

fn name_and_value(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = memchr::memchr(b':', line)?;
    Some((&line[..colon], line[colon + 1..].trim_ascii()))
}

/// Names of fields that are new with each request: remembered by the peer's HPACK table they would
/// only push others out of it, at the cost of keeping it on both sides.
pub(super) fn is_new_each_time(name: &HeaderName) -> bool {
    // No text is compared where a name is one of the standard's.
    static NAMES: [HeaderName; 2] = [
        HeaderName::from_static("x-request-id"),
        HeaderName::from_static("traceparent"),
    ];
    NAMES.contains(name)
}

fn field(whole: &Bytes, name: &[u8], value: &[u8], fields: &mut HeaderMap) -> Option<()> {
    let name = HeaderName::from_bytes(name).ok()?;
    // A slice of the empty end is not within `whole`.
    let mut value = match value {
        [] => HeaderValue::from_static(""),
        value => HeaderValue::from_maybe_shared(whole.slice_ref(value)).ok()?,
    };
    value.set_sensitive(is_new_each_time(&name));
    fields.append(name, value);
    Some(())
}

/// Lines without their CRLF, up to the empty one.
fn lines_of(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let end = memchr::memchr(b'\n', bytes)?;
        let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
        bytes = &bytes[end + 1..];
        (!line.is_empty()).then_some(line)
    })
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http1::Parsed;

    pub(in super::super) fn fields() -> impl Strategy<Value = HeaderMap> {
        let name = prop_oneof![
            "[a-z][a-z0-9-]{0,12}",
            Just("connection".to_owned()),
            Just("content-length".to_owned()),
            Just("cookie".to_owned()),
            Just("host".to_owned()),
            Just("te".to_owned()),
            Just("transfer-encoding".to_owned()),
        ];
        let value = prop::collection::vec(any::<u8>(), 0..20);
        prop::collection::vec((name, value), 0..12).prop_map(|list| {
            let mut fields = HeaderMap::new();
            for (name, value) in list {
                let name = HeaderName::from_bytes(name.as_bytes());
                // What the h2 crate cannot decode never gets here.
                if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(&value)) {
                    fields.append(name, value);
                }
            }
            fields
        })
    }

    #[test]
    fn what_belongs_to_the_connection_is_left_out() {
        let lines = "Host: app\r\nConnection: close\r\nUpgrade: x\r\nTransfer-Encoding: chunked\r\n\
                     X-Request-Id: 7\r\nAccept: a\r\nAccept: b\r\n\r\n";
        let names = |fields: &HeaderMap| -> Vec<String> {
            fields.iter().map(|(name, _)| name.to_string()).collect()
        };
        let asked = request(&format!("GET /p HTTP/1.1\r\n{lines}").into(), false).unwrap();
        assert_eq!(asked.uri().to_string(), "http://app/p");
        assert_eq!(names(asked.headers()), ["x-request-id", "accept", "accept"]);
        // Only a request's Host means a server.
        let told = response(&format!("HTTP/1.1 200 OK\r\n{lines}").into()).unwrap();
        assert_eq!(
            names(told.headers()),
            ["host", "x-request-id", "accept", "accept"]
        );
        // What is new each time would only fill the peer's table.
        assert!(told.headers()["x-request-id"].is_sensitive());
        assert!(!told.headers()["accept"].is_sensitive());
    }

    /// The text of a request, put together without anybody who judges it.
    fn text_of(parts: &http::request::Parts, ended: bool) -> Vec<u8> {
        let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let mut text = format!("{} {target} HTTP/1.1\r\n", parts.method).into_bytes();
        let host = parts.headers.get(http::header::HOST);
        let authority = parts.uri.authority().map(|it| it.as_str().as_bytes());
        if let Some(host) = authority.or(host.map(HeaderValue::as_bytes)) {
            text.extend_from_slice(&[b"host: ", host, b"\r\n"].concat());
        }
        put_lines(&parts.headers, &mut text);
        if !ended && !parts.headers.contains_key(http::header::CONTENT_LENGTH) {
            text.truncate(text.len() - 2);
            text.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
        }
        text
    }

    fn put_lines(fields: &HeaderMap, text: &mut Vec<u8>) {
        let mut crumbs = Vec::new();
        for (name, value) in fields {
            match name.as_str() {
                "host" => {}
                "cookie" => crumbs.push(value.as_bytes()),
                name => {
                    let line = [name.as_bytes(), b": ", value.as_bytes(), b"\r\n"];
                    text.extend_from_slice(&line.concat());
                }
            }
        }
        if !crumbs.is_empty() {
            let crumbs = crumbs.join(&b"; "[..]);
            text.extend_from_slice(&[b"cookie: ", &crumbs[..], b"\r\n"].concat());
        }
        text.extend_from_slice(b"\r\n");
    }

    #[test]
    fn what_is_too_large_is_refused_as_the_parser_refuses_it() {
        let (mut parts, ()) = http::Request::new(()).into_parts();
        parts.headers.insert("host", HeaderValue::from_static("a"));
        let long = HeaderValue::try_from("x".repeat(crate::http1::limits::HEAD_BYTES_MAX)).unwrap();
        let short = HeaderValue::from_static("x");
        for (value, times, wanted) in [
            (&short, crate::http1::limits::FIELDS_MAX - 1, None),
            (
                &short,
                crate::http1::limits::FIELDS_MAX,
                Some(HeadFault::TooManyFields),
            ),
            (&long, 1, Some(HeadFault::TooLarge)),
            (&long, 3, Some(HeadFault::TooLarge)),
        ] {
            let mut parts = parts.clone();
            for _ in 0..times {
                parts.headers.append("x-a", value.clone());
            }
            let (mut bytes, mut head) = (Vec::new(), RequestHead::new());
            let told = put_request(&parts, true, &mut head, &mut bytes);
            assert_eq!(told.err(), wanted);
            let parsed = RequestHead::new().parse(&text_of(&parts, true));
            match wanted {
                Some(fault) => assert_eq!(parsed, Parsed::Refuse(fault.refusal())),
                None => assert_eq!(parsed, Parsed::Head(bytes.len())),
            }
        }
        let long = "/x".repeat(crate::http1::limits::TARGET_BYTES_MAX);
        parts.uri = Uri::try_from(long).unwrap();
        let told = put_request(&parts, true, &mut RequestHead::new(), &mut Vec::new());
        assert_eq!(told, Err(HeadFault::TargetTooLong));
    }

    proptest! {
        /// Whatever HTTP/2 brings is one whole head or a refusal, the same as if its text had been parsed:
        /// nothing of it can be taken for a body or a second request.
        #[test]
        fn a_spelled_request_is_one_head_or_none(
            fields in fields(),
            path in "/[!-~]{0,20}",
            authority in prop::option::of("[a-z]{1,8}(:[0-9]{1,4})?"),
            ended in any::<bool>(),
        ) {
            let mut uri = http::uri::Parts::default();
            uri.path_and_query = PathAndQuery::try_from(path).ok();
            if let Some(authority) = authority {
                uri.scheme = Some(Scheme::HTTP);
                uri.authority = Authority::try_from(authority).ok();
            }
            let Ok(uri) = Uri::from_parts(uri) else { return Ok(()) };
            let (mut parts, ()) = http::Request::new(()).into_parts();
            parts.uri = uri;
            parts.headers = fields;
            let (mut bytes, mut spelled) = (Vec::new(), RequestHead::new());
            let told = put_request(&parts, ended, &mut spelled, &mut bytes);
            if told == Err(HeadFault::HostDiffers) {
                return Ok(());
            }
            let text = text_of(&parts, ended);
            let mut parser = RequestHead::new();
            match (told, parser.parse(&text)) {
                (Ok(()), Parsed::Head(len)) => {
                    prop_assert_eq!(&bytes, &text);
                    prop_assert_eq!(len, text.len());
                    prop_assert_eq!(format!("{spelled:?}"), format!("{parser:?}"));
                }
                (Err(fault), Parsed::Refuse(refusal)) => prop_assert_eq!(fault.refusal(), refusal),
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn a_spelled_response_is_one_head_or_none(fields in fields(), status in 100_u16..1000) {
            let (mut parts, ()) = http::Response::new(()).into_parts();
            parts.status = StatusCode::from_u16(status).unwrap();
            parts.headers = fields;
            let (mut bytes, mut spelled) = (Vec::new(), ResponseHead::new());
            let told = put_response(&parts, &mut spelled, &mut bytes);
            let mut text = format!("HTTP/1.1 {status} \r\n").into_bytes();
            put_lines(&parts.headers, &mut text);
            let mut parser = ResponseHead::new();
            match (told, parser.parse(&text)) {
                (Ok(()), Parsed::Head(len)) => {
                    prop_assert_eq!(&bytes, &text);
                    prop_assert_eq!(len, text.len());
                    prop_assert_eq!(format!("{spelled:?}"), format!("{parser:?}"));
                }
                (Err(fault), Parsed::Refuse(refusal)) => {
                    prop_assert_eq!(fault.bad_gateway(), refusal);
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }

        #[test]
        fn any_written_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let bytes = Bytes::from(bytes);
            let _ = request(&bytes, true);
            let _ = response(&bytes);
            let _ = trailers(&bytes);
        }
    }
}
