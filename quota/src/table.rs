//! Cells by bucket key: a bounded slab with an index. Looking up allocates nothing.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use ringmesh_wire::snapshot::Limit;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::demand::Demand;
use crate::{Nanos, Units};

/// Buckets one shard keeps. Over it a bucket that is not there yet is refused until another one
/// has been idle for a window: forgetting a busy one would forget spends.
pub(crate) const CELLS_MAX: usize = 16_384;

/// Units of one bucket at this shard.
#[derive(Debug)]
pub(crate) struct Cell {
    /// Given by the table; tells a place that was used again from the one that was meant.
    pub(crate) serial: u64,
    pub(crate) rule: usize,
    pub(crate) key: Box<[u8]>,
    pub(crate) slot: u32,
    pub(crate) limit: Limit,
    pub(crate) units: Units,
    /// The authority has spoken of this bucket, so that what is held is not what the seed says.
    pub(crate) explicit: bool,
    /// While lapsed: the share has been filled up.
    pub(crate) raised: bool,
    /// A unit was spent since some were last lent.
    pub(crate) spent: bool,
    /// Units to give up after the next spend.
    pub(crate) owed: u64,
    /// Not to ask again before.
    pub(crate) asked_until: Nanos,
    pub(crate) demand: Demand,
}

impl Cell {
    pub(crate) fn window(&self) -> Nanos {
        self.limit.window_ms.saturating_mul(1_000_000)
    }

    /// When it can be forgotten or given back, or pay what it owes, if it is not asked for before.
    pub(crate) fn idle_at(&self) -> Nanos {
        let stale = self.demand.stale_at(self.window());
        match self.owed {
            0 => stale.max(self.units.last_release()),
            _ => stale,
        }
    }
}

/// The slab.
#[derive(Debug)]
pub(crate) struct Table {
    index: HashMap<u64, usize, BuildHasherDefault<Ready>>,
    slab: Vec<Option<Cell>>,
    vacant: Vec<usize>,
    serial: u64,
    /// Of the hash: peers choose the values, they must not choose the collisions.
    seed: u64,
}

impl Table {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            index: HashMap::default(),
            slab: Vec::new(),
            vacant: Vec::new(),
            serial: 0,
            seed,
        }
    }

    fn hash(&self, rule: usize, key: &[u8]) -> u64 {
        xxh3_64_with_seed(
            key,
            self.seed ^ (rule as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        )
    }

    /// Where the bucket is.
    pub(crate) fn find(&self, rule: usize, key: &[u8]) -> Option<usize> {
        let at = *self.index.get(&self.hash(rule, key))?;
        let cell = self.get(at)?;
        (cell.rule == rule && *cell.key == *key).then_some(at)
    }

    /// `None`: the table is full, or another bucket has the same 64-bit hash.
    pub(crate) fn insert(&mut self, mut cell: Cell) -> Option<usize> {
        let hash = self.hash(cell.rule, &cell.key);
        if self.index.len() >= CELLS_MAX || self.index.contains_key(&hash) {
            return None;
        }
        self.serial += 1;
        cell.serial = self.serial;
        let at = self.vacant.pop().unwrap_or_else(|| {
            self.slab.push(None);
            self.slab.len() - 1
        });
        *self.slab.get_mut(at)? = Some(cell);
        self.index.insert(hash, at);
        Some(at)
    }

    pub(crate) fn remove(&mut self, at: usize) -> Option<Cell> {
        let cell = self.slab.get_mut(at)?.take()?;
        let hash = self.hash(cell.rule, &cell.key);
        self.index.remove(&hash);
        self.vacant.push(at);
        Some(cell)
    }

    pub(crate) fn get(&self, at: usize) -> Option<&Cell> {
        self.slab.get(at)?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut Cell> {
        self.slab.get_mut(at)?.as_mut()
    }

    /// One more than the highest place in use.
    pub(crate) fn places(&self) -> usize {
        self.slab.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.index.len()
    }

    /// All cells, with their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (usize, &Cell)> {
        let cells = self.slab.iter().enumerate();
        cells.filter_map(|(at, cell)| Some((at, cell.as_ref()?)))
    }

    /// Takes everything out.
    pub(crate) fn drain(&mut self) -> Vec<Cell> {
        self.index.clear();
        self.vacant.clear();
        self.slab.drain(..).flatten().collect()
    }
}

/// Passes a finished hash through.
#[derive(Debug, Default)]
pub(crate) struct Ready(u64);

impl Hasher for Ready {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}
