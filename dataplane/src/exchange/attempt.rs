//! One try: a lane, the request on it, the answer's way back.

use std::cell::{Cell, OnceCell};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Poll, ready};

use super::acquire::{Bound, NoLane, acquire};
use super::acquire_shared::acquire_shared;
use super::body::{self, BodyEnd, BodySource, PumpEnd, Pumped};
use super::carrier::{Carrier, read_head};
use super::context::Exchange;
use super::head_in::{HeadRead, HeadReader};
use super::head_out::HeadOut;
use super::patience::Patience;
use super::pipeline::After;
use super::progress::Progress;
use super::record::Record;
use super::respond::{self, Respond, RespondFault};
use super::send_request::{SendFault, open_stream, send_request};
use super::sides::{Client, Inflow, Outflow};
use super::upgrade::{self, NoTunnel, Server};

use crate::balance::Verdict;
use crate::http1::{
    Answer, Edits, Framing, Next, Response, ResponseHead, ResponsePlan, TargetForm, Version, limits,
};
use crate::http2::{self, Body, Outgoing, grpc};
use crate::reason::Reason;
use crate::ring::{ByteStream, Sleep};
use crate::route::retry::TryOutcome;
use crate::tables::{ClusterIndex, Link, of_grpc};
use crate::time::Mono;
use crate::tls::Standing;
use crate::upstream::PoolId;
use crate::view::HeaderLookup;
use crate::wait;

/// Where a try goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'w> {
    pub(super) link: Link,
    pub(super) sni: &'w str,
    pub(super) pool: Option<PoolId>,
    /// The pool of its lanes, where it is a sidecar.
    pub(super) lanes: Option<PoolId>,
    /// Cluster and endpoint, to check the server's identity against.
    pub(super) endpoint: Option<(ClusterIndex, usize)>,
    /// The cluster, where it limits connections or those who wait for one.
    pub(super) bound: Option<Bound<'w>>,
    pub(super) connect_timeout_ms: u64,
    /// Requests on one connection before it is closed.
    pub(super) exchanges_max: u32,
    /// What is spoken there.
    pub(super) speaks: Speaks,
    /// Only a new connection will do: a pooled one has just failed this exchange, and its replay
    /// is allowed once.
    pub(super) fresh: bool,
}

/// The version of HTTP an upstream is spoken to in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Speaks {
    /// HTTP/1.1: a connection at a time.
    Http1,
    /// HTTP/2: a stream.
    Http2,
}

/// What is changed on the way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Changes<'p> {
    pub(super) path: Option<&'p str>,
    pub(super) host: Option<&'p str>,
    pub(super) request: &'p [Edits<'p>],
    pub(super) response: &'p [Edits<'p>],
}

/// How a try ended.
#[derive(Debug)]
pub(super) enum TryEnd {
    /// The exchange is over.
    Finished(After, Verdict),
    /// No answer; another try may help.
    Failed(TryOutcome, Reason, Verdict),
    /// An answer that the rule wants to replace by another try's, and whose request can be sent again.
    Unwanted(Verdict),
    /// No answer, and another try would not help (or must not be).
    Hopeless(Reason, Verdict),
    /// The client is gone.
    ClientGone,
}

/// Why a request that did not go out has no answer.
fn not_sent(fault: SendFault, reused: bool, times: &Times<'_>, now: Mono) -> TryEnd {
    match fault {
        SendFault::Broken => failed(TryOutcome::Reset { reused }, Reason::UpstreamReset),
        SendFault::Closed => failed(TryOutcome::Refused, Reason::UpstreamReset),
        SendFault::Late => times
            .over(now, true)
            .unwrap_or(TryEnd::Hopeless(Reason::Timeout, Verdict::LocalFailure)),
        SendFault::Unsayable => TryEnd::Hopeless(Reason::BadRequest, Verdict::Neutral),
        SendFault::Body => TryEnd::Hopeless(Reason::BadBody, Verdict::Neutral),
        SendFault::ClientGone => TryEnd::ClientGone,
        SendFault::NoRoom => TryEnd::Hopeless(Reason::HeadTooLarge, Verdict::Neutral),
    }
}

