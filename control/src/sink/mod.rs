//! Telemetry that sidecars send: metrics, kept as last reported; access log, appended to a file.
//!
//! May not: add values up (reports are cumulative: the newest replaces), block a QUIC task on a
//! slow disk for longer than one write. Bounds: [`SERIES_PER_NODE_MAX`], [`SERIES_MAX`], those of one
//! series below, [`LINE_BYTES_MAX`], files of [`LOG_FILE_BYTES`] of which [`LOG_FILES_MAX`] are kept.

mod log;
mod series;

pub use log::{AccessLog, LogCounts};
pub use series::{Refused, SeriesStore, exposition_name};

/// Series kept per node; more are counted and dropped. Four for each of a shard's 2,048 label sets,
/// and what a sidecar has once.
pub const SERIES_PER_NODE_MAX: usize = 10_000;
/// Series kept in all: 50 for each of as many sidecars as may be connected.
pub const SERIES_MAX: usize = 1_000_000;
/// Bytes of a series' name.
pub const SERIES_NAME_BYTES_MAX: usize = 128;
/// Labels of one series; exchanges have ten.
pub const LABELS_MAX: usize = 16;
/// Bytes of a label's name.
pub const LABEL_NAME_BYTES_MAX: usize = 64;
/// Bytes of a label's value: `service.namespace` at its longest has 507.
pub const LABEL_VALUE_BYTES_MAX: usize = 512;
/// Bytes of a series' name and labels together: what a label may have, not all of them may.
pub const SERIES_BYTES_MAX: usize = 2_048;
/// Longest log record taken, bytes; a longer one is dropped and counted.
pub const LINE_BYTES_MAX: usize = 64 * 1024;
/// A log file is closed at this size.
pub const LOG_FILE_BYTES: u64 = 64 * 1024 * 1024;
/// Log files kept, the open one included.
pub const LOG_FILES_MAX: usize = 8;
