//! WebSocket over HTTP/2 (RFC 8441) to and from the canonical form, which is the Upgrade of HTTP/1.1 (RFC 6455
//! section 4). Pure.
//!
//! An extended CONNECT is spelled as a GET that asks for the upgrade, and its 2xx as a 101: routing, policy and
//! telemetry see one handshake, whichever version brought it. The key and what answers it exist in HTTP/1.1
//! only, so whoever leaves that version behind checks or makes them.

use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use h2::ext::Protocol;
use http::header::{HeaderMap, HeaderName};
use http::{Method, StatusCode};

use super::head;
use crate::http1::{HeadFault, Request, RequestHead, ResponseHead};
use crate::view::HeaderLookup as _;

const NAME: &str = "websocket";
const KEY: HeaderName = HeaderName::from_static("sec-websocket-key");
const ACCEPT: HeaderName = HeaderName::from_static("sec-websocket-accept");
/// RFC 6455 section 1.3.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Bytes of a key (RFC 6455 section 4.1).
const KEY_BYTES: usize = 16;

/// Whether a request asks for WebSocket, and for nothing else, as RFC 6455 section 4.1 wants it.
#[must_use]
pub fn is_asked_for(request: &Request<'_>) -> bool {
    request
        .upgrade()
        .is_some_and(|protocol| protocol.eq_ignore_ascii_case(NAME.as_bytes()))
        && request.method() == "GET"
        && request.framing().is_empty()
}

/// What answers the key of a request; `None` if it has none of the right length.
#[must_use]
pub fn accept_of(request: &Request<'_>) -> Option<String> {
    let key = request.first(KEY.as_str())?;
    let bytes = BASE64.decode(key).ok()?;
    (bytes.len() == KEY_BYTES).then(|| accept(key))
}

/// RFC 6455 section 4.2.2. SHA-1 is what the protocol says; it proves that the server has read the key and
/// nothing else.
fn accept(key: &[u8]) -> String {
    let mut hash = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    hash.update(key);
    hash.update(GUID);
    BASE64.encode(hash.finish())
}

/// Spells an extended CONNECT as an upgrade with a key made of `random`.
///
/// # Errors
/// As [`head::put_request`], and [`HeadFault::ConnectProtocol`] for another protocol than WebSocket.
pub fn put_request(
    parts: &mut http::request::Parts,
    protocol: &Protocol,
    random: [u64; 2],
    parser: &mut RequestHead,
    out: &mut Vec<u8>,
) -> Result<(), HeadFault> {
    if !protocol.as_str().eq_ignore_ascii_case(NAME) {
        return Err(HeadFault::ConnectProtocol);
    }
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&random[0].to_be_bytes());
    key[8..].copy_from_slice(&random[1].to_be_bytes());
    parts.method = Method::GET;
    // Means nothing here (RFC 8441 section 5), and would be a second one.
    parts.headers.remove(KEY);
    // Nor is there a body that it could be of.
    parts.headers.remove(http::header::CONTENT_LENGTH);
    head::spell_request(parts, parser, out, |spelling, _| {
        spelling.field(b"connection", b"upgrade");
        spelling.field(b"upgrade", NAME.as_bytes());
        spelling.field(KEY.as_str().as_bytes(), BASE64.encode(key).as_bytes());
    })
}

/// Makes an extended CONNECT of a request that [`head::request`] read.
pub fn connect(request: &mut http::Request<()>) {
    *request.method_mut() = Method::CONNECT;
    request.headers_mut().remove(KEY);
    request.extensions_mut().insert(Protocol::from_static(NAME));
}

/// Spells the 2xx to an extended CONNECT as a 101 that answers the key with `accept`.
///
/// # Errors
/// As [`head::put_response`].
pub fn put_switch(
    fields: &mut HeaderMap,
    accept: &str,
    parser: &mut ResponseHead,
    out: &mut Vec<u8>,
) -> Result<(), HeadFault> {
    fields.remove(ACCEPT);
    // Ignored in this answer (RFC 9110 section 9.3.6).
    fields.remove(http::header::CONTENT_LENGTH);
    let status = StatusCode::SWITCHING_PROTOCOLS;
    parser.spell(out, status, "Switching Protocols", |spelling| {
        spelling.field(b"connection", b"upgrade");
        spelling.field(b"upgrade", NAME.as_bytes());
        spelling.field(ACCEPT.as_str().as_bytes(), accept.as_bytes());
        head::put_fields(fields, spelling);
    })
}

