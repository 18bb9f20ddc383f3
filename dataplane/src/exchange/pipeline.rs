//! One exchange, room after room. The file to read first.
//!
//! ```text
//! outbound: resolve -> route -> fault -> policy (external services) -> [pick -> attempt]* -> Outcome
//! inbound:  policy -> Permit -> attempt at the app -> Outcome
//! ```

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;

use ringmesh_wire::snapshot::{AbortWith, Protocol, Redirect, Retry};

use super::acquire::Bound;
use super::attempt::{self, Changes, Speaks, TryEnd, Way};
use super::body::BodySource;
use super::flow::{Direction, Flow};
use super::record::Record;
use super::sides::Client;
use super::state::{Active, ShardState};
use super::{answer, borrow, note, request_id, tunnel};
use crate::balance::{Limit, Retrying, Tried, Verdict};
use crate::http1::{Answer, BodyDecoder, Edits, Known, Request, ResponseHead, TargetForm, path};
use crate::http2::{grpc, websocket};
use crate::policy::quota::{self, QuotaMemo};
use crate::policy::{self, Call, Permit};
use crate::reason::Reason;
use crate::ring::{Chunk, Sleep};
use crate::route::fault;
use crate::route::retry::{self, Next, RetryState, TryFacts, TryOutcome};
use crate::route::{self, Choice, Decided};
use crate::tables::{ClusterIndex, Destined, Link, Site, Target, Tunnel, WorkloadPort};
use crate::telemetry::Event;
use crate::time::Mono;
use crate::view::RequestView;

/// What becomes of the downstream connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum After {
    /// It may carry another request.
    KeepAlive,
    /// It ends, in order.
    Close,
    /// It is cut: part of an answer is missing, or nobody listens.
    Reset,
}

/// Parsers and scratch space of a connection, reused from exchange to exchange.
#[derive(Debug, Default)]
pub struct Tools {
    response: ResponseHead,
    request_body: BodyDecoder,
    response_body: BodyDecoder,
    path: String,
    rewritten: String,
    quota: RefCell<QuotaMemo>,
}

/// What every step of an exchange may look at.
pub(super) struct Exchange<'x> {
    pub(super) shard: &'x Rc<ShardState>,
    pub(super) active: &'x Rc<Active>,
    pub(super) flow: &'x Flow,
    pub(super) client: Client<'x>,
    pub(super) request: Request<'x>,
    /// When its head was complete.
    pub(super) started: Mono,
    /// Who is asked.
    pub(super) authority: &'x str,
    /// Normalised path.
    pub(super) path: &'x str,
    /// Used where the request brings none.
    pub(super) request_id: &'x str,
    /// Quota cells this connection found before.
    pub(super) quota: &'x RefCell<QuotaMemo>,
    /// The client's next request, seen while it waited.
    pub(super) early: Cell<Option<Chunk>>,
}

impl<'x> Exchange<'x> {
    pub(super) fn has_early(&self) -> bool {
        let early = self.early.take();
        let has = early.is_some();
        self.early.set(early);
        has
    }

