//! The quota authority: facts in (sessions, messages, rules), wishes out ([`Authority::poll`]).
//!
//! Owns who holds the seed of which slot and which units of which contested bucket. Persists
//! nothing: after a restart the sidecars say what they hold, and nothing is granted before all have.
//! Runs in the control service for the mesh, and in a standalone sidecar for its shards.
//!
//! Invariants (docs/quotas.md):
//! - what a holder has is never more than the authority believes it has;
//! - a rule is *steady* while every enforcing sidecar is heard of, and none lives on its share; only
//!   then is anything granted or renewed. So when one sidecar may live on its share, no lease of
//!   any other is running.

mod account;
mod rule;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ringmesh_wire::snapshot::Limit;
use ringmesh_wire::{BucketId, Held, HeldRule, LeaseDown, LeaseUp, NodeId};

pub use account::Holder;
use rule::{Rule, Standing};

use crate::{HEARD_WITHIN_MS, LEASE_TTL_MS, Nanos, Units};

const TTL: Nanos = LEASE_TTL_MS as Nanos * 1_000_000;
const HEARD_WITHIN: Nanos = HEARD_WITHIN_MS * 1_000_000;

/// A lease stream; numbers are the caller's and never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub u64);

/// A quota rule, as far as the authority must know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFacts {
    /// Name.
    pub name: String,
    /// Its longest window, milliseconds.
    pub window_ms_max: u64,
    /// Sidecars that enforce it, also those not heard of since a restart: their silence blocks.
    pub enforcers: BTreeSet<NodeId>,
    /// What holds where no override does, for people.
    pub limit: Option<Limit>,
}

/// One contested bucket, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccountState {
    /// Which.
    pub bucket: BucketId,
    /// Units at the authority.
    pub pool: u64,
    /// Units at each holder.
    pub held: Vec<(Holder, u64)>,
}

/// One rule, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleState {
    /// Name.
    pub name: String,
    /// What holds where no override does; `None` for a rule there is no longer.
    pub limit: Option<Limit>,
    /// Grants are being made.
    pub steady: bool,
    /// Sidecars it waits for.
    pub waits_for: Vec<NodeId>,
    /// How many of the 64 slots each holder has the seed of.
    pub seeds: Vec<(Holder, u32)>,
    /// Contested buckets.
    pub accounts: Vec<AccountState>,
}

#[derive(Debug, Default)]
struct Node {
    boot: u64,
    /// The stream that counts.
    session: Option<Session>,
    ready: bool,
    /// It was certainly not lapsed before: when the answer was sent that its last beat confirms.
    heard: Option<Nanos>,
    /// When its last renewal was sent.
    renewed: Nanos,
    answered: Option<Nanos>,
    /// Buckets its report has named so far.
    said: BTreeSet<(Holder, BucketId)>,
}

/// See the module.
#[derive(Debug)]
pub struct Authority {
    born: Nanos,
    nodes: BTreeMap<NodeId, Node>,
    sessions: BTreeMap<Session, NodeId>,
    rules: BTreeMap<String, Rule>,
    /// Enforced before this authority began and not heard of since.
    from_before: BTreeSet<NodeId>,
    /// Registered when this authority began and not heard of since.
    known: BTreeSet<NodeId>,
    outbox: VecDeque<(Session, LeaseDown)>,
}

impl Authority {
    /// An authority that knows nothing yet but which sidecars were registered when it began: what
    /// those hold is waited for. A fresh mesh has none.
    #[must_use]
    pub fn new(now: Nanos, known: BTreeSet<NodeId>) -> Self {
        Self {
            born: now,
            nodes: BTreeMap::new(),
            sessions: BTreeMap::new(),
            rules: BTreeMap::new(),
            from_before: BTreeSet::new(),
            known,
            outbox: VecDeque::new(),
        }
    }

