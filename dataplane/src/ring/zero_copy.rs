//! Which sends lend their bytes to the kernel in place of having them copied (IORING_OP_SEND_ZC).
//! Decides and counts; gives nothing to the kernel.
//!
//! A copying send has its buffers back when the kernel has taken the bytes, one without a copy only when
//! the peer has acknowledged them. A peer that does not would hold the buffers of all: what is lent is
//! bounded for a connection and for the ring, and above that sends copy. Where the kernel reports that it
//! copied all the same (loopback, a device without scatter-gather) there is nothing to win: such a
//! connection copies from then on, and after [`COPIES_MAX`] of them in a row so does the whole ring.

use std::cell::Cell;

use super::conn::Conn;
use super::core::Core;
use super::loan::Loan;
use super::plan::{SEND_BYTES_MAX, SendZc};

/// Buffers one connection may have lent, bytes: two of the largest sends, so that one can be filled while
/// the other is on its way.
pub(super) const LENT_CONN_BYTES_MAX: usize = 2 * SEND_BYTES_MAX as usize;
/// Buffers all connections of a ring may have lent, bytes: a quarter of those for bulk.
pub(super) const LENT_BYTES_MAX: usize = 4 << 20;
/// Sends in a row that were copied, or refused without a copy, after which the ring tries no more. Each of
/// them comes from a connection that had not been told before, so a few clients on loopback beside others
/// on a network do not add up to it.
pub(super) const COPIES_MAX: u32 = 16;
/// No send is large enough.
const NEVER: u32 = u32::MAX;

/// What is lent, and whether it pays.
#[derive(Debug)]
pub(super) struct ZeroCopy {
    /// Sends of so many bytes or more are tried without a copy.
    from_bytes: Cell<u32>,
    lent_bytes: Cell<usize>,
    copies_in_a_row: Cell<u32>,
}

impl ZeroCopy {
    pub(super) fn off() -> Self {
        Self {
            from_bytes: Cell::new(NEVER),
            lent_bytes: Cell::new(0),
            copies_in_a_row: Cell::new(0),
        }
    }

    pub(super) fn start(&self, from_bytes: u32) {
        self.from_bytes.set(from_bytes);
    }

    /// Bytes of buffers lent now.
    #[cfg(test)]
    pub(super) fn lent_bytes(&self) -> usize {
        self.lent_bytes.get()
    }

    /// Whether a send goes without a copy; if so it is charged. One comparison where none does.
    #[inline]
    pub(super) fn lends(&self, conn: &Conn, loan: &mut Loan) -> bool {
        let from_bytes = self.from_bytes.get();
        from_bytes != NEVER && self.may_lend(conn, loan, from_bytes)
    }

    fn may_lend(&self, conn: &Conn, loan: &mut Loan, from_bytes: u32) -> bool {
        if conn.copies.get() || loan.must_copy() || loan.left() < from_bytes as usize {
            return false;
        }
        let cost = loan.cost();
        let (of_conn, of_ring) = (conn.lent_bytes() + cost, self.lent_bytes.get() + cost);
        if of_conn > LENT_CONN_BYTES_MAX || of_ring > LENT_BYTES_MAX {
            return false;
        }
        conn.set_lent_bytes(of_conn);
        self.lent_bytes.set(of_ring);
        loan.lend(cost);
        true
    }

    /// The kernel is done with so much.
    pub(super) fn give_back(&self, bytes: usize) {
        self.lent_bytes.set(self.lent_bytes.get() - bytes);
    }
}

impl Core {
    /// What came of a send without a copy: the kernel made one all the same, or refused.
    pub(super) fn note_copied(&self, copied: bool) {
        let zero_copy = &self.zero_copy;
        if !copied {
            zero_copy.copies_in_a_row.set(0);
            return;
        }
        let copies = zero_copy.copies_in_a_row.get() + 1;
        zero_copy.copies_in_a_row.set(copies);
        if copies == COPIES_MAX && zero_copy.from_bytes.replace(NEVER) != NEVER {
            self.kernel.set_send_zc(SendZc::Copied);
            tracing::info!(
                copies,
                "the kernel copies sends that were to go without a copy: zero_copy_min is off here until the next start"
            );
        }
    }
}
