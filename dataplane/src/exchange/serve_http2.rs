//! A downstream HTTP/2 connection: its task carries frames, each stream is an exchange of its own.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use h2::ext::Protocol;
use h2::server::{Connection, SendResponse};
use h2::{Reason as Code, RecvStream};

use super::flow::Flow;
use super::pipeline::{self, After, Tools};
use super::record::Record;
use super::serve::{Linger, linger};
use super::sides::Client;
use super::state::ShardState;
use super::stream_tasks::StreamTasks;
use super::{answer, note};
use crate::budget::{Charge, NoRoom};
use crate::http1::{Answer, RequestHead};
use crate::http2::{
    Account, Asks, Cancels, Incoming, KeepAlive, Part, Piece, Wire, grpc, head, limits, websocket,
};
use crate::reason::Reason;
use crate::ring::{ByteStream, Chunk, Sleep};
use crate::time::Mono;
use crate::upstream::Stream;
use crate::wait;

/// A connection is asked to end after this time, plus or minus a tenth, milliseconds: long-lived
/// clients find new sidecars and show new certificates, and not all at once. Streams on it go on.
const AGE_MAX_MS: u64 = 3_600_000;
/// How often a connection lets go the tasks that none of its streams needed, milliseconds. A busy
/// connection never does, and a quiet one soon holds little.
const RELEASE_AFTER_MS: u64 = 1_000;

/// Room for spelled heads that a task keeps from stream to stream, bytes: most heads fit.
const SPELLED_BYTES_KEPT: usize = 512;

/// What the streams of a connection share.
struct Shared {
    shard: Rc<ShardState>,
    flow: Flow,
    stream: Rc<Stream>,
    tasks: StreamTasks<Box<Opened>>,
    streams: Cell<u32>,
    cancels: RefCell<Cancels>,
    account: Rc<Account>,
}

/// Serves a connection whose preface has begun, or that agreed on HTTP/2 by ALPN.
pub(super) async fn serve(shard: &Rc<ShardState>, flow: &Flow, stream: Stream, first: Chunk) {
    let stream = Rc::new(stream);
    let account = Account::of_client(&shard.budget);
    let wire = Wire::of_client(&shard.ring, Rc::clone(&stream), first, &account);
    let (cancels, server) = match &*stream {
        Stream::Tls(_) => (
            Cancels::of_sidecar(shard.now()),
            limits::server_for_sidecars(),
        ),
        Stream::Plain(_) | Stream::Lane(_) => (Cancels::of_client(shard.now()), limits::server()),
    };
    let shared = Rc::new(Shared {
        shard: Rc::clone(shard),
        flow: flow.clone(),
        stream: Rc::clone(&stream),
        tasks: StreamTasks::default(),
        streams: Cell::new(0),
        cancels: RefCell::new(cancels),
        account,
    });
    let _closing = Closing(&shared);
    let mut begun = pin!(server.handshake::<_, Piece>(wire.clone()));
    let begun = poll_fn(|cx| {
        let begun = begun.as_mut().poll(cx);
        match wire.poll_push(cx) {
            Poll::Ready(Err(_)) => Poll::Ready(Err(None)),
            Poll::Ready(Ok(())) | Poll::Pending => {
                begun.map_err(|error| error.is_go_away().then_some(Reason::UnsupportedProtocol))
            }
        }
    });
    let until = shard.now().plus_ms(shard.limits.head_timeout_ms);
    let in_time = wait::or_timeout(begun, pin!(shard.ring.sleep_until(until))).await;
    match in_time.unwrap_or(Err(Some(Reason::HeadTimeout))) {
        Ok(mut connection) => {
            carry(&shared, &wire, &mut connection).await;
            // GOAWAY and what else was said last.
            let until = shard.now().plus_ms(shard.limits.head_timeout_ms);
            let last = poll_fn(|cx| wire.poll_push(cx));
            let _ = wait::or_timeout(last, pin!(shard.ring.sleep_until(until))).await;
        }
        // It is no preface (RFC 9113 section 3.4).
        Err(Some(reason)) => shard.meter().refused(reason),
        Err(None) => {}
    }
    linger(shard, &stream, Linger::REFUSED).await;
}

