//! WebSocket between the versions (RFC 8441): foreign clients and apps of either around a worker.

use std::net::Shutdown;
use std::sync::Mutex;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol as Connects;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::http2::{block_on, connect};
use super::mesh::Pair;
use super::*;

/// RFC 6455 section 1.3.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const BIG: usize = 3 * 1024 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Speaks {
    Http1,
    Http2,
}
use Speaks::{Http1, Http2};

const ALL_WAYS: [(Speaks, Speaks); 4] = [
    (Http1, Http1),
    (Http1, Http2),
    (Http2, Http1),
    (Http2, Http2),
];

/// What an app saw: heads, and how its tunnels ended.
#[derive(Default)]
struct Seen {
    heads: Mutex<Vec<String>>,
    ends: Mutex<Vec<String>>,
}

impl Seen {
    /// How the next tunnel ended.
    async fn end(&self) -> String {
        loop {
            if let Some(end) = self.ends.lock().unwrap().pop() {
                return end;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

/// An app whose paths say what it does.
fn app(speaks: Speaks) -> (SocketAddr, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let kept = Arc::clone(&seen);
    let at = match speaks {
        Http1 => server(move |_, stream| serve_http1(stream, &kept)).0,
        Http2 => http2_app(true, kept),
    };
    (at, seen)
}

fn serve_http1(mut stream: TcpStream, seen: &Seen) {
    let Some(head) = read_head(&mut stream) else {
        return;
    };
    let path = head.split(' ').nth(1).unwrap().to_owned();
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("sec-websocket-key")
            .then(|| value.to_owned())
    });
    seen.heads.lock().unwrap().push(head);
    let accept = match (&*path, key) {
        ("/wrong", _) | (_, None) => "AAAA".to_owned(),
        (_, Some(key)) => accept_of(&key),
    };
    let plain = |status| format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\nhello");
    match &*path {
        "/ignores" => return stream.write_all(plain("200 OK").as_bytes()).unwrap(),
        "/forbids" => return stream.write_all(plain("403 No").as_bytes()).unwrap(),
        _ => {}
    }
    let switch = format!(
        "HTTP/1.1 101 Yes\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\
         Sec-WebSocket-Protocol: chat\r\n\r\n"
    );
    stream.write_all(switch.as_bytes()).unwrap();
    match &*path {
        "/resets" => {
            let _ = stream.read(&mut [0]);
            let linger = Some(Duration::ZERO);
            socket2::SockRef::from(&stream).set_linger(linger).unwrap();
            return;
        }
        "/ends" => {
            stream.write_all(b"over").unwrap();
            stream.shutdown(Shutdown::Write).unwrap();
        }
        _ => {}
    }
    let mut buffer = vec![0; 64 * 1024];
    let end = loop {
        match stream.read(&mut buffer) {
            Ok(0) => break "end".to_owned(),
            Ok(len) if path == "/ends" => {
                seen.ends
                    .lock()
                    .unwrap()
                    .push(String::from_utf8_lossy(&buffer[..len]).into_owned());
            }
            Ok(len) => {
                if stream.write_all(&buffer[..len]).is_err() {
                    break "reset".to_owned();
                }
            }
            Err(_) => break "reset".to_owned(),
        }
    };
    if end == "end" && path != "/ends" {
        let _ = stream.write_all(b"bye");
    }
    seen.ends.lock().unwrap().push(end);
}

/// By a program of its own hand: not the code under test.
fn accept_of(key: &str) -> String {
    if key == KEY {
        return ACCEPT.to_owned();
    }
    use base64::Engine as _;
    let whole = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hash = aws_lc_rs::digest::digest(
        &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
        whole.as_bytes(),
    );
    base64::engine::general_purpose::STANDARD.encode(hash)
}

/// `connects`: it offers extended CONNECT.
fn http2_app(connects: bool, seen: Arc<Seen>) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    let mut builder = h2::server::Builder::new();
                    if connects {
                        builder.enable_connect_protocol();
                    }
                    let Ok(mut connection) = builder.handshake(socket).await else {
                        return;
                    };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(serve_http2(request, respond, Arc::clone(&seen)));
                    }
                });
            }
        });
    });
    at
}

