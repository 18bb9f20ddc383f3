//! Mesh-wide settings and trust.

use serde::{Deserialize, Serialize};

use crate::codec::Validate;
use crate::error::WireError;
use crate::limits::CERTIFICATE_BYTES_MAX;

/// What happens to a call to a destination the mesh does not know (Istio outboundTrafficPolicy).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OutboundMode {
    /// It goes to where the app meant it to go.
    AllowAny,
    /// 502 for HTTP, a reset for TCP.
    RegistryOnly,
}

/// What enforces a quota while the authority cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnQuotaUnavailable {
    /// Each enforcing sidecar keeps floor(max / N) by its own rolling window.
    Share,
    /// Everything passes.
    Allow,
    /// Nothing passes.
    Deny,
}

/// Mutual TLS towards this workload (Istio PeerAuthentication).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MtlsMode {
    /// A verified client certificate is required.
    Strict,
    /// Plaintext is accepted too.
    Permissive,
    /// Plaintext only.
    Disable,
}

/// Settings that hold for the whole sidecar, already resolved for its workload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mesh {
    /// Trust domain of every identity.
    pub trust_domain: String,
    /// Timeout of a route that names none, milliseconds; 0 is off. Default 15,000.
    pub default_timeout_ms: u64,
    /// Unknown destinations.
    pub outbound: OutboundMode,
    /// Quotas without their authority.
    pub on_quota_unavailable: OnQuotaUnavailable,
    /// Retry a timed-out try of a non-idempotent method too.
    pub retry_non_idempotent: bool,
    /// Mutual TLS for ports not in `mtls_ports`.
    pub mtls: MtlsMode,
    /// Workload ports with a mode of their own.
    pub mtls_ports: Vec<(u16, MtlsMode)>,
}

/// Whom to trust.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// Root certificates (DER).
    pub roots: Vec<Vec<u8>>,
    /// Serial numbers of revoked certificates, big endian, sorted.
    pub revoked_serials: Vec<Vec<u8>>,
}

impl Validate for Mesh {
    fn validate(&self) -> Result<(), WireError> {
        crate::ids::check_name("trust domain", &self.trust_domain)
    }
}

impl Validate for Trust {
    fn validate(&self) -> Result<(), WireError> {
        for root in &self.roots {
            if root.len() > CERTIFICATE_BYTES_MAX {
                return Err(WireError::TooLong {
                    what: "root certificate",
                    got: root.len(),
                    max: CERTIFICATE_BYTES_MAX,
                });
            }
        }
        Ok(())
    }
}
