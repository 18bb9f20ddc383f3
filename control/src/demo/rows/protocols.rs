//! What else than HTTP/1.1 is carried between two sidecars with mutual TLS. Caller and app are in
//! this process: the `h2` crate, and plain sockets.

use std::future::Future;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::SendResponse;
use h2::{RecvStream, client, server};
use http::{HeaderMap, HeaderValue, Request, Response};

use super::Seen;
use crate::demo::stage::{Bins, ControlService, NodePlan, Result, Sidecar, Stage, wait};

/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(20);
/// HTTP/2 calls, all at once on one connection.
const CALLS: usize = 50;
/// Bytes there and back.
const TCP_BYTES: usize = 1024 * 1024;
/// A gRPC message: not compressed, four bytes.
const MESSAGE: &[u8] = b"\0\0\0\0\x04ring";
/// Messages of a stream.
const MESSAGES: usize = 5;

/// Whatever the sidecars need, the other rows need too.
pub(super) const fn possible() -> std::result::Result<(), String> {
    Ok(())
}

/// `productpage`, which only calls, and `store`, whose app is here.
struct Scene {
    caller: Sidecar,
    callee: Sidecar,
    // Dropped after them, in this order.
    _control: ControlService,
    _stage: Stage,
}

impl Scene {
    /// `declared`: the name of the port.
    fn set(bins: Bins, declared: &str, app: SocketAddr) -> Result<Self> {
        let stage = Stage::set(bins, false)?;
        let control = ControlService::start(&stage, "control", 2, "{}\n")?;
        let sidecar = |service: &str, last: u8, app: Option<SocketAddr>| {
            let plan = NodePlan::new(service, "v1", "1", stage.block.ip(last));
            let state = stage.dir().join(&plan.name);
            std::fs::write(state.with_extension("token"), control.token(&plan)?)
                .map_err(|error| error.to_string())?;
            let settings = plan
                .settings(app, Some(control.mesh), &state)
                .replace("{name: http,", &format!("{{name: {declared},"));
            Sidecar::launch(&stage, &plan, &settings, &[], None)
        };
        let mut callee = sidecar("store", 31, Some(app))?;
        let mut caller = sidecar("productpage", 11, None)?;
        callee.wait_ready()?;
        caller.wait_ready()?;
        Ok(Self {
            caller,
            callee,
            _control: control,
            _stage: stage,
        })
    }

    /// How many of the callee's records say that productpage called, over mutual TLS, in a protocol.
    fn records(&self, protocol: &str, at_least: usize) -> Result<usize> {
        let count = || {
            let records = self.callee.records();
            let is_one = |record: &&serde_json::Value| {
                let principal = record["principal"].as_str().unwrap_or_default();
                record["direction"] == "inbound"
                    && record["protocol"] == protocol
                    && record["mtls"] == true
                    && principal.ends_with("/sa/productpage")
            };
            records.iter().filter(is_one).count()
        };
        wait::until_true("the callee's records", PATIENCE, || count() >= at_least)?;
        Ok(count())
    }
}

pub(super) fn http2(bins: Bins) -> Result<Seen> {
    let (app, received) = http2_app()?;
    let scene = Scene::set(bins, "http2", app)?;
    let to = scene.caller.outbound();
    let answered = on_a_runtime(async {
        until_known(to, request("GET", "/first")?).await?;
        let sender = connect(to).await?;
        let mut under_way = Vec::new();
        for _ in 0..CALLS {
            let mut sender = sender.clone().ready().await.map_err(said)?;
            let (answer, _) = (sender.send_request(request("GET", "/")?, true)).map_err(said)?;
            under_way.push(answer);
        }
        let mut answered = 0;
        for answer in under_way {
            answered += usize::from(answer.await.map_err(said)?.status() == 200);
        }
        Ok(answered)
    })?;
    // The first one is of the beginning.
    let received = received.load(Ordering::Relaxed) - 1;
    let records = scene.records("http2", CALLS + 1)? - 1;
    Ok(Seen::new(
        (answered, received, records) == (CALLS, CALLS, CALLS),
        format!(
            "{answered} answered 200; the app received {received}; records of HTTP/2 over mutual TLS {records}"
        ),
    ))
}

