//! How much a bucket is asked for lately: decides who may keep what, never whether it is safe.

use crate::Nanos;

const EPOCH_MAX: Nanos = 2_000_000_000;
/// How far ahead of need units are asked for: some round trips to the authority.
const AHEAD: Nanos = 30_000_000;

/// Attempts in this epoch and the one before.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    started: Nanos,
    now: u64,
    before: u64,
}

impl Demand {
    pub(crate) fn note(&mut self, units: u64, at: Nanos, window: Nanos) {
        self.roll(at, window);
        self.now = self.now.saturating_add(units);
    }

    /// Units tried per window.
    pub(crate) fn per_window(&mut self, at: Nanos, window: Nanos) -> u64 {
        self.roll(at, window);
        let epoch = window.clamp(1, EPOCH_MAX);
        let tried = u128::from(self.now.max(self.before));
        u64::try_from(tried * u128::from(window) / u128::from(epoch)).unwrap_or(u64::MAX)
    }

    /// Units to have in hand for what comes before an answer of the authority could.
    pub(crate) fn ahead(&mut self, at: Nanos, window: Nanos) -> u64 {
        let demand = self.per_window(at, window);
        let part = u128::from(demand) * u128::from(AHEAD) / u128::from(window.max(1));
        u64::from(demand > 0).saturating_add(u64::try_from(part).unwrap_or(u64::MAX))
    }

    /// Nothing was tried in this epoch nor the one before.
    pub(crate) fn stale(&mut self, at: Nanos, window: Nanos) -> bool {
        self.roll(at, window);
        self.now == 0 && self.before == 0
    }

    /// When nothing will have been tried in the epoch then nor in the one before.
    pub(crate) fn stale_at(&self, window: Nanos) -> Nanos {
        let epoch = window.clamp(1, EPOCH_MAX);
        let epochs = if self.now > 0 {
            2
        } else {
            u64::from(self.before > 0)
        };
        self.started.saturating_add(epochs * epoch)
    }

    fn roll(&mut self, at: Nanos, window: Nanos) {
        let epoch = window.clamp(1, EPOCH_MAX);
        let past = at.saturating_sub(self.started);
        if past < epoch {
            return;
        }
        self.before = if past < 2 * epoch { self.now } else { 0 };
        self.now = 0;
        self.started = at;
    }
}
