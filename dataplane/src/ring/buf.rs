//! Bytes to be sent: a pooled block with one owner.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::rc::Rc;

use super::chunk::Chunk;
use super::pool::Pool;

/// A block being filled. Fixed capacity; goes back to its pool on drop.
pub struct Buf {
    pool: Rc<Pool>,
    block: u32,
    len: u32,
}

/// The bytes do not fit; nothing was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Full;

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the buffer is full")
    }
}

impl std::error::Error for Full {}

impl Buf {
    pub(super) fn take(pool: &Rc<Pool>) -> Option<Self> {
        let block = pool.take()?;
        Some(Self {
            pool: Rc::clone(pool),
            block,
            len: 0,
        })
    }

    /// Most bytes it can hold.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.pool.block_bytes() as usize
    }

    /// Bytes that still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.capacity() - self.len as usize
    }

    /// Appends all of `bytes`.
    ///
    /// # Errors
    /// [`Full`] if they do not fit; then nothing was written.
    #[inline]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.spare()
            .get_mut(..bytes.len())
            .ok_or(Full)?
            .copy_from_slice(bytes);
        self.len += bytes.len() as u32;
        Ok(())
    }

    /// The part not written yet. Its contents are unspecified (old bytes or zeroes); say with
    /// [`advance`](Self::advance) how much of it was filled.
    pub fn spare(&mut self) -> &mut [u8] {
        let whole = self.capacity();
        let len = self.len as usize;
        let start = self.pool.start_of(self.block).as_ptr();
        // SAFETY: the whole block: mapped memory, zeroed or written before, so initialised. A
        // `Buf` is its block's only owner (count 1, never cloned) and is borrowed mutably here.
        let block = unsafe { std::slice::from_raw_parts_mut(start, whole) };
        &mut block[len..]
    }

    /// Counts `n` bytes of [`spare`](Self::spare) as written.
    ///
    /// # Panics
    /// If there is less room than that.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.room());
        self.len += n as u32;
    }

    /// Forgets the contents.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Keeps only the first `n` bytes; no change if there are fewer.
    pub fn truncate(&mut self, n: usize) {
        if n < self.len as usize {
            self.len = n as u32;
        }
    }

    /// Ends the writing: from here on a window that can be split and shared.
    #[must_use]
    pub fn freeze(self) -> Chunk {
        let this = ManuallyDrop::new(self);
        // SAFETY: `this` is never used or dropped again, so the `Rc` (and with it the block's
        // count) moves out exactly once.
        let pool = unsafe { std::ptr::read(&raw const this.pool) };
        Chunk::from_block(pool, this.block, this.len)
    }
}

impl Deref for Buf {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        let start = self.pool.start_of(self.block).as_ptr();
        // SAFETY: the first `len` bytes of our own block; see `spare`.
        unsafe { std::slice::from_raw_parts(start, self.len as usize) }
    }
}

impl DerefMut for Buf {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        let start = self.pool.start_of(self.block).as_ptr();
        // SAFETY: the first `len` bytes of our own block, borrowed mutably through its only owner.
        unsafe { std::slice::from_raw_parts_mut(start, self.len as usize) }
    }
}

impl Drop for Buf {
    fn drop(&mut self) {
        self.pool.release(self.block);
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} of {} bytes)", self.len, self.capacity())
    }
}
