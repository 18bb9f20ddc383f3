//! One TCP connection, as the rooms above see it.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::{Rc, Weak};
use std::time::Duration;

use socket2::{SockAddr, TcpKeepalive};

use super::Ring;
use super::chunk::Chunk;
use super::conn::Conn;
use super::connect::Connect;
use super::out::Out;
use super::recv::Recv;
use super::send::SendFut;
use crate::time::Mono;

/// One TCP connection. Dropping it closes the connection after the bytes accepted for sending have
/// gone out (bounded by [`linger_ms`](super::RingPlan::linger_ms), then a reset). As with any TCP
/// socket, closing while received bytes were not taken makes the kernel send a reset.
pub struct Socket {
    pub(super) conn: Rc<Conn>,
}

impl Socket {
    pub(super) fn over(conn: Rc<Conn>) -> Self {
        Self { conn }
    }

    /// Connects; dropping the future gives up. Bound it with a [`Sleep`](super::Sleep): the
    /// kernel's own patience is about two minutes.
    ///
    /// # Errors
    /// What the system says of socket and connect.
    pub async fn connect(ring: &Ring, to: SocketAddr) -> io::Result<Self> {
        Ok(Self::over(Connect::start(&ring.core, to)?.await?))
    }

    /// As [`connect`](Self::connect), coming from `client`, which may be another host's address, and with
    /// `mark` on every packet. The port is one that clients do not use. Needs CAP_NET_ADMIN.
    ///
    /// # Errors
    /// What the system says of socket, setsockopt, bind and connect.
    pub async fn connect_as(
        ring: &Ring,
        to: SocketAddr,
        client: IpAddr,
        mark: u32,
    ) -> io::Result<Self> {
        Ok(Self::over(
            Connect::start_as(&ring.core, to, client, mark)?.await?,
        ))
    }

