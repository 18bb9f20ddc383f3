//! Facts about this host. Reads, never writes; parsing is apart from reading so it can be tested.
//!
//! Door type: [`Facts`]. Each field is what the kernel said, not what we conclude from it:
//! conclusions are [`crate::plan`] and [`crate::doctor`].

mod binaries;
mod limits;
mod modules;
mod proc;
mod uring;

use std::path::PathBuf;

use serde::Serialize;

pub use limits::{Limit, Limits};
pub use proc::{Capabilities, Conntrack, KernelVersion, parse_cpu_list};
pub use uring::{Op, Uring};

/// What [`gather`] found. Serialises for `ringmesh doctor --output json`.
#[derive(Clone, Debug, Serialize)]
pub struct Facts {
    /// `uname -r` and its first three numbers.
    pub kernel: KernelVersion,
    /// Whether a ring can be made here and what it can do.
    pub uring: Uring,
    /// `kernel.io_uring_disabled`: 0 free, 1 privileged only, 2 off. `None`: sysctl absent (< 6.6).
    pub io_uring_disabled: Option<u64>,
    /// Resource limits of this process.
    pub limits: Limits,
    /// CPUs this process may run on (affinity and cpuset), ascending.
    pub cpus: Vec<u32>,
    /// Kernel TLS can be attached to a socket (`tls` among the upper layer protocols).
    pub ktls: bool,
    /// Connection tracking, which REDIRECT needs; `None` when the kernel has no conntrack loaded.
    pub conntrack: Option<Conntrack>,
    /// `net.core.somaxconn`: accept queue bound.
    pub somaxconn: Option<u64>,
    /// `net.ipv4.ip_local_port_range`, both ends included.
    pub local_ports: Option<(u16, u16)>,
    /// Effective capabilities of this process.
    pub capabilities: Capabilities,
    /// Where the firewall tools are, if they are.
    pub binaries: Binaries,
    /// What TPROXY needs; `None`: not looked at. It takes programs, so a sidecar does not
    /// ([`crate::intercept::Host::tproxy`] does).
    pub tproxy: Option<Tproxy>,
}

/// What capture by TPROXY needs of this host, and whether it has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Tproxy {
    /// The kernel's part, `nft_tproxy` or `xt_TPROXY` by the tool that is used; `None`: not known.
    pub module: Option<bool>,
    /// A capture of ours is up in this mode.
    pub capturing: bool,
    /// Its routing is there: the app's answers find the sidecar.
    pub routed: bool,
}

/// Whether the kernel has a module, loaded or not; `None`: nothing here tells.
#[must_use]
pub fn has_module(name: &str) -> Option<bool> {
    modules::has(name, &proc::kernel())
}

/// Programs that capture needs, by absolute path.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Binaries {
    /// `nft`
    pub nft: Option<PathBuf>,
    /// `iptables-restore` (v4)
    pub iptables_restore: Option<PathBuf>,
    /// `ip6tables-restore` (v6)
    pub ip6tables_restore: Option<PathBuf>,
    /// `iptables-save`
    pub iptables_save: Option<PathBuf>,
    /// `ip6tables-save`
    pub ip6tables_save: Option<PathBuf>,
    /// `ip`, for TPROXY.
    pub ip: Option<PathBuf>,
}

/// Reads all facts. Never fails: what cannot be read is `None`.
#[must_use]
pub fn gather() -> Facts {
    Facts {
        kernel: proc::kernel(),
        uring: uring::probe(),
        io_uring_disabled: proc::sysctl("kernel/io_uring_disabled"),
        limits: limits::read(),
        cpus: proc::cpus(),
        ktls: proc::ktls(),
        conntrack: proc::conntrack(),
        somaxconn: proc::sysctl("net/core/somaxconn"),
        local_ports: proc::local_ports(),
        capabilities: proc::capabilities(),
        binaries: binaries::find(),
        tproxy: None,
    }
}
