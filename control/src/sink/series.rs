//! The last reported value of every series of every sidecar.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use ringmesh_wire::report::{DURATION_BUCKETS_US, Series, SeriesValue};
use ringmesh_wire::{NodeId, Report};

use super::{
    LABEL_NAME_BYTES_MAX, LABEL_VALUE_BYTES_MAX, LABELS_MAX, SERIES_BYTES_MAX, SERIES_MAX,
    SERIES_NAME_BYTES_MAX, SERIES_PER_NODE_MAX,
};

type Labels = Vec<(String, String)>;

/// A node that has not reported for this long is left out, and forgotten with the next report.
const SILENCE_MAX: Duration = Duration::from_secs(15 * 60);

#[derive(Debug)]
struct NodeSeries {
    seen: Instant,
    boot: u64,
    sequence: u64,
    values: BTreeMap<(String, Labels), SeriesValue>,
}

/// Why a series is not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refused {
    /// A name that Prometheus does not take, or a label twice, or one that is not the sidecar's to set.
    BadName,
    /// The name, a label or all of them together are too long, or there are too many labels.
    TooLong,
    /// The sidecar has as many series as one may have.
    NodeFull,
    /// All sidecars together have as many as there may be.
    Full,
}

impl Refused {
    /// Stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::BadName => "bad_name",
            Self::TooLong => "too_long",
            Self::NodeFull => "node_full",
            Self::Full => "full",
        }
    }
}

/// How many of one kind may be kept.
#[derive(Debug, Clone, Copy)]
struct Room {
    per_node: usize,
    in_all: usize,
}

/// All series, by node.
#[derive(Debug)]
pub struct SeriesStore {
    room: Room,
    nodes: Mutex<BTreeMap<NodeId, NodeSeries>>,
}

impl Default for SeriesStore {
    fn default() -> Self {
        Self {
            room: Room {
                per_node: SERIES_PER_NODE_MAX,
                in_all: SERIES_MAX,
            },
            nodes: Mutex::default(),
        }
    }
}

/// A series' name as Prometheus shows it, but for the suffixes that the encoder adds itself.
#[must_use]
pub fn exposition_name<'a>(name: &'a str, value: &SeriesValue) -> &'a str {
    match value {
        SeriesValue::Counter(_) => name.strip_suffix("_total").unwrap_or(name),
        _ => name,
    }
}

fn name_ok(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b':'))
        && !name.starts_with(|c: char| c.is_ascii_digit())
}

/// What is wrong with a series by itself. Lengths come first, so that nothing long is looked through.
fn fault(series: &Series) -> Option<Refused> {
    let labels = &series.labels;
    if series.name.len() > SERIES_NAME_BYTES_MAX || labels.len() > LABELS_MAX {
        return Some(Refused::TooLong);
    }
    let long = |(name, value): &(String, String)| {
        name.len() > LABEL_NAME_BYTES_MAX || value.len() > LABEL_VALUE_BYTES_MAX
    };
    let bytes = labels.iter().map(|(name, value)| name.len() + value.len());
    if labels.iter().any(long) || series.name.len() + bytes.sum::<usize>() > SERIES_BYTES_MAX {
        return Some(Refused::TooLong);
    }
    // `node` is set here and `le` by the encoder; twice on a line, Prometheus drops the whole page.
    let bad = labels.iter().enumerate().any(|(at, (name, _))| {
        !name_ok(name)
            || matches!(name.as_str(), "node" | "le")
            || labels[..at].iter().any(|(other, _)| other == name)
    });
    (bad || !name_ok(&series.name)).then_some(Refused::BadName)
}

impl SeriesStore {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, NodeSeries>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a report that arrived at `now`: its values replace those of before. One out of order is ignored; one of a
    /// new boot closes the series of the old. Returns how many series were refused, by reason: what is
    /// over a bound is not kept, what is kept goes on being counted.
    pub fn take(&self, report: Report, now: Instant) -> BTreeMap<Refused, u64> {
        let mut nodes = self.lock();
        nodes.retain(|_, node| now.saturating_duration_since(node.seen) <= SILENCE_MAX);
        let mut in_all: usize = nodes.values().map(|node| node.values.len()).sum();
        let fresh = || NodeSeries {
            seen: now,
            boot: report.boot,
            sequence: 0,
            values: BTreeMap::new(),
        };
        let mut refused = BTreeMap::new();
        let node = nodes.entry(report.node).or_insert_with(fresh);
        if node.boot != report.boot {
            in_all -= node.values.len();
            *node = fresh();
        } else if report.sequence <= node.sequence && node.sequence > 0 {
            return refused;
        }
        node.seen = now;
        node.sequence = report.sequence;
        for series in report.series {
            if let Some(fault) = fault(&series) {
                *refused.entry(fault).or_default() += 1;
                continue;
            }
            let key = (series.name, series.labels);
            if let Some(value) = node.values.get_mut(&key) {
                *value = series.value;
                continue;
            }
            let full = [
                (node.values.len() >= self.room.per_node, Refused::NodeFull),
                (in_all >= self.room.in_all, Refused::Full),
            ];
            if let Some((_, why)) = full.into_iter().find(|(full, _)| *full) {
                *refused.entry(why).or_default() += 1;
                continue;
            }
            node.values.insert(key, series.value);
            in_all += 1;
        }
        refused
    }

