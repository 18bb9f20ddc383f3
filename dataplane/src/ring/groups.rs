//! The two groups of receive buffers and who waits for a buffer to come home.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use super::Kernel;
use super::buf_ring::BufRing;
use super::conn::Conn;
use super::error::RingError;
use super::plan::{GroupPlan, RingPlan};
use super::pool::Pool;
use super::region::Region;

/// Which buffers a socket receives into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub(super) enum Size {
    /// 4 KiB: heads, small messages.
    Heads = 0,
    /// 64 KiB: half the CPU per MiB.
    Bulk = 1,
}

/// Bytes of a receive buffer for heads.
pub const HEADS_BLOCK_BYTES: u32 = 4 * 1024;
/// Bytes of a receive buffer for bulk.
pub const BULK_BLOCK_BYTES: u32 = 64 * 1024;
/// A socket in 4 KiB buffers is asked again after this much whether it would do better with bulk.
const HEADS_RECV_BYTES: u32 = 32 * 1024;

/// Receive buffers of one size.
#[derive(Debug)]
pub(super) struct Group {
    pool: Rc<Pool>,
    /// Sockets whose receive found no buffer. Each is in here at most once.
    paused: RefCell<VecDeque<Rc<Conn>>>,
    /// How often that happened.
    pauses: Cell<u64>,
    recv_bytes: u32,
}

impl Group {
    /// Makes a group and offers its first buffers to the kernel.
    pub(super) fn new(kernel: &Kernel, size: Size, plan: &RingPlan) -> Result<Self, RingError> {
        let (GroupPlan { start, max }, block_bytes, recv_bytes) = match size {
            Size::Heads => (plan.heads, HEADS_BLOCK_BYTES, HEADS_RECV_BYTES),
            Size::Bulk => (plan.bulk, BULK_BLOCK_BYTES, plan.recv_queued_bytes_max),
        };
        let memory = |error| RingError::at("mmap of receive buffers", error);
        let region = Region::reserve(u32::from(max), block_bytes).map_err(memory)?;
        let queue = BufRing::new(size as u16, max, u32::from(start)).map_err(memory)?;
        // SAFETY: queue and region are owned by the pool made below, the pool by the core, and the
        // core closes its kernel before it drops the pool; every receive in flight holds the core.
        unsafe { kernel.register_buf_ring(&queue) }.map_err(|error| {
            match error.raw_os_error() {
                Some(libc::EINVAL) => RingError::TooOld("provided buffer rings"),
                _ => RingError::at("IORING_REGISTER_PBUF_RING", error),
            }
        })?;
        queue.grow(&region);
        Ok(Self {
            pool: Pool::provided(region, queue),
            paused: RefCell::new(VecDeque::new()),
            pauses: Cell::new(0),
            recv_bytes,
        })
    }

    pub(super) fn pool(&self) -> &Rc<Pool> {
        &self.pool
    }

    fn queue(&self) -> &BufRing {
        self.pool.kernel().expect("a group's pool is provided")
    }

    /// Bytes the next multishot receive may bring: the usual bound, but never more than an eighth
    /// of what is left, so that many slow readers together leave room for the quick ones.
    pub(super) fn recv_limit(&self) -> u32 {
        let left = self.pool.blocks().saturating_sub(self.pool.out());
        let share = (left / 8).max(1).saturating_mul(self.pool.block_bytes());
        self.recv_bytes.min(share)
    }

    /// Whether sockets of the other group may borrow here: small messages keep a quarter of the
    /// buffers for themselves.
    pub(super) fn may_lend(&self) -> bool {
        self.pool.out() < self.pool.blocks() / 4 * 3
    }

    /// Once a turn, when its completions are known and nothing was let go yet.
    pub(super) fn look(&self) {
        self.queue().look(self.pool.out());
    }

    /// Puts more buffers into circulation; `false` at the bound.
    pub(super) fn grow(&self) -> bool {
        self.queue().grow(self.pool.region())
    }

    pub(super) fn pause(&self, conn: Rc<Conn>) {
        self.pauses.set(self.pauses.get() + 1);
        self.paused.borrow_mut().push_back(conn);
    }

    pub(super) fn forget(&self, conn: &Rc<Conn>) {
        self.paused
            .borrow_mut()
            .retain(|other| !Rc::ptr_eq(other, conn));
    }

    /// Sockets that wait for a buffer.
    #[cfg(test)]
    pub(super) fn paused(&self) -> usize {
        self.paused.borrow().len()
    }

    /// Receives that found no buffer and had to wait.
    #[cfg(test)]
    pub(super) fn pauses(&self) -> u64 {
        self.pauses.get()
    }

    /// One socket that may receive again, if the kernel has more than `already` buffers for it.
    pub(super) fn resume(&self, already: u32) -> Option<Rc<Conn>> {
        let with_kernel = self.queue().circulating().saturating_sub(self.pool.out());
        if with_kernel <= already {
            return None;
        }
        self.paused.borrow_mut().pop_front()
    }
}
