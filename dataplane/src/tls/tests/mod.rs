//! A small certificate authority, and what the tests do with it.

mod hellos;
mod identities;
mod live;
mod resumed;

use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};
use ringmesh_wire::{ATTRIBUTES_OID, Attributes, ServiceId};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::*;

const DAY: Duration = Duration::from_secs(86_400);

/// An authority of one level.
pub(crate) struct House {
    root: CertifiedIssuer<'static, KeyPair>,
}

/// A leaf as the real authority signs it, before a test spoils it.
pub(crate) fn workload(account: &str, service: &str, version: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = (SystemTime::now() - DAY).into();
    params.not_after = (SystemTime::now() + DAY).into();
    params.serial_number = Some(SerialNumber::from_slice(&[7, 7]));
    params.distinguished_name = DistinguishedName::new();
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.subject_alt_names = vec![
        uri(&format!("spiffe://mesh.local/ns/default/sa/{account}")),
        SanType::DnsName("node-1".try_into().unwrap()),
    ];
    let attributes = Attributes {
        service: ServiceId::new(service, "default"),
        labels: [("version".to_owned(), version.to_owned())].into(),
    };
    params.custom_extensions = vec![CustomExtension::from_oid_content(
        &ATTRIBUTES_OID,
        attributes.to_bytes().unwrap(),
    )];
    params
}

fn uri(name: &str) -> SanType {
    SanType::URI(name.try_into().unwrap())
}

impl House {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let root = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Self { root }
    }

    pub(crate) fn sign(
        &self,
        params: &CertificateParams,
    ) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.root).unwrap();
        (cert.der().clone(), key.into())
    }

    pub(crate) fn roots(&self) -> Vec<CertificateDer<'static>> {
        vec![self.root.as_ref().der().clone()]
    }

    pub(crate) fn material(
        &self,
        params: &CertificateParams,
    ) -> Result<TlsMaterial, MaterialError> {
        let (cert, key) = self.sign(params);
        TlsMaterial::build(vec![cert], key, &self.roots(), trust())
    }
}

impl TlsMaterial {
    /// As a sidecar has it that does not know lanes.
    pub(crate) fn without_lanes(mut self) -> Self {
        let mut server = rustls::ServerConfig::clone(&self.server);
        server
            .alpn_protocols
            .retain(|name| name != Inner::Lanes.alpn());
        self.server = std::sync::Arc::new(server);
        self
    }
}

/// What a client with this material offers, for a client that is not ours.
pub(crate) fn client_config(
    material: &TlsMaterial,
    inner: Inner,
) -> std::sync::Arc<rustls::ClientConfig> {
    std::sync::Arc::clone(material.client(inner))
}

pub(crate) fn trust() -> PeerTrust {
    PeerTrust {
        trust_domain: "mesh.local".into(),
        revoked_serials: Vec::new(),
    }
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    i64::try_from(now.unwrap().as_secs()).unwrap()
}
