//! Telemetry that sidecars send: metrics, kept as last reported; access log, appended to a file.
//!
//! May not: add values up (reports are cumulative: the newest replaces), block a QUIC task on a
//! slow disk for longer than one write. Bounds: [`SERIES_PER_NODE_MAX`], [`LINE_BYTES_MAX`], files
//! of [`LOG_FILE_BYTES`] of which [`LOG_FILES_MAX`] are kept.

mod log;
mod series;

pub use log::{AccessLog, LogCounts};
pub use series::{SeriesStore, exposition_name};

/// Series kept per node; more are counted and dropped.
pub const SERIES_PER_NODE_MAX: usize = 10_000;
/// Longest log record taken, bytes; a longer one is dropped and counted.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// A log file is closed at this size.
pub const LOG_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Log files kept, the open one included.
pub const LOG_FILES_MAX: usize = 8;
