//! Room under a limit that this shard has used up: borrowed of the other shards.
//!
//! A request that finds none asks all others at once and waits for their answers, [`ANSWER_MS`] at
//! most. Only where none has any is it refused. The sums are `balance`'s; here is only who asks whom
//! and who waits.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};

use super::state::ShardState;
use crate::balance::{ANSWER_MS, Ask, Balancer, Claim, Credits, Limit, Slot};
use crate::reason::Reason;
use crate::shard::Peers;
use crate::tables::ClusterKey;
use crate::wait;

/// Requests that wait for an answer at once; above, a request is refused as if there were none.
const WAITING_MAX: usize = 256;

/// The other shards, and who waits for word of them.
#[derive(Debug, Default)]
pub struct Borrowing {
    peers: RefCell<Option<Peers>>,
    /// Answers heard.
    heard: Cell<u64>,
    wakers: RefCell<Vec<Waker>>,
}

impl Borrowing {
    /// Whether there is anybody to ask.
    pub(super) fn has_peers(&self) -> bool {
        self.peers.borrow().is_some()
    }

    /// Tells who the others are.
    pub fn set_peers(&self, peers: Peers) {
        *self.peers.borrow_mut() = Some(peers);
    }

    fn hear(&self) {
        self.heard.set(self.heard.get() + 1);
        for waker in self.wakers.borrow_mut().drain(..) {
            waker.wake();
        }
    }

