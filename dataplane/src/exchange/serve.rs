//! A downstream HTTP connection: which version, and for HTTP/1.1 one exchange after the other until
//! one side has enough.

use std::future::Future;
use std::mem;
use std::pin::{Pin, pin};
use std::rc::Rc;

use super::flow::Flow;
use super::head_in::{HeadBytes, HeadRead, HeadReader};
use super::pipeline::{self, After, Tools};
use super::record::Record;
use super::sides::Client;
use super::state::ShardState;
use super::{answer, note, serve_http2};
use crate::detect;
use crate::http1::{Answer, Framing, RequestHead};
use crate::reason::Reason;
use crate::ring::{ByteStream, Chunk, Sleep, Socket};
use crate::tls::Inner;
use crate::upstream::Stream;
use crate::wait;

/// What a closing connection still takes and throws away: closing with unread bytes makes the kernel send a
/// reset, which can destroy the answer on its way (RFC 9112 section 9.6).
#[derive(Debug, Clone, Copy)]
pub(super) struct Linger {
    bytes_max: usize,
    ms: u64,
}

impl Linger {
    /// Behind what was no request: whoever sends that goes on as it likes.
    pub(super) const REFUSED: Self = Self {
        bytes_max: 1024 * 1024,
        ms: 1_000,
    };
    /// Behind an answer that came before the end of an upload. As nginx's `lingering_time`: a client that reads
    /// only behind its upload has its answer.
    const UPLOAD: Self = Self {
        bytes_max: 256 * 1024 * 1024,
        ms: 30_000,
    };
}

/// How long it does while no bytes come, milliseconds.
const LINGER_SILENCE_MS: u64 = 1_000;

/// A connection without a request for so long gives back what serving one needs, milliseconds. Long
/// enough that a busy connection never does, short enough that thousands of idle ones hold little.
const PARK_AFTER_MS: u64 = 1_000;

/// Serves a connection whose first bytes may already be here.
///
/// Parsers, decoders and the state of an exchange live in one box while requests come, and are gone
/// while none does: an idle connection is a socket and a timer.
#[expect(
    clippy::manual_async_fn,
    reason = "an async fn keeps its arguments twice, here for each idle connection"
)]
pub fn serve(
    shard: &Rc<ShardState>,
    flow: &Flow,
    stream: Stream,
    first: Chunk,
) -> impl Future<Output = ()> {
    async move {
        let Some((is_http2, first)) = first_bytes(shard, &stream, first).await else {
            return;
        };
        if is_http2 {
            return Box::pin(serve_http2::serve(shard, flow, stream, first)).await;
        }
        serve_http1(shard, flow, &stream, first).await;
    }
}

/// Serves a lane of a connection between sidecars: HTTP/1.1, and nothing else.
pub(super) async fn serve_lane(shard: &Rc<ShardState>, flow: &Flow, lane: &Stream) {
    serve_http1(shard, flow, lane, Chunk::empty()).await;
}

#[expect(clippy::manual_async_fn, reason = "as `serve`")]
fn serve_http1(
    shard: &Rc<ShardState>,
    flow: &Flow,
    stream: &Stream,
    mut first: Chunk,
) -> impl Future<Output = ()> {
    async move {
        loop {
            match Box::pin(while_busy(shard, flow, stream, mem::take(&mut first))).await {
                Left::Ended => return,
                Left::Idle => match parked(shard, stream).await {
                    Some(more) => first = more,
                    None => return,
                },
            }
        }
    }
}

/// The first bytes of a connection, and whether it is HTTP/2: what ALPN agreed on, or else as they say.
/// `None` if it ended before, or sent nothing for the time an idle connection has.
async fn first_bytes(
    shard: &ShardState,
    stream: &Stream,
    mut first: Chunk,
) -> Option<(bool, Chunk)> {
    if first.is_empty() {
        let patience = shard.limits.keep_alive_timeout_ms;
        let idle = pin!(shard.ring.sleep_until(shard.now().plus_ms(patience)));
        first = wait::or_timeout(stream.recv(), idle).await?.ok()?;
        if first.is_empty() {
            return None;
        }
    }
    if let Stream::Tls(connection) = stream {
        return Some((connection.inner() == Inner::Http2, first));
    }
    match detect::is_h2_preface(&first) {
        Some(is_http2) => Some((is_http2, first)),
        // Boxed: hardly a client sends so little, and every idle connection would have room for it.
        None => Box::pin(rest_of_preface(shard, stream, first)).await,
    }
}

