//! Receiving: a bounded multishot receive that fills the connection's queue.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::arena::Key;
use super::chunk::Chunk;
use super::conn::Conn;
use super::groups::{BULK_BLOCK_BYTES, HEADS_BLOCK_BYTES, Size};
use super::kernel::Completion;
use super::socket::Socket;
use crate::time::Mono;

/// What was received and not taken, and what the kernel is doing about more.
#[derive(Debug)]
pub(super) struct RecvSide {
    queue: VecDeque<Chunk>,
    /// Memory held by the queue.
    queued_cost: usize,
    armed: Option<Key>,
    /// A cancel of the armed receive is on its way.
    stopping: bool,
    /// In the group's list of those waiting for a buffer.
    paused: bool,
    end: End,
    /// When `end` became something else than open.
    ended_at: Mono,
    size: Size,
    /// Completions in a row that speak for the other size.
    streak: u8,
    /// Bytes the armed receive may still bring.
    left: u32,
    /// Somebody has asked once; from then on a receive is armed whenever the queue is empty, so
    /// that an idle connection's end is noticed while nobody waits.
    wanted: bool,
    waker: Option<Waker>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Open,
    Fin,
    Failed(i32),
}

/// Full 4 KiB buffers in a row after which a socket moves to bulk.
const BULK_STREAK: u8 = 4;
/// Small receives in a row after which it moves back.
const HEADS_STREAK: u8 = 8;
/// Up to this many bytes are copied behind the last queued chunk rather than hold a block alone.
const ABSORB_BYTES_MAX: usize = 1024;

impl Default for RecvSide {
    fn default() -> Self {
        Self {
            queue: VecDeque::new(),
            queued_cost: 0,
            armed: None,
            stopping: false,
            paused: false,
            end: End::Open,
            ended_at: Mono::NEVER,
            size: Size::Heads,
            streak: 0,
            left: 0,
            wanted: false,
            waker: None,
        }
    }
}

impl RecvSide {
    fn pop(&mut self) -> Option<io::Result<Chunk>> {
        if let Some(chunk) = self.queue.pop_front() {
            self.queued_cost -= chunk.cost();
            return Some(Ok(chunk));
        }
        match self.end {
            End::Open => None,
            End::Fin => Some(Ok(Chunk::empty())),
            End::Failed(errno) => Some(Err(io::Error::from_raw_os_error(errno))),
        }
    }

    /// Queues received bytes; tells whether the receive should stop.
    fn take_in(&mut self, chunk: Chunk, queued_max: usize) -> bool {
        self.left = self.left.saturating_sub(chunk.len() as u32);
        let change = self.judge(chunk.len() as u32);
        let absorbed = chunk.len() <= ABSORB_BYTES_MAX
            && self
                .queue
                .back_mut()
                .is_some_and(|last| last.append(&chunk));
        if !absorbed {
            self.queued_cost += chunk.cost();
            self.queue.push_back(chunk);
        }
        change || self.left == 0 || self.queued_cost >= queued_max
    }

    /// Chooses the size of buffers for the next receive; tells whether to change now.
    fn judge(&mut self, bytes: u32) -> bool {
        let (other, speaks_for_it, streak) = match self.size {
            Size::Heads => (Size::Bulk, bytes == HEADS_BLOCK_BYTES, BULK_STREAK),
            Size::Bulk => (Size::Heads, bytes <= HEADS_BLOCK_BYTES, HEADS_STREAK),
        };
        self.streak = if speaks_for_it { self.streak + 1 } else { 0 };
        if self.streak < streak {
            return false;
        }
        self.streak = 0;
        self.size = other;
        // To bulk with the next receive, which is at most 28 KiB away; back at once, since each
        // small message would go on taking 64 KiB.
        other == Size::Heads
    }
}

impl Conn {
    pub(super) fn try_recv(self: &Rc<Self>) -> Option<io::Result<Chunk>> {
        let mut side = self.recv.borrow_mut();
        let received = side.pop();
        self.keep_receiving(&mut side);
        received
    }

