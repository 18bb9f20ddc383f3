//! ringmesh, with all the rules of examples/standalone, and its books.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{Caller, NotServing, Serving, Speech, Stage, free_port};
use crate::problem::Problem;
use crate::process::Running;

/// How the scripts end when what they are asked for is not built.
const NOT_DONE: i32 = 2;

/// `examples/standalone/run`: one sidecar.
pub(super) fn standalone(speech: Speech, stage: &Stage<'_>) -> Result<Serving, NotServing> {
    let (at, admin) = (free_port()?, free_port()?);
    let mut process = script("standalone", speech, at, &[("ADMIN", admin)], stage)?;
    if let Err(problem) = process.says("ready") {
        return Err(not_serving(&mut process, problem));
    }
    let books = Books::open(admin, stage.dir.join("state/access.log"), speech, true)?;
    Ok(Serving {
        at,
        roots: vec![process.pid()],
        books: vec![books],
        caller: None,
        processes: vec![process],
    })
}

/// `examples/pair/run`: two sidecars, and a control service that is not on the way.
pub(super) fn pair(speech: Speech, stage: &Stage<'_>) -> Result<Serving, NotServing> {
    let at = free_port()?;
    let admins = [
        ("CALLER_ADMIN", free_port()?),
        ("CALLEE_ADMIN", free_port()?),
    ];
    let mut process = script("pair", speech, at, &admins, stage)?;
    let said = match process.says("ready") {
        Ok(said) => said,
        Err(problem) => return Err(not_serving(&mut process, problem)),
    };
    let pids = said.lines().skip_while(|line| *line != "ready").nth(1);
    let roots: Vec<u32> = pids
        .unwrap_or_default()
        .split(' ')
        .filter_map(|pid| pid.parse().ok())
        .collect();
    if roots.len() != 2 {
        return Err(process.problem("did not tell its two pids").into());
    }
    let state = stage.dir.join("state");
    let [(_, caller), (_, callee)] = admins;
    let books = vec![
        // Quotas are the callee's to charge.
        Books::open(caller, state.join("caller.access.log"), speech, false)?,
        Books::open(callee, state.join("upstream.access.log"), speech, true)?,
    ];
    Ok(Serving {
        at,
        roots,
        books,
        caller: None,
        processes: vec![process],
    })
}

/// The callee of such a pair; the load shows the caller's certificate.
pub(super) fn callee(speech: Speech, stage: &Stage<'_>) -> Result<Serving, NotServing> {
    let mut serving = pair(speech, stage)?;
    // The caller's stay behind.
    let books = serving.books.remove(1);
    let config: serde_json::Value =
        serde_json::from_str(&page(books.admin, "/config")?).map_err(Problem::failed)?;
    let mesh = config["listeners"]["mesh"].as_str();
    let at = mesh.and_then(|at| at.parse().ok());
    let state = stage.dir.join("state/caller");
    Ok(Serving {
        at: at.ok_or_else(|| Problem::failed("the callee does not tell its mesh port"))?,
        roots: vec![serving.roots[1]],
        books: vec![books],
        caller: Some(Caller {
            certificate: state.join("svid.pem"),
            key: state.join("svid.key"),
            name: "p80.upstream.default.ringmesh",
            alpn: "ringmesh-http/1.1",
        }),
        ..serving
    })
}