async fn serve_http2(
    request: Request<RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    seen: Arc<Seen>,
) {
    let (parts, mut body) = request.into_parts();
    let protocol = parts.extensions.get::<Connects>().map(Connects::as_str);
    let head = format!(
        "{} {} {protocol:?} {:?}",
        parts.method, parts.uri, parts.headers
    );
    seen.heads.lock().unwrap().push(head);
    let path = parts.uri.path().to_owned();
    let status = if path == "/forbids" { 403 } else { 200 };
    let head = Response::builder()
        .status(status)
        .header("sec-websocket-protocol", "chat");
    let Ok(mut stream) = respond.send_response(head.body(()).unwrap(), status == 403) else {
        return;
    };
    if path == "/ends" {
        stream.send_data(Bytes::from_static(b"over"), true).unwrap();
    }
    let end = loop {
        match body.data().await {
            None => break "end".to_owned(),
            Some(Err(error)) => break format!("reset {:?}", error.reason().unwrap()),
            Some(Ok(piece)) => {
                let _ = body.flow_control().release_capacity(piece.len());
                match &*path {
                    "/ends" => {
                        let said = String::from_utf8_lossy(&piece).into_owned();
                        seen.ends.lock().unwrap().push(said);
                    }
                    "/resets" => return stream.send_reset(Reason::INTERNAL_ERROR),
                    _ => {
                        let _ = stream.send_data(piece, false);
                    }
                }
            }
        }
    };
    if end == "end" && path != "/ends" {
        let _ = stream.send_data(Bytes::from_static(b"bye"), true);
    }
    seen.ends.lock().unwrap().push(end);
}

/// A client's side of an open WebSocket.
struct Socket {
    out: Out,
    into: In,
}

enum Out {
    Plain(OwnedWriteHalf),
    Stream(SendStream<Bytes>),
}

enum In {
    Plain(OwnedReadHalf),
    Stream(RecvStream),
}

/// An answer that is none.
#[derive(Debug, PartialEq, Eq)]
struct Refused {
    status: u16,
    reason: String,
}

impl Socket {
    async fn open(speaks: Speaks, at: SocketAddr, host: &str, path: &str) -> Result<Self, Refused> {
        match speaks {
            Http1 => Self::upgrade(at, host, path, &format!("Sec-WebSocket-Key: {KEY}\r\n")).await,
            Http2 => Self::connect(connect(at).await, host, path, "websocket").await,
        }
    }

    async fn upgrade(
        at: SocketAddr,
        host: &str,
        path: &str,
        fields: &str,
    ) -> Result<Self, Refused> {
        let mut stream = tokio::net::TcpStream::connect(at).await.unwrap();
        let request = format!(
            "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\n{fields}\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        if status == 101 {
            let accept = format!("sec-websocket-accept: {}\r\n", ACCEPT.to_ascii_lowercase());
            for line in [
                &*accept,
                "connection: upgrade\r\n",
                "upgrade: websocket\r\n",
                "sec-websocket-protocol: chat\r\n",
            ] {
                assert_eq!(head.matches(line).count(), 1, "{line}: {head}");
            }
            let (into, out) = stream.into_split();
            return Ok(Self {
                out: Out::Plain(out),
                into: In::Plain(into),
            });
        }
        let reason = head
            .lines()
            .find_map(|line| line.strip_prefix("x-ringmesh-reason: "));
        Err(Refused {
            status,
            reason: reason.unwrap_or("-").to_owned(),
        })
    }

    async fn connect(
        mut sender: SendRequest<Bytes>,
        host: &str,
        path: &str,
        protocol: &'static str,
    ) -> Result<Self, Refused> {
        while !sender.is_extended_connect_protocol_enabled() {
            moment().await;
        }
        let request = Request::builder()
            .method(Method::CONNECT)
            .uri(format!("http://{host}{path}"))
            .header("sec-websocket-version", "13")
            .extension(Connects::from_static(protocol));
        let (response, stream) = sender
            .send_request(request.body(()).unwrap(), false)
            .unwrap();
        let (parts, body) = response.await.unwrap().into_parts();
        if parts.status == 200 {
            assert_eq!(parts.headers["sec-websocket-protocol"], "chat");
            for gone in ["sec-websocket-accept", "upgrade", "connection"] {
                assert!(!parts.headers.contains_key(gone), "{gone}");
            }
            return Ok(Self {
                out: Out::Stream(stream),
                into: In::Stream(body),
            });
        }
        let reason = parts.headers.get("x-ringmesh-reason");
        Err(Refused {
            status: parts.status.as_u16(),
            reason: reason
                .map_or("-", |value| value.to_str().unwrap())
                .to_owned(),
        })
    }

