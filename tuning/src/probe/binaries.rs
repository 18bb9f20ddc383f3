//! Finds programs on `PATH`, and in the sbin folders that a plain user's `PATH` lacks on Debian.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::Binaries;

const SBIN: [&str; 3] = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

pub(super) fn find() -> Binaries {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let look = |name: &str| find_in(name, &path);
    Binaries {
        nft: look("nft"),
        iptables_restore: look("iptables-restore"),
        ip6tables_restore: look("ip6tables-restore"),
        iptables_save: look("iptables-save"),
        ip6tables_save: look("ip6tables-save"),
        ip: look("ip"),
    }
}

fn find_in(name: &str, path: &OsStr) -> Option<PathBuf> {
    std::env::split_paths(path)
        .chain(SBIN.iter().map(PathBuf::from))
        .map(|dir| dir.join(name))
        .find(|file| is_executable(file))
}

fn is_executable(file: &Path) -> bool {
    std::fs::metadata(file)
        .is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}
