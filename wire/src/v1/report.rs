//! Telemetry from sidecar to control.
//!
//! Values are *cumulative* since the sidecar's boot, so a lost or repeated report changes nothing:
//! control replaces, never adds. Series not in a report are unchanged.

use serde::{Deserialize, Serialize};

use crate::codec::Validate;
use crate::error::WireError;
use crate::ids::NodeId;

/// What one series holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum SeriesValue {
    /// Counts up from 0 at boot.
    Counter(u64),
    /// The value now.
    Gauge(i64),
    /// Counts per bucket; bounds are those of [`DURATION_BUCKETS_US`], one more for "above".
    DurationHistogram {
        /// One count per bound, not cumulative over bounds, then the rest.
        buckets: Vec<u64>,
        /// Sum of all observations, microseconds.
        sum_us: u64,
    },
}

/// Upper bounds of the duration histogram, microseconds: 1-2.5-5 steps from 100 us to 60 s.
pub const DURATION_BUCKETS_US: [u64; 18] = [
    100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

/// One metric series.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Series {
    /// Metric name without unit suffix rules applied, e.g. `ringmesh_requests_total`.
    pub name: String,
    /// Labels, sorted by name.
    pub labels: Vec<(String, String)>,
    /// Its value.
    pub value: SeriesValue,
}

/// Changed series of one sidecar.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who.
    pub node: NodeId,
    /// Process start: series of an older boot are closed.
    pub boot: u64,
    /// Counts up per boot; an older one than the last seen is ignored.
    pub sequence: u64,
    /// The series that changed since the last acknowledged report.
    pub series: Vec<Series>,
}

/// A batch of access-log records (JSON, one object per line).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogBatch {
    /// Who.
    pub node: NodeId,
    /// Process start.
    pub boot: u64,
    /// Sequence number of the first record.
    pub first: u64,
    /// Records dropped at the sidecar since boot, cumulative.
    pub dropped: u64,
    /// The records.
    pub lines: Vec<String>,
}

/// Records up to here are stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogAck {
    /// Sequence number after the last stored record.
    pub next: u64,
}

impl Validate for Report {
    fn validate(&self) -> Result<(), WireError> {
        self.node.validate()?;
        for series in &self.series {
            let SeriesValue::DurationHistogram { buckets, .. } = &series.value else {
                continue;
            };
            // Without the name, which has no bound here.
            if buckets.len() != DURATION_BUCKETS_US.len() + 1 {
                return Err(WireError::Invalid(format!(
                    "report: a histogram has {} buckets",
                    buckets.len()
                )));
            }
            let mut counts = buckets.iter();
            if counts
                .try_fold(0_u64, |sum, n| sum.checked_add(*n))
                .is_none()
            {
                return Err(WireError::Invalid(
                    "report: the counts of a histogram overflow".into(),
                ));
            }
        }
        Ok(())
    }
}

impl Validate for LogBatch {
    fn validate(&self) -> Result<(), WireError> {
        self.node.validate()
    }
}

impl Validate for LogAck {
    fn validate(&self) -> Result<(), WireError> {
        Ok(())
    }
}
