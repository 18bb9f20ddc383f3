//! The last reported value of every series of every sidecar.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use ringmesh_wire::report::{DURATION_BUCKETS_US, SeriesValue};
use ringmesh_wire::{NodeId, Report};

use super::SERIES_PER_NODE_MAX;

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

/// All series, by node.
#[derive(Debug, Default)]
pub struct SeriesStore {
    nodes: Mutex<BTreeMap<NodeId, NodeSeries>>,
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

impl SeriesStore {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<NodeId, NodeSeries>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a report that arrived at `now`: its values replace those of before. One out of order is ignored; one of a
    /// new boot closes the series of the old. Returns how many series were refused (a bad name, or
    /// over [`SERIES_PER_NODE_MAX`]).
    pub fn take(&self, report: Report, now: Instant) -> usize {
        let mut nodes = self.lock();
        nodes.retain(|_, node| now.saturating_duration_since(node.seen) <= SILENCE_MAX);
        let fresh = || NodeSeries {
            seen: now,
            boot: report.boot,
            sequence: 0,
            values: BTreeMap::new(),
        };
        let node = nodes.entry(report.node).or_insert_with(fresh);
        if node.boot != report.boot {
            *node = fresh();
        } else if report.sequence <= node.sequence && node.sequence > 0 {
            return 0;
        }
        node.seen = now;
        node.sequence = report.sequence;
        let mut refused = 0;
        for series in report.series {
            let labels_ok = series
                .labels
                .iter()
                .all(|(name, _)| name_ok(name) && name != "node");
            let key = (series.name, series.labels);
            let room = node.values.len() < SERIES_PER_NODE_MAX || node.values.contains_key(&key);
            if room && labels_ok && name_ok(&key.0) {
                node.values.insert(key, series.value);
            } else {
                refused += 1;
            }
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

    fn take(store: &SeriesStore, report: Report) -> usize {
        store.take(report, Instant::now())
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
        assert_eq!(take(&store, report(1, 1, 10)), 0);
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
        let store = SeriesStore::default();
        let mut bad = report(1, 1, 1);
        bad.series[0].name = "x{} 1\nevil".into();
        assert_eq!(take(&store, bad), 1);
    }
}
