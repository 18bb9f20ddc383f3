//! Waiting for the first of several things, without allocation.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use crate::ring::Sleep;

/// The result of `work`, or `None` if `sleep` is over first.
pub fn or_timeout<F: Future>(work: F, sleep: Pin<&mut Sleep>) -> OrTimeout<'_, F> {
    OrTimeout { work, sleep }
}

pin_project! {
    /// See [`or_timeout`]. Written out because an `async fn` keeps its arguments beside their pinned
    /// copies, so that each layer would double the state of what it waits for.
    #[derive(Debug)]
    #[must_use = "futures do nothing unless polled"]
    pub struct OrTimeout<'s, F> {
        #[pin]
        work: F,
        sleep: Pin<&'s mut Sleep>,
    }
}

impl<F: Future> Future for OrTimeout<'_, F> {
    type Output = Option<F::Output>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.work.poll(cx) {
            return Poll::Ready(Some(output));
        }
        this.sleep.as_mut().poll(cx).map(|()| None)
    }
}

/// Whichever ends first; `a` where both are ready.
#[derive(Debug)]
pub enum First<A, B> {
    /// The first.
    A(A),
    /// The second.
    B(B),
}

/// Waits for the first of two.
pub async fn first<A: Future, B: Future>(a: A, b: B) -> First<A::Output, B::Output> {
    let (mut a, mut b) = (pin!(a), pin!(b));
    poll_fn(|cx| {
        if let Poll::Ready(output) = a.as_mut().poll(cx) {
            return Poll::Ready(First::A(output));
        }
        b.as_mut().poll(cx).map(First::B)
    })
    .await
}
