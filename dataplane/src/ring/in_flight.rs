//! Operations the kernel has not finished, and everything it may touch on their behalf.
//!
//! An entry is made before the operation is queued and removed at its *final* completion, nowhere
//! else. It holds an `Rc` of its connection or listener, which holds the [`Core`](super::core::Core)
//! with the buffer pools: as long as an operation is in flight, its descriptor is open and its
//! memory is there, whatever futures were dropped meanwhile.

use std::rc::Rc;

use super::conn::Conn;
use super::connect::Connecting;
use super::groups::Size;
use super::lent::Lent;
use super::listener::Gate;
use super::loan::Loan;
use super::watch::Watch;

/// One operation in flight.
#[derive(Debug)]
pub(super) enum Op {
    /// Multishot receive into blocks of a group.
    Recv(Rc<Conn>, Size),
    /// A gathered send and what it sends.
    Send(Rc<Conn>, Box<Loan>),
    /// A send without a copy after its first completion, and what the kernel still reads.
    Lent(Lent),
    /// A connect and the address it reads.
    Connect(Rc<Connecting>),
    /// Multishot accept.
    Accept(Rc<Gate>),
    /// One poll of a socket. Lends no memory.
    Poll(Rc<Watch>),
    /// Multishot poll of the bell. Lends no memory; the bell's descriptor lives in the core, and the
    /// kernel holds the file itself.
    Bell,
}

impl Op {
    /// A second handle to an operation that goes on after this completion.
    pub(super) fn share(&self) -> Option<Self> {
        match self {
            Self::Recv(conn, size) => Some(Self::Recv(Rc::clone(conn), *size)),
            Self::Accept(gate) => Some(Self::Accept(Rc::clone(gate))),
            Self::Bell => Some(Self::Bell),
            // These complete once. (A send without a copy becomes something else at its first completion.)
            Self::Send(..) | Self::Lent(_) | Self::Connect(..) | Self::Poll(_) => None,
        }
    }
}
