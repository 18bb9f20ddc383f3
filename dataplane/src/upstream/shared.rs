//! HTTP/2 connections: each carries the streams of many clients.
//!
//! A request joins the first connection to its endpoint that has room, or has a new one made. Whoever
//! joins one that is still being made waits for it: a burst of requests opens as many connections as
//! it needs, not as many as there are requests.
//!
//! A connection *retires* when it has carried as many streams as a rule allows, or when its place in the
//! count of its cluster is needed elsewhere: nobody joins it any more, and it ends with its last stream. So
//! does one on which a request was given up while the server said nothing at all.
//!
//! A server that has vanished is found out: another sidecar by PING ([`Pings`]), any other in the same time by
//! the kernel ([`Socket::give_up_silent`](crate::ring::Socket::give_up_silent)).

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
use super::lines::Opened;
use super::stream::Stream;
use crate::budget::Budget;
use crate::http2::{Account, KeepAlive, Piece, Pings, Wire, limits};
use crate::reason::Reason;
use crate::ring::{ByteStream as _, Ring, Socket};
use crate::tables::{ClusterKey, Link, Seeded};
use crate::time::Mono;
use crate::tls::{Inner, Live, Sessions};

/// Connections of one shard to one endpoint, retired ones included: more than it could serve, even where
/// each carries one stream only.
const CONNS_PER_ENDPOINT_MAX: usize = 1_024;
/// Clients, each with connections in its name to the local app, whose connections wait for their next
/// stream. Those of further ones end with their last stream.
const CLIENTS_KEPT_MAX: usize = 1_024;
/// Without a stream for so long a connection is closed, milliseconds. Below the idle time of the
/// usual servers and load balancers.
const IDLE_MAX_MS: u64 = 60_000;
/// A server gets so long to take the goodbye of a connection that has no stream, milliseconds.
const GOODBYE_MAX_MS: u64 = 1_000;
/// On a connection that a request was sent on, and then heard nothing of its server for so long, milliseconds:
/// if a stream is given up, nobody joins it any more. Many round trips; and a server that is merely slow, asked
/// with short timeouts, has us make a connection a second, not one for each request.
const SILENT_MS: u64 = 1_000;
/// A retired connection that has not ended after so long, milliseconds, does not keep another from being
/// retired: its streams may go on for hours.
const RETIRED_LONG_MS: u64 = 1_000;

/// All HTTP/2 connections of a shard.
#[derive(Debug)]
pub struct SharedConns {
    by_link: HashMap<Link, Vec<Rc<SharedConn>>, Seeded>,
    pings: Pings,
    budget: Rc<Budget>,
}

impl SharedConns {
    /// None yet.
    #[must_use]
    pub fn new(pings: Pings, budget: Rc<Budget>) -> Self {
        Self {
            by_link: HashMap::default(),
            pings,
            budget,
        }
    }

    /// Ends the connection of a cluster that has been without a stream for longest. Its place in the count
    /// is free when it has ended. False: there is none.
    pub fn evict(&self, owner: &ClusterKey) -> bool {
        let idle = (self.owned(owner)).filter(|conn| conn.is_open() && conn.lanes.get() == 0);
        let Some(oldest) = idle.min_by_key(|conn| conn.idle_since.get()) else {
            return false;
        };
        oldest.turn(State::Closed(Reason::IdleTimeout));
        true
    }

    /// Retires a connection of a cluster all of which are in use, the one with the fewest streams, unless
    /// one is ending already.
    pub fn retire(&self, owner: &ClusterKey, now: Mono) {
        let mut ending = self.owned(owner).filter_map(|conn| conn.ending_since());
        if ending.any(|since| now < since.plus_ms(RETIRED_LONG_MS)) {
            return;
        }
        let open =
            (self.owned(owner)).filter(|conn| conn.is_open() && conn.ending_since().is_none());
        if let Some(conn) = open.min_by_key(|conn| conn.lanes.get()) {
            conn.retire(now);
            conn.end_if_unused();
        }
    }

