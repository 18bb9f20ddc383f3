//! What one send carries: up to eight pieces, handed to the kernel in one submission.

use std::fmt;

use super::buf::{Buf, Full};
use super::chunk::Chunk;

/// Most pieces of one [`Out`]. A head, a body in a few chunks, a trailer; more is sent as the next.
pub const OUT_PIECES_MAX: usize = 8;

/// Pieces to be sent in order. Owns its buffers; they go home when the kernel is done with them.
pub struct Out {
    pieces: [Chunk; OUT_PIECES_MAX],
    count: u8,
}

impl Out {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            pieces: std::array::from_fn(|_| Chunk::empty()),
            count: 0,
        }
    }

    /// A head and the first bytes of a body.
    #[must_use]
    pub fn pair(head: Buf, body: Chunk) -> Self {
        let mut out = Self::new();
        out.put(head.freeze());
        out.put(body);
        out
    }

    /// Appends a piece; an empty one is dropped.
    ///
    /// # Errors
    /// [`Full`] with eight pieces in it already; the piece is dropped.
    pub fn push(&mut self, piece: impl Into<Chunk>) -> Result<(), Full> {
        if usize::from(self.count) == OUT_PIECES_MAX {
            return Err(Full);
        }
        self.put(piece.into());
        Ok(())
    }

    fn put(&mut self, piece: Chunk) {
        if !piece.is_empty() {
            self.pieces[usize::from(self.count)] = piece;
            self.count += 1;
        }
    }

    /// Bytes in all pieces.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pieces().iter().map(|piece| piece.len()).sum()
    }

    /// Whether there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Pieces that can still be pushed.
    #[must_use]
    pub fn room(&self) -> usize {
        OUT_PIECES_MAX - usize::from(self.count)
    }

    /// The pieces, none of them empty.
    #[must_use]
    pub fn pieces(&self) -> &[Chunk] {
        &self.pieces[..usize::from(self.count)]
    }
}

impl Default for Out {
    fn default() -> Self {
        Self::new()
    }
}

impl From<Chunk> for Out {
    fn from(piece: Chunk) -> Self {
        let mut out = Self::new();
        out.put(piece);
        out
    }
}

impl From<Buf> for Out {
    fn from(piece: Buf) -> Self {
        piece.freeze().into()
    }
}

impl From<Buf> for Chunk {
    fn from(buf: Buf) -> Self {
        buf.freeze()
    }
}

impl fmt::Debug for Out {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Out({} bytes in {} pieces)", self.len(), self.count)
    }
}
