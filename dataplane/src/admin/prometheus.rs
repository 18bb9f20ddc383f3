//! Prometheus text exposition format 0.0.4, from the very series that are reported to control.

use std::fmt::Write as _;

use ringmesh_wire::report::{DURATION_BUCKETS_US, Series, SeriesValue};

/// Writes series that are sorted by name.
#[must_use]
pub fn encode(series: &[Series]) -> String {
    let mut out = String::with_capacity(series.len() * 128);
    let mut last = "";
    for one in series {
        if one.name != last {
            let kind = match one.value {
                SeriesValue::Counter(_) => "counter",
                SeriesValue::Gauge(_) => "gauge",
                SeriesValue::DurationHistogram { .. } => "histogram",
            };
            let _ = writeln!(out, "# TYPE {} {kind}", one.name);
            last = &one.name;
        }
        match &one.value {
            SeriesValue::Counter(value) => line(&mut out, &one.name, &one.labels, None, value),
            SeriesValue::Gauge(value) => line(&mut out, &one.name, &one.labels, None, value),
            SeriesValue::DurationHistogram { buckets, sum_us } => {
                histogram(&mut out, one, buckets, *sum_us);
            }
        }
    }
    out
}

fn histogram(out: &mut String, of: &Series, buckets: &[u64], sum_us: u64) {
    let name = format!("{}_bucket", of.name);
    let mut count = 0_u64;
    for (at, bucket) in buckets.iter().enumerate() {
        count = count.saturating_add(*bucket);
        let bound = DURATION_BUCKETS_US
            .get(at)
            .map_or_else(|| "+Inf".to_owned(), |us| seconds(*us));
        line(out, &name, &of.labels, Some(&bound), &count);
    }
    let (sum, total) = (format!("{}_sum", of.name), format!("{}_count", of.name));
    line(out, &sum, &of.labels, None, &seconds(sum_us));
    line(out, &total, &of.labels, None, &count);
}

/// Microseconds as seconds, without rounding.
fn seconds(us: u64) -> String {
    let text = format!("{}.{:06}", us / 1_000_000, us % 1_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn line(
    out: &mut String,
    name: &str,
    labels: &[(String, String)],
    le: Option<&str>,
    value: &dyn std::fmt::Display,
) {
    out.push_str(name);
    let own = labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()));
    let mut opened = false;
    for (key, value) in own.chain(le.map(|le| ("le", le))) {
        out.push(if opened { ',' } else { '{' });
        opened = true;
        out.push_str(key);
        out.push_str("=\"");
        for c in value.chars() {
            match c {
                '\\' => out.push_str("\\\\"),
                '"' => out.push_str("\\\""),
                '\n' => out.push_str("\\n"),
                c => out.push(c),
            }
        }
        out.push('"');
    }
    if opened {
        out.push('}');
    }
    let _ = writeln!(out, " {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_of_series_is_written_as_prometheus_reads_it() {
        let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        let mut buckets = vec![0; DURATION_BUCKETS_US.len() + 1];
        (buckets[0], buckets[3], buckets[18]) = (2, 1, 4);
        let series = [
            Series {
                name: "a_total".into(),
                labels: vec![label("x", "1"), label("y", "q\"\\\n")],
                value: SeriesValue::Counter(7),
            },
            Series {
                name: "a_total".into(),
                labels: Vec::new(),
                value: SeriesValue::Counter(8),
            },
            Series {
                name: "b".into(),
                labels: Vec::new(),
                value: SeriesValue::Gauge(-1),
            },
            Series {
                name: "d_seconds".into(),
                labels: vec![label("x", "1")],
                value: SeriesValue::DurationHistogram {
                    buckets,
                    sum_us: 1_500_000,
                },
            },
        ];
        let text = encode(&series);
        assert!(text.starts_with(
            "# TYPE a_total counter\na_total{x=\"1\",y=\"q\\\"\\\\\\n\"} 7\na_total 8\n\
             # TYPE b gauge\nb -1\n# TYPE d_seconds histogram\n\
             d_seconds_bucket{x=\"1\",le=\"0.0001\"} 2\n"
        ));
        assert!(
            text.contains("d_seconds_bucket{x=\"1\",le=\"0.001\"} 3\n"),
            "{text}"
        );
        assert!(text.contains("le=\"60\"} 3\n"), "{text}");
        assert!(text.contains("le=\"+Inf\"} 7\n"), "{text}");
        assert!(text.ends_with("d_seconds_sum{x=\"1\"} 1.5\nd_seconds_count{x=\"1\"} 7\n"));
    }
}
