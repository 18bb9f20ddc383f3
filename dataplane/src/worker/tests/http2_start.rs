//! How an HTTP/2 connection begins, and what begins otherwise: RFC 9113 section 3.

use super::http2::{Outcome, Raw, app, bed, block, frame};
use super::mesh::Pair;
use super::*;
use crate::detect::H2_PREFACE;
use crate::tls::Inner;
use crate::tls::tests::{House, client_config, workload};

const PROTOCOL: u32 = 1;
const SETTINGS_TIMEOUT: u32 = 4;
const FRAME_SIZE: u32 = 6;

const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const ACK: u8 = 0x1;
/// END_STREAM and END_HEADERS.
const WHOLE: u8 = 0x5;

/// A request on stream 1.
fn request() -> Vec<u8> {
    let fields = [
        (":method", "GET"),
        (":scheme", "http"),
        (":authority", "app"),
        (":path", "/"),
    ];
    frame(HEADERS, WHOLE, 1, &block(&fields))
}

fn settings() -> Vec<u8> {
    frame(SETTINGS, 0, 0, &[])
}

/// What came before the end, as text.
fn read_to_end(stream: &mut impl Read) -> String {
    let mut bytes = Vec::new();
    // A reset after the answer is an end, too.
    let _ = stream.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// A connection to a sidecar that is written to in pieces.
fn begin(bed: &Bed, pieces: &[&[u8]]) -> TcpStream {
    let mut client = bed.client();
    client.set_nodelay(true).unwrap();
    for piece in pieces {
        // It may have been refused by now.
        let _ = client.write_all(piece);
    }
    client
}

#[test]
fn a_beginning_in_pieces_is_a_beginning() {
    let (bed, seen) = bed();
    let whole = [H2_PREFACE, &settings(), &request()].concat();
    let bytes: Vec<&[u8]> = whole.chunks(1).collect();
    let mut raw = Raw::on(begin(&bed, &bytes));
    assert_eq!(raw.outcome(1), Outcome::Answer);
    let behind_settings = H2_PREFACE.len() + settings().len() + 1;
    for cut in 1..behind_settings {
        let (first, rest) = whole.split_at(cut);
        let mut raw = Raw::on(begin(&bed, &[first, rest]));
        assert_eq!(raw.outcome(1), Outcome::Answer, "{cut}");
    }
    assert_eq!(seen.calls.load(Ordering::SeqCst), behind_settings);
}

/// What is no preface is a head of HTTP/1.1, and as one it is wrong.
#[test]
fn a_preface_with_a_wrong_byte_is_refused_as_http1() {
    let (bed, seen) = bed();
    for wrong in 0..H2_PREFACE.len() {
        let mut preface = H2_PREFACE.to_vec();
        preface[wrong] ^= 0x01;
        let mut client = begin(&bed, &[&preface, &settings(), &request()]);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = read_to_end(&mut client);
        let status = answer.split(' ').nth(1).unwrap_or_default();
        assert!(
            answer.starts_with("HTTP/1.1 ") && matches!(status, "400" | "501" | "505"),
            "{wrong}: {answer}"
        );
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert_eq!(answer.matches("x-ringmesh-reason: ").count(), 1, "{answer}");
    }
    assert_eq!(seen.calls.load(Ordering::SeqCst), 0);
}

#[test]
fn what_follows_the_preface_is_settings() {
    let (bed, seen) = bed();
    let mut refused = 0;
    let acknowledged = frame(SETTINGS, ACK, 0, &[]);
    for (what, first, wanted) in [
        ("SETTINGS", settings(), Outcome::Answer),
        (
            "a setting",
            frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]),
            Outcome::Answer,
        ),
        (
            "nothing but a request",
            Vec::new(),
            Outcome::GoAway(PROTOCOL),
        ),
        (
            "an acknowledgement",
            acknowledged.clone(),
            Outcome::GoAway(PROTOCOL),
        ),
        (
            "an acknowledgement before SETTINGS",
            [acknowledged, settings()].concat(),
            Outcome::GoAway(PROTOCOL),
        ),
        (
            "PING",
            frame(PING, 0, 0, &[0; 8]),
            Outcome::GoAway(PROTOCOL),
        ),
        (
            "GOAWAY",
            frame(GOAWAY, 0, 0, &[0; 8]),
            Outcome::GoAway(PROTOCOL),
        ),
        (
            "a kind nobody knows",
            frame(0xfa, 0, 0, &[]),
            Outcome::GoAway(PROTOCOL),
        ),
        (
            "SETTINGS of a stream",
            frame(SETTINGS, 0, 1, &[]),
            Outcome::GoAway(PROTOCOL),
        ),
        (
            "SETTINGS not of sixes",
            frame(SETTINGS, 0, 0, &[0; 5]),
            Outcome::GoAway(PROTOCOL),
        ),
        // Read as a frame it has four million bytes.
        (
            "HTTP/1.1",
            b"GET / HTTP/1.1\r\nHost: app\r\n\r\n".to_vec(),
            Outcome::GoAway(FRAME_SIZE),
        ),
        (
            "another preface",
            H2_PREFACE.to_vec(),
            Outcome::GoAway(FRAME_SIZE),
        ),
    ] {
        let calls = seen.calls.load(Ordering::SeqCst);
        let mut raw = Raw::on(begin(&bed, &[&[H2_PREFACE, &first, &request()].concat()]));
        assert_eq!(raw.outcome(1), wanted, "{what}");
        let answered = usize::from(wanted == Outcome::Answer);
        assert_eq!(
            seen.calls.load(Ordering::SeqCst),
            calls + answered,
            "{what}"
        );
        if answered == 0 {
            assert_eq!(raw.outcome(1), Outcome::End, "{what}");
            refused += 1;
            assert_eq!(Pair::counted(&bed, REFUSED), refused, "{what}");
        }
    }
}

