//! Whom a certificate belongs to: the SPIFFE X.509-SVID rules and our attributes.

use std::fmt;

use ringmesh_wire::{ATTRIBUTES_OID, Attributes, SpiffeId};
use x509_parser::certificate::X509Certificate;
use x509_parser::der_parser::Oid;
use x509_parser::extensions::{GeneralName, ParsedExtension};

use crate::view::PeerIdentity;

/// What a peer's certificate is held against, beside the chain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerTrust {
    /// The only trust domain accepted.
    pub trust_domain: String,
    /// Serial numbers of revoked certificates, big endian.
    pub revoked_serials: Vec<Vec<u8>>,
}

/// Why a peer's certificate is not acceptable.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PeerRefusal {
    /// It showed none.
    NoCertificate,
    /// It does not chain to our roots, or not for this use.
    Chain(String),
    /// It does not parse.
    Malformed,
    /// Its time is over.
    Expired,
    /// Its time has not begun.
    NotYetValid,
    /// Its serial number is revoked.
    Revoked,
    /// It may sign certificates: an authority is never a peer.
    Authority,
    /// Its key usage is not critical, lacks digitalSignature or allows signing certificates.
    KeyUsage,
    /// Its extended key usage is not for servers and clients both.
    ExtendedKeyUsage,
    /// It has not exactly one URI name.
    UriNames(usize),
    /// Its URI is no SPIFFE ID of a workload.
    NotAWorkload(String),
    /// It is of another trust domain.
    TrustDomain(String),
    /// Service and labels are missing or malformed.
    Attributes(String),
}

impl fmt::Display for PeerRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("the peer showed no certificate"),
            Self::Chain(why) => write!(f, "the certificate is not trusted: {why}"),
            Self::Malformed => f.write_str("the certificate does not parse"),
            Self::Expired => f.write_str("the certificate has expired"),
            Self::NotYetValid => f.write_str("the certificate is not valid yet"),
            Self::Revoked => f.write_str("the certificate is revoked"),
            Self::Authority => f.write_str("the certificate is an authority's"),
            Self::KeyUsage => f.write_str("the certificate's key usage is not a workload's"),
            Self::ExtendedKeyUsage => f.write_str(
                "the certificate's extended key usage is not for servers and clients both",
            ),
            Self::UriNames(count) => write!(f, "the certificate has {count} URI names, not one"),
            Self::NotAWorkload(uri) => write!(f, "{uri:?} is no SPIFFE ID of a workload"),
            Self::TrustDomain(domain) => write!(f, "trust domain {domain:?} is not ours"),
            Self::Attributes(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for PeerRefusal {}

/// A certificate that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// Whose it is.
    pub identity: PeerIdentity,
    /// Serial number, big endian, without leading zeroes.
    pub serial: Box<[u8]>,
    /// When it ends, seconds since 1970.
    pub not_after_unix_s: i64,
}

/// Whom a leaf certificate belongs to, see [`prove`].
///
/// # Errors
/// The first rule that is broken.
pub fn identify(
    cert_der: &[u8],
    now_unix_s: i64,
    trust: &PeerTrust,
) -> Result<PeerIdentity, PeerRefusal> {
    prove(cert_der, now_unix_s, trust).map(|proven| proven.identity)
}

