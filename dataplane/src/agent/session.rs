//! The session with control as a state machine (pure: no I/O, no clock, no randomness).
//!
//! ```text
//!            Wake                 Connected              Welcome
//!  Waiting --------> Connecting ------------> Greeting ----------> Live
//!     ^   (deadline)     | Failed                | Reject, Lost,     | Lost, protocol fault
//!     +------------------+-----------------------+ deadline ---------+
//!  any --Leave--> Left
//! ```
//! How to drive it: give every fact to [`Session::handle`], then drain [`Session::poll`] to `None`
//! and carry the wishes out in order, then wait for the next fact or for [`Session::deadline`].
//!
//! Invariants: every push gets exactly one Ack or Nack, in order, on the link it came by; at most
//! one configuration is being published at a time; what is in force changes only by
//! `Published { Ok }`; no fact, in whatever order, makes it panic.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use ringmesh_wire::frame::Kind;
use ringmesh_wire::session::{PortHealth, RegisteredPort};
use ringmesh_wire::{
    Ack, AppHealth, CLOSE_LEAVING, Hello, Nack, NodeId, Push, Registration, Reject, Resolved,
    ResolvedName, Revision, SCHEMA_VERSION, SCHEMA_VERSION_MIN, Snapshot, Welcome,
};

use super::backoff;
use crate::time::Mono;

/// Code of a close for bytes or messages that break the protocol.
pub const CLOSE_PROTOCOL: u32 = 1;
/// Code of a close because control did not greet in time or refused.
pub const CLOSE_NO_SESSION: u32 = 2;

/// Pushes that may wait behind the one being published. Control waits for acknowledgements, so
/// more than a few is a fault of its.
const PUSHES_MAX: usize = 8;
/// Time for control to answer Hello. It has only to look the node up.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);
/// A session that lived this long was a good one: the next back-off starts anew.
const GOOD_SESSION: Duration = Duration::from_secs(5);

/// Who we are; does not change while the process lives.
#[derive(Debug, Clone)]
pub struct Ourselves {
    /// Name of the node.
    pub node: NodeId,
    /// Random per process start.
    pub boot: u64,
    /// Software version.
    pub build: String,
    /// What to register, but for the address (see `advertise`) and the ports' health; `None` for
    /// a workload without ports.
    pub registration: Option<Registration>,
    /// Address others reach us at; `None`: the local address of the link.
    pub advertise: Option<IpAddr>,
}

/// A message of control on the session stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Down {
    /// It accepts.
    Welcome(Welcome),
    /// It refuses.
    Reject(Reject),
    /// A configuration.
    Push(Push),
}

/// A message to control on the session stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Up {
    /// Introduction.
    Hello(Hello),
    /// Where we are.
    Register(Registration),
    /// The app went up or down.
    AppHealth(AppHealth),
    /// In force.
    Ack(Ack),
    /// Refused.
    Nack(Nack),
    /// What names lead to.
    Resolved(Resolved),
}

/// A fact.
#[derive(Debug, Clone)]
pub enum Input {
    /// The deadline has passed, or nothing in particular: look at the clock.
    Wake,
    /// The link stands and the session stream is open.
    Connected {
        /// Our address on it.
        local: IpAddr,
        /// Control's address.
        remote: IpAddr,
    },
    /// Connecting did not succeed.
    Failed,
    /// The link ended.
    Lost,
    /// Control said something.
    Said(Box<Down>),
    /// Control sent something that cannot be read.
    Unreadable(String),
    /// The configuration last asked for by [`Output::Publish`] is in force on every shard, or
    /// refused.
    Published {
        /// Which.
        revision: Revision,
        /// How it went.
        result: Result<(), String>,
    },
    /// Health of the app's ports, all of them.
    Health(Vec<PortHealth>),
    /// What the names of endpoints lead to, all of them.
    Names(Vec<ResolvedName>),
    /// The link is fine but the identity it was made with is not the one to use any more.
    Reconnect,
    /// The sidecar stops.
    Leave,
}

