//! The app, where it speaks HTTP/2.

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};

use super::super::http2::read;
use super::*;

/// Answers each request by its number. `at_once`: what is to be said then is written together, not frame by frame.
pub(super) fn start(messages: &Arc<Vec<Message>>, wrong: &Wrong, at_once: bool) -> SocketAddr {
    let (messages, wrong) = (Arc::clone(messages), Arc::clone(wrong));
    let (at, _) = server(move |_, stream| {
        stream.set_nonblocking(true).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        let local = tokio::task::LocalSet::new();
        let (messages, wrong) = (Arc::clone(&messages), Arc::clone(&wrong));
        runtime.block_on(local.run_until(async move {
            let socket = tokio::net::TcpStream::from_std(stream).unwrap();
            if !at_once {
                return carry(socket, messages, wrong).await;
            }
            let (near, mut far) = tokio::io::duplex(64 * 1024);
            let mut socket = socket;
            let pass_on = tokio::io::copy_bidirectional(&mut far, &mut socket);
            let _ = tokio::join!(carry(near, messages, wrong), pass_on);
        }));
    });
    at
}

async fn carry(
    socket: impl AsyncRead + AsyncWrite + Unpin,
    messages: Arc<Vec<Message>>,
    wrong: Wrong,
) {
    let mut builder = h2::server::Builder::new();
    // Each chunk of an upload comes as a frame, and some have a byte.
    builder.data_frame_budget(1 << 30);
    let Ok(mut connection) = builder.handshake(socket).await else {
        return;
    };
    while let Some(Ok((request, respond))) = connection.accept().await {
        let (messages, wrong) = (Arc::clone(&messages), Arc::clone(&wrong));
        tokio::task::spawn_local(async move {
            let number = request.uri().path().trim_start_matches('/').parse();
            match number.ok().and_then(|number: usize| messages.get(number)) {
                Some(message) => drop(serve(request, respond, message, &wrong).await),
                None => wrong.lock().unwrap().push(format!("{request:?}")),
            }
        });
    }
}

/// Takes the rest of one request and answers it; an error if its stream broke.
async fn serve(
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
    message: &Message,
    wrong: &Wrong,
) -> Result<(), h2::Error> {
    let told = |status: u16| Response::builder().status(status);
    if message.leave_is_given() {
        respond.send_informational(told(100).body(()).unwrap())?;
    }
    let (head, mut body) = request.into_parts();
    let (bytes, trailers) = read(&mut body).await?;
    let trailers = trailers.unwrap_or_default();
    let trailers = trailers
        .iter()
        .map(|(name, value)| format!("{name}: {}\r\n", value.to_str().unwrap()))
        .collect();
    let got = Content { bytes, trailers };
    let asks_app = head
        .uri
        .authority()
        .is_some_and(|authority| authority == "app");
    if head.method != message.method || !asks_app || got != message.arrives() {
        let (len, trailers) = (got.bytes.len(), &got.trailers);
        let line = format!("{message:?}: {head:?}{len} bytes, {trailers:?}");
        wrong.lock().unwrap().push(line);
    }
    if message.answer.hints {
        let hints = told(103).header("link", "</a>").body(()).unwrap();
        respond.send_informational(hints)?;
    }
    let (length, pieces, trailers) = message.answer_body().in_http2();
    let mut answer = told(message.answer.status);
    // RFC 9110 section 6.4.1, as in HTTP/1.1.
    if let Some(length) = length.filter(|_| message.answer.status != 204) {
        answer = answer.header("content-length", length);
    }
    let bodiless = message.is_bodiless();
    let mut stream = respond.send_response(answer.body(()).unwrap(), bodiless)?;
    if bodiless {
        return Ok(());
    }
    let mut left = pieces.len();
    for piece in pieces {
        left -= 1;
        // The end is told with the last frame where it can be.
        let last = left == 0 && trailers.is_empty();
        stream.send_data(piece.into(), last)?;
        if last {
            return Ok(());
        }
    }
    let mut fields = HeaderMap::new();
    for line in trailers {
        let (name, value) = line.trim_end().split_once(": ").unwrap();
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        fields.append(name, HeaderValue::from_static(value));
    }
    match fields.is_empty() {
        true => stream.send_data(Bytes::new(), true),
        false => stream.send_trailers(fields),
    }
}
