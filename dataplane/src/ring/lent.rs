//! Between the two completions of a send without a copy: the kernel has taken the bytes, and goes on
//! reading them where they are until the peer has them.
//!
//! The stream goes on meanwhile: the next send may start, and the socket may be dropped. The end of the
//! stream is told at once; the descriptor stays for the plan's linger time at most, then a reset makes the
//! kernel let go of the bytes.

use std::mem;
use std::rc::{Rc, Weak};

use super::arena::Key;
use super::conn::Conn;
use super::core::Core;
use super::in_flight::Op;
use super::kernel::Completion;
use super::loan::Loan;

/// Memory lent until the kernel's notification. Holds the core with its pools, but not the connection:
/// closing it may be what brings the notification.
#[derive(Debug)]
pub(super) struct Lent {
    conn: Weak<Conn>,
    /// Held, not used.
    _core: Rc<Core>,
    loan: Box<Loan>,
    /// Some bytes were taken: only then the notification says whether they were copied.
    taken: bool,
}

impl Lent {
    pub(super) fn conn(&self) -> Option<Rc<Conn>> {
        self.conn.upgrade()
    }
}

/// How a send without a copy is refused where one with a copy may succeed: by a kind of socket, or for
/// the limit of locked memory.
pub(super) fn wants_a_copy(result: i32) -> bool {
    matches!(-result, libc::EOPNOTSUPP | libc::EINVAL | libc::ENOMEM)
}

impl Core {
    /// The first completion of a send without a copy; `false` if `key` is none.
    pub(super) fn taken(&self, key: Key, result: i32) -> bool {
        let mut ops = self.ops.borrow_mut();
        let Some(op) = ops.get_mut(key).filter(|op| matches!(op, Op::Send(..))) else {
            return false;
        };
        // Nobody sees what stands there for the moment.
        let Op::Send(conn, mut loan) = mem::replace(op, Op::Bell) else {
            unreachable!("just found to be a send");
        };
        let prompt = loan.is_of(self.turn_number());
        let rest = match result {
            1.. => (!loan.advance(result as usize)).then(|| self.rest(&loan)),
            _ => wants_a_copy(result).then(|| {
                conn.copies.set(true);
                self.rest(&loan)
            }),
        };
        *op = Op::Lent(Lent {
            conn: Rc::downgrade(&conn),
            _core: Rc::clone(&conn.core),
            loan,
            taken: result > 0,
        });
        drop(ops);
        if wants_a_copy(result) {
            self.note_copied(true);
        }
        conn.send_ended(prompt, result, rest);
        true
    }

    /// What a loan has left to send, in a loan of its own, to be copied.
    fn rest(&self, loan: &Loan) -> Box<Loan> {
        let mut rest = self.loan();
        rest.load_rest(loan);
        rest
    }

    /// The notification: the kernel will not read the bytes again.
    pub(super) fn given_back(&self, lent: Lent, done: Completion) {
        let bytes = lent.loan.lent_bytes();
        self.zero_copy.give_back(bytes);
        let copied = done.copied();
        #[cfg(test)]
        let copied = self.faults.copied(copied);
        if lent.taken {
            self.note_copied(copied);
        }
        self.take_back(lent.loan);
        if let Some(conn) = lent.conn.upgrade() {
            if copied {
                conn.copies.set(true);
            }
            conn.given_back(bytes);
        }
    }
}
