//! What one send carries: up to eight pieces, handed to the kernel in one submission.

use std::cell::RefCell;
use std::fmt;

use super::buf::{Buf, Full};
use super::chunk::Chunk;

/// Most pieces of one [`Out`]. A head, a body in a few chunks, a trailer; more is sent as the next.
pub const OUT_PIECES_MAX: usize = 8;

/// Emptied boxes one thread keeps for its next sends; more are in use only in a burst.
const BOXES_KEPT: usize = 1024;

thread_local! {
    #[expect(clippy::vec_box, reason = "the boxes are what is kept")]
    static BOXES: RefCell<Vec<Box<Pieces>>> = const { RefCell::new(Vec::new()) };
}

/// Pieces to be sent in order. Owns its buffers; they go home when the kernel is done with them.
///
/// One word: it passes through many hands and futures on its way, and each would copy, and keep room
/// for, all places. Its box is reused, so nothing is allocated once as many exist as are in use.
#[derive(Default)]
pub struct Out(Option<Box<Pieces>>);

struct Pieces {
    list: [Chunk; OUT_PIECES_MAX],
    count: u8,
}

impl Pieces {
    fn take() -> Box<Self> {
        let spare = BOXES.with(|boxes| boxes.borrow_mut().pop());
        spare.unwrap_or_else(|| {
            Box::new(Self {
                list: std::array::from_fn(|_| Chunk::empty()),
                count: 0,
            })
        })
    }

    fn all(&self) -> &[Chunk] {
        &self.list[..usize::from(self.count)]
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        let Some(mut pieces) = self.0.take() else {
            return;
        };
        let count = usize::from(std::mem::take(&mut pieces.count));
        for piece in &mut pieces.list[..count] {
            *piece = Chunk::empty();
        }
        // A thread that ends keeps nothing.
        let _ = BOXES.try_with(|boxes| {
            let mut boxes = boxes.borrow_mut();
            if boxes.len() < BOXES_KEPT {
                boxes.push(pieces);
            }
        });
    }
}

impl Out {
    /// Nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        Self(None)
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
        if self.room() == 0 {
            return Err(Full);
        }
        self.put(piece.into());
        Ok(())
    }

    fn put(&mut self, piece: Chunk) {
        if !piece.is_empty() {
            let pieces = self.0.get_or_insert_with(Pieces::take);
            pieces.list[usize::from(pieces.count)] = piece;
            pieces.count += 1;
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
        self.pieces().is_empty()
    }

    /// Pieces that can still be pushed.
    #[must_use]
    pub fn room(&self) -> usize {
        OUT_PIECES_MAX - self.pieces().len()
    }

    /// The pieces, none of them empty.
    #[must_use]
    pub fn pieces(&self) -> &[Chunk] {
        self.0.as_ref().map_or(&[], |pieces| pieces.all())
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
        write!(
            f,
            "Out({} bytes in {} pieces)",
            self.len(),
            self.pieces().len()
        )
    }
}