    /// The value of one series, for tests and `proxy` lists.
    #[must_use]
    pub fn value(
        &self,
        node: &NodeId,
        name: &str,
        labels: &[(String, String)],
    ) -> Option<SeriesValue> {
        let nodes = self.lock();
        let key = (name.to_owned(), labels.to_vec());
        nodes.get(node)?.values.get(&key).cloned()
    }
}

fn kind(value: &SeriesValue) -> MetricType {
    match value {
        SeriesValue::Counter(_) => MetricType::Counter,
        SeriesValue::Gauge(_) => MetricType::Gauge,
        SeriesValue::DurationHistogram { .. } => MetricType::Histogram,
    }
}

fn encode(value: &SeriesValue, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
    match value {
        SeriesValue::Counter(n) => ConstCounter::new(*n).encode(encoder),
        SeriesValue::Gauge(n) => ConstGauge::new(*n).encode(encoder),
        SeriesValue::DurationHistogram { buckets, sum_us } => {
            #[expect(clippy::cast_precision_loss, reason = "seconds as Prometheus has them")]
            let seconds = |us: u64| us as f64 / 1e6;
            let bounds = DURATION_BUCKETS_US.iter().map(|us| seconds(*us));
            let counts: Vec<(f64, u64)> = bounds
                .chain([f64::INFINITY])
                .zip(buckets.iter().copied())
                .collect();
            let count = buckets.iter().sum();
            encoder.encode_histogram::<Labels>(seconds(*sum_us), count, &counts, None)
        }
    }
}

