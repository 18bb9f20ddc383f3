//! What one shard holds of every quota, and its decision on a request.
//!
//! Owns the shard's units. May not wait: a bucket without free units denies at once and asks.
//! Order of use on a shard: [`Cells::install`] at each configuration, [`Cells::ask`] per request,
//! [`Cells::handle`] per message, [`Cells::tick`] when [`Cells::next_tick`] says, and after each of
//! them [`Cells::poll`] until it is empty.

mod again;
mod ask;
mod lease;
mod run;

use std::collections::VecDeque;

use ringmesh_wire::snapshot::{Limit, OnQuotaUnavailable, QuotaRule};
use ringmesh_wire::{BucketId, Held, HeldRule, LeaseDown, LeaseUp};

pub use again::Memo;
pub use ask::{Ask, Verdict};

use crate::bucket::{self, Key, Shape};
use crate::demand::Demand;
use crate::table::{Cell, Table};
use crate::{HEARD_WITHIN_MS, LEASE_TTL_MS, Nanos, Units};

/// Where a shard stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Home {
    /// Its number.
    pub shard: u16,
    /// Shards of this sidecar; at least 1.
    pub shards: u16,
    /// There is no control service: the shards own everything, for ever.
    pub standalone: bool,
}

/// Agent to shard.
#[derive(Debug, Clone, PartialEq)]
pub enum ToCells {
    /// A message of the authority, for this shard.
    Down(LeaseDown),
    /// The leases of these rules run until then.
    Renewed {
        /// Rules.
        rules: Vec<String>,
        /// End, on the shard's clock.
        until: Nanos,
    },
    /// Say what you hold: a new stream begins. Answered by one [`FromCells::Report`].
    Report {
        /// Of the stream.
        generation: u64,
    },
}

/// Shard to agent.
#[derive(Debug, Clone, PartialEq)]
pub enum FromCells {
    /// A message for the authority.
    Up(LeaseUp),
    /// A lease ran out or a rule is new: the stream must begin again.
    Restart,
    /// What this shard holds.
    Report {
        /// Of the stream.
        generation: u64,
        /// Rules.
        rules: Vec<HeldRule>,
        /// Buckets whose units are not what the seeds say.
        held: Vec<Held>,
    },
}

/// One bucket, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CellState {
    /// Which.
    pub bucket: BucketId,
    /// Units that can be spent here now.
    pub free: u64,
    /// Units spent here and not back yet.
    pub busy: u64,
    /// The lease has ended and the bucket lives on this sidecar's share.
    pub lapsed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lease {
    /// Runs until then; never, for a standalone sidecar.
    Until(Nanos),
    /// Ran out then (or never began).
    Lapsed(Nanos),
}

#[derive(Debug)]
struct Rule {
    shape: Shape,
    charge: u64,
    enforcers: u64,
    seeds: u64,
    lease: Lease,
}

/// See the module.
#[derive(Debug)]
pub struct Cells {
    home: Home,
    on_unavailable: OnQuotaUnavailable,
    rules: Vec<Rule>,
    table: Table,
    outbox: VecDeque<FromCells>,
    scratch: ask::Scratch,
    run: run::Run,
    /// Where [`Self::tick`] goes on.
    hand: usize,
    /// Buckets that were idle then have been looked after.
    tidied: Nanos,
    /// See [`Self::has_new_bucket`].
    new_bucket: bool,
}

impl Cells {
    /// A shard without rules. `seed` is random per process: callers choose dimension values.
    #[must_use]
    pub fn new(home: Home, seed: u64) -> Self {
        Self {
            home,
            on_unavailable: OnQuotaUnavailable::Share,
            rules: Vec::new(),
            table: Table::new(seed),
            outbox: VecDeque::new(),
            scratch: ask::Scratch::default(),
            run: run::Run::default(),
            hand: 0,
            tidied: 0,
            new_bucket: false,
        }
    }

