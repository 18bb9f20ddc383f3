//! When a byte of an exchange last moved, and who is waited for.

use std::cell::Cell;

use super::state::ShardState;
use crate::ring::Ring;
use crate::time::Mono;

/// Both directions of an exchange count: a call whose answer streams is not idle because its client is
/// silent, nor the other way round.
#[derive(Debug)]
pub(super) struct Progress<'x> {
    ring: &'x Ring,
    idle_timeout_ms: u64,
    moved: Cell<Mono>,
    client_owes: Cell<bool>,
}

impl<'x> Progress<'x> {
    pub(super) fn new(shard: &'x ShardState) -> Self {
        Self {
            ring: &shard.ring,
            idle_timeout_ms: shard.limits.idle_timeout_ms,
            moved: Cell::new(shard.now()),
            client_owes: Cell::new(false),
        }
    }

    /// A piece came, or was taken.
    pub(super) fn moved(&self) {
        self.moved.set(self.ring.now());
    }

    /// When nothing will have moved for too long.
    pub(super) fn idle_at(&self) -> Mono {
        self.moved.get().plus_ms(self.idle_timeout_ms)
    }

    /// More of the request's body is waited for, or no longer.
    pub(super) fn await_client(&self, owes: bool) {
        self.client_owes.set(owes);
    }

    /// Whether it is the client who holds its request's body up.
    pub(super) fn client_owes(&self) -> bool {
        self.client_owes.get()
    }
}