const REFUSED: &str = "ringmesh_connections_refused_total";

/// Short times, so that a test need not wait for long.
fn hasty() -> ConnLimits {
    ConnLimits {
        head_timeout_ms: 150,
        keep_alive_timeout_ms: 400,
        ..ConnLimits::default()
    }
}

#[test]
fn silence_has_its_time() {
    let (upstream, _) = hello();
    let bed = Bed::start_with(&draft(upstream), Role::Outbound, hasty());
    for (what, said, wanted) in [
        (
            "nothing behind the preface",
            H2_PREFACE.to_vec(),
            SETTINGS_TIMEOUT,
        ),
        (
            "half of SETTINGS",
            [H2_PREFACE, &settings()[..5]].concat(),
            SETTINGS_TIMEOUT,
        ),
        // Asked to end by GOAWAY and PING, it does not answer either.
        ("no streams", [H2_PREFACE, &settings()].concat(), 0),
    ] {
        let mut raw = Raw::on(begin(&bed, &[&said]));
        assert_eq!(raw.outcome(1), Outcome::GoAway(wanted), "{what}");
        let last = loop {
            match raw.outcome(1) {
                Outcome::GoAway(0) => {}
                last => break last,
            }
        };
        assert_eq!(last, Outcome::End, "{what}");
    }
    // Half a preface is half a head.
    let mut client = begin(&bed, &[&H2_PREFACE[..10]]);
    let answer = read_to_end(&mut client);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

/// RFC 9113 section 3.1: the upgrade from HTTP/1.1 is no more, and the field is ignored.
#[test]
fn an_upgrade_to_http2_is_ignored() {
    for protocol in [Protocol::Http1, Protocol::Http2, Protocol::Auto] {
        let ((http1, _), (http2, _)) = (hello(), app());
        let at = if protocol == Protocol::Http2 {
            http2
        } else {
            http1
        };
        let mut draft = draft(at);
        let service = draft.at("app");
        service.ports[0].protocol = protocol;
        service.hosts = vec!["*".into()];
        let bed = Bed::start(&draft, Role::Outbound);
        let mut client = bed.client();
        for offer in ["h2c", "H2C", "h2c, websocket"] {
            let request = format!(
                "GET / HTTP/1.1\r\nHost: app\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {offer}\r\n\
                 HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n"
            );
            client.write_all(request.as_bytes()).unwrap();
            let head = read_head(&mut client).unwrap();
            assert!(
                head.starts_with("HTTP/1.1 200 "),
                "{protocol:?}, {offer}: {head}"
            );
            let length = match head.contains("chunked") {
                true => "5\r\nhello\r\n0\r\n\r\n".len(),
                false => "hello".len(),
            };
            client.read_exact(&mut vec![0; length]).unwrap();
        }
        // Nor does the connection become one of HTTP/2 by the preface behind it.
        client.write_all(H2_PREFACE).unwrap();
        let answer = read_to_end(&mut client);
        assert!(
            answer.starts_with("HTTP/1.1 505 "),
            "{protocol:?}: {answer}"
        );
    }
}

/// What ALPN agreed on is spoken, whatever the bytes look like.
#[test]
fn alpn_says_what_is_spoken() {
    let http1 = b"GET / HTTP/1.1\r\nHost: ratings\r\n\r\n".to_vec();
    let http2 = [H2_PREFACE, &settings(), &request()].concat();
    let pair = Pair::of(Protocol::Http1, hello());
    let say = |inner, bytes: &[u8]| {
        let mut client = tls(&pair.callee, &pair.house, inner);
        client.write_all(bytes).unwrap();
        client.flush().unwrap();
        client
    };
    let head = |inner, bytes: &[u8]| {
        let mut first = [0; 13];
        say(inner, bytes).read_exact(&mut first).unwrap();
        first
    };
    assert_eq!(&head(Inner::Http1, &http1), b"HTTP/1.1 200 ");
    assert_eq!(&head(Inner::Http1, &http2), b"HTTP/1.1 505 ");
    let is_settings = |first: [u8; 13]| first[3..5] == [SETTINGS, 0];
    assert!(is_settings(head(Inner::Http2, &http2)));

    let answer = read_to_end(&mut say(Inner::Http2, &http1));
    assert!(!answer.contains("HTTP/1.1"), "{answer}");
    assert_eq!(Pair::counted(&pair.callee, REFUSED), 1);
    // So is a preface that is cut off, or wrong at its end.
    let mut wrong = http2.clone();
    wrong[H2_PREFACE.len() - 1] = b'x';
    let answer = read_to_end(&mut say(Inner::Http2, &wrong));
    assert!(!answer.contains("hello"), "{answer}");
    assert_eq!(Pair::counted(&pair.callee, REFUSED), 2);
    // Nor are requests taken for bytes that nobody looks into, on a port that declares what it speaks.
    let mut client = tls(&pair.callee, &pair.house, Inner::Tcp);
    let mut answer = Vec::new();
    let _ = client
        .write_all(&http1)
        .and_then(|()| client.read_to_end(&mut answer));
    assert_eq!(answer, b"");
    assert_eq!(Pair::counted(&pair.callee, REFUSED), 3);
}

fn tls(
    callee: &Bed,
    house: &House,
    inner: Inner,
) -> rustls::StreamOwned<rustls::ClientConnection, TcpStream> {
    let material = house.material(&workload("productpage", "productpage", "v1"));
    let config = client_config(&material.unwrap(), inner);
    let name = "p9080.ratings.default.ringmesh".try_into().unwrap();
    let tls = rustls::ClientConnection::new(config, name).unwrap();
    rustls::StreamOwned::new(tls, callee.client())
}

/// A server's first frame is its SETTINGS, too.
#[test]
fn a_server_that_begins_otherwise_is_not_talked_to() {
    for first in [
        frame(SETTINGS, ACK, 0, &[]),
        frame(PING, 0, 0, &[0; 8]),
        frame(HEADERS, WHOLE, 1, &block(&[(":status", "200")])),
        b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(),
    ] {
        let (upstream, _) = server(move |_, mut stream| {
            // Its request, or the first of it.
            let _ = stream.read(&mut [0; 64]);
            let _ = stream.write_all(&first);
            let _ = read_to_end(&mut stream);
        });
        let mut draft = draft(upstream);
        draft.at("app").ports[0].protocol = Protocol::Http2;
        let bed = Bed::start(&draft, Role::Outbound);
        let answer = bed.get("app");
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(
            answer.contains("x-ringmesh-reason: upstream_reset\r\n"),
            "{answer}"
        );
    }
}