    /// Takes a configuration. Rules are named by their index in `rules` from here on. Counts of a
    /// rule whose name, dimensions and scope are unchanged stay, also where
    /// its limits change.
    pub fn install<'a>(
        &mut self,
        rules: impl IntoIterator<Item = &'a QuotaRule>,
        on_unavailable: OnQuotaUnavailable,
        now: Nanos,
    ) {
        self.settle();
        self.tidied = 0;
        self.on_unavailable = on_unavailable;
        let mut old = std::mem::take(&mut self.rules);
        let mut fresh = false;
        let mut renamed: Vec<Option<usize>> = vec![None; old.len()];
        for rule in rules {
            let shape = Shape::of(rule);
            let before = old.iter().position(|o| o.shape.carries_over(&shape));
            let (seeds, lease) = match before.and_then(|at| old.get(at)) {
                Some(kept) => (kept.seeds, kept.lease),
                None => self.first_lease(now),
            };
            if let Some(slot) = before.and_then(|at| renamed.get_mut(at)) {
                *slot = Some(self.rules.len());
            }
            fresh |= before.is_none();
            self.rules.push(Rule {
                shape,
                charge: rule.charge,
                enforcers: u64::from(rule.enforcers.max(1)),
                seeds,
                lease,
            });
        }
        let gone = renamed.iter().any(Option::is_none);
        old.clear();
        for cell in self.table.drain() {
            if let Some(rule) = renamed.get(cell.rule).copied().flatten() {
                self.carry_over(cell, rule, now);
            }
        }
        if (fresh || gone) && !self.is_alone() {
            self.outbox.push_back(FromCells::Restart);
        }
    }

    /// There is nobody to lease from or to share with.
    fn is_alone(&self) -> bool {
        self.home.standalone && self.home.shards <= 1
    }

    /// When [`Self::tick`] has something to do, at the earliest in [`TICK_MS_MIN`]; `None` while
    /// there is no lease that could end and no bucket. Looks at every bucket: not for a request's
    /// way. A later use of a bucket only moves its time, a message or a configuration may bring a
    /// nearer one, and so may a new bucket: ask again after those.
    #[must_use]
    pub fn next_tick(&mut self, now: Nanos) -> Option<Nanos> {
        self.settle();
        let soonest = now.saturating_add(TICK_MS_MIN * 1_000_000);
        let leases = self.rules.iter().filter_map(|rule| match rule.lease {
            Lease::Until(Nanos::MAX) | Lease::Lapsed(_) => None,
            Lease::Until(end) => Some(end),
        });
        let lease_end = leases.min();
        let buckets = if self.table.places() > lease::TICK_CELLS {
            // A tick sees only a part of them: the walk goes on.
            Some(soonest)
        } else {
            let idle_at = self.table.iter().map(|(_, cell)| cell.idle_at());
            idle_at.filter(|at| *at > self.tidied).min()
        };
        let next = lease_end.into_iter().chain(buckets).min()?;
        Some(next.max(soonest))
    }

    /// Whether a bucket was made since this was asked last: its time to be looked after may be
    /// nearer than [`Self::next_tick`] said.
    pub fn has_new_bucket(&mut self) -> bool {
        std::mem::take(&mut self.new_bucket)
    }

    /// What is to be sent to the agent, oldest first.
    pub fn poll(&mut self) -> Option<FromCells> {
        self.outbox.pop_front()
    }

    /// Every bucket, for people.
    #[must_use]
    pub fn state(&mut self) -> Vec<CellState> {
        self.settle();
        let cells = self.table.iter().filter_map(|(_, cell)| {
            let rule = self.rules.get(cell.rule)?;
            Some(CellState {
                bucket: bucket_id(rule, cell),
                free: cell.units.free(),
                busy: cell.units.busy(),
                lapsed: matches!(rule.lease, Lease::Lapsed(_)),
            })
        });
        cells.collect()
    }

    /// How many buckets there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    fn first_lease(&self, now: Nanos) -> (u64, Lease) {
        if !self.home.standalone {
            return (0, Lease::Lapsed(now));
        }
        let shards = u32::from(self.home.shards.max(1));
        let mine =
            (0..ringmesh_wire::SLOTS).filter(|slot| slot % shards == u32::from(self.home.shard));
        (
            mine.fold(0, |set, slot| set | 1 << slot),
            Lease::Until(Nanos::MAX),
        )
    }

    /// Puts a cell of the former configuration under its rule of this one.
    fn carry_over(&mut self, mut cell: Cell, rule: usize, now: Nanos) {
        let Some(found) = self.rules.get(rule) else {
            return;
        };
        let values: Vec<&str> = bucket::values(&cell.key).collect();
        let value = |at: usize| values.get(at).copied().unwrap_or("");
        let limit = found.shape.resolve(value, &mut Key::default());
        cell.rule = rule;
        cell.units.expire(now);
        if limit != cell.limit {
            let longer = limit.window_ms.saturating_sub(cell.limit.window_ms);
            cell.units.delay(longer.saturating_mul(1_000_000));
            cell.limit = limit;
            cell.explicit = false;
            cell.owed = 0;
            // Another limit is another bucket to the authority (`BucketId`): what was lent of the
            // old one is void, what was spent still counts against what the seed gives.
            let total = self.default_units(rule, limit, cell.slot, now);
            cell.units.cut_to(total);
            cell.units.add_free(total - cell.units.total());
        }
        self.table.insert(cell);
    }

    /// Units of a bucket nobody has spoken of.
    fn default_units(&self, rule: usize, limit: Limit, slot: u32, now: Nanos) -> u64 {
        let Some(rule) = self.rules.get(rule) else {
            return 0;
        };
        let seeded = rule.seeds >> slot & 1 == 1;
        match rule.lease {
            Lease::Until(_) if seeded => limit.amount_max,
            Lease::Until(_) => 0,
            Lease::Lapsed(since) => {
                let share = self.share(rule, limit, slot);
                if share.node == 0 && seeded && self.on_unavailable == OnQuotaUnavailable::Share {
                    limit.amount_max.min(1)
                } else if seeded || now >= raise_at(since, limit) {
                    share.shard
                } else {
                    0
                }
            }
        }
    }

    /// What this sidecar keeps, and of it this shard, while there is no authority.
    fn share(&self, rule: &Rule, limit: Limit, slot: u32) -> Share {
        if self.on_unavailable == OnQuotaUnavailable::Deny {
            return Share { node: 0, shard: 0 };
        }
        let node = limit.amount_max / rule.enforcers;
        let shards = u64::from(self.home.shards.max(1));
        // The remainder goes to other shards for other slots, so that none is always left out.
        let turn = (u64::from(self.home.shard) + shards - u64::from(slot) % shards) % shards;
        Share {
            node,
            shard: node / shards + u64::from(turn < node % shards),
        }
    }
}

