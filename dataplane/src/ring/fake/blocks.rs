//! The kernel's end of a queue of provided blocks (`buf_ring.rs` is ours).

use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

/// Blocks that may be filled, in the order in which they were offered.
#[derive(Debug)]
pub(super) struct Blocks {
    queue: *const BufRingEntry,
    entries: u16,
    head: u16,
}

/// One to be filled.
#[derive(Debug)]
pub(super) struct Block {
    start: *mut u8,
    pub(super) len: usize,
    pub(super) number: u16,
}

impl Blocks {
    /// # Safety
    /// The queue and every block ever offered in it stay mapped for as long as the value lives.
    pub(super) unsafe fn over(address: u64, entries: u16) -> Self {
        Self {
            queue: address as *const BufRingEntry,
            entries,
            head: 0,
        }
    }

    /// The next block; nothing where all are taken.
    pub(super) fn take(&mut self) -> Option<Block> {
        // SAFETY: the first entry of a queue that stays mapped.
        let tail = unsafe { BufRingEntry::tail(self.queue) };
        // SAFETY: aligned, mapped, and only used atomically by both ends.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) }.load(Ordering::Acquire);
        if tail == self.head {
            return None;
        }
        let at = usize::from(self.head & (self.entries - 1));
        // SAFETY: `at < entries`.
        let entry = unsafe { self.queue.add(at) };
        // SAFETY: mapped and aligned, and nobody writes it again before it was taken.
        let entry = unsafe { &*entry };
        self.head = self.head.wrapping_add(1);
        Some(Block {
            start: entry.addr() as *mut u8,
            len: entry.len() as usize,
            number: entry.bid(),
        })
    }
}

impl Block {
    pub(super) fn fill(&self, bytes: &[u8]) {
        assert!(bytes.len() <= self.len);
        // SAFETY: an offered block is the kernel's to write until it is told as filled, `len` bytes long,
        // and nowhere in `bytes`, which this side made.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start, bytes.len()) };
    }
}
