//! How long a server keeps an idle connection, learned from when it closed some.
//!
//! A server's keep-alive time is its own secret, and a request sent just as it ends meets a closed
//! connection. So the pool notes after how long an idle connection was closed by
//! its server, and from then on stops lending a little earlier. Pure: ages are arguments.
//!
//! What closes a connection early (a restart, a server short of memory) looks like a short keep-alive
//! time. It costs new connections, never a request, and the next [`REMEMBERED`] observations
//! outvote it: the pool keeps one connection it no longer lends, to see when it really ends.

use std::time::Duration;

/// Observations that count. The shortest of them is believed: a server that looks at its idle
/// connections in intervals closes them late, never early.
const REMEMBERED: usize = 4;
/// A connection closed sooner after its last use did not end by idleness (a limit of requests on it, a
/// restart); and one used again this soon has not been idle for any server we know.
const SHORTEST: Duration = Duration::from_millis(100);
/// What is left of a believed time: an eighth less, and for short ones this much less, so that a
/// request on its way arrives in time over a slow network and on a busy host.
const MARGIN_MIN: Duration = Duration::from_millis(25);

/// What is known of one server's keep-alive time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct KeepAlive {
    ends: [Duration; REMEMBERED],
    /// Places of `ends` in use.
    len: usize,
    /// The place the next one takes.
    next: usize,
    /// The longest that a connection was seen to live idle.
    proven: Duration,
}

impl KeepAlive {
    /// An idle connection ended after `idle`; or was given up then, alive.
    pub(super) fn ended(&mut self, idle: Duration) {
        if idle < SHORTEST {
            return;
        }
        if let Some(place) = self.ends.get_mut(self.next) {
            *place = idle;
        }
        self.next = (self.next + 1) % REMEMBERED;
        self.len = (self.len + 1).min(REMEMBERED);
    }

    /// A connection that had been idle for so long was alive.
    pub(super) fn alive(&mut self, idle: Duration) {
        self.proven = self.proven.max(idle);
    }

    /// Whether an end was ever observed.
    pub(super) fn is_learned(&self) -> bool {
        self.len > 0
    }

    /// A connection idle for this long or longer is not lent any more; `None`: nothing is known.
    pub(super) fn lend_below(&self) -> Option<Duration> {
        let ends = self.ends.get(..self.len)?;
        ends.iter().min().map(|shortest| less_margin(*shortest))
    }

    /// The same for a request that could not be repeated: what is not known counts as unsafe.
    pub(super) fn lend_carefully_below(&self) -> Duration {
        let known = self
            .lend_below()
            .unwrap_or_else(|| less_margin(self.proven));
        known.max(SHORTEST)
    }
}

fn less_margin(time: Duration) -> Duration {
    (time - time / 8).saturating_sub(MARGIN_MIN)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn an_observed_end_moves_the_limit_below_it() {
        let mut server = KeepAlive::default();
        assert_eq!(server.lend_below(), None);
        server.ended(ms(5_000));
        assert_eq!(server.lend_below(), Some(ms(4_350)));
        // Looked at in intervals: late ones change nothing.
        server.ended(ms(5_900));
        assert_eq!(server.lend_below(), Some(ms(4_350)));
    }

    #[test]
    fn a_restart_is_outvoted() {
        let mut server = KeepAlive::default();
        server.ended(ms(300));
        for _ in 0..REMEMBERED {
            assert_eq!(
                server.lend_below(),
                Some(ms(237) + Duration::from_micros(500))
            );
            server.ended(ms(60_000));
        }
        assert_eq!(server.lend_below(), Some(ms(52_475)));
    }

    #[test]
    fn an_end_right_after_use_is_not_idleness() {
        let mut server = KeepAlive::default();
        server.ended(ms(99));
        assert!(!server.is_learned());
    }

    #[test]
    fn what_cannot_be_repeated_goes_by_what_was_seen() {
        let mut server = KeepAlive::default();
        assert_eq!(server.lend_carefully_below(), SHORTEST);
        server.alive(ms(2_000));
        assert_eq!(server.lend_carefully_below(), ms(1_725));
        // A closed one says more than one that lived.
        server.ended(ms(1_000));
        assert_eq!(server.lend_carefully_below(), ms(850));
    }

    proptest! {
        /// Against a server with a fixed time that notices late by up to `slack`: after the first
        /// end, whatever is lent has more than the margin left.
        #[test]
        fn nothing_is_lent_near_a_fixed_time(
            time in 100u64..100_000,
            lates in prop::collection::vec(0u64..1_000, 1..20),
            ages in prop::collection::vec(0u64..200_000, 1..50),
        ) {
            let mut server = KeepAlive::default();
            for age in &ages {
                if *age < time {
                    server.alive(ms(*age));
                }
            }
            // Before the first end only careful requests are safe.
            prop_assert!(server.lend_carefully_below() <= ms(time));
            server.ended(ms(time));
            for late in lates.iter().take(REMEMBERED - 1) {
                server.ended(ms(time + late));
            }
            let limit = server.lend_below().unwrap();
            prop_assert!(limit + MARGIN_MIN <= ms(time));
            prop_assert!(limit + ms(time / 8) <= ms(time));
        }
    }
}