/// What an answer says of its endpoint: of a gRPC call its status does, in HTTP's terms, as HTTP's own is
/// always 200.
fn verdict_on(status: u16, grpc_status: Option<u8>) -> Verdict {
    Verdict::Answer(match grpc_status {
        Some(code) if status == 200 => of_grpc(code).0,
        _ => status,
    })
}

/// The endpoint's failure.
fn failed(outcome: TryOutcome, reason: Reason) -> TryEnd {
    TryEnd::Failed(outcome, reason, Verdict::LocalFailure)
}

/// How long a try may take.
struct Times<'t> {
    /// The exchange's end.
    deadline: Mono,
    /// This try's, until the answer's head.
    try_deadline: Mono,
    progress: &'t Progress<'t>,
    /// It would be told if the client left.
    hears_client: bool,
}

impl Times<'_> {
    /// When to look, before the answer's head is here. An exchange that only waits for that may be silent as
    /// long as its route lets it. While its request is `pumping` it may not be idle, nor where nothing else
    /// would end it: a client of HTTP/1.1 that left with a FIN looks like one that waits.
    fn next(&self, pumping: bool) -> Mono {
        let due = self.deadline.min(self.try_deadline);
        match pumping || due == Mono::NEVER && !self.hears_client {
            true => due.min(self.progress.idle_at()),
            false => due,
        }
    }

    /// What is over then. A client that takes its time to send must not have the endpoint ejected.
    fn over(&self, now: Mono, pumping: bool) -> Option<TryEnd> {
        let client_owes = pumping && self.progress.client_owes();
        let verdict = match client_owes {
            true => Verdict::Neutral,
            false => Verdict::LocalFailure,
        };
        if now >= self.deadline {
            return Some(TryEnd::Hopeless(Reason::Timeout, verdict));
        }
        if now >= self.try_deadline {
            let (outcome, reason) = (TryOutcome::TryTimeout, Reason::TryTimeout);
            return Some(TryEnd::Failed(outcome, reason, verdict));
        }
        let reason = match client_owes {
            true => Reason::IdleTimeout,
            false => Reason::Timeout,
        };
        (now >= self.next(pumping)).then_some(TryEnd::Hopeless(reason, verdict))
    }
}

/// What waiting for an answer's head came to.
enum Event {
    Read(HeadRead),
    Body(BodyEnd),
    NoRoom,
    ClientGone,
    Timeout,
}