/// Sees to it that tasks do not outlive the connection they wait for.
struct Closing<'s>(&'s Shared);

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.tasks.close();
    }
}

/// Until one side has enough of it.
async fn carry(shared: &Rc<Shared>, wire: &Wire, connection: &mut Connection<Wire, Piece>) {
    let shard = &shared.shard;
    let now = shard.now();
    let jitter = shard.random() % (AGE_MAX_MS / 5);
    let mut old = pin!(
        shard
            .ring
            .sleep_until(now.plus_ms(AGE_MAX_MS * 9 / 10 + jitter))
    );
    let mut idle = pin!(shard.ring.sleep_until(Mono::NEVER));
    let mut release = pin!(shard.ring.sleep_until(Mono::NEVER));
    let drain = shard.drain_bell();
    // Only sidecars are asked: a client of our own host cannot vanish.
    let asking = match &*shared.stream {
        Stream::Tls(_) => connection.ping_pong(),
        Stream::Plain(_) | Stream::Lane(_) => None,
    };
    let mut alive = KeepAlive::new(&shard.ring, shard.limits.pings, asking);
    let mut life = Life {
        begun_at: now,
        ending_since: None,
        cut: false,
        idle_from: Some(now),
        releasing: false,
    };
    loop {
        let opened = poll_fn(|cx| {
            drain.set(Some(cx.waker().clone()));
            let is_time =
                shard.must_close(&shared.flow, &shared.stream) || old.as_mut().poll(cx).is_ready();
            life.look(shared, wire, connection, is_time, idle.as_mut(), cx);
            life.release(shared, release.as_mut(), cx);
            let busy = shared.streams.get() > 0;
            if alive.poll_gone(wire, busy, shard.now(), cx).is_ready() {
                shared.stream.reset();
                return Poll::Ready(None);
            }
            let mut polled = connection.poll_accept(cx);
            let is_over = matches!(polled, Poll::Ready(None | Some(Err(_))));
            let fault = match (wire.is_misbegun(), wire.is_overdrawn()) {
                (true, _) => Some((Reason::BadFrame, Code::PROTOCOL_ERROR)),
                (false, true) => Some((Reason::Shed, Code::ENHANCE_YOUR_CALM)),
                (false, false) => None,
            };
            if let Some((reason, code)) = fault.filter(|_| !is_over && !life.cut) {
                life.cut(shard, connection, Some(reason), code);
                polled = connection.poll_accept(cx);
            }
            if polled.is_pending() {
                wire.settle();
            }
            if polled.is_pending() && matches!(wire.poll_push(cx), Poll::Ready(Err(_))) {
                return Poll::Ready(None);
            }
            polled.map(|opened| Some(opened?.map(|asked| Opened::new(shared, asked))))
        })
        .await;
        let opened = match opened {
            // What came in with that for which it is cut off.
            Some(Ok(_)) if life.cut => continue,
            Some(Ok(opened)) => opened,
            Some(Err(error)) if !life.cut => return count_fault(shard, &error),
            Some(Err(_)) | None => return,
        };
        if let Some(reason) = shard.refuses(&shared.flow, &shared.stream) {
            shard.meter().refused(reason);
            return shared.stream.reset();
        }
        open(shared, opened);
    }
}

/// Counts what the h2 crate has ended a connection for.
fn count_fault(shard: &ShardState, error: &h2::Error) {
    if error.is_go_away() && error.is_library() {
        let is_flood = error.reason() == Some(Code::ENHANCE_YOUR_CALM);
        shard.meter().refused(match is_flood {
            true => Reason::Shed,
            false => Reason::BadFrame,
        });
    }
}

/// How a connection fares.
struct Life {
    begun_at: Mono,
    /// Since when it is asked to end.
    ending_since: Option<Mono>,
    /// It was cut off.
    cut: bool,
    /// Since when no stream is open.
    idle_from: Option<Mono>,
    /// Tasks rest, and a time is set to let go those that are not needed.
    releasing: bool,
}

