//! Waiting until a socket can be read or written without blocking (one-shot IORING_OP_POLL_ADD).

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::arena::Key;
use super::conn::Conn;

/// One poll of a connection at a time, armed again as often as its owner likes. The operation in
/// flight holds it, and with it the connection.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) conn: Rc<Conn>,
    /// `POLLIN`, `POLLOUT` or 0; errors and hang-ups are always told.
    pub(super) events: u32,
    armed: Cell<Option<Key>>,
    /// What the last poll said, until it is taken.
    told: Cell<Option<i32>>,
    waker: RefCell<Option<Waker>>,
}

impl Watch {
    pub(super) fn new(conn: &Rc<Conn>, events: i16) -> Rc<Self> {
        Rc::new(Self {
            conn: Rc::clone(conn),
            events: u32::from(events.cast_unsigned()),
            armed: Cell::new(None),
            told: Cell::new(None),
            waker: RefCell::new(None),
        })
    }

    /// The events of a poll that ends now or later. An error of the poll itself (a signal, no
    /// memory) counts as "perhaps": the caller tries and is told EAGAIN at worst.
    pub(super) fn poll(self: &Rc<Self>, cx: &Context<'_>) -> Poll<i32> {
        if let Some(told) = self.told.take() {
            return Poll::Ready(told.max(0));
        }
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
        if self.armed.get().is_none() {
            self.armed.set(Some(self.conn.core.submit_poll(self)));
        }
        Poll::Pending
    }

    /// The completion of the poll in flight.
    pub(super) fn completed(&self, result: i32) {
        self.armed.set(None);
        self.told.set(Some(result));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// Nobody waits any more.
    pub(super) fn cancel(&self) {
        self.waker.take();
        if let Some(key) = self.armed.get() {
            self.conn.core.cancel(key);
        }
    }
}
