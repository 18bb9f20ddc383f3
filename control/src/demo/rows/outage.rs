//! The control service dies with a quota active and traffic going on, and comes back.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Seen;
use crate::demo::cast::Cast;
use crate::demo::load::{Call, statuses, with_status};
use crate::demo::stage::{Answer, Result, wait};

/// Longer than the 5 s window, so that a limit that is forgotten shows.
const OUTAGE: Duration = Duration::from_secs(7);
/// The 5 s between two admissions, less a second: what is seen are arrivals at the app, of which the first may be later
/// than the second by that on a busy machine. v3 tries all the time, so a limit that is forgotten shows as far less.
const GAP_MIN_US: u64 = 4_000_000;

pub(super) fn play(cast: &mut Cast) -> Result<Seen> {
    let quota = cast.rule("quota-complete.yaml");
    let denier = cast.rule("denier-complete.yaml");
    cast.control.apply(&quota)?;
    let stop = AtomicBool::new(false);
    let traffic = Call {
        to: cast.productpage.sidecar.outbound(),
        authority: "details:9080",
        target: "/details/0",
        caller: "productpage/v1",
    };
    let limited = Call {
        to: cast.reviews_v3.sidecar.outbound(),
        authority: "ratings:9080",
        target: "/ratings/0",
        caller: "reviews/v3",
    };
    let (answers, tries, applied, denied) = std::thread::scope(|scope| {
        let traffic = scope.spawn(|| paced(traffic, &stop));
        let tries = scope.spawn(|| paced(limited, &stop));
        let played = kill_and_restart(cast, &denier);
        stop.store(true, Ordering::Relaxed);
        let join = |thread: std::thread::ScopedJoinHandle<'_, Result<Vec<Answer>>>| {
            thread
                .join()
                .map_err(|_| "a caller's thread panicked".to_owned())?
        };
        let (answers, tries) = (join(traffic)?, join(tries)?);
        let (applied, denied) = played?;
        Ok::<_, String>((answers, tries, applied, denied))
    })?;
    let mut times: Vec<u64> = cast
        .ratings
        .app
        .arrivals()?
        .iter()
        .map(|arrival| arrival.at_us)
        .collect();
    times.sort_unstable();
    let closest_us = times.windows(2).map(|pair| pair[1] - pair[0]).min();
    cast.control.delete(&denier)?;
    cast.control.delete(&quota)?;
    let all_good = with_status(&answers, 200) as usize == answers.len() && !answers.is_empty();
    let within_limit = closest_us.is_none_or(|gap| gap >= GAP_MIN_US);
    Ok(Seen::new(
        all_good && within_limit && !times.is_empty() && denied == 403,
        format!(
            "traffic: {}; v3 tried {} times, ratings received {}, closest {}; rule applied {applied:.1} s after the restart began, v3 then {denied}",
            statuses(&answers),
            tries.len(),
            times.len(),
            closest_us.map_or("-".to_owned(), |gap| format!(
                "{:.1} s apart",
                Duration::from_micros(gap).as_secs_f64()
            )),
        ),
    ))
}

/// Kills, waits, restarts and applies a rule: seconds from restart to applied, and what v3 then gets.
fn kill_and_restart(cast: &mut Cast, denier: &std::path::Path) -> Result<(f64, u16)> {
    wait::until_true("the first limited call", Duration::from_secs(5), || {
        cast.ratings.app.count().is_ok_and(|count| count > 0)
    })?;
    cast.control.process.kill();
    wait::pass(OUTAGE);
    let start = Instant::now();
    cast.control.restart()?;
    cast.control.apply(denier)?;
    let applied = start.elapsed().as_secs_f64();
    let denied = wait::until("the new rule", Duration::from_secs(10), || {
        match cast.reviews_v3.call("ratings", "/ratings/0", &[])?.status {
            403 => Ok(403),
            status => Err(format!("v3 gets {status}")),
        }
    })?;
    Ok((applied, denied))
}

/// About a hundred calls a second: below the 5,000 per second of the file's default.
fn paced(call: Call<'_>, stop: &AtomicBool) -> Result<Vec<Answer>> {
    let mut answers = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        answers.extend(call.times(1, 1)?);
        wait::pass(Duration::from_millis(10));
    }
    Ok(answers)
}
