//! The sidecar's half of the lease stream: between its shards' cells and the authority.
//!
//! Facts in (`opened`, `from_cells`, `from_authority`, `tick`), wishes out ([`Link::poll`]). Holds
//! no units. May not drop or reorder a message between a shard and the authority of one stream;
//! across streams everything on its way is void, because the report that opens a stream says it all.

use std::collections::VecDeque;

use ringmesh_wire::{Held, HeldRule, LeaseDown, LeaseUp};

use crate::{BEAT_EVERY_MS, FromCells, Nanos, ToCells};

/// Held buckets in one message.
const HOLD_CHUNK: usize = 256;
/// A lease ends this much earlier here than the authority allows: the time a shard may take to
/// hear of it is not spent on the edge.
const MARGIN: Nanos = 100_000_000;

/// What the caller is to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Wish {
    /// Open a new stream, end the old one, then call [`Link::opened`].
    Open,
    /// Send on the stream.
    Send(LeaseUp),
    /// Put into a shard's inbox; may wait, but must arrive in order.
    ToShard(u16, ToCells),
}

#[derive(Debug)]
enum Phase {
    /// No stream.
    Closed,
    /// Shards are asked what they hold. Per shard: its answer, and what it said after it.
    Gathering(Vec<Option<ShardReport>>),
    /// The report is sent.
    Live,
}

#[derive(Debug)]
struct ShardReport {
    rules: Vec<HeldRule>,
    held: Vec<Held>,
    later: Vec<LeaseUp>,
}

/// See the module.
#[derive(Debug)]
pub struct Link {
    boot: u64,
    shards: u16,
    generation: u64,
    phase: Phase,
    seq: u64,
    /// When the beat on its way was sent.
    beat_sent: Option<Nanos>,
    beat_due: Nanos,
    /// The earliest end of any lease renewed on this stream.
    leases: Vec<(String, Nanos)>,
    wishes: VecDeque<Wish>,
}

impl Link {
    /// Wants a stream at once. `boot` is random per process.
    #[must_use]
    pub fn new(boot: u64, shards: u16) -> Self {
        Self {
            boot,
            shards,
            generation: 0,
            phase: Phase::Closed,
            seq: 0,
            beat_sent: None,
            beat_due: 0,
            leases: Vec::new(),
            wishes: VecDeque::from([Wish::Open]),
        }
    }

    /// What is to be done, in order.
    pub fn poll(&mut self) -> Option<Wish> {
        self.wishes.pop_front()
    }

    /// The stream asked for is open.
    pub fn opened(&mut self) {
        self.generation += 1;
        self.seq = 0;
        self.beat_sent = None;
        self.leases.clear();
        self.phase = Phase::Gathering((0..self.shards).map(|_| None).collect());
        for shard in 0..self.shards {
            let report = ToCells::Report {
                generation: self.generation,
            };
            self.wishes.push_back(Wish::ToShard(shard, report));
        }
    }

    /// The stream ended, or could not be opened; the caller decides when to try again by acting
    /// on the [`Wish::Open`] that follows.
    pub fn closed(&mut self) {
        self.reopen();
    }

    /// A shard said something.
    pub fn from_cells(&mut self, shard: u16, message: FromCells, now: Nanos) {
        match message {
            FromCells::Restart => {
                if !matches!(self.phase, Phase::Closed) {
                    self.reopen();
                }
            }
            FromCells::Report {
                generation,
                rules,
                held,
            } => {
                if generation == self.generation
                    && let Phase::Gathering(reports) = &mut self.phase
                    && let Some(report) = reports.get_mut(usize::from(shard))
                {
                    *report = Some(ShardReport {
                        rules,
                        held,
                        later: Vec::new(),
                    });
                    if reports.iter().all(Option::is_some) {
                        self.report(now);
                    }
                }
            }
            FromCells::Up(message) => match &mut self.phase {
                Phase::Live => self.wishes.push_back(Wish::Send(message)),
                Phase::Gathering(reports) => {
                    if let Some(Some(report)) = reports.get_mut(usize::from(shard)) {
                        report.later.push(message);
                    }
                }
                Phase::Closed => {}
            },
        }
    }

