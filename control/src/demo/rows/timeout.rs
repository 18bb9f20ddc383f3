//! Time limits on a callee that hangs.

use std::time::Duration;

use super::Seen;
use crate::demo::cast::Cast;
use crate::demo::stage::{Answer, Arrival, Result};

pub(super) fn timeout(cast: &mut Cast) -> Result<Seen> {
    let (answer, arrivals) = call_hanging(cast, "timeout-10s.yaml")?;
    // Less than the 15 s that hold without the rule.
    let in_time = between(answer.took, 9_900, 14_000);
    Ok(Seen::new(
        answer.status == 504 && in_time && arrivals.len() == 1,
        format!(
            "{} after {}; ratings received {}",
            answer.status,
            seconds(answer.took),
            arrivals.len()
        ),
    ))
}

pub(super) fn retries(cast: &mut Cast) -> Result<Seen> {
    let (answer, arrivals) = call_hanging(cast, "retries-3x2s.yaml")?;
    let apart: Vec<Duration> = arrivals
        .windows(2)
        .map(|pair| Duration::from_micros(pair[1].at_us.saturating_sub(pair[0].at_us)))
        .collect();
    // Back-off adds little: full jitter up to 25, 75 and 175 ms. The upper bounds leave a busy machine its time; that
    // tries are given up after 2 s and no sooner is in the lower ones, and that all were made in their number.
    let good = answer.status == 504
        && arrivals.len() == 4
        && apart.iter().all(|gap| between(*gap, 1_950, 5_000))
        && between(answer.took, 7_900, 15_000);
    let gaps: Vec<String> = apart.iter().map(|gap| seconds(*gap)).collect();
    Ok(Seen::new(
        good,
        format!(
            "{} after {}; ratings received {}, apart {}",
            answer.status,
            seconds(answer.took),
            arrivals.len(),
            gaps.join(" ")
        ),
    ))
}

fn call_hanging(cast: &Cast, rule: &str) -> Result<(Answer, Vec<Arrival>)> {
    cast.with_rule(rule, |cast| {
        cast.ratings.app.mode("hang")?;
        let answer = cast.reviews_v3.call("ratings", "/ratings/0", &[]);
        let arrivals = cast.ratings.app.arrivals();
        cast.ratings.app.mode("ok")?;
        Ok((answer?, arrivals?))
    })
}

fn between(time: Duration, low_ms: u64, high_ms: u64) -> bool {
    (Duration::from_millis(low_ms)..=Duration::from_millis(high_ms)).contains(&time)
}

fn seconds(time: Duration) -> String {
    format!("{:.2} s", time.as_secs_f64())
}
