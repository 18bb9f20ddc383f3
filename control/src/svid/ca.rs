//! Root and intermediate, and the shape of every certificate.

use std::fmt;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CustomExtension,
    DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer as Signer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType, SerialNumber,
};
use ringmesh_wire::{ATTRIBUTES_OID, Attributes, CONTROL_SERVER_NAME, NodeId, SpiffeId};
use rustls_pki_types::CertificateSigningRequestDer;
use rustls_pki_types::pem::PemObject;

use super::files::write_secret;
use super::passphrase::Passphrase;

const DAY: Duration = Duration::from_secs(86_400);
pub(super) const ROOT_LIFE: Duration = Duration::from_secs(10 * 365 * 86_400);
const INTERMEDIATE_LIFE: Duration = Duration::from_secs(2 * 365 * 86_400);
/// An intermediate with less than this left is replaced, so that it outlives the node credentials it
/// signs: they would be cut short otherwise.
const INTERMEDIATE_LEFT_MIN: Duration = Duration::from_secs(180 * 86_400);
/// Certificates begin this much before they are issued: clocks of hosts differ.
const BACKDATE: Duration = Duration::from_secs(60);

/// How long certificates live.
#[derive(Debug, Clone, Copy)]
pub struct Lives {
    /// Workload certificate (SVID).
    pub workload: Duration,
    /// Node credential.
    pub node: Duration,
}

impl Default for Lives {
    /// 24 hours and 90 days.
    fn default() -> Self {
        Self {
            workload: DAY,
            node: DAY * 90,
        }
    }
}

/// What a leaf certificate is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leaf {
    /// A workload: identity, service and labels.
    Workload {
        /// Its SPIFFE id.
        id: SpiffeId,
        /// Its node.
        node: NodeId,
        /// Service and labels.
        attributes: Attributes,
    },
    /// A node credential: good for renewing only.
    Node {
        /// The node.
        node: NodeId,
    },
    /// The control service itself.
    Control,
}

/// A fresh certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Leaf first, then the intermediate (DER).
    pub chain: Vec<Vec<u8>>,
    /// Serial number of the leaf, hex.
    pub serial: String,
    /// Valid until.
    pub not_after: SystemTime,
}

/// Why the CA could not do it.
#[derive(Debug)]
#[non_exhaustive]
pub enum CaError {
    /// A file of the CA.
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the CA does not hold what it should.
    Damaged {
        /// Which.
        path: String,
        /// Why.
        why: String,
    },
    /// A file that was given to us is not what it should be.
    Wrong {
        /// Which.
        path: String,
        /// Why, and what would be right.
        why: String,
    },
    /// The root is somebody else's, so its successor is, too.
    Given,
    /// The signing request is not one we sign.
    Request(String),
    /// What signs has ended, so nothing signed by it would be good.
    Ended,
    /// Signing failed.
    Signing(String),
}

impl fmt::Display for CaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, source } => write!(f, "{path}: {source}"),
            Self::Damaged { path, why } => write!(
                f,
                "{path}: {why}; restore DATA_DIR/ca from a backup (without it every sidecar must \
                 join again)"
            ),
            Self::Wrong { path, why } => write!(f, "{path}: {why}"),
            Self::Given => f.write_str(
                "certificate and key of this CA were given (control.yaml, `ca`): put the new root into \
                 the file of roots first, and exchange certificate and key when all sidecars have it",
            ),
            Self::Request(why) => write!(f, "signing request: {why}"),
            Self::Ended => f.write_str(
                "the root or the certificate that signs has ended: nothing it signs would be good any more",
            ),
            Self::Signing(why) => write!(f, "signing: {why}"),
        }
    }
}

impl std::error::Error for CaError {}

