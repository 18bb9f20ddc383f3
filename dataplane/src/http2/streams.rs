//! Streams: one a client opened, one we opened.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};

use bytes::Buf;
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;

use super::account::{Account, Part};
use super::body::Body;
use super::{grpc, head, websocket};
use crate::http1::{Answer, HeadFault, ResponseHead};
use crate::ring::{Chunk, Ring};
use crate::upstream::Stream;

/// Payload on its way out: the chunk it was received in.
#[derive(Debug)]
pub struct Piece(pub Chunk);

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.0.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.0
    }

    fn advance(&mut self, count: usize) {
        self.0.advance(count);
    }
}

/// The other side does not take it: the stream was reset or its connection failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Broken;

/// Sends a piece, no faster than the peer's windows allow.
async fn send(
    stream: &RefCell<SendStream<Piece>>,
    mut piece: Chunk,
    last: bool,
) -> Result<(), Broken> {
    while !piece.is_empty() {
        let room = poll_fn(|cx| {
            let mut stream = stream.borrow_mut();
            stream.reserve_capacity(piece.len());
            match stream.capacity() {
                0 => stream.poll_capacity(cx).map(|room| match room {
                    // None of it is left: asked for again.
                    Some(Ok(room)) => Ok(room),
                    Some(Err(_)) | None => Err(Broken),
                }),
                room => Poll::Ready(Ok(room)),
            }
        })
        .await?;
        let now = piece.split_to(room.min(piece.len()));
        let end = last && piece.is_empty();
        stream
            .borrow_mut()
            .send_data(Piece(now), end)
            .map_err(|_| Broken)?;
    }
    Ok(())
}

/// Ends our direction, with trailer lines if there are some.
fn end(stream: &RefCell<SendStream<Piece>>, trailers: &[u8]) -> Result<(), Broken> {
    let mut stream = stream.borrow_mut();
    let ended = if trailers.is_empty() {
        stream.send_data(Piece(Chunk::empty()), true)
    } else {
        stream.send_trailers(head::trailers(trailers))
    };
    ended.map_err(|_| Broken)
}

/// What a stream asks for, where that changes how it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asks {
    /// An answer.
    Answer,
    /// A gRPC call: what the mesh itself says has to be told as trailers.
    Grpc,
    /// WebSocket by extended CONNECT: a 2xx opens a tunnel.
    WebSocket,
}

/// A stream a client opened.
pub struct Incoming {
    respond: RefCell<SendResponse<Piece>>,
    stream: OnceCell<RefCell<SendStream<Piece>>>,
    body: Body,
    connection: Rc<Stream>,
    /// Its head as it came, for the first who hands it on.
    head: Cell<Option<http::request::Parts>>,
    asks: Asks,
    /// With which code the client gave it up.
    reset: Cell<Option<Reason>>,
    /// With which code the answer broke off.
    broken: Cell<Option<Reason>>,
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("body", &self.body)
            .field("asks", &self.asks)
            .finish_non_exhaustive()
    }
}

impl Incoming {
    /// A stream whose head was taken.
    #[must_use]
    pub fn new(
        ring: &Ring,
        connection: Rc<Stream>,
        part: Option<Part>,
        body: RecvStream,
        respond: SendResponse<Piece>,
        head: http::request::Parts,
        asks: Asks,
    ) -> Self {
        Self {
            respond: RefCell::new(respond),
            stream: OnceCell::new(),
            body: match asks {
                Asks::WebSocket => Body::of_tunnel(ring, body, part),
                Asks::Answer | Asks::Grpc => Body::new(ring, body, part),
            },
            connection,
            // A tunnel is asked for in terms of its own.
            head: Cell::new((asks != Asks::WebSocket).then_some(head)),
            asks,
            reset: Cell::new(None),
            broken: Cell::new(None),
        }
    }

    /// The connection it is on.
    #[must_use]
    pub fn connection(&self) -> &Stream {
        &self.connection
    }

    /// Its request's body.
    #[must_use]
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// Its head as it came; only once.
    #[must_use]
    pub fn take_head(&self) -> Option<http::request::Parts> {
        self.head.take()
    }

    /// Whether it is a gRPC call.
    #[must_use]
    pub fn is_grpc(&self) -> bool {
        self.asks == Asks::Grpc
    }

