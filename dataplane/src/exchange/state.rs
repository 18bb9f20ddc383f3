//! What one shard owns: configuration in force, pools, balancer, quota cells, counters.
//!
//! One `ShardState` per thread behind an `Rc`; every exchange on the shard borrows from it for the
//! length of a plain call, never across an await. An exchange keeps the [`Active`] it began with,
//! so a swap never changes the rules under a request.

mod active;
mod app_link;
mod limits;
mod quota_ticker;
mod standing;
mod upstreams;

use std::cell::{Cell, RefCell, RefMut};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;

use ringmesh_wire::snapshot::MtlsMode;

use super::borrow::{self, Borrowing};
use super::plaintext::Plaintext;
use crate::balance::Balancer;
use crate::budget::Budget;
use crate::detect::Verdicts;
use crate::policy::Notes;
use crate::policy::quota::QuotaCells;
use crate::ring::{Picked, Ring, Sleep};
use crate::shard::{FromShard, Outbox};
use crate::tables::Tables;
use crate::telemetry::{Event, LogBuf, Meter, Outcome};
use crate::time::Mono;
use crate::tls::{Live, Sessions, TlsMaterial};
use crate::upstream::{Lines, Pools, SharedConns, Trunks};
use crate::worker::WorkerPlan;

pub use self::active::Active;
pub use self::limits::ConnLimits;

/// Everything one shard owns.
#[derive(Debug)]
pub struct ShardState {
    /// Its ring.
    pub ring: Ring,
    /// Bounds.
    pub limits: ConnLimits,
    /// What it keeps beside its pools.
    pub budget: Rc<Budget>,
    /// Endpoint choice and breakers.
    pub balancer: RefCell<Balancer>,
    /// Idle upstream connections.
    pub pools: RefCell<Pools>,
    /// Requests that wait for a connection.
    pub lines: Lines,
    /// Limits shared with the other shards.
    pub borrowing: Borrowing,
    /// HTTP/2 upstream connections.
    pub shared: Rc<RefCell<SharedConns>>,
    /// Connections to other sidecars that carry lanes.
    pub trunks: Rc<Trunks>,
    /// What undeclared ports turned out to speak.
    pub verdicts: RefCell<Verdicts>,
    /// Quota units.
    pub quota: RefCell<QuotaCells>,
    /// Counters and histograms.
    meter: RefCell<Meter>,
    /// Access log lines not yet handed to the agent; `None`: no access log.
    pub log: RefCell<Option<LogBuf>>,
    /// Emptied log buffers; as many circulate as the agent hands out, so a slow disk ends in
    /// dropped and counted lines, not in growth.
    spares: RefCell<Vec<Vec<u8>>>,
    /// To the agent.
    outbox: Outbox<FromShard>,
    /// Downstream connections now, lanes of such included.
    pub conns: Cell<u32>,
    /// Connections over the bound that are being let go.
    pub parting: Cell<u32>,
    /// Connections there ever were.
    serials: Cell<u64>,
    /// Exchanges and relays under way.
    busy: Rc<Cell<u32>>,
    /// No new requests: answers say `connection: close`, HTTP/2 connections GOAWAY.
    pub draining: Cell<bool>,
    /// Who is to be woken when draining begins.
    drain_wakers: RefCell<Vec<Weak<Cell<Option<Waker>>>>>,
    /// No control service gives this sidecar an identity.
    standalone: bool,
    /// What comes in is captured by TPROXY, and the app sees the client's address.
    pub tproxy: bool,
    /// Addresses this sidecar listens on: never dialled.
    pub own_addresses: RefCell<Vec<std::net::SocketAddr>>,
    active: RefCell<Option<Rc<Active>>>,
    material: RefCell<Option<Arc<TlsMaterial>>>,
    /// Sessions that connections to other sidecars may resume.
    pub sessions: Rc<Sessions>,
    /// Connections with a proven peer.
    pub live: Rc<Live>,
    /// Connections of the app's callers without one.
    pub plaintext: Plaintext,
    random: RefCell<fastrand::Rng>,
    /// Wall clock at `Mono(0)`, microseconds since 1970.
    unix_us_at_zero: u64,
    sweeping: Cell<bool>,
    /// Wakes the sweep from a long sleep when a connection becomes idle.
    sweeper: RefCell<Option<Waker>>,
    /// When the quota cells are looked after next; `NEVER` without anything to look after.
    quota_tick_at: Cell<Mono>,
    /// Wakes the task that does.
    quota_ticker: RefCell<Option<Waker>>,
    /// Changes of the meter, bytes kept, and what the ring does, when the agent was told of it.
    told: Cell<Option<(u64, usize, Picked)>>,
    /// The agent knows that nothing is counted, and does not ask.
    quiet: Cell<bool>,
}

/// One exchange in the count.
#[derive(Debug)]
pub struct Busy(Rc<Cell<u32>>);

