//! When to renew the workload's certificate (pure).
//!
//! At half of its life with a jitter of one hundredth, so that a mesh that was started at once does
//! not renew at once. A failed renewal leaves the certificate in use and is tried
//! again, further and further apart but several times before the end. An expired certificate is
//! never used; renewal goes on by the node credential.

use std::time::Duration;

/// Milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct UnixMs(pub u64);

impl UnixMs {
    /// The system's clock.
    #[must_use]
    pub fn now() -> Self {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Self(since.map_or(0, |since| {
            u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
        }))
    }

    /// Time from here to `later`; zero if that is past.
    #[must_use]
    pub fn until(self, later: Self) -> Duration {
        Duration::from_millis(later.0.saturating_sub(self.0))
    }
}

/// From when to when a certificate counts, as far as renewal is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// When we got it. Not notBefore: that is dated back against skew, which for a certificate of
    /// seconds is many lives.
    pub obtained: UnixMs,
    /// notAfter.
    pub expires: UnixMs,
}

/// Shortest wait between two attempts.
const RETRY_MS_MIN: u64 = 100;
/// Longest wait between two attempts.
const RETRY_MS_MAX: u64 = 60_000;

/// The plan for one certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    life: Life,
    due: UnixMs,
    next: UnixMs,
    failures: u32,
}

impl Renewal {
    /// A plan for a certificate just obtained, jittered by `random`.
    #[must_use]
    pub fn plan(life: Life, random: u64) -> Self {
        let span = life.expires.0.saturating_sub(life.obtained.0);
        // 0.49 to 0.51 in ten thousandths: 4,900 to 5,100.
        let share = 4_900 + random % 201;
        let due = UnixMs(life.obtained.0 + (u128::from(span) * u128::from(share) / 10_000) as u64);
        Self {
            life,
            due,
            next: due,
            failures: 0,
        }
    }

    /// When the next attempt is to be made.
    #[must_use]
    pub fn next(&self) -> UnixMs {
        self.next
    }

    /// How long the next attempt is off at `now`; zero when it is due. A time of it that is further off than any
    /// wait can be was reckoned by a clock that has been put back since.
    #[must_use]
    pub fn wait(&self, now: UnixMs) -> Duration {
        if now < self.due {
            return now.until(self.due);
        }
        match now.until(self.next) {
            wait if wait > Duration::from_millis(RETRY_MS_MIN + RETRY_MS_MAX) => Duration::ZERO,
            wait => wait,
        }
    }

    /// An attempt failed at `now`.
    pub fn failed(&mut self, now: UnixMs, random: u64) {
        // A twentieth of what is left after half-life gives several tries even with certificates
        // of seconds; the doubling keeps a long outage from filling logs.
        let span = self.life.expires.0.saturating_sub(self.life.obtained.0);
        let base = (span / 40).clamp(RETRY_MS_MIN, RETRY_MS_MAX);
        let bound = base
            .saturating_mul(1_u64 << self.failures.min(6))
            .min(RETRY_MS_MAX);
        self.failures = self.failures.saturating_add(1);
        let wait = RETRY_MS_MIN + random % bound;
        let mut next = now.0.saturating_add(wait);
        // The last chance is taken just before the end rather than after it.
        let last_chance = self.life.expires.0.saturating_sub(base);
        if now.0 < last_chance && next > last_chance {
            next = last_chance;
        }
        self.next = UnixMs(next);
    }

    /// Attempts that failed for this certificate.
    #[must_use]
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// Whether the certificate may be used at `now`.
    #[must_use]
    pub fn usable(&self, now: UnixMs) -> bool {
        now < self.life.expires
    }

    /// Whether people should be woken: half-life is over and at least one renewal failed.
    #[must_use]
    pub fn alarming(&self, now: UnixMs) -> bool {
        self.failures > 0 && now >= self.due
    }

    /// The life planned for.
    #[must_use]
    pub fn life(&self) -> Life {
        self.life
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY_MS: u64 = 86_400_000;

    fn life(span: u64) -> Life {
        Life {
            obtained: UnixMs(1_000_000),
            expires: UnixMs(1_000_000 + span),
        }
    }

    #[test]
    fn it_is_due_at_half_life_give_or_take_a_hundredth() {
        let due = |random| Renewal::plan(life(DAY_MS), random).next().0 - 1_000_000;
        assert_eq!(due(0), DAY_MS * 49 / 100);
        assert_eq!(due(100), DAY_MS / 2);
        assert_eq!(due(200), DAY_MS * 51 / 100);
    }

    #[test]
    fn a_clock_that_was_put_back_does_not_put_the_next_attempt_off() {
        let mut plan = Renewal::plan(life(DAY_MS), 100);
        let due = plan.next();
        assert_eq!(plan.wait(UnixMs(due.0 - 1_000)), Duration::from_secs(1));
        assert_eq!(plan.wait(due), Duration::ZERO);
        // Years ahead, where every attempt fails.
        plan.failed(UnixMs(due.0 + 1_000 * DAY_MS), 0);
        assert_eq!(plan.wait(due), Duration::ZERO);
        // And an honest failure is waited for.
        plan.failed(due, 5);
        assert!(plan.wait(due) > Duration::ZERO);
        assert_eq!(plan.wait(plan.next()), Duration::ZERO);
    }

    #[test]
    fn a_certificate_of_five_seconds_gets_several_tries_before_its_end() {
        let mut plan = Renewal::plan(life(5_000), 77);
        let mut tries = 0;
        while plan.next() < plan.life().expires {
            tries += 1;
            plan.failed(plan.next(), u64::MAX);
            assert!(tries < 100);
        }
        assert!(tries >= 3, "{tries}");
        assert!(plan.alarming(plan.next()));
        assert!(!plan.usable(plan.next()));
    }

    proptest! {
        #[test]
        fn it_never_stops_and_never_hurries(
            span in 1_000..90 * DAY_MS,
            randoms in proptest::collection::vec(any::<u64>(), 1..200),
        ) {
            let mut plan = Renewal::plan(life(span), randoms[0]);
            prop_assert!(plan.next() < plan.life().expires);
            let mut tried_near_the_end = false;
            for random in randoms {
                let now = plan.next();
                plan.failed(now, random);
                let wait = now.until(plan.next()).as_millis();
                prop_assert!(wait >= 1 && wait <= u128::from(RETRY_MS_MAX + RETRY_MS_MIN));
                if now.0 < plan.life().expires.0 && plan.next().0 >= plan.life().expires.0 {
                    tried_near_the_end =
                        now.until(plan.life().expires).as_millis() <= u128::from(RETRY_MS_MAX);
                    prop_assert!(tried_near_the_end);
                }
            }
            let _ = tried_near_the_end;
        }

        #[test]
        fn an_already_expired_certificate_is_due_at_once(past in 0..DAY_MS, random in any::<u64>()) {
            let plan = Renewal::plan(
                Life { obtained: UnixMs(DAY_MS), expires: UnixMs(past) }, random);
            prop_assert_eq!(plan.next(), UnixMs(DAY_MS));
            prop_assert!(!plan.usable(UnixMs(DAY_MS)));
        }
    }
}
