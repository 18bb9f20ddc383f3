//! Counters and duration histograms of one shard, by label set.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use ringmesh_wire::report::DURATION_BUCKETS_US;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::outcome::{Direction, Outcome, Party, Transport};
use super::recent::Recent;
use super::report::{SeriesLabels, SeriesStats, Stats};
use crate::detect::Verdict;
use crate::reason::Reason;

/// Label sets one shard keeps; further ones are counted under `overflow`.
/// 1,000 edges with two codes each; 2,048 sets cost at most 0.9 MiB.
pub const SERIES_MAX: usize = 2_048;

/// Places in the hash index: a power of two, never more than half full.
const INDEX_LEN: usize = (SERIES_MAX + 2) * 2;
const INDEX_PLACES: usize = INDEX_LEN.next_power_of_two();
const EMPTY: u16 = u16::MAX;

const _: () = assert!(SERIES_MAX + 2 < EMPTY as usize);

/// Things counted that are no exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A downstream connection was accepted.
    Accepted,
    /// A try was repeated.
    Retried,
    /// An expression could not be evaluated and did not match.
    ExpressionError,
    /// An AUDIT policy matched.
    Audited,
    /// An upstream connection was opened.
    UpstreamOpened,
    /// A TLS handshake was completed, as the server.
    Handshake,
    /// One of these resumed an earlier session.
    Resumed,
    /// A call was charged to its quotas, one or several.
    QuotaCharged,
    /// A log line was dropped for want of room.
    LogDropped,
    /// A lane to another sidecar was opened.
    LaneOpened,
    /// Another sidecar opened a lane.
    LaneAccepted,
    /// It reset one while the answer was under way.
    LaneReset,
}

impl Event {
    /// All of them, in numeric order.
    pub const ALL: [Self; 12] = [
        Self::Accepted,
        Self::Retried,
        Self::ExpressionError,
        Self::Audited,
        Self::UpstreamOpened,
        Self::Handshake,
        Self::Resumed,
        Self::QuotaCharged,
        Self::LogDropped,
        Self::LaneOpened,
        Self::LaneAccepted,
        Self::LaneReset,
    ];

    /// Metric name.
    #[must_use]
    pub fn metric(self) -> &'static str {
        match self {
            Self::Accepted => "ringmesh_connections_accepted_total",
            Self::Retried => "ringmesh_retries_total",
            Self::ExpressionError => "ringmesh_expression_errors_total",
            Self::Audited => "ringmesh_audited_total",
            Self::UpstreamOpened => "ringmesh_upstream_connections_opened_total",
            Self::Handshake => "ringmesh_tls_handshakes_total",
            Self::Resumed => "ringmesh_tls_handshakes_resumed_total",
            Self::QuotaCharged => "ringmesh_quota_charged_total",
            Self::LogDropped => "ringmesh_log_lines_dropped_total",
            Self::LaneOpened => "ringmesh_lanes_opened_total",
            Self::LaneAccepted => "ringmesh_lanes_accepted_total",
            Self::LaneReset => "ringmesh_lanes_reset_total",
        }
    }
}

/// What one label set has seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Values {
    pub(super) count: u64,
    pub(super) buckets: [u64; DURATION_BUCKETS_US.len() + 1],
    pub(super) duration_sum_us: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
}

/// Label sets of detections one shard keeps: undeclared ports times what they speak. A detection
/// comes once per connection, so a search in line will do.
const DETECTIONS_MAX: usize = 256;

/// Connections to one undeclared port that turned out to be the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Detection {
    pub(super) direction: Direction,
    pub(super) service: Box<str>,
    pub(super) namespace: Box<str>,
    pub(super) port: u16,
    pub(super) verdict: Verdict,
    pub(super) buckets: [u64; DURATION_BUCKETS_US.len() + 1],
    pub(super) sum_us: u64,
}

impl Detection {
    fn new(direction: Direction, to: &Party<'_>, port: u16, verdict: Verdict) -> Self {
        Self {
            direction,
            service: to.service.into(),
            namespace: to.namespace.into(),
            port,
            verdict,
            buckets: Default::default(),
            sum_us: 0,
        }
    }

