//! memquota on the users' own file, with real time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::Seen;
use crate::demo::cast::Cast;
use crate::demo::load::Call;
use crate::demo::stage::{Arrival, Node, NodePlan, Result, wait};

const FIVE: Duration = Duration::from_secs(5);
/// From the answer that took the unit until it is surely back, and from a call that takes it until one that must not
/// get it.
const BACK_AFTER: Duration = Duration::from_millis(5_200);
const TAKEN_AFTER: [Duration; 2] = [Duration::from_millis(4_500), Duration::from_millis(3_800)];
/// How often the calls are made anew where a busy machine answered one too late to tell.
const REPEATS_MAX: usize = 2;

pub(super) fn one_per_five(cast: &mut Cast) -> Result<Seen> {
    cast.with_rule("memquota.yaml", |cast| {
        let mut calls = four_calls(cast)?;
        for _ in 0..REPEATS_MAX {
            if calls.in_time {
                break;
            }
            wait::pass(BACK_AFTER);
            calls = four_calls(cast)?;
        }
        Ok(calls.seen)
    })
}

struct Calls {
    seen: Seen,
    /// Those that were to be refused were answered while the unit was surely out.
    in_time: bool,
}

/// When the unit was taken is known no better than between a call and its answer: what must be refused has to be
/// answered within 5 s of the call, what must be admitted is sent more than 5 s after the answer.
fn four_calls(cast: &Cast) -> Result<Calls> {
    cast.ratings.app.reset()?;
    let mut statuses = Vec::new();
    let mut call = || {
        let answer = cast.reviews_v3.call("ratings", "/ratings/0", &[])?;
        statuses.push(answer.status);
        Ok::<_, String>(Instant::now())
    };
    let mut in_time = true;
    for refused_after in TAKEN_AFTER {
        let sent = Instant::now();
        let answered = call()?;
        wait::until_after(sent, refused_after);
        in_time &= call()?.duration_since(sent) < FIVE;
        wait::until_after(answered, BACK_AFTER);
    }
    let received = cast.ratings.app.count()?;
    let late = if in_time {
        ""
    } else {
        "; answered too late to tell"
    };
    let seen = Seen::new(
        in_time && statuses == [200, 429, 200, 429] && received == 2,
        format!("{statuses:?}; ratings received {received}{late}"),
    );
    Ok(Calls { seen, in_time })
}

const CALLERS: [&str; 2] = ["reviews/v2", "productpage/v1"];
const LIMIT: usize = 5;
const WINDOW_US: u64 = 10_000_000;
/// What is counted are arrivals at the app, on a busy machine up to this long after admission. A limit that is forgotten
/// shows all the same: bursts come twice a second.
const ARRIVAL_US_MAX: u64 = 1_000_000;

pub(super) fn five_per_ten(cast: &mut Cast) -> Result<Seen> {
    let plan = NodePlan::new("ratings", "v1", "2", cast.stage.block.ip(32));
    let mut second = Node::start(&cast.stage, &cast.control, plan)?;
    second.sidecar.wait_ready()?;
    let calls = [&cast.reviews_v2, &cast.productpage].map(|node| node.sidecar.outbound());
    let call = |index: usize| Call {
        to: calls[index],
        authority: "ratings:9080",
        target: "/ratings/0",
        caller: CALLERS[index],
    };
    // Both callers must know the second sidecar before the limit counts.
    wait::until_true(
        "calls to the second ratings",
        Duration::from_secs(10),
        || {
            let both = (0..2).all(|index| call(index).times(8, 1).is_ok());
            both && callers(&second)
                .is_ok_and(|seen| CALLERS.iter().all(|name| seen.contains_key(*name)))
        },
    )?;
    cast.ratings.app.reset()?;
    second.app.reset()?;
    let seen = cast.with_rule("memquota.yaml", |cast| {
        let start = Instant::now();
        for burst in 0..26 {
            wait::until_after(start, Duration::from_millis(burst * 500));
            std::thread::scope(|scope| {
                let threads = [0, 1].map(|index| scope.spawn(move || call(index).times(10, 5)));
                threads.into_iter().try_for_each(|thread| {
                    thread
                        .join()
                        .map_err(|_| "a caller's thread panicked".to_owned())?
                        .map(|_| ())
                })
            })?;
        }
        judge(cast, &second)
    });
    second.sidecar.process.stop()?;
    seen
}

fn judge(cast: &Cast, second: &Node) -> Result<Seen> {
    let mut all = callers(&cast.ratings)?;
    let mut providers = [cast.ratings.app.count()?, second.app.count()?];
    for (caller, times) in callers(second)? {
        all.entry(caller).or_default().extend(times);
    }
    providers.sort_unstable();
    let mut good = all.len() == CALLERS.len();
    let mut words = Vec::new();
    for (caller, mut times) in all {
        times.sort_unstable();
        let first = times.first().copied().unwrap_or(0);
        let early = times
            .iter()
            .filter(|at| **at < first + WINDOW_US - ARRIVAL_US_MAX)
            .count();
        let most = times
            .iter()
            .map(|end| {
                times
                    .iter()
                    .filter(|at| **at <= *end && **at + WINDOW_US - ARRIVAL_US_MAX > *end)
                    .count()
            })
            .max()
            .unwrap_or(0);
        good &= early == LIMIT && times.len() == 2 * LIMIT && most <= LIMIT;
        let offsets: Vec<String> = times
            .iter()
            .map(|at| format!("{:.1}", Duration::from_micros(at - first).as_secs_f64()))
            .collect();
        words.push(format!(
            "{caller}: {early} in the first 10 s, {} in all, at most {most} in any 10 s (at {} s)",
            times.len(),
            offsets.join(" ")
        ));
    }
    words.push(format!("by sidecar {} and {}", providers[0], providers[1]));
    Ok(Seen::new(good, words.join("; ")))
}

/// Arrival times by caller.
fn callers(node: &Node) -> Result<BTreeMap<String, Vec<u64>>> {
    let mut times: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for Arrival { caller, at_us, .. } in node.app.arrivals()? {
        times.entry(caller).or_default().push(at_us);
    }
    Ok(times)
}