/// As [`first_bytes`], where what has come could still become the preface of HTTP/2.
async fn rest_of_preface(
    shard: &ShardState,
    stream: &Stream,
    mut first: Chunk,
) -> Option<(bool, Chunk)> {
    let until = shard.now().plus_ms(shard.limits.head_timeout_ms);
    let mut late = pin!(shard.ring.sleep_until(until));
    loop {
        if let Some(is_http2) = detect::is_h2_preface(&first) {
            return Some((is_http2, first));
        }
        // It is shorter than the preface, and does not stay in the buffer it was received in: those who
        // send a byte and no more would hold all of the shard's.
        let mut held = [0; detect::H2_PREFACE.len()];
        let held = held.get_mut(..first.len())?;
        held.copy_from_slice(&first);
        drop(mem::take(&mut first));
        let more = match wait::or_timeout(stream.recv(), late.as_mut()).await {
            Some(Ok(more)) if !more.is_empty() => more,
            // HTTP/1.1 knows what to say of half a head.
            Some(_) | None => Chunk::empty(),
        };
        let is_over = more.is_empty();
        let mut both = shard.ring.buf()?;
        both.extend_from_slice(held).ok()?;
        let fits = more.len().min(both.room());
        if fits < more.len() {
            return None;
        }
        both.extend_from_slice(&more).ok()?;
        first = both.freeze();
        if is_over {
            return Some((false, first));
        }
    }
}

/// Why [`while_busy`] returned.
enum Left {
    /// The connection is over.
    Ended,
    /// No request came for [`PARK_AFTER_MS`].
    Idle,
}

/// The first bytes of the next request; `None` if the client closed or its time is over.
async fn parked(shard: &ShardState, stream: &Stream) -> Option<Chunk> {
    let rest = shard
        .limits
        .keep_alive_timeout_ms
        .saturating_sub(PARK_AFTER_MS);
    let idle = pin!(shard.ring.sleep_until(shard.now().plus_ms(rest)));
    stream.rest(true);
    stream.slim();
    let received = wait::or_timeout(stream.recv(), idle).await;
    stream.rest(false);
    match received {
        Some(Ok(chunk)) if !chunk.is_empty() => Some(chunk),
        Some(Ok(_) | Err(_)) | None => None,
    }
}

async fn while_busy(shard: &Rc<ShardState>, flow: &Flow, stream: &Stream, first: Chunk) -> Left {
    let mut reader = HeadReader::new(first);
    let mut parser = RequestHead::new();
    let mut tools = Tools::default();
    let now = shard.now();
    let mut idle = pin!(
        shard
            .ring
            .sleep_until(now.plus_ms(shard.limits.keep_alive_timeout_ms))
    );
    let mut deadline = pin!(
        shard
            .ring
            .sleep_until(now.plus_ms(shard.limits.idle_timeout_ms))
    );
    loop {
        let bytes = match next_head(shard, stream, &mut reader, &mut parser, idle.as_mut()).await {
            NextHead::Head(bytes) => bytes,
            NextHead::Quiet => return Left::Ended,
            NextHead::Idle => return Left::Idle,
            NextHead::Refuse(answer) => {
                refuse(shard, flow, stream, &answer).await;
                return Left::Ended;
            }
        };
        if let Some(reason) = shard.refuses(flow, stream) {
            shard.meter().refused(reason);
            stream.reset();
            return Left::Ended;
        }
        let request = parser.view(&bytes);
        let says_last = !request.keep_alive() && request.framing() == Framing::None;
        let pending = &mut reader.pending;
        let after = pipeline::run(
            shard,
            flow,
            Client::Http1(stream),
            request,
            pending,
            &mut tools,
            deadline.as_mut(),
        );
        match after.await {
            After::KeepAlive if !shard.draining.get() => {}
            // It will say no more (RFC 9112 section 9.6), so nothing can meet a socket that is gone: the
            // close sends the FIN, without anybody waiting for the client's.
            After::Close
                if says_last
                    && reader.pending.is_empty()
                    && stream.plain().is_some_and(Socket::sends_at_once) =>
            {
                return Left::Ended;
            }
            After::KeepAlive | After::Close => {
                linger(shard, stream, Linger::UPLOAD).await;
                return Left::Ended;
            }
            After::Reset => {
                stream.reset();
                return Left::Ended;
            }
        }
    }
}

