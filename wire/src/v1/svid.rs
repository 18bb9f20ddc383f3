//! Certificates: a join token buys the first, an old one buys the next.
//!
//! Keys never leave the host: only signing requests (PKCS #10, DER) travel. A request is two
//! requests: the workload certificate (SVID, hours) and the node credential (90 days) that renews
//! an expired SVID without a new token.

use serde::{Deserialize, Serialize};

use crate::codec::Validate;
use crate::error::WireError;
use crate::ids::NodeId;
use crate::limits::CERTIFICATE_BYTES_MAX;

/// First contact: a token and two signing requests.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enroll {
    /// `id` part of the join token.
    pub token_id: String,
    /// `secret` part of the join token.
    pub token_secret: String,
    /// The node that asks; must be the one the token is bound to.
    pub node: NodeId,
    /// Signing request for the workload key.
    pub workload_csr: Vec<u8>,
    /// Signing request for the node key.
    pub node_csr: Vec<u8>,
}

/// Shows everything but the secret.
impl std::fmt::Debug for Enroll {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Enroll")
            .field("token_id", &self.token_id)
            .field("node", &self.node)
            .finish_non_exhaustive()
    }
}

/// A new certificate on a link that is authenticated by the current SVID or the node credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renew {
    /// Signing request for a fresh workload key.
    pub workload_csr: Vec<u8>,
    /// Signing request for a fresh node key, when the node credential is due too.
    pub node_csr: Option<Vec<u8>>,
}

/// What control issued.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issued {
    /// Workload certificate, leaf first, then the intermediate (DER).
    pub workload_chain: Vec<Vec<u8>>,
    /// Node credential, leaf first; empty where none was asked for.
    pub node_chain: Vec<Vec<u8>>,
    /// Roots to trust (DER).
    pub roots: Vec<Vec<u8>>,
}

fn check_der(what: &'static str, der: &[u8]) -> Result<(), WireError> {
    if der.len() > CERTIFICATE_BYTES_MAX {
        return Err(WireError::TooLong {
            what,
            got: der.len(),
            max: CERTIFICATE_BYTES_MAX,
        });
    }
    Ok(())
}

impl Validate for Enroll {
    fn validate(&self) -> Result<(), WireError> {
        self.node.validate()?;
        check_der("workload signing request", &self.workload_csr)?;
        check_der("node signing request", &self.node_csr)
    }
}

impl Validate for Renew {
    fn validate(&self) -> Result<(), WireError> {
        check_der("workload signing request", &self.workload_csr)?;
        self.node_csr
            .as_deref()
            .map_or(Ok(()), |csr| check_der("node signing request", csr))
    }
}

impl Validate for Issued {
    fn validate(&self) -> Result<(), WireError> {
        if self.workload_chain.is_empty() || self.roots.is_empty() {
            return Err(WireError::Invalid(
                "issued: no certificate or no root".into(),
            ));
        }
        let all = self
            .workload_chain
            .iter()
            .chain(&self.node_chain)
            .chain(&self.roots);
        all.map(Vec::as_slice)
            .try_for_each(|der| check_der("certificate", der))
    }
}
