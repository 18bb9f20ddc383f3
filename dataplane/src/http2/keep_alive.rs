//! Whether the sidecar at the other end still lives while streams wait for it: PING after a silence, and the
//! end if even that is not answered (RFC 9113 section 6.7; Envoy's `connection_keepalive`).
//!
//! Between sidecars only. Another server may take PINGs amiss: gRPC's end a connection with `too_many_pings` after
//! the third within five minutes and without data. Whether its host lives is asked by the kernel there, in the same
//! times ([`Socket::give_up_silent`](crate::ring::Socket::give_up_silent)).

use std::pin::Pin;
use std::task::{Context, Poll};

use h2::{Ping, PingPong};

use super::wire::Wire;
use crate::ring::{Ring, Sleep};
use crate::time::Mono;

/// When a silent peer is asked, and when it is given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pings {
    /// Nothing received for so long while streams are open: a PING is sent, milliseconds (Envoy
    /// `connection_keepalive.interval`).
    pub interval_ms: u64,
    /// Nothing received for so long after it: the peer is gone, milliseconds (Envoy
    /// `connection_keepalive.timeout`).
    pub timeout_ms: u64,
}

impl Default for Pings {
    fn default() -> Self {
        Self {
            // Linkerd's between its proxies, and Envoy's in its documentation: a dead host is noticed
            // before a route's default timeout is over. A busy connection never sends one.
            interval_ms: 10_000,
            // Several retransmissions on any network a mesh runs on.
            timeout_ms: 5_000,
        }
    }
}

/// Watches one connection.
pub(crate) struct KeepAlive {
    pings: Pings,
    /// `None`: the peer is not asked.
    asking: Option<PingPong>,
    /// A PING is out since then.
    asked_at: Option<Mono>,
    /// Since when streams wait.
    busy_from: Option<Mono>,
    due: Pin<Box<Sleep>>,
}

impl KeepAlive {
    pub(crate) fn new(ring: &Ring, pings: Pings, asking: Option<PingPong>) -> Self {
        Self {
            pings,
            asking,
            asked_at: None,
            busy_from: None,
            due: Box::pin(ring.sleep_until(Mono::NEVER)),
        }
    }

    /// Ready: the peer is gone. To be polled before the connection is, whose turn it is to send a PING.
    /// `busy`: streams are open. A connection without is not watched, and wakes nobody.
    pub(crate) fn poll_gone(
        &mut self,
        wire: &Wire,
        busy: bool,
        now: Mono,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(asking) = &mut self.asking else {
            return Poll::Pending;
        };
        if self.asked_at.is_some() && asking.poll_pong(cx).is_ready() {
            self.asked_at = None;
        }
        if !busy && self.asked_at.is_none() {
            self.busy_from = None;
            self.due.as_mut().reset(Mono::NEVER);
            return Poll::Pending;
        }
        let busy_from = *self.busy_from.get_or_insert(now);
        let heard = wire.last_received();
        let due = match self.asked_at {
            None => heard.max(busy_from).plus_ms(self.pings.interval_ms),
            Some(asked) => heard.max(asked).plus_ms(self.pings.timeout_ms),
        };
        self.due.as_mut().reset(due);
        if self.due.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        if self.asked_at.is_some() {
            return Poll::Ready(());
        }
        // Refused only where the connection is over, which it says itself.
        if asking.send_ping(Ping::opaque()).is_ok() {
            self.asked_at = Some(now);
            self.due.as_mut().reset(now.plus_ms(self.pings.timeout_ms));
            let _ = self.due.as_mut().poll(cx);
        }
        Poll::Pending
    }
}
