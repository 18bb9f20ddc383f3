//! HTTP/2 and gRPC end to end: a foreign client and server (the `h2` crate over tokio's sockets)
//! around a worker, in all combinations of versions.

use std::future::Future;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, HeaderValue, Request, Response};
use ringmesh_wire::snapshot::Action;

use super::limits::limited;
use super::mesh::Pair;
use super::*;

/// Runs `test` on a runtime of its own, no longer than patience lasts.
pub(super) fn block_on<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let test = async { tokio::time::timeout(PATIENCE, test).await };
    runtime.block_on(test).expect("in time")
}

pub(super) async fn connect(at: SocketAddr) -> SendRequest<Bytes> {
    let socket = tokio::net::TcpStream::connect(at).await.unwrap();
    let (sender, connection) = h2::client::Builder::new()
        // So that streams which are not read yet hold up none of ours.
        .initial_connection_window_size(1024 * 1024)
        .handshake(socket)
        .await
        .unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    sender.ready().await.unwrap()
}

pub(super) fn request(method: &str, path: &str) -> Request<()> {
    Request::builder()
        .method(method)
        .uri(format!("http://app{path}"))
        .body(())
        .unwrap()
}

pub(super) fn grpc(path: &str) -> Request<()> {
    let mut request = request("POST", path);
    let fields = request.headers_mut();
    fields.insert("content-type", HeaderValue::from_static("application/grpc"));
    fields.insert("te", HeaderValue::from_static("trailers"));
    request
}

/// All of a body and its trailers; gives the window back at once.
pub(super) async fn read(body: &mut RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut bytes = Vec::new();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        bytes.extend_from_slice(&piece);
    }
    Ok((bytes, body.trailers().await?))
}

/// What an app saw.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) connections: AtomicUsize,
    pub(super) calls: AtomicUsize,
    pub(super) cancelled: AtomicBool,
    /// With which code the last call was given up.
    pub(super) code: std::sync::atomic::AtomicU32,
}

const BIG: usize = 3 * 1024 * 1024;

/// An app that speaks HTTP/2 only. Its paths say what it does.
pub(super) fn app() -> (SocketAddr, Arc<Seen>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let seen = Arc::new(Seen::default());
    let counts = Arc::clone(&seen);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((socket, _)) = listener.accept().await {
                counts.connections.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(carry(socket, Arc::clone(&counts)));
            }
        });
    });
    (at, seen)
}

async fn carry(socket: tokio::net::TcpStream, seen: Arc<Seen>) {
    let Ok(mut connection) = h2::server::handshake(socket).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let call = seen.calls.fetch_add(1, Ordering::SeqCst);
        match request.uri().path() {
            "/refuse-once" if call == 0 => respond.send_reset(Reason::REFUSED_STREAM),
            "/last" => {
                connection.graceful_shutdown();
                tokio::spawn(answer(request, respond, Arc::clone(&seen)));
            }
            _ => {
                tokio::spawn(answer(request, respond, Arc::clone(&seen)));
            }
        }
    }
}

