//! The io_uring: sockets, buffers, timers and the tasks that use them, all on one thread.
//!
//! A [`Ring`] is made on its shard's thread and stays there (`!Send`). It knows nothing of glommio:
//! whoever drives it calls [`Ring::turn`] in a loop. Sockets are [`Socket`]s, received bytes
//! [`Chunk`]s in the kernel's own buffers, bytes to send [`Buf`]s and `Chunk`s gathered in an
//! [`Out`].
//!
//! Invariants, each kept by one file:
//! - memory the kernel may touch is owned by an operation's entry until its final completion;
//! - a descriptor is closed only when no operation names it;
//! - dropping a future never frees anything the kernel still uses, and never loses received bytes;
//! - every queue is bounded: tasks, buffers, bytes received and not taken, one send per socket, bytes lent to
//!   sends without a copy.

#![expect(
    unsafe_code,
    reason = "the one room that talks to the kernel's queues and lends it memory"
)]

mod arena;
mod bell;
mod buf;
mod buf_ring;
mod chunk;
mod conn;
mod connect;
mod core;
mod ends;
mod error;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod faults;
mod foreign;
mod groups;
mod hosting;
mod in_flight;
mod kernel;
mod lent;
mod listener;
mod loan;
mod out;
mod pipe;
mod plain;
mod plan;
mod pool;
mod prefetch;
mod probe;
mod ready;
mod recv;
mod region;
mod send;
mod sleep;
mod socket;
mod splice;
mod stream;
mod submit;
mod tasks;
#[cfg(test)]
pub(crate) mod tests;
mod token;
mod watch;
mod wheel;
mod zero_copy;

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;

use crate::time::Mono;

pub use kernel::monotonic;

#[cfg(test)]
use fake::Kernel;
#[cfg(not(test))]
use kernel::Kernel;

pub use bell::RemoteWaker;
pub use buf::{Buf, Full};
pub use chunk::Chunk;
pub use ends::EndUnwatched;
pub use error::RingError;
#[cfg(test)]
pub(crate) use fake::Network;
#[cfg(test)]
pub(crate) use faults::Weather;
pub use groups::{BULK_BLOCK_BYTES, HEADS_BLOCK_BYTES};
pub use hosting::{adopt, eventfd, register_membarrier};
pub use listener::{ListenOptions, Listener};
pub use out::{OUT_PIECES_MAX, Out};
pub use pipe::PIPE_BYTES;
pub use plan::{GroupPlan, Picked, RingPlan, SEND_BYTES_MAX, SendZc, TaskRun};
pub use recv::Recv;
pub use send::SendFut;
pub use sleep::{Rung, Sleep};
pub use socket::{Cutter, Socket};
pub use splice::{Splice, Spliced};
pub use stream::ByteStream;

/// One shard's ring. Cheap to clone; all clones are the same ring.
#[derive(Debug, Clone)]
pub struct Ring {
    core: Rc<core::Core>,
}

/// How long a [`Ring::turn`] may wait when nothing is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Park {
    /// Not at all.
    No,
    /// Until something happens or the next timer is due.
    Free,
    /// As `Free`, but not past this.
    Until(Mono),
}

/// What a turn did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Turn {
    /// Completions reaped.
    pub completions: u32,
    /// Tasks polled.
    pub polls: u32,
    /// Tasks still ready (the turn's budget ended).
    pub ready: u32,
}

impl Ring {
    /// Makes a ring for this thread with what the kernel has of `plan`.
    ///
    /// # Errors
    /// Names the likely cause (sysctl, seccomp, memlock, an old kernel) and the fix.
    pub fn new(plan: &RingPlan) -> Result<Self, RingError> {
        let bell = bell::Bell::hang().map_err(|error| RingError::at("eventfd", error))?;
        Self::with_bell(plan, bell)
    }

    /// As [`new`](Self::new), with a waker that was made beforehand, perhaps on another thread.
    ///
    /// # Errors
    /// As `new`.
    pub fn with_remote(plan: &RingPlan, remote: RemoteWaker) -> Result<Self, RingError> {
        Self::with_bell(plan, remote.0)
    }

