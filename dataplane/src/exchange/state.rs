//! What one shard owns: configuration in force, pools, balancer, quota cells, counters.
//!
//! One `ShardState` per thread behind an `Rc`; every exchange on the shard borrows from it for the
//! length of a plain call, never across an await. An exchange keeps the [`Active`] it began with,
//! so a swap never changes the rules under a request.

use std::cell::{Cell, RefCell, RefMut};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Poll, Waker};

use ringmesh_quota::TICK_MS_MIN;
use ringmesh_wire::snapshot::MtlsMode;

use super::borrow::{self, Borrowing};
use super::flow::{Direction, Flow};
use super::plaintext::Plaintext;
use crate::balance::{Balancer, Slot};
use crate::budget::Budget;
use crate::detect::Verdicts;
use crate::http2::Pings;
use crate::policy::Notes;
use crate::policy::quota::QuotaCells;
use crate::reason::Reason;
use crate::ring::{Picked, Ring};
use crate::shard::{FromShard, Outbox};
use crate::tables::{ClusterIndex, ClusterKey, ClusterRow, EndpointRow, Link, Tables};
use crate::telemetry::{Event, LogBuf, Meter, Outcome};
use crate::time::Mono;
use crate::tls::{Live, Sessions, Standing, TlsMaterial, TlsStream};
use crate::upstream::{Lane, Lines, Opened, PoolId, PoolKey, Pools, SharedConns, Stream, Trunks};
use crate::wait;
use crate::worker::WorkerPlan;

/// Bounds of one shard's downstream side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnLimits {
    /// Connections at once; above, a new one is answered 503 and closed.
    pub conns_max: u32,
    /// Sockets at once, those to upstreams included; above, likewise. What the limit of open files
    /// leaves to a shard.
    pub sockets_max: u32,
    /// From the first byte of a head to its last, milliseconds (slowloris).
    pub head_timeout_ms: u64,
    /// Between two requests on a connection, milliseconds.
    pub keep_alive_timeout_ms: u64,
    /// Without a byte in either direction inside an exchange, milliseconds.
    pub idle_timeout_ms: u64,
    /// Without a byte in either direction of an opaque connection, milliseconds.
    pub tcp_idle_timeout_ms: u64,
    /// For the handshake on the mesh port, milliseconds.
    pub handshake_timeout_ms: u64,
    /// Bytes kept beside the pools; above, whoever needs more is shed.
    pub kept_bytes_max: usize,
    /// For plaintext connections to a port that has become STRICT, milliseconds.
    pub plaintext_drain_ms: u64,
    /// For sidecars that are silent while HTTP/2 streams wait for them.
    pub pings: Pings,
}

impl Default for ConnLimits {
    fn default() -> Self {
        Self {
            // A tenth of the ring's task table is left for everything else.
            conns_max: 58_000,
            sockets_max: u32::MAX,
            // HAProxy recommends 10 s; slower clients are attacks or broken.
            head_timeout_ms: 10_000,
            // Envoy 1 h, nginx 75 s: long enough for pooled clients, short enough to free memory.
            keep_alive_timeout_ms: 600_000,
            // Envoy's stream idle timeout.
            idle_timeout_ms: 300_000,
            // Envoy's and Istio's tcp idle timeout.
            tcp_idle_timeout_ms: 3_600_000,
            handshake_timeout_ms: 5_000,
            // A thousand of the longest heads, a hundred thousand of the usual: a fifth of what the pools may take.
            kept_bytes_max: 64 << 20,
            // Istio's drainDuration.
            plaintext_drain_ms: 45_000,
            pings: Pings::default(),
        }
    }
}

/// One configuration in force, with this shard's pools for it.
#[derive(Debug)]
pub struct Active {
    /// The tables, shared with the other shards and never changed.
    pub tables: Arc<Tables>,
    /// Pools by cluster and endpoint.
    endpoints: Box<[Box<[EndpointPools]>]>,
    /// Pools of the local app, by workload port.
    apps: Box<[PoolId]>,
}

impl Active {
    /// The pool of an endpoint of a cluster.
    #[must_use]
    pub fn pool(&self, cluster: ClusterIndex, endpoint: usize) -> Option<PoolId> {
        Some(self.endpoints.get(cluster.at())?.get(endpoint)?.own)
    }