fn script(
    example: &str,
    speech: Speech,
    at: SocketAddr,
    admins: &[(&'static str, SocketAddr)],
    stage: &Stage<'_>,
) -> Result<Running, Problem> {
    let path = stage
        .programs
        .root
        .join("examples")
        .join(example)
        .join("run");
    let mode = match speech {
        Speech::Http1 => "http",
        Speech::Http2 => "http2",
        Speech::Tcp => "tcp",
    };
    let mut env = vec![
        ("SHARDS", "1".to_owned()),
        ("BIN", stage.programs.bin.display().to_string()),
        ("STATE", stage.dir.join("state").display().to_string()),
    ];
    env.extend(admins.iter().map(|(name, at)| (*name, at.to_string())));
    let (port, upstream) = (at.port().to_string(), stage.upstream.to_string());
    let command = [&path.display().to_string(), &port, &upstream, mode];
    let output = stage.dir.join("output");
    Running::start("ringmesh", stage.cpus, &output, &env, &command)
}

fn not_serving(process: &mut Running, problem: Problem) -> NotServing {
    match process.ended() {
        Ok(Some(status)) if status.code() == Some(NOT_DONE) => {
            let text = problem.to_string();
            let last = text.lines().next_back().unwrap_or_default().trim();
            let why = last.split_once("run: ").map_or(last, |(_, why)| why);
            NotServing::Absent(format!("not supported yet: {why}"))
        }
        _ => NotServing::Broken(problem),
    }
}

/// What a sidecar has written down, which has to agree: every exchange is counted, charged and
/// logged exactly once.
#[derive(Debug)]
pub(in crate::suite) struct Books {
    admin: SocketAddr,
    log: PathBuf,
    /// Exchanges are connections.
    tcp: bool,
    /// Each is charged to quotas.
    charges: bool,
    /// Lines of the log that were counted and cut off.
    logged: u64,
    /// Exchanges that the load has seen whole.
    expected: u64,
    /// Counts before the first exchange.
    base: Counts,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    exchanges: u64,
    charges: u64,
    lines: u64,
    /// Lines that the sidecar says it had no room for, or the disk no time.
    dropped: u64,
}

/// Histograms and counters reach the page, and lines the file, within a second or so.
const SETTLED: Duration = Duration::from_secs(15);
const PAGE_TIMEOUT: Duration = Duration::from_secs(5);

impl Books {
    fn open(
        admin: SocketAddr,
        log: PathBuf,
        speech: Speech,
        charges: bool,
    ) -> Result<Self, Problem> {
        let mut books = Self {
            admin,
            log,
            tcp: speech == Speech::Tcp,
            charges,
            logged: 0,
            expected: 0,
            base: Counts::default(),
        };
        books.base = books.counts()?;
        Ok(books)
    }

    /// `exchanges` more were seen by the load: waits until all books say so.
    ///
    /// # Errors
    /// They do not.
    pub(in crate::suite) fn agree_after(&mut self, exchanges: u64) -> Result<(), Problem> {
        self.expected += exchanges;
        let until = Instant::now() + SETTLED;
        loop {
            let counts = self.counts()?;
            let since = Counts {
                exchanges: counts.exchanges - self.base.exchanges,
                charges: counts.charges - self.base.charges,
                lines: counts.lines - self.base.lines,
                dropped: counts.dropped - self.base.dropped,
            };
            let wanted = self.expected;
            let charges = if self.charges { wanted } else { 0 };
            if [since.exchanges, since.lines, since.charges] == [wanted, wanted, charges] {
                return self.cut_log();
            }
            if Instant::now() > until {
                return Err(Problem::Failed(format!(
                    "ringmesh's books do not agree: the load saw {wanted} exchanges; \
                     {} counted, {} charged to quotas, {} log lines and {} known to be dropped",
                    since.exchanges, since.charges, since.lines, since.dropped
                )));
            }
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    /// Allocations of the shards so far; `None` from a build that does not count them.
    pub(in crate::suite) fn allocations(&self) -> Result<Option<u64>, Problem> {
        let page = page(self.admin, "/metrics")?;
        let name = "ringmesh_shard_allocations_total";
        Ok(page.contains(name).then(|| sum_of(&page, name)))
    }

    fn counts(&mut self) -> Result<Counts, Problem> {
        let page = page(self.admin, "/metrics")?;
        let sum = |name: &str| sum_of(&page, name);
        let exchanges = if self.tcp {
            sum("ringmesh_tcp_connections_closed_total")
        } else {
            sum("ringmesh_requests_total")
        };
        Ok(Counts {
            exchanges,
            charges: sum("ringmesh_quota_charged_total"),
            lines: self.logged + lines(&self.log)?,
            dropped: sum("ringmesh_log_lines_dropped_total")
                + sum("ringmesh_access_log_dropped_total"),
        })
    }

    /// The log is opened for appending, so it may be cut while it is written; millions of lines
    /// need not stay. Nothing is written now: all exchanges are in it.
    fn cut_log(&mut self) -> Result<(), Problem> {
        self.logged += lines(&self.log)?;
        File::options().write(true).open(&self.log)?.set_len(0)?;
        Ok(())
    }
}

fn lines(log: &Path) -> Result<u64, Problem> {
    if !log.exists() {
        return Ok(0);
    }
    let mut file = File::open(log)?;
    let mut block = vec![0; 1 << 16];
    let mut lines = 0;
    loop {
        let got = file.read(&mut block)?;
        if got == 0 {
            return Ok(lines);
        }
        lines += block[..got].iter().filter(|byte| **byte == b'\n').count() as u64;
    }
}

/// The body of a page of the sidecar's.
fn page(admin: SocketAddr, path: &str) -> Result<String, Problem> {
    let mut stream = TcpStream::connect_timeout(&admin, PAGE_TIMEOUT)?;
    stream.set_read_timeout(Some(PAGE_TIMEOUT))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\n\r\n"
    )?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body);
    Ok(body.unwrap_or_default().to_owned())
}

/// Sum over all series of a metric.
fn sum_of(page: &str, name: &str) -> u64 {
    page.lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn series_of_one_metric_are_added_and_no_others() {
        let page = "# TYPE a_total counter\na_total{x=\"1\"} 3\na_total{x=\"a_total 9\"} 4\n\
                    a_total_more 100\na 50\n";
        assert_eq!(sum_of(page, "a_total"), 7);
    }

    #[test]
    fn lines_of_a_log_are_counted_and_no_log_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert_eq!(lines(&log).unwrap(), 0);
        std::fs::write(&log, "{}\n{}\n{").unwrap();
        assert_eq!(lines(&log).unwrap(), 2);
    }
}
