//! Whether a request to another sidecar gets a connection of its own or a lane of one. Pure.
//!
//! While few requests are under way there is nothing to share: each is its own record and system call
//! on either, and one on a connection of its own waits for no other's bytes. From some number on what
//! is written in one turn goes out together in one record.

use std::time::Duration;

use crate::time::Mono;

/// With so many other requests under way to one endpoint they share. Measured: up to five at once a
/// lane gains nothing, from six on it does (docs/decisions/0016-lanes-by-load.md).
const UNDER_WAY_MIN: usize = 5;
/// Sharing goes on for so long after there were as many: load comes in waves, and a lane that lies idle
/// costs nothing.
const GOES_ON: Duration = Duration::from_secs(1);

/// How the requests to one endpoint have been of late.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sharing {
    /// Until when they share.
    until: Mono,
}

impl Sharing {
    /// Whether a request that begins at `now`, with `under_way` others at the same endpoint, goes on a
    /// lane.
    pub(super) fn begin(&mut self, under_way: usize, now: Mono) -> bool {
        if under_way >= UNDER_WAY_MIN {
            self.until = now + GOES_ON;
        }
        now < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Mono = Mono(5_000_000_000);

    #[test]
    fn few_requests_have_connections_of_their_own() {
        let mut sharing = Sharing::default();
        for under_way in 0..UNDER_WAY_MIN {
            assert!(!sharing.begin(under_way, START), "{under_way}");
        }
    }

    #[test]
    fn many_share_and_go_on_for_a_while() {
        let mut sharing = Sharing::default();
        assert!(sharing.begin(UNDER_WAY_MIN, START));
        // A trough of the wave.
        assert!(sharing.begin(0, START.plus_ms(999)));
        assert!(!sharing.begin(UNDER_WAY_MIN - 1, START.plus_ms(1_000)));
        // The next one begins anew.
        assert!(sharing.begin(UNDER_WAY_MIN + 50, START.plus_ms(5_000)));
        assert!(sharing.begin(1, START.plus_ms(5_500)));
    }
}
