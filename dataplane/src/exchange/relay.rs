//! An opaque connection: pick an endpoint (or the app), then bytes both ways. One `Outcome` each.

use std::net::SocketAddr;
use std::rc::Rc;

use super::acquire::{self, Bound};
use super::borrow;
use super::flow::{Direction, Flow};
use super::note::{self, Names};
use super::record::Record;
use super::state::{Active, ShardState};
use crate::balance::{Limit, Tried, Verdict};
use crate::opaque;
use crate::policy::{self, Call};
use crate::reason::Reason;
use crate::ring::{ByteStream, Chunk};
use crate::route;
use crate::tables::{ClusterIndex, Destined, Link, Site, TcpTarget};
use crate::telemetry::Event;
use crate::tls::{Inner, Standing};
use crate::upstream::{Dial, Lane, Stream, connect};

/// Connecting is tried at this many endpoints: nothing was sent, so nothing can happen twice.
const TRIES_MAX: u32 = 3;
/// Where no cluster says otherwise, milliseconds.
const CONNECT_TIMEOUT_MS: u64 = 10_000;

/// Carries a connection of the local app. Where it goes is resolved here and now: what was known
/// before the first bytes came may be of an older configuration.
pub async fn outbound(shard: &Rc<ShardState>, flow: &Flow, downstream: &Stream, first: Chunk) {
    let mut record = Record::new(shard.now());
    let (connected, names) = match shard.active() {
        None => (Err(Reason::NoConfig), None),
        Some(active) => {
            let connected = to_target(shard, &active, flow, &mut record).await;
            let names = Names::of(&active.tables, flow, &record);
            (connected, Some(names))
        }
    };
    let none = Chunk::empty();
    carry(
        shard, flow, downstream, connected, first, none, record, names,
    )
    .await;
}

/// Carries a connection to the local app.
pub async fn inbound(shard: &Rc<ShardState>, flow: &Flow, downstream: &Stream, first: Chunk) {
    let mut record = Record::new(shard.now());
    let (connected, names) = match shard.active() {
        None => (Err(Reason::NoConfig), None),
        Some(active) => {
            let connected = to_app(shard, &active, flow, &mut record).await;
            let names = Names::of(&active.tables, flow, &record);
            (connected, Some(names))
        }
    };
    let none = Chunk::empty();
    carry(
        shard, flow, downstream, connected, first, none, record, names,
    )
    .await;
}

/// Why a relay ended, where that was not one of its sides' own will.
pub(super) fn why_ended(
    shard: &ShardState,
    flow: &Flow,
    relayed: &opaque::Relayed,
    downstream: &Stream,
    upstream: &Stream,
) -> Option<Reason> {
    let revoked = |stream: &Stream| shard.standing(stream) == Standing::Revoked;
    if relayed.over {
        Some(Reason::SvidExpired)
    } else if relayed.idle {
        Some(Reason::IdleTimeout)
    } else if relayed.reset {
        let upstream = revoked(upstream).then_some(Reason::PeerRefused);
        shard.refuses(flow, downstream).or(upstream)
    } else {
        None
    }
}

async fn to_target(
    shard: &Rc<ShardState>,
    active: &Active,
    flow: &Flow,
    record: &mut Record,
) -> Result<Lane, Reason> {
    match active.tables.resolve_tcp(flow.original_dst) {
        TcpTarget::Known(destined) => to_cluster(shard, active, flow, &destined, record).await,
        TcpTarget::Passthrough(address) => to_link(shard, Link::Plain(address), record).await,
        TcpTarget::Unknown => Err(Reason::UnknownDestination),
    }
}

/// Both ways until both are over. `first` came from downstream before, `greeting` from upstream.
/// `names` stands for the tables, which a connection that lives for days must not keep.
pub(super) async fn carry(
    shard: &Rc<ShardState>,
    flow: &Flow,
    downstream: &Stream,
    connected: Result<Lane, Reason>,
    first: Chunk,
    greeting: Chunk,
    mut record: Record,
    names: Option<Names>,
) {
    let _busy = shard.begin();
    match connected {
        Ok(upstream) => {
            record.upstream_tls = upstream.stream.identity().is_some();
            let options = opaque::RelayOptions {
                idle_timeout_ms: shard.limits.tcp_idle_timeout_ms,
                over_at: downstream.over_at().min(upstream.stream.over_at()),
            };
            let relayed = opaque::relay(
                &shard.ring,
                downstream,
                &upstream.stream,
                first,
                greeting,
                &options,
            )
            .await;
            record.bytes_in = relayed.forth;
            record.bytes_out = relayed.back;
            if let Some(reason) = why_ended(shard, flow, &relayed, downstream, &upstream.stream) {
                record.reason = reason;
            }
        }
        Err(reason) => {
            record.reason = reason;
            downstream.reset();
        }
    }
    note::opaque(shard, flow, &record, names.as_ref());
}

/// Connects to what is not the mesh's.
pub(super) async fn to_link(
    shard: &ShardState,
    link: Link,
    record: &mut Record,
) -> Result<Lane, Reason> {
    record.upstream = Some(link.address());
    dial_plain(shard, link).await
}

async fn to_cluster(
    shard: &Rc<ShardState>,
    active: &Active,
    flow: &Flow,
    destined: &Destined,
    record: &mut Record,
) -> Result<Lane, Reason> {
    let tables = &*active.tables;
    let cluster = route::choose_tcp(tables, destined, shard.random())?.cluster;
    let row = tables.cluster(cluster);
    record.cluster = Some(cluster);
    record.service = Some(row.service);
    let site = Site::Outbound(row.service);
    if tables.policy(site).is_some() {
        let _permit = judge(shard, active, flow, site, flow.local, record)?;
    }
    let only = destined.only_in(tables.cluster(cluster));
    to_endpoint(shard, active, cluster, only, Inner::Tcp, record).await
}