/// A wish.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Make a link; answer with `Connected` or `Failed`.
    Connect,
    /// Send this on the session stream.
    Send(Box<Up>),
    /// Put this in force; answer with `Published`.
    Publish(Arc<Snapshot>),
    /// Close the link. No `Lost` is expected after it.
    Close {
        /// Application close code.
        code: u32,
        /// For the other side's log.
        why: String,
    },
    /// Tell people.
    Tell(Tell),
}

/// What people should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tell {
    /// The session stands.
    Live,
    /// Control refuses us.
    Rejected(Reject),
    /// A configuration is refused.
    Refused {
        /// Which.
        revision: Revision,
        /// Why.
        reason: String,
    },
    /// We cannot be registered under this address.
    NotRegistered {
        /// It.
        address: IpAddr,
    },
    /// Control broke the protocol.
    Fault(String),
}

/// Where the session stands, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Until the next attempt.
    Waiting,
    /// A link is being made.
    Connecting,
    /// Hello is sent.
    Greeting,
    /// In session.
    Live,
    /// Stopped for good.
    Left,
}

#[derive(Debug, Clone, Copy)]
enum State {
    Waiting {
        until: Mono,
    },
    Connecting,
    Greeting {
        until: Mono,
        local: IpAddr,
        remote: IpAddr,
    },
    Live {
        since: Mono,
        /// Schema version both sides read.
        version: u16,
    },
    Left,
}

/// The session.
#[derive(Debug)]
pub struct Session {
    ourselves: Ourselves,
    state: State,
    attempt: u32,
    in_force: Option<Arc<Snapshot>>,
    /// The last one refused: a delta may be built on it.
    refused: Option<Arc<Snapshot>>,
    publishing: Option<Publishing>,
    queued: VecDeque<Push>,
    health: Vec<PortHealth>,
    names: Vec<ResolvedName>,
    wishes: VecDeque<Output>,
}

#[derive(Debug)]
struct Publishing {
    snapshot: Arc<Snapshot>,
    /// Whether the link it came by still stands: only then is an answer owed.
    owed: bool,
}

impl Session {
    /// A session that connects at once. `in_force` is the last good configuration, if there is one.
    #[must_use]
    pub fn new(ourselves: Ourselves, in_force: Option<Arc<Snapshot>>, now: Mono) -> Self {
        Self {
            ourselves,
            state: State::Waiting { until: now },
            attempt: 0,
            in_force,
            refused: None,
            publishing: None,
            queued: VecDeque::new(),
            health: Vec::new(),
            names: Vec::new(),
            wishes: VecDeque::new(),
        }
    }

    /// Where it stands.
    #[must_use]
    pub fn phase(&self) -> Phase {
        match self.state {
            State::Waiting { .. } => Phase::Waiting,
            State::Connecting => Phase::Connecting,
            State::Greeting { .. } => Phase::Greeting,
            State::Live { .. } => Phase::Live,
            State::Left => Phase::Left,
        }
    }

    /// The configuration in force.
    #[must_use]
    pub fn in_force(&self) -> Option<&Arc<Snapshot>> {
        self.in_force.as_ref()
    }

    /// The next wish, in order.
    pub fn poll(&mut self) -> Option<Output> {
        self.wishes.pop_front()
    }

    /// When to come back with [`Input::Wake`] at the latest.
    #[must_use]
    pub fn deadline(&self) -> Option<Mono> {
        match self.state {
            State::Waiting { until } | State::Greeting { until, .. } => Some(until),
            State::Connecting | State::Live { .. } | State::Left => None,
        }
    }

    /// Takes a fact. `random` is drawn anew for every call.
    pub fn handle(&mut self, fact: Input, now: Mono, random: u64) {
        if matches!(self.state, State::Left) {
            return;
        }
        match fact {
            Input::Wake => self.wake(now, random),
            Input::Connected { local, remote } => self.connected(local, remote, now),
            Input::Failed => {
                if matches!(self.state, State::Connecting) {
                    self.wait(backoff::delay(self.attempt, random), now);
                }
            }
            Input::Lost => self.lost(now, random),
            Input::Said(down) => self.said(*down, now, random),
            Input::Unreadable(why) => {
                if self.linked() {
                    self.fault(why, now, random);
                }
            }
            Input::Published { revision, result } => self.published(revision, result),
            Input::Health(ports) => self.healthy(ports),
            Input::Names(names) => {
                self.names = names;
                self.tell_names();
            }
            Input::Reconnect => {
                if self.linked() {
                    self.close(CLOSE_NO_SESSION, "reconnecting with a new identity");
                    self.drop_link();
                    self.attempt = 0;
                    self.state = State::Waiting { until: now };
                }
            }
            Input::Leave => {
                if self.linked() {
                    self.close(CLOSE_LEAVING, "leaving");
                }
                self.drop_link();
                self.state = State::Left;
            }
        }
    }

