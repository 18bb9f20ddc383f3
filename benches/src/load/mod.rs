//! `ringmesh-bench load`: load on any server or proxy, from one thread on io_uring.

mod answer;
mod dial;
mod engine;
mod handshakes;
mod http;
mod outcome;
mod schedule;
mod tally;
mod target;
mod tcp;
mod tls;

use std::fmt::Write as _;
use std::fs;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use clap::{Args, Subcommand};
use ringmesh_tuning::{errln, out, outln};

use crate::descriptors;
use crate::problem::Problem;
use dial::Dialer;
use engine::Engine;
pub(crate) use outcome::Outcome;
use target::Target;
use tls::{Client, Tls};

/// What a plain list of options does not tell.
const HOW: &str = "\
Examples:
  ringmesh-bench load http --to 127.0.0.1:8080                     as fast as 64 connections go
  ringmesh-bench load http --to 127.0.0.1:8080 --rate 3000         3,000 requests/s, come what may
  ringmesh-bench load http --to 127.0.0.1:8080 --churn             a new connection per request
  ringmesh-bench load ping --to 127.0.0.1:7 --connections 1        64 bytes to and fro
  ringmesh-bench load bulk --to 127.0.0.1:19 --connections 4       take what comes
  ringmesh-bench load idle --to 127.0.0.1:8080 --connections 10000 one request each, then nothing

Over TLS, 1.3 or 1.2, where --to has a scheme that says so:
  ringmesh-bench load http --to https://example.test/path          the system's roots are trusted
  ringmesh-bench load http --to https://127.0.0.1:8443 --insecure  nothing is
  ringmesh-bench load http --to https://10.0.0.7:8443 --ca ca.pem --server-name app.test \\
      --cert me.pem --key me.key                                   mutual TLS, another name
  ringmesh-bench load http --to https://example.test --churn       handshakes: full, then resumed
  ringmesh-bench load http --to https://example.test --churn --no-resume   each in full
  ringmesh-bench load ping --to tls://127.0.0.1:7 --insecure       64 bytes to and fro, encrypted
  ringmesh-bench load handshakes --to 127.0.0.1:8443 --resume      one new TLS 1.3 connection after
                                                                   the other, to weigh their CPU

The result, and each line meanwhile, tells full and resumed handshakes apart, with how long they
took; a request's latency has its connection's handshake in it only if it waited for it (--churn).
A certificate that is refused ends the load at once.

Without --rate each connection asks again when it has its answer (closed loop): good for
throughput and CPU per request, but a stalled server is asked less, so its worst moments are
measured less. With --rate requests are meant to leave at fixed times, and latency counts from
those times even if no connection was free (coordinated omission is accounted for).";

#[derive(Debug, Args)]
#[command(after_help = HOW)]
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
    Bulk(Bulk),
    /// New TLS 1.3 connections, one after the other, with one GET each.
    Handshakes(handshakes::Handshakes),
    /// Open connections, one GET on each, and hold them.
    Idle(Idle),
}

#[derive(Debug, Args)]
struct Common {
    /// Where the load goes: HOST:PORT, http://HOST[:PORT][/PATH]; with TLS https://HOST[:PORT][/PATH]
    /// or, where it is not HTTP, tls://HOST:PORT.
    #[arg(long, value_name = "TARGET")]
    to: Target,
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
    /// What is asked for; a path in --to otherwise, or /.
    #[arg(long, value_parser = path)]
    path: Option<String>,
    /// The Host field; as --to has it by default.
    #[arg(long)]
    host: Option<String>,
    /// Open loop: requests per second over all connections.
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// A new connection per request; over TLS each resumes the session of the one before in its place.
    #[arg(long)]
    churn: bool,
    #[command(flatten)]
    tls: Tls,
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
    #[command(flatten)]
    tls: Tls,
}

#[derive(Debug, Args)]
struct Bulk {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    tls: Tls,
}

#[derive(Debug, Args)]
struct Idle {
    /// Where the load goes: HOST:PORT, http://... or https://...
    #[arg(long, value_name = "TARGET")]
    to: Target,
    /// Connections.
    #[arg(long, short, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=60_000))]
    connections: u32,
    /// How long they are held once all had their answer, seconds.
    #[arg(long, default_value_t = 10.0, value_parser = seconds)]
    hold: f64,
    /// What is asked for; a path in --to otherwise, or /.
    #[arg(long, value_parser = path)]
    path: Option<String>,
    #[command(flatten)]
    tls: Tls,
}

/// What is asked for by ALPN where HTTP is spoken.
const HTTP: &str = "http/1.1";

impl Load {
    pub(crate) fn run(&self) -> Result<(), Problem> {
        match &self.what {
            What::Http(http) => http.run(),
            What::Ping(ping) => {
                let ball = tcp::ball(ping.bytes);
                let client = ping.common.bytes_only(&ping.tls)?;
                ping.common
                    .run(client, ping.rate, |engine, number, opening| {
                        tcp::ping(engine, number, ball, opening)
                    })
            }
            What::Bulk(bulk) => {
                let client = bulk.common.bytes_only(&bulk.tls)?;
                bulk.common.run(client, None, tcp::bulk)
            }
            What::Handshakes(load) => {
                let tally = load.run(load.to.resolve()?)?;
                tell(Outcome::of(&tally, load.seconds), load.json.as_deref())
            }
            What::Idle(idle) => idle.run(),
        }
    }
}