    /// The rules there are now. One that is missing is kept while a sidecar still holds it.
    pub fn rules(&mut self, facts: &[RuleFacts], now: Nanos) {
        for fact in facts {
            let rule = self.rules.entry(fact.name.clone()).or_default();
            if !rule.declared && rule.holders.is_empty() {
                // A rule that was deleted and comes again counts anew.
                *rule = Rule::default();
            }
            rule.declared = true;
            rule.limit = fact.limit;
            rule.window_max = rule
                .window_max
                .max(fact.window_ms_max.saturating_mul(1_000_000));
            // Sidecars that were waited for in vain: what they may have spent, nobody told.
            let unheard = rule.enforcers.difference(&fact.enforcers);
            if unheard
                .into_iter()
                .any(|node| self.from_before.contains(node))
            {
                rule.unsure(now.max(self.born + TTL));
            }
            let mut before = fact.enforcers.intersection(&self.known).cloned().peekable();
            if !rule.restarted && before.peek().is_some() {
                // Units that lay with the authority before this one, or were on their way from it,
                // may have been spent just before it ended.
                rule.restarted = true;
                rule.unsure(self.born);
                self.from_before.extend(before);
            }
            rule.enforcers.clone_from(&fact.enforcers);
        }
        for (name, rule) in &mut self.rules {
            if !facts.iter().any(|fact| fact.name == *name) {
                rule.enforcers.clear();
                rule.declared = false;
            }
        }
        self.tick(now);
    }

    /// A lease stream of an authenticated node was opened. Its first message is a Hello.
    pub fn connected(&mut self, session: Session, node: NodeId) {
        self.sessions.insert(session, node);
    }

    /// A lease stream ended.
    pub fn disconnected(&mut self, session: Session, now: Nanos) {
        let Some(node) = self.sessions.remove(&session) else {
            return;
        };
        if let Some(state) = self.nodes.get_mut(&node)
            && state.session == Some(session)
        {
            state.session = None;
            state.ready = false;
        }
        self.tick(now);
    }

    /// A message arrived. Of a stream that a later one has replaced, nothing counts.
    pub fn message(&mut self, session: Session, message: LeaseUp, now: Nanos) {
        let Some(node) = self.sessions.get(&session).cloned() else {
            return;
        };
        if let LeaseUp::Hello { boot, rules } = message {
            self.hello(session, &node, boot, &rules, now);
            return;
        }
        if self.nodes.get(&node).and_then(|state| state.session) != Some(session) {
            return;
        }
        match message {
            LeaseUp::Hello { .. } => {}
            LeaseUp::Hold(held) => self.hold(&node, held, now),
            LeaseUp::Ready => self.ready(&node, now),
            LeaseUp::Beat { seq } => self.beat(session, &node, seq, now),
            LeaseUp::Want {
                shard,
                bucket,
                need,
                demand,
            } => {
                self.want(&Holder { node, shard }, &bucket, need, demand, now);
            }
            LeaseUp::Return {
                shard,
                bucket,
                units,
                demand,
                answer,
            } => {
                let units = Units::from_wire(&units, now);
                self.given_back(&Holder { node, shard }, &bucket, units, demand, answer, now);
            }
            LeaseUp::Released { shard, rule, slots } => {
                self.released(&Holder { node, shard }, &rule, slots, now);
            }
            LeaseUp::Goodbye => self.goodbye(&node, now),
        }
    }

    /// Time passed; about ten times a second.
    pub fn tick(&mut self, now: Nanos) {
        self.bury(now);
        let names: Vec<String> = self.rules.keys().cloned().collect();
        for name in names {
            self.advance(&name, now);
            if let Some(rule) = self.rules.get_mut(&name)
                && steady(rule, &self.nodes, now)
            {
                let mut out = Vec::new();
                rule.settle_all(now, &mut out);
                self.send(out);
            }
        }
    }

    /// The next message to send.
    pub fn poll(&mut self) -> Option<(Session, LeaseDown)> {
        self.outbox.pop_front()
    }

