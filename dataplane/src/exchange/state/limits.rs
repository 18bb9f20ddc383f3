//! Bounds of what comes to a shard.

use crate::http2::Pings;

/// Bounds of one shard's downstream side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnLimits {
    /// Connections at once; above, a new one is answered 503 and closed.
    pub conns_max: u32,
    /// Sockets at once, those to upstreams included; above, likewise. What the limit of open files
    /// leaves to a shard.
    pub sockets_max: u32,
    /// From the first byte of a head to its last, milliseconds (slowloris).
    pub head_timeout_ms: u64,
    /// Between two requests on a connection, milliseconds.
    pub keep_alive_timeout_ms: u64,
    /// Without a byte in either direction inside an exchange, milliseconds.
    pub idle_timeout_ms: u64,
    /// Without a byte in either direction of an opaque connection, milliseconds.
    pub tcp_idle_timeout_ms: u64,
    /// For a client's first byte where the last connection to an undeclared port spoke HTTP, before its server is
    /// dialled without a request, milliseconds.
    pub http_patience_ms: u64,
    /// For the handshake on the mesh port, milliseconds.
    pub handshake_timeout_ms: u64,
    /// Bytes kept beside the pools; above, whoever needs more is shed.
    pub kept_bytes_max: usize,
    /// For plaintext connections to a port that has become STRICT, milliseconds.
    pub plaintext_drain_ms: u64,
    /// For sidecars that are silent while HTTP/2 streams wait for them.
    pub pings: Pings,
}

impl Default for ConnLimits {
    fn default() -> Self {
        Self {
            // A tenth of the ring's task table is left for everything else.
            conns_max: 58_000,
            sockets_max: u32::MAX,
            // HAProxy recommends 10 s; slower clients are attacks or broken.
            head_timeout_ms: 10_000,
            // Envoy 1 h, nginx 75 s: long enough for pooled clients, short enough to free memory.
            keep_alive_timeout_ms: 600_000,
            // Envoy's stream idle timeout.
            idle_timeout_ms: 300_000,
            // Envoy's and Istio's tcp idle timeout.
            tcp_idle_timeout_ms: 3_600_000,
            // HTTP clients speak at once, and their requests have a pool. Long enough for a round trip in a data
            // centre, short enough for nobody to notice should the port have become a server-first one.
            http_patience_ms: 20,
            handshake_timeout_ms: 5_000,
            // A thousand of the longest heads, a hundred thousand of the usual: a fifth of what the pools may take.
            kept_bytes_max: 64 << 20,
            // Istio's drainDuration.
            plaintext_drain_ms: 45_000,
            pings: Pings::default(),
        }
    }
}