enum NextHead {
    Head(HeadBytes),
    /// The connection ended where it may.
    Quiet,
    /// Nothing came for a while.
    Idle,
    Refuse(Answer<'static>),
}

async fn next_head(
    shard: &ShardState,
    stream: &Stream,
    reader: &mut HeadReader,
    parser: &mut RequestHead,
    mut idle: Pin<&mut Sleep>,
) -> NextHead {
    if !reader.has_begun() {
        let patience = PARK_AFTER_MS.min(shard.limits.keep_alive_timeout_ms);
        idle.reset(shard.now().plus_ms(patience));
        match wait::or_timeout(stream.recv(), idle.as_mut()).await {
            Some(Ok(chunk)) if !chunk.is_empty() => reader.pending = chunk,
            Some(Ok(_) | Err(_)) => return NextHead::Quiet,
            None => return NextHead::Idle,
        }
    }
    idle.reset(shard.now().plus_ms(shard.limits.head_timeout_ms));
    match wait::or_timeout(reader.read(parser, stream, &shard.budget), idle).await {
        Some(HeadRead::Head(bytes)) => NextHead::Head(bytes),
        Some(HeadRead::Refuse(refusal)) => NextHead::Refuse(Answer::refusal(&refusal)),
        Some(HeadRead::NoRoom) => NextHead::Refuse(Answer {
            keep_alive: false,
            ..Answer::of(Reason::Shed)
        }),
        Some(HeadRead::End { begun: true }) => NextHead::Refuse(Answer::of(Reason::BadRequest)),
        Some(HeadRead::End { begun: false } | HeadRead::Failed { .. } | HeadRead::NotProcessed) => {
            NextHead::Quiet
        }
        None => NextHead::Refuse(Answer::of(Reason::HeadTimeout)),
    }
}

/// Answers a head that never became a request. It is an exchange too: it is counted and logged.
async fn refuse(shard: &Rc<ShardState>, flow: &Flow, stream: &Stream, answer: &Answer<'static>) {
    let mut record = Record::new(shard.now());
    let after = answer::send(shard, Client::Http1(stream), answer, &mut record).await;
    note::headless(shard, flow, &record, note::transport(Client::Http1(stream)));
    if after != After::Reset {
        linger(shard, stream, Linger::REFUSED).await;
    }
}

/// Lets a connection go that was refused before anything was read of it.
pub async fn let_go(shard: &ShardState, stream: Stream) {
    linger(shard, &stream, Linger::REFUSED).await;
}

/// Ends our direction and takes what the client still sends, within bounds.
pub(super) async fn linger(shard: &ShardState, stream: &Stream, bounds: Linger) {
    let ended = async { stream.flush().await.is_ok() && stream.shutdown_write().await.is_ok() };
    if wait::or_timeout(ended, pin!(shard.idle_from_now())).await != Some(true) {
        return;
    }
    let end = shard.now().plus_ms(bounds.ms);
    let mut left = bounds.bytes_max;
    let mut silence = pin!(shard.ring.sleep_until(end));
    loop {
        let silent_at = shard.now().plus_ms(LINGER_SILENCE_MS);
        silence.as_mut().reset(end.min(silent_at));
        match wait::or_timeout(stream.recv(), silence.as_mut()).await {
            Some(Ok(chunk)) if !chunk.is_empty() && chunk.len() < left => left -= chunk.len(),
            _ => return,
        }
    }
}