async fn answer(
    request: Request<RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    seen: Arc<Seen>,
) {
    let (parts, mut body) = request.into_parts();
    let ok = || Response::builder().status(200);
    match parts.uri.path() {
        "/echo" => {
            let head = ok().header("content-type", "application/grpc");
            let Ok(mut stream) = respond.send_response(head.body(()).unwrap(), false) else {
                return;
            };
            while let Some(Ok(piece)) = body.data().await {
                let _ = body.flow_control().release_capacity(piece.len());
                let _ = stream.send_data(piece, false);
            }
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("5"));
            let _ = stream.send_trailers(trailers);
        }
        "/no-content" => {
            let head = Response::builder().status(204).body(()).unwrap();
            let Ok(mut stream) = respond.send_response(head, false) else {
                return;
            };
            let body = &b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"[..];
            let _ = stream.send_data(body.into(), true);
        }
        "/count" => {
            let (mut frames, mut bytes) = (0, 0);
            while let Some(Ok(piece)) = body.data().await {
                let _ = body.flow_control().release_capacity(piece.len());
                (frames, bytes) = (frames + 1, bytes + piece.len());
            }
            let head = ok().header("bytes", bytes).header("frames", frames);
            let _ = respond.send_response(head.body(()).unwrap(), true);
        }
        "/read-and-hang" => {
            while let Some(Ok(_)) = body.data().await {}
            seen.calls.fetch_add(1, Ordering::SeqCst);
            let _ = std::future::poll_fn(|cx| respond.poll_reset(cx)).await;
            seen.cancelled.store(true, Ordering::SeqCst);
        }
        "/hang" => {
            if let Ok(code) = std::future::poll_fn(|cx| respond.poll_reset(cx)).await {
                seen.code.store(code.into(), Ordering::SeqCst);
            }
            seen.cancelled.store(true, Ordering::SeqCst);
        }
        path if path.starts_with("/reset/") => {
            let code: u32 = path["/reset/".len()..].parse().unwrap();
            let mut stream = respond
                .send_response(ok().body(()).unwrap(), false)
                .unwrap();
            let _ = stream.send_data(Bytes::from_static(b"half"), false);
            // The client has the head and a piece before.
            while body.data().await.is_some() {}
            stream.send_reset(code.into());
        }
        "/big" => {
            let mut stream = respond
                .send_response(ok().body(()).unwrap(), false)
                .unwrap();
            let mut left = BIG;
            while left > 0 {
                stream.reserve_capacity(left.min(16_384));
                match std::future::poll_fn(|cx| stream.poll_capacity(cx)).await {
                    Some(Ok(room)) => {
                        let now = room.min(left).min(16_384);
                        left -= now;
                        let _ = stream.send_data(Bytes::from(vec![b'x'; now]), left == 0);
                    }
                    _ => return,
                }
            }
        }
        "/early" => {
            let mut head = Response::new(());
            *head.status_mut() = http::StatusCode::EARLY_HINTS;
            respond.send_informational(head).unwrap();
            let _ = respond.send_response(ok().body(()).unwrap(), true);
        }
        "/unavailable" => {
            let head = ok()
                .header("content-type", "application/grpc")
                .header("grpc-status", "14");
            let _ = respond.send_response(head.body(()).unwrap(), true);
        }
        "/headers" => {
            let text = format!("{:?}", parts.headers);
            let mut stream = respond
                .send_response(ok().body(()).unwrap(), false)
                .unwrap();
            let _ = stream.send_data(text.into(), true);
        }
        _ => {
            let mut stream = respond
                .send_response(ok().body(()).unwrap(), false)
                .unwrap();
            let _ = stream.send_data(Bytes::from_static(b"hello"), true);
        }
    }
}

/// A sidecar before an app that speaks HTTP/2.
pub(super) fn bed() -> (Bed, Arc<Seen>) {
    let (at, seen) = app();
    let mut draft = draft(at);
    draft.at("app").ports[0].protocol = Protocol::Http2;
    (Bed::start(&draft, Role::Outbound), seen)
}

