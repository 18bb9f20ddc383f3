//! What is measured, and medians and spreads of it.

use serde::{Deserialize, Serialize};

/// One kind of figure. Units last, as everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Figure {
    /// Of the whole process tree, per request (or ball, or connection).
    CpuUs,
    CpuSPerGib,
    Rps,
    GibPerS,
    P50Us,
    P99Us,
    P999Us,
    MaxUs,
    /// Against direct in the same round.
    AddedP50Us,
    AddedP99Us,
    /// Share of one CPU the proxy was busy.
    BusyPercent,
    /// Share of the machine's CPU time that its hypervisor gave to others meanwhile.
    StolenPercent,
    RssMib,
    IdleConnectionBytes,
    FreshMib,
    AfterLoadMib,
    ShardWakeUpsPerS,
    AgentWakeUpsPerS,
    /// Of the accepting proxy, per connection with one request.
    FullHandshakeUs,
    ResumedHandshakeUs,
    /// Per request: HTTP/1.1 through one sidecar, HTTP/2 through one, HTTP/1.1 and gRPC through two.
    AllocationsHttp1,
    AllocationsHttp2,
    AllocationsPair,
    AllocationsGrpcPair,
}

impl Figure {
    /// Head of its column.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::CpuUs => "CPU us",
            Self::CpuSPerGib => "CPU s/GiB",
            Self::Rps => "per second",
            Self::GibPerS => "GiB/s",
            Self::P50Us => "p50 us",
            Self::P99Us => "p99 us",
            Self::P999Us => "p99.9 us",
            Self::MaxUs => "max us",
            Self::AddedP50Us => "added p50 us",
            Self::AddedP99Us => "added p99 us",
            Self::BusyPercent => "busy %",
            Self::StolenPercent => "stolen %",
            Self::RssMib => "RSS MiB",
            Self::IdleConnectionBytes => "bytes/connection",
            Self::FreshMib => "fresh MiB",
            Self::AfterLoadMib => "after load MiB",
            Self::ShardWakeUpsPerS => "shard wake-ups/s",
            Self::AgentWakeUpsPerS => "agent wake-ups/s",
            Self::FullHandshakeUs => "full handshake CPU us",
            Self::ResumedHandshakeUs => "resumed CPU us",
            Self::AllocationsHttp1 => "allocations, HTTP/1.1",
            Self::AllocationsHttp2 => "allocations, HTTP/2",
            Self::AllocationsPair => "allocations, HTTP/1.1 pair",
            Self::AllocationsGrpcPair => "allocations, gRPC pair",
        }
    }

    /// `value` with as many digits as it deserves.
    pub(crate) fn show(self, value: f64) -> String {
        match self {
            Self::CpuSPerGib | Self::GibPerS => format!("{value:.3}"),
            Self::CpuUs
            | Self::StolenPercent
            | Self::RssMib
            | Self::FreshMib
            | Self::AfterLoadMib
            | Self::ShardWakeUpsPerS
            | Self::AgentWakeUpsPerS => format!("{value:.1}"),
            Self::AllocationsHttp1
            | Self::AllocationsHttp2
            | Self::AllocationsPair
            | Self::AllocationsGrpcPair => format!("{value:.3}"),
            _ => thousands(value),
        }
    }
}

/// A whole number with commas.
fn thousands(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = String::new();
    if value <= -0.5 {
        out.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Median, least and most of some values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
}

/// The spread of `values`; none of none.
pub(crate) fn spread(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    let (min, max) = (*sorted.first()?, *sorted.last()?);
    let half = sorted.len() / 2;
    let median = match sorted.len() % 2 {
        0 => f64::midpoint(sorted[half - 1], sorted[half]),
        _ => sorted[half],
    };
    Some(Spread { median, min, max })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        let odd = spread([3.0, 1.0, 2.0]).unwrap();
        assert_eq!((odd.min, odd.median, odd.max), (1.0, 2.0, 3.0));
        assert_eq!(spread([4.0, 1.0, 2.0, 3.0]).unwrap().median, 2.5);
        assert_eq!(spread([]), None);
    }

    #[test]
    fn large_numbers_have_commas() {
        assert_eq!(Figure::Rps.show(1_234_567.4), "1,234,567");
        assert_eq!(Figure::AddedP50Us.show(-1_000.0), "-1,000");
        assert_eq!(Figure::P50Us.show(999.0), "999");
        assert_eq!(Figure::CpuUs.show(13.57), "13.6");
    }
}
