//! Processes, links and time.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use ringmesh_quota::{
    Authority, Cells, FromCells, Home, Link, Memo, RuleFacts, Session, ToCells, Verdict, Wish,
};
use ringmesh_wire::expr::{ExprNode, Value};
use ringmesh_wire::snapshot::{Applies, Limit, OnQuotaUnavailable, QuotaRule, QuotaScope};
use ringmesh_wire::{Expr, LeaseDown, LeaseUp, NodeId};

const MS: u64 = 1_000_000;

#[derive(Debug, Clone)]
pub(crate) struct Load {
    pub(crate) nodes: u16,
    pub(crate) shards: u16,
    pub(crate) amount: u64,
    pub(crate) window_ms: u64,
    pub(crate) buckets: usize,
    pub(crate) per_second: f64,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Faults {
    /// Mean time between faults; 0 is none.
    every_ms: u64,
    /// A message's slowest way.
    delay_ms_max: u64,
}

impl Faults {
    pub(crate) fn all() -> Self {
        Self {
            every_ms: 4_000,
            delay_ms_max: 120,
        }
    }

    pub(crate) fn none() -> Self {
        Self {
            every_ms: 0,
            delay_ms_max: 2,
        }
    }
}

#[derive(Debug)]
enum Event {
    Request,
    Tick,
    Fault,
    StartAuthority,
    StartNode(u16),
    /// The node's registration is withdrawn (it was dead then).
    Unlist(u16, u64),
    Open {
        node: u16,
        boot: u64,
    },
    Up {
        session: u64,
        message: Option<LeaseUp>,
    },
    Down {
        session: u64,
        message: Option<LeaseDown>,
    },
    ToShard {
        node: u16,
        boot: u64,
        shard: u16,
        message: ToCells,
    },
    FromShard {
        node: u16,
        boot: u64,
        shard: u16,
        message: FromCells,
    },
}

struct Node {
    boot: u64,
    alive: bool,
    offset: u64,
    link: Link,
    cells: Vec<Cells>,
    /// What callers remember, by shard and bucket.
    memos: Vec<Vec<Memo>>,
    session: Option<u64>,
    opening: bool,
    cut_until: u64,
    /// In-order delivery: the last arrival per direction.
    inbox: Vec<u64>,
    outbox: Vec<u64>,
}

struct Stream {
    node: u16,
    boot: u64,
    authority: u64,
    open: bool,
    up: u64,
    down: u64,
}

pub(crate) struct World {
    seed: u64,
    dice: fastrand::Rng,
    load: Load,
    faults: Faults,
    now: u64,
    order: u64,
    queue: BinaryHeap<Reverse<(u64, u64)>>,
    events: BTreeMap<u64, Event>,
    authority: Option<Authority>,
    authority_boot: u64,
    authority_offset: u64,
    nodes: Vec<Node>,
    listed: BTreeSet<u16>,
    streams: BTreeMap<u64, Stream>,
    boots: u64,
    windows: Vec<VecDeque<u64>>,
    ideal: Vec<VecDeque<u64>>,
    pub(crate) admitted: u64,
    pub(crate) possible: u64,
    traced: bool,
}

fn rule(load: &Load) -> QuotaRule {
    let key = Expr {
        nodes: vec![ExprNode::Const(Value::String(String::new()))],
    };
    QuotaRule {
        name: "rule".into(),
        when: None,
        dimensions: vec![("key".into(), key)],
        charge: 1,
        limit: Limit {
            amount_max: load.amount,
            window_ms: load.window_ms,
        },
        overrides: Vec::new(),
        scope: QuotaScope::Dimensions,
        applies: Applies::Inbound,
        enforcers: u32::from(load.nodes),
        group: 0,
    }
}

fn node_id(node: u16) -> NodeId {
    NodeId(format!("node-{node}"))
}

impl World {
    pub(crate) fn new(seed: u64, load: &Load, faults: Faults) -> Self {
        let mut world = Self {
            seed,
            dice: fastrand::Rng::with_seed(seed),
            load: load.clone(),
            faults,
            now: 1_000 * MS,
            order: 0,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            authority: None,
            authority_boot: 0,
            authority_offset: 0,
            nodes: Vec::new(),
            listed: (0..load.nodes).collect(),
            streams: BTreeMap::new(),
            boots: 0,
            windows: vec![VecDeque::new(); load.buckets],
            ideal: vec![VecDeque::new(); load.buckets],
            admitted: 0,
            possible: 0,
            traced: std::env::var_os("TRACE").is_some(),
        };
        world.start_authority();
        for node in 0..load.nodes {
            let made = world.boot_node();
            world.nodes.push(made);
            world.serve_link(node);
        }
        world.at(0, Event::Tick);
        world.at(500 * MS, Event::Request);
        if faults.every_ms > 0 {
            world.at(faults.every_ms * MS, Event::Fault);
        }
        world
    }

