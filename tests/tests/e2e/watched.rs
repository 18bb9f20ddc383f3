//! What can be seen of the sidecar from outside: descriptors, memory, counters, log.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ringmesh_tests::{SOON, get, wait};

pub(crate) struct Watched {
    pid: u32,
    admin: SocketAddr,
    log: PathBuf,
}

impl Watched {
    /// The sidecar that the script of process `script` has started.
    pub(crate) fn of(script: u32, admin: SocketAddr, log: PathBuf) -> Self {
        let pid = wait::until("the sidecar's pid", SOON, || {
            child_of(script).ok_or_else(|| "no child".to_owned())
        })
        .expect("a sidecar");
        Self { pid, admin, log }
    }

    pub(crate) fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid))
            .expect("its descriptors")
            .count()
    }

    /// Waits until no more are open than `before`: idle upstream connections that their server has
    /// closed are let go within seconds.
    pub(crate) fn wait_for_descriptors(&self, before: usize) {
        wait::until("as many descriptors as before", SOON, || {
            match self.descriptors() {
                now if now <= before => Ok(()),
                now => Err(format!(
                    "{now} are open, {before} were before: {}",
                    self.open_files()
                )),
            }
        })
        .expect("no descriptor left behind");
    }

    /// Times its threads of a name have gone to sleep and been woken since their start.
    pub(crate) fn wake_ups(&self, thread: &str) -> u64 {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.pid)).expect("its threads");
        let of = |task: PathBuf| {
            let name = std::fs::read_to_string(task.join("comm")).ok()?;
            let status = std::fs::read_to_string(task.join("status")).ok()?;
            let count = status
                .lines()
                .find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
            (name.trim() == thread).then(|| count.trim().parse::<u64>().ok())?
        };
        let counts: Vec<u64> = tasks.flatten().filter_map(|task| of(task.path())).collect();
        assert!(!counts.is_empty(), "no thread {thread}");
        counts.iter().sum()
    }

    fn open_files(&self) -> String {
        let Ok(all) = std::fs::read_dir(format!("/proc/{}/fd", self.pid)) else {
            return "the sidecar is gone".to_owned();
        };
        let targets = all
            .flatten()
            .filter_map(|fd| std::fs::read_link(fd.path()).ok());
        let targets: Vec<String> = targets.map(|to| to.display().to_string()).collect();
        targets.join(" ")
    }

    pub(crate) fn resident_kib(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// Whether it might be given huge pages.
    pub(crate) fn takes_huge_pages(&self) -> bool {
        self.status("THP_enabled:") != 0
    }

    /// The number behind `label` in its `/proc/pid/status`.
    fn status(&self, label: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("status");
        let line = status.lines().find_map(|line| line.strip_prefix(label));
        line.and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("no {label} in {status}"))
    }

    /// CPU time of all its threads so far, to a hundredth of a second.
    pub(crate) fn cpu(&self) -> Duration {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid)).expect("stat");
        // Behind the name in brackets, from the third field on; the times are the 14th and 15th.
        let (_, rest) = stat.rsplit_once(") ").expect("a name");
        let times = rest.split(' ').skip(11).take(2);
        let ticks: u64 = times
            .map(|ticks| ticks.parse::<u64>().expect("ticks"))
            .sum();
        Duration::from_millis(ticks * 10)
    }

    /// The request counter once the log has as many lines.
    pub(crate) fn requests_once_logged(&self, patience: Duration) -> u64 {
        wait::until("as many log lines as requests", patience, || {
            let counted = self.counter("ringmesh_requests_total");
            let log = std::fs::read(&self.log).map_err(|error| error.to_string())?;
            let lines = log.iter().filter(|byte| **byte == b'\n').count() as u64;
            if counted == lines {
                Ok(counted)
            } else {
                Err(format!("{counted} counted, {lines} logged"))
            }
        })
        .expect("counts that agree")
    }

    /// As [`Self::requests_once_logged`], once there are so many.
    pub(crate) fn requests_once_logged_as(&self, count: u64, patience: Duration) -> u64 {
        wait::until("that many requests", patience, || {
            match self.requests_once_logged(patience) {
                counted if counted >= count => Ok(counted),
                counted => Err(format!("{counted} of {count}")),
            }
        })
        .expect("requests")
    }

    /// Lines the sidecar had to drop, wherever.
    pub(crate) fn lost_log_lines(&self) -> u64 {
        self.counter("ringmesh_log_lines_dropped_total")
            + self.counter("ringmesh_access_log_dropped_total")
    }

    /// Sum over all series of a metric.
    fn counter(&self, name: &str) -> u64 {
        Metrics::of(self.admin).sum(name)
    }
}

/// What a sidecar's `/metrics` said at one time.
pub(crate) struct Metrics(String);

impl Metrics {
    pub(crate) fn of(admin: SocketAddr) -> Self {
        let answer = get(admin, "admin", "/metrics", &[], SOON);
        Self(answer.expect("metrics").text())
    }

    /// Sum over all series of a metric; 0 if there is none.
    pub(crate) fn sum(&self, name: &str) -> u64 {
        self.0
            .lines()
            .filter(|line| line.starts_with(name) && !line.starts_with('#'))
            .filter(|line| line[name.len()..].starts_with(['{', ' ']))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }
}

fn child_of(parent: u32) -> Option<u32> {
    std::fs::read_dir("/proc")
        .ok()?
        .flatten()
        .find_map(|entry| {
            let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
            let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
            // After the name in brackets: state, parent.
            let (name, rest) = stat.rsplit_once(") ")?;
            let of: u32 = rest.split(' ').nth(1)?.parse().ok()?;
            (of == parent && name.contains("ringmesh-proxy")).then_some(pid)
        })
}
