//! `ringmesh-bench suite`: ringmesh with its rules beside other proxies, in interleaved rounds.

mod allocations;
mod bench;
mod contender;
mod h2load;
mod idle;
mod peers;
mod results;
mod rounds;
mod scenario;
mod targets;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::{Args, ValueEnum as _};
use ringmesh_tuning::outln;

use crate::descriptors;
use crate::problem::Problem;
use crate::report;
use bench::Bench;
pub(crate) use contender::Contender;
use contender::Programs;
#[cfg(test)]
pub(crate) use results::Round;
pub(crate) use results::{Found, Results, Series};
use rounds::Plan;
use scenario::Method;
pub(crate) use scenario::Scenario;
pub(crate) use targets::{Standing, standings};

/// Measures ringmesh and other proxies beside each other and writes report.md, report.json and
/// report.html.
///
/// Every proxy has one thread on CPU 0; load (`ringmesh-bench load`) and app (`ringmesh-bench
/// serve`) have the other CPUs. Rounds are interleaved: every contender once per round. CPU is that
/// of the whole process tree. ringmesh is examples/standalone with all its rules; after each of its
/// runs its log lines, quota charges and counters must equal the requests of the load.
/// Whoever is not installed is shown as absent; scripts/deps-bench installs them.
#[derive(Debug, Args)]
pub(crate) struct Suite {
    /// What to measure [default: everything].
    #[arg(long, short, value_enum)]
    scenario: Vec<Scenario>,
    /// Who takes part [default: everybody].
    #[arg(long, value_enum)]
    only: Vec<Contender>,
    /// Interleaved rounds [default: 5, 7 for open loops, 9 for http-small].
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    rounds: Option<u32>,
    /// Length of the measured window of a round, seconds.
    #[arg(long, default_value_t = 3.0, value_parser = crate::load::seconds)]
    seconds: f64,
    /// The repository, for examples/.
    #[arg(long, default_value = ".")]
    root: PathBuf,
    /// Where the binaries are.
    #[arg(long, default_value = "target/release")]
    bin: PathBuf,
    /// The Envoy binary [default: where scripts/deps-bench puts it].
    #[arg(long)]
    envoy: Option<PathBuf>,
    /// Binaries built with --features ringmesh-dataplane/count-allocations, as `make test` builds
    /// them.
    #[arg(long, default_value = "target/debug")]
    counting: PathBuf,
    /// Where the report goes.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

const ROUNDS: u32 = 5;

impl Suite {
    pub(crate) fn run(&self) -> Result<(), Problem> {
        descriptors::raise();
        fs::create_dir_all(&self.out)?;
        let bin = fs::canonicalize(&self.bin)
            .map_err(|error| Problem::Yours(format!("--bin {}: {error}", self.bin.display())))?;
        let programs = Programs {
            root: fs::canonicalize(&self.root)?,
            bin,
            envoy: self
                .envoy
                .clone()
                .unwrap_or_else(|| self.root.join("target/bench/envoy/envoy")),
        };
        let counting = fs::canonicalize(&self.counting).unwrap_or_else(|_| self.counting.clone());
        let bench = Bench::new(programs, counting, &self.out)?;
        let mut results = Results {
            machine: self.about(&bench)?,
            ..Results::default()
        };
        let scenarios = match self.scenario.as_slice() {
            [] => Scenario::value_variants(),
            some => some,
        };
        for scenario in scenarios {
            bench.tell(&format!("{}: {}", scenario.name(), scenario.about()));
            let contenders: Vec<Contender> = scenario
                .contenders()
                .iter()
                .copied()
                .filter(|one| self.only.is_empty() || self.only.contains(one))
                .collect();
            let plan = Plan {
                rounds: scenario.rounds(self.rounds, ROUNDS),
                length: Duration::from_secs_f64(self.seconds),
                contenders: &contenders,
            };
            let faults = &mut results.faults;
            let found = match scenario.method() {
                Method::Rounds => rounds::run(&bench, *scenario, &plan, faults)?,
                Method::Idle => idle::connections(&bench, &contenders, faults)?,
                Method::Allocations => allocations::measure(&bench, &contenders, faults)?,
                Method::AtRest => idle::at_rest(&bench, &plan, faults)?,
            };
            results.found.push(found);
            // So that an end before the end leaves what was found.
            report::write(&results, &self.out)?;
        }
        outln!("{}", report::markdown::text(&results));
        if results.faults.is_empty() {
            return Ok(());
        }
        Err(Problem::Failed(format!(
            "not everything went well:\n{}",
            results.faults.join("\n")
        )))
    }

    /// Where it was measured, and how.
    fn about(&self, bench: &Bench) -> Result<Vec<String>, Problem> {
        let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let line = |label: &str| {
            let line = cpuinfo.lines().find(|line| line.starts_with(label))?;
            line.split_once(": ")
                .map(|(_, value)| value.trim().to_owned())
        };
        let virtual_machine = line("flags").is_some_and(|flags| flags.contains("hypervisor"));
        let cpus = std::thread::available_parallelism()?.get();
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory_kib: u64 = memory
            .split_whitespace()
            .nth(1)
            .and_then(|kib| kib.parse().ok())
            .unwrap_or_default();
        Ok(vec![
            format!(
                "{}, {cpus} {}CPUs, {} GiB; {}; {}",
                line("model name").unwrap_or_else(|| "unknown CPU".to_owned()),
                if virtual_machine { "virtual " } else { "" },
                memory_kib.div_ceil(1 << 20),
                output("uname", &["-sr"]),
                output("date", &["-u", "+%Y-%m-%d %H:%M UTC"]),
            ),
            format!(
                "Proxies: one thread on CPU {}. Load and app: CPU {}. {} interleaved rounds ({} for open loops, {} for http-small) of {} s after {} s of warm-up; medians, and least to most in brackets. Stolen: share of the machine's CPU time that its hypervisor gave to others meanwhile.",
                bench.proxy_cpus,
                bench.load_cpus,
                Scenario::Http64k.rounds(self.rounds, ROUNDS),
                Scenario::HttpPaced.rounds(self.rounds, ROUNDS),
                Scenario::HttpSmall.rounds(self.rounds, ROUNDS),
                self.seconds,
                bench::WARM_UP.as_secs_f64(),
            ),
            format!(
                "ringmesh is examples/standalone at {}: {}. The others have none of that and no log, but for \"Envoy + mesh features\": JSON access log, local rate limit, RBAC.",
                revision(&self.root),
                "100 services x 10 routes, 25 authorization policies, 20 quotas, retries, outlier detection, JSON access log",
            ),
        ])
    }
}

/// What was built, as far as git knows.
fn revision(root: &Path) -> String {
    let root = root.display().to_string();
    match output("git", &["-C", &root, "describe", "--always", "--dirty"]) {
        none if none.is_empty() => "an unknown revision".to_owned(),
        some => some,
    }
}

fn output(command: &str, arguments: &[&str]) -> String {
    let output = Command::new(command).args(arguments).output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).trim().to_owned()
}