    pub(crate) fn run(&mut self, length: u64) {
        let end = self.now + length;
        while let Some(Reverse((at, order))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = at;
            if let Some(event) = self.events.remove(&order) {
                self.happen(event);
            }
        }
        self.now = end;
    }

    pub(crate) fn forget_counts(&mut self) {
        self.admitted = 0;
        self.possible = 0;
        // The ideal limiter starts from what was really spent.
        self.ideal.clone_from(&self.windows);
    }

    pub(crate) fn is_steady(&self) -> bool {
        let now = self.now + self.authority_offset;
        self.authority
            .as_ref()
            .is_some_and(|authority| authority.state(now).iter().all(|rule| rule.steady))
    }

    pub(crate) fn kill_authority(&mut self) {
        self.trace(|| "authority dies".into());
        self.authority = None;
        self.authority_boot += 1;
        let broken: Vec<u64> = self.streams.keys().copied().collect();
        broken
            .into_iter()
            .for_each(|session| self.break_stream(session));
    }

    pub(crate) fn start_authority(&mut self) {
        self.authority_offset = self.dice.u64(0..1_000_000) * MS;
        let known = self.listed.iter().map(|node| node_id(*node)).collect();
        let now = self.now + self.authority_offset;
        self.authority = Some(Authority::new(now, known));
        self.tell_rules();
    }

    fn tell_rules(&mut self) {
        let facts = RuleFacts {
            limit: None,
            name: "rule".into(),
            window_ms_max: self.load.window_ms,
            enforcers: self.listed.iter().map(|node| node_id(*node)).collect(),
        };
        let now = self.now + self.authority_offset;
        if let Some(authority) = &mut self.authority {
            authority.rules(&[facts], now);
        }
        self.serve_authority();
    }

    fn boot_node(&mut self) -> Node {
        self.boots += 1;
        let offset = self.dice.u64(0..1_000_000) * MS;
        let cells = (0..self.load.shards).map(|shard| {
            let home = Home {
                shard,
                shards: self.load.shards,
                standalone: false,
            };
            let mut cells = Cells::new(home, self.dice.u64(..));
            cells.install(
                [&rule(&self.load)],
                OnQuotaUnavailable::Share,
                self.now + offset,
            );
            cells
        });
        Node {
            boot: self.boots,
            alive: true,
            offset,
            cells: cells.collect(),
            memos: (0..self.load.shards)
                .map(|_| (0..self.load.buckets).map(|_| Memo::default()).collect())
                .collect(),
            link: Link::new(self.boots, self.load.shards),
            session: None,
            opening: false,
            cut_until: 0,
            inbox: vec![0; usize::from(self.load.shards)],
            outbox: vec![0; usize::from(self.load.shards)],
        }
    }

    fn at(&mut self, delay: u64, event: Event) {
        self.order += 1;
        self.queue.push(Reverse((self.now + delay, self.order)));
        self.events.insert(self.order, event);
    }

