//! Sending: one gathered send in flight per connection, detached from whoever asked for it.

use std::future::Future;
use std::io;
use std::net::Shutdown;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::arena::Key;
use super::conn::Conn;
use super::core::Core;
use super::in_flight::Op;
use super::lent;
use super::loan::Loan;
use super::out::Out;
use super::socket::Socket;

/// A send of no more than this has room in the buffer of any socket that had taken all before.
const SHORT_BYTES_MAX: usize = 16 * 1024;

/// What is on its way out.
#[derive(Debug)]
pub(super) struct SendSide {
    in_flight: Option<Key>,
    /// Errno of a send that failed; none after it is tried.
    failed: Option<i32>,
    /// No more will be accepted; the FIN goes after what was.
    fin: bool,
    /// The last send was done as soon as the kernel had it: there was room in the socket's buffer.
    prompt: bool,
    /// The turn in which the send in flight was counted as one whose end is no reason to wake up.
    counted_in: Option<NonZeroU32>,
    waker: Option<Waker>,
    /// Timer that gives up on a send whose socket is gone.
    linger: Option<Key>,
    /// The connection itself, where its socket is gone and bytes are still lent: no operation holds it then.
    kept: Option<Rc<Conn>>,
}

impl Default for SendSide {
    fn default() -> Self {
        Self {
            in_flight: None,
            failed: None,
            fin: false,
            prompt: true,
            counted_in: None,
            waker: None,
            linger: None,
            kept: None,
        }
    }
}

impl SendSide {
    /// Somebody waits for the end of the send in flight: it is a reason to wake up after all.
    fn awaited(&mut self, core: &Core) {
        if let Some(turn) = self.counted_in.take()
            && turn == core.turn_number()
        {
            core.expect_news();
        }
    }

    /// Whether a send may start: an error, or the wait for the one in flight.
    fn poll_free(&mut self, core: &Core, cx: &Context<'_>) -> Poll<io::Result<()>> {
        if let Some(errno) = self.failed {
            return Poll::Ready(Err(io::Error::from_raw_os_error(errno)));
        }
        if self.in_flight.is_none() {
            return Poll::Ready(Ok(()));
        }
        match &mut self.waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => self.waker = Some(cx.waker().clone()),
        }
        self.awaited(core);
        Poll::Pending
    }
}