    /// Everything, for people.
    #[must_use]
    pub fn state(&self, now: Nanos) -> Vec<RuleState> {
        let rules = self.rules.iter().map(|(name, rule)| {
            let mut seeds: BTreeMap<&Holder, u32> = BTreeMap::new();
            for owner in rule.slots.iter().filter_map(|slot| slot.owner.as_ref()) {
                *seeds.entry(owner).or_default() += 1;
            }
            let accounts = rule.accounts.iter().map(|(bucket, account)| AccountState {
                bucket: bucket.clone(),
                pool: account.pool.total(),
                held: account
                    .held
                    .iter()
                    .map(|(h, held)| (h.clone(), held.units))
                    .collect(),
            });
            let mut accounts: Vec<AccountState> = accounts.collect();
            accounts.sort_by(|a, b| a.bucket.cmp(&b.bucket));
            RuleState {
                name: name.clone(),
                limit: rule.limit,
                steady: steady(rule, &self.nodes, now),
                waits_for: silent(rule, &self.nodes, now).cloned().collect(),
                seeds: seeds
                    .into_iter()
                    .map(|(h, count)| (h.clone(), count))
                    .collect(),
                accounts,
            }
        });
        rules.collect()
    }

    fn hello(&mut self, session: Session, node: &NodeId, boot: u64, held: &[HeldRule], now: Nanos) {
        let before = self.nodes.get(node);
        let restarted = before.is_some_and(|state| state.boot != boot);
        let state = Node {
            boot,
            session: Some(session),
            renewed: before.map_or(self.born, |state| state.renewed),
            ..Node::default()
        };
        self.nodes.insert(node.clone(), state);
        if restarted {
            // A new process holds nothing, and the old one spends nothing any more.
            self.rules
                .values_mut()
                .for_each(|rule| rule.lose(node, now));
        }
        self.known.remove(node);
        if self.from_before.remove(node) {
            // It may have spent and given back until now, into a stream that led nowhere; or a
            // process before it may have.
            let mine = self
                .rules
                .values_mut()
                .filter(|rule| rule.enforcers.contains(node));
            mine.for_each(|rule| rule.unsure(now));
        }
        for held in held {
            let rule = self.rules.entry(held.rule.clone()).or_default();
            let holder = Holder {
                node: node.clone(),
                shard: held.shard,
            };
            rule.reported(&holder, held, now);
        }
        // A rule or shard it no longer speaks of, it no longer enforces.
        for (name, rule) in &mut self.rules {
            let spoken_of = |h: &Holder| held.iter().any(|x| x.rule == *name && x.shard == h.shard);
            for holder in rule.holders_of(node) {
                if !spoken_of(&holder) {
                    if rule.declared {
                        rule.lose_holder(&holder, now);
                    } else {
                        rule.forget(&holder);
                    }
                }
            }
        }
    }

    fn hold(&mut self, node: &NodeId, held: Vec<Held>, now: Nanos) {
        let Some(state) = self.nodes.get_mut(node) else {
            return;
        };
        for held in held {
            let holder = Holder {
                node: node.clone(),
                shard: held.shard,
            };
            let Some(rule) = self.rules.get_mut(&held.bucket.rule) else {
                continue;
            };
            if rule.holders.get(&holder) == Some(&Standing::Leased) {
                rule.hold(&holder, &held, now);
                state.said.insert((holder, held.bucket));
            }
        }
    }

    fn ready(&mut self, node: &NodeId, now: Nanos) {
        let Some(state) = self.nodes.get_mut(node) else {
            return;
        };
        let said = std::mem::take(&mut state.said);
        state.ready = true;
        for rule in self.rules.values_mut() {
            rule.unsaid(node, &said, now);
        }
        self.tick(now);
    }

    fn beat(&mut self, session: Session, node: &NodeId, seq: u64, now: Nanos) {
        let Some(state) = self.nodes.get_mut(node) else {
            return;
        };
        state.heard = state.answered.replace(now);
        if state.heard.is_some() {
            // What this confirms may be what others waited for. Seeds go out before the renewal.
            self.tick(now);
        }
        let due: Vec<String> = self
            .rules
            .iter()
            .filter(|(_, rule)| {
                let held = rule.holders_of(node);
                let leased = |h: &Holder| rule.holders.get(h) == Some(&Standing::Leased);
                !held.is_empty() && held.iter().all(leased) && steady(rule, &self.nodes, now)
            })
            .map(|(name, _)| name.clone())
            .collect();
        if let Some(state) = self.nodes.get_mut(node)
            && !due.is_empty()
        {
            state.renewed = now;
        }
        let renew = LeaseDown::Renew {
            seq,
            ttl_ms: LEASE_TTL_MS,
            rules: due,
        };
        self.outbox.push_back((session, renew));
    }