    /// Whether it asks for WebSocket.
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        self.asks == Asks::WebSocket
    }

    /// Whether a final answer's head went out.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.stream.get().is_some()
    }

    /// With which code the client gave it up, if it did.
    #[must_use]
    pub fn reset_by_client(&self) -> Option<Reason> {
        self.reset.get().or(self.body.cut())
    }

    /// The answer broke off at its server with this code: the client is to hear the same.
    pub fn broke_off(&self, code: Reason) {
        self.broken.set(Some(code));
    }

    /// Resolves when the client gives it up or its connection fails.
    pub async fn gone(&self) {
        poll_fn(|cx| {
            let polled = match self.stream.get() {
                Some(stream) => stream.borrow_mut().poll_reset(cx),
                None => self.respond.borrow_mut().poll_reset(cx),
            };
            polled.map(|reset| self.reset.set(reset.ok()))
        })
        .await;
    }

    /// Sends an interim answer.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn interim(&self, head: http::Response<()>) -> Result<(), Broken> {
        self.respond
            .borrow_mut()
            .send_informational(head)
            .map_err(|_| Broken)
    }

    /// Sends the head of the answer, and its end if there is no more.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn answer(&self, head: http::Response<()>, last: bool) -> Result<(), Broken> {
        let stream = self.respond.borrow_mut().send_response(head, last);
        let stream = stream.map_err(|_| Broken)?;
        self.stream.set(RefCell::new(stream)).map_err(|_| Broken)
    }

    /// Sends a piece of the answer.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn piece(&self, piece: Chunk, last: bool) -> Result<(), Broken> {
        match self.stream.get() {
            Some(stream) => send(stream, piece, last).await,
            None => Err(Broken),
        }
    }

    /// Sends a piece without waiting for the client's window. For what is bounded otherwise.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn piece_now(&self, piece: Chunk, last: bool) -> Result<(), Broken> {
        let stream = self.stream.get().ok_or(Broken)?;
        let sent = stream.borrow_mut().send_data(Piece(piece), last);
        sent.map_err(|_| Broken)
    }

    /// Ends the answer.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn end(&self, trailers: &[u8]) -> Result<(), Broken> {
        self.stream
            .get()
            .map_or(Err(Broken), |stream| end(stream, trailers))
    }

    /// Ends the answer of a gRPC call with what the mesh has to say of it.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn end_call(&self, answer: &Answer<'_>) -> Result<(), Broken> {
        let stream = self.stream.get().ok_or(Broken)?;
        let sent = stream.borrow_mut().send_trailers(grpc::trailers(answer));
        sent.map_err(|_| Broken)
    }

    /// Cuts the answer: the client must not take what it has for the whole.
    pub fn cut(&self) {
        let code = self.broken.get().unwrap_or(Reason::INTERNAL_ERROR);
        self.respond.borrow_mut().send_reset(code);
    }
}