    fn view(&self, port: u16) -> RequestView<'_> {
        RequestView {
            method: self.request.method(),
            authority: self.authority,
            path: self.path,
            query: self.request.query(),
            headers: &self.request,
            port,
        }
    }

    /// Where the local app's request is meant to go, and whether it is a tunnel that begins here.
    fn target(&self) -> (Target, bool) {
        let (tables, original_dst) = (&self.active.tables, self.flow.original_dst);
        let authority = self.authority;
        if self.request.form() == TargetForm::Authority
            && let Tunnel::Here(target) = tables.resolve_tunnel(authority, original_dst)
        {
            return (target, true);
        }
        (tables.resolve_http(authority, original_dst), false)
    }

    /// The addresses of the endpoint of a try, where it has many.
    pub(super) fn among(&self, way: &Way<'_>) -> &[SocketAddr] {
        way.endpoint.map_or(&[], |(cluster, at)| {
            &self.active.tables.cluster(cluster).endpoints[at].among
        })
    }

    /// Whether it is a gRPC call.
    pub(super) fn is_grpc(&self) -> bool {
        matches!(self.client, Client::Http2(stream) if stream.is_grpc())
    }

    /// When a gRPC client stops waiting.
    fn grpc_deadline(&self) -> Mono {
        let timeout = self
            .is_grpc()
            .then(|| self.request.field(Known::GrpcTimeout));
        timeout
            .flatten()
            .and_then(grpc::timeout_ms)
            .map_or(Mono::NEVER, |ms| self.started.plus_ms(ms))
    }

    /// What the upstream is spoken to in: what its port declares, else what the client speaks. gRPC
    /// has no other way than HTTP/2, and tunnels none than HTTP/1.1, nor have upgrades to anything
    /// but WebSocket.
    fn speaks(&self, declared: Protocol) -> Speaks {
        let from_http2 = matches!(self.client, Client::Http2(_));
        let asks_for_other =
            self.request.upgrade().is_some() && !websocket::is_asked_for(&self.request);
        if asks_for_other || self.request.form() == TargetForm::Authority {
            return Speaks::Http1;
        }
        match declared {
            Protocol::Http2 | Protocol::Grpc => Speaks::Http2,
            Protocol::Http1 if !self.is_grpc() => Speaks::Http1,
            _ if from_http2 => Speaks::Http2,
            _ => Speaks::Http1,
        }
    }

    /// A request id is taken over as it came; the caller's sidecar made it.
    pub(super) fn id(&self) -> &str {
        let sent = self.request.field(Known::RequestId);
        sent.and_then(|id| std::str::from_utf8(id).ok())
            .unwrap_or(self.request_id)
    }
}

/// The parts of a connection that an exchange changes.
struct Moving<'m> {
    body: BodySource<'m>,
    response: &'m mut ResponseHead,
    response_body: &'m mut BodyDecoder,
    rewritten: &'m mut String,
    sleep: Pin<&'m mut Sleep>,
}

/// Carries out one exchange. `pending` holds what came behind the head, and afterwards what came
/// behind the body.
pub(super) async fn run(
    shard: &Rc<ShardState>,
    flow: &Flow,
    client: Client<'_>,
    request: Request<'_>,
    pending: &mut Chunk,
    tools: &mut Tools,
    sleep: Pin<&mut Sleep>,
) -> After {
    let _busy = shard.begin();
    let mut record = Record::new(shard.now());
    let Some(active) = shard.active() else {
        let answer = Answer::of(Reason::NoConfig);
        let after = answer::send(&shard.ring, client, &closing(answer), &mut record).await;
        note::headless(shard, flow, &record, note::transport(client));
        return after;
    };
    let fresh_id = request_id::fresh(shard.random(), shard.random());
    let path = path::normalise(request.path(), path::PathRules::default(), &mut tools.path);
    let x = Exchange {
        shard,
        active: &active,
        flow,
        client,
        request,
        started: record.started,
        authority: request.authority(),
        path,
        request_id: std::str::from_utf8(&fresh_id).unwrap_or_default(),
        quota: &tools.quota,
        early: Cell::new(None),
    };
    let framing = request.framing();
    let mut moving = Moving {
        body: BodySource::new(client.inflow(), pending, &mut tools.request_body, framing),
        response: &mut tools.response,
        response_body: &mut tools.response_body,
        rewritten: &mut tools.rewritten,
        sleep,
    };
    let end = match flow.direction {
        Direction::Outbound => outbound(&x, &mut moving, &mut record).await,
        Direction::Inbound { port } => inbound(&x, &mut moving, &mut record, port).await,
    };
    record.bytes_in += moving.body.bytes;
    let body_is_over = moving.body.is_over();
    let after = match end {
        End::Done(after) => after,
        End::Answer(answer) => {
            // Unread body: the next head cannot be found without reading all of it.
            // After a CONNECT may stand a tunnel's bytes, which are nobody's request.
            let keep = answer.keep_alive
                && body_is_over
                && request.keep_alive()
                && request.form() != TargetForm::Authority;
            let answer = Answer {
                keep_alive: keep && !client.must_close(shard, flow),
                head_only: request.method() == "HEAD",
                ..answer
            };
            answer::send(&shard.ring, client, &answer, &mut record).await
        }
        End::ClientGone => {
            record.status = 499;
            record.reason = Reason::ClientGone;
            After::Reset
        }
    };
    let early = x.early.take();
    note::http(&x, &record);
    if let Some(early) = early {
        *pending = early;
    }
    after
}