    fn want(&mut self, holder: &Holder, bucket: &BucketId, need: u64, demand: u64, now: Nanos) {
        let Some(rule) = self.rules.get_mut(&bucket.rule) else {
            return;
        };
        // Before everybody has said what he holds nothing is known; it will be asked for again.
        let mut out = Vec::new();
        if steady(rule, &self.nodes, now) && rule.want(holder, bucket, need, demand, now) {
            rule.settle(bucket, now, &mut out);
        }
        self.send(out);
    }

    fn given_back(
        &mut self,
        holder: &Holder,
        bucket: &BucketId,
        units: Units,
        demand: u64,
        answer: bool,
        now: Nanos,
    ) {
        let Some(rule) = self.rules.get_mut(&bucket.rule) else {
            return;
        };
        let is_steady = steady(rule, &self.nodes, now);
        let mut out = Vec::new();
        rule.given_back(holder, bucket, units, demand, answer, now);
        if is_steady {
            rule.settle(bucket, now, &mut out);
        }
        self.send(out);
    }

    fn released(&mut self, holder: &Holder, rule: &str, slots: u64, now: Nanos) {
        if let Some(rule) = self.rules.get_mut(rule) {
            rule.released(holder, slots, now);
        }
        self.tick(now);
    }

    fn goodbye(&mut self, node: &NodeId, now: Nanos) {
        self.rules
            .values_mut()
            .for_each(|rule| rule.lose(node, now));
        if let Some(state) = self.nodes.get_mut(node) {
            state.ready = false;
        }
        self.tick(now);
    }

    /// Gives up on sidecars that are neither connected nor known to enforce any more. Their leases
    /// end by themselves; until one window after that their units count as spent.
    fn bury(&mut self, now: Nanos) {
        for rule in self.rules.values_mut() {
            let holders: BTreeSet<NodeId> = rule.holders.keys().map(|h| h.node.clone()).collect();
            for node in holders {
                let state = self.nodes.get(&node);
                if rule.enforcers.contains(&node) || state.is_some_and(|s| s.session.is_some()) {
                    continue;
                }
                let last = state.map_or(self.born, |s| s.renewed) + TTL;
                rule.lose(&node, last.max(now));
                rule.buried.insert(node);
            }
        }
        self.rules
            .retain(|_, rule| rule.declared || !rule.holders.is_empty());
    }

    fn advance(&mut self, name: &str, now: Nanos) {
        let Some(rule) = self.rules.get_mut(name) else {
            return;
        };
        if silent(rule, &self.nodes, now).next().is_some() {
            return;
        }
        let mut out = Vec::new();
        rule.surrender_lapsed(name, now, &mut out);
        if steady(rule, &self.nodes, now) {
            let nodes = &self.nodes;
            let able = |h: &Holder| nodes.get(&h.node).is_some_and(|state| state.ready);
            rule.assign_slots(name, able, now, &mut out);
            rule.rebalance(name, able, &mut out);
        }
        self.send(out);
    }

    fn send(&mut self, out: Vec<(Holder, LeaseDown)>) {
        for (holder, message) in out {
            // Before its report is complete a sidecar is told nothing: the report would not show
            // it. What is lost here is found missing by the report.
            if let Some(state) = self.nodes.get(&holder.node)
                && let (Some(session), true) = (state.session, state.ready)
            {
                self.outbox.push_back((session, message));
            }
        }
    }
}

fn silent<'a>(
    rule: &'a Rule,
    nodes: &'a BTreeMap<NodeId, Node>,
    now: Nanos,
) -> impl Iterator<Item = &'a NodeId> {
    rule.enforcers.iter().filter(move |node| {
        let heard = nodes
            .get(*node)
            .filter(|state| state.ready)
            .and_then(|state| state.heard);
        heard.is_none_or(|heard| now.saturating_sub(heard) > HEARD_WITHIN)
    })
}

fn steady(rule: &Rule, nodes: &BTreeMap<NodeId, Node>, now: Nanos) -> bool {
    silent(rule, nodes, now).next().is_none()
        && rule
            .holders
            .values()
            .all(|standing| *standing == Standing::Leased)
}
