//! Whether the cgroup that rules were made for is still there. The kernel's rules hold a cgroup, not its
//! path: systemd makes a new one each time a unit starts, and the rules keep the old one, in which nobody is.
//!
//! nft prints the path of the cgroup that it holds, or the number where no path has that any more.
//! iptables prints the path that was asked for, so its rules tell the number in a comment.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Where nft looks for paths.
const OF_NFT: &str = "/sys/fs/cgroup";

/// What became of the cgroup that rules were made for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SeenCgroup {
    /// No rule names one, or it is not known.
    #[default]
    Unknown,
    /// Its path leads to no cgroup, or to a newer one.
    Gone,
    /// Its path leads to the one with this number.
    Is(u64),
}

/// The number of the cgroup that `path` leads to now; `None` if there is none, or no cgroup v2 to be seen.
pub(super) fn number(path: &str) -> Option<u64> {
    number_below(&hierarchy()?, path)
}

/// What became of the cgroup at `path`.
pub(super) fn at(path: &str) -> SeenCgroup {
    match hierarchy() {
        Some(root) => number_below(&root, path).map_or(SeenCgroup::Gone, SeenCgroup::Is),
        None => SeenCgroup::Unknown,
    }
}

/// What became of a cgroup for which nft prints a number.
pub(super) fn unnamed() -> SeenCgroup {
    match Path::new(OF_NFT).join("cgroup.controllers").exists() {
        true => SeenCgroup::Gone,
        // It prints no path here at all.
        false => SeenCgroup::Unknown,
    }
}

fn number_below(root: &Path, path: &str) -> Option<u64> {
    Some(fs::metadata(root.join(path)).ok()?.ino())
}

/// Where the hierarchy of cgroup v2 is mounted.
fn hierarchy() -> Option<PathBuf> {
    mounted(&fs::read_to_string("/proc/self/mounts").ok()?)
}

/// The last one hides those before it, if it is at the same place.
fn mounted(mounts: &str) -> Option<PathBuf> {
    mounts.lines().rev().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (at, kind) = (words.next()?, words.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(at))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hierarchy_is_found_beside_those_of_version_1() {
        let hybrid = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n";
        let at = mounted(hybrid).expect("one");
        assert_eq!(at, Path::new("/sys/fs/cgroup/unified"));
        assert_eq!(mounted("proc /proc proc rw 0 0\n"), None);
    }
}
