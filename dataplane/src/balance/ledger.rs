//! One limit of one cluster, as one shard holds it: in credits.
//!
//! Every shard begins with its part of the limit and may then *use* as much as it *holds*. What one
//! lacks another lends: credits leave the lender before they reach the borrower, so the sum of what
//! is held is never above the limit. Only the deviation from the own part is kept, and those of all
//! shards (with what is on its way) sum up to zero; so each shard can take a changed limit at its own
//! time. Where a lowered limit leaves a shard owing, it passes the debt to one that has.
//!
//! Pure. `ask` says when to send a question to the other shards and when to give up.

use super::breaker::ShardShare;
use crate::reason::Reason;
use crate::time::Mono;

/// A question that is not answered by then is not waited for, milliseconds: a shard answers between two
/// turns of its ring, and a request must not wait longer for room than a retry would take.
pub const ANSWER_MS: u64 = 2;
/// After all shards had nothing, the next question waits so long, microseconds: in an overload every
/// refused request would otherwise wake every shard.
const PAUSE_US: u64 = 500;

/// A count with a limit.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// Taken and not given back.
    pub(super) used: u32,
    limit: u32,
    share: u32,
    /// Credits received less those lent.
    moved: i64,
    /// What may be used: the part, changed by what moved.
    max: u32,
    question: Question,
}

/// The last question to the other shards.
#[derive(Debug, Default)]
struct Question {
    round: u32,
    asked_at: Mono,
    /// Answers still to come.
    open: u16,
    /// One of them brought credits.
    brought: bool,
    /// When the last answer came, if none brought any.
    refused_at: Option<Mono>,
}

/// What to do where there is no credit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// Ask every other shard, under this number.
    Now(u32),
    /// They are asked: wait.
    Wait,
    /// None has any.
    Refused,
}

impl Ledger {
    /// Takes a limit into force. What is under way stays counted even above a lowered one.
    pub(super) fn limit(&mut self, limit: u32, share: ShardShare) {
        self.limit = limit;
        self.share = share.of(limit);
        self.settle();
    }

    pub(super) fn take(&mut self) -> Result<(), Reason> {
        if self.used >= self.max {
            return Err(Reason::Overflow);
        }
        self.used += 1;
        Ok(())
    }

    pub(super) fn give(&mut self) {
        debug_assert!(self.used > 0, "given back twice");
        self.used = self.used.saturating_sub(1);
    }

    /// Whether the next [`Self::take`] would fail.
    pub(super) fn is_short(&self) -> bool {
        self.used >= self.max
    }

    /// Gives credits away to a shard that asks: half of the free ones, so that a lasting difference
    /// in load settles in a few questions. `kept` of them are for who waits here: what has come for
    /// them would else be gone again before they look.
    pub(super) fn lend(&mut self, kept: u32) -> u32 {
        let lent = self.free().saturating_sub(kept).div_ceil(2);
        self.moved -= i64::from(lent);
        self.settle();
        lent
    }

    /// Gives one away, if one is free.
    pub(super) fn lend_one(&mut self) -> bool {
        let is_free = self.free() > 0;
        self.moved -= i64::from(is_free);
        self.settle();
        is_free
    }

    /// What could be given away.
    fn free(&self) -> u32 {
        match self.limit {
            u32::MAX => 0,
            _ => self.max.saturating_sub(self.used),
        }
    }

    /// An answer has come.
    pub(super) fn lent(&mut self, round: u32, credits: u32, now: Mono) {
        self.moved += i64::from(credits);
        self.settle();
        let question = &mut self.question;
        // A late answer to an earlier question still brings its credits.
        if question.round == round {
            question.open = question.open.saturating_sub(1);
            question.brought |= credits > 0;
            if question.open == 0 && !question.brought {
                question.refused_at = Some(now);
            }
        }
    }

    /// To be called where a take failed. `shards` is how many others there are.
    pub(super) fn ask(&mut self, shards: u16, now: Mono) -> Ask {
        let question = &mut self.question;
        if question.open > 0 && now < question.asked_at.plus_ms(ANSWER_MS) {
            return Ask::Wait;
        }
        let paused = |at: Mono| now.since(at).as_micros() < u128::from(PAUSE_US);
        if shards == 0 || question.refused_at.is_some_and(paused) {
            return Ask::Refused;
        }
        *question = Question {
            round: question.round.wrapping_add(1),
            asked_at: now,
            open: shards,
            brought: false,
            refused_at: None,
        };
        Ask::Now(question.round)
    }

