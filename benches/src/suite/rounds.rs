//! Interleaved rounds: every contender once per round, so that a slow minute of the machine hits all.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::bench::Bench;
use super::contender::Contender;
use super::peers::{self, Caller, NotServing, Serving, Speech, Stage};
use super::results::{Found, Round, Series};
use super::scenario::Scenario;
use crate::figures::{Figure, spread};
use crate::load::Outcome;
use crate::problem::Problem;
use crate::process;
use crate::stolen::Ticks;

/// A first load, not measured: pools fill, pages are touched.
const FIRST: Duration = Duration::from_millis(300);

/// How much is measured.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    pub(super) rounds: u32,
    pub(super) length: Duration,
    pub(super) contenders: &'a [Contender],
}

/// A contender on the track.
#[derive(Debug)]
struct Runner {
    contender: Contender,
    serving: Serving,
    /// Arguments of its load beside those of the scenario.
    load: Vec<String>,
    rounds: Vec<Round>,
}

/// Measures `scenario`; what goes wrong with one contender goes to `faults` and does not stop the
/// others.
pub(super) fn run(
    bench: &Bench,
    scenario: Scenario,
    plan: &Plan<'_>,
    faults: &mut Vec<String>,
) -> Result<Found, Problem> {
    let mut all: Vec<Series> = Vec::new();
    let mut runners = Vec::new();
    for contender in plan.contenders {
        let (series, serving) = start(bench, scenario, *contender, faults)?;
        all.push(series);
        runners.extend(serving.map(|serving| {
            Runner {
                contender: *contender,
                load: serving
                    .caller
                    .as_ref()
                    .map_or_else(Vec::new, Caller::arguments),
                serving,
                rounds: Vec::new(),
            }
        }));
    }
    for runner in &mut runners {
        let outcome = bench.load(scenario, &runner.load, runner.serving.at, FIRST)?;
        settle(scenario, runner, &outcome, faults);
    }
    if let Some(share) = scenario.share_of_haproxy() {
        let Some(rate) = haproxys_rate(bench, scenario, plan.length, &mut runners, faults)? else {
            return Ok(without_haproxy(scenario, all));
        };
        for runner in &mut runners {
            runner.load = vec!["--rate".to_owned(), (rate * share).to_string()];
        }
    }
    for number in 0..plan.rounds as usize {
        // Nobody always comes first.
        let count = runners.len();
        for turn in 0..count {
            let runner = &mut runners[(number + turn) % count];
            let round = match scenario {
                Scenario::MtlsHandshakes => {
                    handshakes(bench, scenario, runner, plan.length, faults)?
                }
                _ => measure(bench, scenario, runner, plan.length, faults)?,
            };
            tell(bench, scenario, number + 1, runner.contender, &round);
            runner.rounds.push(round);
        }
        add_differences(&mut runners);
    }
    for runner in runners {
        let mut series = all.iter_mut();
        if let Some(series) = series.find(|series| series.contender == runner.contender) {
            series.rounds = runner.rounds;
        }
    }
    Ok(Found {
        scenario,
        about: scenario.about(),
        series: all,
    })
}

/// Starts `contender`, or says in its series why it is not there.
pub(super) fn start(
    bench: &Bench,
    scenario: Scenario,
    contender: Contender,
    faults: &mut Vec<String>,
) -> Result<(Series, Option<Serving>), Problem> {
    let mut series = Series {
        contender,
        title: contender.title(),
        version: String::new(),
        absent: None,
        rounds: Vec::new(),
    };
    let started = match bench.programs.version(contender) {
        Ok(version) => {
            series.version = version;
            let upstream = bench.app.of(scenario);
            upstream.and_then(|upstream| {
                let stage = Stage {
                    programs: &bench.programs,
                    dir: &folder(bench, scenario, contender),
                    cpus: &bench.proxy_cpus,
                    upstream,
                };
                peers::start(contender, scenario.speech(), scenario.shape(), &stage)
            })
        }
        Err(why) => Err(NotServing::Absent(why)),
    };
    let why = match started {
        Ok(serving) => return Ok((series, Some(serving))),
        Err(NotServing::Absent(why)) => why,
        Err(NotServing::Broken(problem)) => {
            bench.pause(Duration::ZERO)?;
            faults.push(format!("{}: {problem}", scenario.name()));
            "it did not start".to_owned()
        }
    };
    bench.tell(&format!(
        "{}: {} is absent: {why}",
        scenario.name(),
        contender.title()
    ));
    series.absent = Some(why);
    Ok((series, None))
}

