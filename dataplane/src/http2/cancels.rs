//! Streams that a peer opens and gives up (CVE-2023-44487): a bucket that fills with each and leaks over time. Pure.
//!
//! A client of this host may do it so often. A sidecar carries the streams of many clients, and gives up as many of
//! them as its rules' timeouts say while we hang or are slow: that is how it gets less of us, and must not end the
//! calls of everybody else. What makes an attack is that streams end before they count against
//! [`limits::STREAMS_MAX`]; so of a sidecar's cancels only those count that come right behind their stream. The
//! others are at most [`limits::STREAMS_MAX`] in [`limits::RAPID_MS`], which is what it may ask of us anyway.

use super::limits;
use crate::time::Mono;

/// The cancels of one connection of late.
#[derive(Debug)]
pub struct Cancels {
    level: u32,
    at: Mono,
    burst: u32,
    per_second: u32,
    /// Streams that were open for so long do not count, milliseconds.
    rapid_ms: u64,
}

impl Cancels {
    /// Of a client that has proven nothing.
    #[must_use]
    pub fn of_client(now: Mono) -> Self {
        Self {
            level: 0,
            at: now,
            burst: limits::CANCELS_BURST,
            per_second: limits::CANCELS_PER_SECOND,
            rapid_ms: u64::MAX,
        }
    }

    /// Of another sidecar.
    #[must_use]
    pub fn of_sidecar(now: Mono) -> Self {
        Self {
            level: 0,
            at: now,
            burst: limits::SIDECAR_CANCELS_BURST,
            per_second: limits::SIDECAR_CANCELS_PER_SECOND,
            rapid_ms: limits::RAPID_MS,
        }
    }

    /// A stream was given up that we had seen at `opened_at`.
    pub fn count(&mut self, opened_at: Mono, now: Mono) {
        if now.since(opened_at).as_millis() >= u128::from(self.rapid_ms) {
            return;
        }
        let leaked_ms = now.since(self.at).as_millis();
        let leaked = leaked_ms * u128::from(self.per_second) / 1_000;
        if leaked > 0 {
            self.level = self
                .level
                .saturating_sub(u32::try_from(leaked).unwrap_or(u32::MAX));
            self.at = now;
        }
        self.level += 1;
    }

    /// Whether it is a flood.
    #[must_use]
    pub fn are_a_flood(&self) -> bool {
        self.level > self.burst
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Mono = Mono(5_000_000_000);

    /// How many streams are opened and given up after `age_ms`, a hundred each `every_ms`, until it is a flood;
    /// `None`: it is none within a minute.
    fn borne(mut cancels: Cancels, age_ms: u64, every_ms: u64) -> Option<u64> {
        for round in 0..60_000 / every_ms {
            let opened_at = START.plus_ms(round * every_ms);
            for of_round in 1..=100 {
                cancels.count(opened_at, opened_at.plus_ms(age_ms));
                if cancels.are_a_flood() {
                    return Some(round * 100 + of_round);
                }
            }
        }
        None
    }

    #[test]
    fn a_client_is_held_to_little_however_long_its_streams_were_open() {
        for age_ms in [0, 10, 1_000] {
            assert_eq!(borne(Cancels::of_client(START), age_ms, 1_000), None);
            let borne = borne(Cancels::of_client(START), age_ms, 100).unwrap();
            assert!((400..500).contains(&borne), "{borne}");
        }
    }

    #[test]
    fn a_sidecars_cancels_count_where_they_come_right_behind_their_stream() {
        let of_sidecar = || Cancels::of_sidecar(START);
        // All its streams time out, time and again.
        assert_eq!(
            borne(of_sidecar(), limits::RAPID_MS, limits::RAPID_MS),
            None
        );
        // As we see it where we are slow ourselves: at once, but no more than it can have had under way.
        assert_eq!(borne(of_sidecar(), 0, 50), None);
        let borne = borne(of_sidecar(), 0, 1).unwrap();
        assert!((4_000..4_200).contains(&borne), "{borne}");
    }
}