impl Life {
    /// Asks for the end where it is due.
    fn look(
        &mut self,
        shared: &Shared,
        wire: &Wire,
        connection: &mut Connection<Wire, Piece>,
        is_time: bool,
        mut idle: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) {
        let shard = &shared.shard;
        if shared.streams.get() > 0 {
            self.idle_from = None;
        } else {
            let since = *self.idle_from.get_or_insert(shard.now());
            idle.as_mut().reset(match self.ending_since {
                Some(at) => since.max(at).plus_ms(shard.limits.head_timeout_ms),
                None if wire.has_begun() => since.plus_ms(shard.limits.keep_alive_timeout_ms),
                None => self.begun_at.plus_ms(shard.limits.head_timeout_ms),
            });
        }
        let is_idle = self.idle_from.is_some() && idle.as_mut().poll(cx).is_ready();
        let is_flood = wire.is_flooded() || shared.cancels.borrow().are_a_flood();
        if is_flood {
            self.cut(
                shard,
                connection,
                Some(Reason::Shed),
                Code::ENHANCE_YOUR_CALM,
            );
        } else if is_idle && !wire.has_begun() {
            let reason = Some(Reason::HeadTimeout);
            self.cut(shard, connection, reason, Code::SETTINGS_TIMEOUT);
        } else if is_idle && self.ending_since.is_some() {
            // It does not say which stream was the last, and has none.
            self.cut(shard, connection, None, Code::NO_ERROR);
        } else if (is_time || is_idle) && self.ending_since.is_none() {
            self.ending_since = Some(shard.now());
            // Twice: first that it will end, after a round trip which stream was the last.
            connection.graceful_shutdown();
            // No longer than that, unless there are streams.
            let until = shard.now().plus_ms(shard.limits.head_timeout_ms);
            idle.as_mut().reset(until);
            let _ = idle.poll(cx);
        }
    }

    /// Ends a connection at once, streams and all; `counted`: as refused.
    fn cut(
        &mut self,
        shard: &ShardState,
        connection: &mut Connection<Wire, Piece>,
        counted: Option<Reason>,
        code: Code,
    ) {
        if std::mem::replace(&mut self.cut, true) {
            return;
        }
        if let Some(reason) = counted {
            shard.meter().refused(reason);
        }
        connection.abrupt_shutdown(code);
    }
}

impl Life {
    /// Lets go tasks that were not needed, where it is time.
    fn release(&mut self, shared: &Shared, mut due: Pin<&mut Sleep>, cx: &mut Context<'_>) {
        self.releasing = match self.releasing {
            false => shared.tasks.are_resting(),
            true if due.as_mut().poll(cx).is_pending() => return,
            true => shared.tasks.release(),
        };
        if self.releasing {
            let at = shared.shard.now().plus_ms(RELEASE_AFTER_MS);
            due.as_mut().reset(at);
            // Asks to be woken then.
            let _ = due.poll(cx);
        }
    }
}

/// A stream a client has opened.
struct Opened {
    counted: Counted,
    at: Mono,
    /// What of its body the connection's account holds.
    part: Option<Part>,
    request: http::Request<RecvStream>,
    respond: SendResponse<Piece>,
}

impl Opened {
    /// Boxed at once: it goes through many hands, and is some hundred bytes.
    fn new(
        shared: &Rc<Shared>,
        (request, respond): (http::Request<RecvStream>, SendResponse<Piece>),
    ) -> Box<Self> {
        shared.streams.set(shared.streams.get() + 1);
        Box::new(Self {
            counted: Counted(Rc::clone(shared)),
            at: shared.shard.now(),
            part: shared.account.part_of(request.body()),
            request,
            respond,
        })
    }
}

/// Makes an exchange of a stream.
fn open(shared: &Rc<Shared>, mut opened: Box<Opened>) {
    // Nothing of it was processed.
    if shared.shard.draining.get() && shared.shard.active().is_none() {
        return opened.respond.send_reset(Code::REFUSED_STREAM);
    }
    let Some(mut opened) = shared.tasks.give(opened) else {
        return;
    };
    let ring = &shared.shard.ring;
    if !ring.takes_tasks() {
        shared.shard.meter().refused(Reason::Shed);
        // Nothing of it was processed.
        return opened.respond.send_reset(Code::REFUSED_STREAM);
    }
    let shared = Rc::clone(shared);
    let begun = ring.spawn(async move { one_after_the_other(&shared, opened).await });
    debug_assert!(begun, "it takes tasks");
}

