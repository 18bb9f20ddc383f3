//! A kernel with the ring's face and a network in memory, for tests that simulate: hours pass in moments,
//! and a seed that fails fails again, at the same completion.
//!
//! The ring above is the one that ships: its queues of blocks, loans, cancels and closes. Below it, in
//! place of io_uring and TCP: [`world`] (time, what will happen, what was told), [`entry`] (submissions, read
//! from their bytes), [`blocks`] (the kernel's end of the provided buffers), [`doors`] (listening and
//! connecting) and [`links`] (bytes, ends and resets). It trusts nobody: it panics where a descriptor is closed
//! while an operation names it, where two receives or sends meet on one socket, where lent memory is written
//! to, and where the ring waits for what will never happen.
//!
//! It knows TCP as RFC 9293 has it and io_uring as we believe it to be; the tests on the real kernel
//! find out where we believe wrongly (docs/decisions/0010). Faults are drawn above it, as above the real one
//! (`faults.rs`). Not in it: splicing (plans say `pipes_max: 0`) and connections in a client's name.

mod blocks;
mod doors;
mod entry;
mod links;
mod tests;
mod world;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::RawFd;
use std::rc::Rc;

use io_uring::squeue;

use self::blocks::Blocks;
use self::entry::Asked;
use self::world::World;
use super::buf_ring::BufRing;
use super::error::RingError;
use super::kernel::{self, Completion, Wait};
use super::plan::{Picked, RingPlan, SendZc, TaskRun};
use crate::time::Mono;

/// What a ring stands on in tests: the kernel, or a fake one. The face is [`kernel::Kernel`]'s.
#[derive(Debug)]
pub(super) enum Kernel {
    Real(Box<kernel::Kernel>),
    Fake(Fake),
}

/// The fake one.
pub(super) struct Fake {
    world: Rc<RefCell<World>>,
    submitted: RefCell<Vec<squeue::Entry>>,
    queue_max: usize,
    picked: Cell<Picked>,
}

/// Plain calls on the descriptors of a fake world.
#[derive(Clone)]
pub(crate) struct Network(Rc<RefCell<World>>);

impl Kernel {
    pub(super) fn new(plan: &RingPlan) -> Result<Self, RingError> {
        match plan.simulated {
            Some(seed) => Ok(Self::Fake(Fake::new(plan, seed))),
            None => Ok(Self::Real(Box::new(kernel::Kernel::new(plan)?))),
        }
    }

    /// The network of a fake kernel.
    pub(super) fn network(&self) -> Option<Network> {
        match self {
            Self::Real(_) => None,
            Self::Fake(fake) => Some(Network(Rc::clone(&fake.world))),
        }
    }

    pub(super) fn clock(&self) -> Mono {
        match self {
            Self::Real(real) => real.clock(),
            Self::Fake(fake) => fake.world.borrow().now(),
        }
    }

    pub(super) fn picked(&self) -> Picked {
        match self {
            Self::Real(real) => real.picked(),
            Self::Fake(fake) => fake.picked.get(),
        }
    }

    pub(super) fn set_recv_limit(&self, has: bool) {
        match self {
            Self::Real(real) => real.set_recv_limit(has),
            Self::Fake(fake) => fake.picked.set(Picked {
                recv_limit: has,
                ..fake.picked.get()
            }),
        }
    }

    pub(super) fn set_send_zc(&self, state: SendZc) {
        match self {
            Self::Real(real) => real.set_send_zc(state),
            Self::Fake(fake) => fake.picked.set(Picked {
                send_zc: state,
                ..fake.picked.get()
            }),
        }
    }

    pub(super) fn has_send_zc(&self) -> bool {
        match self {
            Self::Real(real) => real.has_send_zc(),
            Self::Fake(_) => true,
        }
    }

    /// # Safety
    /// As for [`kernel::Kernel::push`].
    pub(super) unsafe fn push(&self, entry: squeue::Entry) {
        match self {
            // SAFETY: this function's own contract.
            Self::Real(real) => unsafe { real.push(entry) },
            Self::Fake(fake) => fake.push(entry),
        }
    }

    pub(super) fn turn(&self, wait: Wait, least: u32) {
        match self {
            Self::Real(real) => real.turn(wait, least),
            Self::Fake(fake) => fake.enter(wait, least),
        }
    }

