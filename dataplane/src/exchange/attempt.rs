//! One try: a lane, the request on it, the answer's way back.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use super::acquire::{Bound, NoLane, acquire};
use super::body::{self, BodyEnd, BodySink, BodySource, PumpEnd};
use super::flow::Direction;
use super::head_in::{HeadRead, HeadReader};
use super::head_out::HeadOut;
use super::pipeline::{After, Exchange};
use super::record::Record;
use super::respond::{self, Respond, RespondFault};
use super::sides::{Client, Inflow, Outflow, Seen};
use crate::balance::Verdict;
use crate::http1::{ClientCert, Edits, TargetForm, Version, limits};
use crate::http1::{Framing, Known, Next, RequestPlan, Response, ResponseHead, ResponsePlan};
use crate::opaque;
use crate::reason::Reason;
use crate::ring::{ByteStream, Chunk, Sleep};
use crate::route::retry::TryOutcome;
use crate::tables::{ClusterIndex, Link};
use crate::time::Mono;
use crate::tls::Standing;
use crate::upstream::{Lane, Opened, PoolId, Stream};

/// Where a try goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way<'w> {
    pub(super) link: Link,
    pub(super) sni: &'w str,
    pub(super) pool: Option<PoolId>,
    /// Cluster and endpoint, to check the server's identity against.
    pub(super) endpoint: Option<(ClusterIndex, usize)>,
    /// The cluster, where it limits connections or those who wait for one.
    pub(super) bound: Option<Bound<'w>>,
    pub(super) connect_timeout_ms: u64,
    /// Requests on one connection before it is closed.
    pub(super) exchanges_max: u32,
    /// Only a new connection will do: a pooled one has just failed this exchange, and its replay
    /// is allowed once.
    pub(super) fresh: bool,
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
    Failed(TryOutcome, Reason),
    /// An answer that the rule wants to replace by another try's.
    Unwanted(u16),
    /// No answer, and another try would not help (or must not be).
    Hopeless(Reason, Verdict),
    /// The client is gone.
    ClientGone,
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
/// whether an answer of some status is to be replaced by another try.
pub(super) async fn attempt(
    x: &Exchange<'_>,
    way: &Way<'_>,
    changes: &Changes<'_>,
    body: &mut BodySource<'_>,
    parser: &mut ResponseHead,
    decoder: &mut crate::http1::BodyDecoder,
    record: &mut Record,
    mut sleep: Pin<&mut Sleep>,
    deadline: Mono,
    try_deadline: Mono,
    unwanted: impl FnMut(u16) -> bool,
) -> TryEnd {
    let lane = match acquire(x, way, deadline.min(try_deadline)).await {
        Ok(lane) => lane,
        Err(NoLane::Unreached(reason)) => {
            let outcome = TryOutcome::ConnectFailure;
            return TryEnd::Failed(outcome, reason);
        }
        Err(NoLane::NoRoom(reason)) => return TryEnd::Hopeless(reason, Verdict::Neutral),
    };
    let idle_for = lane.idle_for;
    sleep.as_mut().reset(deadline.min(try_deadline));
    let mut carried = Carried {
        x,
        lane: Some(lane),
        clean: Cell::new(false),
        exchanges_max: way.exchanges_max,
    };
    let end = carried
        .run(
            changes,
            body,
            parser,
            decoder,
            record,
            sleep,
            deadline,
            try_deadline,
            unwanted,
        )
        .await;
    carried.settle();
    if let TryEnd::Failed(TryOutcome::Reset { reused: true }, _) = &end
        && let (Some(pool), Some(idle_for)) = (way.pool, idle_for)
    {
        x.shard.pools.borrow_mut().distrust(pool, idle_for);
    }
    end
}

