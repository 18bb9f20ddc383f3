//! For whoever hosts a ring inside another event loop: descriptors to sleep on, and one process-wide
//! setting. Names no runtime.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use super::Ring;

impl Ring {
    /// From now on every completion also counts up `eventfd`, so that another loop can wait for it.
    /// Turn the ring once more afterwards: what was posted before is not counted.
    ///
    /// # Errors
    /// What io_uring_register says.
    pub fn signal_to(&self, eventfd: &OwnedFd) -> io::Result<()> {
        self.core.kernel.register_eventfd(eventfd.as_raw_fd())
    }

    /// Ends [`signal_to`](Self::signal_to): in traffic a signal per completion would be waste.
    ///
    /// # Errors
    /// What io_uring_register says.
    pub fn signal_off(&self) -> io::Result<()> {
        self.core.kernel.unregister_eventfd()
    }
}

/// A blocking eventfd: a read through an io_uring waits for it.
///
/// # Errors
/// Out of descriptors or memory.
pub fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: a plain system call without pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a library's descriptor type out of an owned descriptor, where the library offers only the
/// unsafe way from a number.
#[must_use]
pub fn adopt<F: FromRawFd>(fd: OwnedFd) -> F {
    // SAFETY: the descriptor is open and owned, and ownership goes to the new value: what
    // `from_raw_fd` asks for.
    unsafe { F::from_raw_fd(fd.into_raw_fd()) }
}

/// Registers this process for private expedited membarriers. To be called first thing in `main`:
/// with one thread it takes microseconds, but the host's loop needs it for its first sleep, and
/// registering then, with threads running, was measured at 4 to 44 ms (2026-11).
pub fn register_membarrier() {
    const REGISTER_PRIVATE_EXPEDITED: libc::c_int = 1 << 4;
    // SAFETY: a plain system call without pointers. Where it is missing the loop has another way.
    unsafe { libc::syscall(libc::SYS_membarrier, REGISTER_PRIVATE_EXPEDITED, 0, 0) };
}