    /// Takes over a debt of another shard; returns what has to be passed on.
    pub(super) fn owe(&mut self, credits: u32) -> u32 {
        self.moved -= i64::from(credits);
        self.settle();
        self.pass_debt()
    }

    /// Credits, or below zero a debt, that nobody took.
    pub(super) fn take_back(&mut self, credits: i64) {
        self.moved += credits;
        self.settle();
    }

    /// What this shard owes after a limit was lowered, to be passed to another.
    pub(super) fn pass_debt(&mut self) -> u32 {
        let held = i64::from(self.share) + self.moved;
        if self.limit == u32::MAX || held >= 0 {
            return 0;
        }
        let debt = u32::try_from(-held).unwrap_or(u32::MAX);
        self.moved += i64::from(debt);
        self.settle();
        debt
    }

    /// No shard uses more than the whole limit, however the credits lie.
    fn settle(&mut self) {
        self.max = match self.limit {
            u32::MAX => u32::MAX,
            limit => u32::try_from((i64::from(self.share) + self.moved).max(0))
                .unwrap_or(u32::MAX)
                .min(limit),
        };
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Shards that send each other messages, which arrive in order between each two but at any time.
    struct World {
        shards: Vec<Ledger>,
        /// Limits each shard has taken into force so far.
        swapped: Vec<usize>,
        limits: Vec<u32>,
        /// (from, to, message).
        mail: Vec<(usize, usize, Mail)>,
        now: Mono,
    }

    #[derive(Debug, Clone, Copy)]
    enum Mail {
        Want(u32),
        Lent(u32, u32),
        Owed(u32, usize),
    }

    impl World {
        fn new(shards: usize, limit: u32) -> Self {
            let mut world = Self {
                shards: (0..shards).map(|_| Ledger::default()).collect(),
                swapped: vec![0; shards],
                limits: vec![limit],
                mail: Vec::new(),
                now: Mono(1_000_000_000),
            };
            for at in 0..shards {
                world.swap(at);
            }
            world
        }

        fn swap(&mut self, at: usize) {
            let Some(limit) = self.limits.get(self.swapped[at]) else {
                return;
            };
            self.swapped[at] += 1;
            let share = ShardShare {
                shard: at as u32,
                shards: self.shards.len() as u32,
            };
            self.shards[at].limit(*limit, share);
            let debt = self.shards[at].pass_debt();
            self.pass(at, debt, 1);
        }

        /// After a whole round a debt stays where it began.
        fn pass(&mut self, at: usize, debt: u32, passed: usize) {
            if debt == 0 {
                return;
            }
            if passed > self.shards.len() {
                self.shards[at].take_back(-i64::from(debt));
                return;
            }
            let next = (at + 1) % self.shards.len();
            self.mail.push((at, next, Mail::Owed(debt, passed)));
        }

        fn take(&mut self, at: usize) -> bool {
            if self.shards[at].take().is_ok() {
                return true;
            }
            let others = self.shards.len() as u16 - 1;
            if let Ask::Now(round) = self.shards[at].ask(others, self.now) {
                for to in (0..self.shards.len()).filter(|to| *to != at) {
                    self.mail.push((at, to, Mail::Want(round)));
                }
            }
            false
        }

        /// Delivers the first message between the two shards of message `nth`.
        fn deliver(&mut self, nth: usize) {
            let Some((from, to, _)) = self.mail.get(nth).copied() else {
                return;
            };
            let first = self.mail.iter().position(|m| (m.0, m.1) == (from, to));
            let (_, _, mail) = self.mail.remove(first.unwrap());
            match mail {
                Mail::Want(round) => {
                    let lent = self.shards[to].lend(0);
                    self.mail.push((to, from, Mail::Lent(round, lent)));
                }
                Mail::Lent(round, credits) => self.shards[to].lent(round, credits, self.now),
                Mail::Owed(credits, passed) => {
                    let rest = self.shards[to].owe(credits);
                    self.pass(to, rest, passed + 1);
                }
            }
        }

        fn deliver_all(&mut self) {
            while !self.mail.is_empty() {
                self.deliver(0);
            }
        }

        fn check_sum(&self) {
            let held: i64 = self.shards.iter().map(|s| s.moved).sum();
            let under_way: i64 = (self.mail.iter())
                .map(|(_, _, mail)| match mail {
                    Mail::Lent(_, credits) => i64::from(*credits),
                    Mail::Owed(credits, _) => -i64::from(*credits),
                    Mail::Want(_) => 0,
                })
                .sum();
            assert_eq!(held + under_way, 0, "credits were made or lost");
        }

        fn used(&self) -> u32 {
            self.shards.iter().map(|s| s.used).sum()
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Step {
        Take(usize),
        Give(usize),
        Deliver(usize),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0usize..4).prop_map(Step::Take),
            2 => (0usize..4).prop_map(Step::Give),
            4 => (0usize..16).prop_map(Step::Deliver),
            1 => (0u64..5_000).prop_map(Step::Pass),
        ]
    }

    proptest! {
        /// With a fixed limit: never more in use than it says, and at rest a free credit is found
        /// by whoever needs it.
        #[test]
        fn the_limit_holds_and_a_free_credit_is_found(
            shards in 1usize..5,
            limit in 0u32..12,
            steps in prop::collection::vec(step(), 0..120),
        ) {
            let mut world = World::new(shards, limit);
            for step in steps {
                match step {
                    Step::Take(at) if at < shards => { world.take(at); }
                    Step::Give(at) if at < shards && world.shards[at].used > 0 => {
                        world.shards[at].give();
                    }
                    Step::Deliver(nth) if !world.mail.is_empty() => {
                        let nth = nth % world.mail.len();
                        world.deliver(nth);
                    }
                    Step::Pass(us) => world.now = Mono(world.now.0 + us * 1_000),
                    _ => {}
                }
                prop_assert!(world.used() <= limit);
                world.check_sum();
            }
            world.deliver_all();
            world.now = world.now.plus_ms(10);
            for at in 0..shards {
                while world.used() < limit {
                    let took = world.take(at) || { world.deliver_all(); world.take(at) };
                    prop_assert!(took, "shard {at} found none of the free ones");
                }
                prop_assert!(!world.take(at));
                world.deliver_all();
                world.now = world.now.plus_ms(10);
                // The next shard has its turn with one free.
                if let Some(giver) = world.shards.iter_mut().find(|s| s.used > 0) {
                    giver.give();
                }
            }
        }

        /// Limits that change, each shard at its own time: when all have the last one and the mail
        /// is read, nothing is held above it.
        #[test]
        fn a_changed_limit_holds_once_all_have_it(
            shards in 1usize..5,
            limits in prop::collection::vec(prop_oneof![0u32..12, Just(u32::MAX)], 1..4),
            last in 0u32..12,
            steps in prop::collection::vec((step(), 0usize..8), 0..120),
        ) {
            let mut world = World::new(shards, limits[0]);
            world.limits.extend(&limits[1..]);
            world.limits.push(last);
            for (step, swap) in steps {
                match step {
                    Step::Take(at) if at < shards => { world.take(at); }
                    Step::Give(at) if at < shards && world.shards[at].used > 0 => {
                        world.shards[at].give();
                    }
                    Step::Deliver(nth) if !world.mail.is_empty() => {
                        let nth = nth % world.mail.len();
                        world.deliver(nth);
                    }
                    Step::Pass(us) => world.now = Mono(world.now.0 + us * 1_000),
                    _ => {}
                }
                if swap < shards {
                    world.swap(swap);
                }
                world.check_sum();
            }
            for at in 0..shards {
                for _ in 0..=world.limits.len() {
                    world.swap(at);
                }
            }
            world.deliver_all();
            // A debt whose credits were on their way is passed again by the next swap.
            for at in 0..shards {
                let debt = world.shards[at].pass_debt();
                world.pass(at, debt, 1);
                world.deliver_all();
            }
            world.check_sum();
            let held: u32 = world.shards.iter().map(|s| s.max).sum();
            prop_assert_eq!(held, last);
        }
    }

    #[test]
    fn a_question_is_asked_once_and_not_again_at_once() {
        let mut ledger = Ledger::default();
        let now = Mono(1_000_000_000);
        assert_eq!(ledger.ask(2, now), Ask::Now(1));
        assert_eq!(ledger.ask(2, now), Ask::Wait);
        ledger.lent(1, 0, now);
        assert_eq!(ledger.ask(2, now), Ask::Wait);
        ledger.lent(1, 0, now);
        assert_eq!(ledger.ask(2, now), Ask::Refused);
        assert_eq!(ledger.ask(2, now.plus_ms(1)), Ask::Now(2));
        // No answer for too long.
        assert_eq!(ledger.ask(2, now.plus_ms(4)), Ask::Now(3));
        // One had some, and it is gone already.
        ledger.lent(3, 1, now.plus_ms(4));
        ledger.lent(3, 0, now.plus_ms(4));
        assert_eq!(ledger.ask(2, now.plus_ms(4)), Ask::Now(4));
        assert_eq!(Ledger::default().ask(0, now), Ask::Refused);
    }
}
