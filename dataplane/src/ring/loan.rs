//! Memory lent to the kernel for one send: the pieces, and the tables that point to them.

use std::fmt;
use std::num::NonZeroU32;

use super::chunk::Chunk;
use super::out::{OUT_PIECES_MAX, Out};
use super::prefetch;

/// Lent for one send. Boxed, so that the kernel's pointers stay good while the box moves; boxes are
/// reused and never freed while lent.
pub(super) struct Loan {
    out: Out,
    sent: usize,
    /// Nothing will follow: what is left may wait for the FIN, and go with it.
    last: bool,
    /// Not to be tried without a copy (again).
    must_copy: bool,
    /// Bytes of buffers charged for a send without a copy; 0 for one that copies.
    lent_bytes: usize,
    /// The ring's turn in which it was submitted.
    turn: NonZeroU32,
    pieces: [libc::iovec; OUT_PIECES_MAX],
    header: libc::msghdr,
}

/// How to hand a loan to the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One stretch of memory.
    One { start: *const u8, len: u32 },
    /// Several, through a message header.
    Gathered { header: *const libc::msghdr },
}

impl Loan {
    pub(super) fn new() -> Box<Self> {
        let nothing = libc::iovec {
            iov_base: std::ptr::null_mut(),
            iov_len: 0,
        };
        // SAFETY: msghdr is plain integers and pointers; all zero is its empty value.
        let header = unsafe { std::mem::zeroed() };
        Box::new(Self {
            out: Out::new(),
            sent: 0,
            last: false,
            must_copy: false,
            lent_bytes: 0,
            turn: NonZeroU32::MIN,
            pieces: [nothing; OUT_PIECES_MAX],
            header,
        })
    }

    /// Says that the loan is given back soon: the pieces it holds are looked at, and not the tables made
    /// of them.
    pub(super) fn fetch(&self) {
        prefetch::fetch(&self.out);
        prefetch::fetch(&self.turn);
    }

    /// Takes over what is to be sent; with `last` a FIN follows at once.
    pub(super) fn load(&mut self, out: Out, last: bool) {
        self.out = out;
        self.sent = 0;
        self.last = last;
        self.must_copy = false;
        self.lent_bytes = 0;
    }

    /// Takes over what `other` has left, as other windows on the same bytes, to be copied.
    pub(super) fn load_rest(&mut self, other: &Self) {
        let mut skip = other.sent;
        let mut out = Out::new();
        for piece in other.out.pieces() {
            let skipped = skip.min(piece.len());
            skip -= skipped;
            let mut rest = piece.share();
            rest.advance(skipped);
            // As many at most as the other has.
            let _ = out.push(rest);
        }
        self.load(out, other.last);
        self.must_copy = true;
    }

    /// Bytes not sent yet.
    pub(super) fn left(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Bytes of buffers it keeps from being used for something else.
    pub(super) fn cost(&self) -> usize {
        self.out.pieces().iter().map(Chunk::cost).sum()
    }

    pub(super) fn must_copy(&self) -> bool {
        self.must_copy
    }

    /// The kernel may read it until the notification; `cost` was charged for that.
    pub(super) fn lend(&mut self, cost: usize) {
        self.lent_bytes = cost;
    }

    /// What was charged, if it goes without a copy.
    pub(super) fn lent_bytes(&self) -> usize {
        self.lent_bytes
    }

    /// To be copied after all; tells what was charged.
    pub(super) fn copy_after_all(&mut self) -> usize {
        self.must_copy = true;
        std::mem::take(&mut self.lent_bytes)
    }

    pub(super) fn is_last(&self) -> bool {
        self.last
    }

    pub(super) fn submitted_in(&mut self, turn: NonZeroU32) {
        self.turn = turn;
    }

    /// Whether it was submitted in this turn of the ring.
    pub(super) fn is_of(&self, turn: NonZeroU32) -> bool {
        self.turn == turn
    }

    /// Lets go of the buffers. Only after the final completion.
    pub(super) fn unload(&mut self) {
        self.out = Out::new();
    }

    /// Counts bytes as sent; tells whether that was all.
    pub(super) fn advance(&mut self, bytes: usize) -> bool {
        self.sent += bytes;
        self.sent >= self.out.len()
    }

    /// Points the tables at what is left. The result holds as long as the box lives and neither
    /// `load`, `unload` nor `shape` is called again.
    pub(super) fn shape(&mut self) -> Shape {
        let mut skip = self.sent;
        let mut count = 0;
        for piece in self.out.pieces() {
            let Some(rest) = piece.get(skip..).filter(|rest| !rest.is_empty()) else {
                skip -= piece.len();
                continue;
            };
            skip = 0;
            self.pieces[count] = libc::iovec {
                iov_base: rest.as_ptr().cast_mut().cast(),
                iov_len: rest.len(),
            };
            count += 1;
        }
        if count == 1 {
            let piece = self.pieces[0];
            return Shape::One {
                start: piece.iov_base.cast(),
                len: u32::try_from(piece.iov_len).expect("blocks are small"),
            };
        }
        self.header.msg_iov = self.pieces.as_mut_ptr();
        self.header.msg_iovlen = count;
        Shape::Gathered {
            header: &raw const self.header,
        }
    }
}

impl fmt::Debug for Loan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Loan({} of {:?})", self.sent, self.out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::Chunk;

    #[test]
    fn a_short_send_goes_on_in_the_middle_of_a_piece() {
        let mut loan = Loan::new();
        let mut out = Out::from(Chunk::from_static(b"head"));
        out.push(Chunk::from_static(b"body body")).unwrap();
        out.push(Chunk::from_static(b"end")).unwrap();
        loan.load(out, false);
        assert!(matches!(loan.shape(), Shape::Gathered { .. }));
        assert_eq!(loan.header.msg_iovlen, 3);
        assert!(!loan.advance(6));
        assert!(matches!(loan.shape(), Shape::Gathered { .. }));
        assert_eq!(loan.header.msg_iovlen, 2);
        assert_eq!(loan.pieces[0].iov_len, 7);
        assert!(!loan.advance(7));
        assert!(matches!(loan.shape(), Shape::One { len: 3, .. }));
        assert!(loan.advance(3));
    }
}