/// Makes one try.
///
/// `deadline` is the exchange's, `try_deadline` this try's until the answer's head; `unwanted` says
/// whether an answer of some status is to be replaced by another try, and is asked only where the request
/// can be sent again.
pub(super) async fn attempt(
    x: &Exchange<'_>,
    way: &Way<'_>,
    changes: &Changes<'_>,
    body: &mut BodySource<'_>,
    parser: &mut ResponseHead,
    decoder: &mut crate::http1::BodyDecoder,
    record: &mut Record,
    sleep: Pin<&mut Sleep>,
    deadline: Mono,
    try_deadline: Mono,
    unwanted: impl FnMut(u16, Option<u8>) -> bool,
) -> TryEnd {
    let patience = Patience::of(x, body);
    let acquired = match way.speaks {
        Speaks::Http1 => acquire(x, way, patience, deadline.min(try_deadline))
            .await
            .map(Carrier::Own),
        Speaks::Http2 => acquire_shared(x, way, patience, deadline.min(try_deadline))
            .await
            .map(|(lane, sender)| Carrier::Shared(lane, sender)),
    };
    let carrier = match acquired {
        Ok(carrier) => carrier,
        // Our own doing is no fault of the endpoint, nor is another better off.
        Err(NoLane::Unreached(Reason::SvidExpired)) => {
            return TryEnd::Hopeless(Reason::SvidExpired, Verdict::Neutral);
        }
        Err(NoLane::Unreached(reason)) => {
            return failed(TryOutcome::ConnectFailure, reason);
        }
        Err(NoLane::NoRoom(reason)) => return TryEnd::Hopeless(reason, Verdict::Neutral),
        Err(NoLane::ClientGone) => return TryEnd::ClientGone,
    };
    let was_waited_for = !carrier.reused();
    let idle = match &carrier {
        Carrier::Own(lane) => lane.pool.zip(lane.idle_for),
        Carrier::Shared(..) => None,
    };
    let mut carried = Carried {
        x,
        carrier: Some(carrier),
        clean: Cell::new(false),
        exchanges_max: way.exchanges_max,
    };
    // A connection is made to its end, whose failure tells of the endpoint, and serves others then.
    if was_waited_for && patience.is_over().await {
        carried.clean.set(true);
        return TryEnd::ClientGone;
    }
    let end = {
        // Made where it stays: awaited at once it would be copied there, twice.
        let run = pin!(carried.run(
            changes,
            body,
            parser,
            decoder,
            record,
            sleep,
            deadline,
            try_deadline,
            unwanted,
        ));
        run.await
    };
    carried.settle();
    if let TryEnd::Failed(TryOutcome::Reset { reused: true }, ..) = &end
        && let Some((pool, idle_for)) = idle
    {
        x.shard.pools.borrow_mut().distrust(pool, idle_for);
    }
    end
}

/// A lane in use: goes back to its pool or is given up, whichever way the try ends.
struct Carried<'a, 'x> {
    x: &'a Exchange<'x>,
    carrier: Option<Carrier>,
    /// Its last answer ended cleanly and the server keeps it open.
    clean: Cell<bool>,
    exchanges_max: u32,
}

impl Drop for Carried<'_, '_> {
    fn drop(&mut self) {
        self.settle();
    }
}

impl Carried<'_, '_> {
    fn settle(&mut self) {
        // A stream ends by itself when its last handle is gone.
        let Some(Carrier::Own(lane)) = self.carrier.take() else {
            return;
        };
        let shard = self.x.shard;
        let stays = self.clean.get() && lane.exchanges < self.exchanges_max;
        if stays && shard.standing(&lane.stream) == Standing::Good {
            shard.rest(lane);
        } else if let Some(pool) = lane.pool {
            shard.pools.borrow_mut().lost(pool);
        }
    }

