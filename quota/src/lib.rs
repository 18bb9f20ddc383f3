//! Quotas as pure code: no I/O, no clock, no randomness, no thread. Time is an argument.
//!
//! - [`Units`]: some units of a bucket and when each can be spent again;
//! - [`Cells`]: what one shard holds; decides requests;
//! - [`Link`]: the sidecar's half of the lease stream: heartbeats, reports;
//! - [`Authority`]: who holds what, mesh-wide (or node-wide, when a standalone sidecar runs one for
//!   its shards).
//!
//! A crate of its own because sidecar and control service both need `Units`, neither may use the
//! other, and the simulation that tests the invariant needs both sides (`tests/simulation.rs`).
//!
//! Invariant: in any window, over all shards of all sidecars, no bucket admits more than its
//! amount. `docs/quotas.md` has the argument.

#![forbid(unsafe_code)]

mod authority;
mod bucket;
mod cells;
mod demand;
mod link;
mod table;
mod units;

pub use authority::{AccountState, Authority, Holder, RuleFacts, RuleState, Session};
pub use bucket::slot_of;
pub use cells::{Ask, CellState, Cells, FromCells, Home, Memo, TICK_MS_MIN, ToCells, Verdict};
pub use link::{Link, Wish};
pub use units::Units;

/// Nanoseconds on the holder's own monotonic clock.
pub type Nanos = u64;

/// How long a lease runs after the heartbeat it answers. Longer than a restart of the control
/// service takes, short enough that the units of a crashed sidecar come back soon.
pub const LEASE_TTL_MS: u32 = 5_000;

/// A sidecar counts as heard of for this long after its last confirmed heartbeat.
pub const HEARD_WITHIN_MS: u64 = 2_000;
/// How often a sidecar sends a heartbeat.
pub const BEAT_EVERY_MS: u64 = 400;
