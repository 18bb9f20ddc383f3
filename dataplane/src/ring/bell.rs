//! What other threads may touch of a ring: an eventfd, and the wake-ups they left.
//!
//! Every ring has a number while it lives; the registry finds a ring's bell by it. The registry's
//! lock is taken when a ring is made or dropped and when a *foreign* thread wakes a task, never by
//! a shard in traffic.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crossbeam_queue::ArrayQueue;

use super::ready::TaskMark;

/// Wake-ups of single tasks kept apart; with more than this at once, all tasks are woken.
const MARKS_MAX: usize = 1024;

/// One ring's bell.
#[derive(Debug)]
pub(super) struct Bell {
    number: u16,
    eventfd: File,
    /// Rung and not yet answered: the next ring needs no system call.
    rung: AtomicBool,
    marks: ArrayQueue<TaskMark>,
    overrun: AtomicBool,
}

/// Wakes a ring from any thread. Cheap to clone; many calls before the ring looks are one wake-up.
/// Outliving the ring is harmless.
#[derive(Debug, Clone)]
pub struct RemoteWaker(pub(super) Arc<Bell>);

impl RemoteWaker {
    /// A bell for a ring that is made later ([`Ring::with_remote`](super::Ring::with_remote)).
    ///
    /// # Errors
    /// No eventfd, or more than 65,536 rings.
    pub fn new() -> io::Result<Self> {
        Bell::hang().map(Self)
    }

    /// Wakes the ring: everything waiting for [`Ring::rung`](super::Ring::rung) runs.
    pub fn wake(&self) {
        self.0.ring();
    }
}

static REGISTRY: Mutex<Vec<Weak<Bell>>> = Mutex::new(Vec::new());

fn registry() -> MutexGuard<'static, Vec<Weak<Bell>>> {
    // Nothing between lock and unlock can leave the table half changed.
    REGISTRY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Bell {
    /// A bell with a number of its own, which nobody else gets as long as the bell exists.
    pub(super) fn hang() -> io::Result<Arc<Self>> {
        let eventfd = File::from(eventfd()?);
        let mut bells = registry();
        let free = bells.iter().position(|bell| bell.strong_count() == 0);
        let at = free.unwrap_or(bells.len());
        let number = u16::try_from(at).map_err(|_| io::Error::other("more than 65536 rings"))?;
        let bell = Arc::new(Self {
            number,
            eventfd,
            rung: AtomicBool::new(false),
            marks: ArrayQueue::new(MARKS_MAX),
            overrun: AtomicBool::new(false),
        });
        match free {
            Some(at) => bells[at] = Arc::downgrade(&bell),
            None => bells.push(Arc::downgrade(&bell)),
        }
        Ok(bell)
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }

    pub(super) fn ring(&self) {
        // AcqRel pairs with `answer`: whoever finds the bell rung already wrote its message before
        // the ring takes the flag down and looks.
        if !self.rung.swap(true, Ordering::AcqRel) {
            // Only fails if 2^64 - 2 rings are pending.
            let _ = (&self.eventfd).write(&1_u64.to_ne_bytes());
        }
    }

    /// Takes the bell's state down, before looking at what was left.
    pub(super) fn answer(&self) {
        let mut count = [0; 8];
        // Non-blocking; nothing to read means somebody answered already.
        let _ = (&self.eventfd).read(&mut count);
        self.rung.swap(false, Ordering::AcqRel);
    }

    pub(super) fn next_mark(&self) -> Option<TaskMark> {
        self.marks.pop()
    }

    /// Whether marks were lost since the last call.
    pub(super) fn take_overrun(&self) -> bool {
        self.overrun.swap(false, Ordering::AcqRel)
    }

    fn wake(&self, mark: TaskMark) {
        if self.marks.push(mark).is_err() {
            self.overrun.store(true, Ordering::Release);
        }
        self.ring();
    }
}

/// Wakes a task of ring `number` from a thread that is not its own.
pub(super) fn wake_from_afar(number: u16, mark: TaskMark) {
    let bell = registry().get(usize::from(number)).and_then(Weak::upgrade);
    if let Some(bell) = bell {
        bell.wake(mark);
    }
}

fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: a plain system call without pointers.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