pub(super) fn grpc(bins: Bins) -> Result<Seen> {
    let (app, _) = http2_app()?;
    let scene = Scene::set(bins, "grpc", app)?;
    let to = scene.caller.outbound();
    let (unary, stream, unknown) = on_a_runtime(async {
        until_known(to, call("/store.Store/First")?).await?;
        let sender = connect(to).await?;
        let unary = grpc_call(&sender, "/store.Store/Echo", 1).await?;
        let stream = grpc_call(&sender, "/store.Store/Echo", MESSAGES).await?;
        let unknown = grpc_call(&sender, "/store.Store/Unknown", 0).await?;
        Ok((unary, stream, unknown))
    })?;
    let of = |count: usize, status: &str| (MESSAGE.repeat(count), status.to_owned());
    let good = unary == of(1, "0") && stream == of(MESSAGES, "0") && unknown == of(0, "12");
    let records = scene.records("grpc", 4)?;
    let said = scene.callee.records();
    let last = said.iter().filter(|record| record["grpc_status"] == 12);
    let unimplemented = last.count();
    let messages = |bytes: &[u8]| bytes.len() / MESSAGE.len();
    Ok(Seen::new(
        good && records == 4 && unimplemented == 1,
        format!(
            "unary {} with status {}; stream {} with status {}; unknown method status {}, so in {unimplemented} record; records of gRPC over mutual TLS {}",
            messages(&unary.0),
            unary.1,
            messages(&stream.0),
            stream.1,
            unknown.1,
            records - 1
        ),
    ))
}

pub(super) fn tcp(bins: Bins) -> Result<Seen> {
    let scene = Scene::set(bins, "tcp", echo_app()?)?;
    let to = scene.caller.outbound();
    let mut conn = wait::until("a tunnel", PATIENCE, || {
        tunnel(to).map_err(|e| e.to_string())
    })?;
    let sent: Vec<u8> = (0..TCP_BYTES).map(|n| n.to_le_bytes()[0] ^ 0x5a).collect();
    let mut writer = conn.try_clone().map_err(said)?;
    let back = std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            writer.write_all(&sent)?;
            writer.shutdown(std::net::Shutdown::Write)
        });
        let mut back = Vec::new();
        let read = conn.read_to_end(&mut back);
        let wrote = writing.join().map_err(|_| "a thread panicked".to_owned())?;
        read.and(wrote.map(|()| 0)).map_err(said)?;
        Ok::<_, String>(back)
    })?;
    let records = scene.records("tcp", 1)?;
    let moved = scene.callee.records();
    let whole = moved
        .iter()
        .any(|record| record["bytes_in"] == TCP_BYTES && record["bytes_out"] == TCP_BYTES);
    Ok(Seen::new(
        back == sent && records == 1 && whole,
        format!(
            "{} bytes came back, {}; records of TCP over mutual TLS {records}, {}",
            back.len(),
            if back == sent { "the same" } else { "others" },
            if whole { "of all bytes" } else { "of others" },
        ),
    ))
}

fn said(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn on_a_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(said)?;
    let within = async { tokio::time::timeout(2 * PATIENCE, work).await };
    runtime.block_on(within).map_err(said)?
}

async fn connect(to: SocketAddr) -> Result<SendRequest<Bytes>> {
    let socket = tokio::net::TcpStream::connect(to).await.map_err(said)?;
    let (sender, connection) = client::handshake(socket).await.map_err(said)?;
    tokio::spawn(async move {
        // Its end is seen by who waits for an answer.
        let _ = connection.await;
    });
    sender.ready().await.map_err(said)
}

fn request(method: &str, path: &str) -> Result<Request<()>> {
    let request = Request::builder().method(method);
    let request = request.uri(format!("http://store:9080{path}"));
    request.body(()).map_err(said)
}

fn call(path: &str) -> Result<Request<()>> {
    let mut request = request("POST", path)?;
    let fields = request.headers_mut();
    fields.insert("content-type", HeaderValue::from_static("application/grpc"));
    fields.insert("te", HeaderValue::from_static("trailers"));
    Ok(request)
}

/// Asks until the caller's sidecar knows the service: the app has answered once then.
async fn until_known(to: SocketAddr, request: Request<()>) -> Result<()> {
    let end = std::time::Instant::now() + PATIENCE;
    loop {
        let mut sender = connect(to).await?;
        let (answer, _) = sender.send_request(request.clone(), true).map_err(said)?;
        let answer = answer.await.map_err(said)?;
        if answer.headers().contains_key("x-app") {
            return Ok(());
        }
        if std::time::Instant::now() > end {
            return Err(format!("the first call: {answer:?}"));
        }
        tokio::time::sleep(Duration::from_millis(15)).await;
    }
}