/// Reads a written 101 as the 200 of an extended CONNECT; `None` if it cannot be said in HTTP/2.
#[must_use]
pub fn switched(head: &Bytes) -> Option<http::Response<()>> {
    let mut response = head::response(head)?;
    *response.status_mut() = StatusCode::OK;
    response.headers_mut().remove(ACCEPT);
    Some(response)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::http1::{Next, Parsed};

    fn parsed<T>(bytes: &[u8], look: impl FnOnce(&Request<'_>) -> T) -> T {
        let mut head = RequestHead::new();
        assert!(matches!(head.parse(bytes), Parsed::Head(len) if len == bytes.len()));
        look(&head.view(bytes))
    }

    fn asked(fields: &str) -> String {
        format!("GET /chat HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    }

    /// The example of RFC 6455 section 1.3.
    #[test]
    fn a_key_is_answered_as_the_standard_says() {
        let request = asked("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n");
        let accept = parsed(request.as_bytes(), accept_of);
        assert_eq!(accept.unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for key in [
            "",
            "dGhl",
            "dGhlIHNhbXBsZSBub25jZQ",
            "!!!!IHNhbXBsZSBub25jZQ==",
        ] {
            let request = asked(&format!("Sec-WebSocket-Key: {key}\r\n"));
            assert_eq!(parsed(request.as_bytes(), accept_of), None, "{key}");
        }
    }

    #[test]
    fn other_upgrades_are_not_websocket() {
        let upgrade = "Connection: upgrade\r\nUpgrade: ";
        for (fields, wanted) in [
            (format!("{upgrade}WebSocket\r\n"), true),
            (
                format!("{upgrade}websocket\r\nContent-Length: 1\r\n"),
                false,
            ),
            (format!("{upgrade}websocket, other\r\n"), false),
            (format!("{upgrade}echo\r\n"), false),
            ("Upgrade: websocket\r\n".to_owned(), false),
        ] {
            let request = asked(&fields);
            assert_eq!(parsed(request.as_bytes(), is_asked_for), wanted, "{fields}");
        }
        let post = asked("Connection: upgrade\r\nUpgrade: websocket\r\n").replace("GET", "POST");
        assert!(!parsed(post.as_bytes(), is_asked_for));
    }

    fn extended(fields: &[(&'static str, &'static str)]) -> http::request::Parts {
        let mut request = http::Request::builder()
            .method(Method::CONNECT)
            .uri("https://app/chat?a=b");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    /// Through both versions and back it is the same request, and the key is made on the way.
    #[test]
    fn an_extended_connect_is_an_upgrade_and_back() {
        let mut parts = extended(&[
            ("sec-websocket-key", "mine"),
            ("sec-websocket-protocol", "chat"),
            ("content-length", "4"),
        ]);
        let mut bytes = Vec::new();
        let websocket = Protocol::from_static("websocket");
        put_request(
            &mut parts,
            &websocket,
            [1, 2],
            &mut RequestHead::new(),
            &mut bytes,
        )
        .unwrap();
        let text = String::from_utf8(bytes.clone()).unwrap();
        assert!(text.starts_with("GET /chat?a=b HTTP/1.1\r\n"), "{text}");
        assert_eq!(text.matches("sec-websocket-key").count(), 1, "{text}");
        assert!(!text.contains("mine") && !text.contains("content-length"));
        assert!(parsed(&bytes, is_asked_for));
        assert!(parsed(&bytes, accept_of).is_some());

        let mut request = head::request(&Bytes::from(bytes.clone()), false).unwrap();
        connect(&mut request);
        assert_eq!(request.method(), Method::CONNECT);
        assert_eq!(request.uri(), "http://app/chat?a=b");
        assert_eq!(request.headers()["sec-websocket-protocol"], "chat");
        for gone in ["sec-websocket-key", "upgrade", "connection"] {
            assert!(!request.headers().contains_key(gone), "{gone}");
        }
        let other = Protocol::from_static("connect-udp");
        let mut head = RequestHead::new();
        let refused = put_request(&mut extended(&[]), &other, [0, 0], &mut head, &mut bytes);
        assert_eq!(refused, Err(HeadFault::ConnectProtocol));
    }

    #[test]
    fn a_success_is_a_switch_and_back() {
        let response = http::Response::builder()
            .header("sec-websocket-protocol", "chat")
            .header("sec-websocket-accept", "theirs")
            .header("content-length", "7");
        let mut fields = response.body(()).unwrap().into_parts().0.headers;
        let mut bytes = Vec::new();
        let mut head = ResponseHead::new();
        put_switch(&mut fields, "ours", &mut head, &mut bytes).unwrap();
        let spelled = format!("{head:?}");
        assert!(matches!(head.parse(&bytes), Parsed::Head(len) if len == bytes.len()));
        assert_eq!(format!("{head:?}"), spelled);
        let view = head.view(&bytes);
        assert_eq!(view.next("GET", true), Ok(Next::Tunnel));
        assert_eq!(view.first("sec-websocket-accept"), Some(&b"ours"[..]));
        let told = switched(&bytes.into()).unwrap();
        assert_eq!(told.status(), 200);
        let names: Vec<_> = told.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["sec-websocket-protocol"]);
    }

    proptest! {
        #[test]
        fn any_random_bits_make_a_key(high in any::<u64>(), low in any::<u64>()) {
            let mut bytes = Vec::new();
            let websocket = Protocol::from_static("websocket");
            let mut head = RequestHead::new();
            put_request(&mut extended(&[]), &websocket, [high, low], &mut head, &mut bytes).unwrap();
            prop_assert!(parsed(&bytes, accept_of).is_some());
        }
    }
}