/// Whom a leaf certificate belongs to, and for how long. The caller has verified its chain and that the peer holds
/// its key; everything else is checked here. `now_unix_s` is seconds since 1970.
///
/// # Errors
/// The first rule that is broken.
pub fn prove(cert_der: &[u8], now_unix_s: i64, trust: &PeerTrust) -> Result<Proven, PeerRefusal> {
    let Ok(([], cert)) = x509_parser::parse_x509_certificate(cert_der) else {
        return Err(PeerRefusal::Malformed);
    };
    let validity = cert.validity();
    if now_unix_s < validity.not_before.timestamp() {
        return Err(PeerRefusal::NotYetValid);
    }
    if now_unix_s > validity.not_after.timestamp() {
        return Err(PeerRefusal::Expired);
    }
    if trust.revokes(cert.raw_serial()) {
        return Err(PeerRefusal::Revoked);
    }
    check_use(&cert)?;
    let spiffe = spiffe_id(&cert)?;
    if spiffe.trust_domain() != trust.trust_domain.to_ascii_lowercase() {
        return Err(PeerRefusal::TrustDomain(spiffe.trust_domain().to_owned()));
    }
    if spiffe.workload_parts().is_none() {
        // A node credential or the control service: they talk to control, not to sidecars.
        return Err(PeerRefusal::NotAWorkload(spiffe.as_str().to_owned()));
    }
    let attributes = attributes(&cert)?;
    let identity = PeerIdentity {
        spiffe,
        service: attributes.service,
        labels: attributes.labels,
    };
    Ok(Proven {
        identity,
        serial: without_leading_zeroes(cert.raw_serial()).into(),
        not_after_unix_s: validity.not_after.timestamp(),
    })
}

impl PeerTrust {
    /// Whether a certificate of this serial number is revoked.
    #[must_use]
    pub fn revokes(&self, serial: &[u8]) -> bool {
        let serial = without_leading_zeroes(serial);
        let mut revoked = self.revoked_serials.iter();
        revoked.any(|revoked| without_leading_zeroes(revoked) == serial)
    }
}

pub(super) fn without_leading_zeroes(mut serial: &[u8]) -> &[u8] {
    while let [0, rest @ ..] = serial {
        serial = rest;
    }
    serial
}

fn check_use(cert: &X509Certificate<'_>) -> Result<(), PeerRefusal> {
    let constraints = cert
        .basic_constraints()
        .map_err(|_| PeerRefusal::Malformed)?;
    if constraints.is_some_and(|found| found.value.ca) {
        return Err(PeerRefusal::Authority);
    }
    let usage = cert
        .key_usage()
        .map_err(|_| PeerRefusal::Malformed)?
        .ok_or(PeerRefusal::KeyUsage)?;
    let value = usage.value;
    let signs = value.key_cert_sign() || value.crl_sign();
    if !usage.critical || !value.digital_signature() || signs {
        return Err(PeerRefusal::KeyUsage);
    }
    // X509-SVID section 4.4. "Any" does not stand for the two. TLS asks for the one it needs only.
    let extended = cert
        .extended_key_usage()
        .map_err(|_| PeerRefusal::Malformed)?;
    if extended.is_some_and(|found| !found.value.server_auth || !found.value.client_auth) {
        return Err(PeerRefusal::ExtendedKeyUsage);
    }
    Ok(())
}

fn spiffe_id(cert: &X509Certificate<'_>) -> Result<SpiffeId, PeerRefusal> {
    let names = cert
        .subject_alternative_name()
        .map_err(|_| PeerRefusal::Malformed)?
        .ok_or(PeerRefusal::UriNames(0))?;
    let mut uris = names
        .value
        .general_names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        });
    match (uris.next(), uris.count()) {
        (Some(uri), 0) => {
            SpiffeId::parse(uri).map_err(|_| PeerRefusal::NotAWorkload(uri.to_owned()))
        }
        (first, more) => Err(PeerRefusal::UriNames(usize::from(first.is_some()) + more)),
    }
}

fn attributes(cert: &X509Certificate<'_>) -> Result<Attributes, PeerRefusal> {
    let missing = || PeerRefusal::Attributes("the certificate names no service".to_owned());
    let oid = Oid::from(&ATTRIBUTES_OID).map_err(|_| missing())?;
    let extension = cert
        .get_extension_unique(&oid)
        .map_err(|_| PeerRefusal::Malformed)?
        .ok_or_else(missing)?;
    debug_assert!(matches!(
        extension.parsed_extension(),
        ParsedExtension::UnsupportedExtension { .. }
    ));
    Attributes::from_bytes(extension.value)
        .map_err(|error| PeerRefusal::Attributes(error.to_string()))
}
