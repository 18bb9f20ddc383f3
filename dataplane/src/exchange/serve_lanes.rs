//! A downstream connection that carries lanes: each is an HTTP/1.1 connection of its own.

use std::pin::pin;
use std::rc::Rc;
use std::task::Context;

use super::answer::SHED_ANSWER;
use super::flow::Flow;
use super::serve::serve_lane;
use super::state::{Counted, ShardState};
use crate::lanes::{Patience, Trunk, TrunkEnd, TrunkLane};
use crate::reason::Reason;
use crate::ring::{ByteStream, Chunk, Out};
use crate::telemetry::Event;
use crate::tls::TlsStream;
use crate::upstream::Stream;

/// A connection takes no new lanes after this time, plus or minus a tenth, milliseconds: as an HTTP/2
/// connection, and for the same reasons.
const AGE_MAX_MS: u64 = 3_600_000;

/// Serves a connection to its end, and lets its lanes live as long.
pub async fn serve_lanes(shard: &Rc<ShardState>, flow: &Flow, connection: Box<TlsStream>) {
    let trunk = Trunk::answerer(&shard.ring, connection);
    let jitter = shard.random() % (AGE_MAX_MS / 5);
    let old = shard.now().plus_ms(AGE_MAX_MS * 9 / 10 + jitter);
    let mut old = pin!(shard.ring.sleep_until(old));
    let drain = shard.drain_bell();
    let patience = Patience {
        idle_ms: shard.limits.keep_alive_timeout_ms,
        pings: shard.limits.pings,
    };
    let look = |cx: &mut Context<'_>| {
        drain.set(Some(cx.waker().clone()));
        let is_time = shard.closes(flow, trunk.connection());
        if is_time || old.as_mut().poll(cx).is_ready() {
            trunk.say_last();
        }
        for _ in 0..trunk.take_cancelled() {
            shard.meter().count(Event::LaneReset);
        }
    };
    let end = trunk
        .carry(patience, look, |lane| begin(shard, flow, lane))
        .await;
    if let TrunkEnd::Fault(fault) = end {
        let peer = flow.peer.address;
        tracing::warn!(%peer, reason = Reason::BadFrame.code(), %fault, "a sidecar broke the lanes' protocol");
        shard.meter().refused(Reason::BadFrame);
    }
}

/// A lane more, which counts as a connection.
fn begin(shard: &Rc<ShardState>, flow: &Flow, lane: TrunkLane) {
    shard.meter().count(Event::LaneAccepted);
    let flow = Flow {
        serial: shard.next_serial(),
        ..flow.clone()
    };
    let stream = Stream::Lane(lane);
    let started = if shard.conns.get() >= shard.limits.conns_max {
        shard.meter().refused(Reason::Shed);
        shard.ring.spawn(async move { shed(&stream).await })
    } else {
        let (state, counted) = (Rc::clone(shard), Counted::new(shard));
        shard.ring.spawn(async move {
            serve_lane(&state, &flow, &stream).await;
            drop(counted);
        })
    };
    if !started {
        shard.meter().refused(Reason::Shed);
    }
}

async fn shed(lane: &Stream) {
    let _ = lane.send(Out::from(Chunk::from_static(SHED_ANSWER))).await;
    let _ = lane.shutdown_write().await;
    // Dropped with bytes that nobody has read, it would be reset.
    while let Some(Ok(chunk)) = lane.try_recv()
        && !chunk.is_empty()
    {}
}