    async fn say(&mut self, bytes: &'static [u8]) {
        match &mut self.out {
            Out::Plain(stream) => stream.write_all(bytes).await.unwrap(),
            Out::Stream(stream) => stream.send_data(bytes.into(), false).unwrap(),
        }
    }

    async fn end(&mut self) {
        match &mut self.out {
            Out::Plain(stream) => stream.shutdown().await.unwrap(),
            Out::Stream(stream) => stream.send_data(Bytes::new(), true).unwrap(),
        }
    }

    /// All that comes up to the end; an error after a reset, with its code where there is one.
    async fn rest(&mut self) -> Result<Vec<u8>, Option<Reason>> {
        let mut bytes = Vec::new();
        match &mut self.into {
            In::Plain(stream) => match stream.read_to_end(&mut bytes).await {
                Ok(_) => Ok(bytes),
                Err(_) => Err(None),
            },
            In::Stream(body) => {
                while let Some(piece) = body.data().await {
                    let piece = piece.map_err(|error| error.reason())?;
                    let _ = body.flow_control().release_capacity(piece.len());
                    bytes.extend_from_slice(&piece);
                }
                Ok(bytes)
            }
        }
    }

    async fn hear(&mut self, len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while bytes.len() < len {
            match &mut self.into {
                In::Plain(stream) => {
                    let mut buffer = vec![0; len - bytes.len()];
                    let got = stream.read(&mut buffer).await.unwrap();
                    assert_ne!(got, 0, "it ended");
                    bytes.extend_from_slice(&buffer[..got]);
                }
                In::Stream(body) => {
                    let piece = body.data().await.expect("more").unwrap();
                    let _ = body.flow_control().release_capacity(piece.len());
                    bytes.extend_from_slice(&piece);
                }
            }
        }
        bytes
    }

    fn reset(self) {
        match self.out {
            Out::Plain(stream) => {
                let linger = Some(Duration::ZERO);
                let socket: &tokio::net::TcpStream = stream.as_ref();
                socket2::SockRef::from(socket).set_linger(linger).unwrap();
                // Dropped it would say an end first.
                stream.forget();
            }
            Out::Stream(mut stream) => stream.send_reset(Reason::CANCEL),
        }
    }
}

impl Out {
    /// All of it, no faster than the other side takes it, and the end.
    async fn pour(self, bytes: Vec<u8>) {
        match self {
            Self::Plain(mut stream) => {
                stream.write_all(&bytes).await.unwrap();
                stream.shutdown().await.unwrap();
            }
            Self::Stream(mut stream) => {
                let mut left = Bytes::from(bytes);
                while !left.is_empty() {
                    stream.reserve_capacity(left.len());
                    let room = std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
                    let piece = left.split_to(room.unwrap().unwrap());
                    stream.send_data(piece, left.is_empty()).unwrap();
                }
            }
        }
    }
}

fn declared(speaks: Speaks) -> Protocol {
    match speaks {
        Http1 => Protocol::Http1,
        Http2 => Protocol::Http2,
    }
}

fn bed(to: Speaks, limits: ConnLimits) -> (Bed, Arc<Seen>) {
    let (at, seen) = app(to);
    (bed_before(at, to, limits), seen)
}

fn bed_before(at: SocketAddr, to: Speaks, limits: ConnLimits) -> Bed {
    let mut draft = draft(at);
    draft.at("app").ports[0].protocol = declared(to);
    Bed::start_with(&draft, Role::Outbound, limits)
}