    /// The authority said something, on the stream that is open now.
    pub fn from_authority(&mut self, message: LeaseDown, now: Nanos) {
        if !matches!(self.phase, Phase::Live) {
            return;
        }
        let shard = match &message {
            LeaseDown::Renew { seq, ttl_ms, rules } => {
                self.renewed(*seq, *ttl_ms, rules, now);
                return;
            }
            LeaseDown::Seed { shard, .. }
            | LeaseDown::Release { shard, .. }
            | LeaseDown::Lend { shard, .. }
            | LeaseDown::Recall { shard, .. }
            | LeaseDown::Surrender { shard, .. } => *shard,
        };
        if shard < self.shards {
            let message = ToCells::Down(message);
            self.wishes.push_back(Wish::ToShard(shard, message));
        }
    }

    /// Time passed; at least every 100 ms.
    pub fn tick(&mut self, now: Nanos) {
        if matches!(self.phase, Phase::Live) && self.beat_sent.is_none() && now >= self.beat_due {
            self.beat(now);
        }
    }

    /// The sidecar stops: nothing is spent from here on.
    pub fn goodbye(&mut self) {
        if matches!(self.phase, Phase::Live) {
            self.wishes.push_back(Wish::Send(LeaseUp::Goodbye));
        }
        self.phase = Phase::Closed;
    }

    /// Whether the report is sent and answered.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(self.phase, Phase::Live) && self.seq > 1
    }

    /// Every rule of these was renewed on this stream. Seeds come before the renewal.
    #[must_use]
    pub fn has_leases<'a>(&self, rules: impl IntoIterator<Item = &'a str>) -> bool {
        let mut rules = rules.into_iter();
        rules.all(|rule| self.leases.iter().any(|(name, _)| name == rule))
    }

    fn reopen(&mut self) {
        self.phase = Phase::Closed;
        self.wishes.retain(|wish| matches!(wish, Wish::ToShard(..)));
        self.wishes.push_back(Wish::Open);
    }

    fn report(&mut self, now: Nanos) {
        let Phase::Gathering(reports) = std::mem::replace(&mut self.phase, Phase::Live) else {
            return;
        };
        let (mut rules, mut held, mut later) = (Vec::new(), Vec::new(), Vec::new());
        for report in reports.into_iter().flatten() {
            rules.extend(report.rules);
            held.extend(report.held);
            later.extend(report.later);
        }
        let boot = self.boot;
        self.wishes
            .push_back(Wish::Send(LeaseUp::Hello { boot, rules }));
        for chunk in held.chunks(HOLD_CHUNK) {
            self.wishes
                .push_back(Wish::Send(LeaseUp::Hold(chunk.to_vec())));
        }
        self.wishes.push_back(Wish::Send(LeaseUp::Ready));
        self.wishes.extend(later.into_iter().map(Wish::Send));
        self.beat(now);
    }

    /// A beat says that no lease had ended when it was sent.
    fn beat(&mut self, now: Nanos) {
        if self.leases.iter().any(|(_, until)| *until <= now) {
            self.reopen();
            return;
        }
        self.seq += 1;
        self.beat_sent = Some(now);
        self.beat_due = now + BEAT_EVERY_MS * 1_000_000;
        let seq = self.seq;
        self.wishes.push_back(Wish::Send(LeaseUp::Beat { seq }));
    }

    fn renewed(&mut self, seq: u64, ttl_ms: u32, rules: &[String], now: Nanos) {
        let Some(sent) = self.beat_sent.filter(|_| seq == self.seq) else {
            return;
        };
        self.beat_sent = None;
        let until = (sent + u64::from(ttl_ms) * 1_000_000).saturating_sub(MARGIN);
        for rule in rules {
            match self.leases.iter_mut().find(|(name, _)| name == rule) {
                Some((_, end)) => *end = until,
                None => self.leases.push((rule.clone(), until)),
            }
        }
        for shard in 0..self.shards {
            let rules = rules.to_vec();
            self.wishes
                .push_back(Wish::ToShard(shard, ToCells::Renewed { rules, until }));
        }
        // The second beat confirms that the first was answered; only then are we "heard of".
        if seq == 1 {
            self.beat(now);
        }
    }
}