#[test]
fn http2_clients_reach_http1_apps() {
    let (upstream, connections) = server(|_, mut stream| {
        while let Some(head) = read_head(&mut stream) {
            assert!(head.contains("cookie: a=1; b=2\r\n"), "{head}");
            assert!(!head.contains(":authority"), "{head}");
            stream
                .write_all(b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-End: 1\r\n\r\n")
                .unwrap();
        }
    });
    let bed = Bed::start(&draft(upstream), Role::Outbound);
    block_on(async {
        let mut sender = connect(bed.at).await;
        for _ in 0..3 {
            let mut request = request("GET", "/x?y=1");
            for crumb in ["a=1", "b=2"] {
                let crumb = HeaderValue::from_static(crumb);
                request.headers_mut().append("cookie", crumb);
            }
            let (response, _) = sender.send_request(request, true).unwrap();
            let (parts, mut body) = response.await.unwrap().into_parts();
            assert_eq!(parts.status, 200);
            assert!(!parts.headers.contains_key("transfer-encoding"));
            let (bytes, trailers) = read(&mut body).await.unwrap();
            assert_eq!(bytes, b"hello");
            assert_eq!(trailers.unwrap()["x-end"], "1");
        }
    });
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    let log = bed.log();
    assert_eq!(log.len(), 3);
    assert_eq!(log[0]["protocol"], "http2", "{}", log[0]);
    assert_eq!(log[0]["path"], "/x", "{}", log[0]);
}

/// As long as a rule may write it: more than one buffer.
#[test]
fn a_long_answer_of_a_rule_is_told_in_either_version() {
    const BODY_BYTES: usize = 64 * 1024;
    let (upstream, _) = hello();
    let mut route = to(&[]);
    route.action = Action::Respond {
        status: 503,
        body: "x".repeat(BODY_BYTES),
    };
    let bed = Bed::start(&draft(upstream).http("app", vec![route]), Role::Outbound);
    let answer = bed.get("app");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(body.len(), BODY_BYTES);
    block_on(async {
        let mut sender = connect(bed.at).await;
        let (response, _) = sender.send_request(request("GET", "/"), true).unwrap();
        let (parts, mut body) = response.await.unwrap().into_parts();
        assert_eq!(parts.status, 503);
        let (bytes, _) = read(&mut body).await.unwrap();
        assert_eq!(bytes.len(), BODY_BYTES);
    });
}

#[test]
fn http1_clients_reach_http2_apps() {
    let (bed, seen) = bed();
    let mut client = bed.client();
    for _ in 0..3 {
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n")
            .unwrap();
        let head = read_head(&mut client).unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
        let mut body = [0; 15];
        client.read_exact(&mut body).unwrap();
        assert_eq!(&body, b"5\r\nhello\r\n0\r\n\r\n");
    }
    assert_eq!(seen.connections.load(Ordering::SeqCst), 1);
    // A body in the frames' terms, an interim answer, and an answer without a body.
    client
        .write_all(b"POST /echo HTTP/1.1\r\nHost: app\r\nContent-Length: 3\r\n\r\nabcGET /early HTTP/1.1\r\nHost: app\r\n\r\n")
        .unwrap();
    let mut answer = read_head(&mut client).unwrap();
    let mut rest = [0; 29];
    client.read_exact(&mut rest).unwrap();
    answer += std::str::from_utf8(&rest).unwrap();
    assert!(
        answer.ends_with("3\r\nabc\r\n0\r\ngrpc-status: 5\r\n\r\n"),
        "{answer}"
    );
    assert!(read_head(&mut client).unwrap().starts_with("HTTP/1.1 103 "));
    let last = read_head(&mut client).unwrap();
    assert!(last.contains("content-length: 0\r\n"), "{last}");
}

/// Streams of several clients share a connection; pieces, trailers and the status in them go through
/// while the request is still open.
#[test]
fn grpc_streams_both_ways() {
    let (bed, seen) = bed();
    block_on(async {
        for _ in 0..2 {
            let mut sender = connect(bed.at).await;
            let (response, mut stream) = sender.send_request(grpc("/echo"), false).unwrap();
            let (parts, mut body) = response.await.unwrap().into_parts();
            assert_eq!(parts.status, 200);
            for n in 0..5u8 {
                stream.send_data(Bytes::from(vec![n; 100]), false).unwrap();
                let mut piece = Vec::new();
                while piece.len() < 100 {
                    piece.extend_from_slice(&body.data().await.unwrap().unwrap());
                }
                assert_eq!(piece, vec![n; 100]);
            }
            stream.send_data(Bytes::new(), true).unwrap();
            let (rest, trailers) = read(&mut body).await.unwrap();
            assert!(rest.is_empty());
            assert_eq!(trailers.unwrap()["grpc-status"], "5");
        }
    });
    assert_eq!(seen.connections.load(Ordering::SeqCst), 1);
    let log = bed.log();
    assert_eq!(log[0]["protocol"], "grpc", "{}", log[0]);
    assert_eq!(log[0]["grpc_status"], 5, "{}", log[0]);
}

/// A stream nobody reads holds up neither its neighbours nor the shard.
#[test]
fn a_stalled_stream_holds_up_nobody() {
    let (bed, _) = bed();
    block_on(async {
        let mut sender = connect(bed.at).await;
        let mut stalled = Vec::new();
        for _ in 0..3 {
            sender = sender.ready().await.unwrap();
            // Its window is given back at the end only.
            let (response, _) = sender.send_request(request("GET", "/big"), true).unwrap();
            stalled.push(response.await.unwrap());
            let mut quick = connect(bed.at).await;
            let (response, _) = quick.send_request(request("GET", "/"), true).unwrap();
            let mut body = response.await.unwrap().into_body();
            assert_eq!(read(&mut body).await.unwrap().0, b"hello");
        }
        // All of it, once it is read.
        for response in &mut stalled {
            let (bytes, _) = read(response.body_mut()).await.unwrap();
            assert_eq!(bytes.len(), BIG);
        }
    });
}

/// HTTP says 200 of every call: what the endpoint is worth its gRPC status tells.
#[test]
fn an_endpoint_that_is_unavailable_in_grpc_is_ejected() {
    let (at, seen) = app();
    let mut draft = limited(at, ringmesh_wire::snapshot::Limits::default());
    draft.at("app").ports[0].protocol = Protocol::Http2;
    // Once each: another try would find it ejected.
    let mut once = to(&[("app", "", 1)]);
    once.retry.attempts = 0;
    draft = draft.http("app", vec![once]);
    let bed = Bed::start(&draft, Role::Outbound);
    block_on(async {
        let mut sender = connect(bed.at).await;
        for wanted in ["upstream", "no_endpoint"] {
            sender = sender.ready().await.unwrap();
            let (answer, _) = sender.send_request(grpc("/unavailable"), true).unwrap();
            let answer = answer.await.unwrap();
            assert_eq!(answer.headers()["grpc-status"], "14");
            let reason = answer.headers().get("x-ringmesh-reason");
            let reason = reason.map_or("upstream", |reason| reason.to_str().unwrap());
            assert_eq!(reason, wanted);
        }
    });
    assert_eq!(seen.calls.load(Ordering::SeqCst), 1);
}

/// HTTP/1.1 clients write it so, and browsers do.
#[test]
fn a_target_with_raw_quotes_reaches_an_http2_app() {
    let (bed, seen) = bed();
    let answer = bed
        .ask("GET /api?query=up{job=\"<x>\"} HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(seen.calls.load(Ordering::SeqCst), 1);
}

/// A body where there is none by the status must not become the next answer.
#[test]
fn frames_behind_a_204_are_not_passed_on() {
    let (bed, _) = bed();
    let mut client = bed.client();
    client
        .write_all(b"GET /no-content HTTP/1.1\r\nHost: app\r\n\r\nGET / HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n")
        .unwrap();
    let mut answers = String::new();
    client.read_to_string(&mut answers).unwrap();
    assert!(answers.starts_with("HTTP/1.1 204 "), "{answers}");
    assert!(!answers.contains("evil"), "{answers}");
    assert!(answers.contains("hello"), "{answers}");
}

/// A frame for each would be taken for an attack: servers on newer versions of h2 give up after some thousands.
#[test]
fn tiny_chunks_are_joined_into_frames() {
    let (bed, _) = bed();
    let head = "POST /count HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = bed.ask(&format!("{head}{}0\r\n\r\n", "1\r\nx\r\n".repeat(32_768)));
    assert!(answer.contains("bytes: 32768\r\n"), "{answer}");
    let frames = answer.split_once("frames: ").unwrap().1;
    let frames: usize = frames.split_once('\r').unwrap().0.parse().unwrap();
    assert!(frames < 2_000, "{frames}");
}

/// The end of a body is said although only its trailers were left when the stream was opened.
#[test]
fn trailers_without_a_body_end_the_stream() {
    let (bed, _) = bed();
    let mut client = bed.client();
    client
        .write_all(b"POST /echo HTTP/1.1\r\nHost: app\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n0\r\nX-Last: 1\r\n\r\n")
        .unwrap();
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.ends_with("0\r\ngrpc-status: 5\r\n\r\n"), "{answer}");
}

#[test]
fn a_server_that_sends_settings_first_still_speaks_http2() {
    let (app, seen) = app();
    // The first connection is let go only when the sidecar has heard the SETTINGS and hung up.
    let (gone, left) = std::sync::mpsc::channel();
    let (upstream, _) = server(move |number, mut stream| {
        if number == 0 {
            stream.write_all(b"\0\0\0\x04\0\0\0\0\0").unwrap();
            gone.send(stream.read(&mut [0])).unwrap();
            return;
        }
        let mut to = TcpStream::connect(app).unwrap();
        let (mut back_from, mut back_to) = (to.try_clone().unwrap(), stream.try_clone().unwrap());
        std::thread::spawn(move || std::io::copy(&mut back_from, &mut back_to));
        let _ = std::io::copy(&mut stream, &mut to);
    });
    let mut draft = draft(upstream);
    let service = draft.at("app");
    service.hosts = vec!["*".into()];
    service.ports[0].protocol = Protocol::Auto;
    let bed = Bed::start(&draft, Role::Outbound);
    block_on(async {
        let socket = tokio::net::TcpStream::connect(bed.at).await.unwrap();
        assert_eq!(left.recv_timeout(PATIENCE).unwrap().unwrap(), 0);
        let (sender, connection) = h2::client::handshake(socket).await.unwrap();
        tokio::spawn(async move {
            let _ = connection.await;
        });
        let mut sender: SendRequest<Bytes> = sender.ready().await.unwrap();
        let (response, _) = sender.send_request(grpc("/echo"), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    });
    assert_eq!(seen.calls.load(Ordering::SeqCst), 1);
    let log = bed.log();
    assert_eq!((log.len(), &log[0]["status"]), (1, &200.into()), "{log:?}");
}

#[test]
fn grpc_clients_are_answered_in_their_terms() {
    let (bed, _) = bed();
    block_on(async {
        let mut sender = connect(bed.at).await;
        let mut call = grpc("/hang");
        let timeout = HeaderValue::from_static("50m");
        call.headers_mut().insert("grpc-timeout", timeout);
        let (response, _) = sender.send_request(call, true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["grpc-status"], "4");
        assert_eq!(response.headers()["grpc-message"], "timeout");
        assert!(response.body().is_end_stream());
        // The time that is left is what the app is told.
        let mut call = grpc("/headers");
        let timeout = HeaderValue::from_static("10S");
        call.headers_mut().insert("grpc-timeout", timeout);
        let (response, _) = sender
            .ready()
            .await
            .unwrap()
            .send_request(call, true)
            .unwrap();
        let mut body = response.await.unwrap().into_body();
        let (seen, _) = read(&mut body).await.unwrap();
        let seen = String::from_utf8(seen).unwrap();
        let left = seen.split("\"grpc-timeout\": \"").nth(1).unwrap();
        let left: u32 = left.split('m').next().unwrap().parse().unwrap();
        assert!(left <= 10_000, "{seen}");
        assert!(seen.contains("\"te\": \"trailers\""), "{seen}");
    });
    let log = bed.log();
    assert_eq!(log[0]["grpc_status"], 4, "{}", log[0]);
}

/// A client that has part of the answer learns that time is up as gRPC tells it, and not by a reset.
#[test]
fn a_grpc_answer_under_way_ends_with_the_status_of_its_deadline() {
    let (bed, seen) = bed();
    block_on(async {
        let mut call = grpc("/echo");
        let timeout = HeaderValue::from_static("2S");
        call.headers_mut().insert("grpc-timeout", timeout);
        let mut sender = connect(bed.at).await;
        let (response, mut stream) = sender.send_request(call, false).unwrap();
        let mut body = response.await.unwrap().into_body();
        stream
            .send_data(Bytes::from_static(b"piece"), false)
            .unwrap();
        let (bytes, trailers) = read(&mut body).await.unwrap();
        assert_eq!(bytes, b"piece");
        let trailers = trailers.unwrap();
        assert_eq!(trailers["grpc-status"], "4");
        assert_eq!(trailers["grpc-message"], "timeout");
    });
    let log = bed.log();
    let line = &log[0];
    assert_eq!(
        (&line["grpc_status"], &line["reason"]),
        (&4.into(), &"timeout".into()),
        "{line}"
    );
    assert_eq!(seen.calls.load(Ordering::SeqCst), 1);
}

/// Draining says GOAWAY and lets streams end.
#[test]
fn draining_lets_streams_end() {
    let (bed, _) = bed();
    block_on(async {
        let socket = tokio::net::TcpStream::connect(bed.at).await.unwrap();
        let (mut sender, connection) = h2::client::handshake(socket).await.unwrap();
        let ended = tokio::spawn(connection);
        let (response, mut stream) = sender.send_request(grpc("/echo"), false).unwrap();
        let mut body = response.await.unwrap().into_body();
        bed.mailbox.send(ToShard::Drain).unwrap();
        // No new stream after the second GOAWAY, and the old one goes on.
        while let Ok(ready) = sender.clone().ready().await {
            drop(ready);
            moment().await;
        }
        stream.send_data(Bytes::from_static(b"late"), true).unwrap();
        let (bytes, trailers) = read(&mut body).await.unwrap();
        assert_eq!(bytes, b"late");
        assert!(trailers.is_some());
        drop(sender);
        ended.await.unwrap().unwrap();
    });
    assert!(matches!(bed.next(), FromShard::Drained));
}

/// Through two sidecars, with mutual TLS and ALPN between them.
#[test]
fn http2_goes_through_two_sidecars() {
    let (at, seen) = app();
    let pair = Pair::of(Protocol::Http2, (at, Arc::default()));
    block_on(async {
        let mut sender = connect(pair.caller.at).await;
        let mut big = Vec::new();
        for _ in 0..4 {
            sender = sender.ready().await.unwrap();
            let mut call = request("GET", "/big");
            *call.uri_mut() = "http://ratings/big".parse().unwrap();
            big.push(sender.send_request(call, true).unwrap().0);
        }
        for response in big {
            let mut body = response.await.unwrap().into_body();
            assert_eq!(read(&mut body).await.unwrap().0.len(), BIG);
        }
    });
    assert_eq!(seen.connections.load(Ordering::SeqCst), 1);
    let log = pair.caller.log();
    assert_eq!(log.len(), 4);
    assert_eq!(pair.callee.log().len(), 4);
}

/// Frames as bytes, for what no library sends.
pub(super) struct Raw(TcpStream);

impl Raw {
    pub(super) fn open(bed: &Bed) -> Self {
        let mut raw = Self(bed.client());
        raw.0.write_all(crate::detect::H2_PREFACE).unwrap();
        raw.send(4, 0, 0, &[]);
        raw
    }

    /// On a connection that has begun in its own way.
    pub(super) fn on(socket: TcpStream) -> Self {
        Self(socket)
    }

    /// Bytes as they are.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes);
    }

    /// Another handle to its socket.
    pub(super) fn socket(&self) -> TcpStream {
        self.0.try_clone().unwrap()
    }

    pub(super) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let bytes = frame(kind, flags, stream, payload);
        // It may have hung up on us by now.
        let _ = self.0.write_all(&bytes);
    }

    /// The next frame: kind, flags, stream, payload; `None` at the end.
    fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.0.read_exact(&mut head).ok()?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some((head[3], head[4], stream, payload))
    }

    /// Waits until all that was sent has been looked at.
    pub(super) fn settle(&mut self) {
        let (ping, acknowledged) = (6, 1);
        self.send(ping, 0, 0, &[7; 8]);
        while let Some((kind, flags, ..)) = self.next() {
            if (kind, flags) == (ping, acknowledged) {
                return;
            }
        }
        panic!("the connection ended");
    }

    /// Error code of the GOAWAY that has to come.
    fn goaway(&mut self) -> u32 {
        let (_, code) = self.goodbye();
        code
    }

    /// Last stream and error code of the GOAWAY that has to come.
    pub(super) fn goodbye(&mut self) -> (u32, u32) {
        while let Some((kind, _, _, payload)) = self.next() {
            if kind == 7 {
                let word = |at: usize| u32::from_be_bytes(payload[at..at + 4].try_into().unwrap());
                return (word(0), word(4));
            }
        }
        panic!("the connection ended without GOAWAY");
    }

    /// Error code of the RST_STREAM or status line's index of the answer that has to come.
    pub(super) fn outcome(&mut self, of: u32) -> Outcome {
        loop {
            match self.next() {
                Some((3, _, stream, code)) if stream == of => {
                    return Outcome::Reset(u32::from_be_bytes(code[..4].try_into().unwrap()));
                }
                Some((1, _, stream, _)) if stream == of => return Outcome::Answer,
                Some((7, _, _, payload)) => {
                    return Outcome::GoAway(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
                }
                Some(_) => {}
                None => return Outcome::End,
            }
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Answer,
    Reset(u32),
    GoAway(u32),
    End,
}

pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A header block of literals without indexing (RFC 7541 section 6.2.2).
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            assert!(text.len() < 127);
            bytes.push(u8::try_from(text.len()).unwrap());
            bytes.extend_from_slice(text.as_bytes());
        }
    }
    bytes
}