/// Bytes both ways as they come, then each end on its own; one line in the log.
#[test]
fn websocket_goes_between_all_versions() {
    for (from, to) in ALL_WAYS {
        let (bed, seen) = bed(to, ConnLimits::default());
        block_on(async {
            let mut socket = Socket::open(from, bed.at, "app", "/echo?a=b")
                .await
                .unwrap();
            for _ in 0..3 {
                socket.say(b"ping").await;
                assert_eq!(socket.hear(4).await, b"ping", "{from:?} {to:?}");
            }
            socket.end().await;
            assert_eq!(socket.rest().await.unwrap(), b"bye", "{from:?} {to:?}");
            assert_eq!(seen.end().await, "end");
        });
        let head = seen.heads.lock().unwrap().remove(0);
        match to {
            Http1 => {
                assert!(head.starts_with("GET /echo?a=b HTTP/1.1\r\n"), "{head}");
                let lower = head.to_ascii_lowercase();
                for line in ["connection: upgrade\r\n", "upgrade: websocket\r\n"] {
                    assert_eq!(lower.matches(line).count(), 1, "{head}");
                }
                assert!(!lower.contains("transfer-encoding"), "{head}");
            }
            Http2 => {
                let wanted = "CONNECT http://app/echo?a=b Some(\"websocket\")";
                assert!(head.starts_with(wanted), "{head}");
                assert!(!head.contains("sec-websocket-key"), "{head}");
                assert!(head.contains("\"sec-websocket-version\": \"13\""), "{head}");
            }
        }
        let log = bed.log();
        assert_eq!(log.len(), 1, "{log:?}");
        let status = if from == Http1 { 101 } else { 200 };
        assert_eq!(log[0]["status"], status, "{}", log[0]);
        assert_eq!(log[0]["method"], "GET", "{}", log[0]);
        assert_eq!(log[0]["bytes_in"], 12, "{}", log[0]);
        assert_eq!(log[0]["bytes_out"], 15, "{}", log[0]);
        assert_eq!(log[0]["reason"], "-", "{}", log[0]);
    }
}

#[test]
fn an_end_of_the_apps_direction_leaves_the_other_open() {
    for (from, to) in ALL_WAYS {
        let (bed, seen) = bed(to, ConnLimits::default());
        block_on(async {
            let mut socket = Socket::open(from, bed.at, "app", "/ends").await.unwrap();
            assert_eq!(socket.rest().await.unwrap(), b"over", "{from:?} {to:?}");
            socket.say(b"still here").await;
            assert_eq!(seen.end().await, "still here", "{from:?} {to:?}");
            socket.end().await;
            assert_eq!(seen.end().await, "end", "{from:?} {to:?}");
        });
    }
}

/// RFC 8441 section 5: a reset is a reset, and CANCEL in HTTP/2; also behind an end of its direction.
#[test]
fn resets_are_passed_on_both_ways() {
    for (from, to) in ALL_WAYS {
        let (bed, seen) = bed(to, ConnLimits::default());
        block_on(async {
            for half_closed in [false, true] {
                // Who has ended its direction of a connection cannot reset it any more.
                if half_closed && from == Http1 {
                    continue;
                }
                let path = if half_closed { "/ends" } else { "/echo" };
                let mut socket = Socket::open(from, bed.at, "app", path).await.unwrap();
                match half_closed {
                    true => assert_eq!(socket.rest().await.unwrap(), b"over"),
                    false => {
                        socket.say(b"ping").await;
                        assert_eq!(socket.hear(4).await, b"ping");
                    }
                }
                socket.reset();
                let wanted = match to {
                    Http1 => "reset",
                    Http2 => "reset CANCEL",
                };
                assert_eq!(seen.end().await, wanted, "{from:?} {to:?} {half_closed}");
            }
            let mut socket = Socket::open(from, bed.at, "app", "/resets").await.unwrap();
            socket.say(b"go").await;
            let wanted = match from {
                Http1 => None,
                Http2 => Some(Reason::CANCEL),
            };
            assert_eq!(socket.rest().await, Err(wanted), "{from:?} {to:?}");
        });
    }
}

/// Megabytes to a client that reads nothing for a while: windows hold them up, none is lost, and others go on.
#[test]
fn windows_hold_a_tunnel_up_and_lose_nothing() {
    for (from, to) in ALL_WAYS {
        let (bed, _) = bed(to, ConnLimits::default());
        block_on(async {
            let socket = Socket::open(from, bed.at, "app", "/echo").await.unwrap();
            let pattern: Vec<u8> = (0..BIG).map(|at| (at * 7 % 251) as u8).collect();
            let writing = tokio::spawn(socket.out.pour(pattern.clone()));
            let mut other = Socket::open(from, bed.at, "app", "/echo").await.unwrap();
            for _ in 0..3 {
                other.say(b"ping").await;
                assert_eq!(other.hear(4).await, b"ping", "{from:?} {to:?}");
            }
            let mut reader = Socket {
                into: socket.into,
                out: other.out,
            };
            let echoed = reader.rest().await.unwrap();
            writing.await.unwrap();
            assert!(echoed == [&pattern[..], b"bye"].concat(), "{from:?} {to:?}");
        });
    }
}