/// Sends messages one by one, each after the answer to the one before; the bytes that came back and
/// the status.
async fn grpc_call(
    sender: &SendRequest<Bytes>,
    path: &str,
    messages: usize,
) -> Result<(Vec<u8>, String)> {
    let mut sender = sender.clone().ready().await.map_err(said)?;
    let sent = sender.send_request(call(path)?, messages == 0);
    let (answer, mut stream) = sent.map_err(said)?;
    let mut back = Vec::new();
    if messages > 0 {
        let message = Bytes::from_static(MESSAGE);
        stream.send_data(message, messages == 1).map_err(said)?;
    }
    let answer = answer.await.map_err(said)?;
    let (head, mut body) = answer.into_parts();
    let mut left = messages.saturating_sub(1);
    while let Some(piece) = body.data().await {
        let piece = piece.map_err(said)?;
        body.flow_control()
            .release_capacity(piece.len())
            .map_err(said)?;
        back.extend_from_slice(&piece);
        if left > 0 && back.len() % MESSAGE.len() == 0 {
            left -= 1;
            let message = Bytes::from_static(MESSAGE);
            stream.send_data(message, left == 0).map_err(said)?;
        }
    }
    let trailers = body.trailers().await.map_err(said)?;
    let status = trailers
        .as_ref()
        .unwrap_or(&head.headers)
        .get("grpc-status")
        .and_then(|status| status.to_str().ok());
    Ok((back, status.unwrap_or("none").to_owned()))
}

/// An app that speaks HTTP/2 only, and how many requests it received.
fn http2_app() -> Result<(SocketAddr, Arc<AtomicUsize>)> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(said)?;
    let at = listener.local_addr().map_err(said)?;
    listener.set_nonblocking(true).map_err(said)?;
    let received = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&received);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(said)?;
    std::thread::spawn(move || {
        runtime.block_on(async move {
            let Ok(listener) = tokio::net::TcpListener::from_std(listener) else {
                return;
            };
            while let Ok((socket, _)) = listener.accept().await {
                let count = Arc::clone(&count);
                tokio::spawn(async move {
                    // A probe of the port says nothing: no HTTP/2, no harm.
                    let Ok(mut connection) = server::handshake(socket).await else {
                        return;
                    };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        count.fetch_add(1, Ordering::Relaxed);
                        tokio::spawn(answer(request, respond));
                    }
                });
            }
        });
    });
    Ok((at, received))
}

/// Pages say `x-app`; gRPC's Echo sends back what comes, its First says OK, others are not known.
async fn answer(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) -> std::result::Result<(), h2::Error> {
    let is_grpc = request.headers().contains_key("te");
    let is_echo = request.uri().path().ends_with("/Echo");
    let is_known = is_echo || request.uri().path().ends_with("/First");
    let mut head = Response::new(());
    let fields = head.headers_mut();
    fields.insert("x-app", HeaderValue::from_static("store"));
    let status = HeaderValue::from_static(if is_known { "0" } else { "12" });
    if is_grpc {
        fields.insert("content-type", HeaderValue::from_static("application/grpc"));
    }
    if !is_echo {
        if is_grpc {
            fields.insert("grpc-status", status);
        }
        respond.send_response(head, true)?;
        return Ok(());
    }
    let mut stream = respond.send_response(head, false)?;
    let mut body = request.into_body();
    while let Some(piece) = body.data().await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        stream.send_data(piece, false)?;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status);
    stream.send_trailers(trailers)
}

/// An app that sends back what comes.
fn echo_app() -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(said)?;
    let at = listener.local_addr().map_err(said)?;
    std::thread::spawn(move || {
        for conn in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let (mut from, mut to) = (&conn, &conn);
                std::io::copy(&mut from, &mut to)?;
                conn.shutdown(std::net::Shutdown::Write)
            });
        }
    });
    Ok(at)
}

/// A connection to the app, asked for as an app without capture asks.
fn tunnel(outbound: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(outbound)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"CONNECT store:9080 HTTP/1.1\r\nhost: store:9080\r\n\r\n")?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if head.starts_with(b"HTTP/1.1 200 ") {
        return Ok(stream);
    }
    Err(std::io::Error::other(String::from_utf8_lossy(&head)))
}