/// What signs: a root's intermediate, or a certificate and key that were given to us.
pub struct Ca {
    pub(super) trust_domain: String,
    pub(super) root_der: Vec<u8>,
    /// From the signing certificate up to the root, without it.
    pub(super) chain_der: Vec<Vec<u8>>,
    /// Further certificates that lead from ours to roots of before, those last.
    pub(super) bridge_der: Vec<Vec<u8>>,
    pub(super) ends: Ends,
    pub(super) signer: Signer<'static, KeyPair>,
}

/// When what signs ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    /// The root.
    pub root: SystemTime,
    /// The first to end of the certificates below the root; the root's end where there are none.
    pub intermediate: SystemTime,
}

impl Ends {
    pub(super) fn of(root_der: &[u8], chain_der: &[Vec<u8>]) -> Result<Self, CaError> {
        let end = |der: &[u8]| not_after(der).ok_or_else(|| signing("a CA certificate has no end"));
        let root = end(root_der)?;
        let mut intermediate = None;
        for der in chain_der {
            let one = end(der)?;
            intermediate = Some(intermediate.map_or(one, |first: SystemTime| first.min(one)));
        }
        Ok(Self {
            root,
            intermediate: intermediate.unwrap_or(root),
        })
    }

    /// The first of all.
    #[must_use]
    pub fn first(&self) -> SystemTime {
        self.root.min(self.intermediate)
    }
}

/// Shows no key.
impl fmt::Debug for Ca {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ca")
            .field("trust_domain", &self.trust_domain)
            .finish_non_exhaustive()
    }
}

pub(super) fn signing(e: impl fmt::Display) -> CaError {
    CaError::Signing(e.to_string())
}

pub(super) fn random<const N: usize>() -> Result<[u8; N], CaError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| signing("the system has no random numbers"))?;
    Ok(bytes)
}