    /// Whether a connection stands, or is being made, that this would join if it had room.
    #[must_use]
    pub fn has(&self, wanted: &Sought<'_>) -> bool {
        let mut all = self.by_link.get(&wanted.link).into_iter().flatten();
        all.any(|conn| conn.is_sought(wanted) && conn.ending_since().is_none())
    }

    fn owned(&self, owner: &ClusterKey) -> impl Iterator<Item = &Rc<SharedConn>> {
        let all = self.by_link.values().flatten();
        all.filter(move |conn| conn.owner.as_ref() == Some(owner))
    }
}

/// The connection a request wants.
#[derive(Debug, Clone, Copy)]
pub struct Sought<'a> {
    /// Where and how.
    pub link: Link,
    /// SNI; empty for plaintext.
    pub sni: &'a str,
    /// The cluster that counts its connections. Where none does, clusters share.
    pub owner: Option<&'a ClusterKey>,
    /// Streams on one connection before it ends; at least 1.
    pub streams_max: u32,
}

struct SharedConn {
    link: Link,
    sni: Box<str>,
    owner: Option<ClusterKey>,
    /// Its place in the count of its owner, as long as its socket stands.
    opened: Option<Opened>,
    state: RefCell<State>,
    /// Lanes on it, those that wait for it included.
    lanes: Cell<u32>,
    /// Lanes there ever were.
    begun: Cell<u32>,
    /// Since when nobody joins it any more; it ends with its last lane.
    retired: Cell<Option<Mono>>,
    idle_since: Cell<Mono>,
    /// When the server was heard last.
    heard_at: Cell<Mono>,
    /// A request was given up while the server said nothing: nobody joins it until the server does.
    doubted: Cell<bool>,
    /// When the first request was sent that it has said nothing since.
    waits_from: Cell<Mono>,
    stream: OnceCell<Rc<Stream>>,
    account: Rc<Account>,
    /// The server's SETTINGS are here.
    introduced: Cell<bool>,
    /// The server said something else first: nothing it says counts.
    misbegun: Cell<bool>,
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
    fn is_sought(&self, wanted: &Sought<'_>) -> bool {
        *self.sni == *wanted.sni && self.owner.as_ref() == wanted.owner
    }

    fn is_open(&self) -> bool {
        matches!(&*self.state.borrow(), State::Open(_))
    }

    fn is_closed(&self) -> bool {
        matches!(&*self.state.borrow(), State::Closed(_))
    }

    fn retire(&self, now: Mono) {
        if self.retired.get().is_none() {
            self.retired.set(Some(now));
        }
    }

    /// Since when nobody joins it any more.
    fn ending_since(&self) -> Option<Mono> {
        let closed = self.is_closed().then(|| self.idle_since.get());
        self.retired.get().or(closed)
    }

    fn room(&self) -> u32 {
        match self.retired.get().is_some() || self.doubted.get() {
            true => 0,
            false => self.streams_max().saturating_sub(self.lanes.get()),
        }
    }

