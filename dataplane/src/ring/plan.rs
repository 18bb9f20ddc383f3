//! How large a ring is and which of the kernel's features it may use.

use std::fmt;

use super::groups::{BULK_BLOCK_BYTES, HEADS_BLOCK_BYTES};
use super::out::OUT_PIECES_MAX;

/// Sizes and choices of one shard's ring. Every number is a bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RingPlan {
    /// Submission queue entries (power of two).
    pub sq_entries: u32,
    /// Completion queue entries (power of two).
    pub cq_entries: u32,
    /// Most tasks alive at once; over it [`spawn`](super::Ring::spawn) says no.
    pub tasks_max: u32,
    /// Receive buffers of 4 KiB: heads and small messages.
    pub heads: GroupPlan,
    /// Receive buffers of 64 KiB: bulk. A 4 KiB buffer costs about twice the CPU per MiB.
    pub bulk: GroupPlan,
    /// Output buffers of 16 KiB, used one by one on demand.
    pub bufs_max: u32,
    /// Bytes one socket may have received and not yet taken; also the bound of one multishot
    /// receive in bulk. Without it one stalled reader drains the buffers of all others.
    pub recv_queued_bytes_max: u32,
    /// Pipes for splicing, 1 MiB each and made on demand. One is in use only while bytes are in
    /// it; without one a bulk transfer goes on in buffers.
    pub pipes_max: u32,
    /// How long bytes accepted for sending may outlive their dropped socket, milliseconds.
    pub linger_ms: u64,
    /// Who runs completion work.
    pub task_run: TaskRun,
    /// Sends of so many bytes or more are tried without a copy (IORING_OP_SEND_ZC), from 1 to
    /// [`SEND_BYTES_MAX`]; `None`: none.
    pub zero_copy_min_bytes: Option<u32>,
    /// Faults between us and the kernel.
    #[cfg(test)]
    pub(crate) weather: Option<super::Weather>,
    /// In place of the kernel a fake one, and the seed of its world.
    #[cfg(test)]
    pub(crate) simulated: Option<u64>,
}

/// Size of one group of receive buffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupPlan {
    /// Buffers in circulation at first and after a quiet time.
    pub start: u16,
    /// Most buffers in circulation (power of two, at most 32768).
    pub max: u16,
}

/// When the kernel runs the work that posts completions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskRun {
    /// Only when we ask for completions (kernel 6.1); measured best.
    Defer,
    /// On our next system call (kernel 5.19).
    Cooperative,
    /// At any time, by interrupting us.
    Plain,
}

impl Default for RingPlan {
    fn default() -> Self {
        Self {
            sq_entries: 1024,
            cq_entries: 4096,
            tasks_max: 65_536,
            // 256 KiB and 512 KiB at first; 16 MiB each at most, and a twelfth more of what lies between them.
            heads: GroupPlan {
                start: 64,
                max: 4096,
            },
            bulk: GroupPlan { start: 8, max: 256 },
            // 32 MiB at most.
            bufs_max: 2048,
            recv_queued_bytes_max: 256 * 1024,
            // Together what the kernel lets an ordinary user have (fs.pipe-user-pages-soft, 64 MiB).
            pipes_max: 64,
            linger_ms: 10_000,
            task_run: TaskRun::Defer,
            zero_copy_min_bytes: None,
            #[cfg(test)]
            weather: None,
            #[cfg(test)]
            simulated: None,
        }
    }
}

/// The most one send carries, bytes: eight pieces, each a bulk buffer.
pub const SEND_BYTES_MAX: u32 = OUT_PIECES_MAX as u32 * BULK_BLOCK_BYTES;

/// How it stands with sends without a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SendZc {
    /// Not asked for.
    Off,
    /// Asked for; the kernel has no SEND_ZC that reports copies (6.2).
    Missing,
    /// From so many bytes on.
    From(u32),
    /// Asked for and tried; the kernel copied, or refused, so often in a row that it is tried no more.
    Copied,
}

impl SendZc {
    /// One word, for metrics and people.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Missing => "missing",
            Self::From(_) => "on",
            Self::Copied => "copied",
        }
    }
}

/// What the ring really got, for the log, the admin's `/ring` and metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Picked {
    /// Completion work.
    pub task_run: TaskRun,
    /// IORING_SETUP_SINGLE_ISSUER (6.0).
    pub single_issuer: bool,
    /// IORING_SETUP_SUBMIT_ALL (5.18).
    pub submit_all: bool,
    /// IORING_SETUP_NO_SQARRAY (6.6).
    pub no_sqarray: bool,
    /// The ring's own descriptor is registered (5.18).
    pub registered_fd: bool,
    /// A multishot receive takes a byte limit (6.18); otherwise we cancel it.
    pub recv_limit: bool,
    /// Receive buffers of 4 KiB.
    pub heads: GroupPlan,
    /// Receive buffers of 64 KiB.
    pub bulk: GroupPlan,
    /// Pipes for splicing, at most.
    pub pipes_max: u32,
    /// Sends without a copy.
    pub send_zc: SendZc,
}

impl fmt::Display for Picked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let taskrun = match self.task_run {
            TaskRun::Defer => "defer_taskrun",
            TaskRun::Cooperative => "coop_taskrun",
            TaskRun::Plain => "plain_taskrun",
        };
        f.write_str(taskrun)?;
        for (has, name) in [
            (self.single_issuer, "single_issuer"),
            (self.submit_all, "submit_all"),
            (self.no_sqarray, "no_sqarray"),
            (self.registered_fd, "registered_fd"),
            (self.recv_limit, "recv_limit"),
        ] {
            write!(f, " {}{name}", if has { "" } else { "no-" })?;
        }
        for (name, group, bytes) in [
            ("heads", self.heads, HEADS_BLOCK_BYTES),
            ("bulk", self.bulk, BULK_BLOCK_BYTES),
        ] {
            let GroupPlan { start, max } = group;
            write!(f, " {name}={start}..{max}x{}KiB", bytes / 1024)?;
        }
        write!(f, " splice_pipes={}", self.pipes_max)?;
        match self.send_zc {
            SendZc::From(bytes) => write!(f, " send_zc=from_{bytes}"),
            state => write!(f, " send_zc={}", state.as_str()),
        }
    }
}