const GET: [(&str, &str); 4] = [
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "app"),
    (":path", "/"),
];

fn get_and(more: &[(&str, &str)]) -> Vec<u8> {
    block(&[&GET[..], more].concat())
}

/// RFC 9113 sections 4 to 8: (what is wrong, frames, what has to come). `h2` calls some frames of a
/// wrong size a protocol error; the connection ends either way.
#[test]
fn broken_frames_get_their_answer_and_the_shard_goes_on() {
    const PROTOCOL: u32 = 1;
    const FRAME_SIZE: u32 = 6;
    let (bed, seen) = bed();
    let end = 0x5;
    let cases: Vec<(&str, Vec<u8>, Outcome)> = vec![
        (
            "a plain request",
            frame(1, end, 1, &get_and(&[])),
            Outcome::Answer,
        ),
        (
            "DATA on stream 0",
            frame(0, 0, 0, b"x"),
            Outcome::GoAway(PROTOCOL),
        ),
        (
            "DATA on an idle stream",
            frame(0, 0, 1, b"x"),
            Outcome::GoAway(PROTOCOL),
        ),
        (
            "HEADERS on an even stream",
            frame(1, end, 2, &get_and(&[])),
            Outcome::GoAway(PROTOCOL),
        ),
        (
            "CONTINUATION alone",
            frame(9, 4, 1, &get_and(&[])),
            Outcome::GoAway(PROTOCOL),
        ),
        (
            "PING too short",
            frame(6, 0, 0, b"x"),
            Outcome::GoAway(PROTOCOL),
        ),
        (
            "SETTINGS not of sixes",
            frame(4, 0, 0, b"12345"),
            Outcome::GoAway(PROTOCOL),
        ),
        (
            "WINDOW_UPDATE of zero",
            frame(8, 0, 0, &[0; 4]),
            Outcome::GoAway(PROTOCOL),
        ),
        (
            "a frame above the size",
            frame(0, 0, 1, &[0; 16_385]),
            Outcome::GoAway(FRAME_SIZE),
        ),
        (
            // RFC 9113 section 4.3 wants COMPRESSION_ERROR; the h2 crate ends the connection with this one.
            "a block that is no HPACK",
            frame(1, end, 1, &[0xff; 20]),
            Outcome::GoAway(PROTOCOL),
        ),
        // A field the grammar does not allow is found while the block is decoded: the h2 crate then
        // gives up the connection, where a stream would do (RFC 9113 section 8.2.1).
        (
            "upper case",
            frame(1, end, 1, &get_and(&[("Ab", "c")])),
            Outcome::GoAway(PROTOCOL),
        ),
        (
            "Connection",
            frame(1, end, 1, &get_and(&[("connection", "close")])),
            Outcome::Reset(PROTOCOL),
        ),
        (
            "CR in a value",
            frame(1, end, 1, &get_and(&[("a", "b\rc")])),
            Outcome::GoAway(PROTOCOL),
        ),
        (
            "no path",
            frame(1, end, 1, &block(&GET[..3])),
            Outcome::Reset(PROTOCOL),
        ),
        (
            "length without a body",
            frame(1, end, 1, &get_and(&[("content-length", "5")])),
            Outcome::Reset(PROTOCOL),
        ),
        (
            "another Host",
            frame(1, end, 1, &get_and(&[("host", "else")])),
            Outcome::Answer,
        ),
        (
            "too many fields",
            frame(1, end, 1, &get_and(&[("a", "b"); 120])),
            Outcome::Answer,
        ),
    ];
    let mut calls = 0;
    let mut others = Vec::new();
    for (case, frames, want) in cases {
        let mut raw = Raw::open(&bed);
        raw.0.write_all(&frames).unwrap();
        let got = raw.outcome(1);
        if got != want {
            others.push(format!("{case}: {got:?}, not {want:?}"));
        }
        calls += usize::from(case == "a plain request");
    }
    assert!(others.is_empty(), "{others:#?}");
    // Nothing that was refused reached the app.
    assert_eq!(seen.calls.load(Ordering::SeqCst), calls);
}

