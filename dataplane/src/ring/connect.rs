//! Connecting.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use socket2::{Domain, Protocol, SockAddr, Type};

use super::arena::Key;
use super::conn::Conn;
use super::core::Core;
use super::foreign::bind_as;

/// A connection attempt. Owned by the operation until its completion, so the address stays where
/// the kernel reads it; the future only looks at it.
#[derive(Debug)]
pub(super) struct Connecting {
    pub(super) conn: Rc<Conn>,
    pub(super) to: SockAddr,
    outcome: Cell<Option<i32>>,
    waker: RefCell<Option<Waker>>,
}

impl Connecting {
    pub(super) fn completed(&self, result: i32) {
        self.outcome.set(Some(result));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Resolves to the connection; dropped before that, it gives up.
pub(super) struct Connect {
    connecting: Rc<Connecting>,
    key: Key,
}

impl Connect {
    pub(super) fn start(core: &Rc<Core>, to: SocketAddr) -> io::Result<Self> {
        Ok(Self::over(core, stream(to)?, to))
    }

    /// In a client's name.
    pub(super) fn start_as(
        core: &Rc<Core>,
        to: SocketAddr,
        client: IpAddr,
        mark: u32,
    ) -> io::Result<Self> {
        let socket = stream(to)?;
        bind_as(&socket, client, mark, &core.next_port)?;
        Ok(Self::over(core, socket, to))
    }

    fn over(core: &Rc<Core>, socket: socket2::Socket, to: SocketAddr) -> Self {
        let connecting = Rc::new(Connecting {
            conn: Conn::new(Rc::clone(core), socket.into()),
            to: to.into(),
            outcome: Cell::new(None),
            waker: RefCell::new(None),
        });
        let key = core.submit_connect(&connecting);
        Self { connecting, key }
    }
}

fn stream(to: SocketAddr) -> io::Result<socket2::Socket> {
    let kind = Type::STREAM.cloexec();
    let socket = socket2::Socket::new(Domain::for_address(to), kind, Some(Protocol::TCP))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket)
}

impl Future for Connect {
    type Output = io::Result<Rc<Conn>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.connecting.outcome.get() {
            None => {
                *self.connecting.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
            Some(0..) => Poll::Ready(Ok(Rc::clone(&self.connecting.conn))),
            Some(error) => Poll::Ready(Err(io::Error::from_raw_os_error(-error))),
        }
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        if self.connecting.outcome.get().is_none() {
            self.connecting.conn.core.cancel(self.key);
        }
    }
}