/// The work of a task: streams of the connection while there are some for it.
async fn one_after_the_other(shared: &Shared, first: Box<Opened>) {
    let seat = Rc::default();
    let mut parser = RequestHead::new();
    let mut tools = Tools::default();
    let mut spelled = Vec::with_capacity(SPELLED_BYTES_KEPT);
    let mut next = Some(first);
    while let Some(opened) = next.take() {
        exchange(shared, opened, &mut parser, &mut tools, &mut spelled).await;
        if spelled.capacity() > SPELLED_BYTES_KEPT {
            spelled = Vec::with_capacity(SPELLED_BYTES_KEPT);
        }
        next = shared.tasks.next(&seat).await;
    }
}

/// A stream in the count.
struct Counted(Rc<Shared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.streams.set(self.0.streams.get().saturating_sub(1));
    }
}

async fn exchange(
    shared: &Shared,
    opened: Box<Opened>,
    parser: &mut RequestHead,
    tools: &mut Tools,
    spelled: &mut Vec<u8>,
) {
    let Opened {
        counted: _counted,
        at: opened_at,
        part,
        request,
        mut respond,
    } = *opened;
    let shard = &shared.shard;
    let (mut parts, body) = request.into_parts();
    // Nothing of the stream before, where nothing is spelled.
    spelled.clear();
    let (asks, told) = match parts.extensions.remove::<Protocol>() {
        None => {
            let content_type = parts.headers.get(http::header::CONTENT_TYPE);
            let asks = match content_type {
                Some(value) if grpc::is_grpc(value.as_bytes()) => Asks::Grpc,
                _ => Asks::Answer,
            };
            let told = head::put_request(&parts, body.is_end_stream(), parser, spelled);
            (asks, told)
        }
        Some(protocol) => {
            let random = [shard.random(), shard.random()];
            let told = websocket::put_request(&mut parts, &protocol, random, parser, spelled);
            (Asks::WebSocket, told)
        }
    };
    let _heads = match charge_heads(shard, spelled, &parts.headers) {
        Ok(heads) => heads,
        Err(NoRoom) => {
            shard.meter().refused(Reason::Shed);
            // Nothing of it was processed.
            return respond.send_reset(Code::REFUSED_STREAM);
        }
    };
    let bytes = &**spelled;
    let connection = Rc::clone(&shared.stream);
    let stream = Incoming::new(&shard.ring, connection, part, body, respond, parts, asks);
    let client = Client::Http2(&stream);
    let after = match told {
        Err(fault) => {
            let refusal = fault.refusal();
            let mut record = Record::new(shard.now());
            let answer = Answer::refusal(&refusal);
            let after = answer::send(shard, client, &answer, &mut record).await;
            note::headless(shard, &shared.flow, &record, note::transport(client));
            after
        }
        Ok(()) => {
            let sleep = pin!(shard.ring.sleep_until(Mono::NEVER));
            let request = parser.view(bytes);
            let mut pending = Chunk::empty();
            pipeline::run(
                shard,
                &shared.flow,
                client,
                request,
                &mut pending,
                tools,
                sleep,
            )
            .await
        }
    };
    if after == After::Reset {
        stream.cut();
    }
    if stream.reset_by_client().is_some() {
        shared.cancels.borrow_mut().count(opened_at, shard.now());
    }
}

/// Charges a head that is no small one: as it was spelled, and as it came, with what the h2 crate keeps
/// beside each field.
fn charge_heads(
    shard: &ShardState,
    spelled: &[u8],
    fields: &http::HeaderMap,
) -> Result<Option<Charge>, NoRoom> {
    const FIELD_BYTES: usize = 64;
    if spelled.len() <= SPELLED_BYTES_KEPT {
        return Ok(None);
    }
    let charge = Charge::new(&shard.budget);
    charge.set(2 * spelled.len() + FIELD_BYTES * fields.len())?;
    Ok(Some(charge))
}