    fn delay(&mut self) -> u64 {
        let max = self.faults.delay_ms_max * MS;
        // Mostly quick.
        if self.dice.u8(0..10) == 0 {
            self.dice.u64(0..max)
        } else {
            self.dice.u64(0..max / 10)
        }
    }

    /// `TRACE=1` prints what happens, for a failing seed.
    fn trace(&self, what: impl FnOnce() -> String) {
        if self.traced {
            println!("{:>9.3} {}", self.now as f64 / 1e9, what());
        }
    }

    fn happen(&mut self, event: Event) {
        match &event {
            Event::Request | Event::Tick | Event::Fault => {}
            Event::Up {
                message: Some(LeaseUp::Beat { .. }),
                ..
            }
            | Event::Down {
                message: Some(LeaseDown::Renew { .. }),
                ..
            }
            | Event::ToShard {
                message: ToCells::Renewed { .. },
                ..
            } => {}
            Event::Up { session, .. } | Event::Down { session, .. } => {
                let node = self.streams.get(session).map(|stream| stream.node);
                self.trace(|| format!("node {node:?} {event:?}"));
            }
            _ => self.trace(|| format!("{event:?}")),
        }
        match event {
            Event::Request => self.request(),
            Event::Tick => self.tick(),
            Event::Fault => self.fault(),
            Event::StartAuthority => {
                if self.authority.is_none() {
                    self.start_authority();
                }
            }
            Event::StartNode(node) => self.restart_node(node),
            Event::Unlist(node, boot) => {
                let state = &self.nodes[usize::from(node)];
                if !state.alive && state.boot == boot {
                    self.listed.remove(&node);
                    self.tell_rules();
                }
            }
            Event::Open { node, boot } => self.open(node, boot),
            Event::Up { session, message } => self.up(session, message),
            Event::Down { session, message } => self.down(session, message),
            Event::ToShard {
                node,
                boot,
                shard,
                message,
            } => {
                let state = &mut self.nodes[usize::from(node)];
                if state.alive && state.boot == boot {
                    let now = self.now + state.offset;
                    state.cells[usize::from(shard)].handle(message, now);
                    self.serve_cells(node, shard);
                }
            }
            Event::FromShard {
                node,
                boot,
                shard,
                message,
            } => {
                let state = &mut self.nodes[usize::from(node)];
                if state.alive && state.boot == boot {
                    let now = self.now + state.offset;
                    state.link.from_cells(shard, message, now);
                    self.serve_link(node);
                }
            }
        }
    }

    fn request(&mut self) {
        let gap = -(1.0 - self.dice.f64()).ln() / self.load.per_second;
        // Bursts: now and then many at once.
        let gap = if self.faults.every_ms > 0 && self.dice.u8(0..8) > 0 {
            gap * 0.2
        } else {
            gap
        };
        self.at((gap * 1e9) as u64, Event::Request);
        let bucket = self.dice.usize(0..self.load.buckets);
        let node = self.dice.usize(0..self.nodes.len());
        let shard = self.dice.usize(0..usize::from(self.load.shards));
        let window = self.load.window_ms * MS;
        let ideal = &mut self.ideal[bucket];
        while ideal.front().is_some_and(|at| at + window <= self.now) {
            ideal.pop_front();
        }
        if (ideal.len() as u64) < self.load.amount {
            ideal.push_back(self.now);
            self.possible += 1;
        }
        let state = &mut self.nodes[node];
        // Whom the registry does not know, no caller reaches.
        if !state.alive || !self.listed.contains(&(node as u16)) {
            return;
        }
        let now = self.now + state.offset;
        let memo = &mut state.memos[shard][bucket];
        let remembered = state.cells[shard].again(memo, now);
        let verdict = remembered.unwrap_or_else(|| {
            let mut ask = state.cells[shard].ask();
            ask.rule(0).value_of(bucket);
            ask.decide_noting(now, memo)
        });
        if verdict == Verdict::Admit {
            self.admitted += 1;
            self.trace(|| format!("node {node} shard {shard} admits for {bucket}"));
            let spent = &mut self.windows[bucket];
            while spent.front().is_some_and(|at| at + window <= self.now) {
                spent.pop_front();
            }
            spent.push_back(self.now);
            assert!(
                spent.len() as u64 <= self.load.amount,
                "seed {}: {} in one window of {:?} at {} ms",
                self.seed,
                spent.len(),
                self.load,
                self.now / MS
            );
        }
        self.serve_cells(node as u16, shard as u16);
    }

