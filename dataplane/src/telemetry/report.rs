//! Shards' counters to the cumulative series of `wire::Report`.

use std::collections::{BTreeMap, HashMap};

use ringmesh_wire::report::{Series, SeriesValue};

use super::meter::{Detection, Event, Values};
use super::outcome::{Direction, Transport};
use crate::reason::Reason;
use crate::ring::Picked;

/// The labels of one set.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct SeriesLabels {
    pub(super) direction: Direction,
    pub(super) transport: Transport,
    pub(super) source: [Box<str>; 3],
    pub(super) destination: [Box<str>; 3],
    pub(super) status: u16,
    pub(super) grpc_status: Option<u8>,
    pub(super) reason: Reason,
}

/// One label set with its values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeriesStats {
    pub(super) labels: SeriesLabels,
    pub(super) values: Values,
}

/// Everything one shard has counted since its start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stats {
    pub(super) series: Vec<SeriesStats>,
    pub(super) events: [u64; Event::ALL.len()],
    pub(super) refused: [u64; Reason::ALL.len()],
    pub(super) detections: Vec<Detection>,
    /// Bytes kept beside the pools now.
    pub(super) kept_bytes: u64,
    /// What the shard's ring got.
    pub(super) ring: Option<Picked>,
}

impl Stats {
    /// With what the shard keeps beside its pools.
    #[must_use]
    pub fn keeping(mut self, bytes: usize) -> Self {
        self.kept_bytes = bytes as u64;
        self
    }

    /// With what the shard's ring got.
    #[must_use]
    pub fn on(mut self, ring: Picked) -> Self {
        self.ring = Some(ring);
        self
    }

    /// What the shard's ring got, if it has told.
    #[must_use]
    pub fn ring(&self) -> Option<Picked> {
        self.ring
    }
}

/// Adds the shards up to cumulative series, sorted by name and labels.
#[must_use]
pub fn merge(shards: &[Stats]) -> Vec<Series> {
    let mut sums: HashMap<&SeriesLabels, Values> = HashMap::new();
    for one in shards.iter().flat_map(|stats| &stats.series) {
        sums.entry(&one.labels).or_default().add(&one.values);
    }
    let mut series = Vec::with_capacity(sums.len() * 4);
    for (labels, values) in sums {
        labels.series(&values, &mut series);
    }
    for event in Event::ALL {
        let sum = shards.iter().map(|stats| stats.events[event as usize]);
        series.push(Series {
            name: event.metric().into(),
            labels: Vec::new(),
            value: SeriesValue::Counter(sum.sum()),
        });
    }
    for reason in Reason::ALL {
        let sum: u64 = shards
            .iter()
            .map(|stats| stats.refused[reason as usize])
            .sum();
        if sum > 0 {
            series.push(Series {
                name: "ringmesh_connections_refused_total".into(),
                labels: vec![("reason".into(), reason.code().into())],
                value: SeriesValue::Counter(sum),
            });
        }
    }
    let kept: u64 = shards.iter().map(|stats| stats.kept_bytes).sum();
    series.push(Series {
        name: "ringmesh_kept_bytes".into(),
        labels: Vec::new(),
        value: SeriesValue::Gauge(i64::try_from(kept).unwrap_or(i64::MAX)),
    });
    send_zc(shards, &mut series);
    detections(shards, &mut series);
    series.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
    series
}

/// How it stands with sends without a copy, as numbers of shards.
fn send_zc(shards: &[Stats], out: &mut Vec<Series>) {
    let mut counts = BTreeMap::new();
    for ring in shards.iter().filter_map(|stats| stats.ring) {
        *counts.entry(ring.send_zc.as_str()).or_insert(0) += 1;
    }
    out.extend(counts.into_iter().map(|(state, count)| Series {
        name: "ringmesh_send_zc_shards".into(),
        labels: vec![("state".into(), state.into())],
        value: SeriesValue::Gauge(count),
    }));
}

/// What undeclared ports turned out to speak (docs/metrics.md).
fn detections(shards: &[Stats], out: &mut Vec<Series>) {
    let mut sums = BTreeMap::new();
    for one in shards.iter().flat_map(|stats| &stats.detections) {
        let zeros = || (vec![0_u64; one.buckets.len()], 0_u64);
        let (buckets, sum_us) = sums.entry(one.pairs()).or_insert_with(zeros);
        for (sum, count) in buckets.iter_mut().zip(one.buckets) {
            *sum += count;
        }
        *sum_us = sum_us.saturating_add(one.sum_us);
    }
    out.extend(sums.into_iter().map(|(labels, (buckets, sum_us))| Series {
        name: "ringmesh_detection_duration_seconds".into(),
        labels,
        value: SeriesValue::DurationHistogram { buckets, sum_us },
    }));
}

