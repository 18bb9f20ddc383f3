//! Is this the control service? Chain, name and identity.
//!
//! At first contact the sidecar knows only the hash of the root (from the join token): the chain
//! must hold a certificate with that hash and must be good under it. Later the stored roots count.
//! Either way the leaf must carry the control service's name *and* its SPIFFE identity, so that no
//! workload's certificate, though good under the same root, can pass for it.

use std::sync::Arc;

use ringmesh_wire::SpiffeId;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use x509_parser::extensions::GeneralName;

pub use crate::tls::sha256;

/// What the chain must end in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Anchor {
    /// A certificate of the presented chain with this SHA-256.
    Pin([u8; 32]),
    /// One of these.
    Roots(Vec<CertificateDer<'static>>),
}

/// Checks the control service's certificate.
#[derive(Debug)]
pub struct ControlVerifier {
    anchor: Anchor,
    provider: Arc<CryptoProvider>,
}

/// Why a presented chain is not the control service's.
#[derive(Debug)]
struct NotControl(&'static str);

impl std::fmt::Display for NotControl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NotControl {}

fn refuse(why: &'static str) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(NotControl(
        why,
    )))))
}

impl ControlVerifier {
    /// A verifier that trusts `anchor`.
    #[must_use]
    pub fn new(anchor: Anchor) -> Self {
        Self {
            anchor,
            provider: Arc::new(aws_lc_rs::default_provider()),
        }
    }

    fn roots(&self, chain: &[CertificateDer<'_>]) -> Result<RootCertStore, Error> {
        let mut store = RootCertStore::empty();
        match &self.anchor {
            Anchor::Roots(roots) => {
                for root in roots {
                    store.add(root.clone())?;
                }
            }
            Anchor::Pin(pin) => {
                let root = chain
                    .iter()
                    .find(|certificate| sha256(certificate) == *pin)
                    .ok_or_else(|| {
                        refuse("root_pin: no certificate of the chain has the token's root hash")
                    })?;
                store.add(root.clone().into_owned())?;
            }
        }
        Ok(store)
    }
}

impl ServerCertVerifier for ControlVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let roots = Arc::new(self.roots(intermediates)?);
        let provider = Arc::clone(&self.provider);
        WebPkiServerVerifier::builder_with_provider(roots, provider)
            .build()
            .map_err(|error| Error::General(error.to_string()))?
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)?;
        if !names_control(end_entity) {
            return Err(refuse(
                "identity: the certificate is good but not the control service's",
            ));
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(refuse("TLS 1.2 is not spoken here"))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Exactly one URI SAN, `spiffe://TRUST-DOMAIN/control`.
fn names_control(leaf: &CertificateDer<'_>) -> bool {
    let Ok((_, leaf)) = x509_parser::parse_x509_certificate(leaf) else {
        return false;
    };
    let Ok(Some(names)) = leaf.subject_alternative_name() else {
        return false;
    };
    let mut uris = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    let (Some(uri), None) = (uris.next(), uris.next()) else {
        return false;
    };
    SpiffeId::parse(uri).is_ok_and(|id| id.principal() == format!("{}/control", id.trust_domain()))
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