/// CVE-2023-44487 and its kin: the connection ends with ENHANCE_YOUR_CALM, others notice nothing.
#[test]
fn floods_are_calmed() {
    const CALM: u32 = 11;
    let (bed, _) = bed();
    // Calls opened and cancelled, each after it was seen.
    let mut raw = Raw::open(&bed);
    let mut id = 1;
    let mut flood = Vec::new();
    while id < 8_000 {
        flood.extend(frame(1, 0x5, id, &get_and(&[(":x", "")][..0])));
        flood.extend(frame(3, 0, id, &[0, 0, 0, 8]));
        id += 2;
    }
    let mut writer = raw.0.try_clone().unwrap();
    let writing = std::thread::spawn(move || {
        for part in flood.chunks(1_000) {
            if writer.write_all(part).is_err() {
                return;
            }
        }
    });
    assert_eq!(raw.goaway(), CALM);
    drop(raw);
    writing.join().unwrap();
    // What brings nothing, with and without a stream that is open meanwhile.
    let hang = block(&[GET[0], GET[1], GET[2], (":path", "/hang")]);
    for (what, flood) in [
        ("PING", frame(6, 0, 0, &[7; 8])),
        ("answers to PING", frame(6, 1, 0, &[7; 8])),
        ("SETTINGS", frame(4, 0, 0, &[])),
        ("WINDOW_UPDATE", frame(8, 0, 0, &[0, 0, 0, 1])),
        ("WINDOW_UPDATE of a stream", frame(8, 0, 1, &[0, 0, 0, 1])),
        ("PRIORITY", frame(2, 0, 1, &[0, 0, 0, 0, 1])),
        ("an unknown kind", frame(0xfa, 0, 1, &[0; 100])),
        ("empty DATA", frame(0, 0, 1, &[])),
        ("DATA of padding", frame(0, 0x8, 1, &[3, 0, 0, 0])),
    ] {
        for with_stream in [false, true] {
            let of_stream = flood[8] == 1;
            if of_stream && !with_stream {
                continue;
            }
            let mut raw = Raw::open(&bed);
            if with_stream {
                raw.send(1, 0x4, 1, &hang);
            }
            let mut writer = raw.0.try_clone().unwrap();
            let flood = flood.repeat(100);
            let writing = std::thread::spawn(move || {
                let _ = (0..2_000).all(|_| writer.write_all(&flood).is_ok());
            });
            assert_eq!(raw.goaway(), CALM, "{what}, {with_stream}");
            drop(raw);
            writing.join().unwrap();
        }
    }
    block_on(async {
        let mut sender = connect(bed.at).await;
        let (response, _) = sender.send_request(request("GET", "/"), true).unwrap();
        assert_eq!(response.await.unwrap().status(), 200);
    });
}