/// How an exchange ended, before an answer of our own is written.
enum End<'x> {
    Done(After),
    Answer(Answer<'x>),
    ClientGone,
}

impl End<'_> {
    fn of(reason: Reason) -> Self {
        Self::Answer(Answer::of(reason))
    }
}

async fn outbound<'x>(
    x: &'x Exchange<'x>,
    moving: &mut Moving<'_>,
    record: &mut Record,
) -> End<'x> {
    let tables = &*x.active.tables;
    let (target, opens_tunnel) = x.target();
    let destined = match target {
        Target::Known(destined) => destined,
        Target::Passthrough(address) if opens_tunnel => {
            let first = moving.body.take_more();
            let carried = Box::pin(tunnel::to_address(x, address, first, record)).await;
            return carried.map_or_else(End::of, End::Done);
        }
        Target::Passthrough(address) => return passthrough(x, moving, record, address).await,
        Target::Unknown => return End::of(Reason::UnknownDestination),
    };
    record.service = destined.service;
    let view = x.view(destined.port);
    let choose = if opens_tunnel {
        route::choose_tunnel
    } else {
        route::choose
    };
    let choice = match choose(tables, &destined, &view, x.shard.random()) {
        Ok(choice) => choice,
        Err(reason) => return End::of(reason),
    };
    record.route = Some(choice.index);
    if let Some(rule) = &choice.route.fault {
        let plan = fault::decide(rule, x.shard.random(), x.shard.random());
        if plan.delay_ms > 0 {
            record.delayed = true;
            moving
                .sleep
                .as_mut()
                .reset(x.shard.now().plus_ms(plan.delay_ms));
            moving.sleep.as_mut().await;
        }
        if let Some(with) = plan.abort {
            return aborted(with);
        }
    }
    match choice.decided {
        Decided::Forward { cluster, headers } => {
            let service = tables.cluster(cluster).service;
            record.cluster = Some(cluster);
            record.service = Some(service);
            let site = Site::Outbound(service);
            // External services have no sidecar of their own to judge the call.
            if tables.policy(site).is_some() {
                match judge(x, site, &view, x.flow.local, record) {
                    Ok(_permit) => {}
                    Err(answer) => return End::Answer(answer),
                }
            }
            if opens_tunnel {
                let first = moving.body.take_more();
                let carried = tunnel::to_cluster(x, destined.only, cluster, first, record);
                let carried = Box::pin(carried).await;
                return carried.map_or_else(End::of, End::Done);
            }
            let mut storage = [Edits::default(); 2];
            let request_edits = layers(
                &mut storage,
                [headers, choice.route.headers.as_deref()],
                Edits::request,
            );
            let mut storage = [Edits::default(); 2];
            let response_edits = layers(
                &mut storage,
                [headers, choice.route.headers.as_deref()],
                Edits::response,
            );
            let mut rewritten = std::mem::take(moving.rewritten);
            let new_path = route::rewrite::path(&choice, x.path);
            let path = match (new_path.head, new_path.tail) {
                (head, "") => head,
                (head, tail) => {
                    rewritten.clear();
                    rewritten.push_str(head);
                    rewritten.push_str(tail);
                    &rewritten
                }
            };
            let changes = Changes {
                path: Some(path),
                host: route::rewrite::authority(&choice),
                request: request_edits,
                response: response_edits,
            };
            let end = tries(x, moving, record, &destined, &choice, cluster, &changes).await;
            *moving.rewritten = rewritten;
            end
        }
        Decided::Redirect(redirect) => redirected(x, redirect, record).await,
        Decided::Respond { status, body } => End::Answer(Answer {
            status,
            body: [body, ""],
            ..Answer::of(Reason::None)
        }),
    }
}