impl Http {
    fn run(&self) -> Result<(), Problem> {
        let to = &self.common.to;
        let host = self.host.as_ref().unwrap_or(&to.authority);
        let path = asked(self.path.as_deref(), to)?;
        let (request, churn) = (http::request(path, host, self.churn), self.churn);
        let client = self.tls.client(to, Some(HTTP))?;
        self.common
            .run(client, self.rate, |engine, number, opening| {
                http::run(engine, number, request, churn, opening)
            })
    }
}

impl Common {
    /// The client of a load that is not HTTP; `None` without TLS.
    fn bytes_only(&self, tls: &Tls) -> Result<Option<Client>, Problem> {
        match &self.to.path {
            Some(path) => Err(Problem::Yours(format!(
                "--to has the path {path}, and only `load http` and `load idle` ask for one"
            ))),
            None => tls.client(&self.to, None),
        }
    }

    fn run<F: Future<Output = ()> + 'static>(
        &self,
        client: Option<Client>,
        rate: Option<f64>,
        body: impl Fn(Rc<Engine>, u32, engine::Opening) -> F,
    ) -> Result<(), Problem> {
        descriptors::make_room(self.connections)?;
        let to = self.to.resolve()?;
        let length = Duration::from_secs_f64(self.seconds);
        let engine = Engine::new(
            to,
            client,
            Duration::from_secs_f64(self.warmup),
            length,
            rate,
        )?;
        let mut progress = Progress::new(self.quiet);
        engine.drive(
            self.connections,
            body,
            |engine| progress.tell(engine),
            |_| false,
        );
        engine.check_hope()?;
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
        let json = serde_json::to_string_pretty(&outcome).map_err(Problem::failed)?;
        if to_stdout {
            outln!("{json}");
        } else {
            write(file, format!("{json}\n").as_bytes())?;
        }
    }
    if !to_stdout {
        out!("{}", outcome.to_text());
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
        let client = self.tls.client(&self.to, Some(HTTP))?;
        let path = asked(self.path.as_deref(), &self.to)?;
        let to = self.to.resolve()?;
        let request = http::request(path, &self.to.authority, false);
        // The window is only the patience for opening them all.
        let patience = Duration::from_secs(60);
        let engine = Engine::new(to, client, Duration::ZERO, patience, None)?;
        let hold = Duration::from_secs_f64(self.hold);
        let connections = self.connections;
        let held_until = std::cell::Cell::new(None);
        engine.drive(
            connections,
            move |engine, number, opening| hold_one(engine, number, request, opening),
            |engine| errln!("{} of {connections} idle", engine.held.get()),
            |engine| {
                if held_until.get().is_none() && engine.held.get() == connections {
                    // The word programs wait for.
                    outln!("idle {connections}");
                    held_until.set(Some(engine.ring.now() + hold));
                }
                held_until.get().is_some_and(|end| engine.ring.now() >= end)
            },
        );
        engine.check_hope()?;
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
        let mut connection = http::Connection::open(&Dialer::new(&engine)).await?;
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
    requests: u64,
    full: u64,
    resumed: u64,
}

impl Progress {
    fn new(quiet: bool) -> Self {
        Self {
            quiet: quiet || !std::io::stderr().is_terminal(),
            seconds: 0,
            requests: 0,
            full: 0,
            resumed: 0,
        }
    }

    fn tell(&mut self, engine: &Engine) {
        self.seconds += 1;
        let requests = engine.tally.requests.get();
        let handshakes = self.handshakes(&engine.tally.handshakes);
        if !self.quiet {
            let latency = engine.tally.latency.borrow();
            errln!(
                "{:>4} s: {:>8} requests/s, p50 {:.0} us, p99 {:.0} us so far, {:.0} MiB, {} errors{handshakes}",
                self.seconds,
                requests - self.requests,
                latency.value_at_quantile(0.5) as f64 / 1e3,
                latency.value_at_quantile(0.99) as f64 / 1e3,
                engine.tally.bytes_total.get() as f64 / f64::from(1 << 20),
                engine.tally.errors.get()
            );
        }
        self.requests = requests;
    }

    /// Those of this second, and how long such took so far; nothing without.
    fn handshakes(&mut self, of: &tally::Handshakes) -> String {
        let (full, resumed) = (of.full.borrow(), of.resumed.borrow());
        let mut out = String::new();
        for (kind, found, before) in [
            ("full", &full, &mut self.full),
            ("resumed", &resumed, &mut self.resumed),
        ] {
            let new = found.len() - std::mem::replace(before, found.len());
            if new > 0 {
                let p99 = found.value_at_quantile(0.99) as f64 / 1e3;
                let _ = write!(out, "; {new} {kind} handshakes, p99 {p99:.0} us");
            }
        }
        out
    }
}

/// The path to ask for, told in one place.
fn asked<'a>(path: Option<&'a str>, to: &'a Target) -> Result<&'a str, Problem> {
    match (path, to.path.as_deref()) {
        (Some(_), Some(_)) => Err(Problem::Yours(
            "--to has a path, and --path is another: leave one out".to_owned(),
        )),
        (Some(path), None) | (None, Some(path)) => Ok(path),
        (None, None) => Ok("/"),
    }
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