    async fn run(
        &self,
        changes: &Changes<'_>,
        body: &mut BodySource<'_>,
        parser: &mut ResponseHead,
        decoder: &mut crate::http1::BodyDecoder,
        record: &mut Record,
        mut sleep: Pin<&mut Sleep>,
        deadline: Mono,
        try_deadline: Mono,
        mut unwanted: impl FnMut(u16, Option<u8>) -> bool,
    ) -> TryEnd {
        let x = self.x;
        let Some(carrier) = &self.carrier else {
            return TryEnd::Hopeless(Reason::Shed, Verdict::Neutral);
        };
        let reused = carrier.reused();
        let outgoing = OnceCell::new();
        let method = x.request.method();
        let framing = x.request.framing();
        // With a body nobody could say where it ends and the new protocol begins; an upgrade may
        // always be ignored (RFC 9110 section 7.8).
        let upgrade = x.request.upgrade().is_some() && framing.is_empty();
        let asks_for_tunnel = x.request.form() == TargetForm::Authority;
        if (upgrade || asks_for_tunnel) && body.has_more() {
            // The next request, or the first bytes of what it is upgraded to.
            x.early.set(Some(body.take_more()));
        }
        record.upstream = Some(carrier.address());
        record.reused = reused;
        record.upstream_tls = carrier.identity().is_some();
        let times = Times {
            deadline,
            try_deadline,
            progress: &x.progress,
            hears_client: matches!(x.client, Client::Http2(_)),
        };
        x.progress.moved();
        sleep.as_mut().reset(times.next(true));
        let mut outflow = match carrier {
            Carrier::Own(lane) => {
                let stream = &lane.stream;
                let sent =
                    send_request(x, changes, framing, upgrade, body, stream, sleep.as_mut()).await;
                match sent {
                    Ok(sink) => Outflow::Http1 {
                        stream,
                        sink,
                        ring: &x.shard.ring,
                    },
                    Err(fault) => return not_sent(fault, reused, &times, x.shard.now()),
                }
            }
            Carrier::Shared(lane, sender) => {
                let left = deadline.min(try_deadline);
                let sent = open_stream(
                    x, changes, framing, upgrade, body, lane, sender, left, &outgoing,
                );
                match sent {
                    Ok((stream, ended)) => Outflow::Request { stream, ended },
                    Err(fault) => {
                        if matches!(fault, SendFault::Closed) {
                            lane.distrust();
                        }
                        return not_sent(fault, reused, &times, x.shard.now());
                    }
                }
            }
        };
        record.sent = Some(x.shard.now());

        let mut reader = HeadReader::default();
        let mut interim = 0;
        // What was read of the client's body is all of it.
        let mut whole = body.is_over();
        let mut replayable = whole && body.is_replayable();
        // Trailers may be left where the body itself is over.
        let mut pumping = !whole || !outflow.has_ended();
        // A stream may be given up at any time; what is seen of an HTTP/1.1 client is its next bytes.
        let is_stream = matches!(x.client, Client::Http2(_));
        let mut watching = is_stream || !pumping && !body.has_more() && !x.has_early();
        let mut pump = pin!(body::pump(body, &mut outflow, &x.progress, &x.shard.ring));
        let mut watch = pin!(x.client.watch());
        let bytes = loop {
            sleep.as_mut().reset(times.next(pumping));
            let event = {
                let mut read = pin!(read_head(
                    carrier,
                    &outgoing,
                    &mut reader,
                    parser,
                    &x.shard.budget
                ));
                poll_fn(|cx| {
                    if let Poll::Ready(read) = read.as_mut().poll(cx) {
                        return Poll::Ready(Event::Read(read));
                    }
                    if pumping {
                        match pump.as_mut().poll(cx) {
                            Poll::Pending => {}
                            Poll::Ready(Ok(Pumped {
                                has_more,
                                replayable: kept,
                            })) => {
                                (pumping, whole, replayable) = (false, true, kept);
                                watching = is_stream || !has_more && !x.has_early();
                            }
                            // The upstream may have stopped reading because it has answered.
                            Poll::Ready(Err(PumpEnd::Upstream { replayable: kept })) => {
                                (pumping, replayable) = (false, kept);
                            }
                            Poll::Ready(Err(PumpEnd::Downstream(end))) => {
                                return Poll::Ready(Event::Body(end));
                            }
                            Poll::Ready(Err(PumpEnd::NoRoom)) => return Poll::Ready(Event::NoRoom),
                        }
                    }
                    if watching && let Poll::Ready(seen) = watch.as_mut().poll(cx) {
                        watching = false;
                        if x.is_left(seen) {
                            return Poll::Ready(Event::ClientGone);
                        }
                    }
                    sleep.as_mut().poll(cx).map(|()| Event::Timeout)
                })
                .await
            };
            let bytes = match event {
                Event::Read(HeadRead::Head(bytes)) => bytes,
                Event::Read(HeadRead::Refuse(_)) => {
                    return TryEnd::Hopeless(Reason::BadResponse, Verdict::LocalFailure);
                }
                Event::Read(HeadRead::NoRoom) => {
                    return TryEnd::Hopeless(Reason::Shed, Verdict::Neutral);
                }
                // Of one stream, or of all behind a GOAWAY, after which nobody joins the connection.
                Event::Read(HeadRead::NotProcessed) => {
                    return failed(TryOutcome::Refused, Reason::UpstreamReset);
                }
                Event::Read(
                    HeadRead::End { begun: true } | HeadRead::Failed { begun: true, .. },
                ) => return TryEnd::Hopeless(Reason::UpstreamReset, Verdict::LocalFailure),
                Event::Read(HeadRead::End { .. } | HeadRead::Failed { .. }) => {
                    return failed(TryOutcome::Reset { reused }, Reason::UpstreamReset);
                }
                Event::Body(BodyEnd::Fault) => {
                    return TryEnd::Hopeless(Reason::BadBody, Verdict::Neutral);
                }
                Event::Body(BodyEnd::Failed) | Event::ClientGone => {
                    pass_reset_up(x.client, outgoing.get());
                    return TryEnd::ClientGone;
                }
                Event::NoRoom => return TryEnd::Hopeless(Reason::Shed, Verdict::Neutral),
                Event::Timeout => match times.over(x.shard.now(), pumping) {
                    Some(end) => return end,
                    None => continue,
                },
            };
            let next = parser.view(&bytes).next(method, upgrade);
            match next {
                Ok(Next::Interim) if interim < limits::INTERIM_ANSWERS_MAX => {
                    interim += 1;
                    x.progress.moved();
                    if x.request.version() == Version::Http11
                        && !send_interim(x, &parser.view(&bytes)).await
                    {
                        return TryEnd::ClientGone;
                    }
                }
                Err(_) | Ok(Next::Interim) => {
                    return TryEnd::Hopeless(Reason::BadResponse, Verdict::LocalFailure);
                }
                Ok(Next::Body(_) | Next::Tunnel) => break bytes,
            }
        };

        // The answer's head is here.
        record.answered = Some(x.shard.now());
        x.progress.moved();
        sleep.as_mut().reset(deadline.min(x.progress.idle_at()));
        let response = parser.view(&bytes);
        let status = response.status();
        let Ok(next) = response.next(method, upgrade) else {
            return TryEnd::Hopeless(Reason::BadResponse, Verdict::LocalFailure);
        };
        let grpc_status = (x.is_grpc())
            .then(|| response.first("grpc-status"))
            .flatten()
            .and_then(grpc::status);
        let mut verdict = verdict_on(status, grpc_status);
        if matches!(next, Next::Body(_)) && replayable && unwanted(status, grpc_status) {
            return TryEnd::Unwanted(verdict);
        }
        record.status = status;
        record.grpc_status = grpc_status;
        record.reason = Reason::None;
        let framing = match next {
            Next::Body(framing) => told_by_frames(framing, outgoing.get(), x.client),
            Next::Interim | Next::Tunnel => Framing::None,
        };
        let is_tunnel = matches!(next, Next::Tunnel);
        let plan = ResponsePlan {
            to: x.request.version(),
            framing,
            tells_length_only: status == 304 || (method == "HEAD" && status != 204),
            keep_alive: x.request.keep_alive()
                && !x.client.must_close(x.shard, x.flow)
                && whole
                && (is_tunnel || !asks_for_tunnel),
            upgrade: is_tunnel && status == 101,
            edits: changes.response,
        };
        if is_tunnel {
            let server = match (carrier, outgoing.get()) {
                (Carrier::Own(lane), _) => Some(Server::Own(&lane.stream)),
                (Carrier::Shared(lane, _), Some(stream)) => {
                    lane.stream().map(|on| Server::Shared(stream, on))
                }
                (Carrier::Shared(..), None) => None,
            };
            let Some(server) = server else {
                return TryEnd::Hopeless(Reason::UpstreamReset, Verdict::LocalFailure);
            };
            let early = x.early.take().unwrap_or_default();
            let pending = reader.pending;
            let carried = upgrade::carry(x, server, &plan, &response, early, pending, record);
            return match Box::pin(carried).await {
                Ok(after) => TryEnd::Finished(after, verdict),
                Err(NoTunnel::ClientGone) => TryEnd::ClientGone,
                Err(NoTunnel::BadResponse) => {
                    TryEnd::Hopeless(Reason::BadResponse, Verdict::LocalFailure)
                }
            };
        }
        if x.client.takes_success_for_tunnel() && matches!(status, 200..=299) {
            return TryEnd::Hopeless(Reason::UpgradeUnsupported, verdict);
        }
        let respond = Respond {
            ring: &x.shard.ring,
            upstream: match (carrier, outgoing.get().and_then(Outgoing::body)) {
                (_, Some(body)) => Inflow::Http2(body),
                (Carrier::Own(lane), None) => Inflow::Http1(&lane.stream),
                (Carrier::Shared(..), None) => {
                    return TryEnd::Hopeless(Reason::UpstreamReset, Verdict::LocalFailure);
                }
            },
            from: outgoing.get(),
            client: x.client,
            plan: &plan,
            progress: &x.progress,
        };
        let mut bytes_out = 0;
        let answered = {
            let mut answering = pin!(respond::respond(
                &respond,
                &response,
                &mut reader.pending,
                decoder,
                &mut bytes_out
            ));
            poll_fn(|cx| {
                if let Poll::Ready(end) = answering.as_mut().poll(cx) {
                    return Poll::Ready(end);
                }
                if pumping && let Poll::Ready(end) = pump.as_mut().poll(cx) {
                    pumping = false;
                    if let Ok(Pumped { has_more, .. }) = end {
                        whole = true;
                        watching = is_stream || !has_more && !x.has_early();
                    }
                    // Who only stops sending, as RFC 9112 section 9.5 asks of whom an early answer
                    // reaches, has the rest of it.
                    if matches!(end, Err(PumpEnd::Downstream(BodyEnd::Failed))) {
                        return Poll::Ready(Err(RespondFault::ClientGone));
                    }
                }
                if watching && let Poll::Ready(seen) = watch.as_mut().poll(cx) {
                    watching = false;
                    if x.is_left(seen) {
                        return Poll::Ready(Err(RespondFault::ClientGone));
                    }
                }
                loop {
                    ready!(sleep.as_mut().poll(cx));
                    let (now, idle_at) = (x.shard.now(), x.progress.idle_at());
                    if now >= deadline {
                        return Poll::Ready(Err(RespondFault::Timeout));
                    }
                    if now >= idle_at {
                        return Poll::Ready(Err(RespondFault::Idle));
                    }
                    sleep.as_mut().reset(deadline.min(idle_at));
                }
            })
            .await
        };
        record.bytes_out += bytes_out;
        let upstream_stays = response.keep_alive()
            && framing != Framing::UntilClose
            && decoder.is_over()
            && reader.pending.is_empty();
        match answered {
            Ok(()) => {
                if x.is_grpc() && record.grpc_status.is_none() {
                    let lines = outgoing.get().and_then(Outgoing::body).map(Body::trailers);
                    let lines = lines.unwrap_or_else(|| decoder.trailers());
                    // An answer without one is a failed call to every client.
                    let told = grpc::status_in(lines).unwrap_or_else(|| grpc::of_http(status));
                    record.grpc_status = Some(told);
                    verdict = verdict_on(status, record.grpc_status);
                }
                let whole = whole && !pumping;
                self.clean.set(upstream_stays && whole);
                let after = match plan.stays_open() && whole {
                    true => After::KeepAlive,
                    false => After::Close,
                };
                TryEnd::Finished(after, verdict)
            }
            Err(RespondFault::ClientGone) => {
                pass_reset_up(x.client, outgoing.get());
                TryEnd::ClientGone
            }
            Err(fault) => {
                pass_reset_down(x.client, outgoing.get());
                record.grpc_status = x.is_grpc().then_some(grpc::UNAVAILABLE);
                record.reason = match fault {
                    RespondFault::Timeout => Reason::Timeout,
                    RespondFault::Idle => Reason::IdleTimeout,
                    RespondFault::BadBody | RespondFault::BadBodyUnsent | RespondFault::BadHead => {
                        Reason::BadResponse
                    }
                    RespondFault::Broken => Reason::UpstreamReset,
                    RespondFault::NoRoom | RespondFault::Cut | RespondFault::ClientGone => {
                        Reason::Shed
                    }
                };
                match fault {
                    RespondFault::BadBodyUnsent => {
                        TryEnd::Hopeless(Reason::BadResponse, Verdict::LocalFailure)
                    }
                    // The head found no buffer: nothing went downstream.
                    RespondFault::NoRoom => TryEnd::Hopeless(Reason::Shed, Verdict::Neutral),
                    RespondFault::BadHead => {
                        TryEnd::Hopeless(Reason::BadResponse, Verdict::LocalFailure)
                    }
                    // The endpoint has answered. That not all of it went through in time may be
                    // the client's doing, which must not have the endpoint ejected; that we had
                    // no room is ours.
                    RespondFault::Timeout | RespondFault::Idle | RespondFault::Cut => {
                        TryEnd::Finished(end_call(x, record), verdict)
                    }
                    _ => TryEnd::Finished(After::Reset, Verdict::LocalFailure),
                }
            }
        }
    }
}