    fn is(&self, direction: Direction, to: &Party<'_>, port: u16, verdict: Verdict) -> bool {
        (self.direction, self.port, self.verdict) == (direction, port, verdict)
            && *self.service == *to.service
            && *self.namespace == *to.namespace
    }
}

#[derive(Debug)]
struct Row {
    hash: u64,
    labels: SeriesLabels,
    values: Values,
}

/// Counters of one shard.
#[derive(Debug)]
pub struct Meter {
    seed: u64,
    /// Row by hash, linear probing.
    index: Box<[u16]>,
    rows: Vec<Row>,
    recent: Recent<usize>,
    events: [u64; Event::ALL.len()],
    /// Connections closed without an exchange, by reason.
    refused: [u64; Reason::ALL.len()],
    detections: Vec<Detection>,
    changes: u64,
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

impl Meter {
    /// All at zero.
    #[must_use]
    pub fn new() -> Self {
        Self {
            // Peers choose some labels' values (status codes), so places must not be predictable.
            seed: RandomState::new().hash_one(1u8),
            index: vec![EMPTY; INDEX_PLACES].into(),
            rows: Vec::with_capacity(64),
            recent: Recent::new(),
            events: [0; Event::ALL.len()],
            refused: [0; Reason::ALL.len()],
            detections: Vec::new(),
            changes: 0,
        }
    }

    /// Counts an exchange.
    pub fn record(&mut self, outcome: &Outcome<'_>) {
        self.changes += 1;
        let at = self.row_of(outcome);
        let Some(row) = self.rows.get_mut(at) else {
            return;
        };
        let values = &mut row.values;
        values.count += 1;
        values.duration_sum_us = values.duration_sum_us.saturating_add(outcome.total_us);
        values.bytes_in += outcome.bytes_in;
        values.bytes_out += outcome.bytes_out;
        let bucket = DURATION_BUCKETS_US.partition_point(|bound| *bound < outcome.total_us);
        values.buckets[bucket] += 1;
    }

    /// Counts something that is no exchange.
    pub fn count(&mut self, event: Event) {
        self.changes += 1;
        self.events[event as usize] += 1;
    }

    /// Counts a connection that ended before there was an exchange (TLS refused, garbage, shed).
    pub fn refused(&mut self, reason: Reason) {
        self.changes += 1;
        self.refused[reason as usize] += 1;
    }

    /// Counts what an undeclared connection turned out to be, and how long that took.
    pub fn detected(
        &mut self,
        direction: Direction,
        destination: &Party<'_>,
        port: u16,
        verdict: Verdict,
        took: Duration,
    ) {
        self.changes += 1;
        let row = self
            .detections
            .iter()
            .position(|row| row.is(direction, destination, port, verdict));
        let at = row.unwrap_or_else(|| {
            // The last one is for all that found no room.
            if self.detections.len() < DETECTIONS_MAX {
                let kept = self.detections.len() + 1 < DETECTIONS_MAX;
                let row = match kept {
                    true => Detection::new(direction, destination, port, verdict),
                    false => Detection::new(direction, &Party::default(), 0, verdict),
                };
                self.detections.push(row);
            }
            self.detections.len() - 1
        });
        if let Some(row) = self.detections.get_mut(at) {
            let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
            row.buckets[DURATION_BUCKETS_US.partition_point(|bound| *bound < us)] += 1;
            row.sum_us = row.sum_us.saturating_add(us);
        }
    }

    /// Grows with everything that is counted.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Label sets in use.
    #[must_use]
    pub fn series(&self) -> usize {
        self.rows.len()
    }

    /// A copy of everything, cumulative since start.
    #[must_use]
    pub fn collect(&self) -> Stats {
        let series = self.rows.iter().map(|row| SeriesStats {
            labels: row.labels.clone(),
            values: row.values,
        });
        Stats {
            series: series.collect(),
            events: self.events,
            refused: self.refused,
            detections: self.detections.clone(),
            kept_bytes: 0,
            ring: None,
        }
    }

