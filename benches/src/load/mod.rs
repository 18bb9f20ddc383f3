//! `ringmesh-bench load`: load on any server or proxy, from one thread on io_uring.

mod answer;
mod engine;
mod handshakes;
mod http;
mod outcome;
mod schedule;
mod tally;
mod tcp;

use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use clap::{Args, Subcommand};

use crate::descriptors;
use crate::problem::Problem;
use engine::Engine;
pub(crate) use outcome::Outcome;

/// Examples:
///   ringmesh-bench load http --to 127.0.0.1:8080                     as fast as 64 connections go
///   ringmesh-bench load http --to 127.0.0.1:8080 --rate 3000         3,000 requests/s, come what may
///   ringmesh-bench load http --to 127.0.0.1:8080 --churn             a new connection per request
///   ringmesh-bench load ping --to 127.0.0.1:7 --connections 1        64 bytes to and fro
///   ringmesh-bench load bulk --to 127.0.0.1:19 --connections 4       take what comes
///   ringmesh-bench load handshakes --to 127.0.0.1:8443 --resume     new TLS connections, sessions resumed
///   ringmesh-bench load idle --to 127.0.0.1:8080 --connections 10000 one request each, then nothing
///
/// Without --rate each connection asks again when it has its answer (closed loop): good for
/// throughput and CPU per request, but a stalled server is asked less, so its worst moments are
/// measured less. With --rate requests are meant to leave at fixed times, and latency counts from
/// those times even if no connection was free (coordinated omission is accounted for).
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Load {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// GET requests over HTTP/1.1.
    Http(Http),
    /// TCP ping-pong against an echo server.
    Ping(Ping),
    /// Receive as fast as the server sends.
    Bulk(Common),
    /// New TLS 1.3 connections, one after the other, with one GET each.
    Handshakes(handshakes::Handshakes),
    /// Open connections, one GET on each, and hold them.
    Idle(Idle),
}

#[derive(Debug, Args)]
struct Common {
    /// Where the load goes: host:port.
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
    /// Connections, all from one thread.
    #[arg(long, short, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    connections: u32,
    /// Length of the measured window, seconds.
    #[arg(long, short, default_value_t = 10.0, value_parser = seconds)]
    seconds: f64,
    /// Load before the window, seconds.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    warmup: f64,
    /// Where the result goes as JSON; `-` is standard output instead of the text.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Where the latencies go as HdrHistogram percentile text (.hgrm), for its plotters.
    #[arg(long, value_name = "FILE")]
    histogram: Option<PathBuf>,
    /// No progress lines.
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Args)]
struct Http {
    #[command(flatten)]
    common: Common,
    /// What is asked for.
    #[arg(long, default_value = "/", value_parser = path)]
    path: String,
    /// The Host field; the address by default.
    #[arg(long)]
    host: Option<String>,
    /// Open loop: requests per second over all connections.
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// A new connection per request.
    #[arg(long)]
    churn: bool,
}

#[derive(Debug, Args)]
struct Ping {
    #[command(flatten)]
    common: Common,
    /// Bytes of one ball.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    bytes: u32,
    /// Open loop: balls per second over all connections.
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
}

#[derive(Debug, Args)]
struct Idle {
    /// Where the load goes: host:port.
    #[arg(long, value_name = "HOST:PORT")]
    to: String,
    /// Connections.
    #[arg(long, short, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    connections: u32,
    /// How long they are held once all had their answer, seconds.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    hold: f64,
    /// What is asked for.
    #[arg(long, default_value = "/", value_parser = path)]
    path: String,
}

impl Load {
    pub(crate) fn run(&self) -> Result<(), Problem> {
        match &self.what {
            What::Http(http) => http.run(),
            What::Ping(ping) => {
                let ball = tcp::ball(ping.bytes);
                ping.common.run(ping.rate, |engine, number, opening| {
                    tcp::ping(engine, number, ball, opening)
                })
            }
            What::Bulk(common) => common.run(None, tcp::bulk),
            What::Handshakes(load) => {
                let tally = load.run(resolve(&load.to)?)?;
                tell(Outcome::of(&tally, load.seconds), load.json.as_deref())
            }
            What::Idle(idle) => idle.run(),
        }
    }
}

impl Http {
    fn run(&self) -> Result<(), Problem> {
        let to = resolve(&self.common.to)?;
        let host = self.host.clone().unwrap_or_else(|| http::host(to));
        let (request, churn) = (http::request(&self.path, &host, self.churn), self.churn);
        self.common.run(self.rate, |engine, number, opening| {
            http::run(engine, number, request, churn, opening)
        })
    }
}

impl Common {
    fn run<F: Future<Output = ()> + 'static>(
        &self,
        rate: Option<f64>,
        body: impl Fn(Rc<Engine>, u32, engine::Opening) -> F,
    ) -> Result<(), Problem> {
        descriptors::make_room(self.connections)?;
        let to = resolve(&self.to)?;
        let length = Duration::from_secs_f64(self.seconds);
        let engine = Engine::new(to, Duration::from_secs_f64(self.warmup), length, rate)?;
        let mut progress = Progress::new(self.quiet);
        engine.drive(
            self.connections,
            body,
            |engine| progress.tell(engine),
            |_| false,
        );
        let outcome = Outcome::of(&engine.tally, self.seconds);
        if let Some(file) = &self.histogram {
            let text = outcome::percentile_text(&engine.tally.latency.borrow());
            write(file, text.as_bytes())?;
        }
        tell(outcome, self.json.as_deref())
    }
}