/// The tries of one request, with the place in the retry budget that a repeated one holds from its
/// back-off to its end.
async fn tries<'x>(
    x: &'x Exchange<'x>,
    moving: &mut Moving<'_>,
    record: &mut Record,
    destined: &Destined,
    choice: &Choice<'_>,
    cluster: ClusterIndex,
    changes: &Changes<'_>,
) -> End<'x> {
    let held = Cell::new(None);
    let end = try_by_try(x, moving, record, destined, choice, cluster, changes, &held).await;
    if let Some(retrying) = held.take() {
        x.shard.balancer.borrow_mut().retried(retrying);
    }
    end
}

/// Pick, attempt, decide, again.
async fn try_by_try<'x>(
    x: &'x Exchange<'x>,
    moving: &mut Moving<'_>,
    record: &mut Record,
    destined: &Destined,
    choice: &Choice<'_>,
    cluster: ClusterIndex,
    changes: &Changes<'_>,
    held: &Cell<Option<Retrying>>,
) -> End<'x> {
    let shard = x.shard;
    let tables = &*x.active.tables;
    let row = tables.cluster(cluster);
    let rule = &choice.route.retry;
    // The route's timeout does not cover an injected delay (SEMANTICS 2.13).
    let begun = shard.now();
    let deadline = choice
        .route
        .timeout_ms
        .map_or(Mono::NEVER, |ms| begun.plus_ms(ms))
        .min(x.grpc_deadline());
    let mut state = RetryState::default();
    let mut tried = Tried::default();
    loop {
        record.tries += 1;
        let now = shard.now();
        let random = shard.random();
        let picked =
            shard
                .balancer
                .borrow_mut()
                .pick(tables, cluster, now, random, &tried, destined.only);
        let pick = match picked {
            // Another shard may have room. Boxed: the rare way takes no room in every exchange.
            Err(Reason::Overflow) if shard.borrowing.has_peers() => {
                let slot = shard.balancer.borrow_mut().slot(tables, cluster);
                Box::pin(borrow::take(shard, slot, Limit::Requests, |balancer| {
                    balancer.pick(tables, cluster, now, random, &tried, destined.only)
                }))
                .await
            }
            picked => picked,
        };
        let pick = match pick {
            Ok(pick) => pick,
            Err(reason) => return End::of(reason),
        };
        if rule.attempts > 0 {
            borrow::ahead(shard, pick.cluster, Limit::Retries);
        }
        let at = pick.endpoint;
        let endpoint = &row.endpoints[at];
        tried.push(endpoint.address);
        record.endpoint = Some(at);
        record.upstream = Some(endpoint.address);
        if endpoint.addresses().any(|at| shard.is_own(at)) {
            shard
                .balancer
                .borrow_mut()
                .finish(pick, Verdict::Neutral, now);
            return End::of(Reason::Loop);
        }
        let way = Way {
            link: endpoint.link,
            sni: &row.sni,
            pool: x.active.pool(cluster, at),
            lanes: x.active.lanes(cluster, at),
            endpoint: Some((cluster, at)),
            bound: row.limits_connecting().then_some(Bound {
                pick: &pick,
                cluster: &row.key,
                counts: row.limits_connections(),
            }),
            connect_timeout_ms: row.policy.connect_timeout_ms,
            exchanges_max: row.policy.limits.requests_per_connection_max,
            speaks: x.speaks(row.port.protocol),
            fresh: state.raced(),
        };
        let try_deadline = match rule.per_try_timeout_ms {
            0 => Mono::NEVER,
            ms => now.plus_ms(ms),
        };
        let idempotent = retry::is_idempotent(x.request.method());
        let mut backoff = 0;
        let mut next_state = state;
        let end = attempt::attempt(
            x,
            &way,
            changes,
            &mut moving.body,
            moving.response,
            moving.response_body,
            record,
            moving.sleep.as_mut(),
            deadline,
            try_deadline,
            |status, grpc_status| {
                let outcome = TryOutcome::Answer {
                    status,
                    grpc_status,
                };
                let facts = TryFacts {
                    idempotent,
                    sent: true,
                    // Asked only when the whole body was sent; what was kept of it is whole then
                    // or was given up.
                    replayable: true,
                    response_begun: false,
                    remaining_ms: remaining_ms(deadline, shard.now()),
                    retry_non_idempotent: tables.mesh.retry_non_idempotent,
                };
                match next_state.next(rule, outcome, &facts, shard.random()) {
                    // Without a place in the budget the answer stands as it came.
                    Next::Retry { backoff_ms } if may_retry(x, cluster, held) => {
                        backoff = backoff_ms;
                        true
                    }
                    Next::Retry { .. } | Next::GiveUp => false,
                }
            },
        )
        .await;
        let verdict = match &end {
            TryEnd::Finished(_, verdict) | TryEnd::Hopeless(_, verdict) => *verdict,
            TryEnd::Unwanted(status) => Verdict::Answer(*status),
            TryEnd::Failed(..) => Verdict::LocalFailure,
            TryEnd::ClientGone => Verdict::Neutral,
        };
        shard
            .balancer
            .borrow_mut()
            .finish(pick, verdict, shard.now());
        let (outcome, reason) = match end {
            TryEnd::Finished(after, _) => return End::Done(after),
            TryEnd::Hopeless(reason, _) => return End::of(reason),
            TryEnd::ClientGone => return End::ClientGone,
            TryEnd::Unwanted(_) if moving.body.is_replayable() => {
                state = next_state;
                back_off(x, moving, backoff).await;
                continue;
            }
            TryEnd::Unwanted(_) => return End::of(Reason::BadResponse),
            TryEnd::Failed(outcome, reason) => (outcome, reason),
        };
        let facts = TryFacts {
            idempotent,
            sent: !matches!(outcome, TryOutcome::ConnectFailure | TryOutcome::Refused),
            replayable: moving.body.is_replayable(),
            response_begun: false,
            remaining_ms: remaining_ms(deadline, shard.now()),
            retry_non_idempotent: tables.mesh.retry_non_idempotent,
        };
        if facts.remaining_ms == Some(0) {
            return End::of(Reason::Timeout);
        }
        match state.next(rule, outcome, &facts, shard.random()) {
            Next::Retry { backoff_ms } if may_retry(x, cluster, held) => {
                back_off(x, moving, backoff_ms).await;
            }
            Next::Retry { .. } | Next::GiveUp => return End::of(reason),
        }
    }
}

