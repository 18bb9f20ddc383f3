//! A certificate and key of somebody else's CA, to sign with (Istio's `cacerts`, Envoy's upstream authority).
//!
//! Nothing is believed because it lies there: what the signing certificate signs must be good under the roots that
//! lie beside it, by the check that TLS makes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rcgen::Issuer as Signer;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::extensions::GeneralName;

use super::ca::{Ca, CaError, Ends, signing};
use super::passphrase::Passphrase;
use super::peer::verify_chain;

/// Where the files are (PEM).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Given {
    /// The signing certificate, and behind it those that lead to a root, in order.
    pub certificate: PathBuf,
    /// Its key, PKCS #8, encrypted (PBES2) or not.
    pub key: PathBuf,
    /// The roots to trust; that of the signing certificate first.
    pub roots: PathBuf,
}

/// Bytes of one file: a chain of a few certificates is a few KiB.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// A certificate made to see whether it would be good.
const TRIAL_LIFE: Duration = Duration::from_secs(60);

fn wrong(path: &Path, why: &(impl ToString + ?Sized)) -> CaError {
    CaError::Wrong {
        path: path.display().to_string(),
        why: why.to_string(),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CaError> {
    let file = |source| CaError::File {
        path: path.display().to_string(),
        source,
    };
    if fs::metadata(path).map_err(file)?.len() > FILE_BYTES_MAX {
        return Err(wrong(path, "more than 256 KiB are no certificates of ours"));
    }
    fs::read(path).map_err(file)
}

fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, CaError> {
    let bytes = read(path)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let all = all.map_err(|error| wrong(path, &format!("not PEM: {error}")))?;
    if all.is_empty() {
        return Err(wrong(path, "holds no certificate (PEM is expected)"));
    }
    Ok(all.iter().map(|der| der.to_vec()).collect())
}

/// Reads and checks them; the roots come beside, that of the signing certificate first.
pub(super) fn open(
    given: &Given,
    trust_domain: &str,
    passphrase: &Passphrase,
    now: SystemTime,
) -> Result<(Ca, Vec<Vec<u8>>), CaError> {
    let mut chain = certificates(&given.certificate)?;
    let roots = certificates(&given.roots)?;
    // Some tools put the root at the end of the chain; peers have it.
    chain.retain(|der| chain_keeps(der, &roots));
    let Some(signing_der) = chain.first().or(roots.first()) else {
        return Err(wrong(&given.certificate, "holds no certificate"));
    };
    check_signing(signing_der, trust_domain, &given.certificate)?;
    let text = read(&given.key)?;
    let pair = std::str::from_utf8(&text).map_err(|error| wrong(&given.key, &error))?;
    let pair = passphrase.open(&given.key, pair, |error| {
        wrong(
            &given.key,
            &format!(
                "{error}; a PKCS #8 key is expected: openssl pkcs8 -topk8 -nocrypt -in KEY -out {}",
                given.key.display()
            ),
        )
    })?;
    let (_, parsed) = x509_parser::parse_x509_certificate(signing_der)
        .map_err(|error| wrong(&given.certificate, &error))?;
    if parsed.public_key().subject_public_key.data.as_ref() != pair.public_key_raw() {
        let whose = given.certificate.display();
        return Err(wrong(
            &given.key,
            &format!("is not the key of the first certificate in {whose}"),
        ));
    }
    let signer = Signer::from_ca_cert_der(&signing_der.as_slice().into(), pair).map_err(signing)?;
    let root_der = roots.first().cloned().unwrap_or_default();
    let ca = Ca {
        trust_domain: trust_domain.to_owned(),
        ends: Ends::of(&root_der, &chain)?,
        root_der,
        chain_der: chain,
        bridge_der: Vec::new(),
        signer,
    };
    try_out(&ca, &roots, given, now)?;
    Ok((ca, roots))
}

fn chain_keeps(der: &[u8], roots: &[Vec<u8>]) -> bool {
    !roots.iter().any(|root| root == der)
}

/// What SPIFFE and RFC 5280 ask of a signing certificate, told one by one: the trial only says "no".
fn check_signing(der: &[u8], trust_domain: &str, path: &Path) -> Result<(), CaError> {
    let (_, cert) =
        x509_parser::parse_x509_certificate(der).map_err(|error| wrong(path, &error))?;
    if !cert.is_ca() {
        return Err(wrong(
            path,
            "the first certificate is not a CA's (basicConstraints CA:TRUE)",
        ));
    }
    let usage = cert.key_usage().map_err(|error| wrong(path, &error))?;
    if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        return Err(wrong(
            path,
            "the first certificate may not sign certificates (keyUsage keyCertSign)",
        ));
    }
    let names = cert.subject_alternative_name();
    let names = names.map_err(|error| wrong(path, &error))?;
    let names = names.iter().flat_map(|san| &san.value.general_names);
    for name in names {
        if let GeneralName::URI(uri) = name
            && *uri != format!("spiffe://{trust_domain}")
        {
            return Err(wrong(
                path,
                &format!("is made for {uri}, and this is the trust domain {trust_domain}"),
            ));
        }
    }
    Ok(())
}

/// Signs something and looks at it as a peer would.
fn try_out(ca: &Ca, roots: &[Vec<u8>], given: &Given, now: SystemTime) -> Result<(), CaError> {
    let trial = ca.own(TRIAL_LIFE, now);
    let (trial, _) = trial.map_err(|error| wrong(&given.certificate, &error))?;
    let chain: Vec<_> = trial
        .chain
        .iter()
        .map(|der| der.as_slice().into())
        .collect();
    let trusted: Vec<_> = roots.iter().cloned().map(CertificateDer::from).collect();
    verify_chain(&chain, &trusted, now).map_err(|error| {
        let roots = given.roots.display();
        wrong(
            &given.certificate,
            &format!("what it signs is not good under {roots}: {error}"),
        )
    })
}
