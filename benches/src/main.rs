//! `ringmesh-bench`: ringmesh and other proxies under the same load, in the same run.

mod compare;
mod figures;
mod process;
mod report;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures ringmesh beside other proxies. Absolute figures are the machine's; trust the ratios.
#[derive(Debug, Parser)]
#[command(name = "ringmesh-bench", version)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// CPU per small HTTP/1.1 request of examples/standalone, with all its rules, beside HAProxy.
    ///
    /// Both proxies get one thread on CPU 0; load (wrk) and upstream (nginx) share the other CPUs.
    /// Rounds are interleaved. Writes report.md and report.json into --out.
    Compare(compare::Compare),
}

fn main() -> ExitCode {
    match Cli::parse().what {
        What::Compare(compare) => match compare.run() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("ringmesh-bench: {error}");
                ExitCode::from(1)
            }
        },
    }
}
