//! Child processes that end with us, and what they cost.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::problem::Problem;

/// How long a server may take until it accepts: a mesh starts control, sidecars and certificates.
const READY: Duration = Duration::from_secs(60);
/// How long a child may take to end by itself after TERM.
const ENDED: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Lines of its output that are shown when a child did not go well.
const LINES_SHOWN: usize = 12;

/// A child that gets TERM when it is dropped or when we die, and KILL if it does not listen.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    name: String,
    output: PathBuf,
}

impl Running {
    /// Starts `command` on the given CPUs (as `taskset -c` takes them); what it says goes to
    /// `output`.
    pub(crate) fn start(
        name: &str,
        cpus: &str,
        output: &Path,
        env: &[(&str, String)],
        command: &[&str],
    ) -> Result<Self, Problem> {
        let file = File::create(output)?;
        // The kernel tells it of our death, however we die: nothing is left behind.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "taskset", "-c", cpus])
            .args(command)
            .env("PATH", path())
            .envs(env.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .map_err(|error| Problem::Yours(format!("setpriv: {error}; run `make deps`")))?;
        Ok(Self {
            child,
            name: name.to_owned(),
            output: output.to_owned(),
        })
    }

    /// Waits until `address` accepts.
    pub(crate) fn accepts(&mut self, address: SocketAddr) -> Result<(), Problem> {
        self.until(&format!("accepting at {address}"), |_| {
            TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok()
        })
    }

    /// Waits until it has said a line that is `word`; returns all it has said.
    pub(crate) fn says(&mut self, word: &str) -> Result<String, Problem> {
        self.until(&format!("saying {word}"), |this| {
            this.said().lines().any(|line| line == word)
        })?;
        Ok(self.said())
    }

    fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) -> Result<(), Problem> {
        let until = Instant::now() + READY;
        while !done(self) {
            if let Some(status) = self.child.try_wait()? {
                return Err(self.problem(&format!("ended before {what}: {status}")));
            }
            if Instant::now() > until {
                return Err(self.problem(&format!("is not {what} after {READY:?}")));
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        Ok(())
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        self.child.try_wait()
    }

    /// What went wrong, with the last lines it said.
    pub(crate) fn problem(&self, what: &str) -> Problem {
        let said = self.said();
        let lines: Vec<&str> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n  ");
        Problem::Failed(format!("{} {what}\n  {last}", self.name))
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.output).unwrap_or_default()).into_owned()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        // By the `kill` command: a system call of our own would need `unsafe`.
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &pid]).status();
        let until = Instant::now() + ENDED;
        while Instant::now() < until {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::park_timeout(LOOK_EVERY);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `PATH` with the folders of daemons, which not everybody has on it.
pub(crate) fn path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/sbin:/sbin")
}

/// `roots` and all their descendants.
pub(crate) fn tree(roots: &[u32]) -> Vec<u32> {
    let mut pids = roots.to_vec();
    let mut at = 0;
    while let Some(pid) = pids.get(at).copied() {
        at += 1;
        for task in tasks(pid) {
            let children = fs::read_to_string(task.join("children")).unwrap_or_default();
            pids.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
        }
    }
    pids
}

fn tasks(pid: u32) -> Vec<PathBuf> {
    let all = fs::read_dir(format!("/proc/{pid}/task"));
    all.into_iter()
        .flatten()
        .flatten()
        .map(|task| task.path())
        .collect()
}

/// User and system time of `roots` and their descendants so far, microseconds: `schedstat`, which
/// has nanoseconds per thread (the ticks of `stat` are too coarse for short rounds).
pub(crate) fn cpu_us(roots: &[u32]) -> u64 {
    let of = |task: PathBuf| {
        let stat = fs::read_to_string(task.join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse::<u64>().ok()
    };
    let all = tree(roots).into_iter().flat_map(tasks).filter_map(of);
    all.sum::<u64>() / 1_000
}

/// Resident memory of `roots` and their descendants, KiB. Pages that processes share count for
/// each of them.
pub(crate) fn rss_kib(roots: &[u32]) -> u64 {
    let of = |pid: u32| number_after(&format!("/proc/{pid}/status"), "VmRSS:");
    tree(roots).into_iter().filter_map(of).sum()
}

/// Times the threads of `roots` and their descendants have gone to sleep, by thread name.
pub(crate) fn sleeps(roots: &[u32]) -> BTreeMap<String, u64> {
    let mut by_name = BTreeMap::new();
    for task in tree(roots).into_iter().flat_map(tasks) {
        let name = fs::read_to_string(task.join("comm")).unwrap_or_default();
        let status = task.join("status").display().to_string();
        if let Some(count) = number_after(&status, "voluntary_ctxt_switches:") {
            *by_name.entry(name.trim().to_owned()).or_default() += count;
        }
    }
    by_name
}

fn number_after(file: &str, label: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix(label))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_seen_with_its_own_and_ends_with_its_owner() {
        let output = tempfile::NamedTempFile::new().unwrap();
        let script = "sleep 60 & echo up; wait";
        let mut child =
            Running::start("sh", "0", output.path(), &[], &["sh", "-c", script]).unwrap();
        assert_eq!(child.says("up").unwrap(), "up\n");
        let all = tree(&[child.pid()]);
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(rss_kib(&[child.pid()]) > 0);
        assert!(sleeps(&[child.pid()]).contains_key("sleep"));
        // `sh` leaves its `sleep` behind when TERM ends it; ours do not, but this test must not.
        let _ = Command::new("kill").arg(all[1].to_string()).status();
        let pid = child.pid();
        drop(child);
        assert!(tasks(pid).is_empty());
    }

    #[test]
    fn what_it_said_is_in_the_problem() {
        let output = tempfile::NamedTempFile::new().unwrap();
        let command = ["sh", "-c", "echo no such port; exit 3"];
        let mut child = Running::start("peer", "0", output.path(), &[], &command).unwrap();
        let problem = child.says("ready").unwrap_err().to_string();
        assert!(problem.contains("no such port"), "{problem}");
        assert!(problem.contains("exit status: 3"), "{problem}");
    }
}
