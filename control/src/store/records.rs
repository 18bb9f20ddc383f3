//! Tokens, nodes, certificates and endpoints, as stored.

use std::collections::BTreeMap;

use ringmesh_wire::v1::session::Registration;
use ringmesh_wire::{Attributes, NodeId, ServiceId};
use serde::{Deserialize, Serialize};

/// What a node may be: fixed when its token is made, signed into every certificate it gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Binding {
    /// The node.
    pub node: NodeId,
    /// Namespace of service and account.
    pub namespace: String,
    /// Service account.
    pub service_account: String,
    /// Service.
    pub service: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
}

impl Binding {
    /// Service and labels as the certificate carries them.
    #[must_use]
    pub fn attributes(&self) -> Attributes {
        Attributes {
            service: ServiceId::new(&self.service, &self.namespace),
            labels: self.labels.clone(),
        }
    }
}

/// Whether a token can still be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TokenState {
    /// Not used yet.
    Fresh,
    /// Used at this time, milliseconds since 1970.
    Used {
        /// When.
        at_ms: u64,
        /// SHA-256 of what was asked for, hex: who asks again with the same keys may have missed the answer.
        #[serde(default)]
        by_sha256: String,
    },
}

/// A join token. The secret itself is not kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Public part.
    pub id: String,
    /// SHA-256 of the secret, hex. The secret is 256 random bits: no salt or stretching is needed.
    pub secret_sha256: String,
    /// What it grants.
    pub binding: Binding,
    /// Made at, milliseconds since 1970.
    pub created_ms: u64,
    /// Void from, milliseconds since 1970.
    pub expires_ms: u64,
    /// Made by.
    pub created_by: String,
    /// Used or not.
    pub state: TokenState,
}

/// A certificate that was issued and may still be valid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateRecord {
    /// Serial number, hex, as in the certificate.
    pub serial: String,
    /// `workload` or `node`.
    pub purpose: String,
    /// Issued at, milliseconds since 1970.
    pub issued_ms: u64,
    /// Valid until, milliseconds since 1970.
    pub not_after_ms: u64,
}

/// A node that has enrolled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// What it may be.
    pub binding: Binding,
    /// When it enrolled, milliseconds since 1970.
    pub enrolled_ms: u64,
    /// Its certificates that have not expired, oldest first.
    pub certificates: Vec<CertificateRecord>,
}

/// A certificate that must not be believed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revocation {
    /// Serial number, hex.
    pub serial: String,
    /// Whose it was.
    pub node: NodeId,
    /// When, milliseconds since 1970.
    pub when_ms: u64,
    /// By whom.
    pub who: String,
    /// It expires by itself at, milliseconds since 1970: forgotten after that.
    pub not_after_ms: u64,
}

/// A registration, so that endpoints survive a restart of control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredEndpoint {
    /// The node.
    pub node: NodeId,
    /// Identity its certificate showed.
    pub identity: String,
    /// What it registered, with the last known health.
    pub registration: Registration,
    /// It left; kept so that its service stays known.
    pub left: bool,
}

/// Something done through the API; of a revision its number and command, the changes are in its history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// When, milliseconds since 1970.
    pub when_ms: u64,
    /// Who.
    pub who: String,
    /// What, e.g. `token create reviews-v3-1`.
    pub what: String,
}