/// A contender's own folder in a scenario.
fn folder(bench: &Bench, scenario: Scenario, contender: Contender) -> PathBuf {
    let name = format!("{}-{contender:?}", scenario.name());
    let folder = bench.scratch.path().join(name);
    // A second start in one scenario finds nothing of the first.
    let _ = fs::remove_dir_all(&folder);
    folder
}

/// Loads that find out what HAProxy answers in a closed loop.
const FINDING: usize = 3;

/// What HAProxy answers per second in a closed loop, if it is there.
fn haproxys_rate(
    bench: &Bench,
    scenario: Scenario,
    length: Duration,
    runners: &mut [Runner],
    faults: &mut Vec<String>,
) -> Result<Option<f64>, Problem> {
    let mut all = runners.iter_mut();
    let Some(haproxy) = all.find(|runner| runner.contender == Contender::Haproxy) else {
        return Ok(None);
    };
    let mut rates = Vec::new();
    for _ in 0..FINDING {
        let outcome = bench.load(scenario, &[], haproxy.serving.at, length)?;
        settle(scenario, haproxy, &outcome, faults);
        rates.push(outcome.rps);
    }
    Ok(spread(rates).map(|spread| spread.median))
}

/// Nobody runs at a share of an unknown rate.
fn without_haproxy(scenario: Scenario, mut all: Vec<Series>) -> Found {
    for series in &mut all {
        let why = "HAProxy, whose rate is shared, is not there";
        series.absent.get_or_insert_with(|| why.to_owned());
    }
    Found {
        scenario,
        about: scenario.about(),
        series: all,
    }
}

fn measure(
    bench: &Bench,
    scenario: Scenario,
    runner: &mut Runner,
    length: Duration,
    faults: &mut Vec<String>,
) -> Result<Round, Problem> {
    let roots = runner.serving.roots.clone();
    let ticks = Ticks::now();
    let (before, begun) = (process::cpu_us(&roots), Instant::now());
    let outcome = bench.load(scenario, &runner.load, runner.serving.at, length)?;
    let cpu_us = process::cpu_us(&roots).saturating_sub(before) as f64;
    let busy = cpu_us / begun.elapsed().as_micros() as f64 * 100.0;
    let rss_mib = process::rss_kib(&roots) as f64 / 1024.0;
    let mut figures = BTreeMap::new();
    figures.extend(stolen_since(ticks));
    settle(scenario, runner, &outcome, faults);
    let bulk = scenario == Scenario::TcpBulk;
    if !roots.is_empty() {
        if bulk {
            let gib = outcome.bytes as f64 / f64::from(1 << 30);
            figures.insert(Figure::CpuSPerGib, cpu_us / 1e6 / gib);
        } else {
            figures.insert(Figure::CpuUs, cpu_us / outcome.requests as f64);
        }
        figures.insert(Figure::BusyPercent, busy);
        figures.insert(Figure::RssMib, rss_mib);
    }
    if bulk {
        let rate = outcome.bytes_per_second / f64::from(1 << 30);
        figures.insert(Figure::GibPerS, rate);
        return Ok(Round {
            figures,
            latency: Vec::new(),
        });
    }
    figures.insert(Figure::Rps, outcome.rps);
    // h2load tells none.
    if outcome.percentiles.is_empty() {
        return Ok(Round {
            figures,
            latency: Vec::new(),
        });
    }
    figures.extend([
        (Figure::P50Us, outcome.p50_us),
        (Figure::P99Us, outcome.p99_us),
        (Figure::P999Us, outcome.p999_us),
        (Figure::MaxUs, outcome.max_us),
    ]);
    Ok(Round {
        figures,
        latency: outcome.percentiles,
    })
}

