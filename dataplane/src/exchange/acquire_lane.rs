//! A lane of a trunk for one try: on one that has room, or on a new one.

use std::pin::pin;
use std::rc::Rc;

use ringmesh_wire::SpiffeId;

use super::acquire::NoLane;
use super::attempt::Way;
use super::context::Exchange;
use crate::lanes::{Trunk, TrunkEnd};
use crate::reason::Reason;
use crate::telemetry::Event as Counted;
use crate::time::Mono;
use crate::tls::Standing;
use crate::upstream::{Joining, MakingTrunk, Stream, Wished};
use crate::wait;

/// How often a lane that was waited for may have gone to somebody else, or be none for this request.
const TRIES_MAX: u32 = 3;

/// What [`open_lane`] came to.
pub(super) enum Laned {
    /// A lane; `joined`: of a trunk that stood.
    Lane { stream: Stream, joined: bool },
    /// A connection of its own: the sidecar there does not know lanes.
    Own(Stream),
    /// None: a connection of its own is to be made.
    Without,
}

/// A new lane to the endpoint. Whoever waits for what another request has begun judges it anew: that one may
/// go by older tables, and time has passed.
pub(super) async fn open_lane(
    x: &Exchange<'_>,
    way: &Way<'_>,
    deadline: Mono,
) -> Result<Laned, NoLane> {
    let shard = x.shard;
    let may_join = |trunk: &Trunk| {
        let connection = trunk.connection();
        let may_serve = may_be(x, way, &connection.peer().spiffe);
        may_serve && shard.standing_of(connection) == Standing::Good
    };
    let mut was_judged_by_others = false;
    for _ in 0..TRIES_MAX {
        let mut waits = false;
        let joining = shard.trunks.join(way.link, way.sni, shard.now(), may_join);
        let wanted = match joining {
            Joining::Lane(lane) => {
                shard.meter().count(Counted::LaneOpened);
                let stream = Stream::Lane(lane);
                return Ok(Laned::Lane {
                    stream,
                    joined: true,
                });
            }
            Joining::Without => return Ok(Laned::Without),
            Joining::Wait(wanted) => {
                waits = true;
                wanted
            }
            Joining::New(wanted, making) => {
                if !make(x, way, making) {
                    return Err(NoLane::NoRoom(Reason::Shed));
                }
                wanted
            }
        };
        let give_up = pin!(shard.ring.sleep_until(deadline));
        let granted = wait::or_timeout(wanted.granted(), give_up).await;
        match granted.unwrap_or(Err(Reason::ConnectTimeout)) {
            Ok(Wished::Lane(lane)) => {
                let stream = Stream::Lane(lane);
                if waits && !may_use(x, way, &stream) {
                    continue;
                }
                shard.meter().count(Counted::LaneOpened);
                return Ok(Laned::Lane {
                    stream,
                    joined: false,
                });
            }
            Ok(Wished::Stream(stream)) if waits && !may_use(x, way, &stream) => {}
            Ok(Wished::Stream(stream)) => return Ok(Laned::Own(stream)),
            Ok(Wished::Nothing) => {}
            // Once: where many wait, it is mostly true.
            Err(Reason::IdentityMismatch) if waits && !was_judged_by_others => {
                was_judged_by_others = true;
            }
            Err(reason) => return Err(NoLane::Unreached(reason)),
        }
    }
    Ok(Laned::Without)
}

/// Whether what another request has made may be used by this one.
fn may_use(x: &Exchange<'_>, way: &Way<'_>, stream: &Stream) -> bool {
    let shown = stream.identity();
    shown.is_some_and(|peer| may_be(x, way, &peer.spiffe))
        && x.shard.standing(stream) == Standing::Good
}

/// Whether a proven server may answer for the service.
fn may_be(x: &Exchange<'_>, way: &Way<'_>, shown: &SpiffeId) -> bool {
    way.endpoint.is_none_or(|(cluster, endpoint)| {
        let row = &x.active.tables.cluster(cluster).endpoints[endpoint];
        x.active.tables.server_may_be(cluster, row, shown)
    })
}

/// Starts the trunk's task; false if there is no room for it.
fn make(x: &Exchange<'_>, way: &Way<'_>, making: MakingTrunk) -> bool {
    // Others wait for it too, so the call it is begun for does not say when to give up.
    let give_up = x.shard.now().plus_ms(way.connect_timeout_ms);
    let shard = Rc::clone(x.shard);
    let active = Rc::clone(x.active);
    let endpoint = way.endpoint;
    x.shard.ring.spawn(async move {
        let accept = move |shown: &SpiffeId| {
            endpoint.is_none_or(|(cluster, endpoint)| {
                let row = &active.tables.cluster(cluster).endpoints[endpoint];
                active.tables.server_may_be(cluster, row, shown)
            })
        };
        shard.meter().count(Counted::UpstreamOpened);
        let making = making.make(
            shard.ring.clone(),
            shard.material(),
            Rc::clone(&shard.sessions),
            Rc::clone(&shard.live),
            shard.limits.pings,
            give_up,
            accept,
        );
        match making.await {
            TrunkEnd::Closed => {}
            TrunkEnd::Silent => tracing::info!("a sidecar with lanes does not answer any more"),
            TrunkEnd::Fault(fault) => {
                tracing::warn!(%fault, "a sidecar broke the lanes' protocol");
                shard.meter().refused(Reason::BadFrame);
            }
        }
    })
}
