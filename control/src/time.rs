//! Monotonic time as an argument: pure rooms never ask a clock.

use std::ops::{Add, Sub};
use std::time::{Duration, Instant};

/// A moment on the monotonic clock: time since an origin that the process chose once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mono(pub Duration);

impl Add<Duration> for Mono {
    type Output = Self;

    fn add(self, wait: Duration) -> Self {
        Self(self.0.saturating_add(wait))
    }
}

impl Sub for Mono {
    type Output = Duration;

    /// Time since `earlier`; zero if it is later.
    fn sub(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// The process's clock; only shells hold one.
#[derive(Debug, Clone, Copy)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that starts at zero.
    #[must_use]
    pub fn start() -> Self {
        Self {
            origin: Instant::now(),
        }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Mono {
        Mono(self.origin.elapsed())
    }

    /// The instant of a moment, for timers.
    #[must_use]
    pub fn instant(&self, at: Mono) -> Instant {
        self.origin + at.0
    }
}

/// Reads a life as people write it: a whole number and `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// What would be right.
pub fn parse_life(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write e.g. 5s, 30m, 24h or 90d");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(wrong()),
    };
    let ms = number.checked_mul(unit_ms).ok_or_else(wrong)?;
    // A century bounds every sum with a clock.
    if ms == 0 || ms > 100 * 365 * 86_400_000 {
        return Err(format!(
            "{text:?} is out of range; between 1ms and 36500d is possible"
        ));
    }
    Ok(Duration::from_millis(ms))
}

/// A time as people read it: `2026-01-31T12:00:00Z`.
#[must_use]
pub fn show_unix_ms(ms: u64) -> String {
    let seconds = ms / 1_000;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Days to civil date: Howard Hinnant, "chrono-compatible low-level date algorithms".
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_read_strictly() {
        assert_eq!(parse_life("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_life("90d"), Ok(Duration::from_secs(90 * 86_400)));
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "1.5h",
            "5 s",
            "0s",
            "99999999999d",
            "18446744073709551615d",
        ] {
            assert!(parse_life(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(show_unix_ms(0), "1970-01-01T00:00:00Z");
        assert_eq!(show_unix_ms(951_782_400_000), "2000-02-29T00:00:00Z");
        assert_eq!(show_unix_ms(1_767_225_599_999), "2025-12-31T23:59:59Z");
    }
}
