//! What a load found, for people, programs and plots.

use std::fmt::Write as _;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use super::tally::{self, Tally};

/// Percentiles that are kept for a plot: evenly spaced in the number of nines.
pub(crate) const PERCENTILES: [f64; 17] = [
    0.0, 10.0, 25.0, 50.0, 75.0, 80.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.75, 99.9, 99.95, 99.99,
    99.999, 100.0,
];

/// What a load found. Latencies are microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// Answered, warm-up included.
    pub(crate) requests: u64,
    /// Answered, of those meant to leave in the measured window.
    pub(crate) measured: u64,
    /// `measured` per second of the window.
    pub(crate) rps: f64,
    /// Bytes received: in all, and per second of the window.
    pub(crate) bytes: u64,
    pub(crate) bytes_per_second: f64,
    pub(crate) connects: u64,
    pub(crate) errors: u64,
    /// Answers with a status that is not 2xx or 3xx.
    pub(crate) refused: u64,
    pub(crate) first_error: Option<String>,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p999_us: f64,
    pub(crate) max_us: f64,
    /// `(percentile, microseconds)`.
    pub(crate) percentiles: Vec<(f64, f64)>,
    /// Of a load over TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<Handshakes>,
}

/// TLS handshakes at any time, the warm-up included.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Handshakes {
    /// Agreed in the first handshake: `TLS 1.3`, the cipher suite as IANA has it, and by ALPN.
    version: Option<String>,
    cipher: Option<String>,
    alpn: Option<String>,
    failed: u64,
    full: Times,
    resumed: Times,
}

/// How long handshakes of one kind took: from the connected socket until the server had said all it
/// has to say, microseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Times {
    count: u64,
    mean_us: f64,
    p50_us: f64,
    p99_us: f64,
    max_us: f64,
    /// `(percentile, microseconds)`; none without handshakes.
    percentiles: Vec<(f64, f64)>,
}

impl Times {
    fn of(found: &Histogram<u64>) -> Self {
        let at = |percentile: f64| us(found.value_at_quantile(percentile / 100.0));
        let some = !found.is_empty();
        Self {
            count: found.len(),
            mean_us: found.mean() / 1e3,
            p50_us: at(50.0),
            p99_us: at(99.0),
            max_us: us(found.max()),
            percentiles: PERCENTILES
                .iter()
                .filter(|_| some)
                .map(|p| (*p, at(*p)))
                .collect(),
        }
    }

    fn to_text(&self, kind: &str) -> String {
        if self.count == 0 {
            return String::new();
        }
        format!(
            "{kind} handshake us: mean {:.0}, p50 {:.0}, p99 {:.0}, max {:.0}\n",
            self.mean_us, self.p50_us, self.p99_us, self.max_us
        )
    }
}

impl Handshakes {
    fn of(tally: &tally::Handshakes) -> Option<Self> {
        let (full, resumed) = (tally.full.borrow(), tally.resumed.borrow());
        let failed = tally.failed.get();
        if full.len() + resumed.len() + failed == 0 {
            return None;
        }
        let agreed = tally.agreed.borrow().clone();
        let (version, cipher, alpn) = match agreed {
            Some(it) => (Some(it.version), Some(it.cipher), it.alpn),
            None => (None, None, None),
        };
        Some(Self {
            version,
            cipher,
            alpn,
            failed,
            full: Times::of(&full),
            resumed: Times::of(&resumed),
        })
    }

    fn to_text(&self) -> String {
        let mut out = format!(
            "{}: {} handshakes in full, {} resumed, {} failed\n",
            self.version.as_deref().unwrap_or("TLS"),
            self.full.count,
            self.resumed.count,
            self.failed
        );
        if let Some(cipher) = &self.cipher {
            let alpn = self.alpn.as_deref().unwrap_or("none");
            let _ = writeln!(out, "agreed: {cipher}, ALPN {alpn}");
        }
        out + &self.full.to_text("full") + &self.resumed.to_text("resumed")
    }
}

