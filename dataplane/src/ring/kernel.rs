//! The two queues shared with the kernel and the system calls on them.
//!
//! Knows nothing of sockets. `enter` is made by hand because the io-uring crate forgets the
//! registered descriptor between calls.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Duration;

use io_uring::{IoUring, cqueue, squeue};

use super::buf_ring::BufRing;
use super::error::RingError;
use super::plan::{Picked, RingPlan, SendZc, TaskRun};
use super::probe;
use crate::time::Mono;

/// One completion.
#[derive(Debug, Clone, Copy)]
pub(super) struct Completion {
    pub(super) user_data: u64,
    pub(super) result: i32,
    flags: u32,
}

impl Completion {
    /// The operation goes on: its memory is still lent.
    pub(super) fn more(self) -> bool {
        cqueue::more(self.flags)
    }

    /// It is the notification of a send without a copy, and the second completion of that send.
    pub(super) fn is_notification(self) -> bool {
        cqueue::notif(self.flags)
    }

    /// What a notification says: the bytes were copied all the same.
    pub(super) fn copied(self) -> bool {
        self.result.cast_unsigned() & NOTIF_USAGE_ZC_COPIED != 0
    }

    /// One that no kernel posted.
    #[cfg(test)]
    pub(super) fn posted(user_data: u64, result: i32, flags: u32) -> Self {
        Self {
            user_data,
            result,
            flags,
        }
    }

    /// The provided block that was filled.
    pub(super) fn block(self) -> Option<u16> {
        cqueue::buffer_select(self.flags)
    }
}

/// How long [`Kernel::enter`] may sleep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    No,
    Forever,
    AtMost(Duration),
}

/// An io_uring and what we know of its kernel.
pub(super) struct Kernel {
    uring: RefCell<IoUring>,
    /// Submissions that found the queue full; they go first at the next chance.
    backlog: RefCell<VecDeque<squeue::Entry>>,
    enter_fd: RawFd,
    enter_flags: u32,
    picked: Cell<Picked>,
}

impl Kernel {
    pub(super) fn new(plan: &RingPlan) -> Result<Self, RingError> {
        let (uring, mut picked) = probe::set_up(plan)?;
        let raw = uring.as_raw_fd();
        let (enter_fd, enter_flags) = match register_ring_fd(raw) {
            Ok(index) => (index, ENTER_REGISTERED_RING),
            Err(_) => (raw, 0),
        };
        picked.registered_fd = enter_flags != 0;
        Ok(Self {
            uring: RefCell::new(uring),
            backlog: RefCell::new(VecDeque::new()),
            enter_fd,
            enter_flags,
            picked: Cell::new(picked),
        })
    }

    pub(super) fn picked(&self) -> Picked {
        self.picked.get()
    }

    /// CLOCK_MONOTONIC.
    pub(super) fn clock(&self) -> Mono {
        monotonic()
    }

    pub(super) fn set_recv_limit(&self, has: bool) {
        let mut picked = self.picked.get();
        picked.recv_limit = has;
        self.picked.set(picked);
    }

    pub(super) fn set_send_zc(&self, state: SendZc) {
        let mut picked = self.picked.get();
        picked.send_zc = state;
        self.picked.set(picked);
    }

    pub(super) fn has_send_zc(&self) -> bool {
        probe::has_send_zc(&self.uring.borrow())
    }

    /// Queues an operation. It reaches the kernel with the next `enter`.
    ///
    /// # Safety
    /// All memory the entry points to stays valid, unmoved and (where the kernel writes) unused
    /// until the operation's final completion; descriptors it names stay open until then.
    pub(super) unsafe fn push(&self, entry: squeue::Entry) {
        let mut backlog = self.backlog.borrow_mut();
        if backlog.is_empty() {
            // SAFETY: this function's own contract.
            if unsafe { self.try_push(&entry) } {
                return;
            }
            self.enter(Wait::No, 0);
            // SAFETY: as above; the first try did not take the entry.
            if unsafe { self.try_push(&entry) } {
                return;
            }
        }
        backlog.push_back(entry);
    }

    /// # Safety
    /// As for `push`, if it returns true.
    unsafe fn try_push(&self, entry: &squeue::Entry) -> bool {
        let mut uring = self.uring.borrow_mut();
        let mut queue = uring.submission();
        // SAFETY: the caller keeps the entry's memory valid until its final completion.
        unsafe { queue.push(entry) }.is_ok()
    }

    fn push_backlog(&self) {
        let mut backlog = self.backlog.borrow_mut();
        while let Some(entry) = backlog.front() {
            // SAFETY: whoever queued the entry with `push` keeps the promise made there.
            if !unsafe { self.try_push(entry) } {
                return;
            }
            backlog.pop_front();
        }
    }

    /// Hands queued operations to the kernel, lets it post completions, and sleeps as `wait` says
    /// until there are `least` that were not reaped.
    pub(super) fn turn(&self, wait: Wait, least: u32) {
        self.push_backlog();
        let more = !self.backlog.borrow().is_empty();
        self.enter(if more { Wait::No } else { wait }, least);
    }