    fn linked(&self) -> bool {
        matches!(self.state, State::Greeting { .. } | State::Live { .. })
    }

    fn wish(&mut self, output: Output) {
        self.wishes.push_back(output);
    }

    fn send(&mut self, up: Up) {
        self.wish(Output::Send(Box::new(up)));
    }

    fn close(&mut self, code: u32, why: impl Into<String>) {
        self.wish(Output::Close {
            code,
            why: why.into(),
        });
    }

    fn wait(&mut self, delay: Duration, now: Mono) {
        self.attempt = self.attempt.saturating_add(1);
        self.state = State::Waiting { until: now + delay };
    }

    /// Forgets what belongs to the link: answers owed and pushes not yet begun.
    fn drop_link(&mut self) {
        self.queued.clear();
        if let Some(publishing) = &mut self.publishing {
            publishing.owed = false;
        }
    }

    fn wake(&mut self, now: Mono, random: u64) {
        match self.state {
            State::Waiting { until } if now >= until => {
                self.state = State::Connecting;
                self.wish(Output::Connect);
            }
            State::Greeting { until, .. } if now >= until => {
                self.close(CLOSE_NO_SESSION, "no Welcome in time");
                self.drop_link();
                self.wait(backoff::delay(self.attempt, random), now);
            }
            _ => {}
        }
    }

    fn connected(&mut self, local: IpAddr, remote: IpAddr, now: Mono) {
        if !matches!(self.state, State::Connecting) {
            return;
        }
        self.state = State::Greeting {
            until: now + GREETING_TIMEOUT,
            local,
            remote,
        };
        let held = self.in_force.as_ref();
        self.send(Up::Hello(Hello {
            version_min: SCHEMA_VERSION_MIN,
            version_max: SCHEMA_VERSION,
            node: self.ourselves.node.clone(),
            boot: self.ourselves.boot,
            build: self.ourselves.build.clone(),
            revision: held.map_or(Revision(0), |snapshot| snapshot.revision),
            have: held.map_or_else(Vec::new, |snapshot| {
                let mut have = snapshot.order();
                // An older control cannot read the others. They are few and come again.
                have.retain(|(key, _)| key.kind.since() == SCHEMA_VERSION_MIN);
                have
            }),
        }));
    }

    fn lost(&mut self, now: Mono, random: u64) {
        match self.state {
            State::Live { since, .. } => {
                if now.since(since) >= GOOD_SESSION {
                    self.attempt = 0;
                }
            }
            State::Greeting { .. } | State::Connecting => {}
            State::Waiting { .. } | State::Left => return,
        }
        self.drop_link();
        self.wait(backoff::delay(self.attempt, random), now);
    }

    fn fault(&mut self, why: String, now: Mono, random: u64) {
        self.wish(Output::Tell(Tell::Fault(why.clone())));
        self.close(CLOSE_PROTOCOL, why);
        self.drop_link();
        self.wait(backoff::long_delay(random), now);
    }

