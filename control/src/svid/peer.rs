//! A peer's certificate: its chain verified as TLS does, and after that read back.

use std::sync::Arc;
use std::time::SystemTime;

use ringmesh_wire::{ATTRIBUTES_OID, Attributes, NodeId, SpiffeId, WireError};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{CertificateDer, UnixTime};
use x509_parser::extensions::GeneralName;

use super::ca::serial_hex;

/// Whether the first of `chain` is good for a client under `roots` at `now`.
///
/// # Errors
/// Why not.
pub fn verify_chain(
    chain: &[CertificateDer<'_>],
    roots: &[CertificateDer<'static>],
    now: SystemTime,
) -> Result<(), rustls::Error> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store.add(root.clone())?;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider)
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?;
    let (leaf, rest) = chain
        .split_first()
        .ok_or(rustls::Error::NoCertificatesPresented)?;
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    let at = UnixTime::since_unix_epoch(since.unwrap_or_default());
    verifier.verify_client_cert(leaf, rest, at)?;
    Ok(())
}

/// What a certificate is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Purpose {
    /// A workload: may hold a session.
    Workload {
        /// Service and labels.
        attributes: Attributes,
    },
    /// A node credential: may renew.
    Node,
}

/// Who is on the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its node.
    pub node: NodeId,
    /// Its SPIFFE id.
    pub id: SpiffeId,
    /// Workload or node credential.
    pub purpose: Purpose,
    /// Serial number, hex.
    pub serial: String,
    /// Valid until, milliseconds since 1970.
    pub not_after_ms: u64,
}

impl Peer {
    /// Reads a leaf certificate (DER) whose chain was verified.
    ///
    /// # Errors
    /// [`WireError::Invalid`] where it is not shaped as this CA shapes certificates.
    pub fn from_der(der: &[u8]) -> Result<Self, WireError> {
        let invalid = |why: &str| WireError::Invalid(format!("certificate: {why}"));
        let (_, cert) =
            x509_parser::parse_x509_certificate(der).map_err(|e| invalid(&e.to_string()))?;
        let san = cert
            .subject_alternative_name()
            .ok()
            .flatten()
            .ok_or_else(|| invalid("no subject alternative name"))?;
        let (mut uris, mut names) = (Vec::new(), Vec::new());
        for name in &san.value.general_names {
            match name {
                GeneralName::URI(uri) => uris.push(*uri),
                GeneralName::DNSName(name) => names.push(*name),
                _ => return Err(invalid("an alternative name is neither URI nor DNS")),
            }
        }
        let [uri] = uris.as_slice() else {
            return Err(invalid("not exactly one URI"));
        };
        let id = SpiffeId::parse(uri)?;
        let path: Vec<&str> = id.principal().split('/').skip(1).collect();
        let (node, purpose) = match (path.as_slice(), names.as_slice()) {
            (["node", node], []) => (NodeId((*node).to_owned()), Purpose::Node),
            (["ns", namespace, "sa", _], [node]) => {
                let extension = cert
                    .extensions()
                    .iter()
                    .find(|e| e.oid.iter().is_some_and(|oid| oid.eq(ATTRIBUTES_OID)))
                    .ok_or_else(|| invalid("no attributes"))?;
                let attributes = Attributes::from_bytes(extension.value)?;
                if attributes.service.namespace != *namespace {
                    return Err(invalid("service and account are in different namespaces"));
                }
                (NodeId((*node).to_owned()), Purpose::Workload { attributes })
            }
            _ => return Err(invalid("neither a workload nor a node credential")),
        };
        let seconds = u64::try_from(cert.validity().not_after.timestamp()).unwrap_or(0);
        Ok(Self {
            node,
            id,
            purpose,
            serial: serial_hex(cert.raw_serial()),
            not_after_ms: seconds * 1_000,
        })
    }
}
