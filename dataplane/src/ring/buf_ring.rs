//! The queue in which free blocks wait for the kernel (a "provided buffer ring").
//!
//! Shared memory: we write entries and move the tail, the kernel reads them and moves a head of its
//! own that we never see. Starts with few blocks and grows when the kernel runs dry, so a quiet shard
//! touches little memory. The kernel takes the block that was offered longest ago: of many in circulation it
//! takes one that is in no near cache any more. So there are never many more than were needed lately.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::region::Region;

/// Turns of the ring after which the circulation is fitted to what was needed in them.
const LOOKS: u32 = 1024;

/// Our end of one buffer ring.
pub(super) struct BufRing {
    /// The queue itself, shared with the kernel.
    queue: Region,
    group: u16,
    entries: u16,
    tail: Cell<u16>,
    /// Blocks in circulation: with the kernel or in windows.
    circulating: Cell<u32>,
    /// Circulation we want; above it, blocks that come home are kept back.
    target: Cell<u32>,
    /// The most that were out at once in this span of looks, and how many looks it has had.
    peak: Cell<u32>,
    looks: Cell<u32>,
    floor: u32,
    /// Blocks out of circulation that were used before.
    kept_back: RefCell<Vec<u32>>,
    /// Blocks from here on were never used.
    fresh: Cell<u32>,
}

impl BufRing {
    /// An empty queue for `entries` blocks (a power of two, at most 32768). It has to be registered
    /// with the kernel before blocks are offered.
    pub(super) fn new(group: u16, entries: u16, floor: u32) -> io::Result<Self> {
        assert!(entries.is_power_of_two() && entries <= 32768);
        assert!(floor > 0 && floor <= u32::from(entries));
        let bytes = u32::from(entries) * size_of::<BufRingEntry>() as u32;
        Ok(Self {
            queue: Region::reserve(1, bytes.next_multiple_of(4096))?,
            group,
            entries,
            tail: Cell::new(0),
            circulating: Cell::new(0),
            target: Cell::new(floor),
            peak: Cell::new(0),
            looks: Cell::new(0),
            floor,
            kept_back: RefCell::new(Vec::with_capacity(usize::from(entries))),
            fresh: Cell::new(0),
        })
    }

    pub(super) fn group(&self) -> u16 {
        self.group
    }

    pub(super) fn entries(&self) -> u16 {
        self.entries
    }

    /// Where the kernel finds the queue.
    pub(super) fn address(&self) -> u64 {
        self.queue.base().as_ptr() as u64
    }

    /// Blocks with the kernel or in windows.
    pub(super) fn circulating(&self) -> u32 {
        self.circulating.get()
    }

    /// Puts up to as many blocks again into circulation as are in it (at first: the floor).
    /// `false`: all of them are already.
    pub(super) fn grow(&self, region: &Region) -> bool {
        let now = self.circulating.get();
        let most = u32::from(self.entries).min(region.blocks());
        let goal = (now * 2).clamp(self.floor, most);
        self.target.set(goal);
        for _ in now..goal {
            let Some(block) = self.unused(region) else {
                break;
            };
            self.offer(region, block);
            self.circulating.set(self.circulating.get() + 1);
        }
        self.circulating.get() > now
    }

    fn unused(&self, region: &Region) -> Option<u32> {
        if let Some(block) = self.kept_back.borrow_mut().pop() {
            return Some(block);
        }
        let next = self.fresh.get();
        (next < region.blocks()).then(|| {
            self.fresh.set(next + 1);
            next
        })
    }

    /// A block without owner comes home.
    pub(super) fn give_back(&self, region: &Region, block: u32) {
        if self.circulating.get() > self.target.get() {
            self.circulating.set(self.circulating.get() - 1);
            self.kept_back.borrow_mut().push(block);
        } else {
            self.offer(region, block);
        }
    }

