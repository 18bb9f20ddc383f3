//! A lane for one try: an idle one, or a new connection where the cluster's limits have room.

use std::pin::pin;

use super::acquire_lane::{Laned, open_lane};
use super::attempt::Way;
use super::borrow;
use super::context::Exchange;
use super::patience::Patience;
use super::state::ShardState;
use crate::balance::{Limit, Pick};
use crate::http1::Framing;
use crate::lanes::WINDOW_BYTES;
use crate::reason::Reason;
use crate::route::retry;
use crate::tables::ClusterKey;
use crate::telemetry::Event as Counted;
use crate::time::Mono;
use crate::tls::{self, Standing};
use crate::upstream::{Dial, Lane, Opened, PoolId, Want, connect};
use crate::wait;

/// How often the first in line asks the other shards again, milliseconds.
const ASK_AGAIN_MS: u64 = 5;
/// No request waits longer for a connection, milliseconds, even without a timeout of its route.
const WAIT_MAX_MS: u64 = 60_000;

/// Why there is no lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoLane {
    /// The endpoint could not be reached.
    Unreached(Reason),
    /// Our own limits, or an upgrade the endpoint does not do: says nothing of its health, and trying
    /// again would add load.
    NoRoom(Reason),
    /// The client did not wait for it.
    ClientGone,
}

/// The cluster whose limits bind a try.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bound<'w> {
    pub(super) pick: &'w Pick,
    pub(super) cluster: &'w ClusterKey,
    /// Connections are limited, and not only how many requests wait for one.
    pub(super) counts: bool,
}

/// What kind of connection will do for this request.
fn want(x: &Exchange<'_>, way: &Way<'_>) -> Want {
    if way.fresh {
        Want::Fresh
    } else if retry::is_idempotent(x.request.method()) && x.request.framing().is_empty() {
        Want::Any
    } else {
        Want::Careful
    }
}

/// Gets a lane, at `deadline` at the latest, and only if the client waits in line as long.
pub(super) async fn acquire(
    x: &Exchange<'_>,
    way: &Way<'_>,
    patience: Patience<'_>,
    deadline: Mono,
) -> Result<Lane, NoLane> {
    let shares = shares(x, way);
    let Some(bound) = way.bound else {
        return match idle(x, way, shares) {
            Some(lane) => Ok(lane),
            None => Box::pin(new(x, way, shares, None, deadline)).await,
        };
    };
    let slot = bound.pick.cluster;
    // Who waits goes first.
    if x.shard.lines.is_empty(slot)
        && let Some(lane) = idle(x, way, shares)
    {
        return Ok(lane);
    }
    // The rare way: boxed, so that it takes no room in every exchange.
    Box::pin(in_line(x, way, shares, bound, patience, deadline)).await
}

/// Waits for an idle lane or for room to make one.
async fn in_line(
    x: &Exchange<'_>,
    way: &Way<'_>,
    shares: bool,
    bound: Bound<'_>,
    patience: Patience<'_>,
    deadline: Mono,
) -> Result<Lane, NoLane> {
    let (shard, slot) = (x.shard, bound.pick.cluster);
    let waiting = borrow::take(shard, slot, Limit::Pending, |b| b.wait(bound.pick)).await;
    let waiting = waiting.map_err(NoLane::NoRoom)?;
    let look = || idle(x, way, shares);
    let found = room(shard, bound, deadline, || true, look);
    let lane = match patience.outlasts(found).await {
        Some(Ok(Room::Found(lane))) => Ok(lane),
        Some(Ok(Room::Connect(opened))) => new(x, way, shares, Some(opened), deadline).await,
        Some(Err(reason)) => Err(NoLane::NoRoom(reason)),
        None => Err(NoLane::ClientGone),
    };
    shard.balancer.borrow_mut().waited(waiting);
    lane
}

/// What [`room`] came to.
pub(super) enum Room<T> {
    /// What was looked for.
    Found(T),
    /// One more connection may be made.
    Connect(Opened),
}

/// Waits in the line of a cluster until `look` finds something or there is room for one more connection.
/// `may_retire`: where all connections are in use, an HTTP/2 connection is to take no more streams, since
/// it would hardly ever be idle.
pub(super) async fn room<T>(
    shard: &ShardState,
    bound: Bound<'_>,
    deadline: Mono,
    may_retire: impl Fn() -> bool,
    mut look: impl FnMut() -> Option<T>,
) -> Result<Room<T>, Reason> {
    let end = deadline.min(shard.now().plus_ms(WAIT_MAX_MS));
    let ticket = shard.lines.join(bound.pick.cluster, shard.now());
    let mut sleep = pin!(shard.ring.sleep_until(end));
    loop {
        let mut next_look = end;
        if ticket.is_first() {
            if let Some(found) = look() {
                return Ok(Room::Found(found));
            }
            if let Some(opened) = open(shard, bound, &may_retire).await {
                return Ok(Room::Connect(opened));
            }
            if shard.borrowing.has_peers() {
                next_look = end.min(shard.now().plus_ms(ASK_AGAIN_MS));
            }
        }
        if shard.now() >= end {
            return Err(match end == deadline {
                true => Reason::Timeout,
                false => Reason::Overflow,
            });
        }
        sleep.as_mut().reset(next_look);
        let _ = wait::or_timeout(ticket.called(), sleep.as_mut()).await;
    }
}

