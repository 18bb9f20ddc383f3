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

use ringmesh_wire::snapshot::{AbortWith, Protocol, Redirect};

use super::attempt::{Changes, Speaks, Way};
use super::body::BodySource;
use super::context::Exchange;
use super::flow::{Direction, Flow};
use super::last_target::LastTarget;
use super::patience::Patience;
use super::progress::Progress;
use super::record::Record;
use super::sides::Client;
use super::state::ShardState;
use super::{answer, note, request_id, tries, tunnel};
use crate::http1::{Answer, BodyDecoder, Edits, Request, ResponseHead, TargetForm, Version, path};
use crate::http2::grpc;
use crate::policy::quota::{self, QuotaMemo};
use crate::policy::{self, Call, Permit};
use crate::reason::Reason;
use crate::ring::{Chunk, Sleep};
use crate::route::fault;
use crate::route::{self, Decided};
use crate::tables::{Link, Site, Target, WorkloadPort};
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
    last_target: RefCell<LastTarget>,
}

/// The parts of a connection that an exchange changes.
pub(super) struct Moving<'m> {
    pub(super) body: BodySource<'m>,
    pub(super) response: &'m mut ResponseHead,
    pub(super) response_body: &'m mut BodyDecoder,
    pub(super) rewritten: &'m mut String,
    pub(super) sleep: Pin<&'m mut Sleep>,
}

impl Moving<'_> {
    /// Lets that much time go by; `None` if the client gives up meanwhile.
    pub(super) async fn pause(&mut self, x: &Exchange<'_>, ms: u64) -> Option<()> {
        self.sleep.as_mut().reset(x.shard.now().plus_ms(ms));
        let patience = Patience::of(x, &self.body);
        patience.outlasts(self.sleep.as_mut()).await
    }
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
        let after = answer::send(shard, client, &closing(answer), &mut record).await;
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
        last_target: &tools.last_target,
        early: Cell::new(None),
        progress: Progress::new(shard),
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
            let keep = answer.keep_alive && body_is_over && may_stay(&request);
            let answer = Answer {
                keep_alive: keep && !client.must_close(shard, flow),
                head_only: request.method() == "HEAD",
                ..answer
            };
            answer::send(shard, client, &answer, &mut record).await
        }
        End::ClientGone => {
            record.status = 499;
            record.reason = Reason::ClientGone;
            record.grpc_status = x.is_grpc().then_some(grpc::CANCELLED);
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
pub(super) enum End<'x> {
    Done(After),
    Answer(Answer<'x>),
    ClientGone,
}

impl End<'_> {
    pub(super) fn of(reason: Reason) -> Self {
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
            // Rare: boxed, so that it takes no room in every exchange.
            if Box::pin(moving.pause(x, plan.delay_ms)).await.is_none() {
                return End::ClientGone;
            }
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
                let only = destined.only_in(tables.cluster(cluster));
                let carried = tunnel::to_cluster(x, only, cluster, first, record);
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
            let end =
                tries::by_rule(x, moving, record, &destined, &choice, cluster, &changes).await;
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
    let link = x.shard.app_link(x.flow, row.app);
    match judge(x, Site::Inbound, &view, link.address(), record) {
        Ok(permit) => to_app(x, moving, record, &permit, port, row, link).await,
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
    link: Link,
) -> End<'x> {
    let speaks = x.speaks(row.protocol);
    if x.shard.is_own(link.address()) {
        return End::of(Reason::Loop);
    }
    let way = Way {
        link,
        sni: "",
        // HTTP/2 connections are found by the link.
        pool: match speaks {
            Speaks::Http1 => x.shard.app_pool(x.active, port, link),
            Speaks::Http2 => None,
        },
        lanes: None,
        endpoint: None,
        bound: None,
        connect_timeout_ms: APP_CONNECT_TIMEOUT_MS,
        exchanges_max: u32::MAX,
        speaks,
        fresh: false,
    };
    tries::once(x, moving, record, &way).await
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
    tries::once(x, moving, record, &way).await
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
    let keep_alive = may_stay(&x.request)
        && x.request.framing().is_empty()
        && !x.client.must_close(x.shard, x.flow);
    let answer = Answer {
        status: redirect.status,
        keep_alive,
        head_only: x.request.method() == "HEAD",
        fields: &[("location", &location)],
        ..Answer::of(Reason::None)
    };
    End::Done(answer::send(x.shard, x.client, &answer, record).await)
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

/// Whether a connection may go on behind an answer of our own to this request. Behind a CONNECT without success
/// may lie a tunnel's bytes, which are nobody's request. A client of HTTP/1.0 waits for the end unless it is
/// told otherwise, which answers of our own do not.
fn may_stay(request: &Request<'_>) -> bool {
    request.keep_alive()
        && request.version() == Version::Http11
        && request.form() != TargetForm::Authority
}

fn closing(answer: Answer<'_>) -> Answer<'_> {
    Answer {
        keep_alive: false,
        ..answer
    }
}
