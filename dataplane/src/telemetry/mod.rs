//! What happened: exactly one [`Outcome`] per exchange, whatever happened.
//!
//! A shard owns one [`Meter`] (counters and duration histograms by label set, `docs/metrics.md`)
//! and one [`LogBuf`] (JSON access-log lines). Both are plain memory: the agent collects them
//! through the shard's inbox, adds the shards up ([`merge`]) and sends what changed.
//!
//! Invariants: recording allocates only when a label set is seen for the first time; the number of
//! label sets is capped and what is over the cap is counted under `overflow`; a log line is either
//! whole or dropped and counted; every line is one JSON object.

mod access_log;
mod meter;
mod outcome;
mod recent;
mod report;
#[cfg(test)]
mod tests;

pub use access_log::LogBuf;
pub use meter::{Event, Meter, SERIES_MAX};
pub use outcome::{Direction, Flags, Outcome, Party, Transport};
pub use recent::Names;
pub use report::{Changes, SeriesStats, Stats, merge};
