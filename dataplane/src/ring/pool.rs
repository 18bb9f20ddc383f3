//! Counted blocks of memory, and where a block goes when its last window is dropped.
//!
//! Invariants: a block with `refs > 0` is in no free list and not with the kernel; a block with
//! `refs == 0` is read and written by nobody but the kernel. Counts are plain cells: a pool never
//! leaves its thread.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::rc::Rc;

use super::buf_ring::BufRing;
use super::prefetch;
use super::region::Region;

/// Blocks of one size.
pub(super) struct Pool {
    region: Region,
    refs: Box<[Cell<u32>]>,
    /// Blocks with an owner: in windows or buffers, not with the kernel and not free.
    out: Cell<u32>,
    home: Home,
}

/// Where free blocks live.
enum Home {
    /// With us, last in first out, so that the hottest block is used next.
    List(RefCell<FreeList>),
    /// In a buffer ring, with the kernel.
    Kernel(BufRing),
}

/// Free blocks: those given back, then those never used yet (`fresh..`).
struct FreeList {
    given_back: Vec<u32>,
    fresh: u32,
}

impl Pool {
    /// A pool whose free blocks stay with us.
    pub(super) fn listed(blocks: u32, block_bytes: u32) -> io::Result<Rc<Self>> {
        let region = Region::reserve(blocks, block_bytes)?;
        let list = FreeList {
            given_back: Vec::new(),
            fresh: 0,
        };
        Ok(Rc::new(Self::over(region, Home::List(RefCell::new(list)))))
    }

    /// A pool whose free blocks are offered to the kernel in `ring`.
    pub(super) fn provided(region: Region, ring: BufRing) -> Rc<Self> {
        Rc::new(Self::over(region, Home::Kernel(ring)))
    }

    fn over(region: Region, home: Home) -> Self {
        let refs = (0..region.blocks()).map(|_| Cell::new(0)).collect();
        Self {
            region,
            refs,
            out: Cell::new(0),
            home,
        }
    }

    pub(super) fn block_bytes(&self) -> u32 {
        self.region.block_bytes()
    }

    /// Blocks that have an owner on our side.
    pub(super) fn out(&self) -> u32 {
        self.out.get()
    }

    pub(super) fn blocks(&self) -> u32 {
        self.region.blocks()
    }

    /// The kernel's queue of this pool, if it has one.
    pub(super) fn kernel(&self) -> Option<&BufRing> {
        match &self.home {
            Home::List(_) => None,
            Home::Kernel(ring) => Some(ring),
        }
    }

    pub(super) fn region(&self) -> &Region {
        &self.region
    }

    pub(super) fn start_of(&self, block: u32) -> NonNull<u8> {
        self.region.block(block)
    }

    /// Says that the first `bytes` of a block are looked at soon.
    pub(super) fn fetch(&self, block: u32, bytes: usize) {
        prefetch::fetch_bytes(self.start_of(block).as_ptr(), bytes);
    }

    /// Takes a free block (count 1), if the pool keeps its own list and has one.
    pub(super) fn take(&self) -> Option<u32> {
        let Home::List(list) = &self.home else {
            return None;
        };
        let mut list = list.borrow_mut();
        let block = list.given_back.pop().or_else(|| {
            let next = list.fresh;
            (next < self.region.blocks()).then(|| {
                list.fresh += 1;
                next
            })
        })?;
        self.adopt(block);
        Some(block)
    }

    /// Gives a block its first owner. Panics if it has one: the kernel or the free list handed the
    /// same block out twice, and going on would let two requests see each other's bytes.
    pub(super) fn adopt(&self, block: u32) {
        let count = &self.refs[block as usize];
        assert_eq!(count.get(), 0, "block {block} already has an owner");
        count.set(1);
        self.out.set(self.out.get() + 1);
    }

    pub(super) fn retain(&self, block: u32) {
        let count = &self.refs[block as usize];
        assert_ne!(count.get(), 0);
        count.set(count.get().checked_add(1).expect("too many windows"));
    }

    pub(super) fn is_sole(&self, block: u32) -> bool {
        self.refs[block as usize].get() == 1
    }

    /// Drops one owner; the last one sends the block home.
    pub(super) fn release(&self, block: u32) {
        let count = &self.refs[block as usize];
        let left = count.get().checked_sub(1).expect("released once too often");
        count.set(left);
        if left > 0 {
            return;
        }
        self.out.set(self.out.get() - 1);
        match &self.home {
            Home::List(list) => list.borrow_mut().given_back.push(block),
            Home::Kernel(ring) => ring.give_back(&self.region, block),
        }
    }

    /// Returns the pages of unused blocks to the system. For quiet moments: the next use of a
    /// block pays a page fault.
    pub(super) fn trim(&self) {
        let is_free = |block: u32| self.refs[block as usize].get() == 0;
        match &self.home {
            Home::List(list) => self.region.release(list.borrow().fresh, is_free),
            Home::Kernel(ring) => ring.trim(&self.region, is_free),
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool")
            .field("blocks", &self.region.blocks())
            .field("block_bytes", &self.region.block_bytes())
            .field("out", &self.out.get())
            .finish_non_exhaustive()
    }
}
