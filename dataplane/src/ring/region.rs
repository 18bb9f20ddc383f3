//! A stretch of anonymous memory cut into equal blocks. Memory only: no kernel queue is named here.
//!
//! Pages are reserved, not touched, so a region sized for the worst case costs address space until
//! a block is used; [`Region::release`] gives pages back.
//!
//! Blocks do not begin at pages: a message is mostly much shorter than its block, and if all of them
//! began at the same place of a page they would share the few cache sets that belong to that place, and
//! push each other out.

use std::io;
use std::ptr::NonNull;

const PAGE_BYTES: usize = 4096;
/// Between the blocks: as many cache lines as a short head takes, and an odd number of them, so that
/// blocks begin in all sets in turn.
const APART_BYTES: usize = 5 * 64;

/// Blocks of one size, aligned to cache lines; the first to a page. Unmapped on drop; whoever hands out block pointers must keep
/// the region alive (an `Rc<Pool>` in every window does).
#[derive(Debug)]
pub(super) struct Region {
    base: NonNull<u8>,
    block_bytes: u32,
    blocks: u32,
}

impl Region {
    /// Reserves `blocks` blocks of `block_bytes` (a multiple of the 4 KiB page).
    pub(super) fn reserve(blocks: u32, block_bytes: u32) -> io::Result<Self> {
        assert!(blocks > 0 && block_bytes > 0 && block_bytes.is_multiple_of(PAGE_BYTES as u32));
        let bytes = mapped_bytes(blocks, block_bytes);
        // SAFETY: a fresh private anonymous mapping, placed by the kernel; no existing memory is
        // touched, and the result is checked below.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base =
            NonNull::new(address.cast()).ok_or_else(|| io::Error::other("mmap gave null"))?;
        Ok(Self {
            base,
            block_bytes,
            blocks,
        })
    }

    pub(super) fn blocks(&self) -> u32 {
        self.blocks
    }

    pub(super) fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// First byte of the mapping.
    pub(super) fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// First byte of block `block`.
    pub(super) fn block(&self, block: u32) -> NonNull<u8> {
        assert!(block < self.blocks);
        let offset = offset(block, self.block_bytes);
        // SAFETY: `block < blocks`, so the block lies inside the one mapping `base` points to.
        unsafe { self.base.add(offset) }
    }

    /// Gives what pages lie wholly in the first `among` blocks that `is_free` back to the system, in as
    /// few calls as there are runs of such blocks; they read as zeroes afterwards. The caller knows that
    /// nobody holds a free block.
    pub(super) fn release(&self, among: u32, is_free: impl Fn(u32) -> bool) {
        assert!(among <= self.blocks);
        let mut block = 0;
        while block < among {
            let run = (block..among).take_while(|block| is_free(*block)).count() as u32;
            let from = offset(block, self.block_bytes).next_multiple_of(PAGE_BYTES);
            let until = offset(block + run, self.block_bytes) / PAGE_BYTES * PAGE_BYTES;
            if until > from {
                // SAFETY: `from` is less than where the run ends, which is inside the mapping.
                let address = unsafe { self.base.add(from) }.as_ptr().cast();
                // SAFETY: whole pages inside our own private anonymous mapping (`among` blocks are in
                // it, checked above), which hold nothing but free blocks and what is between them; the
                // mapping stays, only its contents are dropped. Failure means the pages stay, which is
                // harmless.
                unsafe { libc::madvise(address, until - from, libc::MADV_DONTNEED) };
            }
            block += run + 1;
        }
    }
}

/// Where a block begins, from the start of the mapping.
fn offset(block: u32, block_bytes: u32) -> usize {
    block as usize * (block_bytes as usize + APART_BYTES)
}

fn mapped_bytes(blocks: u32, block_bytes: u32) -> usize {
    offset(blocks, block_bytes).next_multiple_of(PAGE_BYTES)
}

impl Drop for Region {
    fn drop(&mut self) {
        let bytes = mapped_bytes(self.blocks, self.block_bytes);
        // SAFETY: exactly the mapping made in `reserve`, unmapped once. Windows hold an `Rc` of
        // the pool that owns this region, so none is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), bytes) };
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn fill(region: &Region, block: u32, byte: u8) {
        let bytes = region.block_bytes() as usize;
        // SAFETY: the whole block, which nobody else looks at.
        unsafe { region.block(block).write_bytes(byte, bytes) };
    }

    fn bytes(region: &Region, block: u32) -> &[u8] {
        let len = region.block_bytes() as usize;
        // SAFETY: the whole block, initialised by the mapping, and nobody writes while it is looked at.
        unsafe { std::slice::from_raw_parts(region.block(block).as_ptr(), len) }
    }

    #[test]
    fn what_is_released_takes_nothing_from_its_neighbours() {
        let region = Region::reserve(96, 4096).unwrap();
        (0..96).for_each(|block| fill(&region, block, block as u8 + 1));
        let is_free = |block: u32| block.is_multiple_of(3) || (40..60).contains(&block);
        region.release(80, is_free);
        for block in 0..96 {
            let kept = bytes(&region, block).iter().all(|b| *b == block as u8 + 1);
            assert!(kept || (is_free(block) && block < 80), "block {block}");
        }
        // Inside a run nothing is left of a block.
        assert!((41..59).all(|block| bytes(&region, block).iter().all(|b| *b == 0)));
    }

    #[test]
    fn blocks_begin_at_every_line_of_a_page() {
        let region = Region::reserve(64, 4096).unwrap();
        let lines: BTreeSet<_> = (0..64)
            .map(|block| region.block(block).as_ptr() as usize % PAGE_BYTES)
            .collect();
        assert_eq!(lines.len(), 64);
    }
}
