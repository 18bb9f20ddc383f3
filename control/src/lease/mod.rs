//! The quota authority's shell: lease streams in, leases out.
//!
//! Owns: one task with a [`ringmesh_quota::Authority`], which decides everything. May not decide,
//! and holds no lock: streams are queues, the rules come by a watch. Nothing is granted before the
//! first rules have come, because with them come the sidecars known from before a restart.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ringmesh_quota::{Authority, Nanos, RuleFacts, RuleState, Session};
use ringmesh_wire::{LeaseDown, LeaseUp, NodeId};
use tokio::sync::{mpsc, oneshot, watch};

use crate::publish::{LeaseDoor, LeaseLink};

/// Facts that may wait for the task: a stream that brings more waits with them.
const FACTS_MAX: usize = 4_096;
/// How often the authority looks at its clock.
const TICK: Duration = Duration::from_millis(100);

#[derive(Debug)]
enum Fact {
    Opened(LeaseLink),
    Said(Session, LeaseUp),
    Ended(Session),
    Asked(oneshot::Sender<Vec<RuleState>>),
}

/// The door to the authority.
#[derive(Debug)]
pub struct QuotaAuthority {
    facts: mpsc::Sender<Fact>,
}

impl QuotaAuthority {
    /// Starts the task; it ends when the last door is dropped. `rules` is `None` until control has
    /// looked at its rules and its registry for the first time. `known` are the sidecars that were
    /// registered when control began: what they hold is waited for.
    #[must_use]
    pub fn start(
        known: BTreeSet<NodeId>,
        rules: watch::Receiver<Option<Arc<Vec<RuleFacts>>>>,
    ) -> Arc<Self> {
        let (facts, queue) = mpsc::channel(FACTS_MAX);
        let shell = Shell {
            started: Instant::now(),
            authority: Authority::new(0, known),
            tell: facts.downgrade(),
            streams: HashMap::new(),
            sessions: 0,
        };
        tokio::spawn(shell.run(queue, rules));
        Arc::new(Self { facts })
    }

    /// What is held by whom, for people.
    pub async fn state(&self) -> Vec<RuleState> {
        let (answer, state) = oneshot::channel();
        if self.facts.send(Fact::Asked(answer)).await.is_err() {
            return Vec::new();
        }
        state.await.unwrap_or_default()
    }
}

impl LeaseDoor for QuotaAuthority {
    fn opened(&self, link: LeaseLink) {
        // Full: the link is dropped, which ends its stream; the sidecar opens another one.
        if self.facts.try_send(Fact::Opened(link)).is_err() {
            tracing::warn!("the quota authority is behind: a lease stream is refused");
        }
    }
}

struct Shell {
    started: Instant,
    authority: Authority,
    tell: mpsc::WeakSender<Fact>,
    streams: HashMap<Session, mpsc::Sender<LeaseDown>>,
    sessions: u64,
}

impl Shell {
    async fn run(
        mut self,
        mut queue: mpsc::Receiver<Fact>,
        mut rules: watch::Receiver<Option<Arc<Vec<RuleFacts>>>>,
    ) {
        if rules.wait_for(Option::is_some).await.is_err() {
            return;
        }
        rules.mark_changed();
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                // The registry first: it names the sidecars that a restart must wait for.
                biased;
                changed = rules.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let facts = rules.borrow_and_update().clone().unwrap_or_default();
                    self.authority.rules(&facts, self.now());
                }
                fact = queue.recv() => match fact {
                    Some(fact) => self.take(fact),
                    None => return,
                },
                _ = ticks.tick() => self.authority.tick(self.now()),
            }
            self.send();
        }
    }

    fn now(&self) -> Nanos {
        u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    fn take(&mut self, fact: Fact) {
        let now = self.now();
        match fact {
            Fact::Opened(link) => self.opened(link),
            Fact::Said(session, message) => self.authority.message(session, message, now),
            Fact::Ended(session) => self.ended(session),
            Fact::Asked(answer) => {
                // Who asked may have gone away.
                let _ = answer.send(self.authority.state(now));
            }
        }
    }

    fn opened(&mut self, link: LeaseLink) {
        let Some(tell) = self.tell.upgrade() else {
            return;
        };
        self.sessions += 1;
        let session = Session(self.sessions);
        self.authority.connected(session, link.node);
        self.streams.insert(session, link.down);
        let mut up = link.up;
        tokio::spawn(async move {
            while let Some(message) = up.recv().await {
                if tell.send(Fact::Said(session, message)).await.is_err() {
                    return;
                }
            }
            let _ = tell.send(Fact::Ended(session)).await;
        });
    }

    fn ended(&mut self, session: Session) {
        self.streams.remove(&session);
        self.authority.disconnected(session, self.now());
    }

    fn send(&mut self) {
        while let Some((session, message)) = self.authority.poll() {
            let Some(stream) = self.streams.get(&session) else {
                continue;
            };
            if stream.try_send(message).is_err() {
                // It does not read. Its next stream says what it holds; nothing is lost but time.
                self.ended(session);
            }
        }
    }
}

#[cfg(test)]
mod tests;
