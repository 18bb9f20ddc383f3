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
pub(super) const WARM_UP: Duration = Duration::from_millis(250);
/// What a load may take beyond its own time: answers that come late, and the end.
const LATE: Duration = Duration::from_secs(30);
/// POSTs per second of a round's length: the fastest proxy takes about as long as that.
const H2_POSTS_PER_S: f64 = 30_000.0;
/// The same of gRPC calls through two proxies.
const GRPC_CALLS_PER_S: f64 = 15_000.0;
/// The slowest takes so many times as long.
const H2_SLOWEST: u32 = 20;
/// Bytes of a request's body, and of the message of a call.
const POST_BYTES: usize = 64;
const MESSAGE_BYTES: usize = 128;
/// Where the HTTP/2 servers answer. Its ending tells nghttpd what it is.
const POST_PATH: &str = "small";
const CALL_PATH: &str = "bench.App/Small.grpc";
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Where and with what is measured.
#[derive(Debug)]
pub(super) struct Bench {
    pub(super) programs: Programs,
    /// Binaries of ours that count their allocations, if anybody built such.
    pub(super) counting: PathBuf,
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
    /// Another, whose answers are those of a gRPC server.
    grpc: Result<SocketAddr, String>,
    _processes: Vec<Running>,
}

impl Bench {
    pub(super) fn new(programs: Programs, counting: PathBuf, out: &Path) -> Result<Self, Problem> {
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
            counting,
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
        ringmesh_tuning::errln!("{:>5} s  {what}", self.begun.elapsed().as_secs());
    }

    /// Runs one load of `length` on `to` and returns what it found; `more` are arguments beside
    /// those of the scenario.
    pub(super) fn load(
        &self,
        scenario: Scenario,
        more: &[String],
        to: SocketAddr,
        length: Duration,
    ) -> Result<Outcome, Problem> {
        if scenario.speech() == Speech::Http2 {
            return self.h2load(scenario, to, length);
        }
        let json = self.scratch.path().join("load.json");
        let _ = fs::remove_file(&json);
        let (to, seconds) = (to.to_string(), length.as_secs_f64().to_string());
        let warm_up = WARM_UP.as_secs_f64().to_string();
        let file = json.display().to_string();
        let mut arguments = scenario.load().to_vec();
        arguments.extend(more.iter().map(String::as_str));
        arguments.extend(["--to", &to, "-s", &seconds, "--warmup", &warm_up]);
        arguments.extend(["--json", &file, "--quiet"]);
        let mut running = self.start_load(&arguments)?;
        self.end_of(&mut running, WARM_UP + length + LATE)?;
        serde_json::from_slice(&fs::read(&json)?).map_err(Problem::failed)
    }

    /// A fixed number of small POSTs or gRPC calls by h2load: at an end by time it would cut off what is under way,
    /// and nobody's books would agree.
    fn h2load(
        &self,
        scenario: Scenario,
        to: SocketAddr,
        length: Duration,
    ) -> Result<Outcome, Problem> {
        let (per_s, path, content) = match scenario {
            Scenario::GrpcPair => (GRPC_CALLS_PER_S, CALL_PATH, message()),
            _ => (H2_POSTS_PER_S, POST_PATH, vec![b'x'; POST_BYTES]),
        };
        let count = ((length.as_secs_f64() * per_s) as u64).to_string();
        let url = format!("http://{to}/{path}");
        let body = self.scratch.path().join("body");
        fs::write(&body, content)?;
        let body = body.display().to_string();
        let command = [
            &["h2load", "-t", "1", "-n", &count, "-d", &body],
            scenario.load(),
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
        let mut processes = vec![process];
        let mut nghttpd = |name: &str, more: &[&str]| {
            let (at, process) = nghttpd(cpus, scratch, name, more)
                .map_err(|problem| format!("it needs nghttpd and h2load: {problem}"))?;
            processes.push(process);
            Ok(at)
        };
        let types = scratch.join("mime.types");
        fs::write(&types, "application/grpc grpc\n")?;
        let types = format!("--mime-types-file={}", types.display());
        Ok(Self {
            http,
            echo,
            source,
            http2: nghttpd("http2", &[]),
            grpc: nghttpd(
                "grpc",
                &["--trailer=grpc-status: 0", "--no-content-length", &types],
            ),
            _processes: processes,
        })
    }

    /// Where a scenario's app answers.
    pub(super) fn of(&self, scenario: Scenario) -> Result<SocketAddr, NotServing> {
        match scenario {
            Scenario::TcpBulk => Ok(self.source),
            Scenario::TcpPingpong => Ok(self.echo),
            Scenario::H2Small => self.http2.clone().map_err(NotServing::Absent),
            Scenario::GrpcPair => self.grpc.clone().map_err(NotServing::Absent),
            _ => Ok(self.http),
        }
    }
}

/// Debian's server of HTTP/2: 128-byte answers and a gRPC message, whatever the method.
fn nghttpd(
    cpus: &str,
    scratch: &Path,
    name: &str,
    more: &[&str],
) -> Result<(SocketAddr, Running), Problem> {
    let (at, root) = (free_port()?, scratch.join("www"));
    for (path, content) in [(POST_PATH, vec![b'x'; 128]), (CALL_PATH, message())] {
        let file = root.join(path);
        fs::create_dir_all(file.parent().unwrap_or(&root))?;
        fs::write(file, content)?;
    }
    let (port, root) = (at.port().to_string(), root.display().to_string());
    let command = [
        &["nghttpd", "--no-tls", "--address", "127.0.0.1", "-d", &root],
        more,
        &[port.as_str()],
    ]
    .concat();
    let output = scratch.join(format!("nghttpd-{name}.output"));
    let mut process = Running::start("nghttpd", cpus, &output, &[], &command)?;
    process.accepts(at)?;
    Ok((at, process))
}

/// A gRPC message: not compressed, its length, its bytes.
fn message() -> Vec<u8> {
    let mut message = vec![0];
    message.extend((MESSAGE_BYTES as u32).to_be_bytes());
    message.extend([b'x'; MESSAGE_BYTES]);
    message
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