    /// The pool of its lanes; `None` where it is no sidecar.
    #[must_use]
    pub fn lanes(&self, cluster: ClusterIndex, endpoint: usize) -> Option<PoolId> {
        self.endpoints.get(cluster.at())?.get(endpoint)?.lanes
    }

    /// The pool of the local app's port, by its place in the workload's ports.
    #[must_use]
    pub fn app_pool(&self, port: usize) -> Option<PoolId> {
        self.apps.get(port).copied()
    }
}

/// The pools of one endpoint.
#[derive(Debug, Clone, Copy)]
struct EndpointPools {
    own: PoolId,
    lanes: Option<PoolId>,
}

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
    /// Connections there ever were.
    serials: Cell<u64>,
    /// Exchanges and relays under way.
    busy: Rc<Cell<u32>>,
    /// No new requests: answers say `connection: close`, HTTP/2 connections GOAWAY.
    pub draining: Cell<bool>,
    /// Who is to be woken when draining begins.
    drain_wakers: RefCell<Vec<Weak<Cell<Option<Waker>>>>>,
    /// What comes in is captured by TPROXY, and the app sees the client's address.
    pub tproxy: bool,
    /// Addresses this sidecar listens on: never dialled (SEMANTICS 6.5).
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

/// An access-log buffer this full is handed over without being asked for, percent.
const LOG_HAND_OVER_PERCENT: usize = 50;
/// Between two looks at idle upstream connections, milliseconds: a server that closes a thousand at
/// once is looked at a few times, not a thousand.
const SWEEP_PAUSE_MS: u64 = 20;
/// A look that is further away than this is brought forward when a connection becomes idle,
/// milliseconds.
const SWEEP_LONG_MS: u64 = 5_000;

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
            serials: Cell::new(0),
            busy: Rc::default(),
            draining: Cell::new(false),
            drain_wakers: RefCell::default(),
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
        if lines.fill_percent() >= LOG_HAND_OVER_PERCENT {
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
        if notes.audited {
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

    /// Sends what the quota cells have for the authority, and sees to it that a new bucket is
    /// looked after. Cheap: for every request.
    pub fn tell_quota(self: &Rc<Self>) {
        let mut quota = self.quota.borrow_mut();
        while let Some(message) = quota.poll() {
            self.tell(FromShard::Quota(message));
        }
        if quota.has_new_bucket() {
            drop(quota);
            self.tick_quota_at(self.now().plus_ms(TICK_MS_MIN));
        }
    }

    /// As [`Self::tell_quota`], and finds out when leases and buckets have to be looked after next:
    /// for after messages, configurations and ticks.
    pub fn look_after_quota(self: &Rc<Self>) {
        self.tell_quota();
        let next = self.quota.borrow_mut().next_tick(self.now());
        self.tick_quota_at(next);
    }

    /// One task with one timer, for the nearest time that was asked for. An idle shard is woken when
    /// something may change, and not to see whether it has.
    fn tick_quota_at(self: &Rc<Self>, at: Mono) {
        if at >= self.quota_tick_at.get() {
            return;
        }
        self.quota_tick_at.set(at);
        if let Some(ticker) = &*self.quota_ticker.borrow() {
            ticker.wake_by_ref();
            return;
        }
        let state = Rc::clone(self);
        let started = self.ring.spawn(async move {
            let mut due = pin!(state.ring.sleep_until(at));
            while state.quota_tick_at.get() != Mono::NEVER {
                poll_fn(|cx| {
                    state.quota_ticker.replace(Some(cx.waker().clone()));
                    due.as_mut().reset(state.quota_tick_at.get());
                    due.as_mut().poll(cx)
                })
                .await;
                state.quota_tick_at.set(Mono::NEVER);
                state.quota.borrow_mut().tick(state.now());
                state.look_after_quota();
            }
            state.quota_ticker.take();
        });
        if !started {
            // The next new bucket or message asks again.
            self.quota_tick_at.set(Mono::NEVER);
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

    /// What a connection's certificates still allow. Asked per request: no clone, no clock.
    #[must_use]
    pub fn standing(&self, stream: &Stream) -> Standing {
        match stream {
            Stream::Plain(_) => Standing::Good,
            Stream::Tls(connection) => self.standing_of(connection),
            Stream::Lane(lane) => self.standing_of(lane.connection()),
        }
    }

    /// As [`Self::standing`].
    #[must_use]
    pub fn standing_of(&self, connection: &TlsStream) -> Standing {
        connection.standing(self.material.borrow().as_deref(), self.now())
    }

    /// Why a downstream connection may do nothing more: its peer's certificate has been revoked, or its
    /// port has become STRICT and it is plaintext. Asked per request.
    #[must_use]
    pub fn refuses(&self, flow: &Flow, downstream: &Stream) -> Option<Reason> {
        match downstream {
            Stream::Tls(_) | Stream::Lane(_) => {
                (self.standing(downstream) == Standing::Revoked).then_some(Reason::PeerRefused)
            }
            Stream::Plain(_) => {
                (self.mtls_of(flow) == Some(MtlsMode::Strict)).then_some(Reason::PlaintextRefused)
            }
        }
    }

    /// Whether a connection takes no more requests: the sidecar drains, the connection is as old as
    /// its certificates, or its port takes plaintext only by now. The answer says so.
    #[must_use]
    pub fn must_close(&self, flow: &Flow, downstream: &Stream) -> bool {
        match downstream {
            Stream::Plain(_) => self.draining.get(),
            Stream::Tls(connection) => self.closes(flow, connection),
            Stream::Lane(lane) => self.closes(flow, lane.connection()),
        }
    }

    /// As [`Self::must_close`].
    #[must_use]
    pub fn closes(&self, flow: &Flow, connection: &TlsStream) -> bool {
        self.draining.get()
            || self.standing_of(connection) != Standing::Good
            || self.mtls_of(flow) == Some(MtlsMode::Disable)
    }

    /// What the port demands that a connection came in by; `None` for those of the local app.
    fn mtls_of(&self, flow: &Flow) -> Option<MtlsMode> {
        let Direction::Inbound { port } = flow.direction else {
            return None;
        };
        let active = self.active.borrow();
        Some(active.as_ref()?.tables.workload.ports.get(port)?.mtls)
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
        let mut pools = self.pools.borrow_mut();
        pools.begin_swap();
        let pool_of = |pools: &mut Pools, row: &ClusterRow, endpoint: &EndpointRow| {
            let link = endpoint.link;
            let sni = match link {
                // What stands for many addresses shares no pool with an endpoint at that one.
                Link::Plain(_) if endpoint.among.is_empty() => Box::from(""),
                Link::Plain(_) | Link::Mesh(_) | Link::Client { .. } => row.sni.clone(),
            };
            let owner = row.limits_connections().then(|| row.key.clone());
            let mut named = |lanes| {
                let key = PoolKey {
                    link,
                    sni: sni.clone(),
                    owner: owner.clone(),
                    lanes,
                };
                pools.named(&key, row.policy.idle_timeout_ms)
            };
            EndpointPools {
                own: named(false),
                lanes: matches!(link, Link::Mesh(_)).then(|| named(true)),
            }
        };
        let endpoints: Box<[Box<[EndpointPools]>]> = tables
            .clusters()
            .iter()
            .map(|row| {
                row.endpoints
                    .iter()
                    .map(|e| pool_of(&mut pools, row, e))
                    .collect()
            })
            .collect();
        let apps: Box<[PoolId]> = tables
            .workload
            .ports
            .iter()
            .map(|port| {
                let key = PoolKey {
                    link: Link::Plain(port.app),
                    sni: Box::from(""),
                    owner: None,
                    lanes: false,
                };
                pools.named(&key, u64::MAX)
            })
            .collect();
        pools.retire_unnamed();
        drop(pools);
        self.quota.borrow_mut().swap(&tables, self.now());
        let active = Rc::new(Active {
            tables,
            endpoints,
            apps,
        });
        let drain_ms = self.limits.plaintext_drain_ms;
        self.plaintext.examine(&self.ring, drain_ms, |port| {
            let row = active.tables.workload.ports.get(port);
            row.is_some_and(|row| row.mtls == MtlsMode::Strict)
        });
        let old = self.active.borrow_mut().replace(active);
        borrow::settle_debts(self);
        old
    }

    /// How a connection of a caller gets on to the app: with TPROXY in the caller's name, at the address
    /// that it called.
    pub fn app_link(&self, flow: &Flow, app: std::net::SocketAddr) -> Link {
        match flow.original_dst {
            Some(called) if self.tproxy => Link::Client {
                app: called,
                client: flow.peer.address.ip(),
            },
            _ => Link::Plain(app),
        }
    }

    /// The pool of connections to the app's port that go this way. With TPROXY of one caller, so that
    /// nobody is given a connection in another's name; it ends with its last connection.
    pub fn app_pool(&self, active: &Active, port: usize, link: Link) -> Option<PoolId> {
        match link {
            Link::Client { .. } => Some(self.pools.borrow_mut().passing(&PoolKey {
                link,
                sni: Box::from(""),
                owner: None,
                lanes: false,
            })),
            Link::Plain(_) | Link::Mesh(_) => active.app_pool(port),
        }
    }

    /// Gives connections that are gone back to the count of their clusters.
    pub fn note_closed(&self) {
        let mut balancer = self.balancer.borrow_mut();
        while let Some(open) = self.lines.next_gone() {
            balancer.closed(open);
        }
    }

    /// Closes an idle connection of a cluster, so that another can be made; false if there is none. An
    /// HTTP/2 connection says goodbye first: its place is free a little later, and the line called then.
    pub fn evict(&self, cluster: &ClusterKey) -> bool {
        let evicted = self.pools.borrow_mut().evict(cluster);
        self.note_closed();
        evicted || self.shared.borrow().evict(cluster)
    }

    /// Whether the next connection of a cluster that comes free is another shard's.
    pub fn is_owed(&self, slot: Slot) -> bool {
        let own_since = self.lines.since(slot);
        (self.balancer.borrow_mut()).is_owed(slot, own_since, self.now())
    }

    /// Takes a lane back whose last exchange has ended cleanly: into its pool, for the first in line; or, if
    /// it is counted and another shard's turn has come, it ends in favour of that.
    pub fn rest(self: &Rc<Self>, lane: Lane) {
        let counted_by = lane.opened.as_ref().map(Opened::cluster);
        if let Some(slot) = counted_by.filter(|slot| self.is_owed(*slot)) {
            if let Some(pool) = lane.pool {
                self.pools.borrow_mut().lost(pool);
            }
            drop(lane);
            return borrow::give_way(self, slot);
        }
        self.pools.borrow_mut().give_back(lane, self.now());
        self.sweep_while_idle();
        if let Some(slot) = counted_by {
            self.lines.call(slot);
        }
    }

    /// Has an HTTP/2 connection of a cluster take no more streams, unless one already ends.
    pub fn retire(&self, cluster: &ClusterKey) {
        self.shared.borrow().retire(cluster, self.now());
    }

    /// Sees to it that idle upstream connections are looked at when one ends or its time is over, and
    /// no longer than there are any: a quiet shard has no timers.
    pub fn sweep_while_idle(self: &Rc<Self>) {
        if self.sweeping.replace(true) {
            let sleeper = self.sweeper.take();
            if let Some(sleeper) = sleeper {
                sleeper.wake();
            }
            return;
        }
        let state = Rc::clone(self);
        let started = self.ring.spawn(async move {
            while state.pools.borrow().idle() > 0 {
                let ended = state.ring.end_unwatched();
                let next = state.pools.borrow_mut().sweep(state.now());
                // Ends that come together are looked at together.
                let soonest = state.now().plus_ms(SWEEP_PAUSE_MS).min(next);
                let due = state.ring.sleep_until(next);
                let is_long = next > state.now().plus_ms(SWEEP_LONG_MS);
                let given_back = poll_fn(|cx| {
                    if is_long && state.pools.borrow().was_given_back() {
                        return Poll::Ready(());
                    }
                    state.sweeper.replace(is_long.then(|| cx.waker().clone()));
                    Poll::Pending
                });
                wait::first(due, wait::first(ended, given_back)).await;
                state.sweeper.take();
                state.ring.sleep_until(soonest).await;
            }
            state.sweeping.set(false);
        });
        if !started {
            self.sweeping.set(false);
        }
    }
}