/// The mesh ends an answer whose head has gone out. A gRPC client hears why in trailers; a reset would tell
/// it of an internal error (grpc/grpc doc/PROTOCOL-HTTP2.md, "Errors").
fn end_call(x: &Exchange<'_>, record: &mut Record) -> After {
    let answer = Answer::of(record.reason);
    match x.client {
        Client::Http2(stream) if x.is_grpc() && stream.end_call(&answer).is_ok() => {
            record.grpc_status = Some(grpc::status_of(&answer));
            After::Close
        }
        _ => After::Reset,
    }
}

/// A client gave its call up: its server hears with which code.
fn pass_reset_up(client: Client<'_>, server: Option<&Outgoing>) {
    if let (Client::Http2(client), Some(server)) = (client, server)
        && let Some(code) = client.reset_by_client()
    {
        server.reset(code);
    }
}

/// A server broke its answer off: the client hears with which code. Not that nothing was processed, and
/// not that nothing is wrong: after a head has gone out neither is so.
fn pass_reset_down(client: Client<'_>, server: Option<&Outgoing>) {
    let code = server.and_then(Outgoing::body).and_then(Body::cut);
    if let (Client::Http2(client), Some(code)) = (client, code)
        && !matches!(code, h2::Reason::REFUSED_STREAM | h2::Reason::NO_ERROR)
    {
        client.broke_off(code);
    }
}