/// Writes what was found where it is wanted.
fn tell(outcome: Outcome, json: Option<&Path>) -> Result<(), Problem> {
    let to_stdout = json == Some(Path::new("-"));
    if let Some(file) = json {
        let mut json = serde_json::to_vec_pretty(&outcome).map_err(Problem::failed)?;
        json.push(b'\n');
        if to_stdout {
            std::io::stdout().write_all(&json)?;
        } else {
            write(file, &json)?;
        }
    }
    if !to_stdout {
        print!("{}", outcome.to_text());
    }
    if outcome.requests == 0 {
        let why = outcome.first_error.unwrap_or_default();
        return Err(Problem::Failed(format!("nothing was answered: {why}")));
    }
    Ok(())
}

impl Idle {
    fn run(&self) -> Result<(), Problem> {
        descriptors::make_room(self.connections)?;
        let to = resolve(&self.to)?;
        let request = http::request(&self.path, &http::host(to), false);
        // The window is only the patience for opening them all.
        let patience = Duration::from_secs(60);
        let engine = Engine::new(to, Duration::ZERO, patience, None)?;
        let hold = Duration::from_secs_f64(self.hold);
        let connections = self.connections;
        let held_until = std::cell::Cell::new(None);
        engine.drive(
            connections,
            move |engine, number, opening| hold_one(engine, number, request, opening),
            |engine| eprintln!("{} of {connections} idle", engine.held.get()),
            |engine| {
                if held_until.get().is_none() && engine.held.get() == connections {
                    // The word programs wait for.
                    println!("idle {connections}");
                    held_until.set(Some(engine.ring.now() + hold));
                }
                held_until.get().is_some_and(|end| engine.ring.now() >= end)
            },
        );
        if held_until.get().is_none() || engine.tally.errors.get() > 0 {
            let why = engine.tally.first_error.borrow().clone();
            return Err(Problem::Failed(format!(
                "{} of {connections} were held: {}",
                engine.held.get(),
                why.unwrap_or_else(|| "no answers in a minute".to_owned())
            )));
        }
        Ok(())
    }
}

async fn hold_one(
    engine: Rc<Engine>,
    number: u32,
    request: &'static [u8],
    opening: engine::Opening,
) {
    let asked = async {
        let mut connection = http::Connection::open(&engine).await?;
        connection.exchange(&engine, request).await?;
        Ok::<_, String>(connection)
    };
    match asked.await {
        Ok(connection) => {
            engine.held.set(engine.held.get() + 1);
            drop(opening);
            connection.closed().await;
            engine.held.set(engine.held.get() - 1);
            engine
                .tally
                .failed("the server closed an idle connection before the end");
        }
        Err(why) => engine.failed(number, why).await,
    }
}

/// A line per second on standard error.
#[derive(Debug)]
struct Progress {
    quiet: bool,
    seconds: u64,
    before: u64,
}

impl Progress {
    fn new(quiet: bool) -> Self {
        Self {
            quiet: quiet || !std::io::stderr().is_terminal(),
            seconds: 0,
            before: 0,
        }
    }

    fn tell(&mut self, engine: &Engine) {
        self.seconds += 1;
        let requests = engine.tally.requests.get();
        if !self.quiet {
            let latency = engine.tally.latency.borrow();
            eprintln!(
                "{:>4} s: {:>8} requests/s, p50 {:.0} us, p99 {:.0} us so far, {:.0} MiB, {} errors",
                self.seconds,
                requests - self.before,
                latency.value_at_quantile(0.5) as f64 / 1e3,
                latency.value_at_quantile(0.99) as f64 / 1e3,
                engine.tally.bytes_total.get() as f64 / f64::from(1 << 20),
                engine.tally.errors.get()
            );
        }
        self.before = requests;
    }
}

fn resolve(to: &str) -> Result<SocketAddr, Problem> {
    let found = to
        .to_socket_addrs()
        .map_err(|error| Problem::Yours(format!("--to {to}: {error}; write host:port")))?;
    let all: Vec<SocketAddr> = found.collect();
    let v4 = all.iter().find(|at| at.is_ipv4());
    v4.or(all.first())
        .copied()
        .ok_or_else(|| Problem::Yours(format!("--to {to} has no address")))
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), Problem> {
    fs::write(file, bytes)
        .map_err(|error| Problem::Yours(format!("{} is not writable: {error}", file.display())))
}

pub(crate) fn seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    if (0.0..=86_400.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("from 0 to 86400 seconds".to_owned())
    }
}

fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| "not a number")?;
    if (0.001..=10_000_000.0).contains(&rate) {
        Ok(rate)
    } else {
        Err("from 0.001 to 10000000 per second".to_owned())
    }
}

fn path(text: &str) -> Result<String, String> {
    if text.starts_with('/') && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(text.to_owned())
    } else {
        Err("a path begins with / and has no spaces".to_owned())
    }
}
