//! Why a ring could not be made, and what to do about it.

use std::fmt;
use std::io;

/// A ring could not be made. The text names the likely cause and the fix.
#[derive(Debug)]
#[non_exhaustive]
pub enum RingError {
    /// EPERM: `kernel.io_uring_disabled`.
    Disabled(io::Error),
    /// ENOSYS or EACCES: a seccomp filter (containers) or a kernel without io_uring.
    Blocked(io::Error),
    /// ENOMEM: the locked-memory limit, or no memory.
    Memory(io::Error),
    /// The kernel lacks something we cannot do without.
    TooOld(&'static str),
    /// EMFILE or ENFILE.
    Files(io::Error),
    /// Anything else, and at which step.
    Other(&'static str, io::Error),
}

impl RingError {
    pub(super) fn at(step: &'static str, error: io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EPERM) => Self::Disabled(error),
            Some(libc::ENOSYS | libc::EACCES) => Self::Blocked(error),
            Some(libc::ENOMEM) => Self::Memory(error),
            Some(libc::EMFILE | libc::ENFILE) => Self::Files(error),
            _ => Self::Other(step, error),
        }
    }
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Disabled(error) => write!(
                f,
                "io_uring is switched off for this process ({error}); \
                 run `sysctl kernel.io_uring_disabled=0` (1 allows only CAP_SYS_ADMIN or the group \
                 in kernel.io_uring_group, 2 allows nobody), or lift the seccomp filter"
            ),
            Self::Blocked(error) => write!(
                f,
                "io_uring does not exist here ({error}); a seccomp filter hides it (allow \
                 io_uring_setup, io_uring_enter and io_uring_register; for systemd \
                 `SystemCallFilter=@io-event io_uring_setup io_uring_enter io_uring_register`), \
                 or the kernel was built without CONFIG_IO_URING"
            ),
            Self::Memory(error) => write!(
                f,
                "no memory for the ring ({error}); raise the locked-memory limit: \
                 `ulimit -l unlimited`, or LimitMEMLOCK=infinity in the systemd unit"
            ),
            Self::TooOld(what) => {
                write!(f, "the kernel lacks {what}; Linux 6.1 or newer is needed")
            }
            Self::Files(error) => write!(
                f,
                "no file descriptor left for the ring ({error}); raise the limit: `ulimit -n`, or \
                 LimitNOFILE in the systemd unit"
            ),
            Self::Other(step, error) => write!(f, "the ring could not be made: {step}: {error}"),
        }
    }
}

impl std::error::Error for RingError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Disabled(error)
            | Self::Blocked(error)
            | Self::Memory(error)
            | Self::Files(error)
            | Self::Other(_, error) => Some(error),
            Self::TooOld(_) => None,
        }
    }
}
