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
    /// The same as fast for all: 30 % of what HAProxy answers in a closed loop.
    HttpSameRate,
    /// HTTP/2 without TLS, 8 connections of 32 streams, small POSTs, closed loop.
    H2Small,
    /// Two proxies with mutual TLS between them, HTTP/1.1, 64 connections, closed loop.
    MtlsPair,
    /// The same at 1,000 requests/s (open loop).
    MtlsPairPaced,
    /// The same at 30 % of what two HAProxys answer in a closed loop.
    MtlsPairSameRate,
    /// Two proxies with mutual TLS between them, gRPC unary, 8 connections of 32 streams, closed loop.
    GrpcPair,
    /// The accepting proxy of a pair alone: a new mutual-TLS connection for each request.
    MtlsHandshakes,
    /// Opaque TCP, 4 connections, as fast as it goes.
    TcpBulk,
    /// Opaque TCP, one connection, 64 bytes to and fro.
    TcpPingpong,
    /// Memory of 10,000 idle connections.
    Idle,
    /// ringmesh with nothing to do: memory and wake-ups, fresh and after a load.
    AtRest,
    /// What a build of ringmesh that counts its allocations has allocated per request.
    Allocations,
}

/// How a scenario is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Interleaved rounds of a load.
    Rounds,
    Idle,
    AtRest,
    Allocations,
}

