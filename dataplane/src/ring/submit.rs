//! Every operation this room gives to the kernel, and why its memory is good.
//!
//! The common argument: each entry is pushed with the key of an [`Op`] that is removed only at the
//! final completion and owns (through `Rc`s) the descriptor and all memory the entry points to.

use std::os::fd::{IntoRawFd, OwnedFd};
use std::rc::Rc;

use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};
use std::os::fd::AsRawFd;

use super::arena::Key;
use super::conn::Conn;
use super::connect::Connecting;
use super::core::Core;
use super::groups::Size;
use super::in_flight::Op;
use super::listener::Gate;
use super::loan::{Loan, Shape};
use super::token::{self, NOBODY};
use super::watch::Watch;

/// `IORING_SEND_ZC_REPORT_USAGE` (6.2), which the io-uring crate keeps to itself.
const SEND_ZC_REPORT_USAGE: u16 = 1 << 3;
const SEND_FLAGS: i32 = libc::MSG_WAITALL | libc::MSG_NOSIGNAL;

impl Core {
    /// Queues the operation of an entry in [`ops`](Self::ops).
    ///
    /// # Safety
    /// As for [`Kernel::push`](super::kernel::Kernel::push).
    unsafe fn give(&self, key: Key, entry: Entry) {
        let number = token::encode(key);
        #[cfg(test)]
        if let Some(op) = self.ops.borrow().get(key)
            && self.faults.refuse(op, number)
        {
            return;
        }
        // SAFETY: this function's own contract.
        unsafe { self.kernel.push(entry.user_data(number)) };
    }

    pub(super) fn submit_recv(&self, conn: &Rc<Conn>, size: Size, limit_bytes: u32) -> Key {
        let key = self
            .ops
            .borrow_mut()
            .insert(Op::Recv(Rc::clone(conn), size));
        let mut entry = opcode::RecvMulti::new(types::Fd(conn.raw()), size as u16).build();
        if self.kernel.picked().recv_limit {
            limit_recv(&mut entry, limit_bytes);
        }
        // SAFETY: the entry points to no memory; the kernel fills blocks of a registered group,
        // whose pool the core owns, and the op holds the core through `conn`. It holds the
        // descriptor as well.
        unsafe { self.give(key, entry) };
        key
    }

    pub(super) fn submit_send(&self, conn: &Rc<Conn>, mut loan: Box<Loan>) -> Key {
        loan.submitted_in(self.turn_number());
        let lends = self.zero_copy.lends(conn, &mut loan);
        let flags = SEND_FLAGS | if loan.is_last() { libc::MSG_MORE } else { 0 };
        let shape = loan.shape();
        #[cfg(test)]
        let shape = self.faults.shorten_send(shape);
        let key = self
            .ops
            .borrow_mut()
            .insert(Op::Send(Rc::clone(conn), loan));
        let fd = types::Fd(conn.raw());
        let entry = match (shape, lends) {
            (Shape::One { start, len }, false) => {
                opcode::Send::new(fd, start, len).flags(flags).build()
            }
            (Shape::Gathered { header }, false) => {
                opcode::SendMsg::new(fd, header).flags(flags as u32).build()
            }
            (Shape::One { start, len }, true) => opcode::SendZc::new(fd, start, len)
                .flags(flags)
                .zc_flags(SEND_ZC_REPORT_USAGE)
                .build(),
            (Shape::Gathered { header }, true) => opcode::SendMsgZc::new(fd, header)
                .flags(flags as u32)
                .ioprio(SEND_ZC_REPORT_USAGE)
                .build(),
        };
        // SAFETY: header, vectors and pieces belong to the boxed loan, which the op owns; moving the
        // box does not move them, and pieces are windows whose blocks nobody writes while they are
        // held. The op holds the descriptor. Without a copy the first completion is not the last: the
        // op goes on owning the loan until the notification (`lent.rs`), whatever became of the send.
        // The kernel has let go of the descriptor by then.
        unsafe { self.give(key, entry) };
        key
    }

    pub(super) fn submit_connect(&self, connecting: &Rc<Connecting>) -> Key {
        let op = Op::Connect(Rc::clone(connecting));
        let key = self.ops.borrow_mut().insert(op);
        let fd = types::Fd(connecting.conn.raw());
        let to = &connecting.to;
        let entry = opcode::Connect::new(fd, to.as_ptr().cast(), to.len()).build();
        // SAFETY: the address lies in the `Rc<Connecting>` the op owns and is never written again.
        unsafe { self.give(key, entry) };
        key
    }

