//! The state of one TCP connection, shared by its [`Socket`](super::Socket) and the operations in
//! flight on it. The last of them to go closes the descriptor.

use std::cell::{Cell, OnceCell, RefCell};
use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use socket2::SockRef;

use super::core::Core;
use super::recv::RecvSide;
use super::send::SendSide;

/// One TCP connection.
pub(super) struct Conn {
    /// `None` only while it is being dropped.
    fd: Option<OwnedFd>,
    pub(super) core: Rc<Core>,
    pub(super) recv: RefCell<RecvSide>,
    pub(super) send: RefCell<SendSide>,
    /// No socket is left: what arrives is dropped, what was accepted still goes out.
    pub(super) orphan: Cell<bool>,
    /// Closing sends a reset.
    pub(super) reset: Cell<bool>,
    /// Sends without a copy were copied all the same: no more of them.
    pub(super) copies: Cell<bool>,
    /// Somebody else has ended it.
    cut: Cell<bool>,
    /// Directions that are spliced: with any the descriptor is non-blocking.
    pub(super) spliced: Cell<u8>,
    /// Boxed: most connections never need it, and an idle one is to be small.
    seldom: OnceCell<Box<Seldom>>,
    peer: OnceCell<SocketAddr>,
}

/// What few connections need.
#[derive(Default)]
struct Seldom {
    /// Bytes of buffers that sends without a copy have lent to the kernel.
    lent_bytes: Cell<usize>,
    /// Who waits for a cut.
    cut_waker: RefCell<Option<Waker>>,
}

impl Conn {
    pub(super) fn new(core: Rc<Core>, fd: OwnedFd) -> Rc<Self> {
        core.conns.set(core.conns.get() + 1);
        Rc::new(Self {
            fd: Some(fd),
            core,
            recv: RefCell::default(),
            send: RefCell::default(),
            orphan: Cell::new(false),
            reset: Cell::new(false),
            copies: Cell::new(false),
            cut: Cell::new(false),
            spliced: Cell::new(0),
            seldom: OnceCell::new(),
            peer: OnceCell::new(),
        })
    }

    /// The descriptor, for operations that hold this connection until they are done.
    pub(super) fn raw(&self) -> RawFd {
        self.as_fd().as_raw_fd()
    }

    /// For plain system calls that do not block.
    pub(super) fn sys(&self) -> SockRef<'_> {
        SockRef::from(self.fd.as_ref().expect("open until dropped"))
    }

    pub(super) fn peer(&self) -> Option<SocketAddr> {
        if let Some(peer) = self.peer.get() {
            return Some(*peer);
        }
        let peer = self.ask_peer()?;
        Some(*self.peer.get_or_init(|| peer))
    }

    /// Why the connection failed, after it did.
    pub(super) fn error(&self) -> io::Error {
        // Told already, to whoever looked first.
        self.take_error()
            .unwrap_or_else(|| io::ErrorKind::ConnectionReset.into())
    }

    /// From now on closing sends a reset and drops what was not sent.
    pub(super) fn reset(&self) {
        if !self.reset.replace(true) {
            self.reset_on_close();
            self.cancel_send();
            // Only the close resets, and makes the kernel let go of what was lent.
            self.let_go();
        }
    }

    /// A send failed, so the stream has a hole. Short of memory the connection itself lives: an end in order
    /// would make what went out look whole, so its close resets it, and whoever receives learns that it is
    /// over once what had arrived is taken.
    pub(super) fn abort(&self) {
        self.reset();
        // Says nothing to the peer.
        self.shut_down(Shutdown::Read);
    }

    /// Whether the end of what is received is our doing, and not the peer's.
    pub(super) fn is_ours_to_end(&self) -> bool {
        self.reset.get()
    }

    /// As [`reset`](Self::reset), and nothing more is received or sent from now on: the kernel completes
    /// what is in flight.
    pub(super) fn cut(&self) {
        self.reset();
        self.shut_down(Shutdown::Both);
        self.cut.set(true);
        if let Some(waker) = self.seldom.get().and_then(|seldom| seldom.cut_waker.take()) {
            waker.wake();
        }
    }

    /// Whether it was cut; otherwise the task is woken when it is.
    pub(super) fn poll_cut(&self, cx: &Context<'_>) -> Poll<()> {
        if self.cut.get() {
            return Poll::Ready(());
        }
        match &mut *self.seldom().cut_waker.borrow_mut() {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        Poll::Pending
    }

    fn seldom(&self) -> &Seldom {
        self.seldom.get_or_init(Box::default)
    }

    /// Bytes of buffers that sends without a copy have lent to the kernel.
    pub(super) fn lent_bytes(&self) -> usize {
        self.seldom
            .get()
            .map_or(0, |seldom| seldom.lent_bytes.get())
    }

    pub(super) fn set_lent_bytes(&self, bytes: usize) {
        self.seldom().lent_bytes.set(bytes);
    }

    /// The socket is dropped: stop receiving, finish sending, close.
    pub(super) fn orphan(self: &Rc<Self>) {
        self.orphan.set(true);
        self.end_recv();
        self.end_send();
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_ref().expect("open until dropped").as_fd()
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.core.conns.set(self.core.conns.get() - 1);
        if let Some(fd) = self.fd.take() {
            self.core.close(fd);
        }
    }
}

impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn")
            .field("fd", &self.fd)
            .field("orphan", &self.orphan.get())
            .finish_non_exhaustive()
    }
}