/// Takes a place in the retry budget, after giving back the one of the retry before. False: the
/// budget is used up.
fn may_retry(x: &Exchange<'_>, cluster: ClusterIndex, held: &Cell<Option<Retrying>>) -> bool {
    let mut balancer = x.shard.balancer.borrow_mut();
    if let Some(over) = held.take() {
        balancer.retried(over);
    }
    let taken = balancer.retry(&x.active.tables, cluster).ok();
    let may = taken.is_some();
    held.set(taken);
    if may {
        x.shard.meter().count(Event::Retried);
    }
    may
}

async fn back_off(x: &Exchange<'_>, moving: &mut Moving<'_>, backoff_ms: u64) {
    if backoff_ms > 0 {
        moving
            .sleep
            .as_mut()
            .reset(x.shard.now().plus_ms(backoff_ms));
        moving.sleep.as_mut().await;
    }
}

fn remaining_ms(deadline: Mono, now: Mono) -> Option<u64> {
    (deadline != Mono::NEVER)
        .then(|| u64::try_from(deadline.since(now).as_millis()).unwrap_or(u64::MAX))
}

/// To the local app, with a permit.
async fn inbound<'x>(
    x: &'x Exchange<'x>,
    moving: &mut Moving<'_>,
    record: &mut Record,
    port: usize,
) -> End<'x> {
    let tables = &*x.active.tables;
    let Some(row) = tables.workload.ports.get(port) else {
        return End::of(Reason::NoRoute);
    };
    record.service = tables.service_by_id(&tables.workload.service);
    let view = x.view(row.number);
    match judge(x, Site::Inbound, &view, row.app, record) {
        Ok(permit) => to_app(x, moving, record, &permit, port, row).await,
        Err(answer) => End::Answer(answer),
    }
}

