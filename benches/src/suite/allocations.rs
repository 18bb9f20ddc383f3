//! What a build of ringmesh that counts its allocations has allocated per request.

use std::collections::BTreeMap;
use std::time::Duration;

use super::bench::Bench;
use super::contender::{Contender, Programs};
use super::peers::{self, NotServing, Serving, Stage};
use super::results::{Found, Round, Series};
use super::scenario::Scenario;
use crate::figures::Figure;
use crate::problem::Problem;

/// Of two loads, after one like the first. What opening and closing their connections takes is the
/// same, so the difference is that of requests, and of what is told once in a while: long enough that
/// this is little of it.
const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(3);

/// Each load once: how much is allocated is no matter of luck.
pub(super) fn measure(
    bench: &Bench,
    contenders: &[Contender],
    faults: &mut Vec<String>,
) -> Result<Found, Problem> {
    let scenario = Scenario::Allocations;
    let mut all = Vec::new();
    for contender in contenders {
        let mut series = Series {
            contender: *contender,
            title: contender.title(),
            version: String::new(),
            absent: None,
            rounds: Vec::new(),
        };
        let mut figures = BTreeMap::new();
        for (load, figure) in [
            (Scenario::HttpSmall, Figure::AllocationsHttp1),
            (Scenario::H2Small, Figure::AllocationsHttp2),
            (Scenario::MtlsPair, Figure::AllocationsPair),
            (Scenario::GrpcPair, Figure::AllocationsGrpcPair),
        ] {
            let why = match per_request(bench, load, &mut series.version) {
                Ok(value) => {
                    figures.insert(figure, value);
                    continue;
                }
                Err(NotServing::Broken(Problem::Interrupted)) => return Err(Problem::Interrupted),
                Err(NotServing::Absent(why)) => why,
                Err(NotServing::Broken(problem)) => {
                    faults.push(format!("{}: {problem}", scenario.name()));
                    "it did not work".to_owned()
                }
            };
            bench.tell(&format!("{}: {}: {why}", scenario.name(), figure.title()));
            series.absent = Some(why);
        }
        if !figures.is_empty() {
            series.absent = None;
            series.rounds.push(Round {
                figures,
                latency: Vec::new(),
            });
        }
        all.push(series);
    }
    Ok(Found {
        scenario,
        about: scenario.about(),
        series: all,
    })
}

/// Allocations per request of one load, all sidecars on its way together.
fn per_request(bench: &Bench, load: Scenario, version: &mut String) -> Result<f64, NotServing> {
    let programs = Programs {
        bin: bench.counting.clone(),
        ..bench.programs.clone()
    };
    let found = programs.version(Contender::Ringmesh);
    *version = found.map_err(NotServing::Absent)?;
    let stage = Stage {
        programs: &programs,
        dir: &bench
            .scratch
            .path()
            .join(format!("allocations-{}", load.name())),
        cpus: &bench.proxy_cpus,
        upstream: bench.app.of(load)?,
    };
    let mut serving = peers::start(Contender::Ringmesh, load.speech(), load.shape(), &stage)?;
    let at = serving.at;
    let mut of = |length: Duration| -> Result<(u64, u64), NotServing> {
        let requests = bench.load(load, &[], at, length)?.requests;
        Ok((requests, made(&mut serving, requests, &programs)?))
    };
    // Pools fill, and lists reach their size.
    let (_, begun) = of(SHORT)?;
    let (few, after_few) = of(SHORT)?;
    let (many, after_many) = of(LONG)?;
    let more = after_many as f64 - after_few as f64 - (after_few - begun) as f64;
    Ok(more / (many as f64 - few as f64))
}

/// Allocations so far, once `requests` more are in the books.
fn made(serving: &mut Serving, requests: u64, programs: &Programs) -> Result<u64, NotServing> {
    let mut sum = 0;
    for books in &mut serving.books {
        books.agree_after(requests)?;
        sum += books.allocations()?.ok_or_else(|| {
            NotServing::Absent(format!(
                "the sidecar in {} does not count: build it with --features ringmesh-dataplane/count-allocations, or give --counting",
                programs.bin.display()
            ))
        })?;
    }
    Ok(sum)
}
