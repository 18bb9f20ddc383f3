//! The bench everything is measured on: CPUs, an upstream, the load, progress, and the way out.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::contender::Programs;
use super::h2load;
use super::peers::{NotServing, Speech, free_port};
use super::scenario::Scenario;
use crate::load::Outcome;
use crate::problem::Problem;
use crate::process::Running;

/// Load before each measured window.
pub(super) const WARM_UP: Duration = Duration::from_millis(500);
/// What a load may take beyond its own time: answers that come late, and the end.
const LATE: Duration = Duration::from_secs(30);
/// POSTs per second of a round's length: the fastest proxy takes about as long as that.
const H2_POSTS_PER_S: f64 = 40_000.0;
/// The slowest takes so many times as long.
const H2_SLOWEST: u32 = 20;
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Where and with what is measured.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) programs: Programs,
    /// CPUs of the proxies, and of load and upstream.
    pub(super) proxy_cpus: String,
    pub(super) load_cpus: String,
    pub(super) scratch: tempfile::TempDir,
    pub(super) app: App,
    interrupt: Interrupt,
    begun: Instant,
    /// `ringmesh-bench` itself.
    tool: PathBuf,
}

/// The app behind all proxies.
#[derive(Debug)]
pub(super) struct App {
    pub(super) http: SocketAddr,
    pub(super) echo: SocketAddr,
    pub(super) source: SocketAddr,
    /// nghttpd; or why there is none.
    http2: Result<SocketAddr, String>,
    _processes: Vec<Running>,
}

impl Bench {
    pub(super) fn new(programs: Programs, out: &Path) -> Result<Self, Problem> {
        let interrupt = Interrupt::listen()?;
        let tool = std::env::current_exe()?;
        let cpus = std::thread::available_parallelism()?.get();
        let others = match cpus {
            1 => "0".to_owned(),
            2 => "1".to_owned(),
            more => format!("1-{}", more - 1),
        };
        // Beside the report: logs of millions of lines want a disk.
        let scratch = tempfile::Builder::new()
            .prefix("scratch-")
            .tempdir_in(out)?;
        let app = App::start(&tool, &others, scratch.path())?;
        Ok(Self {
            programs,
            proxy_cpus: "0".to_owned(),
            load_cpus: others,
            scratch,
            app,
            interrupt,
            begun: Instant::now(),
            tool,
        })
    }

    /// Tells what happens, on standard error.
    pub(super) fn tell(&self, what: &str) {
        eprintln!("{:>5} s  {what}", self.begun.elapsed().as_secs());
    }

    /// Runs one load of `length` on `to` and returns what it found.
    pub(super) fn load(
        &self,
        scenario: Scenario,
        to: SocketAddr,
        length: Duration,
    ) -> Result<Outcome, Problem> {
        if scenario.speech() == Speech::Http2 {
            return self.h2load(scenario.load(), to, length);
        }
        let load = scenario.load();
        let json = self.scratch.path().join("load.json");
        let _ = fs::remove_file(&json);
        let (to, seconds) = (to.to_string(), length.as_secs_f64().to_string());
        let warm_up = WARM_UP.as_secs_f64().to_string();
        let file = json.display().to_string();
        let mut arguments = load.to_vec();
        arguments.extend(["--to", &to, "-s", &seconds, "--warmup", &warm_up]);
        arguments.extend(["--json", &file, "--quiet"]);
        let mut running = self.start_load(&arguments)?;
        self.end_of(&mut running, WARM_UP + length + LATE)?;
        serde_json::from_slice(&fs::read(&json)?).map_err(Problem::failed)
    }

    /// A fixed number of small POSTs by h2load: at an end by time it would cut off what is under way,
    /// and nobody's books would agree.
    fn h2load(&self, load: &[&str], to: SocketAddr, length: Duration) -> Result<Outcome, Problem> {
        let count = (length.as_secs_f64() * H2_POSTS_PER_S) as u64;
        let (count, url) = (count.to_string(), format!("http://{to}/small"));
        let body = self.scratch.path().join("body");
        fs::write(&body, [b'x'; 64])?;
        let body = body.display().to_string();
        let command = [
            &["h2load", "-t", "1", "-n", &count, "-d", &body],
            load,
            &[url.as_str()],
        ]
        .concat();
        let output = self.scratch.path().join("load.output");
        let mut running = Running::start("h2load", &self.load_cpus, &output, &[], &command)?;
        self.end_of(&mut running, length * H2_SLOWEST + LATE)?;
        h2load::outcome(&fs::read_to_string(&output)?)
            .ok_or_else(|| running.problem("said nothing that is understood"))
    }

