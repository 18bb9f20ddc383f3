//! A place on an HTTP/2 connection for one try: on one that has room, or on a new one.
//!
//! These connections stand outside the cluster's connection limit: one carries a hundred requests.

use std::pin::pin;
use std::rc::Rc;

use h2::client::SendRequest;
use ringmesh_wire::SpiffeId;

use super::acquire::NoLane;
use super::attempt::Way;
use super::pipeline::Exchange;
use crate::http2::Piece;
use crate::reason::Reason;
use crate::telemetry::Event as Counted;
use crate::time::Mono;
use crate::tls::Standing;
use crate::upstream::{Joined, SharedLane, join};
use crate::wait;

/// A place on an HTTP/2 connection to the endpoint, and the connection.
pub(super) async fn acquire_shared(
    x: &Exchange<'_>,
    way: &Way<'_>,
    deadline: Mono,
) -> Result<(SharedLane, SendRequest<Piece>), NoLane> {
    let shard = x.shard;
    let deadline = deadline.min(shard.now().plus_ms(way.connect_timeout_ms));
    let endpoint = way.endpoint;
    let mut fresh = way.fresh;
    // Twice at most: a new connection is to an identity that was accepted.
    loop {
        let joined = join(&shard.shared, &shard.ring, way.link, way.sni, fresh);
        let lane = match joined.ok_or(NoLane::NoRoom(Reason::Overflow))? {
            Joined::Lane(lane) => lane,
            Joined::New(lane, making) => {
                let active = Rc::clone(x.active);
                let material = shard.material();
                let accept = move |shown: &SpiffeId| {
                    endpoint.is_none_or(|(cluster, endpoint)| {
                        let row = &active.tables.cluster(cluster).endpoints[endpoint];
                        active.tables.server_may_be(cluster, row, shown)
                    })
                };
                let sessions = Rc::clone(&shard.sessions);
                let live = Rc::clone(&shard.live);
                let ring = shard.ring.clone();
                let among = x.among(way).into();
                let making = making.make(ring, among, material, sessions, live, deadline, accept);
                if !shard.ring.spawn(making) {
                    return Err(NoLane::NoRoom(Reason::Shed));
                }
                shard.meter().count(Counted::UpstreamOpened);
                lane
            }
        };
        let give_up = pin!(shard.ring.sleep_until(deadline));
        let sender = wait::or_timeout(lane.sender(), give_up).await;
        let sender = sender.unwrap_or(Err(Reason::ConnectTimeout));
        let sender = sender.map_err(NoLane::Unreached)?;
        if x.request.upgrade().is_some() {
            // Whether it does that is in its SETTINGS, which nobody else waits for (RFC 8441 section 3).
            let give_up = pin!(shard.ring.sleep_until(deadline));
            match wait::or_timeout(lane.introduced(), give_up).await {
                Some(Ok(())) => {}
                Some(Err(reason)) => return Err(NoLane::Unreached(reason)),
                None => return Err(NoLane::Unreached(Reason::ConnectTimeout)),
            }
            if !sender.is_extended_connect_protocol_enabled() {
                return Err(NoLane::NoRoom(Reason::UpgradeUnsupported));
            }
        }
        let may_serve = match (endpoint, lane.identity()) {
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