/// Room for one more connection of a cluster: here, in place of an idle one, or of another shard.
async fn open(
    shard: &ShardState,
    bound: Bound<'_>,
    may_retire: impl Fn() -> bool,
) -> Option<Opened> {
    let slot = bound.pick.cluster;
    shard.note_closed();
    let is_short = (shard.balancer.borrow_mut()).is_short(slot, Limit::Connections);
    if is_short && !shard.evict(bound.cluster) && may_retire() {
        shard.retire(bound.cluster);
    }
    borrow::give_way(shard, slot);
    let open = borrow::take(shard, slot, Limit::Connections, |balancer| {
        balancer.open(bound.pick, shard.lines.since(slot), shard.now())
    });
    let open = open.await;
    open.ok().map(|open| shard.lines.opened(open))
}

/// Room for a connection that is used once, or none.
pub(super) async fn open_once(shard: &ShardState, bound: Bound<'_>) -> Result<Opened, Reason> {
    open(shard, bound, || false).await.ok_or(Reason::Overflow)
}

/// Whether the request goes on a lane of a trunk, where the endpoint has them. What is long or lasts (a
/// body larger than a lane's window, what an upgrade leads to) goes its own way.
fn shares(x: &Exchange<'_>, way: &Way<'_>) -> bool {
    let (Some(own), Some(lanes)) = (way.pool, way.lanes) else {
        return false;
    };
    let is_large = match x.request.framing() {
        Framing::Length(len) => len > u64::from(WINDOW_BYTES),
        Framing::None | Framing::Chunked | Framing::UntilClose => false,
    };
    let shares = x.shard.pools.borrow_mut().shares(own, lanes, x.shard.now());
    shares && !is_large && x.request.upgrade().is_none()
}

/// An idle lane whose server may still serve this request. Of the kind that is wanted; a connection is
/// not made where a lane lies idle.
fn idle(x: &Exchange<'_>, way: &Way<'_>, shares: bool) -> Option<Lane> {
    match (shares, way.lanes) {
        (true, Some(lanes)) => idle_of(x, way, lanes),
        (false, Some(lanes)) => idle_of(x, way, way.pool?).or_else(|| idle_of(x, way, lanes)),
        (_, None) => idle_of(x, way, way.pool?),
    }
}

fn idle_of(x: &Exchange<'_>, way: &Way<'_>, pool: PoolId) -> Option<Lane> {
    let mut pools = x.shard.pools.borrow_mut();
    let lane = pools.lend(pool, want(x, way), x.shard.now())?;
    let may_serve = match (way.endpoint, lane.identity()) {
        (Some((cluster, endpoint)), Some(shown)) => {
            let row = &x.active.tables.cluster(cluster).endpoints[endpoint];
            x.active.tables.server_may_be(cluster, row, shown)
        }
        _ => true,
    };
    if may_serve && x.shard.standing(&lane.stream) == Standing::Good {
        return Some(lane);
    }
    // The configuration has changed under the idle connection, or its certificates' time is over.
    pools.lost(pool);
    None
}

/// A new lane, of a trunk or as a connection of its own.
async fn new(
    x: &Exchange<'_>,
    way: &Way<'_>,
    shares: bool,
    opened: Option<Opened>,
    deadline: Mono,
) -> Result<Lane, NoLane> {
    let deadline = deadline.min(x.shard.now().plus_ms(way.connect_timeout_ms));
    if !shares {
        return dial(x, way, opened, deadline).await;
    }
    let begun = Begun::new(x.shard, way.lanes);
    match open_lane(x, way, deadline).await? {
        Laned::Lane { stream, joined } => {
            begun.done();
            let lane = Lane::fresh(stream, way.lanes, opened);
            Ok(Lane { joined, ..lane })
        }
        Laned::Own(stream) => {
            drop(begun);
            Begun::new(x.shard, way.pool).done();
            Ok(Lane::fresh(stream, way.pool, opened))
        }
        Laned::Without => {
            drop(begun);
            dial(x, way, opened, deadline).await
        }
    }
}

async fn dial(
    x: &Exchange<'_>,
    way: &Way<'_>,
    opened: Option<Opened>,
    deadline: Mono,
) -> Result<Lane, NoLane> {
    let begun = Begun::new(x.shard, way.pool);
    let dial = Dial {
        link: way.link,
        among: x.among(way),
        sni: way.sni,
        alpn: tls::Inner::Http1,
        material: x.shard.material(),
        sessions: &x.shard.sessions,
        live: &x.shard.live,
        speaks_at_once: true,
        deadline,
    };
    let connected = connect(&x.shard.ring, dial, |shown| {
        way.endpoint.is_none_or(|(cluster, endpoint)| {
            let row = &x.active.tables.cluster(cluster).endpoints[endpoint];
            x.active.tables.server_may_be(cluster, row, shown)
        })
    });
    match connected.await {
        Ok(stream) => {
            x.shard.meter().count(Counted::UpstreamOpened);
            begun.done();
            Ok(Lane::fresh(stream, way.pool, opened))
        }
        Err(fault) => Err(NoLane::Unreached(fault.reason)),
    }
}

/// A connection being made: its pool stays as long.
struct Begun<'s> {
    shard: &'s ShardState,
    pool: Option<PoolId>,
}

impl<'s> Begun<'s> {
    fn new(shard: &'s ShardState, pool: Option<PoolId>) -> Self {
        if let Some(pool) = pool {
            shard.pools.borrow_mut().begin(pool);
        }
        Self { shard, pool }
    }

    /// It is lent from now on.
    fn done(mut self) {
        self.pool = None;
    }
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        if let Some(pool) = self.pool {
            self.shard.pools.borrow_mut().lost(pool);
        }
    }
}
