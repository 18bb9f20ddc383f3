//! Certificates of two proxies that prove to each other who they are: P-256, made at each start.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};

use super::NotServing;
use crate::problem::Problem;

/// What both are called, and expect each other to be called.
pub(super) const NAME: &str = "app.bench";

/// Files of one authority, and of one certificate that both proxies show.
#[derive(Debug)]
pub(super) struct Certs {
    pub(super) authority: PathBuf,
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
    /// Certificate and key in one.
    pub(super) both: PathBuf,
}

impl Certs {
    pub(super) fn make(dir: &Path) -> Result<Self, NotServing> {
        let certs = Self {
            authority: dir.join("ca.pem"),
            certificate: dir.join("cert.pem"),
            key: dir.join("key.pem"),
            both: dir.join("both.pem"),
        };
        let made = || -> Result<(String, String, String), rcgen::Error> {
            let mut authority = CertificateParams::new(Vec::new())?;
            // Two different names, or the leaf would seem to be its own issuer.
            authority
                .distinguished_name
                .push(DnType::CommonName, "bench authority");
            authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
            let mut leaf = CertificateParams::new(vec![NAME.to_owned()])?;
            leaf.distinguished_name.push(DnType::CommonName, NAME);
            leaf.extended_key_usages = vec![
                ExtendedKeyUsagePurpose::ServerAuth,
                ExtendedKeyUsagePurpose::ClientAuth,
            ];
            let key = KeyPair::generate()?;
            let leaf = leaf.signed_by(&key, &authority)?;
            Ok((authority.pem(), leaf.pem(), key.serialize_pem()))
        };
        let (authority, leaf, key) = made().map_err(Problem::failed)?;
        fs::write(&certs.authority, authority)?;
        fs::write(&certs.both, format!("{leaf}{key}"))?;
        fs::write(&certs.certificate, leaf)?;
        fs::write(&certs.key, key)?;
        Ok(certs)
    }
}