async fn send_interim(x: &Exchange<'_>, response: &Response<'_>) -> bool {
    let downstream = match x.client {
        Client::Http1(stream) => stream,
        Client::Http2(stream) => {
            let mut bytes = Vec::new();
            let head = ResponsePlan::put_interim(response, &mut bytes)
                .ok()
                .and_then(|()| http2::head::response(&bytes.into()));
            // One that cannot be said is dropped: the final answer counts.
            return head.is_none_or(|head| stream.interim(head).is_ok());
        }
    };
    let mut out = HeadOut::new(&x.shard.ring);
    if ResponsePlan::put_interim(response, &mut out).is_err() {
        return false;
    }
    let sent = downstream.send(out.finish());
    matches!(
        wait::or_timeout(sent, pin!(x.shard.idle_from_now())).await,
        Some(Ok(()))
    )
}

/// The body of an HTTP/2 response whose head does not tell its length: frames do. An HTTP/1.1 client
/// has to be told that there is none.
fn told_by_frames(told: Framing, stream: Option<&Outgoing>, client: Client<'_>) -> Framing {
    let Some(body) = stream.and_then(Outgoing::body) else {
        return told;
    };
    match (told, client) {
        (Framing::UntilClose, _) if !body.is_over() => Framing::Chunked,
        (Framing::UntilClose, Client::Http1(_)) => Framing::Length(0),
        (Framing::UntilClose, Client::Http2(_)) => Framing::None,
        (told, _) => told,
    }
}
