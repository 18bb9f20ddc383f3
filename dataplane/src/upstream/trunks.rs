//! Trunks to other sidecars: a lane is opened on one that has room, or on a new one.
//!
//! Whoever wants a lane while a trunk is being made waits for it, as many as it will have room for: a
//! burst of requests makes as many connections as it needs. A sidecar that does not know lanes picks
//! HTTP/1.1 in the handshake; the connection is used as what it is, and the next trunk tried later.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ringmesh_wire::SpiffeId;

use super::connect::{Dial, connect};
use super::stream::Stream;
use crate::http2::Pings;
use crate::lanes::{LANES_MAX, Patience, Trunk, TrunkEnd, TrunkLane};
use crate::reason::Reason;
use crate::ring::Ring;
use crate::tables::{Link, Seeded};
use crate::time::Mono;
use crate::tls::{Inner, Live, Sessions, TlsMaterial};

/// Trunks of one shard to one endpoint: with their lanes, more than a shard has under way. Above,
/// requests get connections of their own.
const TRUNKS_PER_ENDPOINT_MAX: usize = 16;
/// Endpoints kept in mind; above, one that has no trunk is forgotten.
const ENDPOINTS_MAX: usize = 4_096;
/// A sidecar that does not know lanes is not asked again for so long, milliseconds: until it may have
/// been replaced by a newer one.
const WITHOUT_LANES_MS: u64 = 600_000;
/// Without a lane for so long a trunk is closed, milliseconds. Idle lanes lie in their pool for longer,
/// so this is the pause between the last of them and the next.
const IDLE_MAX_MS: u64 = 5_000;

/// All trunks of a shard.
#[derive(Debug, Default)]
pub struct Trunks {
    by_name: RefCell<HashMap<Name, Endpoint, Seeded>>,
}

/// Address and name asked for in TLS, which fixes service, port and accepted identities.
type Name = (Link, Box<str>);

#[derive(Debug, Default)]
struct Endpoint {
    trunks: Vec<Rc<Entry>>,
    /// It does not know lanes; asked again from then on.
    without_until: Mono,
}

#[derive(Debug)]
struct Entry {
    state: RefCell<State>,
    /// Who waits for it; at most [`LANES_MAX`].
    waiting: RefCell<Vec<Waker>>,
    wanted: Cell<usize>,
}

#[derive(Debug)]
enum State {
    Connecting,
    Open(Rc<Trunk>),
    /// A connection without lanes, until somebody takes it.
    Plain(Option<Box<Stream>>),
    Closed(Reason),
}

/// What [`Trunks::join`] found.
#[derive(Debug)]
pub enum Joining {
    /// A lane of a trunk that stood.
    Lane(TrunkLane),
    /// A trunk is being made.
    Wait(Wanted),
    /// A trunk that [`MakingTrunk::make`] has to make.
    New(Wanted, MakingTrunk),
    /// The endpoint has no lanes for us: it does not know them, or there are too many trunks.
    Without,
}

/// What a trunk that was waited for came to.
#[derive(Debug)]
pub enum Wished {
    /// A lane.
    Lane(TrunkLane),
    /// A connection for this request alone: the sidecar does not know lanes.
    Stream(Stream),
    /// Neither: the endpoint may be asked once more.
    Nothing,
}

/// A place among those who wait for a trunk.
#[derive(Debug)]
pub struct Wanted(Rc<Entry>);

impl Drop for Wanted {
    fn drop(&mut self) {
        self.0.wanted.set(self.0.wanted.get().saturating_sub(1));
    }
}

impl Wanted {
    fn new(entry: &Rc<Entry>) -> Self {
        entry.wanted.set(entry.wanted.get() + 1);
        Self(Rc::clone(entry))
    }

    /// Waits until the trunk stands.
    ///
    /// # Errors
    /// Why it does not.
    pub async fn granted(self) -> Result<Wished, Reason> {
        poll_fn(|cx| self.0.poll_made(cx)).await
    }
}

impl Entry {
    fn poll_made(&self, cx: &Context<'_>) -> Poll<Result<Wished, Reason>> {
        match &mut *self.state.borrow_mut() {
            State::Connecting => {
                let mut waiting = self.waiting.borrow_mut();
                if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                    waiting.push(cx.waker().clone());
                }
                Poll::Pending
            }
            State::Open(trunk) => Poll::Ready(Ok(match trunk.open() {
                Some(lane) => Wished::Lane(lane),
                None => Wished::Nothing,
            })),
            State::Plain(stream) => Poll::Ready(Ok(match stream.take() {
                Some(stream) => Wished::Stream(*stream),
                None => Wished::Nothing,
            })),
            State::Closed(reason) => Poll::Ready(Err(*reason)),
        }
    }

    fn turn(&self, state: State) {
        *self.state.borrow_mut() = state;
        for waker in self.waiting.take() {
            waker.wake();
        }
    }

    /// Whether nobody can join it any more.
    fn is_over(&self) -> bool {
        match &*self.state.borrow() {
            State::Connecting => false,
            State::Open(trunk) => trunk.is_ending(),
            State::Plain(_) | State::Closed(_) => true,
        }
    }
}

