//! Listeners and the bound on connections.

use std::rc::Rc;

use super::route_conn;
use crate::exchange::{self, Counted, SHED_ANSWER, ShardState};
use crate::reason::Reason;
use crate::ring::{Chunk, Listener, Out, Socket};
use crate::telemetry::Event;
use crate::upstream::Stream;

/// What a listener is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The local app's calls, captured or direct.
    Outbound,
    /// Plaintext calls to the local app, captured or direct.
    Inbound,
    /// Mutual TLS from other sidecars.
    Mesh,
}

/// Connections over the bound that may hear their answer and leave in order, at once. Others are closed behind
/// it: where the request is unread then, the kernel's reset may take the answer away.
const PARTING_MAX: u32 = 64;

/// How long to wait after an accept failed (out of descriptors), milliseconds.
const ACCEPT_PAUSE_MS: u64 = 50;

/// Accepts for as long as the shard lives.
pub async fn listen(shard: Rc<ShardState>, listener: Listener, role: Role) {
    loop {
        let socket = match listener.accept().await {
            Ok(socket) => socket,
            Err(error) => {
                tracing::warn!(%error, listener = %listener.local_addr(), "accept failed");
                shard
                    .ring
                    .sleep_until(shard.now().plus_ms(ACCEPT_PAUSE_MS))
                    .await;
                continue;
            }
        };
        shard.meter().count(Event::Accepted);
        let limits = &shard.limits;
        if shard.conns.get() >= limits.conns_max || shard.ring.conns() > limits.sockets_max {
            shed(&shard, socket).await;
            continue;
        }
        let counted = Counted::new(&shard);
        let state = Rc::clone(&shard);
        let local = listener.local_addr();
        let started = shard.ring.spawn(async move {
            route_conn::serve(&state, socket, role, local).await;
            drop(counted);
        });
        if !started {
            shard.meter().refused(Reason::Shed);
        }
    }
}

async fn shed(shard: &Rc<ShardState>, socket: Socket) {
    shard.meter().refused(Reason::Shed);
    // Plaintext even on the mesh port: a handshake is what we have no room for. Accepted at once or not
    // at all: the socket's buffer is empty.
    let answer = Out::from(Chunk::from_static(SHED_ANSWER));
    if socket.send(answer).await.is_err() || shard.parting.get() >= PARTING_MAX {
        return;
    }
    shard.parting.set(shard.parting.get() + 1);
    let state = Rc::clone(shard);
    let started = shard.ring.spawn(async move {
        exchange::let_go(&state, Stream::Plain(socket)).await;
        state.parting.set(state.parting.get() - 1);
    });
    if !started {
        shard.parting.set(shard.parting.get() - 1);
    }
}