    fn said(&mut self, down: Down, now: Mono, random: u64) {
        match (self.state, down) {
            (State::Greeting { local, remote, .. }, Down::Welcome(welcome)) => {
                if !(SCHEMA_VERSION_MIN..=SCHEMA_VERSION).contains(&welcome.version) {
                    let why = format!("Welcome names schema version {}", welcome.version);
                    return self.fault(why, now, random);
                }
                self.state = State::Live {
                    since: now,
                    version: welcome.version,
                };
                self.wish(Output::Tell(Tell::Live));
                self.register(local, remote);
                if !self.names.is_empty() {
                    self.tell_names();
                }
            }
            (State::Greeting { .. } | State::Live { .. }, Down::Reject(reject)) => {
                self.wish(Output::Tell(Tell::Rejected(reject)));
                self.close(CLOSE_NO_SESSION, "rejected");
                self.drop_link();
                self.wait(backoff::long_delay(random), now);
            }
            (State::Live { .. }, Down::Push(push)) => {
                if self.queued.len() >= PUSHES_MAX {
                    return self.fault("too many pushes without waiting".into(), now, random);
                }
                self.queued.push_back(push);
                self.begin_next();
            }
            (State::Greeting { .. }, Down::Push(_)) => {
                self.fault("a push before the Welcome".into(), now, random);
            }
            (State::Live { .. }, Down::Welcome(_)) => {
                self.fault("a second Welcome".into(), now, random);
            }
            // Left over from a link that is gone already.
            (State::Waiting { .. } | State::Connecting | State::Left, _) => {}
        }
    }

    fn register(&mut self, local: IpAddr, remote: IpAddr) {
        let Some(mut registration) = self.ourselves.registration.clone() else {
            return;
        };
        let address = self.ourselves.advertise.unwrap_or(local).to_canonical();
        // Others would take a loopback address for themselves.
        if address.is_loopback() && !remote.to_canonical().is_loopback() {
            self.wish(Output::Tell(Tell::NotRegistered { address }));
            return;
        }
        registration.address = address;
        for port in &mut registration.ports {
            port.healthy = self.is_healthy(port);
        }
        self.send(Up::Register(registration));
    }

    fn is_healthy(&self, port: &RegisteredPort) -> bool {
        self.health
            .iter()
            .any(|health| health.port == port.port && health.healthy)
    }

    fn healthy(&mut self, ports: Vec<PortHealth>) {
        self.health = ports;
        if matches!(self.state, State::Live { .. }) && self.ourselves.registration.is_some() {
            self.send(Up::AppHealth(AppHealth {
                ports: self.health.clone(),
            }));
        }
    }

    /// Control shows them to people; one that knows no names would not understand.
    fn tell_names(&mut self) {
        let knows =
            matches!(self.state, State::Live { version, .. } if version >= Kind::Resolved.since());
        if knows {
            let names = self.names.clone();
            self.send(Up::Resolved(Resolved { names }));
        }
    }

    /// Starts publishing the next push, unless one is under way.
    fn begin_next(&mut self) {
        while self.publishing.is_none() {
            let Some(push) = self.queued.pop_front() else {
                return;
            };
            let node = &self.ourselves.node;
            // Control builds a delta on what we said we have or on what it sent last, which we
            // may have refused.
            let merged = Snapshot::with_push(self.in_force.as_deref(), node, &push)
                .or_else(|_| Snapshot::with_push(self.refused.as_deref(), node, &push));
            match merged {
                Ok(snapshot) => {
                    let snapshot = Arc::new(snapshot);
                    self.publishing = Some(Publishing {
                        snapshot: Arc::clone(&snapshot),
                        owed: true,
                    });
                    self.wish(Output::Publish(snapshot));
                }
                Err(error) => self.nack(push.revision, error.to_string()),
            }
        }
    }

    fn nack(&mut self, revision: Revision, reason: String) {
        self.wish(Output::Tell(Tell::Refused {
            revision,
            reason: reason.clone(),
        }));
        self.send(Up::Nack(Nack { revision, reason }));
    }

    fn published(&mut self, revision: Revision, result: Result<(), String>) {
        let Some(publishing) = self
            .publishing
            .take_if(|publishing| publishing.snapshot.revision == revision)
        else {
            return;
        };
        match result {
            Ok(()) => {
                self.in_force = Some(publishing.snapshot);
                self.refused = None;
                if publishing.owed {
                    self.send(Up::Ack(Ack { revision }));
                }
            }
            Err(reason) => {
                self.refused = Some(publishing.snapshot);
                if publishing.owed {
                    self.nack(revision, reason);
                } else {
                    self.wish(Output::Tell(Tell::Refused { revision, reason }));
                }
            }
        }
        self.begin_next();
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
mod tests;