/// A serial number in lower-case hex.
#[must_use]
pub fn serial_hex(serial: &[u8]) -> String {
    serial.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 126 random bits, positive and never shortened (RFC 5280 section 4.1.2.2 allows 20 octets).
fn serial() -> Result<[u8; 16], CaError> {
    let mut bytes: [u8; 16] = random()?;
    let [first, ..] = &mut bytes;
    *first = (*first & 0x3f) | 0x40;
    Ok(bytes)
}

fn authority(
    name: &str,
    end: SystemTime,
    path: BasicConstraints,
    now: SystemTime,
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.not_before = (now - BACKDATE).into();
    params.not_after = end.into();
    params.serial_number = Some(SerialNumber::from_slice(&serial()?));
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(path);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

impl Ca {
    /// Opens the CA in `dir`, or creates it, with its keys under `passphrase`. `now` decides whether the
    /// intermediate is renewed.
    ///
    /// # Errors
    /// [`CaError`], naming the file.
    pub fn open(
        dir: &Path,
        trust_domain: &str,
        passphrase: &Passphrase,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        SpiffeId::parse(&format!("spiffe://{trust_domain}/control"))
            .map_err(|e| CaError::Signing(format!("trust domain: {e}")))?;
        let named = |file: &str| dir.join(file);
        let file_error = |path: &Path| {
            let path = path.display().to_string();
            move |source| CaError::File { path, source }
        };
        create_private_dir(dir).map_err(file_error(dir))?;
        let (root_crt, root_key) = (named("root.pem"), named("root.key"));
        let (sub_crt, sub_key) = (named("intermediate.pem"), named("intermediate.key"));

        let (root_der, root_pair) = if root_crt.exists() {
            read_pair(&root_crt, &root_key, passphrase)?
        } else {
            let pair = KeyPair::generate().map_err(signing)?;
            // Two roots of one mesh are told apart by name, too.
            let tail: [u8; 4] = random()?;
            let name = format!("ringmesh root {trust_domain} {}", serial_hex(&tail));
            let mut params = authority(
                &name,
                now + ROOT_LIFE,
                BasicConstraints::Constrained(1),
                now,
            )?;
            params.subject_alt_names = vec![uri(&format!("spiffe://{trust_domain}"))?];
            let cert = params.self_signed(&pair).map_err(signing)?;
            // The key first: a certificate without its key would be a CA that cannot be opened.
            passphrase.write(&root_key, &pair)?;
            write_secret(&root_crt, cert.pem().as_bytes()).map_err(file_error(&root_crt))?;
            (cert.der().to_vec(), pair)
        };
        check_domain(&root_der, trust_domain, &root_crt)?;

        let held = sub_crt
            .exists()
            .then(|| read_pair(&sub_crt, &sub_key, passphrase));
        let root_end = not_after(&root_der).ok_or_else(|| signing("the root has no end"))?;
        let held = held.transpose()?.filter(|(der, _)| {
            not_after(der).is_some_and(|end| !is_intermediate_due(end, root_end, now))
        });
        let (intermediate_der, signer_pair) = match held {
            Some(held) => held,
            None => {
                let root = Signer::from_ca_cert_der(&root_der.as_slice().into(), root_pair)
                    .map_err(signing)?;
                let pair = KeyPair::generate().map_err(signing)?;
                let tail: [u8; 4] = random()?;
                let name = format!("ringmesh intermediate {}", serial_hex(&tail));
                let end = root_end.min(now + INTERMEDIATE_LIFE);
                let params = authority(&name, end, BasicConstraints::Constrained(0), now)?;
                let cert = params.signed_by(&pair, &root).map_err(signing)?;
                // Certificate and key belong together: one file would be simpler, but people look
                // for these names. A crash in between is repaired at the next start.
                if sub_crt.exists() {
                    fs::remove_file(&sub_crt).map_err(file_error(&sub_crt))?;
                }
                passphrase.write(&sub_key, &pair)?;
                write_secret(&sub_crt, cert.pem().as_bytes()).map_err(file_error(&sub_crt))?;
                (cert.der().to_vec(), pair)
            }
        };
        let signer = Signer::from_ca_cert_der(&intermediate_der.as_slice().into(), signer_pair)
            .map_err(signing)?;
        let chain_der = vec![intermediate_der];
        Ok(Self {
            trust_domain: trust_domain.to_owned(),
            ends: Ends::of(&root_der, &chain_der)?,
            root_der,
            chain_der,
            bridge_der: Vec::new(),
            signer,
        })
    }

    /// Whether it is time to open the CA again for a new intermediate.
    pub(super) fn is_due(&self, now: SystemTime) -> bool {
        is_intermediate_due(self.ends.intermediate, self.ends.root, now)
    }

    /// For how long the certificate that signs was made.
    pub(super) fn made_for(&self) -> Duration {
        let der = self.chain_der.first().unwrap_or(&self.root_der);
        let Ok((_, cert)) = x509_parser::parse_x509_certificate(der) else {
            return Duration::ZERO;
        };
        let (from, to) = (cert.validity().not_before, cert.validity().not_after);
        let seconds = to.timestamp().saturating_sub(from.timestamp());
        Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
    }

    /// When what signs ends.
    #[must_use]
    pub fn ends(&self) -> Ends {
        self.ends
    }

    /// Whether `bridge` (DER) is for the intermediate of now.
    pub(super) fn is_bridged_by(&self, bridge: &[u8]) -> bool {
        let key = |der: &[u8]| {
            let (_, cert) = x509_parser::parse_x509_certificate(der).ok()?;
            Some(cert.public_key().raw.to_vec())
        };
        let own = self.chain_der.first().and_then(|own| key(own));
        own.is_some() && own == key(bridge)
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The root certificate (DER).
    #[must_use]
    pub fn root_der(&self) -> &[u8] {
        &self.root_der
    }

    /// Signs the key of `csr` (PKCS #10, DER) into a `leaf` that lives for `life`, or until what signs it
    /// ends. Of the request only the key is used, after its proof of possession was checked.
    ///
    /// # Errors
    /// [`CaError::Request`] where the request is malformed, badly signed or not P-256; [`CaError::Ended`].
    pub fn sign(
        &self,
        csr: &[u8],
        leaf: &Leaf,
        life: Duration,
        now: SystemTime,
    ) -> Result<Signed, CaError> {
        let request = CertificateSigningRequestDer::from(csr);
        let request = CertificateSigningRequestParams::from_der(&request)
            .map_err(|e| CaError::Request(e.to_string()))?;
        if request.public_key.algorithm() != &rcgen::PKCS_ECDSA_P256_SHA256 {
            return Err(CaError::Request("the key is not ECDSA P-256".into()));
        }
        self.sign_key(&request.public_key, leaf, life, now)
    }

    /// A key and certificate for the control service itself; the chain ends in the root, so that a
    /// sidecar that knows only the root's hash can check it.
    ///
    /// # Errors
    /// [`CaError::Signing`].
    pub fn own(&self, life: Duration, now: SystemTime) -> Result<(Signed, Vec<u8>), CaError> {
        let pair = KeyPair::generate().map_err(signing)?;
        let mut signed = self.sign_key(&pair, &Leaf::Control, life, now)?;
        signed.chain.push(self.root_der.clone());
        signed.chain.extend(self.bridge_der.iter().cloned());
        Ok((signed, pair.serialize_der()))
    }

    /// The intermediate in `dir`, signed by the root in `by` too: who trusts only that one still
    /// recognises what the intermediate signs.
    pub(super) fn bridge(
        dir: &Path,
        by: &Path,
        passphrase: &Passphrase,
        now: SystemTime,
    ) -> Result<rcgen::Certificate, CaError> {
        let (sub, pair) = read_pair(
            &dir.join("intermediate.pem"),
            &dir.join("intermediate.key"),
            passphrase,
        )?;
        let (root, root_pair) = read_pair(&by.join("root.pem"), &by.join("root.key"), passphrase)?;
        let end = not_after(&root).unwrap_or(now).min(now + INTERMEDIATE_LIFE);
        let root = Signer::from_ca_cert_der(&root.as_slice().into(), root_pair).map_err(signing)?;
        let (_, parsed) = x509_parser::parse_x509_certificate(&sub).map_err(signing)?;
        let name = parsed.subject().iter_common_name().next();
        let name = name.and_then(|name| name.as_str().ok()).unwrap_or_default();
        let path = BasicConstraints::Constrained(0);
        let params = authority(name, end, path, now)?;
        params.signed_by(&pair, &root).map_err(signing)
    }

    fn sign_key(
        &self,
        key: &impl PublicKeyData,
        leaf: &Leaf,
        life: Duration,
        now: SystemTime,
    ) -> Result<Signed, CaError> {
        // A leaf that outlived its chain would look good to who reads only its end, and be refused by all.
        let not_after = self.ends.first().min(now + life);
        if not_after <= now {
            return Err(CaError::Ended);
        }
        let serial = serial()?;
        let mut params = CertificateParams::default();
        params.not_before = (now - BACKDATE).into();
        params.not_after = not_after.into();
        params.serial_number = Some(SerialNumber::from_slice(&serial));
        params.distinguished_name = DistinguishedName::new();
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.use_authority_key_identifier_extension = true;
        let domain = &self.trust_domain;
        let (name, sans) = match leaf {
            Leaf::Workload { id, node, .. } => {
                (node.0.as_str(), vec![uri(id.as_str())?, dns(&node.0)?])
            }
            Leaf::Node { node } => (
                node.0.as_str(),
                vec![uri(&format!("spiffe://{domain}/node/{node}"))?],
            ),
            Leaf::Control => (
                CONTROL_SERVER_NAME,
                vec![
                    uri(&format!("spiffe://{domain}/control"))?,
                    dns(CONTROL_SERVER_NAME)?,
                ],
            ),
        };
        // A subject for people; nothing reads it. Common names end at 64 characters (X.520).
        let name: String = name.chars().take(64).collect();
        params.distinguished_name.push(DnType::CommonName, name);
        params.subject_alt_names = sans;
        if let Leaf::Workload { attributes, .. } = leaf {
            let value = attributes.to_bytes().map_err(signing)?;
            params.custom_extensions =
                vec![CustomExtension::from_oid_content(&ATTRIBUTES_OID, value)];
        }
        let cert = params.signed_by(key, &self.signer).map_err(signing)?;
        Ok(Signed {
            chain: std::iter::once(cert.der().to_vec())
                .chain(self.chain_der.iter().cloned())
                .collect(),
            serial: serial_hex(&serial),
            not_after,
        })
    }
}

fn uri(text: &str) -> Result<SanType, CaError> {
    Ok(SanType::URI(text.try_into().map_err(signing)?))
}

fn dns(text: &str) -> Result<SanType, CaError> {
    Ok(SanType::DnsName(text.try_into().map_err(signing)?))
}

pub(super) fn create_private_dir(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

pub(super) fn read_pair(
    crt: &Path,
    key: &Path,
    passphrase: &Passphrase,
) -> Result<(Vec<u8>, KeyPair), CaError> {
    let read = |path: &Path| {
        fs::read_to_string(path).map_err(|source| CaError::File {
            path: path.display().to_string(),
            source,
        })
    };
    let damaged = |path: &Path, why: String| CaError::Damaged {
        path: path.display().to_string(),
        why,
    };
    let der = rustls_pki_types::CertificateDer::from_pem_slice(read(crt)?.as_bytes())
        .map_err(|e| damaged(crt, e.to_string()))?;
    let pair = passphrase.open(key, &read(key)?, |why| damaged(key, why))?;
    let (_, parsed) =
        x509_parser::parse_x509_certificate(&der).map_err(|e| damaged(crt, e.to_string()))?;
    if parsed.public_key().subject_public_key.data.as_ref() != pair.public_key_raw() {
        return Err(damaged(
            key,
            "is not the key of the certificate beside it".into(),
        ));
    }
    Ok((der.to_vec(), pair))
}

/// A new intermediate is no gain where the old one ends with its root.
fn is_intermediate_due(end: SystemTime, root_end: SystemTime, now: SystemTime) -> bool {
    end < root_end.min(now + INTERMEDIATE_LEFT_MIN)
}

pub(super) fn not_after(der: &[u8]) -> Option<SystemTime> {
    let (_, cert) = x509_parser::parse_x509_certificate(der).ok()?;
    let seconds = u64::try_from(cert.validity().not_after.timestamp()).ok()?;
    Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds))
}

/// A data directory made for one trust domain must not be opened for another: every certificate
/// would name the wrong one.
fn check_domain(root: &[u8], trust_domain: &str, path: &Path) -> Result<(), CaError> {
    let damaged = |why: String| CaError::Damaged {
        path: path.display().to_string(),
        why,
    };
    let (_, cert) =
        x509_parser::parse_x509_certificate(root).map_err(|e| damaged(e.to_string()))?;
    let named = cert.subject_alternative_name().ok().flatten();
    let mut uris = named.iter().flat_map(|san| &san.value.general_names);
    let made_for = uris.find_map(|name| match name {
        x509_parser::extensions::GeneralName::URI(uri) => uri.strip_prefix("spiffe://"),
        _ => None,
    });
    match made_for {
        Some(domain) if domain == trust_domain => Ok(()),
        Some(domain) => Err(CaError::Wrong {
            path: path.display().to_string(),
            why: format!(
                "the first start made this CA for the trust domain {domain}, not for {trust_domain}; \
                 start with --trust-domain {domain}, or with another --data-dir (every sidecar has to join \
                 that anew)"
            ),
        }),
        None => Err(damaged("this root names no trust domain".to_owned())),
    }
}
