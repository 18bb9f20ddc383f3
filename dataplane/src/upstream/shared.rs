//! HTTP/2 connections: each carries the streams of many clients.
//!
//! A request joins the first connection to its endpoint that has room, or has a new one made. Whoever
//! joins one that is still being made waits for it: a burst of requests opens as many connections as
//! it needs, not as many as there are requests.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use h2::client::SendRequest;
use ringmesh_wire::SpiffeId;

use super::connect::{Dial, connect};
use super::stream::Stream;
use crate::http2::{KeepAlive, Piece, Pings, Wire, limits};
use crate::reason::Reason;
use crate::ring::{ByteStream as _, Ring};
use crate::tables::{Link, Seeded};
use crate::time::Mono;
use crate::tls::{Inner, Live, Sessions};

/// Connections of one shard to one endpoint: with their streams, more than it could serve.
const CONNS_PER_ENDPOINT_MAX: usize = 64;
/// Without a stream for so long a connection is closed, milliseconds. Below the idle time of the
/// usual servers and load balancers.
const IDLE_MAX_MS: u64 = 60_000;

/// All HTTP/2 connections of a shard.
#[derive(Debug, Default)]
pub struct SharedConns {
    by_link: HashMap<Link, Vec<Rc<SharedConn>>, Seeded>,
    pings: Pings,
}

impl SharedConns {
    /// None yet.
    #[must_use]
    pub fn new(pings: Pings) -> Self {
        Self {
            pings,
            ..Self::default()
        }
    }
}

struct SharedConn {
    link: Link,
    sni: Box<str>,
    state: RefCell<State>,
    /// Lanes on it, those that wait for it included.
    lanes: Cell<u32>,
    idle_since: Cell<Mono>,
    stream: OnceCell<Rc<Stream>>,
    /// The server's SETTINGS are here.
    introduced: Cell<bool>,
    /// At most as many as there are lanes.
    waiting: RefCell<Vec<Waker>>,
}

enum State {
    Connecting,
    Open(SendRequest<Piece>),
    Closed(Reason),
}

impl fmt::Debug for SharedConn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedConn")
            .field("link", &self.link)
            .field("lanes", &self.lanes)
            .finish_non_exhaustive()
    }
}

impl SharedConn {
    fn room(&self) -> u32 {
        let max = match &*self.state.borrow() {
            State::Connecting => limits::STREAMS_MAX,
            State::Open(sender) => u32::try_from(sender.current_max_send_streams())
                .unwrap_or(u32::MAX)
                .min(limits::STREAMS_MAX),
            State::Closed(_) => 0,
        };
        max.saturating_sub(self.lanes.get())
    }

    fn turn(&self, state: State) {
        *self.state.borrow_mut() = state;
        self.call();
    }

    fn call(&self) {
        for waker in self.waiting.take() {
            waker.wake();
        }
    }
}

/// A place for one stream on a connection.
#[derive(Debug)]
pub struct SharedLane {
    conn: Rc<SharedConn>,
    /// The connection was there before.
    pub reused: bool,
    ring: Ring,
}

impl Drop for SharedLane {
    fn drop(&mut self) {
        self.conn.lanes.set(self.conn.lanes.get().saturating_sub(1));
        self.conn.idle_since.set(self.ring.now());
    }
}

impl SharedLane {
    /// Where it leads.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.conn.link.address()
    }

    /// Who the server proved to be; `None` on plaintext.
    #[must_use]
    pub fn identity(&self) -> Option<&SpiffeId> {
        let peer = self.conn.stream.get()?.identity();
        peer.map(|peer| &peer.spiffe)
    }

    /// The connection's bytes, once it is made.
    #[must_use]
    pub fn stream(&self) -> Option<&Stream> {
        self.conn.stream.get().map(|stream| &**stream)
    }

    /// The connection, once it is made.
    ///
    /// # Errors
    /// Why it is not.
    pub async fn sender(&self) -> Result<SendRequest<Piece>, Reason> {
        poll_fn(|cx| match &*self.conn.state.borrow() {
            State::Open(sender) => Poll::Ready(Ok(sender.clone())),
            State::Closed(reason) => Poll::Ready(Err(*reason)),
            State::Connecting => self.wait(cx),
        })
        .await
    }

    /// Resolves when the server has said what it can do.
    ///
    /// # Errors
    /// Why it will not.
    pub async fn introduced(&self) -> Result<(), Reason> {
        poll_fn(|cx| match &*self.conn.state.borrow() {
            _ if self.conn.introduced.get() => Poll::Ready(Ok(())),
            State::Closed(reason) => Poll::Ready(Err(*reason)),
            State::Open(_) | State::Connecting => self.wait(cx),
        })
        .await
    }

    fn wait<T>(&self, cx: &Context<'_>) -> Poll<T> {
        let mut waiting = self.conn.waiting.borrow_mut();
        if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
            waiting.push(cx.waker().clone());
        }
        Poll::Pending
    }

    /// Nobody joins this connection any more; the streams on it go on.
    pub fn distrust(&self) {
        self.conn.turn(State::Closed(Reason::UpstreamReset));
    }
}

/// What [`join`] found.
#[derive(Debug)]
pub enum Joined {
    /// A place on a connection.
    Lane(SharedLane),
    /// A place on a connection that [`Making::make`] has to make.
    New(SharedLane, Making),
}

/// A connection that is to be made.
#[derive(Debug)]
pub struct Making {
    conns: Rc<RefCell<SharedConns>>,
    conn: Rc<SharedConn>,
}

