//! Received bytes: a counted window on a block the kernel filled.

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::rc::Rc;

use super::pool::Pool;

/// A read-only window on a block. Cheap to split; the block goes home when the last window on it
/// is dropped. The empty chunk (no block) stands for the peer's FIN.
pub struct Chunk {
    start: NonNull<u8>,
    len: u32,
    /// Meaningful only with a pool.
    block: u32,
    /// `None`: empty, or bytes of the program itself.
    pool: Option<Rc<Pool>>,
}

const _: () = assert!(
    size_of::<Chunk>() == 24,
    "eight of these travel in every Out"
);

impl Chunk {
    /// No bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self::from_static(&[])
    }

    /// Bytes of the program itself: canned answers need no buffer.
    #[must_use]
    pub fn from_static(bytes: &'static [u8]) -> Self {
        Self {
            start: NonNull::from(bytes).cast(),
            len: u32::try_from(bytes.len()).expect("a canned answer is short"),
            block: 0,
            pool: None,
        }
    }

    /// Takes over one count of `block`, whose first `len` bytes are initialised.
    pub(super) fn from_block(pool: Rc<Pool>, block: u32, len: u32) -> Self {
        assert!(len <= pool.block_bytes());
        Self {
            start: pool.start_of(block),
            len,
            block,
            pool: Some(pool),
        }
    }

    /// Takes the first `n` bytes off into a chunk of their own; both share the block.
    ///
    /// # Panics
    /// If `n` is more than the chunk holds.
    #[must_use]
    pub fn split_to(&mut self, n: usize) -> Self {
        assert!(n <= self.len(), "split_to({n}) of {} bytes", self.len());
        if n == self.len() {
            return std::mem::take(self);
        }
        if let Some(pool) = &self.pool {
            pool.retain(self.block);
        }
        let head = Self {
            start: self.start,
            len: n as u32,
            block: self.block,
            pool: self.pool.clone(),
        };
        self.skip(n);
        head
    }

    /// Another window on the same bytes.
    #[must_use]
    pub fn share(&self) -> Self {
        if let Some(pool) = &self.pool {
            pool.retain(self.block);
        }
        Self {
            start: self.start,
            len: self.len,
            block: self.block,
            pool: self.pool.clone(),
        }
    }

    /// Drops the first `n` bytes; the block goes home with the last of them, not with the empty window.
    ///
    /// # Panics
    /// If `n` is more than the chunk holds.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len(), "advance({n}) of {} bytes", self.len());
        if n == self.len() {
            *self = Self::empty();
        } else {
            self.skip(n);
        }
    }

    /// Keeps only the first `n` bytes; no change if there are fewer.
    pub fn truncate(&mut self, n: usize) {
        if n < self.len() {
            self.len = n as u32;
        }
    }

    fn skip(&mut self, n: usize) {
        // SAFETY: callers checked `n <= len`, and `start..start + len` lies in one allocation.
        self.start = unsafe { self.start.add(n) };
        self.len -= n as u32;
    }

    /// Appends `bytes` behind this window, in the same block, if nobody else sees the block and
    /// there is room. Lets many tiny segments share a block while their reader is busy.
    pub fn append(&mut self, bytes: &[u8]) -> bool {
        let Some(pool) = &self.pool else {
            return false;
        };
        let begin = pool.start_of(self.block).as_ptr() as usize;
        let used = self.start.as_ptr() as usize - begin + self.len();
        if !pool.is_sole(self.block) || used + bytes.len() > pool.block_bytes() as usize {
            return false;
        }
        // SAFETY: `used <= block_bytes`: the end of this window, inside its block.
        let end = unsafe { self.start.as_ptr().add(self.len()) };
        // SAFETY: `bytes.len()` bytes from `end` on stay inside the block (checked above); count 1
        // means no other window exists, and the kernel does not have the block; `bytes` borrows
        // another block, since this one has no other window, so the two do not overlap.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), end, bytes.len()) };
        self.len += bytes.len() as u32;
        true
    }

    /// Bytes of memory this chunk keeps from being used for something else.
    pub(super) fn cost(&self) -> usize {
        self.pool
            .as_ref()
            .map_or(0, |pool| pool.block_bytes() as usize)
    }
}

impl Deref for Chunk {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `start..start + len` is initialised (the kernel, a `Buf` or the program wrote
        // it), inside one allocation that lives as long as `pool` or forever. While a count is
        // held nobody writes these bytes: the kernel does not have the block, and `append` writes
        // only behind the only window.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len as usize) }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.release(self.block);
        }
    }
}

impl Default for Chunk {
    fn default() -> Self {
        Self::empty()
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Chunk({} bytes)", self.len)
    }
}