/// Connects to an endpoint of a cluster: to another if the first does not answer. `inner` is what a
/// sidecar there is told to expect.
pub(super) async fn to_endpoint(
    shard: &Rc<ShardState>,
    active: &Active,
    cluster: ClusterIndex,
    only: Option<SocketAddr>,
    inner: Inner,
    record: &mut Record,
) -> Result<Lane, Reason> {
    let tables = &*active.tables;
    let row = tables.cluster(cluster);
    let mut tried = Tried::default();
    loop {
        record.tries += 1;
        let now = shard.now();
        let random = shard.random();
        let slot = shard.balancer.borrow_mut().slot(tables, cluster);
        let pick = borrow::take(shard, slot, Limit::Requests, |balancer| {
            balancer.pick(tables, cluster, now, random, &tried, only)
        })
        .await?;
        let at = pick.endpoint;
        let endpoint = &row.endpoints[at];
        tried.push(endpoint.address);
        record.endpoint = Some(at);
        record.upstream = Some(endpoint.address);
        let may_be = |shown: &_| tables.server_may_be(cluster, endpoint, shown);
        let timeout_ms = row.policy.connect_timeout_ms;
        let bound = Bound {
            pick: &pick,
            cluster: &row.key,
            counts: row.limits_connections(),
        };
        let opened = match bound.counts {
            true => match acquire::open_once(shard, bound).await {
                Ok(opened) => Some(opened),
                Err(reason) => {
                    let mut balancer = shard.balancer.borrow_mut();
                    balancer.finish(pick, Verdict::Neutral, shard.now());
                    return Err(reason);
                }
            },
            false => None,
        };
        let connected = dial(
            shard,
            endpoint.link,
            &endpoint.among,
            &row.sni,
            inner,
            timeout_ms,
            may_be,
        )
        .await
        .map(|stream| Lane::fresh(stream, None, opened));
        let verdict = match &connected {
            Ok(_) => Verdict::Answer(200),
            // Our own doing is no fault of the endpoint.
            Err(Reason::SvidExpired) => Verdict::Neutral,
            Err(_) => Verdict::LocalFailure,
        };
        shard
            .balancer
            .borrow_mut()
            .finish(pick, verdict, shard.now());
        match connected {
            Err(_) if record.tries < TRIES_MAX && only.is_none() => {}
            connected => return connected,
        }
    }
}

async fn to_app(
    shard: &Rc<ShardState>,
    active: &Active,
    flow: &Flow,
    record: &mut Record,
) -> Result<Lane, Reason> {
    let tables = &*active.tables;
    let Direction::Inbound { port } = flow.direction else {
        return Err(Reason::NoRoute);
    };
    let row = tables.workload.ports.get(port).ok_or(Reason::NoRoute)?;
    record.service = tables.service_by_id(&tables.workload.service);
    let link = shard.app_link(flow, row.app);
    let permit = judge(shard, active, flow, Site::Inbound, link.address(), record)?;
    record.upstream = Some(link.address());
    dial_app(shard, link, &permit).await
}

/// The way to the app asks for a permit, and only `policy::check` makes one.
async fn dial_app(
    shard: &ShardState,
    link: Link,
    _permit: &policy::Permit,
) -> Result<Lane, Reason> {
    dial_plain(shard, link).await
}

async fn dial_plain(shard: &ShardState, link: Link) -> Result<Lane, Reason> {
    let stream = dial(shard, link, &[], "", Inner::Tcp, CONNECT_TIMEOUT_MS, |_| {
        true
    })
    .await?;
    Ok(Lane::fresh(stream, None, None))
}

pub(super) fn judge(
    shard: &Rc<ShardState>,
    active: &Active,
    flow: &Flow,
    site: Site,
    destination: SocketAddr,
    record: &mut Record,
) -> Result<policy::Permit, Reason> {
    let call = Call {
        site,
        peer: &flow.peer,
        request: None,
        destination,
    };
    let mut quota = shard.quota.borrow_mut();
    let judged = policy::check(&active.tables, &call, &mut *quota, shard.now());
    drop(quota);
    shard.tell_quota();
    let notes = judged
        .as_ref()
        .map_or_else(|refusal| refusal.notes, policy::Permit::notes);
    record.audited = notes.audited;
    record.audit_policy = notes
        .audited
        .map(|audited| audited.policy(&active.tables).into());
    shard.count_judged(notes);
    judged.map_err(|refusal| {
        record.policy = Some(refusal.policy.into());
        refusal.reason
    })
}

async fn dial(
    shard: &ShardState,
    link: Link,
    among: &[SocketAddr],
    sni: &str,
    inner: Inner,
    timeout_ms: u64,
    may_be: impl Fn(&ringmesh_wire::SpiffeId) -> bool,
) -> Result<Stream, Reason> {
    if shard.is_own(link.address()) || among.iter().any(|at| shard.is_own(*at)) {
        return Err(Reason::Loop);
    }
    let dial = Dial {
        link,
        among,
        sni,
        alpn: inner,
        material: shard.material(),
        sessions: &shard.sessions,
        live: &shard.live,
        speaks_at_once: false,
        deadline: shard.now().plus_ms(timeout_ms),
    };
    let connected = connect(&shard.ring, dial, may_be).await;
    if connected.is_ok() {
        shard.meter().count(Event::UpstreamOpened);
    }
    connected.map_err(|fault| fault.reason)
}