/// Ticks are at least this far apart, milliseconds.
pub const TICK_MS_MIN: u64 = 100;

struct Share {
    node: u64,
    shard: u64,
}

/// When no lease of anybody can be running any more, and nothing spent under one is in the window.
fn raise_at(lapsed: Nanos, limit: Limit) -> Nanos {
    // Half a second for a lease's end to reach the agent.
    let ms = (u64::from(LEASE_TTL_MS) + HEARD_WITHIN_MS + 500).saturating_add(limit.window_ms);
    // 1 % for clocks that tick differently.
    lapsed.saturating_add((ms + ms / 100).saturating_mul(1_000_000))
}

fn bucket_id(rule: &Rule, cell: &Cell) -> BucketId {
    BucketId {
        rule: rule.shape.name.clone(),
        values: bucket::values(&cell.key).map(str::to_owned).collect(),
        amount_max: cell.limit.amount_max,
        window_ms: cell.limit.window_ms,
    }
}

impl Cells {
    fn new_cell(&self, rule: usize, key: &[u8], limit: Limit, now: Nanos) -> Option<Cell> {
        let found = self.rules.get(rule)?;
        let slot = bucket::slot(&found.shape.name, key);
        let raised = match found.lease {
            Lease::Lapsed(since) => now >= raise_at(since, limit),
            Lease::Until(_) => false,
        };
        Some(Cell {
            serial: 0,
            rule,
            key: key.into(),
            slot,
            limit,
            units: Units::of_free(self.default_units(rule, limit, slot, now)),
            explicit: false,
            raised,
            spent: false,
            owed: 0,
            asked_until: 0,
            demand: Demand::default(),
        })
    }
}

#[cfg(test)]
mod tests;