    fn poll_recv(self: &Rc<Self>, cx: &Context<'_>) -> Poll<io::Result<Chunk>> {
        let mut side = self.recv.borrow_mut();
        side.wanted = true;
        if let Some(received) = side.pop() {
            self.keep_receiving(&mut side);
            return Poll::Ready(received);
        }
        match &mut side.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => side.waker = Some(cx.waker().clone()),
        }
        self.keep_receiving(&mut side);
        Poll::Pending
    }

    /// When the peer's end, or a failure, was seen.
    pub(super) fn ended_at(&self) -> Option<Mono> {
        let side = self.recv.borrow();
        (side.end != End::Open).then_some(side.ended_at)
    }

    /// Starts a receive if one is wanted, possible and not there.
    fn keep_receiving(self: &Rc<Self>, side: &mut RecvSide) {
        let wanted = side.wanted && side.queue.is_empty() && side.end == End::Open;
        if wanted && side.armed.is_none() && !side.paused {
            side.left = self.core.group(side.size).recv_limit();
            #[cfg(test)]
            {
                side.left = self.core.faults.shorten_recv(side.left);
            }
            side.armed = Some(self.core.submit_recv(self, side.size, side.left));
        }
    }

    /// Stops receiving; ready when the kernel has. What it brought until then is in the queue.
    pub(super) fn poll_hold(self: &Rc<Self>, cx: &Context<'_>) -> Poll<()> {
        let mut side = self.recv.borrow_mut();
        side.wanted = false;
        self.leave_pause(&mut side);
        let Some(key) = side.armed else {
            return Poll::Ready(());
        };
        if !side.stopping {
            side.stopping = true;
            self.core.cancel(key);
        }
        match &mut side.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => side.waker = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn leave_pause(self: &Rc<Self>, side: &mut RecvSide) {
        if side.paused {
            side.paused = false;
            self.core.group(side.size).forget(self);
            self.core.group(side.other()).forget(self);
        }
    }

    /// Gives back the room of the queue, which a busy connection keeps.
    pub(super) fn slim(&self) {
        let mut side = self.recv.borrow_mut();
        if side.queue.is_empty() {
            side.queue = VecDeque::new();
        }
    }

    /// A buffer has come home: try again.
    pub(super) fn resume_recv(self: &Rc<Self>) {
        let mut side = self.recv.borrow_mut();
        side.paused = false;
        self.keep_receiving(&mut side);
    }

    /// A completion of the multishot receive.
    pub(super) fn received(self: &Rc<Self>, size: Size, done: Completion) {
        let chunk = self.core.filled(size, done);
        let mut side = self.recv.borrow_mut();
        if !done.more() {
            side.armed = None;
            side.stopping = false;
        }
        match done.result {
            1.. => {
                let queued_max = self.core.plan.recv_queued_bytes_max as usize;
                let enough = side.take_in(chunk, queued_max);
                if enough
                    && !side.stopping
                    && let Some(key) = side.armed
                {
                    // Where the kernel keeps the limit itself it is about to stop anyway.
                    let by_itself = side.left == 0 && self.core.picked().recv_limit;
                    if !by_itself {
                        side.stopping = true;
                        self.core.cancel(key);
                    }
                }
            }
            0 if self.is_ours_to_end() => side.end = End::Failed(libc::ECONNABORTED),
            0 => side.end = End::Fin,
            error => self.recv_failed(&mut side, size, -error),
        }
        if self.orphan.get() {
            side.clear();
            return;
        }
        let news = !side.queue.is_empty() || side.end != End::Open;
        let held = !side.wanted && side.armed.is_none();
        if news || held {
            let waker = side.waker.take();
            let ended = side.end != End::Open;
            if ended {
                side.ended_at = self.core.now();
            }
            drop(side);
            match waker {
                Some(waker) => waker.wake(),
                None if ended => self.core.ends.note(),
                None => {}
            }
        } else {
            // The receive may have ended without bringing anything.
            self.keep_receiving(&mut side);
        }
    }

    fn recv_failed(self: &Rc<Self>, side: &mut RecvSide, size: Size, errno: i32) {
        match errno {
            libc::ENOBUFS => {
                let group = self.core.group(size);
                if group.grow() || self.orphan.get() {
                    return;
                }
                if size == Size::Bulk && self.core.group(Size::Heads).may_lend() {
                    // Slow readers hold all of bulk: go on in small buffers rather than not at all.
                    side.size = Size::Heads;
                    side.streak = 0;
                } else {
                    side.paused = true;
                    group.pause(Rc::clone(self));
                }
            }
            // We stopped it, or a signal did.
            libc::ECANCELED | libc::EINTR | libc::EAGAIN => {}
            _ => side.end = End::Failed(errno),
        }
    }

    /// The socket is gone: nobody will take anything any more.
    pub(super) fn end_recv(self: &Rc<Self>) {
        let mut side = self.recv.borrow_mut();
        side.clear();
        self.leave_pause(&mut side);
        if let Some(key) = side.armed
            && !side.stopping
        {
            side.stopping = true;
            self.core.cancel(key);
        }
    }
}

impl RecvSide {
    fn clear(&mut self) {
        self.queue.clear();
        self.queued_cost = 0;
        self.waker = None;
    }

    fn other(&self) -> Size {
        match self.size {
            Size::Heads => Size::Bulk,
            Size::Bulk => Size::Heads,
        }
    }
}

const _: () = assert!(HEADS_BLOCK_BYTES < BULK_BLOCK_BYTES);

/// See [`Socket::recv`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Recv<'a>(pub(super) &'a Socket);

impl Future for Recv<'_> {
    type Output = io::Result<Chunk>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.conn.poll_recv(cx)
    }
}
