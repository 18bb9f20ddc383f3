//! Child processes that end with us, and what they cost.

use std::fs;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A child that gets TERM when it is dropped, and KILL if it does not listen.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    name: &'static str,
}

impl Running {
    /// Starts `command` on the given CPUs (as `taskset -c` takes them).
    pub(crate) fn start(name: &'static str, cpus: &str, command: &[&str]) -> io::Result<Self> {
        let child = Command::new("taskset")
            .args(["-c", cpus])
            .args(command)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Self { child, name })
    }

    /// Waits until `address` accepts.
    pub(crate) fn ready(&mut self, address: SocketAddr) -> io::Result<()> {
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("{} ended: {status}", self.name)));
            }
            if Instant::now() > until {
                return Err(io::Error::other(format!(
                    "{} does not accept at {address}",
                    self.name
                )));
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(())
    }

    /// User and system time of the process and its descendants so far, microseconds.
    pub(crate) fn cpu_us(&self) -> io::Result<u64> {
        let mut pids = vec![self.child.id()];
        let mut at = 0;
        while let Some(pid) = pids.get(at).copied() {
            at += 1;
            let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
            pids.extend(
                children
                    .unwrap_or_default()
                    .split_whitespace()
                    .filter_map(|p| p.parse::<u32>().ok()),
            );
        }
        pids.iter().map(|pid| cpu_of(*pid)).sum()
    }
}

/// `utime + stime` of /proc/PID/schedstat-free accounting: fields 14 and 15 of stat, in ticks, are
/// too coarse for short rounds; schedstat has nanoseconds per thread.
fn cpu_of(pid: u32) -> io::Result<u64> {
    let mut total_ns = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let stat = fs::read_to_string(task?.path().join("schedstat"))?;
        let on_cpu = stat
            .split_whitespace()
            .next()
            .and_then(|ns| ns.parse::<u64>().ok());
        total_ns += on_cpu.unwrap_or(0);
    }
    Ok(total_ns / 1_000)
}

impl Drop for Running {
    fn drop(&mut self) {
        let Ok(pid) = i32::try_from(self.child.id()) else {
            return;
        };
        terminate(pid);
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// TERM by the `kill` command: a system call of our own would need `unsafe`.
fn terminate(pid: i32) {
    let _ = Command::new("kill")
        .args(["-TERM", &pid.to_string()])
        .status();
}
