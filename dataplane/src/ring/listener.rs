//! A listening TCP socket: a multishot accept that fills a bounded queue.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::{Domain, Protocol, TcpKeepalive, Type};

use super::Ring;
use super::arena::Key;
use super::conn::Conn;
use super::core::Core;
use super::foreign::set_transparent;
use super::kernel::Completion;
use super::socket::Socket;

/// Accepted connections that may wait for [`Listener::accept`]; then the kernel's backlog fills.
const QUEUE_MAX: usize = 256;

/// A listening TCP socket. Dropping it stops listening.
#[derive(Debug)]
pub struct Listener {
    gate: Rc<Gate>,
    local: SocketAddr,
}

/// How to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListenOptions {
    /// Several shards listen on the same port and the kernel spreads connections over them.
    pub reuse_port: bool,
    /// Takes connections that are meant for other addresses (TPROXY). Needs CAP_NET_ADMIN.
    pub transparent: bool,
    /// Connections the kernel may hold before we accept them.
    pub backlog: u32,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            reuse_port: false,
            transparent: false,
            backlog: 4096,
        }
    }
}

/// The listening socket, shared with the accept in flight.
pub(super) struct Gate {
    socket: socket2::Socket,
    core: Rc<Core>,
    side: RefCell<AcceptSide>,
}

#[derive(Debug, Default)]
struct AcceptSide {
    queue: VecDeque<OwnedFd>,
    armed: Option<Key>,
    stopping: bool,
    failed: Option<i32>,
    waker: Option<Waker>,
    closed: bool,
}

/// Of a connection that is silent, seconds: the first probe, those behind it, and how many nobody answers
/// until it has failed: three minutes in all.
const PROBE_AFTER_S: u64 = 120;
const PROBE_EVERY_S: u64 = 15;
const PROBES: u32 = 4;

fn keep_alive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(Duration::from_secs(PROBE_AFTER_S))
        .with_interval(Duration::from_secs(PROBE_EVERY_S))
        .with_retries(PROBES)
}

impl Listener {
    /// Binds and listens. An IPv6 address takes IPv6 only. Accepted connections have Nagle's
    /// algorithm off and keep-alive probes on (the kernel copies both from the listener): a peer that lost
    /// its power or its way is found out though nothing is sent to it.
    ///
    /// # Errors
    /// What the system says of socket, bind and listen.
    pub fn bind(ring: &Ring, at: SocketAddr, options: &ListenOptions) -> io::Result<Self> {
        #[cfg(not(test))]
        let (socket, local) = Self::open(at, options)?;
        #[cfg(test)]
        let (socket, local) = match ring.network() {
            Some(network) => network.listen(at)?,
            None => Self::open(at, options)?,
        };
        let gate = Gate {
            socket,
            core: Rc::clone(&ring.core),
            side: RefCell::default(),
        };
        Ok(Self {
            gate: Rc::new(gate),
            local,
        })
    }

    /// A socket that listens, and where.
    fn open(at: SocketAddr, options: &ListenOptions) -> io::Result<(socket2::Socket, SocketAddr)> {
        let kind = Type::STREAM.cloexec();
        let socket = socket2::Socket::new(Domain::for_address(at), kind, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if at.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        if options.reuse_port {
            socket.set_reuse_port(true)?;
        }
        if options.transparent {
            set_transparent(&socket, at.is_ipv6())?;
        }
        socket.set_tcp_nodelay(true)?;
        socket.set_tcp_keepalive(&keep_alive())?;
        socket.bind(&at.into())?;
        socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
        let local = socket.local_addr()?.as_socket();
        Ok((socket, local.ok_or(io::ErrorKind::Unsupported)?))
    }

    /// The next connection.
    ///
    /// # Errors
    /// What accept says. Out of descriptors or memory goes away: wait before the next try.
    pub async fn accept(&self) -> io::Result<Socket> {
        self.gate.accept().await
    }

    /// A second handle to the same gate, for tests that accept from several places.
    #[cfg(test)]
    pub(super) fn again(&self) -> Rc<Gate> {
        Rc::clone(&self.gate)
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.gate.close();
    }
}

impl Gate {
    pub(super) fn raw(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    pub(super) async fn accept(self: &Rc<Self>) -> io::Result<Socket> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(self: &Rc<Self>, cx: &Context<'_>) -> Poll<io::Result<Socket>> {
        let mut side = self.side.borrow_mut();
        if let Some(fd) = side.queue.pop_front() {
            let conn = Conn::new(Rc::clone(&self.core), fd);
            return Poll::Ready(Ok(Socket::over(conn)));
        }
        if let Some(errno) = side.failed.take() {
            return Poll::Ready(Err(io::Error::from_raw_os_error(errno)));
        }
        side.waker = Some(cx.waker().clone());
        self.arm(&mut side);
        Poll::Pending
    }

    fn arm(self: &Rc<Self>, side: &mut AcceptSide) {
        if side.armed.is_none() {
            side.armed = Some(self.core.submit_accept(self));
        }
    }

    /// A completion of the multishot accept.
    pub(super) fn accepted(self: &Rc<Self>, done: Completion) {
        let mut side = self.side.borrow_mut();
        if !done.more() {
            side.armed = None;
            side.stopping = false;
        }
        match done.result {
            0.. => {
                // SAFETY: the kernel made this descriptor for us with this completion; nobody else
                // knows it.
                let fd = unsafe { OwnedFd::from_raw_fd(done.result) };
                if side.closed {
                    return self.core.close(fd);
                }
                side.queue.push_back(fd);
                if side.queue.len() >= QUEUE_MAX
                    && !side.stopping
                    && let Some(key) = side.armed
                {
                    side.stopping = true;
                    self.core.cancel(key);
                }
            }
            // We stopped it, or the peer left before it was accepted.
            error if [libc::ECANCELED, libc::ECONNABORTED, libc::EINTR].contains(&-error) => {}
            error => side.failed = Some(-error),
        }
        if !side.queue.is_empty() || side.failed.is_some() {
            let waker = side.waker.take();
            drop(side);
            if let Some(waker) = waker {
                waker.wake();
            }
        } else if side.waker.is_some() && !side.closed {
            self.arm(&mut side);
        }
    }

    fn close(&self) {
        #[cfg(test)]
        if let Some(network) = self.core.kernel.network() {
            network.unlisten(self.raw());
        }
        let mut side = self.side.borrow_mut();
        side.closed = true;
        side.waker = None;
        for unwanted in side.queue.drain(..) {
            self.core.close(unwanted);
        }
        if let Some(key) = side.armed
            && !side.stopping
        {
            side.stopping = true;
            self.core.cancel(key);
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("socket", &self.socket)
            .field("side", &self.side)
            .finish_non_exhaustive()
    }
}
