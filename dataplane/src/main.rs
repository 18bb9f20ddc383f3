//! `ringmesh-proxy`: arguments in, exit status out. Everything else is the library's.

// Standard output may fail: `ringmesh_tuning::stdout`.
#![deny(clippy::print_stdout, clippy::print_stderr)]

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use ringmesh_dataplane::admin::serve::SetLevel;
use ringmesh_dataplane::bootstrap::{self, Options};
use ringmesh_tuning::placement::Shards;
use ringmesh_tuning::{errln, outln};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt, reload};

/// The sidecar of ringmesh: stands beside one service, takes the calls it makes and the calls made
/// to it, and does discovery, routing, retries, limits, identity and telemetry for it.
#[derive(Parser)]
#[command(name = "ringmesh-proxy", version, after_long_help = EXAMPLES)]
struct Arguments {
    /// What stands beside this sidecar and where it listens (docs/sidecar-yaml.md). A listener takes one
    /// family: `0.0.0.0` IPv4, `[::]` IPv6 only.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,

    /// Serve this compiled configuration instead of asking a control service. Replace the file and
    /// send HUP to swap it atomically; a bad file changes nothing and is logged.
    #[arg(long, value_name = "FILE")]
    snapshot: Option<PathBuf>,

    /// Overrides `shards:` of the file: auto, all, or a number.
    #[arg(long, value_name = "N")]
    shards: Option<Shards>,

    /// Check the input and exit: 0 if it is good, 2 with file:line:column if it is not. Also the join
    /// token, where `state_dir` holds no certificate.
    #[arg(long)]
    check: bool,

    /// What to log on standard error: error, warn, info, debug, trace, or a filter such as
    /// `info,ringmesh_dataplane::agent=debug`. Of single HTTP/2 frames only where it names `h2`.
    /// Changed at run time by `POST /log?level=` on the admin socket.
    #[arg(
        long,
        value_name = "FILTER",
        env = "RINGMESH_LOG",
        default_value = "info"
    )]
    log: String,
}

const EXAMPLES: &str = "\
With a control service:
  ringmesh token create --node reviews-v3-1 --service reviews > join.token
  ringmesh-proxy --config sidecar.yaml

Without one:
  ringmesh compile -f rules/ --node sidecar.yaml -o snapshot.rmsh
  ringmesh-proxy --config sidecar.yaml --snapshot snapshot.rmsh

It prints `ready` on standard output once it serves. Signals: TERM drains, deregisters and stops, a
second TERM stops at once, HUP reloads the snapshot file and reopens the access log.
Its state: curl http://127.0.0.1:15000/readyz (also /config /endpoints /certs /metrics).
Drain by hand: curl --unix-socket STATE_DIR/admin.sock -X POST http://sidecar/drain

Exit status: 0 done; 1 it could not be done; 2 the input is wrong.";

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let level = match start_logging(&arguments.log) {
        Ok(level) => level,
        Err(why) => {
            errln!("--log: {why}");
            return ExitCode::from(2);
        }
    };
    let options = Options {
        config: arguments.config,
        snapshot: arguments.snapshot,
        shards: arguments.shards,
    };
    let outcome = if arguments.check {
        bootstrap::check_all(&options).map(|_| outln!("ok"))
    } else {
        bootstrap::run(options, level)
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => {
            errln!("{stop}");
            ExitCode::from(stop.status())
        }
    }
}

fn start_logging(filter: &str) -> Result<SetLevel, String> {
    let (layer, handle) = reload::Layer::new(parse_filter(filter)?);
    let lines = fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    tracing_subscriber::registry()
        .with(layer)
        .with(lines)
        .init();
    Ok(Arc::new(move |filter| {
        let filter = parse_filter(filter)?;
        handle.reload(filter).map_err(|error| error.to_string())
    }))
}

fn parse_filter(text: &str) -> Result<EnvFilter, String> {
    // A lone word that is no level would be taken for the name of a target and silence the rest.
    let levels = ["error", "warn", "info", "debug", "trace", "off"];
    if !text.contains(['=', ',']) && !levels.contains(&text) {
        return Err(format!(
            "{text:?} is no level; one of error, warn, info, debug, trace, or a filter"
        ));
    }
    // That crate warns of single frames: a peer could have us write a line for each. Said later, another
    // level of it counts.
    EnvFilter::try_new(format!("h2=error,{text}")).map_err(|error| error.to_string())
}