    /// Waits for the end of a load.
    fn end_of(&self, running: &mut Running, most: Duration) -> Result<(), Problem> {
        let until = Instant::now() + most;
        loop {
            // First: Ctrl-C ends the load too.
            self.pause(LOOK_EVERY)?;
            if let Some(status) = running.ended()? {
                if !status.success() {
                    return Err(running.problem(&format!("ended with {status}")));
                }
                return Ok(());
            }
            if Instant::now() > until {
                return Err(running.problem("did not end"));
            }
        }
    }

    /// Starts `ringmesh-bench load` with these arguments.
    pub(super) fn start_load(&self, arguments: &[&str]) -> Result<Running, Problem> {
        let tool = self.tool.display().to_string();
        let command = [&[tool.as_str(), "load"], arguments].concat();
        let output = self.scratch.path().join("load.output");
        Running::start("load", &self.load_cpus, &output, &[], &command)
    }

    /// Waits, unless somebody wants the end.
    pub(super) fn pause(&self, length: Duration) -> Result<(), Problem> {
        let until = Instant::now() + length;
        loop {
            self.interrupt.check()?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::park_timeout(left.min(LOOK_EVERY));
        }
    }
}

impl App {
    /// `ringmesh-bench serve`: cheaper per request than nginx, and never the bottleneck.
    fn start(tool: &Path, cpus: &str, scratch: &Path) -> Result<Self, Problem> {
        let (http, echo, source) = (free_port()?, free_port()?, free_port()?);
        let tool = tool.display().to_string();
        let at = [http, echo, source].map(|at| at.to_string());
        let [to_http, to_echo, to_source] = at.each_ref().map(String::as_str);
        let command = [
            tool.as_str(),
            "serve",
            "--http",
            to_http,
            "--echo",
            to_echo,
            "--source",
            to_source,
        ];
        let output = scratch.join("app.output");
        let mut process = Running::start("the app", cpus, &output, &[], &command)?;
        process.says("ready")?;
        let http2 = Self::start_http2(cpus, scratch);
        Ok(Self {
            http,
            echo,
            source,
            http2: http2.as_ref().map(|(at, _)| *at).map_err(Clone::clone),
            _processes: [process]
                .into_iter()
                .chain(http2.map(|(_, process)| process))
                .collect(),
        })
    }

    /// Debian's server of HTTP/2: 128-byte answers, whatever the method.
    fn start_http2(cpus: &str, scratch: &Path) -> Result<(SocketAddr, Running), String> {
        let start = || -> Result<(SocketAddr, Running), Problem> {
            let at = free_port()?;
            let root = scratch.join("www");
            fs::create_dir_all(&root)?;
            fs::write(root.join("small"), [b'x'; 128])?;
            let (port, root) = (at.port().to_string(), root.display().to_string());
            let command = [
                "nghttpd",
                "--no-tls",
                "--address",
                "127.0.0.1",
                "-d",
                &root,
                &port,
            ];
            let output = scratch.join("nghttpd.output");
            let mut process = Running::start("nghttpd", cpus, &output, &[], &command)?;
            process.accepts(at)?;
            Ok((at, process))
        };
        start().map_err(|problem| format!("it needs nghttpd and h2load: {problem}"))
    }

    /// Where a scenario's app answers.
    pub(super) fn of(&self, scenario: Scenario) -> Result<SocketAddr, NotServing> {
        match scenario {
            Scenario::TcpBulk => Ok(self.source),
            Scenario::TcpPingpong => Ok(self.echo),
            Scenario::H2Small => self.http2.clone().map_err(NotServing::Absent),
            _ => Ok(self.http),
        }
    }
}

/// Ctrl-C and TERM: everything unwinds, so all children end.
#[derive(Debug)]
struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    fn listen() -> Result<Self, Problem> {
        let wanted = Arc::new(AtomicBool::new(false));
        for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
            signal_hook::flag::register(signal, Arc::clone(&wanted))?;
        }
        Ok(Self(wanted))
    }

    fn check(&self) -> Result<(), Problem> {
        if self.0.load(Ordering::Relaxed) {
            return Err(Problem::Interrupted);
        }
        Ok(())
    }
}