/// The way to the app asks for a permit, and only `policy::check` makes one.
async fn to_app<'x>(
    x: &'x Exchange<'x>,
    moving: &mut Moving<'_>,
    record: &mut Record,
    _permit: &Permit,
    port: usize,
    row: &WorkloadPort,
) -> End<'x> {
    let (app, protocol) = (row.app, row.protocol);
    if x.shard.is_own(app) {
        return End::of(Reason::Loop);
    }
    let way = Way {
        link: Link::Plain(app),
        sni: "",
        pool: x.active.app_pool(port),
        lanes: None,
        endpoint: None,
        bound: None,
        connect_timeout_ms: APP_CONNECT_TIMEOUT_MS,
        exchanges_max: u32::MAX,
        speaks: x.speaks(protocol),
        fresh: false,
    };
    once(x, moving, record, &way).await
}

/// The app is on this host: it accepts at once or not at all.
const APP_CONNECT_TIMEOUT_MS: u64 = 1_000;
/// Unknown destinations get Envoy's default.
const PASSTHROUGH_CONNECT_TIMEOUT_MS: u64 = 10_000;

/// To where the app dialled, as it is.
async fn passthrough<'x>(
    x: &'x Exchange<'x>,
    moving: &mut Moving<'_>,
    record: &mut Record,
    address: SocketAddr,
) -> End<'x> {
    if x.shard.is_own(address) {
        return End::of(Reason::Loop);
    }
    record.passthrough = true;
    let way = Way {
        link: Link::Plain(address),
        sni: "",
        pool: None,
        lanes: None,
        endpoint: None,
        bound: None,
        connect_timeout_ms: PASSTHROUGH_CONNECT_TIMEOUT_MS,
        exchanges_max: 1,
        speaks: x.speaks(Protocol::Auto),
        fresh: false,
    };
    once(x, moving, record, &way).await
}

/// A way without routing rules: no timeout, and no retry but the one for a pooled connection that
/// the server was just closing.
async fn once<'x>(
    x: &'x Exchange<'x>,
    moving: &mut Moving<'_>,
    record: &mut Record,
    way: &Way<'_>,
) -> End<'x> {
    /// A server that did not process a request may be asked again (RFC 9113 section 8.7).
    const NO_RETRIES: Retry = Retry {
        attempts: 1,
        per_try_timeout_ms: 0,
        on: ringmesh_wire::snapshot::RetryOn {
            connect_failure: false,
            refused_stream: true,
            reset: false,
            try_timeout: false,
            server_error: false,
            gateway_error: false,
            retriable_4xx: false,
            statuses: Vec::new(),
            grpc: Vec::new(),
        },
    };
    let changes = Changes {
        path: Some(x.path),
        host: None,
        request: &[],
        response: &[],
    };
    let deadline = x.grpc_deadline();
    if deadline != Mono::NEVER && deadline <= x.shard.now() {
        return End::of(Reason::Timeout);
    }
    let mut state = RetryState::default();
    loop {
        record.tries += 1;
        let way = Way {
            fresh: state.raced(),
            ..*way
        };
        let end = attempt::attempt(
            x,
            &way,
            &changes,
            &mut moving.body,
            moving.response,
            moving.response_body,
            record,
            moving.sleep.as_mut(),
            deadline,
            Mono::NEVER,
            |_, _| false,
        )
        .await;
        let (outcome, reason) = match end {
            TryEnd::Finished(after, _) => return End::Done(after),
            TryEnd::Hopeless(reason, _) => return End::of(reason),
            TryEnd::ClientGone => return End::ClientGone,
            TryEnd::Unwanted(_) => return End::of(Reason::BadResponse),
            TryEnd::Failed(outcome, reason) => (outcome, reason),
        };
        let facts = TryFacts {
            idempotent: retry::is_idempotent(x.request.method()),
            sent: !matches!(outcome, TryOutcome::ConnectFailure | TryOutcome::Refused),
            replayable: moving.body.is_replayable(),
            response_begun: false,
            remaining_ms: remaining_ms(deadline, x.shard.now()),
            retry_non_idempotent: false,
        };
        match state.next(&NO_RETRIES, outcome, &facts, x.shard.random()) {
            Next::Retry { .. } => {}
            Next::GiveUp => return End::of(reason),
        }
    }
}

