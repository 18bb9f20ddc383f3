//! What must go when the program goes, also after Ctrl-C: pids, network namespaces, folders.
//!
//! Process-wide on purpose: a signal must reach everything, whichever row started it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

#[derive(Debug, Default)]
struct Live {
    pids: BTreeSet<i32>,
    netns: BTreeSet<String>,
    folders: BTreeSet<PathBuf>,
}

static LIVE: Mutex<Live> = Mutex::new(Live {
    pids: BTreeSet::new(),
    netns: BTreeSet::new(),
    folders: BTreeSet::new(),
});

fn live() -> MutexGuard<'static, Live> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child runs. Its pid stays ours until it is waited for, so it cannot be someone else's.
pub(super) fn started(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        live().pids.insert(pid);
    }
}

/// A child was waited for.
pub(super) fn reaped(pid: u32) {
    if let Ok(pid) = i32::try_from(pid) {
        live().pids.remove(&pid);
    }
}

/// A network namespace is ours.
pub fn netns(name: &str) {
    live().netns.insert(name.to_owned());
}

/// A network namespace is gone.
pub fn netns_gone(name: &str) {
    live().netns.remove(name);
}

/// A folder is ours.
pub(super) fn folder(path: &Path) {
    live().folders.insert(path.to_owned());
}

/// Removes namespaces of demos that were killed and could not clean up: their names carry the pid.
pub fn stale() {
    for entry in std::fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name().to_string_lossy().into_owned();
        let mut parts = name.split('-');
        if (parts.next(), parts.next().is_some()) != (Some("rmd"), true) {
            continue;
        }
        let alive = parts
            .next()
            .is_none_or(|pid| Path::new("/proc").join(pid).exists());
        if !alive {
            // Best effort: without root there is none of ours either.
            let _ = Command::new("ip").args(["netns", "del", &name]).status();
            let _ = std::fs::remove_dir_all(Path::new("/etc/netns").join(&name));
        }
    }
}

/// Waits out an interruption: returns at once, or never if [`all_and_exit`] has begun. What the
/// program finds while its children are being ended is no result, and must not decide its exit
/// status.
pub fn not_interrupted() {
    drop(live());
}

/// Ends everything at once, and then the program. The list stays locked: whoever would start or miss
/// another child waits for it until the end.
pub fn all_and_exit(status: i32) -> ! {
    let live = live();
    for pid in live.pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        // It may have ended by itself.
        let _ = kill_process(pid, Signal::KILL);
    }
    for name in &live.netns {
        let _ = Command::new("ip").args(["netns", "del", name]).status();
        let _ = std::fs::remove_dir_all(Path::new("/etc/netns").join(name));
    }
    for path in &live.folders {
        let _ = std::fs::remove_dir_all(path);
    }
    std::process::exit(status)
}