/// A stream we opened.
pub struct Outgoing {
    ring: Ring,
    response: RefCell<ResponseFuture>,
    stream: RefCell<SendStream<Piece>>,
    /// Fields of the last head of the response, as they came.
    fields: Cell<Option<HeaderMap>>,
    body: OnceCell<Body>,
    /// What its connection's account holds of it, until it has a body.
    part: Cell<Option<Part>>,
    /// Of an extended CONNECT: what answers the client's key once the server agrees.
    accept: Option<String>,
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outgoing")
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

/// What waiting for a response's head came to.
#[derive(Debug)]
pub enum ReadHead {
    /// A head in canonical form, interim or final.
    Head(Vec<u8>),
    /// One that is not acceptable.
    Refuse(HeadFault),
    /// The server says that it did not process the request (RFC 9113 section 8.7).
    Refused,
    /// The stream was reset or its connection failed.
    Failed,
}

impl Outgoing {
    /// Opens a stream in an empty `place`; `last`: no body follows.
    ///
    /// # Errors
    /// [`Broken`]: the connection takes no more streams, and nothing was sent.
    pub fn open<'o>(
        place: &'o OnceCell<Self>,
        ring: &Ring,
        connection: &mut SendRequest<Piece>,
        account: &Rc<Account>,
        head: http::Request<()>,
        last: bool,
    ) -> Result<&'o Self, Broken> {
        Self::open_as(place, ring, connection, account, head, last, None)
    }

    /// Opens a stream for an extended CONNECT; a 2xx is spelled as a 101 that says `accept`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_websocket<'o>(
        place: &'o OnceCell<Self>,
        ring: &Ring,
        connection: &mut SendRequest<Piece>,
        account: &Rc<Account>,
        mut head: http::Request<()>,
        accept: String,
    ) -> Result<&'o Self, Broken> {
        websocket::connect(&mut head);
        Self::open_as(place, ring, connection, account, head, false, Some(accept))
    }

    fn open_as<'o>(
        place: &'o OnceCell<Self>,
        ring: &Ring,
        connection: &mut SendRequest<Piece>,
        account: &Rc<Account>,
        head: http::Request<()>,
        last: bool,
        accept: Option<String>,
    ) -> Result<&'o Self, Broken> {
        let (response, stream) = connection.send_request(head, last).map_err(|_| Broken)?;
        let part = Part::open(account, response.stream_id().as_u32());
        // Made where it stays: it is some hundred bytes.
        Ok(place.get_or_init(|| Self {
            ring: ring.clone(),
            response: RefCell::new(response),
            stream: RefCell::new(stream),
            fields: Cell::new(None),
            body: OnceCell::new(),
            part: Cell::new(Some(part)),
            accept,
        }))
    }

    /// Sends a piece of the request.
    ///
    /// # Errors
    /// [`Broken`].
    pub async fn piece(&self, piece: Chunk, last: bool) -> Result<(), Broken> {
        send(&self.stream, piece, last).await
    }

    /// Sends a piece without waiting for the peer's window. For what is bounded otherwise.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn piece_now(&self, piece: Chunk, last: bool) -> Result<(), Broken> {
        let sent = self.stream.borrow_mut().send_data(Piece(piece), last);
        sent.map_err(|_| Broken)
    }

    /// Ends the request.
    ///
    /// # Errors
    /// [`Broken`].
    pub fn end(&self, trailers: &[u8]) -> Result<(), Broken> {
        end(&self.stream, trailers)
    }

    /// Gives it up with a code. Dropped it is given up with CANCEL.
    pub fn reset(&self, code: Reason) {
        self.stream.borrow_mut().send_reset(code);
    }

    /// Resolves when the server gives it up or its connection fails.
    pub async fn gone(&self) {
        poll_fn(|cx| self.stream.borrow_mut().poll_reset(cx).map(drop)).await;
    }

    /// Waits for the next head of the response, which `parser` judges. Safe to drop while it waits.
    pub async fn read_head(&self, parser: &mut ResponseHead) -> ReadHead {
        poll_fn(|cx| {
            let mut response = self.response.borrow_mut();
            // Pending: neither is here, and the task is woken for either.
            if let Some(Ok(interim)) = ready!(response.poll_informational(cx)) {
                let (parts, ()) = interim.into_parts();
                // Not of this version (RFC 9113 section 8.6), and not to be taken for what we spell so.
                if parts.status == http::StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(ReadHead::Failed);
                }
                return Poll::Ready(self.spelled(parts, None, parser));
            }
            Pin::new(&mut *response)
                .poll(cx)
                .map(|response| match response {
                    Ok(response) => {
                        let (parts, body) = response.into_parts();
                        let accept = self.accept.as_deref();
                        let body = Body::new(&self.ring, body, self.part.take());
                        let _ = self.body.set(body);
                        self.spelled(parts, accept, parser)
                    }
                    Err(error) if was_not_processed(&error) => ReadHead::Refused,
                    Err(_) => ReadHead::Failed,
                })
        })
        .await
    }

    fn spelled(
        &self,
        mut parts: http::response::Parts,
        accept: Option<&str>,
        parser: &mut ResponseHead,
    ) -> ReadHead {
        let mut head = Vec::with_capacity(256);
        let told = match accept {
            Some(accept) if parts.status.is_success() => {
                websocket::put_switch(&mut parts.headers, accept, parser, &mut head)
            }
            _ => head::put_response(&parts, parser, &mut head),
        };
        self.fields.set(Some(parts.headers));
        told.map_or_else(ReadHead::Refuse, |()| ReadHead::Head(head))
    }

    /// Fields of the last head that was read, as they came; only once.
    #[must_use]
    pub fn take_fields(&self) -> Option<HeaderMap> {
        self.fields.take()
    }

    /// The response's body; `None` before its final head.
    #[must_use]
    pub fn body(&self) -> Option<&Body> {
        self.body.get()
    }
}

/// REFUSED_STREAM, or a stream above the last one of a GOAWAY: `h2` fails those alone with it.
fn was_not_processed(error: &h2::Error) -> bool {
    error.is_remote()
        && (error.is_go_away()
            || error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM))
}