/// Asks the policy room.
fn judge<'x>(
    x: &'x Exchange<'x>,
    site: Site,
    view: &RequestView<'_>,
    destination: SocketAddr,
    record: &mut Record,
) -> Result<Permit, Answer<'x>> {
    let call = Call {
        site,
        peer: &x.flow.peer,
        request: Some(view),
        destination,
    };
    let tables = &*x.active.tables;
    let now = x.shard.now();
    let judged = {
        let mut quota = quota::OfConnection {
            cells: &mut x.shard.quota.borrow_mut(),
            memo: &mut x.quota.borrow_mut(),
            site,
        };
        policy::check(tables, &call, &mut quota, now)
    };
    x.shard.tell_quota();
    let notes = judged
        .as_ref()
        .map_or_else(|refusal| refusal.notes, Permit::notes);
    record.audited = notes.audited;
    x.shard.count_judged(notes);
    judged.map_err(|refusal| {
        record.policy = Some(refusal.policy.into());
        Answer {
            status: refusal.status,
            body: [refusal.body, ""],
            grpc_status: Some(refusal.grpc_status),
            ..Answer::of(refusal.reason)
        }
    })
}

fn aborted<'x>(with: AbortWith) -> End<'x> {
    let answer = Answer::of(Reason::FaultAbort);
    match with {
        AbortWith::Http(status) => End::Answer(Answer { status, ..answer }),
        // Told in HTTP/1.1 as the status the mesh itself uses for it.
        AbortWith::Grpc(code) => End::Answer(Answer {
            status: crate::tables::of_grpc(code).0,
            grpc_status: Some(code),
            ..answer
        }),
    }
}

async fn redirected<'x>(x: &Exchange<'x>, redirect: &Redirect, record: &mut Record) -> End<'x> {
    let authority = redirect.authority.as_deref().unwrap_or(x.authority);
    let scheme = redirect.scheme.as_deref().unwrap_or("http");
    let path = redirect.uri.as_deref().unwrap_or(x.path);
    let query = x
        .request
        .query()
        .map(|query| format!("?{query}"))
        .unwrap_or_default();
    let location = format!("{scheme}://{authority}{path}{query}");
    let keep_alive = x.request.keep_alive() && x.request.framing().is_empty();
    let answer = Answer {
        status: redirect.status,
        keep_alive,
        head_only: x.request.method() == "HEAD",
        fields: &[("location", &location)],
        ..Answer::of(Reason::None)
    };
    End::Done(answer::send(&x.shard.ring, x.client, &answer, record).await)
}

/// The layers of header changes that there are, most specific first.
fn layers<'a>(
    storage: &'a mut [Edits<'a>; 2],
    ops: [Option<&'a ringmesh_wire::snapshot::HeaderOps>; 2],
    half: impl Fn(&'a ringmesh_wire::snapshot::HeaderOps) -> Edits<'a>,
) -> &'a [Edits<'a>] {
    let mut count = 0;
    for ops in ops.into_iter().flatten() {
        storage[count] = half(ops);
        count += 1;
    }
    &storage[..count]
}

fn closing(answer: Answer<'_>) -> Answer<'_> {
    Answer {
        keep_alive: false,
        ..answer
    }
}