impl Collector for SeriesStore {
    /// One family per name, one line per node and label set. Two sidecars that report one name
    /// with different types (a version skew): the first type wins, the others are left out.
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let nodes = self.lock();
        type Line<'a> = (&'a NodeId, &'a Labels, &'a SeriesValue);
        let mut families: BTreeMap<&str, Vec<Line<'_>>> = BTreeMap::new();
        let speaking = nodes
            .iter()
            .filter(|(_, n)| n.seen.elapsed() <= SILENCE_MAX);
        for (node, series) in speaking {
            for ((name, labels), value) in &series.values {
                let name = exposition_name(name, value);
                families
                    .entry(name)
                    .or_default()
                    .push((node, labels, value));
            }
        }
        for (name, lines) in families {
            let Some((_, _, first)) = lines.first() else {
                continue;
            };
            let wanted = kind(first);
            let mut family =
                encoder.encode_descriptor(name, "As reported by the sidecars", None, wanted)?;
            let fitting = lines
                .iter()
                .filter(|(_, _, v)| std::mem::discriminant(*v) == std::mem::discriminant(*first));
            for (node, labels, value) in fitting {
                let mut all = vec![("node".to_owned(), node.0.clone())];
                all.extend(labels.iter().cloned());
                encode(value, family.encode_family(&all)?)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringmesh_wire::report::Series;

    fn report(boot: u64, sequence: u64, count: u64) -> Report {
        Report {
            node: NodeId("n1".into()),
            boot,
            sequence,
            series: vec![Series {
                name: "ringmesh_requests_total".into(),
                labels: vec![("direction".into(), "inbound".into())],
                value: SeriesValue::Counter(count),
            }],
        }
    }

    fn take(store: &SeriesStore, report: Report) -> BTreeMap<Refused, u64> {
        store.take(report, Instant::now())
    }

    /// A report of one series of this name and these labels.
    fn one(name: &str, labels: &[(&str, &str)]) -> Report {
        let mut report = report(1, 1, 1);
        report.series[0].name = name.into();
        let labels = labels.iter().map(|(n, v)| ((*n).into(), (*v).into()));
        report.series[0].labels = labels.collect();
        report
    }

    fn text(store: SeriesStore) -> String {
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(store));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        text
    }

    #[test]
    fn values_replace_and_a_repeated_report_changes_nothing() {
        let store = SeriesStore::default();
        assert_eq!(take(&store, report(1, 1, 10)), BTreeMap::new());
        take(&store, report(1, 2, 25));
        take(&store, report(1, 2, 99));
        take(&store, report(1, 1, 10));
        let shown = text(store);
        let line = "ringmesh_requests_total{node=\"n1\",direction=\"inbound\"} 25";
        assert!(shown.contains(line), "{shown}");
        assert!(!shown.contains("_total_total"), "{shown}");
    }

    #[test]
    fn a_restarted_sidecar_begins_anew() {
        let store = SeriesStore::default();
        take(&store, report(1, 9, 10));
        take(&store, report(2, 1, 3));
        assert!(text(store).contains("\"inbound\"} 3"));
    }

    #[test]
    fn one_that_fell_silent_is_forgotten() {
        let store = SeriesStore::default();
        let now = Instant::now();
        store.take(report(1, 1, 10), now);
        let mut other = report(1, 1, 3);
        other.node = NodeId("n2".into());
        store.take(other, now + SILENCE_MAX + Duration::from_secs(1));
        let shown = text(store);
        assert!(!shown.contains("n1") && shown.contains("n2"), "{shown}");
    }

    #[test]
    fn a_histogram_comes_out_cumulative_in_seconds() {
        let store = SeriesStore::default();
        let mut buckets = vec![0; DURATION_BUCKETS_US.len() + 1];
        buckets[0] = 2;
        buckets[3] = 1;
        *buckets.last_mut().unwrap() = 1;
        let mut histogram = report(1, 1, 0);
        histogram.series[0].name = "ringmesh_request_duration_seconds".into();
        histogram.series[0].value = SeriesValue::DurationHistogram {
            buckets,
            sum_us: 2_500_000,
        };
        take(&store, histogram);
        let shown = text(store);
        for wanted in [
            "le=\"0.001\",node",
            "_sum{",
            "2.5",
            "le=\"+Inf\"",
            "_count{",
        ] {
            assert!(shown.contains(wanted), "{wanted}: {shown}");
        }
        let inf = shown.lines().find(|l| l.contains("+Inf")).unwrap();
        assert!(inf.ends_with(" 4"), "{inf}");
    }

    #[test]
    fn a_name_that_would_break_the_page_is_refused() {
        let bad = [
            one("x{} 1\nevil", &[]),
            one("", &[]),
            one("x", &[("a b", "v")]),
            one("x", &[("node", "another")]),
            one("x", &[("le", "1")]),
            one("x", &[("a", "1"), ("b", "1"), ("a", "2")]),
        ];
        for report in bad {
            let store = SeriesStore::default();
            let refused = take(&store, report);
            assert_eq!(refused, BTreeMap::from([(Refused::BadName, 1)]));
            assert!(!text(store).contains("n1"));
        }
    }

    #[test]
    fn what_is_as_long_as_it_may_be_is_kept_and_one_more_is_refused() {
        let long = |bytes: usize| "x".repeat(bytes);
        let names: Vec<String> = (0..=LABELS_MAX).map(|n| format!("l{n}")).collect();
        let labels: Vec<_> = names.iter().map(|name| (name.as_str(), "v")).collect();
        let (label, value) = (long(LABEL_NAME_BYTES_MAX), long(LABEL_VALUE_BYTES_MAX));
        let four = [("a", value.as_str()), ("b", &value), ("c", &value)];
        let rest = SERIES_BYTES_MAX - "x".len() - 3 * (1 + LABEL_VALUE_BYTES_MAX) - "d".len();
        let with_rest = |bytes: usize| {
            let value = long(bytes);
            let mut labels = four.to_vec();
            labels.push(("d", &value));
            one("x", &labels)
        };
        let pairs = [
            (
                one(&long(SERIES_NAME_BYTES_MAX), &[]),
                one(&long(SERIES_NAME_BYTES_MAX + 1), &[]),
            ),
            (one("x", &labels[1..]), one("x", &labels)),
            (
                one("x", &[(&label, &value)]),
                one("x", &[(&format!("{label}x"), &value)]),
            ),
            (
                one("x", &[(&label, &value)]),
                one("x", &[(&label, &format!("{value}x"))]),
            ),
            (with_rest(rest), with_rest(rest + 1)),
        ];
        for (kept, over) in pairs {
            assert_eq!(take(&SeriesStore::default(), kept), BTreeMap::new());
            let store = SeriesStore::default();
            let refused = take(&store, over);
            assert_eq!(refused, BTreeMap::from([(Refused::TooLong, 1)]));
            assert!(!text(store).contains("n1"));
        }
    }

    #[test]
    fn above_the_numbers_nothing_is_added_and_what_is_there_goes_on() {
        let store = SeriesStore {
            room: Room {
                per_node: 3,
                in_all: 5,
            },
            nodes: Mutex::default(),
        };
        let many = |node: &str, boot: u64, sequence: u64, count: u64| {
            let series = (0..count).map(|n| Series {
                name: format!("s{n}"),
                labels: Vec::new(),
                value: SeriesValue::Gauge(i64::try_from(sequence).unwrap()),
            });
            Report {
                node: NodeId(node.into()),
                boot,
                sequence,
                series: series.collect(),
            }
        };
        let refused = |why: Refused, count: u64| BTreeMap::from([(why, count)]);
        assert_eq!(
            take(&store, many("n1", 1, 1, 4)),
            refused(Refused::NodeFull, 1)
        );
        assert_eq!(take(&store, many("n2", 1, 1, 3)), refused(Refused::Full, 1));
        assert_eq!(take(&store, many("n1", 1, 2, 3)), BTreeMap::new());
        let first = store.value(&NodeId("n1".into()), "s0", &[]);
        assert_eq!(first, Some(SeriesValue::Gauge(2)));
        // A new boot gives back what the old one had.
        assert_eq!(take(&store, many("n1", 2, 1, 2)), BTreeMap::new());
        assert_eq!(take(&store, many("n2", 1, 2, 3)), BTreeMap::new());
        assert_eq!(take(&store, many("n3", 1, 1, 2)), refused(Refused::Full, 2));
    }
}
