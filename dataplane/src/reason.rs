//! Stable reason codes: why the mesh itself answered, closed or refused.
//!
//! Every answer that does not come from an upstream carries one, in the log, in the metric and in
//! the `x-ringmesh-reason` response header. Codes are never renamed; append new ones.

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// Nothing went wrong: the upstream's own answer.
    None = 0,
    /// The request head breaks RFC 9112.
    BadRequest,
    /// The request head is over its bounds.
    HeadTooLarge,
    /// The head did not arrive in time.
    HeadTimeout,
    /// A transfer coding we do not know (501).
    UnknownCoding,
    /// An HTTP version or preface that is not supported here.
    UnsupportedProtocol,
    /// Host names nothing the mesh knows, and unknown destinations are closed.
    UnknownDestination,
    /// No route of the virtual host matches (404).
    NoRoute,
    /// The route names a cluster that is not there (503).
    NoCluster,
    /// No endpoint is available (503).
    NoEndpoint,
    /// The connection to the endpoint failed (503).
    ConnectFailure,
    /// Connecting took too long (503).
    ConnectTimeout,
    /// The upstream closed before it answered (503).
    UpstreamReset,
    /// The upstream's answer breaks RFC 9112 (502).
    BadResponse,
    /// The route's timeout is over (504).
    Timeout,
    /// Every try ran into its own timeout (504).
    TryTimeout,
    /// An injected abort.
    FaultAbort,
    /// A circuit-breaker limit is reached (503).
    Overflow,
    /// This sidecar is at its own limit (503).
    Shed,
    /// An AuthorizationPolicy refuses (403).
    AuthzDenied,
    /// A denier refuses (its own status).
    CheckDenied,
    /// A quota is used up (429).
    QuotaExhausted,
    /// Plaintext to a port that demands mutual TLS.
    PlaintextRefused,
    /// The peer's certificate is not acceptable.
    PeerRefused,
    /// The server's identity is not one the service may have (503).
    IdentityMismatch,
    /// Our own certificate has expired and could not be renewed.
    SvidExpired,
    /// The client went away before its answer (499).
    ClientGone,
    /// The destination is this sidecar itself.
    Loop,
    /// The sidecar is draining.
    Draining,
    /// The body broke its framing.
    BadBody,
    /// Nothing moved for too long.
    IdleTimeout,
    /// No configuration has arrived yet (503).
    NoConfig,
    /// CONNECT to an address outside the mesh, asked by somebody who is not on this host (403).
    TunnelRefused,
    /// Mutual TLS to a port that takes plaintext only (PeerAuthentication DISABLE).
    MtlsDisabled,
    /// The upstream does not do the upgrade that was asked for: an HTTP/2 server without extended
    /// CONNECT, or an answer to HTTP/1.1's that an HTTP/2 client would take for success (501).
    UpgradeUnsupported,
    /// The service's endpoints are known by names that have not been resolved yet (503).
    NameUnresolved,
    /// A peer broke the protocol of lanes (docs/lanes.md) or of HTTP/2 frame by frame; the connection was
    /// given up.
    BadFrame,
    /// A caller on another host asks to go out by this sidecar, in its name.
    ForeignCaller,
}

impl Reason {
    /// All of them, for tables of counters; in numeric order.
    pub const ALL: [Self; 38] = [
        Self::None,
        Self::BadRequest,
        Self::HeadTooLarge,
        Self::HeadTimeout,
        Self::UnknownCoding,
        Self::UnsupportedProtocol,
        Self::UnknownDestination,
        Self::NoRoute,
        Self::NoCluster,
        Self::NoEndpoint,
        Self::ConnectFailure,
        Self::ConnectTimeout,
        Self::UpstreamReset,
        Self::BadResponse,
        Self::Timeout,
        Self::TryTimeout,
        Self::FaultAbort,
        Self::Overflow,
        Self::Shed,
        Self::AuthzDenied,
        Self::CheckDenied,
        Self::QuotaExhausted,
        Self::PlaintextRefused,
        Self::PeerRefused,
        Self::IdentityMismatch,
        Self::SvidExpired,
        Self::ClientGone,
        Self::Loop,
        Self::Draining,
        Self::BadBody,
        Self::IdleTimeout,
        Self::NoConfig,
        Self::TunnelRefused,
        Self::MtlsDisabled,
        Self::UpgradeUnsupported,
        Self::NameUnresolved,
        Self::BadFrame,
        Self::ForeignCaller,
    ];

    /// The stable code.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::BadRequest => "bad_request",
            Self::HeadTooLarge => "head_too_large",
            Self::HeadTimeout => "head_timeout",
            Self::UnknownCoding => "unknown_coding",
            Self::UnsupportedProtocol => "unsupported_protocol",
            Self::UnknownDestination => "unknown_destination",
            Self::NoRoute => "no_route",
            Self::NoCluster => "no_cluster",
            Self::NoEndpoint => "no_endpoint",
            Self::ConnectFailure => "connect_failure",
            Self::ConnectTimeout => "connect_timeout",
            Self::UpstreamReset => "upstream_reset",
            Self::BadResponse => "bad_response",
            Self::Timeout => "timeout",
            Self::TryTimeout => "try_timeout",
            Self::FaultAbort => "fault_abort",
            Self::Overflow => "overflow",
            Self::Shed => "shed",
            Self::AuthzDenied => "authz_denied",
            Self::CheckDenied => "check_denied",
            Self::QuotaExhausted => "quota_exhausted",
            Self::PlaintextRefused => "plaintext_refused",
            Self::PeerRefused => "peer_refused",
            Self::IdentityMismatch => "identity_mismatch",
            Self::SvidExpired => "svid_expired",
            Self::ClientGone => "client_gone",
            Self::Loop => "loop",
            Self::Draining => "draining",
            Self::BadBody => "bad_body",
            Self::IdleTimeout => "idle_timeout",
            Self::NoConfig => "no_config",
            Self::TunnelRefused => "tunnel_refused",
            Self::MtlsDisabled => "mtls_disabled",
            Self::UpgradeUnsupported => "upgrade_unsupported",
            Self::NameUnresolved => "name_unresolved",
            Self::BadFrame => "bad_frame",
            Self::ForeignCaller => "foreign_caller",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_in_numeric_order() {
        for (at, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, at);
            assert!(
                Reason::ALL[..at]
                    .iter()
                    .all(|other| other.code() != reason.code())
            );
        }
    }
}
