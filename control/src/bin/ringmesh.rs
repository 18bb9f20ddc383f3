//! `ringmesh`: the tool.

// Standard output may fail: `ringmesh_tuning::stdout`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use clap::Parser;
use ringmesh_control::tool::{self, Command};

const EXAMPLES: &str = "\
Examples:
  ringmesh apply -f rules/ --wait            apply all files of a folder as one revision
  ringmesh get                               every object, and whether it is in force
  ringmesh diff -f canary.yaml               what an apply would change
  ringmesh proxy list                        every sidecar, and what it holds
  ringmesh token create --node n1 --service reviews > n1.token
  ringmesh doctor                            what is wrong with this host

Exit status: 0 done; 1 it could not be done; 2 the input is wrong.";

/// Steer and look into a ringmesh.
#[derive(Parser, Debug)]
#[command(name = "ringmesh", version, about, after_help = EXAMPLES)]
struct Args {
    /// The control service's unix socket.
    #[arg(
        long,
        global = true,
        env = "RINGMESH_CONTROL",
        value_name = "SOCKET",
        default_value = tool::DEFAULT_SOCKET
    )]
    control: std::path::PathBuf,
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let args = Args::parse();
    tool::run(&args.control, &args.command)
}
