//! Medians and spreads.

use serde::Serialize;

/// Figures of one round of one proxy.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Round {
    /// CPU per request, microseconds.
    pub(crate) cpu_us: f64,
    /// Requests per second.
    pub(crate) rps: f64,
    /// Latency percentiles, microseconds.
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
}

/// Median, least and most of some values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// The spread of `values`; all zero for none.
pub(crate) fn spread(values: impl IntoIterator<Item = f64>) -> Spread {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let (Some(min), Some(max)) = (sorted.first(), sorted.last()) else {
        return Spread {
            median: 0.0,
            min: 0.0,
            max: 0.0,
        };
    };
    let half = sorted.len() / 2;
    let median = match sorted.len() % 2 {
        0 => f64::midpoint(sorted[half - 1], sorted[half]),
        _ => sorted[half],
    };
    Spread {
        median,
        min: *min,
        max: *max,
    }
}

#[cfg(test)]
mod tests {
    use super::spread;

    #[test]
    fn the_median_is_the_middle() {
        let odd = spread([3.0, 1.0, 2.0]);
        assert_eq!((odd.min, odd.median, odd.max), (1.0, 2.0, 3.0));
        assert_eq!(spread([4.0, 1.0, 2.0, 3.0]).median, 2.5);
        assert_eq!(spread([]).median, 0.0);
    }
}
