//! Waiting for the first of several things, without allocation.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::Poll;

use crate::ring::Sleep;

/// The result of `work`, or `None` if `sleep` is over first.
pub async fn or_timeout<F: Future>(work: F, mut sleep: Pin<&mut Sleep>) -> Option<F::Output> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        if let Poll::Ready(output) = work.as_mut().poll(cx) {
            return Poll::Ready(Some(output));
        }
        sleep.as_mut().poll(cx).map(|()| None)
    })
    .await
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
