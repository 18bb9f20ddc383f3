//! Injected faults: the caller's sidecar delays or answers itself, for the share that was asked.

use std::time::Duration;

use super::Seen;
use crate::demo::cast::Cast;
use crate::demo::load::{Call, statuses, with_status};
use crate::demo::stage::Result;
use crate::demo::statistics::binomial_bounds;

fn call(cast: &Cast) -> Call<'static> {
    Call {
        to: cast.reviews_v2.sidecar.outbound(),
        authority: "ratings:9080",
        target: "/ratings/0",
        caller: "reviews/v2",
    }
}

pub(super) fn delay(cast: &mut Cast) -> Result<Seen> {
    const CALLS: u32 = 200;
    cast.with_rule("fault-delay.yaml", |cast| {
        // As many connections as calls, so that the row takes one delay and not twenty.
        let answers = call(cast).times(CALLS, CALLS)?;
        let delayed = answers
            .iter()
            .filter(|answer| answer.took >= Duration::from_millis(4_950))
            .count();
        let received = cast.ratings.app.count()?;
        let (low, high) = binomial_bounds(CALLS, 0.1);
        let share = u32::try_from(delayed).unwrap_or(u32::MAX);
        let good = with_status(&answers, 200) == CALLS
            && (low..=high).contains(&share)
            && received == u64::from(CALLS);
        Ok(Seen::new(
            good,
            format!(
                "{}; {delayed} delayed (bounds {low}-{high}); ratings received {received}",
                statuses(&answers)
            ),
        ))
    })
}

pub(super) fn abort(cast: &mut Cast) -> Result<Seen> {
    const CALLS: u32 = 2_000;
    cast.with_rule("fault-abort.yaml", |cast| {
        let answers = call(cast).times(CALLS, 8)?;
        let aborted = with_status(&answers, 400);
        let received = cast.ratings.app.count()?;
        let (low, high) = binomial_bounds(CALLS, 0.1);
        let good = aborted + with_status(&answers, 200) == CALLS
            && (low..=high).contains(&aborted)
            && received == u64::from(CALLS - aborted);
        Ok(Seen::new(
            good,
            format!(
                "{} (bounds {low}-{high}); ratings received {received}",
                statuses(&answers)
            ),
        ))
    })
}