/// One downstream connection, or lane of one, in the count for as long as it lives.
#[derive(Debug)]
pub struct Counted(Rc<ShardState>);

impl Counted {
    /// One more.
    #[must_use]
    pub fn new(shard: &Rc<ShardState>) -> Self {
        shard.conns.set(shard.conns.get() + 1);
        Self(Rc::clone(shard))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.conns.set(self.0.conns.get().saturating_sub(1));
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl ShardState {
    /// A shard without configuration.
    #[must_use]
    pub fn new(
        ring: Ring,
        outbox: Outbox<FromShard>,
        plan: &WorkerPlan,
        log: Option<LogBuf>,
    ) -> Self {
        let budget = Budget::new(plan.limits.kept_bytes_max);
        let unix_us_at_zero = plan.unix_us.saturating_sub(ring.now().0 / 1_000);
        Self {
            ring,
            outbox,
            limits: plan.limits,
            budget: Rc::clone(&budget),
            balancer: RefCell::new(Balancer::new(plan.share)),
            pools: RefCell::default(),
            lines: Lines::default(),
            borrowing: Borrowing::default(),
            shared: Rc::new(RefCell::new(SharedConns::new(plan.limits.pings, budget))),
            trunks: Rc::default(),
            verdicts: RefCell::default(),
            quota: RefCell::new(QuotaCells::new(plan.quota_home, plan.seed)),
            meter: RefCell::default(),
            log: RefCell::new(log),
            spares: RefCell::default(),
            conns: Cell::new(0),
            parting: Cell::new(0),
            serials: Cell::new(0),
            busy: Rc::default(),
            draining: Cell::new(false),
            drain_wakers: RefCell::default(),
            standalone: plan.quota_home.standalone,
            tproxy: plan.tproxy,
            own_addresses: RefCell::default(),
            active: RefCell::default(),
            material: RefCell::default(),
            sessions: Rc::default(),
            live: Rc::default(),
            plaintext: Plaintext::default(),
            random: RefCell::new(fastrand::Rng::with_seed(plan.seed)),
            unix_us_at_zero,
            sweeping: Cell::new(false),
            sweeper: RefCell::default(),
            quota_tick_at: Cell::new(Mono::NEVER),
            quota_ticker: RefCell::default(),
            told: Cell::new(None),
            quiet: Cell::new(false),
        }
    }

    /// The shard's counters, to count something. An agent that was told of quiet hears that it is over.
    pub fn meter(&self) -> RefMut<'_, Meter> {
        // Without room for the message the next count says it.
        if self.quiet.get() && self.outbox.send(FromShard::Stirring) {
            self.quiet.set(false);
        }
        self.meter.borrow_mut()
    }

    /// Tells the agent everything counted, or that nothing was since it was told last; then it need
    /// not ask, and an idle shard is not woken.
    pub fn tell_counted(&self) {
        let (kept, ring) = (self.budget.kept(), self.ring.picked());
        let state = (self.meter.borrow().changes(), kept, ring);
        let logged = self.log.borrow().as_ref().is_none_or(LogBuf::is_empty);
        if self.told.replace(Some(state)) == Some(state) && logged {
            self.quiet.set(true);
            self.empty_log_room();
            self.tell(FromShard::Quiet);
        } else {
            let stats = self.meter.borrow().collect().keeping(kept).on(ring);
            self.tell(FromShard::Stats(Box::new(stats)));
        }
    }

    /// Counts an exchange and writes its access-log line.
    pub fn note(&self, outcome: &Outcome<'_>) {
        let mut meter = self.meter();
        meter.record(outcome);
        let mut log = self.log.borrow_mut();
        let Some(lines) = &mut *log else { return };
        if !lines.push(outcome) {
            meter.count(Event::LogDropped);
        }
        if lines.is_ripe() {
            drop((meter, log));
            self.hand_over_log();
        }
    }

    /// A number no other connection of this shard has.
    pub fn next_serial(&self) -> u64 {
        self.serials.set(self.serials.get() + 1);
        self.serials.get()
    }

    /// Counts what a judgement noticed on its way.
    pub fn count_judged(&self, notes: Notes) {
        if notes == Notes::default() {
            return;
        }
        let mut meter = self.meter();
        for _ in 0..notes.expression_errors {
            meter.count(Event::ExpressionError);
        }
        if notes.audited.is_some() {
            meter.count(Event::Audited);
        }
        if notes.charged {
            meter.count(Event::QuotaCharged);
        }
    }

    /// Hands the access-log lines to the agent, if there is an empty buffer to go on with.
    pub fn hand_over_log(&self) {
        let mut log = self.log.borrow_mut();
        if let Some(log) = &mut *log
            && !log.is_empty()
            && let Some(spare) = self.spares.borrow_mut().pop()
        {
            self.tell(FromShard::Log(log.take(spare)));
        }
    }

    /// Nothing is logged for now: the buffers' memory is not needed.
    fn empty_log_room(&self) {
        if let Some(log) = &mut *self.log.borrow_mut() {
            log.rest();
        }
        self.spares.borrow_mut().fill(Vec::new());
    }

    /// Takes an emptied log buffer.
    pub fn take_spare(&self, buffer: Vec<u8>) {
        self.spares.borrow_mut().push(buffer);
    }

    /// Leaves a message for the agent.
    pub fn tell(&self, message: FromShard) {
        if !self.outbox.send(message) {
            // The agent asks for everything again or does not live any more.
            tracing::warn!("the agent does not take its messages");
        }
    }

    /// Counts an exchange as under way until the value is dropped.
    #[must_use]
    pub fn begin(&self) -> Busy {
        self.busy.set(self.busy.get() + 1);
        Busy(Rc::clone(&self.busy))
    }

    /// Takes no new requests from here on.
    pub fn drain(&self) {
        self.draining.set(true);
        for bell in self.drain_wakers.take() {
            if let Some(waker) = bell.upgrade().and_then(|bell| bell.take()) {
                waker.wake();
            }
        }
    }

    /// Where a connection leaves its waker to hear that draining began. One each, gone with it.
    #[must_use]
    pub fn drain_bell(&self) -> Rc<Cell<Option<Waker>>> {
        let bell = Rc::default();
        let mut bells = self.drain_wakers.borrow_mut();
        if bells.len() == bells.capacity() {
            bells.retain(|bell| bell.strong_count() > 0);
        }
        bells.push(Rc::downgrade(&bell));
        bell
    }

    /// Exchanges and relays under way.
    #[must_use]
    pub fn busy(&self) -> u32 {
        self.busy.get()
    }

    /// Wall clock, microseconds since 1970. Steps of the system clock after the start are not
    /// followed: order within one log matters more.
    #[must_use]
    pub fn unix_us(&self, at: Mono) -> u64 {
        self.unix_us_at_zero + at.0 / 1_000
    }

    /// Whether an address is one this sidecar listens on, however it is written.
    #[must_use]
    pub fn is_own(&self, address: std::net::SocketAddr) -> bool {
        self.own_addresses.borrow().iter().any(|own| {
            own.port() == address.port()
                && (own.ip() == address.ip()
                    || (own.ip().is_unspecified() && address.ip().is_loopback())
                    // Dialled, it means this host.
                    || address.ip().is_unspecified())
        })
    }

    /// The clock, as read at the beginning of this turn of the ring.
    #[must_use]
    pub fn now(&self) -> Mono {
        self.ring.now()
    }

    /// Whether calls that go out are made in the name of a workload, now or once it has its certificate.
    #[must_use]
    pub fn has_identity(&self) -> bool {
        !self.standalone || self.material.borrow().is_some()
    }

    /// Until nothing has moved for too long inside an exchange, if nothing does from now on.
    pub fn idle_from_now(&self) -> Sleep {
        let until = self.now().plus_ms(self.limits.idle_timeout_ms);
        self.ring.sleep_until(until)
    }

    /// 64 fresh random bits.
    #[must_use]
    pub fn random(&self) -> u64 {
        self.random.borrow_mut().u64(..)
    }

    /// The configuration in force.
    #[must_use]
    pub fn active(&self) -> Option<Rc<Active>> {
        self.active.borrow().clone()
    }

    /// Our certificate and whom to trust.
    #[must_use]
    pub fn material(&self) -> Option<Arc<TlsMaterial>> {
        self.material.borrow().clone()
    }

    /// New certificates. Connections made before keep theirs, but for those whose peer is revoked now.
    pub fn set_material(&self, material: Arc<TlsMaterial>) {
        let cut = self.live.examine(&material);
        if cut > 0 {
            tracing::info!(
                connections = cut,
                "cut off peers whose certificates are revoked"
            );
        }
        *self.material.borrow_mut() = Some(material);
    }

    /// Puts new tables in force, between two requests. Returns the old ones, to be dropped where
    /// that may take its time.
    pub fn swap(self: &Rc<Self>, tables: Arc<Tables>) -> Option<Rc<Active>> {
        self.balancer.borrow_mut().swap(&tables);
        let active = Rc::new(Active::new(tables, &mut self.pools.borrow_mut()));
        self.quota.borrow_mut().swap(&active.tables, self.now());
        let drain_ms = self.limits.plaintext_drain_ms;
        self.plaintext.examine(&self.ring, drain_ms, |port| {
            let row = active.tables.workload.ports.get(port);
            row.is_some_and(|row| row.mtls == MtlsMode::Strict)
        });
        let old = self.active.borrow_mut().replace(active);
        borrow::settle_debts(self);
        old
    }
}