/// Fewest rounds of an open loop: its medians are small differences.
const PACED_ROUNDS: u32 = 7;
/// Fewest rounds of the scenario that others are compared by; on a shared machine five of one contender still
/// spread by half.
const FIRST_ROUNDS: u32 = 9;

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
            Self::HttpSameRate => {
                "HTTP/1.1, 128-byte answers, all at 30 % of what HAProxy answers in a closed loop, open loop"
            }
            Self::H2Small => {
                "HTTP/2 without TLS, POST with 128-byte answers, 8 connections of 32 streams, closed loop"
            }
            Self::MtlsPair => {
                "Two proxies with mutual TLS between them, HTTP/1.1, 128-byte answers, 64 connections, closed loop"
            }
            Self::MtlsPairPaced => {
                "Two proxies with mutual TLS between them, HTTP/1.1, 1,000 requests/s, open loop"
            }
            Self::MtlsPairSameRate => {
                "Two proxies with mutual TLS between them, HTTP/1.1, all at 30 % of what two HAProxys answer in a closed loop, open loop"
            }
            Self::GrpcPair => {
                "Two proxies with mutual TLS between them, gRPC unary, 128 bytes each way, 8 connections of 32 streams, closed loop"
            }
            Self::MtlsHandshakes => {
                "The accepting proxy of a pair alone: a new mutual-TLS 1.3 connection for each HTTP/1.1 request, one after the other"
            }
            Self::TcpBulk => "Opaque TCP, 4 connections, as fast as it goes",
            Self::TcpPingpong => "Opaque TCP, one connection, 64 bytes to and fro",
            Self::Idle => "10,000 idle HTTP/1.1 connections, after one request each",
            Self::AtRest => "ringmesh with nothing to do, fresh and 30 s after a load",
            Self::Allocations => {
                "ringmesh built to count its allocations: those of its shards per request, both sidecars of a pair together"
            }
        }
    }

    pub(super) fn method(self) -> Method {
        match self {
            Self::Idle => Method::Idle,
            Self::AtRest => Method::AtRest,
            Self::Allocations => Method::Allocations,
            _ => Method::Rounds,
        }
    }

    pub(super) fn speech(self) -> Speech {
        match self {
            Self::TcpBulk | Self::TcpPingpong => Speech::Tcp,
            Self::H2Small | Self::GrpcPair => Speech::Http2,
            _ => Speech::Http1,
        }
    }

    pub(super) fn shape(self) -> Shape {
        match self {
            Self::MtlsPair | Self::MtlsPairPaced | Self::MtlsPairSameRate | Self::GrpcPair => {
                Shape::Pair
            }
            Self::MtlsHandshakes => Shape::Callee,
            _ => Shape::One,
        }
    }

    /// The rate of an open loop, as a share of what HAProxy answers in a closed one.
    pub(super) fn share_of_haproxy(self) -> Option<f64> {
        match self {
            Self::HttpSameRate | Self::MtlsPairSameRate => Some(0.3),
            _ => None,
        }
    }

    /// Arguments of `ringmesh-bench load`, or of h2load for HTTP/2, but for where to, how long and
    /// the rate that HAProxy sets.
    pub(super) fn load(self) -> &'static [&'static str] {
        match self {
            Self::H2Small => &["-c", "8", "-m", "32"],
            Self::GrpcPair => &[
                "-c",
                "8",
                "-m",
                "32",
                "-H",
                "content-type: application/grpc",
                "-H",
                "te: trailers",
            ],
            Self::MtlsHandshakes => &["handshakes"],
            Self::MtlsPairPaced => &["http", "-c", "64", "--rate", "1000"],
            Self::HttpSmall
            | Self::HttpSameRate
            | Self::AtRest
            | Self::Allocations
            | Self::MtlsPair
            | Self::MtlsPairSameRate => &["http", "-c", "64"],
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
            // Envoy with the features of a mesh could not keep up.
            Self::HttpSameRate => &[Direct, Haproxy, Nginx, Envoy, Ringmesh],
            Self::MtlsPairSameRate => &[Direct, Haproxy, HaproxyH2, Nginx, Envoy, Ringmesh],
            Self::MtlsHandshakes => &[Haproxy, Envoy, Ringmesh],
            Self::TcpPingpong => &[Direct, Haproxy, Nginx, Envoy, Ringmesh],
            Self::Idle => &[Haproxy, Nginx, Envoy, EnvoyMesh, Ringmesh],
            Self::AtRest | Self::Allocations => &[Ringmesh],
            _ => &[Direct, Haproxy, Nginx, Envoy, EnvoyMesh, Ringmesh],
        }
    }

    /// Rounds, if `asked` says nothing else.
    pub(super) fn rounds(self, asked: Option<u32>, default: u32) -> u32 {
        asked.unwrap_or(match self {
            Self::HttpPaced | Self::HttpSameRate | Self::MtlsPairPaced | Self::MtlsPairSameRate => {
                default.max(PACED_ROUNDS)
            }
            Self::HttpSmall => default.max(FIRST_ROUNDS),
            _ => default,
        })
    }

    /// Columns of its table.
    pub(crate) fn figures(self) -> &'static [Figure] {
        use Figure::{
            AddedP50Us, AddedP99Us, AfterLoadMib, AgentWakeUpsPerS, AllocationsGrpcPair,
            AllocationsHttp1, AllocationsHttp2, AllocationsPair, BusyPercent, CpuSPerGib, CpuUs,
            FreshMib, FullHandshakeUs, GibPerS, IdleConnectionBytes, MaxUs, P50Us, P99Us, P999Us,
            ResumedHandshakeUs, Rps, RssMib, ShardWakeUpsPerS, StolenPercent,
        };
        match self {
            Self::TcpBulk => &[CpuSPerGib, GibPerS, BusyPercent, RssMib, StolenPercent],
            Self::H2Small | Self::GrpcPair => &[CpuUs, Rps, BusyPercent, RssMib, StolenPercent],
            Self::HttpSameRate | Self::MtlsPairSameRate => &[
                AddedP99Us,
                AddedP50Us,
                Rps,
                CpuUs,
                P50Us,
                P99Us,
                P999Us,
                MaxUs,
                RssMib,
                StolenPercent,
            ],
            Self::MtlsHandshakes => &[FullHandshakeUs, ResumedHandshakeUs, RssMib, StolenPercent],
            Self::HttpPaced | Self::MtlsPairPaced | Self::TcpPingpong => &[
                CpuUs,
                AddedP50Us,
                AddedP99Us,
                P50Us,
                P99Us,
                P999Us,
                MaxUs,
                RssMib,
                StolenPercent,
            ],
            Self::Idle => &[IdleConnectionBytes, RssMib],
            Self::AtRest => &[FreshMib, AfterLoadMib, ShardWakeUpsPerS, AgentWakeUpsPerS],
            Self::Allocations => &[
                AllocationsHttp1,
                AllocationsHttp2,
                AllocationsPair,
                AllocationsGrpcPair,
            ],
            _ => &[
                CpuUs,
                Rps,
                P50Us,
                P99Us,
                P999Us,
                MaxUs,
                BusyPercent,
                RssMib,
                StolenPercent,
            ],
        }
    }

    /// The figure it is about: its bars are drawn.
    pub(crate) fn main_figure(self) -> Figure {
        self.figures()[0]
    }
}
