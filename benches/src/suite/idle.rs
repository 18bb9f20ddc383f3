//! Memory of idle connections, and of a sidecar that has nothing to do.

use std::time::{Duration, Instant};

use super::bench::Bench;
use super::contender::Contender;
use super::peers::Serving;
use super::results::{Found, Round, Series};
use super::rounds::{self, Plan};
use super::scenario::Scenario;
use crate::figures::Figure;
use crate::problem::Problem;
use crate::process;

/// Idle connections, as the load of the scenario says.
const CONNECTIONS: f64 = 10_000.0;
/// How long they are idle until memory is looked at: what is given back late is given back.
const IDLE: Duration = Duration::from_secs(10);
/// Opening them all may take this long.
const OPENED: Duration = Duration::from_secs(60);
/// What a process does right after its start is not its rest.
const STARTED: Duration = Duration::from_secs(2);
/// How long wake-ups are counted.
const WATCHED: Duration = Duration::from_secs(10);
/// From the end of the load until memory is looked at.
const RESTED: Duration = Duration::from_secs(30);

/// Resident bytes per idle connection: each contender once.
pub(super) fn connections(
    bench: &Bench,
    contenders: &[Contender],
    faults: &mut Vec<String>,
) -> Result<Found, Problem> {
    let scenario = Scenario::Idle;
    each(bench, scenario, contenders, faults, |serving| {
        bench.pause(STARTED)?;
        let before = process::rss_kib(&serving.roots);
        let to = serving.at.to_string();
        let hold = (IDLE + OPENED).as_secs().to_string();
        let load = [scenario.load(), &["--to", &to, "--hold", &hold]].concat();
        let mut load = bench.start_load(&load)?;
        load.says(&format!("idle {CONNECTIONS}"))?;
        bench.pause(IDLE)?;
        let after = process::rss_kib(&serving.roots);
        if load.ended()?.is_some() {
            return Err(load.problem("lost idle connections"));
        }
        drop(load);
        for books in &mut serving.books {
            books.agree_after(CONNECTIONS as u64)?;
        }
        let grown = after.saturating_sub(before) as f64 * 1024.0;
        Ok([
            (Figure::IdleConnectionBytes, grown / CONNECTIONS),
            (Figure::RssMib, after as f64 / 1024.0),
        ]
        .into())
    })
}

/// Memory and wake-ups, fresh and after `plan.length` of load.
pub(super) fn at_rest(
    bench: &Bench,
    plan: &Plan<'_>,
    faults: &mut Vec<String>,
) -> Result<Found, Problem> {
    let scenario = Scenario::AtRest;
    each(bench, scenario, plan.contenders, faults, |serving| {
        bench.pause(STARTED)?;
        let fresh = process::rss_kib(&sidecar(serving));
        let outcome = bench.load(scenario, &[], serving.at, plan.length)?;
        for books in &mut serving.books {
            books.agree_after(outcome.requests)?;
        }
        bench.pause(RESTED - WATCHED)?;
        let (before, begun) = (process::sleeps(&serving.roots), Instant::now());
        bench.pause(WATCHED)?;
        let after = process::sleeps(&serving.roots);
        let seconds = begun.elapsed().as_secs_f64();
        let per_second = |which: fn(&str) -> bool| {
            let of = |counts: &std::collections::BTreeMap<String, u64>| {
                let which = counts.iter().filter(|(name, _)| which(name));
                which.map(|(_, count)| *count).sum::<u64>()
            };
            of(&after).saturating_sub(of(&before)) as f64 / seconds
        };
        let rested = process::rss_kib(&sidecar(serving));
        Ok([
            (Figure::FreshMib, fresh as f64 / 1024.0),
            (Figure::AfterLoadMib, rested as f64 / 1024.0),
            (
                Figure::ShardWakeUpsPerS,
                per_second(|name| name.starts_with("shard")),
            ),
            (
                Figure::AgentWakeUpsPerS,
                per_second(|name| name.starts_with("ringmesh")),
            ),
        ]
        .into())
    })
}

/// The sidecar alone, without the shell that started it.
fn sidecar(serving: &Serving) -> Vec<u32> {
    process::tree(&serving.roots)
        .into_iter()
        .filter(|pid| !serving.roots.contains(pid))
        .collect()
}

/// Measures each contender alone, one after the other.
fn each(
    bench: &Bench,
    scenario: Scenario,
    contenders: &[Contender],
    faults: &mut Vec<String>,
    measure: impl Fn(&mut Serving) -> Result<std::collections::BTreeMap<Figure, f64>, Problem>,
) -> Result<Found, Problem> {
    let mut all: Vec<Series> = Vec::new();
    for contender in contenders {
        let (mut series, serving) = rounds::start(bench, scenario, *contender, faults)?;
        if let Some(mut serving) = serving {
            match measure(&mut serving) {
                Ok(figures) => {
                    let shown = figures.iter();
                    let shown: Vec<String> = shown
                        .map(|(figure, value)| {
                            format!("{} {}", figure.show(*value), figure.title())
                        })
                        .collect();
                    let title = contender.title();
                    bench.tell(&format!(
                        "{}: {title:<20} {}",
                        scenario.name(),
                        shown.join(", ")
                    ));
                    series.rounds.push(Round {
                        figures,
                        latency: Vec::new(),
                    });
                }
                Err(Problem::Interrupted) => return Err(Problem::Interrupted),
                Err(problem) => faults.push(format!(
                    "{}: {}: {problem}",
                    scenario.name(),
                    contender.title()
                )),
            }
        }
        all.push(series);
    }
    Ok(Found {
        scenario,
        about: scenario.about(),
        series: all,
    })
}
