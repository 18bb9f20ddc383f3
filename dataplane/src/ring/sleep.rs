//! Waiting: for a point in time, or for the bell.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use crate::time::Mono;

use super::Ring;
use super::arena::Key;

/// Resolves at a point in time, never before, and at most about a millisecond (and the tasks of one
/// turn) after it. Registered when first found pending, removed on drop.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Sleep {
    ring: Ring,
    at: Mono,
    /// The timer in the wheel and when it fires.
    timer: Option<(Key, Mono)>,
}

impl Sleep {
    pub(super) fn new(ring: Ring, at: Mono) -> Self {
        Self {
            ring,
            at,
            timer: None,
        }
    }

    /// Moves the deadline. Moving it later costs nothing until the old one comes, so an idle
    /// timeout may be moved with every byte; moving it earlier needs a poll to take effect.
    pub fn reset(&mut self, at: Mono) {
        self.at = at;
    }

    /// When it resolves.
    #[must_use]
    pub fn deadline(&self) -> Mono {
        self.at
    }

    fn forget(&mut self) {
        if let Some((timer, _)) = self.timer.take() {
            self.ring.core.forget_timer(timer);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.ring.now() >= self.at {
            self.forget();
            return Poll::Ready(());
        }
        if self.at == Mono::NEVER {
            return Poll::Pending;
        }
        if let Some((timer, fires)) = self.timer
            && fires <= self.at
            && self.ring.core.rewake(timer, cx.waker())
        {
            return Poll::Pending;
        }
        self.forget();
        let timer = self.ring.core.wake_at(self.at, cx.waker().clone());
        self.timer = Some((timer, self.at));
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.forget();
    }
}

/// Resolves when the bell was rung after this was made. See [`Ring::rung`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Rung {
    ring: Ring,
    seen: u64,
}

impl Rung {
    pub(super) fn new(ring: Ring) -> Self {
        let seen = ring.core.rung();
        Self { ring, seen }
    }
}

impl Future for Rung {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.ring.core.rung() != self.seen {
            return Poll::Ready(());
        }
        self.ring.core.wake_when_rung(cx.waker());
        Poll::Pending
    }
}