    fn tick(&mut self) {
        self.at(50 * MS, Event::Tick);
        for node in 0..self.nodes.len() {
            let state = &mut self.nodes[node];
            if !state.alive {
                continue;
            }
            let now = self.now + state.offset;
            state.link.tick(now);
            state.cells.iter_mut().for_each(|cells| cells.tick(now));
            self.serve_link(node as u16);
            for shard in 0..self.load.shards {
                self.serve_cells(node as u16, shard);
            }
        }
        let now = self.now + self.authority_offset;
        if let Some(authority) = &mut self.authority {
            authority.tick(now);
        }
        self.serve_authority();
    }

    fn fault(&mut self) {
        let gap = self.dice.u64(0..2 * self.faults.every_ms) * MS;
        self.at(gap, Event::Fault);
        let node = self.dice.u16(0..self.load.nodes);
        match self.dice.u8(0..10) {
            0 | 1 => {
                self.kill_authority();
                let away = *self
                    .dice
                    .choice(&[200, 1_500, 4_000, 9_000, 25_000])
                    .expect("there are some");
                self.at(away * MS, Event::StartAuthority);
            }
            2 | 3 => self.kill_node(node),
            // A partition: the node stays listed, callers still reach it.
            4 | 5 => {
                let state = &mut self.nodes[usize::from(node)];
                state.cut_until = self.now + self.dice.u64(0..30_000) * MS;
                let until = state.cut_until / MS;
                self.trace(|| format!("node {node} is cut off until {until}"));
                let state = &self.nodes[usize::from(node)];
                if let Some(session) = state.session {
                    self.break_stream(session);
                }
            }
            _ => {
                if let Some(session) = self.nodes[usize::from(node)].session {
                    self.break_stream(session);
                }
            }
        }
    }

    fn kill_node(&mut self, node: u16) {
        let state = &mut self.nodes[usize::from(node)];
        if !state.alive {
            return;
        }
        state.alive = false;
        let boot = state.boot;
        if let Some(session) = state.session.take() {
            self.break_stream(session);
        }
        self.trace(|| format!("node {node} dies"));
        self.at(3_000 * MS, Event::Unlist(node, boot));
        let away = self.dice.u64(0..20_000) * MS;
        self.at(away, Event::StartNode(node));
    }

    fn restart_node(&mut self, node: u16) {
        if self.nodes[usize::from(node)].alive {
            return;
        }
        self.nodes[usize::from(node)] = self.boot_node();
        self.serve_link(node);
    }

    /// What is on its way is lost; each side notices in its own time.
    fn break_stream(&mut self, session: u64) {
        let Some(stream) = self.streams.get_mut(&session) else {
            return;
        };
        if !stream.open {
            return;
        }
        stream.open = false;
        let (up, down) = (self.dice.u64(0..3_000) * MS, self.dice.u64(0..3_000) * MS);
        self.at(
            up,
            Event::Up {
                session,
                message: None,
            },
        );
        self.at(
            down,
            Event::Down {
                session,
                message: None,
            },
        );
    }