    /// The next received bytes; an empty chunk is the peer's FIN, and stays it. Dropping the future
    /// loses none. At most [`recv_queued_bytes_max`](super::RingPlan::recv_queued_bytes_max) wait
    /// to be taken; then the peer is held back by TCP.
    pub fn recv(&self) -> Recv<'_> {
        Recv(self)
    }

    /// Received bytes if there are any, without waiting. Does not start receiving; but once
    /// [`recv`](Self::recv) was polled, the end of an idle connection shows up here.
    #[must_use]
    pub fn try_recv(&self) -> Option<io::Result<Chunk>> {
        self.conn.try_recv()
    }

    /// Gives back memory that only a busy connection needs. For one that has been idle for a while: the next
    /// bytes take it anew.
    pub fn slim(&self) {
        self.conn.slim();
    }

    /// When the peer's end, or a failure, was seen, whether or not it was taken.
    #[must_use]
    pub fn ended_at(&self) -> Option<Mono> {
        self.conn.ended_at()
    }

    /// Stops receiving until [`recv`](Self::recv) is called again; bytes then stay with the kernel.
    /// What was received before is there for [`try_recv`](Self::try_recv).
    pub async fn hold(&self) {
        poll_fn(|cx| self.conn.poll_hold(cx)).await;
    }

    /// Resolves when `out` is *accepted*: the previous send is done and this one submitted. An error
    /// of an earlier send surfaces here or in [`flush`](Self::flush). Dropped before that, nothing
    /// of `out` is sent. One task at a time may wait to send.
    pub fn send(&self, out: Out) -> SendFut<'_> {
        SendFut {
            socket: self,
            out,
            last: false,
        }
    }

    /// As [`send`](Self::send) and [`shutdown_write`](Self::shutdown_write) in one: the FIN goes with
    /// the last bytes, in one segment where they fit.
    pub fn send_last(&self, out: Out) -> SendFut<'_> {
        SendFut {
            socket: self,
            out,
            last: true,
        }
    }

    /// Resolves when every accepted byte was handed to the kernel.
    ///
    /// # Errors
    /// That of the send that failed; the connection takes no more.
    pub async fn flush(&self) -> io::Result<()> {
        poll_fn(|cx| self.conn.poll_flush(cx)).await
    }

    /// FIN after what was accepted; sending more is an error.
    pub fn shutdown_write(&self) {
        self.conn.shutdown_write();
    }

    /// The peer will see a reset when this socket is dropped; what was accepted may be lost.
    pub fn reset(&self) {
        self.conn.reset();
    }

    /// From now on the connection fails when the peer's host has been silent for `give_up_ms`: it acknowledges
    /// nothing of what was sent, or holds its window shut for as long, or, where nothing is under way, answers no
    /// probe after `probe_ms` (whole seconds, at least one). The kernel's timers (TCP_USER_TIMEOUT,
    /// SO_KEEPALIVE): nobody is woken, and the peer's program sees nothing of it.
    pub fn give_up_silent(&self, probe_ms: u64, give_up_ms: u64) {
        let seconds = |ms| Duration::from_millis(ms).max(Duration::from_secs(1));
        let probes = TcpKeepalive::new()
            .with_time(seconds(probe_ms))
            .with_interval(seconds(give_up_ms.saturating_sub(probe_ms)));
        let sys = self.conn.sys();
        // Fails only on a socket that is gone already.
        let _ = sys.set_tcp_keepalive(&probes);
        let _ = sys.set_tcp_user_timeout(Some(Duration::from_millis(give_up_ms)));
    }

    /// Resolves when a [`Cutter`] has ended the connection, also while nothing is received or sent on it.
    pub async fn cut(&self) {
        poll_fn(|cx| self.conn.poll_cut(cx)).await;
    }

    /// For ending the connection from elsewhere, whoever holds the socket by then.
    #[must_use]
    pub fn cutter(&self) -> Cutter {
        Cutter(Rc::downgrade(&self.conn))
    }

    /// The other end; `0.0.0.0:0` if it is gone already.
    #[must_use]
    pub fn peer_addr(&self) -> SocketAddr {
        self.conn.peer().unwrap_or(UNKNOWN)
    }

    /// Our end.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.conn.ask_local().unwrap_or(UNKNOWN)
    }

    /// Where a redirected connection was meant to go (SO_ORIGINAL_DST); `None` if it came straight
    /// to us. `listener` is the address it was accepted at: our end of it, unless that is a wildcard.
    #[must_use]
    pub fn original_dst(&self, listener: SocketAddr) -> Option<SocketAddr> {
        let local = match listener.ip().is_unspecified() {
            true => self.local_addr(),
            false => listener,
        };
        let sys = self.conn.sys();
        let meant = match local {
            SocketAddr::V4(_) => sys.original_dst_v4(),
            SocketAddr::V6(_) => sys.original_dst_v6(),
        };
        let meant = meant.ok().as_ref().and_then(SockAddr::as_socket)?;
        (meant.ip() != local.ip() || meant.port() != local.port()).then_some(meant)
    }

    /// As [`original_dst`](Self::original_dst), at a listener that is transparent
    /// ([`ListenOptions::transparent`](super::ListenOptions)): our end is what was meant, unless the
    /// connection came to the listener itself, redirected or not.
    #[must_use]
    pub fn tproxied_dst(&self, listener: SocketAddr) -> Option<SocketAddr> {
        let meant = self.local_addr();
        match meant.port() == listener.port() {
            true => self.original_dst(listener),
            false => Some(meant),
        }
    }

    /// Acknowledges what has arrived now, not up to 40 ms later: a peer with Nagle's algorithm on may
    /// hold back what it has until then. One system call; worth it only where that is likely.
    pub fn ack_now(&self) {
        // A connection that cannot is over, which the next `recv` says.
        let _ = self.conn.sys().set_tcp_quickack(true);
    }

    /// Switches Nagle's algorithm; off (`true`) for every socket the ring makes.
    ///
    /// # Errors
    /// What setsockopt says.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.conn.sys().set_tcp_nodelay(on)
    }
}

const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Ends a connection that somebody else holds; does not keep it alive.
#[derive(Debug, Clone)]
pub struct Cutter(Weak<Conn>);

impl Cutter {
    /// Ends the connection in both directions, now: whoever receives on it sees its end, whoever sends
    /// an error, and the peer a reset when it is dropped. Nothing if it is gone already.
    pub fn cut(&self) {
        if let Some(conn) = self.0.upgrade() {
            conn.cut();
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.conn.orphan();
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.conn.fmt(f)
    }
}
