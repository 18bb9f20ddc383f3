//! When requests of an open loop are meant to leave. Pure: time is an argument.
//!
//! A closed loop that waits for a slow answer sends nothing meanwhile, so the requests that would
//! have suffered are never measured (coordinated omission). Here every request has a time at which
//! it is meant to leave whatever happened to those before; its latency counts from then, also if no
//! connection was free.

use ringmesh_dataplane::time::Mono;

const NS_PER_SECOND: f64 = 1e9;

/// Evenly spaced departures from `start` up to, not including, `end`.
#[derive(Debug)]
pub(super) struct Schedule {
    start: Mono,
    end: Mono,
    interval_ns: f64,
    taken: u64,
}

impl Schedule {
    /// `rate`: departures per second, above zero.
    pub(super) fn new(start: Mono, end: Mono, rate: f64) -> Self {
        Self {
            start,
            end,
            interval_ns: NS_PER_SECOND / rate,
            taken: 0,
        }
    }

    /// The next departure that nobody has taken; `None` after the last.
    pub(super) fn next(&self) -> Option<Mono> {
        // From the start each time: adding up intervals would add up their rounding.
        let at = Mono(self.start.0 + (self.taken as f64 * self.interval_ns) as u64);
        (at < self.end).then_some(at)
    }

    /// Takes the next departure if it is due.
    pub(super) fn take(&mut self, now: Mono) -> Option<Mono> {
        let at = self.next().filter(|at| *at <= now)?;
        self.taken += 1;
        Some(at)
    }

    /// Departures due by `now` that nobody has taken.
    pub(super) fn waiting(&self, now: Mono) -> u64 {
        let until = now.min(Mono(self.end.0.saturating_sub(1)));
        if until < self.start {
            return 0;
        }
        let due = (until.since(self.start).as_nanos() as f64 / self.interval_ns) as u64 + 1;
        due.saturating_sub(self.taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_stall_makes_departures_late_not_fewer() {
        let mut schedule = Schedule::new(Mono(0), Mono(1_000 * MS), 100.0);
        assert_eq!(schedule.take(Mono(0)), Some(Mono(0)));
        assert_eq!(schedule.take(Mono(9 * MS)), None);
        // Nobody looked for 55 ms: the five of that time keep their own times.
        assert_eq!(schedule.waiting(Mono(55 * MS)), 5);
        let late: Vec<u64> = std::iter::from_fn(|| schedule.take(Mono(55 * MS)))
            .map(|at| at.0 / MS)
            .collect();
        assert_eq!(late, [10, 20, 30, 40, 50]);
        assert_eq!(schedule.waiting(Mono(55 * MS)), 0);
    }

    #[test]
    fn a_second_holds_exactly_the_rate_and_then_it_ends() {
        let mut schedule = Schedule::new(Mono(5), Mono(5 + 1_000 * MS), 3_000.0);
        assert_eq!(schedule.waiting(Mono(4)), 0);
        assert_eq!(schedule.waiting(Mono::NEVER), 3_000);
        let all = std::iter::from_fn(|| schedule.take(Mono::NEVER)).count();
        assert_eq!(all, 3_000);
        assert_eq!(schedule.next(), None);
        assert_eq!(schedule.waiting(Mono::NEVER), 0);
    }
}
