//! What runs on one shard: listeners, the inbox, and nothing else.
//!
//! The shard room gives a ring and queues; this room gives them to the data path and answers the
//! agent.

#[cfg(any(test, feature = "fuzzing"))]
mod alone;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod drive;
#[cfg(any(test, feature = "fuzzing"))]
mod port;

use std::net::SocketAddr;
use std::rc::Rc;

use ringmesh_quota::Home;

use crate::accept::{self, Role};
use crate::balance::ShardShare;
use crate::exchange::{ConnLimits, ShardState, borrow};
use crate::ring::{ListenOptions, Listener};
use crate::shard::{FromShard, Seat, ToShard};
use crate::telemetry::LogBuf;

/// What a shard needs to know before its first connection.
#[derive(Debug, Clone)]
pub struct WorkerPlan {
    /// This shard of how many.
    pub share: ShardShare,
    /// Where to listen, and for what.
    pub listeners: Vec<(Role, SocketAddr)>,
    /// What comes to the inbound listener is captured by TPROXY, and the app is to see the client's
    /// address.
    pub tproxy: bool,
    /// Bounds.
    pub limits: ConnLimits,
    /// Bytes of one access-log buffer; 0: no access log.
    pub log_bytes: usize,
    /// Where the shard stands among those that hold quota units.
    pub quota_home: Home,
    /// Wall clock at the start, microseconds since 1970.
    pub unix_us: u64,
    /// For balancing, splitting and faults.
    pub seed: u64,
}

/// How often a draining shard looks whether it is done, milliseconds.
const DRAIN_LOOK_MS: u64 = 10;

/// Runs a shard until it is told to stop.
pub async fn run(seat: Seat<ToShard, FromShard>, plan: WorkerPlan) {
    let Seat {
        ring,
        inbox,
        outbox,
        ..
    } = seat;
    let log = (plan.log_bytes > 0).then(|| LogBuf::new(plan.log_bytes));
    let state = Rc::new(ShardState::new(ring.clone(), outbox, &plan, log));
    *state.own_addresses.borrow_mut() = plan.listeners.iter().map(|(_, at)| *at).collect();
    for (role, at) in &plan.listeners {
        let options = ListenOptions {
            reuse_port: true,
            transparent: plan.tproxy && *role == Role::Inbound,
            ..ListenOptions::default()
        };
        match Listener::bind(&ring, *at, &options) {
            Ok(listener) => {
                let started = ring.spawn(accept::listen(Rc::clone(&state), listener, *role));
                debug_assert!(started, "the first tasks of a shard have room");
            }
            Err(error) => {
                state.tell(FromShard::Failed(format!("cannot listen on {at}: {error}")));
                return;
            }
        }
    }
    state.tell(FromShard::Listening);
    let mut worker = Worker { state };
    loop {
        match inbox.recv().await {
            ToShard::Stop => return,
            message => worker.take(message),
        }
    }
}

struct Worker {
    state: Rc<ShardState>,
}

impl Worker {
    fn take(&mut self, message: ToShard) {
        let state = &self.state;
        match message {
            ToShard::Config(tables) => {
                let generation = tables.generation();
                drop(state.swap(tables));
                state.look_after_quota();
                state.tell(FromShard::InForce(generation));
            }
            ToShard::Peers(peers) => state.borrowing.set_peers(peers),
            ToShard::Credits(message) => borrow::hear(state, message),
            ToShard::Tls(material) => state.set_material(material),
            ToShard::Quota(message) => {
                state.quota.borrow_mut().handle(message, state.now());
                state.look_after_quota();
            }
            ToShard::Collect => {
                state.tell_counted();
                state.hand_over_log();
            }
            ToShard::LogSpare(buffer) => state.take_spare(buffer),
            ToShard::Drain => self.drain(),
            ToShard::Stop => {}
        }
    }

    fn drain(&self) {
        let state = Rc::clone(&self.state);
        state.drain();
        let watching = self.state.ring.spawn(async move {
            while state.busy() > 0 {
                state
                    .ring
                    .sleep_until(state.now().plus_ms(DRAIN_LOOK_MS))
                    .await;
            }
            state.tell(FromShard::Drained);
        });
        if !watching {
            // A full task table empties while we drain; until then the agent's deadline holds.
            tracing::warn!("no room for the task that watches the drain");
        }
    }
}

#[cfg(test)]
mod tests;
