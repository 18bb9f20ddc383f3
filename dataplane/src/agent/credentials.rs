//! Keys and certificates of this host: made here, kept here, read at start.
//!
//! Files in the state directory: `svid.pem` and `svid.key` (the workload), `node.pem` and
//! `node.key` (what renews an expired SVID), `roots.pem`. A key never leaves the host; only its
//! signing request does. A crash between a certificate and its key leaves a pair that does not
//! fit: it is found at load and treated as absent, and the node credential renews it.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, DistinguishedName, KeyPair, PublicKeyData as _};
use ringmesh_wire::{Issued, SpiffeId};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use x509_parser::extensions::GeneralName;

use super::files;
use super::svid::{Life, UnixMs};

/// Bytes of one file here: a chain of a few certificates is a few KiB.
const FILE_BYTES_MAX: usize = 256 * 1024;

/// A certificate chain with its key.
pub struct Identity {
    /// Leaf first.
    pub chain: Vec<CertificateDer<'static>>,
    /// PKCS #8.
    pub key: PrivateKeyDer<'static>,
    /// From when to when.
    pub life: Life,
    /// Who it says we are.
    pub spiffe: SpiffeId,
    /// Serial number, hexadecimal.
    pub serial: String,
}

/// Shows everything but the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("spiffe", &self.spiffe)
            .field("serial", &self.serial)
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

impl Identity {
    /// Puts a chain and a key together.
    ///
    /// # Errors
    /// Why they are no identity: no leaf, no single SPIFFE ID, or a key that is not the leaf's.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: &KeyPair,
        obtained: UnixMs,
    ) -> Result<Self, String> {
        let leaf = chain.first().ok_or("there is no certificate")?;
        let (_, leaf) = x509_parser::parse_x509_certificate(leaf)
            .map_err(|error| format!("the certificate does not parse: {error}"))?;
        if leaf.public_key().raw != key.subject_public_key_info() {
            return Err("the certificate is for another key".into());
        }
        let names = leaf
            .subject_alternative_name()
            .ok()
            .flatten()
            .ok_or("the certificate has no subject alternative name")?;
        let mut uris = names
            .value
            .general_names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            });
        let (Some(uri), None) = (uris.next(), uris.next()) else {
            return Err("the certificate has not exactly one URI".into());
        };
        let spiffe = SpiffeId::parse(uri).map_err(|error| error.to_string())?;
        // Peers refuse a chain of which any part has ended.
        let mut expires = leaf.validity().not_after.timestamp();
        for above in chain.iter().skip(1) {
            let (_, above) = x509_parser::parse_x509_certificate(above)
                .map_err(|error| format!("a certificate of the chain does not parse: {error}"))?;
            expires = expires.min(above.validity().not_after.timestamp());
        }
        let life = Life {
            obtained,
            expires: UnixMs(u64::try_from(expires).unwrap_or(0).saturating_mul(1_000)),
        };
        let serial = leaf.raw_serial_as_string();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Self {
            chain,
            key,
            life,
            spiffe,
            serial,
        })
    }

    /// Whether it may be used at `now`.
    #[must_use]
    pub fn usable(&self, now: UnixMs) -> bool {
        now < self.life.expires
    }
}

/// A fresh key and the request to certify it. The subject is empty: the CA decides what is signed.
pub struct KeyRequest {
    key: KeyPair,
    /// PKCS #10, DER.
    pub csr: Vec<u8>,
}

impl fmt::Debug for KeyRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRequest").finish_non_exhaustive()
    }
}

impl KeyRequest {
    /// Makes a P-256 key.
    ///
    /// # Errors
    /// The crypto provider's.
    pub fn new() -> Result<Self, rcgen::Error> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key)?.der().to_vec();
        Ok(Self { key, csr })
    }

    /// The identity this key and the issued chain make.
    ///
    /// # Errors
    /// As [`Identity::new`].
    pub fn fulfil(&self, chain: &[Vec<u8>], now: UnixMs) -> Result<Identity, String> {
        let chain = chain.iter().cloned().map(CertificateDer::from).collect();
        Identity::new(chain, &self.key, now)
    }
}

/// All that this host holds.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    /// The workload's, for other sidecars and for control.
    pub svid: Option<Arc<Identity>>,
    /// The node's, for control only, where the SVID has expired.
    pub node: Option<Arc<Identity>>,
    /// Whom to trust.
    pub roots: Vec<CertificateDer<'static>>,
    /// What is in memory could not be written.
    unsaved: bool,
}

impl Credentials {
    /// Reads what is there. What is damaged counts as absent and is told in the second value.
    #[must_use]
    pub fn load(dir: &Path) -> (Self, Vec<String>) {
        let mut complaints = Vec::new();
        let mut read = |name: &str| match load_identity(dir, name) {
            Ok(identity) => identity.map(Arc::new),
            Err(why) => {
                complaints.push(why);
                None
            }
        };
        let (svid, node) = (read("svid"), read("node"));
        let roots = load_chain(dir, "roots.pem").unwrap_or_else(|why| {
            complaints.push(why);
            Vec::new()
        });
        let credentials = Self {
            svid,
            node,
            roots,
            unsaved: false,
        };
        (credentials, complaints)
    }