    fn open(&mut self, node: u16, boot: u64) {
        let state = &mut self.nodes[usize::from(node)];
        if !state.alive || state.boot != boot {
            return;
        }
        if self.authority.is_none() || state.cut_until > self.now {
            let wait = self.dice.u64(50..800) * MS;
            self.at(wait, Event::Open { node, boot });
            return;
        }
        state.opening = false;
        if let Some(old) = state.session.take() {
            self.break_stream(old);
        }
        let session = self.order;
        self.order += 1;
        let stream = Stream {
            node,
            boot,
            authority: self.authority_boot,
            open: true,
            up: 0,
            down: 0,
        };
        self.streams.insert(session, stream);
        if let Some(authority) = &mut self.authority {
            authority.connected(Session(session), node_id(node));
        }
        // Registered by the same link.
        if self.listed.insert(node) {
            self.tell_rules();
        }
        let state = &mut self.nodes[usize::from(node)];
        state.session = Some(session);
        state.link.opened();
        self.serve_link(node);
    }

    fn up(&mut self, session: u64, message: Option<LeaseUp>) {
        let Some(stream) = self.streams.get(&session) else {
            return;
        };
        if stream.authority != self.authority_boot {
            return;
        }
        let now = self.now + self.authority_offset;
        let Some(authority) = &mut self.authority else {
            return;
        };
        match message {
            Some(message) if stream.open => authority.message(Session(session), message, now),
            Some(_) => {}
            None => authority.disconnected(Session(session), now),
        }
        self.serve_authority();
    }

    fn down(&mut self, session: u64, message: Option<LeaseDown>) {
        let Some(stream) = self.streams.get(&session) else {
            return;
        };
        let state = &mut self.nodes[usize::from(stream.node)];
        if !state.alive || state.boot != stream.boot || state.session != Some(session) {
            return;
        }
        let now = self.now + state.offset;
        let node = stream.node;
        match message {
            Some(message) if stream.open => state.link.from_authority(message, now),
            Some(_) => {}
            None => {
                state.session = None;
                state.link.closed();
            }
        }
        self.serve_link(node);
    }

    fn serve_authority(&mut self) {
        let Some(mut authority) = self.authority.take() else {
            return;
        };
        while let Some((session, message)) = authority.poll() {
            let delay = self.delay();
            let Some(stream) = self.streams.get_mut(&session.0) else {
                continue;
            };
            stream.down = stream.down.max(self.now + delay);
            let (wait, session) = (stream.down - self.now, session.0);
            self.at(
                wait,
                Event::Down {
                    session,
                    message: Some(message),
                },
            );
        }
        self.authority = Some(authority);
    }

    fn serve_link(&mut self, node: u16) {
        while let Some(wish) = self.nodes[usize::from(node)].link.poll() {
            let delay = self.delay();
            let hop = self.dice.u64(0..3 * MS);
            let state = &mut self.nodes[usize::from(node)];
            let boot = state.boot;
            match wish {
                Wish::Open => {
                    if !state.opening {
                        state.opening = true;
                        self.at(delay, Event::Open { node, boot });
                    }
                }
                Wish::Send(message) => {
                    let Some(session) = state.session else {
                        continue;
                    };
                    let stream = self.streams.get_mut(&session).expect("it is open");
                    stream.up = stream.up.max(self.now + delay);
                    let wait = stream.up - self.now;
                    self.at(
                        wait,
                        Event::Up {
                            session,
                            message: Some(message),
                        },
                    );
                }
                Wish::ToShard(shard, message) => {
                    let last = &mut state.inbox[usize::from(shard)];
                    *last = (*last).max(self.now + hop);
                    let wait = *last - self.now;
                    self.at(
                        wait,
                        Event::ToShard {
                            node,
                            boot,
                            shard,
                            message,
                        },
                    );
                }
            }
        }
    }

    fn serve_cells(&mut self, node: u16, shard: u16) {
        loop {
            let hop = self.dice.u64(0..3 * MS);
            let state = &mut self.nodes[usize::from(node)];
            let boot = state.boot;
            let Some(message) = state.cells[usize::from(shard)].poll() else {
                return;
            };
            let last = &mut state.outbox[usize::from(shard)];
            *last = (*last).max(self.now + hop);
            let wait = *last - self.now;
            self.at(
                wait,
                Event::FromShard {
                    node,
                    boot,
                    shard,
                    message,
                },
            );
        }
    }
}