/// A place on a connection to `link`; `fresh`: on a new one. `None`: there are too many.
#[must_use]
pub fn join(
    conns: &Rc<RefCell<SharedConns>>,
    ring: &Ring,
    link: Link,
    sni: &str,
    fresh: bool,
) -> Option<Joined> {
    let mut all = conns.borrow_mut();
    let list = all.by_link.entry(link).or_default();
    list.retain(|conn| !matches!(&*conn.state.borrow(), State::Closed(_)));
    let found = list
        .iter()
        .find(|conn| *conn.sni == *sni && conn.room() > 0);
    let lane = |conn: &Rc<SharedConn>, reused| {
        conn.lanes.set(conn.lanes.get() + 1);
        SharedLane {
            conn: Rc::clone(conn),
            reused,
            ring: ring.clone(),
        }
    };
    if let Some(conn) = found.filter(|_| !fresh) {
        return Some(Joined::Lane(lane(conn, true)));
    }
    if list.len() >= CONNS_PER_ENDPOINT_MAX {
        return None;
    }
    let conn = Rc::new(SharedConn {
        link,
        sni: sni.into(),
        state: RefCell::new(State::Connecting),
        lanes: Cell::new(0),
        idle_since: Cell::new(ring.now()),
        stream: OnceCell::new(),
        introduced: Cell::new(false),
        waiting: RefCell::default(),
    });
    list.push(Rc::clone(&conn));
    let making = Making {
        conns: Rc::clone(conns),
        conn: Rc::clone(&conn),
    };
    Some(Joined::New(lane(&conn, false), making))
}

impl Drop for Making {
    /// However it ended, nobody may wait for it or join it.
    fn drop(&mut self) {
        let is_open = !matches!(&*self.conn.state.borrow(), State::Closed(_));
        if is_open {
            self.conn.turn(State::Closed(Reason::UpstreamReset));
        }
        let mut all = self.conns.borrow_mut();
        if let Some(list) = all.by_link.get_mut(&self.conn.link) {
            list.retain(|conn| !Rc::ptr_eq(conn, &self.conn));
            if list.is_empty() {
                all.by_link.remove(&self.conn.link);
            }
        }
    }
}

impl Making {
    /// Connects, and carries the connection until nobody needs it or the server has enough.
    /// `among` and `accept` as for [`connect`].
    pub async fn make(
        self,
        ring: Ring,
        among: Box<[SocketAddr]>,
        material: Option<std::sync::Arc<crate::tls::TlsMaterial>>,
        sessions: Rc<Sessions>,
        live: Rc<Live>,
        deadline: Mono,
        accept: impl Fn(&SpiffeId) -> bool,
    ) {
        let conn = Rc::clone(&self.conn);
        let dial = Dial {
            link: conn.link,
            among: &among,
            sni: &conn.sni,
            alpn: Inner::Http2,
            material,
            sessions: &sessions,
            live: &live,
            speaks_at_once: true,
            deadline,
        };
        let stream = match connect(&ring, dial, accept).await {
            Ok(stream) => stream,
            Err(fault) => return conn.turn(State::Closed(fault.reason)),
        };
        let stream = Rc::new(stream);
        let _ = conn.stream.set(Rc::clone(&stream));
        let wire = Wire::to_server(&ring, stream);
        // Sends its settings and does not wait for the server's.
        let Ok((sender, connection)) = limits::client().handshake(wire.clone()).await else {
            return conn.turn(State::Closed(Reason::ConnectFailure));
        };
        conn.turn(State::Open(sender));
        let mut connection = pin!(connection);
        let asking = match conn.link {
            Link::Mesh(_) => connection.ping_pong(),
            Link::Plain(_) => None,
        };
        let pings = self.conns.borrow().pings;
        let mut alive = KeepAlive::new(&ring, pings, asking);
        let mut look = pin!(ring.sleep_until(ring.now().plus_ms(IDLE_MAX_MS)));
        poll_fn(|cx| {
            loop {
                let busy = conn.lanes.get() > 0;
                if alive.poll_gone(&wire, busy, ring.now(), cx).is_ready() {
                    // Nobody may join it, and who waits on it tries elsewhere.
                    conn.turn(State::Closed(Reason::UpstreamReset));
                    if let Some(stream) = conn.stream.get() {
                        stream.reset();
                    }
                    return Poll::Ready(());
                }
                if connection.as_mut().poll(cx).is_ready() {
                    // The last words, as far as the socket takes them.
                    let _ = wire.poll_push(cx);
                    return Poll::Ready(());
                }
                if let Poll::Ready(Err(_)) = wire.poll_push(cx) {
                    return Poll::Ready(());
                }
                if wire.is_flooded() {
                    conn.turn(State::Closed(Reason::UpstreamReset));
                    if let Some(stream) = conn.stream.get() {
                        stream.reset();
                    }
                    return Poll::Ready(());
                }
                // Whatever came first was SETTINGS, or the connection would be over.
                if !conn.introduced.get() && wire.has_begun() {
                    conn.introduced.set(true);
                    conn.call();
                }
                if look.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                let idle_until = match conn.lanes.get() {
                    0 => conn.idle_since.get().plus_ms(IDLE_MAX_MS),
                    _ => ring.now().plus_ms(IDLE_MAX_MS),
                };
                if idle_until <= ring.now() {
                    // Without a handle to it the connection says goodbye by itself.
                    conn.turn(State::Closed(Reason::IdleTimeout));
                    look.as_mut().reset(Mono::NEVER);
                } else {
                    look.as_mut().reset(idle_until);
                }
            }
        })
        .await;
    }
}
