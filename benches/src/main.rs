//! `ringmesh-bench`: load for any server or proxy, and ringmesh beside other proxies.

// Standard output may fail: `ringmesh_tuning::stdout`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

mod descriptors;
mod figures;
mod load;
mod problem;
mod process;
mod report;
mod serve;
mod stolen;
mod suite;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Measures servers and proxies. Absolute figures are the machine's; trust the ratios of one run.
///
/// Exit codes: 0 measured; 1 it did not go well; 2 something has to be installed or asked
/// differently first, and the message says what.
#[derive(Debug, Parser)]
#[command(name = "ringmesh-bench", version)]
struct Cli {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Load on any server or proxy: HTTP/1.1, TCP, idle connections, each over TLS too; closed and open loop.
    Load(load::Load),
    /// A cheap, steady upstream: HTTP answers of any size, echo, source, sink.
    Serve(serve::Serve),
    /// ringmesh beside direct, HAProxy, nginx and Envoy: CPU, latency, memory; a report with plots.
    Suite(suite::Suite),
}

fn main() -> ExitCode {
    let done = match Cli::parse().what {
        What::Load(load) => load.run(),
        What::Serve(serve) => serve.run(),
        What::Suite(suite) => suite.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            ringmesh_tuning::errln!("ringmesh-bench: {problem}");
            ExitCode::from(problem.exit_code())
        }
    }
}