    /// The identity to show to control at `now`: the SVID, or the node credential where the SVID
    /// has expired.
    #[must_use]
    pub fn for_control(&self, now: UnixMs) -> Option<&Arc<Identity>> {
        let usable = |identity: &&Arc<Identity>| identity.usable(now);
        let svid = self.svid.as_ref().filter(usable);
        svid.or_else(|| self.node.as_ref().filter(usable))
    }

    /// Takes over what control issued for `workload` (and `node`) and writes it to `dir`. The node
    /// credential goes first: with it a crash in between costs no new join token.
    ///
    /// # Errors
    /// Why it cannot be used. Nothing in memory changes then. That it cannot be written is logged, and tried again
    /// by [`Self::save`]: a full disk takes no host out of the mesh while it runs.
    pub fn accept(
        &mut self,
        issued: &Issued,
        workload: &KeyRequest,
        node: Option<&KeyRequest>,
        dir: &Path,
        now: UnixMs,
    ) -> Result<(), String> {
        let svid = workload.fulfil(&issued.workload_chain, now)?;
        let node = node
            .map(|request| request.fulfil(&issued.node_chain, now))
            .transpose()?;
        let roots: Vec<CertificateDer<'static>> = issued
            .roots
            .iter()
            .cloned()
            .map(CertificateDer::from)
            .collect();
        if !svid.usable(now) {
            return Err("control issued a certificate that has already expired".into());
        }
        self.svid = Some(Arc::new(svid));
        self.roots = roots;
        if let Some(node) = node {
            self.node = Some(Arc::new(node));
        }
        self.unsaved = true;
        if let Err(error) = self.save(dir) {
            tracing::error!(dir = %dir.display(), %error, "certificates are in force and cannot be written to the state directory: a restart would lose them; trying again");
        }
        Ok(())
    }

    /// Writes what is not written yet.
    ///
    /// # Errors
    /// The file system's.
    pub fn save(&mut self, dir: &Path) -> std::io::Result<()> {
        if !self.unsaved {
            return Ok(());
        }
        files::replace(&dir.join("roots.pem"), to_pem(&self.roots).as_bytes())?;
        if let Some(node) = &self.node {
            store_identity(dir, "node", node)?;
        }
        if let Some(svid) = &self.svid {
            store_identity(dir, "svid", svid)?;
        }
        self.unsaved = false;
        Ok(())
    }

    /// Whether [`Self::save`] has something to write.
    #[must_use]
    pub fn is_unsaved(&self) -> bool {
        self.unsaved
    }
}

fn load_chain(dir: &Path, file: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let path = dir.join(file);
    let failed = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
    let bytes = files::read(&path, FILE_BYTES_MAX).map_err(|error| failed(&error))?;
    let Some(bytes) = bytes else {
        return Ok(Vec::new());
    };
    CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| failed(&error))
}

fn load_identity(dir: &Path, name: &str) -> Result<Option<Identity>, String> {
    let chain = load_chain(dir, &format!("{name}.pem"))?;
    let path = dir.join(format!("{name}.key"));
    let failed = |why: &dyn fmt::Display| format!("{}: {why}", path.display());
    let key = files::read(&path, FILE_BYTES_MAX).map_err(|error| failed(&error))?;
    let (false, Some(key)) = (chain.is_empty(), key) else {
        return Ok(None);
    };
    let obtained = std::fs::metadata(dir.join(format!("{name}.pem")))
        .and_then(|about| about.modified())
        .map_err(|error| failed(&error))?;
    let obtained = obtained
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0));
    let key = std::str::from_utf8(&key).map_err(|error| failed(&error))?;
    let key = KeyPair::from_pem(key).map_err(|error| failed(&error))?;
    let identity = Identity::new(chain, &key, UnixMs(obtained)).map_err(|error| failed(&error))?;
    Ok(Some(identity))
}

fn store_identity(dir: &Path, name: &str, identity: &Identity) -> std::io::Result<()> {
    let key = pem_block("PRIVATE KEY", identity.key.secret_der());
    files::replace(&dir.join(format!("{name}.key")), key.as_bytes())?;
    let chain = to_pem(&identity.chain);
    files::replace(&dir.join(format!("{name}.pem")), chain.as_bytes())
}

/// PEM of certificates, one after the other.
#[must_use]
pub fn to_pem(chain: &[CertificateDer<'_>]) -> String {
    let blocks = chain.iter().map(|der| pem_block("CERTIFICATE", der));
    blocks.collect()
}

/// RFC 7468: base 64 in lines of 64.
fn pem_block(label: &str, der: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = format!("-----BEGIN {label}-----\n");
    // 48 bytes are 64 characters.
    for line in der.chunks(48) {
        for three in line.chunks(3) {
            let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
            let word = byte(0) << 16 | byte(1) << 8 | byte(2);
            for at in 0..4 {
                if at <= three.len() {
                    let index = (word >> (18 - 6 * at)) & 63;
                    out.push(char::from(ALPHABET[index as usize]));
                } else {
                    out.push('=');
                }
            }
        }
        out.push('\n');
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