    /// Resolves at the next answer; at once where too many wait.
    async fn answer(&self) -> Result<(), Reason> {
        let seen = self.heard.get();
        poll_fn(|cx| {
            if self.heard.get() != seen {
                return Poll::Ready(Ok(()));
            }
            let mut wakers = self.wakers.borrow_mut();
            if wakers.iter().any(|waker| waker.will_wake(cx.waker())) {
                return Poll::Pending;
            }
            if wakers.len() >= WAITING_MAX {
                return Poll::Ready(Err(Reason::Overflow));
            }
            wakers.push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// Takes one of `limit`: `take` tries here, and again whenever another shard has answered.
///
/// # Errors
/// [`Reason::Overflow`] if no shard has any; others of `take`.
pub(super) async fn take<T>(
    shard: &ShardState,
    slot: Slot,
    limit: Limit,
    mut take: impl FnMut(&mut Balancer) -> Result<T, Reason>,
) -> Result<T, Reason> {
    let mut give_up = pin!(shard.ring.sleep_until(shard.now().plus_ms(ANSWER_MS)));
    loop {
        let taken = take(&mut shard.balancer.borrow_mut());
        match taken {
            Err(Reason::Overflow) if ask(shard, slot, limit) => {}
            taken => return taken,
        }
        wait::or_timeout(shard.borrowing.answer(), give_up.as_mut())
            .await
            .unwrap_or(Err(Reason::Overflow))?;
    }
}

/// Asks ahead of need where the next one would be refused and nobody could wait for an answer.
pub(super) fn ahead(shard: &ShardState, slot: Slot, limit: Limit) {
    if shard.borrowing.has_peers() && shard.balancer.borrow_mut().is_short(slot, limit) {
        ask(shard, slot, limit);
    }
}

/// Asks the others, unless they are asked already. False: there is nothing to wait for.
fn ask(shard: &ShardState, slot: Slot, limit: Limit) -> bool {
    let peers = shard.borrowing.peers.borrow();
    let Some(peers) = &*peers else { return false };
    let since = match limit {
        Limit::Connections => shard.lines.since(slot),
        Limit::Pending | Limit::Requests | Limit::Retries => None,
    };
    let mut balancer = shard.balancer.borrow_mut();
    match balancer.ask(slot, limit, since, shard.now()) {
        Ask::Wait => true,
        Ask::Refused => false,
        Ask::Now(question) => {
            let Credits::Want { round, .. } = question else {
                return false;
            };
            let deaf = peers.send_all(&question);
            // A shard that takes no messages has nothing to give.
            for _ in 0..deaf {
                balancer.lent(slot, limit, round, 0, shard.now());
            }
            deaf < peers.others()
        }
    }
}

/// Takes in what another shard says.
pub fn hear(shard: &ShardState, message: Credits) {
    let Some(active) = shard.active() else {
        return;
    };
    let tables = &active.tables;
    let peers = shard.borrowing.peers.borrow();
    let Some(peers) = &*peers else { return };
    match message {
        Credits::Want {
            from,
            cluster,
            limit,
            round,
            slot,
            since,
        } => {
            let own_slot = shard.balancer.borrow_mut().slot_named(tables, &cluster);
            let credits = own_slot.map_or(0, |own| lend(shard, own, &cluster, limit));
            if credits == 0
                && let (Some(own), Some(since)) = (own_slot, since)
            {
                let claim = Claim { from, slot, since };
                let now = shard.now();
                shard.balancer.borrow_mut().claim(own, claim, now);
                give_way(shard, own);
                if shard.is_owed(own) {
                    // It has the place when the connection has ended.
                    shard.retire(&cluster);
                }
            }
            let answer = Credits::Lent {
                from: peers.own(),
                limit,
                round,
                slot,
                credits,
            };
            if !peers.send(from, answer) {
                let mut balancer = shard.balancer.borrow_mut();
                balancer.take_back(tables, &cluster, limit, credits.into());
            }
        }
        Credits::Lent {
            from,
            limit,
            round,
            slot,
            credits,
        } => {
            let mut balancer = shard.balancer.borrow_mut();
            balancer.lent(slot, limit, round, credits, shard.now());
            if credits > 0 && limit == Limit::Connections {
                balancer.given_by(slot, from);
            }
            drop(balancer);
            heard(shard, slot);
        }
        Credits::Yielded { from, slot } => {
            let mut balancer = shard.balancer.borrow_mut();
            balancer.yielded(slot);
            balancer.given_by(slot, from);
            drop(balancer);
            heard(shard, slot);
        }
        Credits::Owed {
            cluster,
            limit,
            credits,
            passed,
        } => {
            let mut balancer = shard.balancer.borrow_mut();
            let rest = balancer.owe(tables, &cluster, limit, credits);
            pass_debt(peers, &mut balancer, shard, cluster, limit, rest, passed);
        }
    }
}

/// What another shard that asks may have at once.
fn lend(shard: &ShardState, slot: Slot, cluster: &ClusterKey, limit: Limit) -> u32 {
    if limit != Limit::Connections {
        return shard.balancer.borrow_mut().lend(slot, limit, 0);
    }
    shard.note_closed();
    let kept = u32::try_from(shard.lines.len(slot)).unwrap_or(u32::MAX);
    let credits = shard.balancer.borrow_mut().lend(slot, limit, kept);
    if credits == 0 && kept == 0 && shard.evict(cluster) {
        return shard.balancer.borrow_mut().lend(slot, limit, kept);
    }
    credits
}

/// Gives what connections have come free to the shards whose turn it is.
pub(super) fn give_way(shard: &ShardState, slot: Slot) {
    let peers = shard.borrowing.peers.borrow();
    let Some(peers) = &*peers else { return };
    shard.note_closed();
    let own_since = shard.lines.since(slot);
    let mut balancer = shard.balancer.borrow_mut();
    while let Some(claim) = balancer.give_way(slot, own_since, shard.now()) {
        let yielded = Credits::Yielded {
            from: peers.own(),
            slot: claim.slot,
        };
        if !peers.send(claim.from, yielded) {
            balancer.yielded(slot);
        }
    }
}

/// Credits may have come: for who waits for an answer, and the first in line, which may have waited for
/// too long to hear the answer.
fn heard(shard: &ShardState, slot: Slot) {
    shard.borrowing.hear();
    shard.lines.call(slot);
}

/// After a swap: what is owed goes to the next shard.
pub(super) fn settle_debts(shard: &Rc<ShardState>) {
    let peers = shard.borrowing.peers.borrow();
    let Some(peers) = &*peers else { return };
    let mut balancer = shard.balancer.borrow_mut();
    for (cluster, limit, credits) in balancer.debts() {
        pass_debt(peers, &mut balancer, shard, cluster, limit, credits, 0);
    }
}

/// A debt goes round once. What nobody could take over stays here until the next swap: credits that
/// were on their way then cancel it.
fn pass_debt(
    peers: &Peers,
    balancer: &mut Balancer,
    shard: &ShardState,
    cluster: ClusterKey,
    limit: Limit,
    credits: u32,
    passed: u16,
) {
    if credits == 0 {
        return;
    }
    let keep = cluster.clone();
    let owed = Credits::Owed {
        cluster,
        limit,
        credits,
        passed: passed + 1,
    };
    let passed_on = usize::from(passed) <= peers.others() && peers.send(peers.next(), owed);
    if !passed_on && let Some(active) = shard.active() {
        balancer.take_back(&active.tables, &keep, limit, -i64::from(credits));
    }
}