impl Detection {
    /// Sorted by name.
    fn pairs(&self) -> Vec<(String, String)> {
        let destination = match (&*self.service, &*self.namespace) {
            ("", _) => "unknown".to_owned(),
            (whole, "") => whole.to_owned(),
            (service, namespace) => format!("{service}.{namespace}"),
        };
        vec![
            ("destination".into(), destination),
            ("direction".into(), self.direction.as_str().into()),
            ("port".into(), self.port.to_string()),
            ("protocol".into(), self.verdict.as_str().into()),
        ]
    }
}

impl Values {
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.duration_sum_us = self.duration_sum_us.saturating_add(other.duration_sum_us);
        self.bytes_in += other.bytes_in;
        self.bytes_out += other.bytes_out;
        for (sum, count) in self.buckets.iter_mut().zip(other.buckets) {
            *sum += count;
        }
    }
}

impl SeriesLabels {
    /// The metrics of one label set (docs/metrics.md).
    fn series(&self, values: &Values, out: &mut Vec<Series>) {
        let labels = self.pairs();
        let one = |name: &str, value| Series {
            name: name.into(),
            labels: labels.clone(),
            value,
        };
        let histogram = SeriesValue::DurationHistogram {
            buckets: values.buckets.to_vec(),
            sum_us: values.duration_sum_us,
        };
        let names = if self.transport == Transport::Tcp {
            [
                "ringmesh_tcp_connections_closed_total",
                "ringmesh_tcp_connection_duration_seconds",
                "ringmesh_tcp_received_bytes_total",
                "ringmesh_tcp_sent_bytes_total",
            ]
        } else {
            [
                "ringmesh_requests_total",
                "ringmesh_request_duration_seconds",
                "ringmesh_request_bytes_total",
                "ringmesh_response_bytes_total",
            ]
        };
        out.push(one(names[0], SeriesValue::Counter(values.count)));
        out.push(one(names[1], histogram));
        out.push(one(names[2], SeriesValue::Counter(values.bytes_in)));
        out.push(one(names[3], SeriesValue::Counter(values.bytes_out)));
    }

    /// Sorted by name. What is not known is `unknown`, as in Istio.
    fn pairs(&self) -> Vec<(String, String)> {
        let known = |text: &str| match text {
            "" => "unknown".to_owned(),
            text => text.to_owned(),
        };
        let service = |[service, namespace, _]: &[Box<str>; 3]| match &**namespace {
            "" => known(service),
            namespace => format!("{service}.{namespace}"),
        };
        let mut pairs = vec![
            ("destination".into(), service(&self.destination)),
            ("destination_version".into(), known(&self.destination[2])),
            ("direction".into(), self.direction.as_str().into()),
        ];
        if let Some(status) = self.grpc_status {
            pairs.push(("grpc_status".into(), status.to_string()));
        }
        pairs.extend([
            ("protocol".into(), self.transport.as_str().into()),
            ("reason".into(), self.reason.code().into()),
            ("response_code".into(), self.status.to_string()),
            ("source".into(), service(&self.source)),
            ("source_version".into(), known(&self.source[2])),
        ]);
        pairs
    }
}

/// Finds the series that changed since the last acknowledged report.
#[derive(Debug, Default)]
pub struct Changes {
    sent: HashMap<(String, Vec<(String, String)>), SeriesValue>,
}

impl Changes {
    /// Of `series`, those whose value is not the one noted by [`Self::acknowledge`].
    #[must_use]
    pub fn of(&self, series: &[Series]) -> Vec<Series> {
        let changed = |one: &&Series| {
            let key = (one.name.clone(), one.labels.clone());
            self.sent.get(&key) != Some(&one.value)
        };
        series.iter().filter(changed).cloned().collect()
    }

    /// Notes what the other side holds now.
    pub fn acknowledge(&mut self, series: Vec<Series>) {
        for one in series {
            self.sent.insert((one.name, one.labels), one.value);
        }
    }
}