    pub(super) fn submit(&self) {
        match self {
            Self::Real(real) => real.submit(),
            Self::Fake(fake) => fake.enter(Wait::No, 0),
        }
    }

    pub(super) fn reap(&self, into: &mut Vec<Completion>, most: usize) {
        match self {
            Self::Real(real) => real.reap(into, most),
            Self::Fake(fake) => fake.world.borrow_mut().reap(into, most),
        }
    }

    pub(super) fn all_posted_is_reaped(&self) -> bool {
        match self {
            Self::Real(real) => real.all_posted_is_reaped(),
            Self::Fake(fake) => fake.world.borrow().all_told(),
        }
    }

    /// # Safety
    /// As for [`kernel::Kernel::register_buf_ring`].
    pub(super) unsafe fn register_buf_ring(&self, queue: &BufRing) -> io::Result<()> {
        match self {
            // SAFETY: this function's own contract.
            Self::Real(real) => unsafe { real.register_buf_ring(queue) },
            Self::Fake(fake) => {
                // SAFETY: this function's own contract.
                let blocks = unsafe { Blocks::over(queue.address(), queue.entries()) };
                let mut world = fake.world.borrow_mut();
                world.groups.insert(queue.group(), blocks);
                Ok(())
            }
        }
    }

    pub(super) fn register_eventfd(&self, fd: RawFd) -> io::Result<()> {
        match self {
            Self::Real(real) => real.register_eventfd(fd),
            Self::Fake(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }

    pub(super) fn unregister_eventfd(&self) -> io::Result<()> {
        match self {
            Self::Real(real) => real.unregister_eventfd(),
            Self::Fake(_) => Err(io::ErrorKind::Unsupported.into()),
        }
    }
}

impl Fake {
    fn new(plan: &RingPlan, seed: u64) -> Self {
        let picked = Picked {
            task_run: TaskRun::Defer,
            single_issuer: true,
            submit_all: true,
            no_sqarray: true,
            registered_fd: true,
            recv_limit: false,
            heads: plan.heads,
            bulk: plan.bulk,
            pipes_max: plan.pipes_max,
            send_zc: SendZc::Off,
        };
        Self {
            world: Rc::new(RefCell::new(World::new(seed))),
            submitted: RefCell::default(),
            queue_max: plan.sq_entries as usize,
            picked: Cell::new(picked),
        }
    }

    fn push(&self, entry: squeue::Entry) {
        if self.submitted.borrow().len() == self.queue_max {
            self.enter(Wait::No, 0);
        }
        self.submitted.borrow_mut().push(entry);
    }

    fn enter(&self, wait: Wait, least: u32) {
        let entries = self.submitted.take();
        let asked = entries.iter().map(Asked::read).collect();
        let mut world = self.world.borrow_mut();
        world.enter(asked, wait, least as usize);
    }
}

impl Network {
    pub(super) fn listen(&self, at: SocketAddr) -> io::Result<(socket2::Socket, SocketAddr)> {
        self.0.borrow_mut().listen(at)
    }

    pub(super) fn unlisten(&self, fd: RawFd) {
        self.0.borrow_mut().unlisten(fd);
    }

    pub(super) fn shutdown(&self, fd: RawFd, how: Shutdown) {
        self.0.borrow_mut().shutdown(fd, how);
    }

    pub(super) fn reset_on_close(&self, fd: RawFd) {
        self.0.borrow_mut().reset_on_close(fd);
    }

    pub(super) fn take_error(&self, fd: RawFd) -> Option<io::Error> {
        let errno = self.0.borrow_mut().take_error(fd)?;
        Some(io::Error::from_raw_os_error(errno))
    }

    pub(super) fn peer_addr(&self, fd: RawFd) -> Option<SocketAddr> {
        Some(self.0.borrow_mut().addresses(fd)?.0)
    }

    pub(super) fn local_addr(&self, fd: RawFd) -> Option<SocketAddr> {
        Some(self.0.borrow_mut().addresses(fd)?.1)
    }

    /// Connections of which an end is open.
    pub(crate) fn links(&self) -> usize {
        self.0.borrow().links.len()
    }

    /// All that was told to the ring so far, and when, as one number.
    pub(crate) fn history(&self) -> u64 {
        self.0.borrow().history()
    }
}

impl fmt::Debug for Fake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Fake").field(&self.world).finish()
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Network").field(&self.0).finish()
    }
}
