//! What must hold of what each end was sent, whatever was done.

use super::Talk;
use crate::http1::{BodyDecoder, Framing, Known, Next, Parsed, RequestHead, ResponseHead};

/// Walks a body at the start of `bytes`; what follows it, or `None` if it goes on.
fn skip_body<'b>(framing: Framing, mut bytes: &'b [u8], whose: &str) -> Option<&'b [u8]> {
    let mut decoder = BodyDecoder::new();
    decoder.begin(framing);
    while !decoder.is_over() {
        if bytes.is_empty() {
            return None;
        }
        let piece = decoder.decode(bytes);
        let piece = piece.unwrap_or_else(|fault| panic!("{whose} got a body with {fault:?}"));
        bytes = &bytes[piece.skip + piece.payload..];
    }
    Some(bytes)
}

/// Walks a body that may break its framing; what follows it, nothing if it does not end.
fn pass_body(framing: Framing, mut bytes: &[u8]) -> &[u8] {
    let mut decoder = BodyDecoder::new();
    decoder.begin(framing);
    while !decoder.is_over() && !bytes.is_empty() {
        match decoder.decode(bytes) {
            Ok(piece) => bytes = &bytes[piece.skip + piece.payload..],
            Err(_) => bytes = &[],
        }
    }
    bytes
}

/// What a server was sent are whole requests that a strict reader takes, each with the mark of the sidecar that
/// made it: what a client said is not passed on as it came. Two things are bytes of a client: what follows an
/// exchange in which the server switched, and the whole of a connection that is the beginning of one of `tunnels`.
pub(super) fn server(server: &Talk, tunnels: &[&[u8]]) {
    let (mut rest, mut answers) = (&server.heard[..], &server.said[..]);
    if tunnels.iter().any(|said| said.starts_with(rest)) {
        return;
    }
    let mut head = RequestHead::new();
    while !rest.is_empty() {
        head.reset();
        let len = match head.parse(rest) {
            Parsed::Head(len) => len,
            Parsed::Partial => panic!("the app got half a head: {}", rest.escape_ascii()),
            Parsed::Refuse(refusal) => {
                panic!("the app got {:?}: {}", refusal.fault, rest.escape_ascii())
            }
        };
        let request = head.view(rest);
        assert!(
            request.field(Known::RequestId).is_some(),
            "the app got a request nobody marked: {}",
            server.heard.escape_ascii()
        );
        if switches(&mut answers, request.method(), request.upgrade().is_some()) {
            return;
        }
        let Some(more) = skip_body(request.framing(), &rest[len..], "the app") else {
            return;
        };
        rest = more;
    }
}

/// Takes the next answer off what a server said; whether its connection is bytes from there on. What is no answer
/// leaves none.
fn switches(said: &mut &[u8], method: &str, upgrade: bool) -> bool {
    let mut head = ResponseHead::new();
    loop {
        head.reset();
        let Parsed::Head(len) = head.parse(said) else {
            *said = &[];
            return false;
        };
        let next = head.view(said).next(method, upgrade);
        *said = &said[len..];
        match next {
            Ok(Next::Interim) => {}
            Ok(Next::Tunnel) => return true,
            Ok(Next::Body(framing)) => {
                *said = pass_body(framing, said);
                return false;
            }
            Err(_) => {
                *said = &[];
                return false;
            }
        }
    }
}

/// What the client was sent are answers that a strict reader takes, no more than it asked for. Gives what it said
/// behind a CONNECT, if it was told that there is a tunnel, or left before it could be told.
pub(super) fn client(client: &Talk) -> Option<&[u8]> {
    let mut asked = RequestHead::new();
    let (mut asks, mut rest) = (&client.said[..], &client.heard[..]);
    let mut answer = ResponseHead::new();
    let mut refused = false;
    while !rest.is_empty() {
        asked.reset();
        let (method, upgrade, framing, head_len) = match asked.parse(asks) {
            Parsed::Head(len) => {
                let request = asked.view(asks);
                let method = request.method().to_owned();
                (method, request.upgrade().is_some(), request.framing(), len)
            }
            // What never became a request is answered once, and last.
            Parsed::Partial | Parsed::Refuse(_) => {
                assert!(!refused, "answers to nothing: {}", rest.escape_ascii());
                refused = true;
                (String::new(), false, Framing::None, asks.len())
            }
        };
        let framing_out = loop {
            answer.reset();
            let len = match answer.parse(rest) {
                Parsed::Head(len) => len,
                Parsed::Partial => return None,
                Parsed::Refuse(refusal) => {
                    panic!(
                        "the client got {:?}: {}",
                        refusal.fault,
                        rest.escape_ascii()
                    )
                }
            };
            let view = answer.view(rest);
            rest = &rest[len..];
            match view.next(&method, upgrade) {
                Ok(Next::Interim) => {}
                Ok(Next::Tunnel) => return (method == "CONNECT").then_some(&asks[head_len..]),
                Ok(Next::Body(framing)) => break framing,
                Err(fault) => panic!("the client got {fault:?}"),
            }
        };
        rest = skip_body(framing_out, rest, "the client")?;
        // An answer may come before the request's body: then it is the last.
        asks = pass_body(framing, &asks[head_len..]);
    }
    asked.reset();
    match asked.parse(asks) {
        Parsed::Head(len) if client.broken_off && asked.view(asks).method() == "CONNECT" => {
            Some(&asks[len..])
        }
        _ => None,
    }
}
