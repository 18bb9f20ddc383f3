//! A stretch of anonymous memory cut into equal blocks. Memory only: no kernel queue is named here.
//!
//! Pages are reserved, not touched, so a region sized for the worst case costs address space until
//! a block is used; [`Region::release`] gives a block's pages back.

use std::io;
use std::ptr::NonNull;

/// Page-aligned blocks of one size. Unmapped on drop; whoever hands out block pointers must keep
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
        assert!(blocks > 0 && block_bytes > 0 && block_bytes.is_multiple_of(4096));
        let bytes = blocks as usize * block_bytes as usize;
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
        let offset = block as usize * self.block_bytes as usize;
        // SAFETY: `block < blocks`, so the offset lies inside the one mapping `base` points to.
        unsafe { self.base.add(offset) }
    }

    /// Gives the pages of the first `among` blocks that `is_free` back to the system, in as few
    /// calls as there are runs of them; they read as zeroes afterwards. The caller knows that
    /// nobody holds a free block.
    pub(super) fn release(&self, among: u32, is_free: impl Fn(u32) -> bool) {
        assert!(among <= self.blocks);
        let mut block = 0;
        while block < among {
            let run = (block..among).take_while(|block| is_free(*block)).count() as u32;
            if run > 0 {
                let address = self.block(block).as_ptr().cast();
                let bytes = run as usize * self.block_bytes as usize;
                // SAFETY: whole pages inside our own private anonymous mapping (`among` blocks are in
                // it, checked above); the mapping stays, only its contents are dropped. Failure means the pages stay, which is harmless.
                unsafe { libc::madvise(address, bytes, libc::MADV_DONTNEED) };
            }
            block += run + 1;
        }
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let bytes = self.blocks as usize * self.block_bytes as usize;
        // SAFETY: exactly the mapping made in `reserve`, unmapped once. Windows hold an `Rc` of
        // the pool that owns this region, so none is left.
        unsafe { libc::munmap(self.base.as_ptr().cast(), bytes) };
    }
}