impl Outcome {
    /// `seconds`: the measured window's length.
    pub(super) fn of(tally: &Tally, seconds: f64) -> Self {
        let latency = tally.latency.borrow();
        let at = |percentile: f64| us(latency.value_at_quantile(percentile / 100.0));
        Self {
            requests: tally.requests.get(),
            measured: tally.measured.get(),
            rps: tally.measured.get() as f64 / seconds,
            bytes: tally.bytes_total.get(),
            bytes_per_second: tally.bytes.get() as f64 / seconds,
            connects: tally.connects.get(),
            errors: tally.errors.get(),
            refused: tally.refused.get(),
            first_error: tally.first_error.borrow().clone(),
            mean_us: latency.mean() / 1e3,
            p50_us: at(50.0),
            p99_us: at(99.0),
            p999_us: at(99.9),
            max_us: us(latency.max()),
            percentiles: PERCENTILES.iter().map(|p| (*p, at(*p))).collect(),
            tls: Handshakes::of(&tally.handshakes),
        }
    }

    /// A few lines for people.
    pub(super) fn to_text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{} answered, {:.0}/s measured; {} connections opened; {:.1} MiB/s received",
            self.requests,
            self.rps,
            self.connects,
            self.bytes_per_second / f64::from(1 << 20)
        );
        if self.measured > 0 {
            let _ = writeln!(
                out,
                "latency us: mean {:.0}, p50 {:.0}, p99 {:.0}, p99.9 {:.0}, max {:.0}",
                self.mean_us, self.p50_us, self.p99_us, self.p999_us, self.max_us
            );
        }
        if let Some(tls) = &self.tls {
            out.push_str(&tls.to_text());
        }
        if self.refused > 0 {
            let _ = writeln!(
                out,
                "{} answers were neither 2xx nor 3xx: their latency is that of refusals",
                self.refused
            );
        }
        if self.errors > 0 {
            let first = self.first_error.as_deref().unwrap_or_default();
            let _ = writeln!(out, "{} errors, the first: {first}", self.errors);
        }
        out
    }
}

fn us(ns: u64) -> f64 {
    ns as f64 / 1e3
}

/// The percentile text that HdrHistogram's plotters read (`.hgrm`); values in milliseconds.
pub(super) fn percentile_text(latency: &Histogram<u64>) -> String {
    let mut out = String::from("       Value     Percentile TotalCount 1/(1-Percentile)\n\n");
    let ms = |ns: f64| ns / 1e6;
    let mut total = 0;
    for step in latency.iter_quantiles(5) {
        total += step.count_since_last_iteration();
        let quantile = step.quantile_iterated_to();
        let _ = write!(
            out,
            "{:12.6} {quantile:14.12} {total:10}",
            ms(step.value_iterated_to() as f64)
        );
        if quantile < 1.0 {
            let _ = write!(out, " {:14.2}", 1.0 / (1.0 - quantile));
        }
        out.push('\n');
    }
    let _ = writeln!(
        out,
        "#[Mean    = {:12.6}, StdDeviation   = {:12.6}]\n#[Max     = {:12.6}, Total count    = {:12}]",
        ms(latency.mean()),
        ms(latency.stdev()),
        ms(latency.max() as f64),
        latency.len()
    );
    out
}

#[cfg(test)]
mod tests {
    use super::super::tally::histogram;
    use super::*;

    #[test]
    fn the_percentile_text_ends_at_everything() {
        let mut latency = histogram();
        for ms in 1..=1_000u64 {
            latency.record(ms * 1_000_000).unwrap();
        }
        let text = percentile_text(&latency);
        let rows: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| {
                line.split_whitespace()
                    .map(|n| n.parse().unwrap())
                    .collect()
            })
            .collect();
        let half = rows.iter().find(|row| row[1] >= 0.5).unwrap();
        assert!((half[0] - 500.0).abs() < 1.0, "{half:?}");
        let last = rows.last().unwrap();
        assert_eq!((last[1], last[2]), (1.0, 1_000.0));
        assert!(rows.windows(2).all(|two| two[0][0] <= two[1][0]));
    }

    #[test]
    fn text_tells_of_errors_and_refusals() {
        let good = Outcome {
            requests: 3,
            measured: 3,
            ..Outcome::default()
        };
        assert!(!good.to_text().contains("error"));
        let bad = Outcome {
            errors: 2,
            refused: 1,
            first_error: Some("connect: refused".to_owned()),
            ..good
        };
        assert!(
            bad.to_text()
                .contains("2 errors, the first: connect: refused")
        );
        assert!(bad.to_text().contains("neither 2xx nor 3xx"));
    }
}