    pub(super) fn submit_accept(&self, gate: &Rc<Gate>) -> Key {
        let key = self.ops.borrow_mut().insert(Op::Accept(Rc::clone(gate)));
        let entry = opcode::AcceptMulti::new(types::Fd(gate.raw()))
            .flags(libc::SOCK_CLOEXEC)
            .build();
        // SAFETY: no memory; the op holds the listening descriptor.
        unsafe { self.give(key, entry) };
        key
    }

    pub(super) fn submit_poll(&self, watch: &Rc<Watch>) -> Key {
        let key = self.ops.borrow_mut().insert(Op::Poll(Rc::clone(watch)));
        let fd = types::Fd(watch.conn.raw());
        let entry = opcode::PollAdd::new(fd, watch.events).build();
        // SAFETY: no memory; the op holds the descriptor through the watch's connection.
        unsafe { self.give(key, entry) };
        key
    }

    pub(super) fn submit_bell(&self) {
        let key = self.ops.borrow_mut().insert(Op::Bell);
        let fd = types::Fd(self.bell.fd().as_raw_fd());
        let entry = opcode::PollAdd::new(fd, libc::POLLIN as u32)
            .multi(true)
            .build();
        // SAFETY: no memory; the bell's descriptor is the core's and is closed after the ring.
        unsafe { self.kernel.push(entry.user_data(token::encode(key))) };
    }

    /// Asks the kernel to end an operation early. Its completion still comes, as `ECANCELED` or with
    /// what it managed before.
    pub(super) fn cancel(&self, key: Key) {
        let entry = opcode::AsyncCancel::new(token::encode(key))
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(NOBODY);
        // SAFETY: names an operation by number; a number that is gone is not found.
        unsafe { self.kernel.push(entry) };
    }

    /// Closes a descriptor no operation names any more.
    pub(super) fn close(&self, fd: OwnedFd) {
        let entry = opcode::Close::new(types::Fd(fd.into_raw_fd()))
            .build()
            .flags(Flags::SKIP_SUCCESS)
            .user_data(NOBODY);
        // SAFETY: no memory; the descriptor was owned and is given up to this operation. (The core
        // submits what is queued before it goes.)
        unsafe { self.kernel.push(entry) };
    }
}

/// Bounds a multishot receive in bytes (Linux 6.18: `sqe->optlen`), which the io-uring crate cannot
/// say yet.
pub(super) fn limit_recv(entry: &mut Entry, bytes: u32) {
    const OPTLEN_OFFSET: usize = 44;
    const _: () = assert!(size_of::<Entry>() == 64 && align_of::<Entry>() >= 4);
    let start: *mut u8 = std::ptr::from_mut(entry).cast();
    // SAFETY: an entry is a `repr(C)` io_uring_sqe of 64 bytes.
    let field = unsafe { start.add(OPTLEN_OFFSET) };
    // SAFETY: inside the entry, aligned to 4 (44 in an 8-aligned struct), borrowed mutably; this
    // union of the entry (splice_fd_in, file_index, optlen) is plain integers.
    unsafe { field.cast::<u32>().write(bytes) };
}

/// A send without a copy nobody waits for, to see whether the kernel takes it.
pub(super) fn probe_send_zc(socket: &OwnedFd) -> Entry {
    static BYTE: [u8; 1] = [0];
    opcode::SendZc::new(types::Fd(socket.as_raw_fd()), BYTE.as_ptr(), 1)
        .flags(libc::MSG_NOSIGNAL)
        .zc_flags(SEND_ZC_REPORT_USAGE)
        .build()
        .user_data(NOBODY)
}

/// A receive nobody waits for, to see whether the kernel takes it.
pub(super) fn probe_recv(socket: &OwnedFd, limit: bool) -> Entry {
    let fd = types::Fd(socket.as_raw_fd());
    let mut entry = opcode::RecvMulti::new(fd, Size::Heads as u16).build();
    if limit {
        limit_recv(&mut entry, 1);
    }
    entry.user_data(NOBODY)
}
