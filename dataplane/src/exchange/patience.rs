//! Whether a client still waits while nothing of its request is on its way: in line for a connection, in a
//! back-off, in an injected delay.
//!
//! Who has given up must not keep a place that others wait for, nor have its request carried out by a server
//! that cannot tell.

use std::future::{Future, pending, poll_fn};
use std::pin::pin;
use std::task::Poll;

use super::body::BodySource;
use super::context::Exchange;
use super::sides::Client;

/// The eye on a client. One of HTTP/1.1 is looked at only where all of its request is here: what comes behind
/// that is its next request or its end, and before that the body, which nobody has asked for yet.
#[derive(Clone, Copy)]
pub(super) struct Patience<'p> {
    x: &'p Exchange<'p>,
    looks: bool,
}

impl<'p> Patience<'p> {
    /// Of the client whose request's body is `body`.
    pub(super) fn of(x: &'p Exchange<'p>, body: &BodySource<'_>) -> Self {
        let looks = match x.client {
            Client::Http1(_) => body.is_here(),
            Client::Http2(_) => true,
        };
        Self { x, looks }
    }

    /// What `work` comes to; `None` if the client gives up first.
    pub(super) async fn outlasts<W: Future>(self, work: W) -> Option<W::Output> {
        let mut work = pin!(work);
        let mut watch = pin!(self.x.client.watch());
        let mut looks = self.looks && !self.x.has_early();
        poll_fn(|cx| {
            if let Poll::Ready(output) = work.as_mut().poll(cx) {
                return Poll::Ready(Some(output));
            }
            if looks && let Poll::Ready(seen) = watch.as_mut().poll(cx) {
                looks = false;
                if self.x.is_left(seen) {
                    return Poll::Ready(None);
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Whether it has given up by now.
    pub(super) async fn is_over(self) -> bool {
        let mut outlasts = pin!(self.outlasts(pending::<()>()));
        poll_fn(|cx| Poll::Ready(outlasts.as_mut().poll(cx).is_ready())).await
    }
}