/// A lane in use: goes back to its pool or is given up, whichever way the try ends.
struct Carried<'a, 'x> {
    x: &'a Exchange<'x>,
    lane: Option<Lane>,
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
        let Some(lane) = self.lane.take() else { return };
        let shard = self.x.shard;
        let stays = self.clean.get() && lane.exchanges < self.exchanges_max;
        if stays && shard.standing(&lane.stream) == Standing::Good {
            let limited = lane.opened.as_ref().map(Opened::cluster);
            shard.pools.borrow_mut().give_back(lane, shard.now());
            shard.sweep_while_idle();
            if let Some(cluster) = limited {
                shard.lines.call(cluster);
            }
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
        mut unwanted: impl FnMut(u16) -> bool,
    ) -> TryEnd {
        let x = self.x;
        let Some(lane) = &self.lane else {
            return TryEnd::Hopeless(Reason::Shed, Verdict::Neutral);
        };
        let reused = lane.idle_for.is_some();
        let upstream = &lane.stream;
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
        record.upstream = Some(lane.address());
        record.reused = reused;
        record.upstream_tls = lane.identity().is_some();
        let sent = send_request(x, changes, framing, upgrade, body, upstream).await;
        let mut outflow = match sent {
            Ok(outflow) => outflow,
            Err(SendFault::Broken) => {
                return TryEnd::Failed(TryOutcome::Reset { reused }, Reason::UpstreamReset);
            }
            Err(SendFault::Body) => {
                return TryEnd::Hopeless(Reason::BadBody, Verdict::Neutral);
            }
            Err(SendFault::NoRoom) => {
                return TryEnd::Hopeless(Reason::HeadTooLarge, Verdict::Neutral);
            }
        };
        record.sent = Some(x.shard.now());

        let mut reader = HeadReader::default();
        let mut interim = 0;
        let mut pumping = !body.is_over();
        let mut watching = !pumping && !body.has_more() && !x.has_early();
        let mut pump = pin!(body::pump(body, &mut outflow));
        let mut watch = pin!(x.client.watch());
        let bytes = loop {
            let event = {
                let mut read = pin!(reader.read(parser, upstream));
                poll_fn(|cx| {
                    if let Poll::Ready(read) = read.as_mut().poll(cx) {
                        return Poll::Ready(Event::Read(read));
                    }
                    if pumping {
                        match pump.as_mut().poll(cx) {
                            Poll::Pending => {}
                            // The upstream may have stopped reading because it has answered.
                            Poll::Ready(Ok(()) | Err(PumpEnd::Upstream)) => pumping = false,
                            Poll::Ready(Err(PumpEnd::Downstream(end))) => {
                                return Poll::Ready(Event::Body(end));
                            }
                            Poll::Ready(Err(PumpEnd::NoRoom)) => return Poll::Ready(Event::NoRoom),
                        }
                    } else if watching && let Poll::Ready(seen) = watch.as_mut().poll(cx) {
                        watching = false;
                        match seen {
                            Seen::Gone => return Poll::Ready(Event::ClientGone),
                            Seen::HalfClosed => {}
                            Seen::Early(chunk) => x.early.set(Some(chunk)),
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
                Event::Read(
                    HeadRead::End { begun: true } | HeadRead::Failed { begun: true, .. },
                ) => return TryEnd::Hopeless(Reason::UpstreamReset, Verdict::LocalFailure),
                Event::Read(HeadRead::End { .. } | HeadRead::Failed { .. }) => {
                    return TryEnd::Failed(TryOutcome::Reset { reused }, Reason::UpstreamReset);
                }
                Event::Body(BodyEnd::Fault) => {
                    return TryEnd::Hopeless(Reason::BadBody, Verdict::Neutral);
                }
                Event::Body(BodyEnd::Failed) | Event::ClientGone => return TryEnd::ClientGone,
                Event::NoRoom => return TryEnd::Hopeless(Reason::Shed, Verdict::Neutral),
                Event::Timeout if x.shard.now() >= deadline => {
                    return TryEnd::Hopeless(Reason::Timeout, Verdict::LocalFailure);
                }
                Event::Timeout if x.shard.now() >= try_deadline => {
                    return TryEnd::Failed(TryOutcome::TryTimeout, Reason::TryTimeout);
                }
                Event::Timeout => continue,
            };
            let next = parser.view(&bytes).next(method, upgrade);
            match next {
                Ok(Next::Interim) if interim < limits::INTERIM_ANSWERS_MAX => {
                    interim += 1;
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
        sleep.as_mut().reset(deadline);
        let response = parser.view(&bytes);
        let status = response.status();
        let Ok(next) = response.next(method, upgrade) else {
            return TryEnd::Hopeless(Reason::BadResponse, Verdict::LocalFailure);
        };
        if matches!(next, Next::Body(_)) && !pumping && unwanted(status) {
            return TryEnd::Unwanted(status);
        }
        record.status = status;
        record.reason = Reason::None;
        let verdict = Verdict::Answer(status);
        let framing = match next {
            Next::Body(framing) => framing,
            Next::Interim | Next::Tunnel => Framing::None,
        };
        let is_tunnel = matches!(next, Next::Tunnel);
        let plan = ResponsePlan {
            to: x.request.version(),
            framing,
            tells_length_only: method == "HEAD" || status == 304,
            keep_alive: x.request.keep_alive()
                && !x.client.must_close(x.shard)
                && !pumping
                && (is_tunnel || !asks_for_tunnel),
            upgrade: is_tunnel && status == 101,
            edits: changes.response,
        };
        if is_tunnel {
            let Client::Http1(downstream) = x.client;
            let mut out = HeadOut::new(&x.shard.ring);
            if plan.put(&response, &mut out).is_err()
                || downstream.send(out.finish()).await.is_err()
            {
                return TryEnd::ClientGone;
            }
            let first = x.early.take().unwrap_or_default();
            let relayed = relay_tunnel(x, downstream, upstream, first, reader.pending).await;
            record.bytes_in += relayed.forth;
            record.bytes_out += relayed.back;
            return TryEnd::Finished(After::Close, verdict);
        }
        let respond = Respond {
            ring: &x.shard.ring,
            upstream: Inflow::Http1(upstream),
            client: x.client,
            plan: &plan,
            idle_timeout_ms: x.shard.limits.idle_timeout_ms,
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
                    if matches!(end, Err(PumpEnd::Downstream(_) | PumpEnd::NoRoom)) {
                        return Poll::Ready(Err(RespondFault::ClientGone));
                    }
                }
                sleep.as_mut().poll(cx).map(|()| Err(RespondFault::Timeout))
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
                let whole = !pumping;
                self.clean.set(upstream_stays && whole);
                let after = match plan.stays_open() && whole {
                    true => After::KeepAlive,
                    false => After::Close,
                };
                TryEnd::Finished(after, verdict)
            }
            Err(RespondFault::ClientGone) => TryEnd::ClientGone,
            Err(fault) => {
                record.reason = match fault {
                    RespondFault::Timeout => Reason::Timeout,
                    RespondFault::Idle => Reason::IdleTimeout,
                    RespondFault::BadBody | RespondFault::BadBodyUnsent => Reason::BadResponse,
                    RespondFault::Broken => Reason::UpstreamReset,
                    RespondFault::NoRoom | RespondFault::ClientGone => Reason::Shed,
                };
                match fault {
                    RespondFault::BadBodyUnsent => {
                        TryEnd::Hopeless(Reason::BadResponse, Verdict::LocalFailure)
                    }
                    // The head found no buffer: nothing went downstream.
                    RespondFault::NoRoom => TryEnd::Hopeless(Reason::Shed, Verdict::Neutral),
                    _ => TryEnd::Finished(After::Reset, Verdict::LocalFailure),
                }
            }
        }
    }
}

async fn relay_tunnel(
    x: &Exchange<'_>,
    downstream: &Stream,
    upstream: &Stream,
    to_upstream: Chunk,
    to_downstream: Chunk,
) -> opaque::Relayed {
    let options = opaque::RelayOptions {
        idle_timeout_ms: x.shard.limits.idle_timeout_ms,
        over_at: x.client.over_at().min(upstream.over_at()),
    };
    opaque::relay(
        &x.shard.ring,
        downstream,
        upstream,
        to_upstream,
        to_downstream,
        &options,
    )
    .await
}

async fn send_interim(x: &Exchange<'_>, response: &Response<'_>) -> bool {
    let Client::Http1(downstream) = x.client;
    let mut out = HeadOut::new(&x.shard.ring);
    ResponsePlan::put_interim(response, &mut out).is_ok()
        && downstream.send(out.finish()).await.is_ok()
}

enum SendFault {
    Broken,
    Body,
    NoRoom,
}

/// Sends the head with what is here of the body, in one submission where it fits.
async fn send_request<'o>(
    x: &Exchange<'o>,
    changes: &Changes<'_>,
    framing: Framing,
    upgrade: bool,
    body: &mut BodySource<'_>,
    upstream: &'o Stream,
) -> Result<Outflow<'o>, SendFault> {
    let ring = &x.shard.ring;
    let mut sink = BodySink::new(framing);
    let plan = RequestPlan {
        path: changes.path,
        host: changes.host,
        framing,
        request_id: x
            .request
            .field(Known::RequestId)
            .is_none()
            .then_some(x.request_id),
        upgrade,
        client_cert: match (x.flow.direction, x.client.client_cert()) {
            (Direction::Outbound, _) => ClientCert::Keep,
            (Direction::Inbound { .. }, None) => ClientCert::Strip,
            (Direction::Inbound { .. }, Some(proven)) => ClientCert::Say(proven),
        },
        close: false,
        edits: changes.request,
    };
    let mut head = HeadOut::new(ring);
    plan.put(&x.request, &mut head)
        .map_err(|_| SendFault::NoRoom)?;
    // Pieces of an earlier try come first, then what is here and was never sent.
    let kept: Vec<Chunk> = body.kept().iter().map(Chunk::share).collect();
    let mut kept = kept.into_iter();
    loop {
        while head.room() > PIECES_PER_BODY_PIECE {
            let piece = match kept.next() {
                Some(piece) => Some(piece),
                None => body.ready().map_err(|_| SendFault::Body)?,
            };
            let Some(piece) = piece else {
                if body.is_over() {
                    let trailers = body.trailers();
                    sink.end_into(trailers, &mut head)
                        .map_err(|_| SendFault::NoRoom)?;
                }
                return match upstream.send(head.finish()).await {
                    Ok(()) => Ok(Outflow::Http1 {
                        stream: upstream,
                        sink,
                        ring,
                    }),
                    Err(_) => Err(SendFault::Broken),
                };
            };
            sink.piece_into(piece, &mut head)
                .map_err(|_| SendFault::NoRoom)?;
        }
        upstream
            .send(head.finish())
            .await
            .map_err(|_| SendFault::Broken)?;
        head = HeadOut::new(ring);
    }
}

/// A chunk's size line, its payload, the end of the body.
const PIECES_PER_BODY_PIECE: usize = 3;