impl Conn {
    fn poll_send(
        self: &Rc<Self>,
        out: &mut Out,
        last: bool,
        cx: &Context<'_>,
    ) -> Poll<io::Result<()>> {
        let mut side = self.send.borrow_mut();
        let free = side.poll_free(&self.core, cx);
        if !matches!(free, Poll::Ready(Ok(()))) || out.is_empty() {
            return free;
        }
        if side.fin {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let mut loan = self.core.loan();
        loan.load(std::mem::take(out), last);
        side.fin = last;
        side.in_flight = Some(self.core.submit_send(self, loan));
        // The FIN waits for its end.
        side.counted_in = (side.prompt && !last).then(|| self.core.expect_no_news());
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_flush(&self, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.send.borrow_mut().poll_free(&self.core, cx)
    }

    fn sends_at_once(&self) -> bool {
        let side = self.send.borrow();
        let Some(key) = side.in_flight else {
            return side.failed.is_none();
        };
        let is_short = match self.core.ops.borrow().get(key) {
            Some(Op::Send(_, loan)) => loan.left() <= SHORT_BYTES_MAX,
            _ => false,
        };
        side.prompt && is_short
    }

    /// The send in flight is done, well or badly, or a part of it, and the kernel has no more to do with its
    /// bytes.
    pub(super) fn sent(self: &Rc<Self>, mut loan: Box<Loan>, result: i32) {
        debug_assert!(
            result <= 0 || loan.lent_bytes() == 0,
            "what was taken without a copy is lent until its notification"
        );
        let prompt = loan.is_of(self.core.turn_number());
        let go_on = match result {
            // MSG_WAITALL makes a short send rare: only a signal or memory pressure causes it.
            1.. => !loan.advance(result as usize),
            _ => loan.lent_bytes() > 0 && self.refused_without_copy(&mut loan, result),
        };
        let rest = if go_on {
            Some(loan)
        } else {
            self.core.take_back(loan);
            None
        };
        self.send_ended(prompt, result, rest);
    }

    /// A send without a copy did not begin; tells whether to try with one.
    fn refused_without_copy(&self, loan: &mut Loan, result: i32) -> bool {
        let bytes = loan.copy_after_all();
        self.set_lent_bytes(self.lent_bytes() - bytes);
        self.core.zero_copy.give_back(bytes);
        let again = lent::wants_a_copy(result);
        if again {
            self.copies.set(true);
            self.core.note_copied(true);
        }
        again
    }

    /// The stream is free for the next send, or for the rest of this one.
    pub(super) fn send_ended(self: &Rc<Self>, prompt: bool, result: i32, rest: Option<Box<Loan>>) {
        let mut side = self.send.borrow_mut();
        side.in_flight = None;
        side.prompt = prompt;
        match rest {
            Some(rest) if !self.reset.get() => {
                side.prompt = false;
                side.counted_in = None;
                side.in_flight = Some(self.core.submit_send(self, rest));
                return;
            }
            Some(rest) => self.core.take_back(rest),
            None => match result {
                1.. => {}
                0 => side.failed = Some(libc::EPIPE),
                _ => side.failed = Some(-result),
            },
        }
        if side.failed.is_some() {
            drop(side);
            self.abort();
            side = self.send.borrow_mut();
        } else if side.fin && (!self.orphan.get() || self.lent_bytes() > 0) {
            // Without a socket the close, which is next, says it.
            self.send_fin();
        }
        if let Some(timer) = side.linger {
            if self.lent_bytes() > 0 && !self.reset.get() {
                self.part(&mut side);
            } else {
                side.linger = None;
                self.core.forget_timer(timer);
            }
        }
        let waker = side.waker.take();
        drop(side);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) fn shutdown_write(&self) {
        let mut side = self.send.borrow_mut();
        side.awaited(&self.core);
        if !std::mem::replace(&mut side.fin, true) && side.in_flight.is_none() {
            self.send_fin();
        }
    }

    fn send_fin(&self) {
        // A plain call: on TCP it does not block, and the ring's own shutdown is always handed to a
        // worker thread.
        self.shut_down(Shutdown::Write);
    }

    pub(super) fn cancel_send(&self) {
        if let Some(key) = self.send.borrow().in_flight {
            self.core.cancel(key);
        }
    }

    /// The socket is gone: what was accepted still goes out, for a bounded time.
    pub(super) fn end_send(self: &Rc<Self>) {
        let mut side = self.send.borrow_mut();
        side.waker = None;
        // The descriptor closes after it.
        side.awaited(&self.core);
        if self.reset.get() {
            return;
        }
        if side.in_flight.is_some() {
            side.linger = Some(self.core.linger(self));
        } else if self.lent_bytes() > 0 {
            self.part(&mut side);
        }
    }

    /// The socket is gone, the kernel has taken all and still reads it: the peer hears of the end, and the
    /// descriptor stays until it has the bytes or the time to linger is over.
    fn part(self: &Rc<Self>, side: &mut SendSide) {
        if !std::mem::replace(&mut side.fin, true) {
            self.send_fin();
        }
        if side.linger.is_none() {
            side.linger = Some(self.core.linger(self));
        }
        side.kept = Some(Rc::clone(self));
    }

    /// Some of what was lent is back.
    pub(super) fn given_back(&self, bytes: usize) {
        let left = self.lent_bytes() - bytes;
        self.set_lent_bytes(left);
        if left == 0 {
            self.let_go();
        }
    }

    /// Waits no longer for what is lent: the descriptor closes as soon as nothing else holds it.
    pub(super) fn let_go(&self) {
        let mut side = self.send.borrow_mut();
        let Some(kept) = side.kept.take() else { return };
        let timer = side.linger.take();
        drop(side);
        if let Some(timer) = timer {
            self.core.forget_timer(timer);
        }
        // Perhaps the last but the caller's own.
        drop(kept);
    }

    /// The time to linger is over.
    pub(super) fn give_up_sending(&self) {
        self.send.borrow_mut().linger = None;
        self.reset();
    }
}

impl Socket {
    /// Whether the kernel has all that was accepted, or takes it at once by all experience: it took the send
    /// before at once, and this one is short. Then the socket may be dropped without anybody being cut off.
    #[must_use]
    pub fn sends_at_once(&self) -> bool {
        self.conn.sends_at_once()
    }

    /// As [`send`](Self::send), for those who are polled themselves: `out` is taken when it is
    /// accepted, and stays as it is until then. An empty one asks whether a send could start.
    ///
    /// # Errors
    /// As `send`.
    pub fn poll_send(&self, out: &mut Out, cx: &Context<'_>) -> Poll<io::Result<()>> {
        self.conn.poll_send(out, false, cx)
    }
}

/// See [`Socket::send`].
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct SendFut<'a> {
    pub(super) socket: &'a Socket,
    pub(super) out: Out,
    pub(super) last: bool,
}

impl Future for SendFut<'_> {
    type Output = io::Result<()>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.socket.conn.poll_send(&mut this.out, this.last, cx)
    }
}