    fn row_of(&mut self, outcome: &Outcome<'_>) -> usize {
        let Some(names) = &outcome.names else {
            return self.find_row(outcome);
        };
        let small = small(outcome);
        if let Some(at) = self.recent.get(names, small) {
            return *at;
        }
        let at = self.find_row(outcome);
        *self.recent.place(names, small) = at;
        at
    }

    fn find_row(&mut self, outcome: &Outcome<'_>) -> usize {
        let hash = self.hash(outcome);
        if let Some(at) = self.find(hash, |labels| labels.are_of(outcome)) {
            return at;
        }
        if self.rows.len() < SERIES_MAX {
            return self.insert(hash, SeriesLabels::of(outcome));
        }
        let overflow = SeriesLabels::overflow(outcome.direction);
        let hash = match outcome.direction {
            Direction::Outbound => 0,
            Direction::Inbound => 1,
        };
        self.find(hash, |labels| *labels == overflow)
            .unwrap_or_else(|| self.insert(hash, overflow.clone()))
    }

    fn find(&self, hash: u64, is_it: impl Fn(&SeriesLabels) -> bool) -> Option<usize> {
        let mut place = hash as usize % INDEX_PLACES;
        loop {
            let at = self.index[place];
            let row = self.rows.get(usize::from(at))?;
            if row.hash == hash && is_it(&row.labels) {
                return Some(at.into());
            }
            place = (place + 1) % INDEX_PLACES;
        }
    }

    fn insert(&mut self, hash: u64, labels: SeriesLabels) -> usize {
        let at = self.rows.len();
        self.rows.push(Row {
            hash,
            labels,
            values: Values::default(),
        });
        let mut place = hash as usize % INDEX_PLACES;
        while self.index[place] != EMPTY {
            place = (place + 1) % INDEX_PLACES;
        }
        self.index[place] = u16::try_from(at).unwrap_or(EMPTY);
        at
    }

    fn hash(&self, outcome: &Outcome<'_>) -> u64 {
        let party = |seed: u64, party: &Party<'_>| {
            let service = xxh3_64_with_seed(party.service.as_bytes(), seed);
            let namespace = xxh3_64_with_seed(party.namespace.as_bytes(), service);
            xxh3_64_with_seed(party.version.as_bytes(), namespace)
        };
        let seed = self.seed ^ small(outcome).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        party(party(seed, &outcome.source), &outcome.destination)
    }
}

/// The labels that are no names.
fn small(outcome: &Outcome<'_>) -> u64 {
    u64::from(outcome.status) << 32
        | u64::from(outcome.grpc_status.map_or(0xff, u8::from)) << 24
        | (outcome.reason as u64) << 16
        | (outcome.transport as u64) << 8
        | outcome.direction as u64
}

impl SeriesLabels {
    fn of(outcome: &Outcome<'_>) -> Self {
        let party = |party: &Party<'_>| {
            [party.service, party.namespace, party.version].map(Box::<str>::from)
        };
        Self {
            direction: outcome.direction,
            transport: outcome.transport,
            source: party(&outcome.source),
            destination: party(&outcome.destination),
            status: outcome.status,
            grpc_status: outcome.grpc_status,
            reason: outcome.reason,
        }
    }

    fn overflow(direction: Direction) -> Self {
        let party = || ["overflow", "", ""].map(Box::<str>::from);
        Self {
            direction,
            transport: Transport::Http1,
            source: party(),
            destination: party(),
            status: 0,
            grpc_status: None,
            reason: Reason::None,
        }
    }

    fn are_of(&self, outcome: &Outcome<'_>) -> bool {
        let is = |[service, namespace, version]: &[Box<str>; 3], party: &Party<'_>| {
            **service == *party.service
                && **namespace == *party.namespace
                && **version == *party.version
        };
        self.direction == outcome.direction
            && self.transport == outcome.transport
            && self.status == outcome.status
            && self.grpc_status == outcome.grpc_status
            && self.reason == outcome.reason
            && is(&self.source, &outcome.source)
            && is(&self.destination, &outcome.destination)
    }
}