/// Half of `length` full handshakes, half of it resumed ones.
fn handshakes(
    bench: &Bench,
    scenario: Scenario,
    runner: &mut Runner,
    length: Duration,
    faults: &mut Vec<String>,
) -> Result<Round, Problem> {
    let roots = runner.serving.roots.clone();
    let resume: &[String] = &["--resume".to_owned()];
    let ticks = Ticks::now();
    let mut figures = BTreeMap::new();
    for (figure, more) in [
        (Figure::FullHandshakeUs, &[][..]),
        (Figure::ResumedHandshakeUs, resume),
    ] {
        let load = [&runner.load, more].concat();
        let before = process::cpu_us(&roots);
        let outcome = bench.load(scenario, &load, runner.serving.at, length / 2)?;
        let cpu_us = process::cpu_us(&roots).saturating_sub(before) as f64;
        settle(scenario, runner, &outcome, faults);
        figures.insert(figure, cpu_us / outcome.requests as f64);
    }
    let rss_mib = process::rss_kib(&roots) as f64 / 1024.0;
    figures.insert(Figure::RssMib, rss_mib);
    figures.extend(stolen_since(ticks));
    Ok(Round {
        figures,
        latency: Vec::new(),
    })
}

fn stolen_since(earlier: Option<Ticks>) -> Option<(Figure, f64)> {
    let percent = Ticks::now()?.stolen_percent_since(earlier?);
    Some((Figure::StolenPercent, percent))
}

/// Looks whether all went well, and whether our books agree.
fn settle(scenario: Scenario, runner: &mut Runner, outcome: &Outcome, faults: &mut Vec<String>) {
    let who = format!("{}: {}", scenario.name(), runner.contender.title());
    if outcome.errors + outcome.refused > 0 {
        let first = outcome
            .first_error
            .as_deref()
            .unwrap_or("an answer refused");
        faults.push(format!(
            "{who}: {} errors, {} refused: {first}",
            outcome.errors, outcome.refused
        ));
    }
    if let Err(problem) = runner.serving.check() {
        faults.push(format!("{who}: {problem}"));
    }
    let exchanges = match scenario.speech() {
        Speech::Tcp => outcome.connects,
        Speech::Http1 | Speech::Http2 => outcome.requests,
    };
    for books in &mut runner.serving.books {
        if let Err(problem) = books.agree_after(exchanges) {
            faults.push(format!("{who}: {problem}"));
        }
    }
}

/// What each adds to direct in the round that all have just had.
fn add_differences(runners: &mut [Runner]) {
    let latest = |runner: &Runner, figure| runner.rounds.last()?.figures.get(&figure).copied();
    let direct = runners
        .iter()
        .find(|runner| runner.contender == Contender::Direct);
    let Some(direct) = direct else { return };
    let pairs = [
        (Figure::P50Us, Figure::AddedP50Us),
        (Figure::P99Us, Figure::AddedP99Us),
    ]
    .map(|(figure, added)| (figure, added, latest(direct, figure)));
    for runner in runners {
        if runner.contender == Contender::Direct {
            continue;
        }
        for (figure, added, base) in pairs {
            let own = latest(runner, figure);
            if let (Some(base), Some(own), Some(round)) = (base, own, runner.rounds.last_mut()) {
                round.figures.insert(added, own - base);
            }
        }
    }
}

fn tell(bench: &Bench, scenario: Scenario, number: usize, contender: Contender, round: &Round) {
    let shown = [
        Figure::CpuUs,
        Figure::CpuSPerGib,
        Figure::Rps,
        Figure::GibPerS,
        Figure::P50Us,
        Figure::P99Us,
        Figure::FullHandshakeUs,
        Figure::ResumedHandshakeUs,
        Figure::StolenPercent,
    ];
    let shown = shown.iter().filter_map(|figure| {
        let value = round.figures.get(figure)?;
        Some(format!("{} {}", figure.show(*value), figure.title()))
    });
    let shown: Vec<String> = shown.collect();
    bench.tell(&format!(
        "{} {number}: {:<20} {}",
        scenario.name(),
        contender.title(),
        shown.join(", ")
    ));
}