/// A server that floods its connection loses it; calls to others go on.
#[test]
fn a_server_that_floods_loses_its_connection() {
    let (upstream, connections) = server(|_, mut stream| {
        let _ = stream.write_all(&frame(4, 0, 0, &[]));
        let flood = frame(6, 0, 0, &[7; 8]).repeat(100);
        while stream.write_all(&flood).is_ok() {}
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
    assert!(connections.load(Ordering::SeqCst) >= 1);
}

/// A client that reads a long answer piece by piece and says so each time, and one that keeps asking whether we
/// are there while it is served, are no floods.
#[test]
fn busy_clients_are_not_taken_for_floods() {
    let (bed, _) = bed();
    let mut raw = Raw::open(&bed);
    let big = block(&[GET[0], GET[1], GET[2], (":path", "/big")]);
    for number in 0..4_u32 {
        let id = 2 * number + 1;
        raw.send(1, 0x5, id, &big);
        let mut got = 0;
        loop {
            match raw.next().expect("more") {
                (0, flags, stream, payload) if stream == id => {
                    got += payload.len();
                    if flags & 1 != 0 {
                        break;
                    }
                    let room = u32::try_from(payload.len()).unwrap().to_be_bytes();
                    if payload.is_empty() {
                        continue;
                    }
                    raw.send(8, 0, 0, &room);
                    raw.send(8, 0, id, &room);
                    raw.send(6, 0, 0, &[7; 8]);
                }
                (7, ..) => panic!("it was cut off after {got} bytes"),
                _ => {}
            }
        }
        assert_eq!(got, BIG);
    }
}
