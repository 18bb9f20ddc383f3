//! A worker that is the only shard of its process, and the agent's ends of its queues. Compiled for tests and
//! fuzzing only.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use ringmesh_quota::Home;

use super::{WorkerPlan, run};
use crate::accept::Role;
use crate::balance::ShardShare;
use crate::exchange::ConnLimits;
use crate::ring::{RemoteWaker, Ring, RingPlan};
use crate::shard::{
    Collected, FromShard, InboxSeed, Mailbox, Outbox, Seat, ToShard, inbox, outboxes,
};

/// With one listener, and otherwise nothing that a test does not ask for.
pub(super) fn plan(role: Role, at: SocketAddr, limits: ConnLimits) -> WorkerPlan {
    WorkerPlan {
        share: ShardShare::WHOLE,
        listeners: vec![(role, at)],
        tproxy: false,
        limits,
        quota_home: Home {
            shard: 0,
            shards: 1,
            standalone: true,
        },
        log_bytes: 64 * 1024,
        unix_us: 0,
        seed: 7,
    }
}

/// The place of a worker that has not begun. Goes to the thread on which it is to run.
pub(super) struct Vacancy {
    remote: RemoteWaker,
    inbox: InboxSeed<ToShard>,
    outbox: Outbox<FromShard>,
}

/// A place, with where to put what the agent says and where to find what the worker says.
pub(super) fn vacancy() -> (Mailbox<ToShard>, Collected<FromShard>, Vacancy) {
    let remote = RemoteWaker::new().expect("waker");
    let (mailbox, inbox) = inbox(remote.clone());
    let (mut boxes, collected) = outboxes(1, &(Arc::new(|| ()) as _));
    let vacancy = Vacancy {
        remote,
        inbox,
        outbox: boxes.remove(0),
    };
    (mailbox, collected, vacancy)
}

impl Vacancy {
    /// Makes the ring and begins the worker on it; whoever has the ring turns it. The flag is set when the
    /// worker has ended.
    pub(super) fn take(self, ring: &RingPlan, plan: WorkerPlan) -> (Ring, Rc<Cell<bool>>) {
        let ring = Ring::with_remote(ring, self.remote).expect("ring");
        let seat = Seat {
            index: 0,
            inbox: self.inbox.on(ring.clone()),
            ring: ring.clone(),
            outbox: self.outbox,
        };
        let done = Rc::new(Cell::new(false));
        let (worker, end) = (run(seat, plan), Rc::clone(&done));
        let spawned = ring.spawn(async move {
            worker.await;
            end.set(true);
        });
        assert!(spawned, "a new ring has room");
        (ring, done)
    }
}