fn refused(status: u16, reason: &str) -> Refused {
    Refused {
        status,
        reason: reason.to_owned(),
    }
}

/// An HTTP/2 server that offers no extended CONNECT gets none, and its connection goes on.
#[test]
fn a_server_without_extended_connect_is_not_asked() {
    let seen = Arc::new(Seen::default());
    let at = http2_app(false, Arc::clone(&seen));
    let bed = bed_before(at, Http2, ConnLimits::default());
    block_on(async {
        for from in [Http1, Http2] {
            let refusal = Socket::open(from, bed.at, "app", "/echo").await.err();
            assert_eq!(
                refusal,
                Some(refused(501, "upgrade_unsupported")),
                "{from:?}"
            );
        }
        let mut sender = connect(bed.at).await;
        let ordinary = Request::get("http://app/forbids").body(()).unwrap();
        let (response, _) = sender.send_request(ordinary, true).unwrap();
        assert_eq!(response.await.unwrap().status(), 403);
    });
    assert_eq!(seen.heads.lock().unwrap().len(), 1);
    assert_eq!(bed.log().len(), 3);
}

/// What an app says in place of the switch reaches the client, but never as success.
#[test]
fn an_app_may_refuse_and_may_not_mislead() {
    for (from, to, path, status, reason) in [
        (Http1, Http1, "/forbids", 403, "-"),
        (Http1, Http2, "/forbids", 403, "-"),
        (Http2, Http1, "/forbids", 403, "-"),
        (Http2, Http2, "/forbids", 403, "-"),
        (Http1, Http1, "/ignores", 200, "-"),
        (Http2, Http1, "/ignores", 501, "upgrade_unsupported"),
        (Http2, Http1, "/wrong", 502, "bad_response"),
    ] {
        let (bed, _) = bed(to, ConnLimits::default());
        block_on(async {
            let refusal = Socket::open(from, bed.at, "app", path).await.err();
            assert_eq!(
                refusal,
                Some(refused(status, reason)),
                "{from:?} {to:?} {path}"
            );
        });
        assert_eq!(bed.log().len(), 1);
    }
}

#[test]
fn what_is_no_websocket_handshake_is_refused() {
    let (bed, seen) = bed(Http2, ConnLimits::default());
    block_on(async {
        for key in ["", "Sec-WebSocket-Key: c2hvcnQ=\r\n"] {
            let refusal = Socket::upgrade(bed.at, "app", "/echo", key).await.err();
            assert_eq!(refusal, Some(refused(400, "bad_request")), "{key}");
        }
        let sender = connect(bed.at).await;
        let refusal = Socket::connect(sender, "app", "/echo", "connect-udp").await;
        let wanted = refused(501, "unsupported_protocol");
        assert_eq!(refusal.err(), Some(wanted));
    });
    assert!(seen.heads.lock().unwrap().is_empty());
}

#[test]
fn a_silent_websocket_is_ended() {
    let limits = ConnLimits {
        idle_timeout_ms: 100,
        ..ConnLimits::default()
    };
    for (from, to) in ALL_WAYS {
        let (bed, _) = bed(to, limits);
        block_on(async {
            let mut socket = Socket::open(from, bed.at, "app", "/echo").await.unwrap();
            let end = socket.rest().await;
            assert!(end != Ok(b"bye".to_vec()), "{from:?} {to:?}");
        });
        let log = bed.log();
        assert_eq!(
            log[0]["reason"], "idle_timeout",
            "{from:?} {to:?} {}",
            log[0]
        );
    }
}

/// Through two sidecars and mutual TLS, each of which does its half.
#[test]
fn websocket_goes_through_two_sidecars() {
    for (from, to) in ALL_WAYS {
        let (at, seen) = app(to);
        let pair = Pair::of(declared(to), (at, Arc::default()));
        block_on(async {
            let mut socket = Socket::open(from, pair.caller.at, "ratings", "/echo")
                .await
                .unwrap();
            socket.say(b"ping").await;
            assert_eq!(socket.hear(4).await, b"ping", "{from:?} {to:?}");
            socket.end().await;
            assert_eq!(socket.rest().await.unwrap(), b"bye", "{from:?} {to:?}");
            assert_eq!(seen.end().await, "end");
        });
        assert_eq!(pair.caller.log().len(), 1);
        assert_eq!(pair.callee.log().len(), 1);
    }
}