    /// Streams at once, as far as is known.
    fn streams_max(&self) -> u32 {
        match &*self.state.borrow() {
            State::Connecting => limits::STREAMS_MAX,
            State::Open(sender) => u32::try_from(sender.current_max_send_streams())
                .unwrap_or(u32::MAX)
                .min(limits::STREAMS_MAX),
            State::Closed(_) => 0,
        }
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

    /// One lane more.
    fn join(self: &Rc<Self>, ring: &Ring, streams_max: u32, reused: bool) -> SharedLane {
        self.lanes.set(self.lanes.get() + 1);
        self.begun.set(self.begun.get().saturating_add(1));
        if self.heard_at.get() > self.waits_from.get() {
            self.waits_from.set(ring.now());
        }
        if self.begun.get() >= streams_max {
            self.retire(ring.now());
        }
        SharedLane {
            conn: Rc::clone(self),
            reused,
            ring: ring.clone(),
        }
    }

    /// Whether nothing was heard since the first of the requests that wait was sent, and that is a while ago.
    fn is_silent(&self, now: Mono) -> bool {
        let since = self.waits_from.get();
        self.is_open() && self.heard_at.get() <= since && now >= since.plus_ms(SILENT_MS)
    }

    /// Ends a retired connection that has no lane any more: without a handle to it `h2` says goodbye.
    fn end_if_unused(&self) {
        if self.retired.get().is_some() && self.lanes.get() == 0 && self.is_open() {
            self.turn(State::Closed(Reason::IdleTimeout));
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
        let now = self.ring.now();
        self.conn.idle_since.set(now);
        // Given up, as nothing has come; it may be that nothing will.
        if self.conn.is_silent(now) {
            match self.conn.lanes.get() {
                0 => self.conn.retire(now),
                _ => self.conn.doubted.set(true),
            }
        }
        self.conn.end_if_unused();
        // There is room for a stream, or the connection lies idle.
        if let Some(opened) = &self.conn.opened {
            opened.call();
        }
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

    /// What the connection makes the shard keep.
    #[must_use]
    pub fn account(&self) -> &Rc<Account> {
        &self.conn.account
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

    /// Whether the server has said what it can do.
    #[must_use]
    pub fn is_introduced(&self) -> bool {
        self.conn.introduced.get()
    }

    /// Whether there are more lanes than the server takes streams: this one is to be given up then.
    #[must_use]
    pub fn is_one_too_many(&self) -> bool {
        self.conn.lanes.get() > self.conn.streams_max()
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

    /// Whether the server began with anything but its SETTINGS (RFC 9113 section 3.4).
    #[must_use]
    pub fn is_misbegun(&self) -> bool {
        self.conn.misbegun.get()
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

/// A connection that is to be made.
#[derive(Debug)]
pub struct Making {
    conns: Rc<RefCell<SharedConns>>,
    conn: Rc<SharedConn>,
}

/// A place on a connection that stands; unless `only_open`, also on one that is being made.
#[must_use]
pub fn join(
    conns: &RefCell<SharedConns>,
    ring: &Ring,
    wanted: &Sought<'_>,
    only_open: bool,
) -> Option<SharedLane> {
    let all = conns.borrow();
    let mut list = all.by_link.get(&wanted.link)?.iter();
    let found = list
        .find(|conn| conn.is_sought(wanted) && conn.room() > 0 && (conn.is_open() || !only_open))?;
    Some(found.join(ring, wanted.streams_max, true))
}

/// A place on a connection that [`Making::make`] has to make. `opened`: its place in the count of its
/// owner. `None`: there are too many.
#[must_use]
pub fn begin(
    conns: &Rc<RefCell<SharedConns>>,
    ring: &Ring,
    wanted: &Sought<'_>,
    opened: Option<Opened>,
) -> Option<(SharedLane, Making)> {
    let mut all = conns.borrow_mut();
    let all = &mut *all;
    let is_client = matches!(wanted.link, Link::Client { .. });
    let streams_max = match is_client && all.by_link.len() >= CLIENTS_KEPT_MAX {
        true => 1,
        false => wanted.streams_max,
    };
    let list = all.by_link.entry(wanted.link).or_default();
    if list.len() >= CONNS_PER_ENDPOINT_MAX {
        return None;
    }
    let conn = Rc::new(SharedConn {
        link: wanted.link,
        sni: wanted.sni.into(),
        owner: wanted.owner.cloned(),
        opened,
        state: RefCell::new(State::Connecting),
        lanes: Cell::new(0),
        begun: Cell::new(0),
        retired: Cell::new(None),
        idle_since: Cell::new(ring.now()),
        heard_at: Cell::default(),
        doubted: Cell::new(false),
        waits_from: Cell::default(),
        stream: OnceCell::new(),
        account: Account::of_server(&all.budget),
        introduced: Cell::new(false),
        misbegun: Cell::new(false),
        waiting: RefCell::default(),
    });
    list.push(Rc::clone(&conn));
    let lane = conn.join(ring, streams_max, false);
    let making = Making {
        conns: Rc::clone(conns),
        conn,
    };
    Some((lane, making))
}

impl Drop for Making {
    /// However it ended, nobody may wait for it or join it.
    fn drop(&mut self) {
        if !self.conn.is_closed() {
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
        let pings = self.conns.borrow().pings;
        // Not an app of this host: it does not vanish without its kernel closing its sockets, and may take its
        // time to read.
        let is_here = |socket: &Socket| socket.local_addr().ip() == socket.peer_addr().ip();
        if let (Link::Plain(_), Stream::Plain(socket)) = (conn.link, &stream)
            && !is_here(socket)
        {
            socket.give_up_silent(pings.interval_ms, pings.interval_ms + pings.timeout_ms);
        }
        let stream = Rc::new(stream);
        let _ = conn.stream.set(Rc::clone(&stream));
        let wire = Wire::to_server(&ring, stream, &conn.account);
        // Sends its settings and does not wait for the server's.
        let Ok((sender, connection)) = limits::client().handshake(wire.clone()).await else {
            return conn.turn(State::Closed(Reason::ConnectFailure));
        };
        let opened_at = ring.now();
        conn.waits_from.set(opened_at);
        conn.turn(State::Open(sender));
        // Whoever wanted it may have given up.
        conn.end_if_unused();
        let mut connection = pin!(connection);
        let asking = match conn.link {
            Link::Mesh(_) => connection.ping_pong(),
            Link::Plain(_) | Link::Client { .. } => None,
        };
        let mut alive = KeepAlive::new(&ring, pings, asking);
        let mut look = pin!(ring.sleep_until(ring.now().plus_ms(IDLE_MAX_MS)));
        let mut leaving = false;
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
                if wire.is_flooded() || wire.is_misbegun() || wire.is_overdrawn() {
                    conn.misbegun.set(wire.is_misbegun());
                    conn.turn(State::Closed(Reason::UpstreamReset));
                    if let Some(stream) = conn.stream.get() {
                        stream.reset();
                    }
                    return Poll::Ready(());
                }
                if wire.is_leaving() && conn.retired.get().is_none() {
                    // Who would join it now was refused by the h2 crate, for each a try.
                    conn.retire(ring.now());
                    conn.end_if_unused();
                }
                if wire.last_received() > opened_at {
                    conn.heard_at.set(wire.last_received());
                    if conn.doubted.get() && !conn.is_silent(ring.now()) {
                        conn.doubted.set(false);
                        if let Some(opened) = &conn.opened {
                            opened.call();
                        }
                    }
                }
                if !conn.introduced.get() && wire.has_begun() {
                    conn.introduced.set(true);
                    conn.call();
                }
                if !leaving && conn.is_closed() && conn.lanes.get() == 0 {
                    leaving = true;
                    look.as_mut().reset(ring.now().plus_ms(GOODBYE_MAX_MS));
                }
                if look.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                if leaving {
                    return Poll::Ready(());
                }
                let idle_until = match conn.lanes.get() {
                    0 => conn.idle_since.get().plus_ms(IDLE_MAX_MS),
                    _ => ring.now().plus_ms(IDLE_MAX_MS),
                };
                if idle_until <= ring.now() {
                    // Without a handle to it the connection says goodbye by itself.
                    conn.turn(State::Closed(Reason::IdleTimeout));
                } else {
                    look.as_mut().reset(idle_until);
                }
            }
        })
        .await;
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::ring::tests::ring;

    #[test]
    fn beyond_many_clients_a_connection_in_a_clients_name_takes_one_stream() {
        let ring = ring();
        let budget = Budget::new(1 << 20);
        let conns = Rc::new(RefCell::new(SharedConns::new(Pings::default(), budget)));
        let sought = |client: u32| Sought {
            link: Link::Client {
                app: (Ipv4Addr::LOCALHOST, 80).into(),
                client: Ipv4Addr::from(client).into(),
            },
            sni: "",
            owner: None,
            streams_max: u32::MAX,
        };
        let clients = 0..u32::try_from(CLIENTS_KEPT_MAX).unwrap();
        let begun: Vec<_> = clients
            .map(|client| begin(&conns, &ring, &sought(client), None).unwrap())
            .collect();
        assert!(join(&conns, &ring, &sought(0), false).is_some());
        let beyond = sought(u32::MAX);
        let one_more = begin(&conns, &ring, &beyond, None);
        assert!(one_more.is_some());
        assert!(join(&conns, &ring, &beyond, false).is_none());
        assert_eq!(begun.len(), CLIENTS_KEPT_MAX);
    }
}