    fn with_bell(plan: &RingPlan, bell: Arc<bell::Bell>) -> Result<Self, RingError> {
        let core = core::Core::new(plan, bell)?;
        Ok(Self { core })
    }

    /// Starts a task; `false` if the table is full (the task is dropped).
    #[must_use = "a task that was not started has to be answered for"]
    pub fn spawn(&self, task: impl Future<Output = ()> + 'static) -> bool {
        self.core.tasks().spawn(task)
    }

    /// Whether [`Self::spawn`] would start a task.
    #[must_use]
    pub fn takes_tasks(&self) -> bool {
        self.core.tasks().has_room()
    }

    /// The clock, read once per turn.
    #[must_use]
    pub fn now(&self) -> Mono {
        self.core.now()
    }

    /// Resolves at `at`.
    pub fn sleep_until(&self, at: Mono) -> Sleep {
        Sleep::new(self.clone(), at)
    }

    /// Resolves when [`RemoteWaker::wake`] is called after this call. Look at what the other thread
    /// may have left *after* making this and before awaiting it.
    pub fn rung(&self) -> Rung {
        Rung::new(self.clone())
    }

    /// Resolves when a connection has ended, after this call, on which nobody waits to receive. One
    /// task at a time hears of it.
    pub fn end_unwatched(&self) -> EndUnwatched {
        EndUnwatched::new(self.clone())
    }

    /// Tells [`end_unwatched`](Self::end_unwatched) of an end that is not a socket's: a lane's.
    pub fn ended_unwatched(&self) {
        self.core.ends.note();
    }

    /// An output buffer of 16 KiB; `None` when all are in use.
    #[must_use]
    pub fn buf(&self) -> Option<Buf> {
        self.core.buf()
    }

    /// Submits, waits as `park` allows, reaps, fires timers, runs ready tasks.
    pub fn turn(&self, park: Park) -> Turn {
        self.core.turn(park)
    }

    /// Gives the kernel now what was queued, where this turn has little else to do; in a busy one it
    /// goes with everything else at the end of the turn. For an answer that somebody waits for while
    /// there is still work to do on it that nobody waits for.
    pub fn hurry(&self) {
        self.core.hurry();
    }

    /// When the earliest timer is due; [`Mono::NEVER`] without timers. For long sleeps: it looks at more
    /// than a turn does.
    #[must_use]
    pub fn next_timer(&self) -> Mono {
        self.core.earliest_timer()
    }

    /// For waking this ring from other threads.
    #[must_use]
    pub fn remote(&self) -> RemoteWaker {
        RemoteWaker(Arc::clone(&self.core.bell))
    }

    /// What the kernel gave us.
    #[must_use]
    pub fn picked(&self) -> Picked {
        self.core.picked()
    }

    /// Connections alive, those closing included.
    #[must_use]
    pub fn conns(&self) -> u32 {
        self.core.conns.get()
    }

    /// Gives memory of unused buffers back to the system. For quiet moments.
    pub fn trim(&self) {
        self.core.trim();
    }

    /// The network of a simulated ring.
    #[cfg(test)]
    pub(crate) fn network(&self) -> Option<Network> {
        self.core.kernel.network()
    }

    /// Receive buffers that somebody holds.
    #[cfg(test)]
    pub(crate) fn blocks_out(&self) -> u32 {
        let groups = [groups::Size::Heads, groups::Size::Bulk];
        groups
            .iter()
            .map(|size| self.core.group(*size).pool().out())
            .sum()
    }

    /// From now on a pipe sends no more than `bytes` at once, as to a receiver that is slow.
    #[cfg(test)]
    pub(crate) fn drain_pipes_slowly(&self, bytes: u32) {
        self.core.faults.drain_at_most(bytes);
    }

    /// Drops all tasks, cancels what is in flight and waits for it (at most about two seconds).
    /// Sends that were accepted and not finished are lost: drain before. Without this a ring with
    /// operations in flight is never freed.
    pub fn close(&self) {
        self.core.close_all();
    }
}