impl Trunks {
    /// A lane to `link`. `may_use` is asked of a trunk that stands: whether its server may still answer
    /// for the service, and its certificates allow another request; one it refuses opens no lane more.
    #[must_use]
    pub fn join(
        self: &Rc<Self>,
        link: Link,
        sni: &str,
        now: Mono,
        may_use: impl Fn(&Trunk) -> bool,
    ) -> Joining {
        let name = (link, Box::from(sni));
        let mut all = self.by_name.borrow_mut();
        if all.len() >= ENDPOINTS_MAX {
            all.retain(|_, endpoint| !endpoint.trunks.is_empty());
        }
        let endpoint = all.entry(name.clone()).or_default();
        if now < endpoint.without_until {
            return Joining::Without;
        }
        endpoint.trunks.retain(|entry| !entry.is_over());
        for entry in &endpoint.trunks {
            match &*entry.state.borrow() {
                State::Open(trunk) if !may_use(trunk) => trunk.say_last(),
                State::Open(trunk) => {
                    if let Some(lane) = trunk.open() {
                        return Joining::Lane(lane);
                    }
                }
                State::Connecting if entry.wanted.get() < LANES_MAX => {
                    return Joining::Wait(Wanted::new(entry));
                }
                State::Connecting | State::Plain(_) | State::Closed(_) => {}
            }
        }
        if endpoint.trunks.len() >= TRUNKS_PER_ENDPOINT_MAX {
            return Joining::Without;
        }
        let entry = Rc::new(Entry {
            state: RefCell::new(State::Connecting),
            waiting: RefCell::default(),
            wanted: Cell::new(0),
        });
        endpoint.trunks.push(Rc::clone(&entry));
        let making = MakingTrunk {
            trunks: Rc::clone(self),
            name,
            entry: Rc::clone(&entry),
        };
        Joining::New(Wanted::new(&entry), making)
    }
}

/// A trunk that is to be made and carried.
#[derive(Debug)]
pub struct MakingTrunk {
    trunks: Rc<Trunks>,
    name: Name,
    entry: Rc<Entry>,
}

impl Drop for MakingTrunk {
    /// However it ended, nobody may wait for it or join it.
    fn drop(&mut self) {
        if matches!(&*self.entry.state.borrow(), State::Connecting) {
            self.entry.turn(State::Closed(Reason::UpstreamReset));
        }
        let mut all = self.trunks.by_name.borrow_mut();
        if let Some(endpoint) = all.get_mut(&self.name) {
            endpoint
                .trunks
                .retain(|entry| !Rc::ptr_eq(entry, &self.entry));
            if endpoint.trunks.is_empty() && endpoint.without_until == Mono::default() {
                all.remove(&self.name);
            }
        }
    }
}

impl MakingTrunk {
    /// Connects, and carries the trunk to its end. `accept` as for [`connect`].
    pub async fn make(
        self,
        ring: Ring,
        material: Option<Arc<TlsMaterial>>,
        sessions: Rc<Sessions>,
        live: Rc<Live>,
        pings: Pings,
        deadline: Mono,
        accept: impl Fn(&SpiffeId) -> bool,
    ) -> TrunkEnd {
        let dial = Dial {
            link: self.name.0,
            // A sidecar has one address.
            among: &[],
            sni: &self.name.1,
            alpn: Inner::Lanes,
            material,
            sessions: &sessions,
            live: &live,
            speaks_at_once: true,
            deadline,
        };
        let connection = match connect(&ring, dial, accept).await {
            Ok(Stream::Tls(connection)) => connection,
            Ok(Stream::Plain(_) | Stream::Lane(_)) => return TrunkEnd::Closed,
            Err(fault) => {
                self.entry.turn(State::Closed(fault.reason));
                return TrunkEnd::Closed;
            }
        };
        if connection.inner() != Inner::Lanes {
            if let Some(endpoint) = self.trunks.by_name.borrow_mut().get_mut(&self.name) {
                endpoint.without_until = ring.now().plus_ms(WITHOUT_LANES_MS);
            }
            let stream = Box::new(Stream::Tls(connection));
            self.entry.turn(State::Plain(Some(stream)));
            return TrunkEnd::Closed;
        }
        let trunk = Trunk::opener(&ring, connection);
        self.entry.turn(State::Open(Rc::clone(&trunk)));
        let patience = Patience {
            idle_ms: IDLE_MAX_MS,
            pings,
        };
        trunk.carry(patience, |_| {}, drop).await
    }
}