    /// Looks at how many blocks are out, once a turn; the target follows what was needed at most in a span.
    pub(super) fn look(&self, out: u32) {
        self.peak.set(self.peak.get().max(out));
        self.looks.set(self.looks.get() + 1);
        if self.looks.get() == LOOKS {
            self.looks.set(0);
            let peak = self.peak.take();
            // Half as many again, so that an ordinary burst finds the kernel with some.
            let wanted = (peak + peak / 2).max(self.floor);
            self.target.set(wanted.min(self.target.get()));
        }
    }

    /// Goes back towards the floor and gives up the pages of blocks out of use. `is_free` tells
    /// whether a block is with the kernel *and holds no bytes we have not reaped*.
    pub(super) fn trim(&self, region: &Region, is_free: impl Fn(u32) -> bool) {
        self.target.set(self.floor);
        region.release(self.fresh.get(), is_free);
    }

    fn offer(&self, region: &Region, block: u32) {
        let tail = self.tail.get();
        let at = usize::from(tail & (self.entries - 1));
        let first: NonNull<BufRingEntry> = self.queue.base().cast();
        // SAFETY: `at < entries`, and the queue's mapping holds `entries` entries.
        let slot = unsafe { first.add(at) };
        // SAFETY: aligned (16-byte entries from a page boundary) and zero-initialised memory. The
        // kernel reads only entries between its head and the tail, and this one is not: at most
        // `entries` blocks exist and each is in the queue at most once, so the slot was consumed.
        // Only `addr`, `len` and `bid` are written: the first entry's last field is the tail.
        let entry = unsafe { &mut *slot.as_ptr() };
        entry.set_addr(region.block(block).as_ptr() as u64);
        entry.set_len(region.block_bytes());
        entry.set_bid(u16::try_from(block).expect("at most 32768 blocks"));
        let tail = tail.wrapping_add(1);
        self.tail.set(tail);
        // SAFETY: `first` is the first entry of a queue laid out as the kernel wants it.
        let shared = unsafe { BufRingEntry::tail(first.as_ptr()) };
        // SAFETY: aligned to 2 bytes, inside the mapping, and from here on only used atomically
        // (the kernel only reads it).
        let shared = unsafe { AtomicU16::from_ptr(shared.cast_mut()) };
        // Release: the kernel must see the entry before it sees the tail.
        shared.store(tail, Ordering::Release);
    }
}

impl fmt::Debug for BufRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufRing")
            .field("group", &self.group)
            .field("circulating", &self.circulating.get())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_circulation_follows_what_was_needed_lately() {
        let region = Region::reserve(64, 4096).unwrap();
        let queue = BufRing::new(0, 64, 4).unwrap();
        // A burst that ran dry again and again.
        while queue.grow(&region) {}
        assert_eq!(queue.circulating(), 64);
        // Ten at most since then, now and then.
        for look in 0..LOOKS {
            queue.look(if look % 100 == 0 { 10 } else { 1 });
        }
        // All come home.
        (0..64).for_each(|block| queue.give_back(&region, block));
        assert_eq!(queue.circulating(), 15);
        // Never below the floor, and a new burst finds more at once.
        (0..LOOKS).for_each(|_| queue.look(0));
        (0..15).for_each(|block| queue.give_back(&region, block));
        assert_eq!(queue.circulating(), 4);
        assert!(queue.grow(&region));
        assert_eq!(queue.circulating(), 8);
    }

    #[test]
    fn a_span_is_judged_by_itself() {
        let region = Region::reserve(64, 4096).unwrap();
        let queue = BufRing::new(0, 64, 4).unwrap();
        while queue.grow(&region) {}
        queue.look(60);
        (1..LOOKS).for_each(|_| queue.look(0));
        (0..64).for_each(|block| queue.give_back(&region, block));
        assert_eq!(queue.circulating(), 64, "all were needed");
        (0..LOOKS).for_each(|_| queue.look(20));
        (0..64).for_each(|block| queue.give_back(&region, block));
        assert_eq!(queue.circulating(), 30);
    }
}
