//! A place on an HTTP/2 connection for one try: on one that has room, or on a new one where the
//! cluster's limits have room.

use std::pin::pin;
use std::rc::Rc;

use h2::client::SendRequest;
use ringmesh_wire::SpiffeId;

use super::acquire::{Bound, NoLane, Room, room};
use super::attempt::Way;
use super::borrow;
use super::context::Exchange;
use super::patience::Patience;
use crate::balance::Limit;
use crate::http2::Piece;
use crate::reason::Reason;
use crate::telemetry::Event as Counted;
use crate::time::Mono;
use crate::tls::Standing;
use crate::upstream::{Opened, SharedLane, Sought, begin, join};
use crate::wait;

/// A place on an HTTP/2 connection to the endpoint, and the connection; only if the client waits in line
/// as long.
pub(super) async fn acquire_shared(
    x: &Exchange<'_>,
    way: &Way<'_>,
    patience: Patience<'_>,
    deadline: Mono,
) -> Result<(SharedLane, SendRequest<Piece>), NoLane> {
    let shard = x.shard;
    let mut fresh = way.fresh;
    // Twice at most: a new connection is to an identity that was accepted.
    loop {
        let (lane, sender) = place(x, way, fresh, patience, deadline).await?;
        if x.request.upgrade().is_some() {
            // Whether it does that is in its SETTINGS, which nobody else waits for (RFC 8441 section 3).
            let give_up = pin!(shard.ring.sleep_until(connected_by(x, way, deadline)));
            match wait::or_timeout(lane.introduced(), give_up).await {
                Some(Ok(())) => {}
                Some(Err(reason)) => return Err(NoLane::Unreached(reason)),
                None => return Err(NoLane::Unreached(Reason::ConnectTimeout)),
            }
            if !sender.is_extended_connect_protocol_enabled() {
                return Err(NoLane::NoRoom(Reason::UpgradeUnsupported));
            }
        }
        let may_serve = match (way.endpoint, lane.identity()) {
            (Some((cluster, endpoint)), Some(shown)) => {
                let row = &x.active.tables.cluster(cluster).endpoints[endpoint];
                x.active.tables.server_may_be(cluster, row, shown)
            }
            _ => true,
        };
        let stands = (lane.stream()).is_some_and(|stream| shard.standing(stream) == Standing::Good);
        if may_serve && stands {
            return Ok((lane, sender));
        }
        if fresh {
            return Err(NoLane::Unreached(Reason::IdentityMismatch));
        }
        // The configuration has changed under the connection.
        lane.distrust();
        fresh = true;
    }
}

/// When a connection has to be there that is wanted now.
fn connected_by(x: &Exchange<'_>, way: &Way<'_>, deadline: Mono) -> Mono {
    deadline.min(x.shard.now().plus_ms(way.connect_timeout_ms))
}

/// How often a place may have been one too many on the connection it was on. Each time a connection more was
/// made, so the bound on those ends it sooner.
const ROUNDS_MAX: u32 = 1_024;

/// A place; `fresh`: on a new connection.
async fn place(
    x: &Exchange<'_>,
    way: &Way<'_>,
    fresh: bool,
    patience: Patience<'_>,
    deadline: Mono,
) -> Result<(SharedLane, SendRequest<Piece>), NoLane> {
    for _ in 0..ROUNDS_MAX {
        let Some(bound) = way.bound else {
            let lane = match joined(x, way, fresh, false) {
                Some(lane) => lane,
                None => new(x, way, None)?,
            };
            match connected(x, way, lane, deadline).await? {
                Some(place) => return Ok(place),
                None => continue,
            }
        };
        // Who waits goes first.
        if x.shard.lines.is_empty(bound.pick.cluster)
            && let Some(lane) = joined(x, way, fresh, true)
        {
            match connected(x, way, lane, deadline).await? {
                Some(place) => return Ok(place),
                None => continue,
            }
        }
        // The rare way: boxed, so that it takes no room in every exchange.
        let waited = Box::pin(in_line(x, way, fresh, bound, patience, deadline));
        if let Some(place) = waited.await? {
            return Ok(place);
        }
    }
    Err(NoLane::NoRoom(Reason::Overflow))
}

