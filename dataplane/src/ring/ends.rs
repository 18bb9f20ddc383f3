//! Connections that end while nobody waits to receive on them: those that lie idle in a pool.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::Ring;

/// How many there were, and who wants to hear of the next.
#[derive(Debug, Default)]
pub(super) struct Ends {
    count: Cell<u64>,
    waker: RefCell<Option<Waker>>,
}

impl Ends {
    /// One more.
    pub(super) fn note(&self) {
        self.count.set(self.count.get() + 1);
        let waker = self.waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Resolves when a connection has ended unwatched since this was made. See [`Ring::end_unwatched`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct EndUnwatched {
    ring: Ring,
    seen: u64,
}

impl EndUnwatched {
    pub(super) fn new(ring: Ring) -> Self {
        let seen = ring.core.ends.count.get();
        Self { ring, seen }
    }
}

impl Future for EndUnwatched {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let ends = &self.ring.core.ends;
        if ends.count.get() != self.seen {
            return Poll::Ready(());
        }
        let mut waker = ends.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }
}
