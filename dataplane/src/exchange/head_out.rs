//! A head on its way out: as many pooled buffers as it needs.

use crate::http1::{Full, Sink};
use crate::ring::{Buf, Chunk, Out, Ring};

/// Pieces of an [`Out`] left for the body: a chunk's size line, its payload, and the end.
const PIECES_FOR_BODY: usize = 3;

/// A piece of body up to this long is copied behind its head. One stretch of memory takes the plain
/// send, several the gathered one, whose tables cost the kernel more than so short a copy (in a profile
/// with 128 bytes 2 % of all CPU). Anything longer goes out from where it was received.
const COPIED_BYTES_MAX: usize = 512;

/// Collects a head into pooled buffers. Usually one; a head of the largest size takes five.
#[derive(Debug)]
pub(super) struct HeadOut<'r> {
    ring: &'r Ring,
    out: Out,
    current: Option<Buf>,
}

impl<'r> HeadOut<'r> {
    /// Nothing yet.
    #[must_use]
    pub(super) fn new(ring: &'r Ring) -> Self {
        Self {
            ring,
            out: Out::new(),
            current: None,
        }
    }

    /// Appends a piece of body: behind the head in the same buffer if it is short, else as it is.
    ///
    /// # Errors
    /// [`Full`]: eight pieces are in it.
    pub(super) fn push(&mut self, piece: Chunk) -> Result<(), Full> {
        if piece.len() <= COPIED_BYTES_MAX
            && let Some(buf) = &mut self.current
            && buf.extend_from_slice(&piece).is_ok()
        {
            return Ok(());
        }
        self.end_buffer()?;
        self.out.push(piece).map_err(|_| Full)
    }

    /// Pieces that can still be pushed.
    #[must_use]
    pub(super) fn room(&self) -> usize {
        self.out
            .room()
            .saturating_sub(usize::from(self.current.is_some()))
    }

    /// What was collected.
    #[must_use]
    pub(super) fn finish(mut self) -> Out {
        // Room was kept for it when the buffer was taken.
        let _ = self.end_buffer();
        self.out
    }

    fn end_buffer(&mut self) -> Result<(), Full> {
        match self.current.take() {
            Some(buf) => self.out.push(buf).map_err(|_| Full),
            None => Ok(()),
        }
    }
}

impl Sink for HeadOut<'_> {
    #[inline]
    fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        // Nearly always there is room in the buffer at hand.
        if let Some(buf) = &mut self.current
            && buf.extend_from_slice(bytes).is_ok()
        {
            return Ok(());
        }
        self.put_on(bytes)
    }
}

impl HeadOut<'_> {
    /// Puts bytes into as many buffers as they need.
    fn put_on(&mut self, mut bytes: &[u8]) -> Result<(), Full> {
        while !bytes.is_empty() {
            if self.current.as_ref().is_none_or(|buf| buf.room() == 0) {
                self.end_buffer()?;
                if self.out.room() <= PIECES_FOR_BODY {
                    return Err(Full);
                }
                self.current = Some(self.ring.buf().ok_or(Full)?);
            }
            let Some(buf) = &mut self.current else {
                return Err(Full);
            };
            let (now, rest) = bytes.split_at(bytes.len().min(buf.room()));
            buf.extend_from_slice(now).map_err(|_| Full)?;
            bytes = rest;
        }
        Ok(())
    }
}
