//! What is measured: the load of each scenario, who takes part and which figures are told.

use clap::ValueEnum;
use serde::Serialize;

use super::contender::Contender;
use super::peers::{Shape, Speech};
use crate::figures::Figure;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Scenario {
    /// 128-byte answers, 64 keep-alive connections, closed loop.
    HttpSmall,
    /// 64 KiB answers, 64 keep-alive connections, closed loop.
    #[value(name = "http-64k")]
    #[serde(rename = "http-64k")]
    Http64k,
    /// A new connection per request, 64 at a time.
    HttpChurn,
    /// 3,000 requests/s, whatever the answers do (open loop).
    HttpPaced,
    /// HTTP/2 without TLS, 8 connections of 32 streams, small POSTs, closed loop.
    H2Small,
    /// Two proxies with mutual TLS between them, HTTP/1.1, 64 connections, closed loop.
    MtlsPair,
    /// The same at 1,000 requests/s (open loop).
    MtlsPairPaced,
    /// Opaque TCP, 4 connections, as fast as it goes.
    TcpBulk,
    /// Opaque TCP, one connection, 64 bytes to and fro.
    TcpPingpong,
    /// Memory of 10,000 idle connections.
    Idle,
    /// ringmesh with nothing to do: memory and wake-ups, fresh and after a load.
    AtRest,
}

/// How a scenario is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Interleaved rounds of a load.
    Rounds,
    Idle,
    AtRest,
}

/// Fewest rounds of an open loop: its medians are small differences.
const PACED_ROUNDS: u32 = 7;

impl Scenario {
    /// The name on the command line.
    pub(crate) fn name(self) -> String {
        let value = self.to_possible_value();
        value.map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// One line for people.
    pub(crate) fn about(self) -> &'static str {
        match self {
            Self::HttpSmall => "HTTP/1.1, 128-byte answers, 64 keep-alive connections, closed loop",
            Self::Http64k => "HTTP/1.1, 64 KiB answers, 64 keep-alive connections, closed loop",
            Self::HttpChurn => "HTTP/1.1, a new connection per request, 64 at a time, closed loop",
            Self::HttpPaced => "HTTP/1.1, 128-byte answers, 3,000 requests/s, open loop",
            Self::H2Small => {
                "HTTP/2 without TLS, POST with 128-byte answers, 8 connections of 32 streams, closed loop"
            }
            Self::MtlsPair => {
                "Two proxies with mutual TLS between them, HTTP/1.1, 128-byte answers, 64 connections, closed loop"
            }
            Self::MtlsPairPaced => {
                "Two proxies with mutual TLS between them, HTTP/1.1, 1,000 requests/s, open loop"
            }
            Self::TcpBulk => "Opaque TCP, 4 connections, as fast as it goes",
            Self::TcpPingpong => "Opaque TCP, one connection, 64 bytes to and fro",
            Self::Idle => "10,000 idle HTTP/1.1 connections, after one request each",
            Self::AtRest => "ringmesh with nothing to do, fresh and 30 s after a load",
        }
    }

    pub(super) fn method(self) -> Method {
        match self {
            Self::Idle => Method::Idle,
            Self::AtRest => Method::AtRest,
            _ => Method::Rounds,
        }
    }

    pub(super) fn speech(self) -> Speech {
        match self {
            Self::TcpBulk | Self::TcpPingpong => Speech::Tcp,
            Self::H2Small => Speech::Http2,
            _ => Speech::Http1,
        }
    }

    pub(super) fn shape(self) -> Shape {
        match self {
            Self::MtlsPair | Self::MtlsPairPaced => Shape::Pair,
            _ => Shape::One,
        }
    }

    /// Arguments of `ringmesh-bench load`, or of h2load for HTTP/2, but for where to and how long.
    pub(super) fn load(self) -> &'static [&'static str] {
        match self {
            Self::H2Small => &["-c", "8", "-m", "32"],
            Self::MtlsPairPaced => &["http", "-c", "64", "--rate", "1000"],
            Self::HttpSmall | Self::AtRest | Self::MtlsPair => &["http", "-c", "64"],
            Self::Http64k => &["http", "-c", "64", "--path", "/65536"],
            Self::HttpChurn => &["http", "-c", "64", "--churn"],
            Self::HttpPaced => &["http", "-c", "64", "--rate", "3000"],
            Self::TcpBulk => &["bulk", "-c", "4"],
            Self::TcpPingpong => &["ping", "-c", "1"],
            Self::Idle => &["idle", "-c", "10000"],
        }
    }

    /// Who takes part, in the order of tables.
    pub(super) fn contenders(self) -> &'static [Contender] {
        use Contender::{
            Direct, Envoy, EnvoyMesh, Haproxy, HaproxyH2, HaproxySplice, Nginx, Ringmesh,
        };
        match self {
            Self::TcpBulk => &[Direct, Haproxy, HaproxySplice, Nginx, Envoy, Ringmesh],
            Self::MtlsPair | Self::MtlsPairPaced => &[
                Direct, Haproxy, HaproxyH2, Nginx, Envoy, EnvoyMesh, Ringmesh,
            ],
            Self::TcpPingpong => &[Direct, Haproxy, Nginx, Envoy, Ringmesh],
            Self::Idle => &[Haproxy, Nginx, Envoy, EnvoyMesh, Ringmesh],
            Self::AtRest => &[Ringmesh],
            _ => &[Direct, Haproxy, Nginx, Envoy, EnvoyMesh, Ringmesh],
        }
    }

    /// Rounds, if `asked` says nothing else.
    pub(super) fn rounds(self, asked: Option<u32>, default: u32) -> u32 {
        asked.unwrap_or(match self {
            Self::HttpPaced | Self::MtlsPairPaced => default.max(PACED_ROUNDS),
            _ => default,
        })
    }

    /// Columns of its table.
    pub(crate) fn figures(self) -> &'static [Figure] {
        use Figure::{
            AddedP50Us, AddedP99Us, AfterLoadMib, AgentWakeUpsPerS, BusyPercent, CpuSPerGib, CpuUs,
            FreshMib, GibPerS, IdleConnectionBytes, MaxUs, P50Us, P99Us, P999Us, Rps, RssMib,
            ShardWakeUpsPerS,
        };
        match self {
            Self::TcpBulk => &[CpuSPerGib, GibPerS, BusyPercent, RssMib],
            Self::H2Small => &[CpuUs, Rps, BusyPercent, RssMib],
            Self::HttpPaced | Self::MtlsPairPaced | Self::TcpPingpong => &[
                CpuUs, AddedP50Us, AddedP99Us, P50Us, P99Us, P999Us, MaxUs, RssMib,
            ],
            Self::Idle => &[IdleConnectionBytes, RssMib],
            Self::AtRest => &[FreshMib, AfterLoadMib, ShardWakeUpsPerS, AgentWakeUpsPerS],
            _ => &[CpuUs, Rps, P50Us, P99Us, P999Us, MaxUs, BusyPercent, RssMib],
        }
    }

    /// The figure it is about: its bars are drawn.
    pub(crate) fn main_figure(self) -> Figure {
        self.figures()[0]
    }
}