/// Waits for room on a connection or to make one, and until that is made.
async fn in_line(
    x: &Exchange<'_>,
    way: &Way<'_>,
    fresh: bool,
    bound: Bound<'_>,
    patience: Patience<'_>,
    deadline: Mono,
) -> Result<Option<(SharedLane, SendRequest<Piece>)>, NoLane> {
    let (shard, slot) = (x.shard, bound.pick.cluster);
    let waiting = borrow::take(shard, slot, Limit::Pending, |b| b.wait(bound.pick)).await;
    let waiting = waiting.map_err(NoLane::NoRoom)?;
    let lane = match bound.counts {
        true => in_turn(x, way, fresh, bound, patience, deadline).await,
        false => match joined(x, way, fresh, false) {
            Some(lane) => Ok(lane),
            None => new(x, way, None),
        },
    };
    let place = match lane {
        Ok(lane) => connected(x, way, lane, deadline).await,
        Err(no_lane) => Err(no_lane),
    };
    shard.balancer.borrow_mut().waited(waiting);
    place
}

async fn in_turn(
    x: &Exchange<'_>,
    way: &Way<'_>,
    fresh: bool,
    bound: Bound<'_>,
    patience: Patience<'_>,
    deadline: Mono,
) -> Result<SharedLane, NoLane> {
    // Where there is a connection to this endpoint, a stream of it that ends is enough. Without, one to
    // another endpoint has to make room.
    let may_retire = || fresh || !x.shard.shared.borrow().has(&sought(way));
    let look = || joined(x, way, fresh, false);
    let found = room(x.shard, bound, deadline, may_retire, look);
    match patience.outlasts(found).await {
        Some(Ok(Room::Found(lane))) => Ok(lane),
        Some(Ok(Room::Connect(opened))) => new(x, way, Some(opened)),
        Some(Err(reason)) => Err(NoLane::NoRoom(reason)),
        None => Err(NoLane::ClientGone),
    }
}

fn sought<'w>(way: &Way<'w>) -> Sought<'w> {
    let counted = way.bound.filter(|bound| bound.counts);
    Sought {
        link: way.link,
        sni: way.sni,
        owner: counted.map(|bound| bound.cluster),
        streams_max: way.exchanges_max,
    }
}

/// A place on a connection that stands or, unless `only_open`, is being made.
fn joined(x: &Exchange<'_>, way: &Way<'_>, fresh: bool, only_open: bool) -> Option<SharedLane> {
    if fresh {
        return None;
    }
    join(&x.shard.shared, &x.shard.ring, &sought(way), only_open)
}

/// A place on a new connection.
fn new(x: &Exchange<'_>, way: &Way<'_>, opened: Option<Opened>) -> Result<SharedLane, NoLane> {
    let shard = x.shard;
    let begun = begin(&shard.shared, &shard.ring, &sought(way), opened);
    let (lane, making) = begun.ok_or(NoLane::NoRoom(Reason::Overflow))?;
    let active = Rc::clone(x.active);
    let endpoint = way.endpoint;
    let accept = move |shown: &SpiffeId| {
        endpoint.is_none_or(|(cluster, endpoint)| {
            let row = &active.tables.cluster(cluster).endpoints[endpoint];
            active.tables.server_may_be(cluster, row, shown)
        })
    };
    let making = making.make(
        shard.ring.clone(),
        x.among(way).into(),
        shard.material(),
        Rc::clone(&shard.sessions),
        Rc::clone(&shard.live),
        // Others wait for it too, so the call it is begun for does not say when to give up.
        connected_by(x, way, Mono::NEVER),
        accept,
    );
    if !shard.ring.spawn(making) {
        return Err(NoLane::NoRoom(Reason::Shed));
    }
    shard.meter().count(Counted::UpstreamOpened);
    Ok(lane)
}

/// The connection, once it is made. `None`: more were waiting for it than its server takes at once. Until
/// that is known only the request it was begun for goes out: what is above the bound would be refused.
async fn connected(
    x: &Exchange<'_>,
    way: &Way<'_>,
    lane: SharedLane,
    deadline: Mono,
) -> Result<Option<(SharedLane, SendRequest<Piece>)>, NoLane> {
    let give_up = pin!(x.shard.ring.sleep_until(connected_by(x, way, deadline)));
    let has_to_wait = lane.reused && !lane.is_introduced();
    let made = async {
        let sender = lane.sender().await?;
        if has_to_wait {
            lane.introduced().await?;
        }
        Ok(sender)
    };
    let sender = wait::or_timeout(made, give_up).await;
    let sender = sender.unwrap_or(Err(Reason::ConnectTimeout));
    let sender = sender.map_err(NoLane::Unreached)?;
    match has_to_wait && lane.is_one_too_many() {
        true => Ok(None),
        false => Ok(Some((lane, sender))),
    }
}