    /// Hands queued operations to the kernel and returns.
    pub(super) fn submit(&self) {
        self.push_backlog();
        self.enter(Wait::No, 0);
    }

    fn enter(&self, wait: Wait, least: u32) {
        let queued = self.uring.borrow_mut().submission().len() as u32;
        let mut flags = self.enter_flags | ENTER_GETEVENTS;
        let timeout;
        let mut argument = GetEventsArg::default();
        if let Wait::AtMost(span) = wait {
            timeout = Timespec {
                seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
                nanoseconds: i64::from(span.subsec_nanos()),
            };
            argument.timeout = (&raw const timeout) as u64;
            flags |= ENTER_EXT_ARG;
        }
        let with_argument = flags & ENTER_EXT_ARG != 0;
        let (pointer, size) = if with_argument {
            ((&raw const argument).cast(), size_of::<GetEventsArg>())
        } else {
            (std::ptr::null::<libc::c_void>(), 0)
        };
        // SAFETY: `argument` and `timeout` live until the call returns and have the layout of
        // io_uring_getevents_arg and __kernel_timespec; without EXT_ARG the kernel gets null. The
        // descriptor is this ring's own, on the thread that registered it (`Kernel` is !Send).
        let entered = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                self.enter_fd,
                queued,
                if wait == Wait::No { 0 } else { least },
                flags,
                pointer,
                size,
            )
        };
        if entered < 0 {
            let error = io::Error::last_os_error();
            match error.raw_os_error() {
                // The time is up, a signal came, or the kernel is short of memory or of room for
                // completions: all are tried again after the next reaping.
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => {}
                // Everything else is a broken ring (EBADF, EFAULT, EEXIST: wrong thread): no
                // request could be served, and going on would hang them all.
                _ => panic!("io_uring_enter: {error}"),
            }
        }
    }

    /// Appends up to `most` completions to `into`.
    pub(super) fn reap(&self, into: &mut Vec<Completion>, most: usize) {
        let mut uring = self.uring.borrow_mut();
        into.extend(uring.completion().take(most).map(|entry| Completion {
            user_data: entry.user_data(),
            result: entry.result(),
            flags: entry.flags(),
        }));
    }

    /// Whether there is surely no completion we have not seen. Never sure where the kernel posts
    /// them at any time.
    pub(super) fn all_posted_is_reaped(&self) -> bool {
        let mut uring = self.uring.borrow_mut();
        self.picked().task_run == TaskRun::Defer
            && uring.completion().is_empty()
            && !uring.submission().cq_overflow()
    }

    /// Tells the kernel about a queue of blocks.
    ///
    /// # Safety
    /// The queue and every block ever offered in it stay mapped until the ring is closed and no
    /// operation that could fill a block is in flight.
    pub(super) unsafe fn register_buf_ring(&self, queue: &BufRing) -> io::Result<()> {
        let uring = self.uring.borrow();
        // SAFETY: a page-aligned, zeroed queue of `entries` entries; lifetime is the caller's part.
        unsafe {
            uring.submitter().register_buf_ring_with_flags(
                queue.address(),
                queue.entries(),
                queue.group(),
                0,
            )
        }
    }

    /// From now on every completion also counts up this eventfd.
    pub(super) fn register_eventfd(&self, fd: RawFd) -> io::Result<()> {
        self.uring.borrow().submitter().register_eventfd(fd)
    }

    pub(super) fn unregister_eventfd(&self) -> io::Result<()> {
        self.uring.borrow().submitter().unregister_eventfd()
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kernel")
            .field("picked", &self.picked())
            .finish_non_exhaustive()
    }
}

/// The clock every ring goes by, for threads that speak of time with a shard.
#[must_use]
pub fn monotonic() -> Mono {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is writable for the call; the clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    Mono(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

fn register_ring_fd(fd: RawFd) -> io::Result<RawFd> {
    let mut update = RsrcUpdate {
        offset: u32::MAX,
        resv: 0,
        data: fd as u64,
    };
    // SAFETY: one update of the kernel's layout, alive and writable until the call returns.
    let done = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            fd,
            REGISTER_RING_FDS,
            &raw mut update,
            1,
        )
    };
    if done < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(update.offset).map_err(io::Error::other)
}

const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const REGISTER_RING_FDS: u32 = 20;
/// `IORING_NOTIF_USAGE_ZC_COPIED`, which the io-uring crate keeps to itself.
const NOTIF_USAGE_ZC_COPIED: u32 = 1 << 31;

/// `struct io_uring_getevents_arg`.
#[repr(C)]
#[derive(Default)]
struct GetEventsArg {
    sigmask: u64,
    sigmask_bytes: u32,
    min_wait_us: u32,
    timeout: u64,
}

/// `struct __kernel_timespec`.
#[repr(C)]
struct Timespec {
    seconds: i64,
    nanoseconds: i64,
}

/// `struct io_uring_rsrc_update`.
#[repr(C)]
struct RsrcUpdate {
    offset: u32,
    resv: u32,
    data: u64,
}
