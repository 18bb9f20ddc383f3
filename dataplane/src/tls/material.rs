//! Our certificate and whom we trust, ready for handshakes.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::Inner;
use super::identity::{PeerRefusal, PeerTrust, identify};
use super::resume;
use super::verify::MeshServerVerifier;
use crate::view::PeerIdentity;

/// Everything a handshake needs. Built on the agent's thread whenever certificate, roots or
/// revocations change, and shared as `Arc`; connections made with an older one are not touched.
pub struct TlsMaterial {
    pub(super) server: Arc<ServerConfig>,
    client_http1: Arc<ClientConfig>,
    client_http2: Arc<ClientConfig>,
    client_lanes: Arc<ClientConfig>,
    client_tcp: Arc<ClientConfig>,
    pub(super) trust: PeerTrust,
    own: PeerIdentity,
    not_after_unix_s: i64,
    leaf: CertificateDer<'static>,
    roots: Vec<CertificateDer<'static>>,
    number: u64,
    lineage: u64,
}

/// Numbers material, so that a shard can tell whether a connection has been looked at under it. Of
/// the agent's thread; shards only read the number.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// Why there is no material.
#[derive(Debug)]
#[non_exhaustive]
pub enum MaterialError {
    /// No root, or one that does not parse.
    Roots(String),
    /// Key and certificate do not fit each other, or are not usable for TLS.
    Key(String),
    /// Our own certificate would be refused by our peers.
    Own(PeerRefusal),
}

impl fmt::Display for MaterialError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Roots(why) => write!(f, "roots: {why}"),
            Self::Key(why) => write!(f, "certificate and key: {why}"),
            Self::Own(why) => write!(f, "our own certificate would be refused: {why}"),
        }
    }
}

impl std::error::Error for MaterialError {}

impl TlsMaterial {
    /// Builds configurations from a chain (leaf first), its key, the roots and what peers are held
    /// against. An expired certificate is accepted here (handshakes then end in
    /// [`Reason::SvidExpired`](crate::reason::Reason::SvidExpired)); everything else that our peers
    /// would refuse is refused now.
    ///
    /// # Errors
    /// [`MaterialError`].
    pub fn build(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        roots: &[CertificateDer<'static>],
        trust: PeerTrust,
    ) -> Result<Self, MaterialError> {
        let leaf = chain
            .first()
            .ok_or_else(|| MaterialError::Key("there is no certificate".to_owned()))?;
        let leaf_ends = not_after(leaf).map_err(MaterialError::Own)?;
        let own = identify(leaf, leaf_ends, &trust).map_err(MaterialError::Own)?;
        let mut not_after_unix_s = leaf_ends;
        for above in chain.iter().skip(1) {
            not_after_unix_s = not_after_unix_s.min(not_after(above).map_err(MaterialError::Own)?);
        }
        let (leaf, trusted) = (leaf.clone(), roots.to_vec());
        let roots = root_store(roots)?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let key_error = |error: rustls::Error| MaterialError::Key(error.to_string());

        let clients =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider))
                .build()
                .map_err(|error| MaterialError::Roots(error.to_string()))?;
        let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(key_error)?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(key_error)?;
        server.alpn_protocols = Inner::ALL.map(|inner| inner.alpn().to_vec()).into();
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.ticketer = resume::ticketer().map_err(key_error)?;
        // A connection's end is known to need at most one successor; rustls sends two.
        server.send_tls13_tickets = 1;

        let client = client(provider, roots, chain, key)?;
        let with = |inner: Inner| {
            let mut config = client.clone();
            config.alpn_protocols = vec![inner.alpn().to_vec()];
            if inner == Inner::Lanes {
                config.alpn_protocols.push(Inner::Http1.alpn().to_vec());
            }
            Arc::new(config)
        };
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        Ok(Self {
            server: Arc::new(server),
            client_http1: with(Inner::Http1),
            client_http2: with(Inner::Http2),
            client_lanes: with(Inner::Lanes),
            client_tcp: with(Inner::Tcp),
            trust,
            own,
            not_after_unix_s,
            leaf,
            roots: trusted,
            number,
            lineage: number,
        })
    }

    /// The same, in place of `before`: sessions begun under that are resumed under this, if it is
    /// still the same certificate, roots and trust domain. What is revoked may have changed: that is
    /// looked at in resumed handshakes too.
    #[must_use]
    pub fn succeed(self, before: &Self) -> Self {
        let same = self.leaf == before.leaf
            && self.roots == before.roots
            && self.trust.trust_domain == before.trust.trust_domain;
        if !same {
            return self;
        }
        let unchanged = self.trust == before.trust;
        Self {
            // The configurations hold the ticket keys and, for rustls, the proof that a session was
            // verified in the same way.
            server: Arc::clone(&before.server),
            client_http1: Arc::clone(&before.client_http1),
            client_http2: Arc::clone(&before.client_http2),
            client_lanes: Arc::clone(&before.client_lanes),
            client_tcp: Arc::clone(&before.client_tcp),
            number: if unchanged {
                before.number
            } else {
                self.number
            },
            lineage: before.lineage,
            ..self
        }
    }

    /// Different for every set of trusted and revoked.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Number of the first material whose sessions may be resumed under this.
    pub(super) fn lineage(&self) -> u64 {
        self.lineage
    }

    /// Who we are to others.
    #[must_use]
    pub fn own(&self) -> &PeerIdentity {
        &self.own
    }

    /// When our certificate or one above it in the chain expires, seconds since 1970.
    #[must_use]
    pub fn not_after_unix_s(&self) -> i64 {
        self.not_after_unix_s
    }

    pub(super) fn client(&self, inner: Inner) -> &Arc<ClientConfig> {
        match inner {
            Inner::Http1 => &self.client_http1,
            Inner::Http2 => &self.client_http2,
            Inner::Lanes => &self.client_lanes,
            Inner::Tcp => &self.client_tcp,
        }
    }
}

/// Shows whom it is for, never the key.
impl fmt::Debug for TlsMaterial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsMaterial")
            .field("own", &self.own.spiffe)
            .field("not_after_unix_s", &self.not_after_unix_s)
            .finish_non_exhaustive()
    }
}

fn client(
    provider: Arc<CryptoProvider>,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ClientConfig, MaterialError> {
    let key_error = |error: rustls::Error| MaterialError::Key(error.to_string());
    let verifier = Arc::new(MeshServerVerifier {
        roots,
        provider: Arc::clone(&provider),
    });
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(key_error)?
        // "Dangerous" is replacing the verifier: ours checks the chain the same way and the
        // identity afterwards, see `verify`.
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_client_auth_cert(chain, key)
        .map_err(key_error)?;
    config.resumption = Resumption::disabled();
    Ok(config)
}

fn root_store(roots: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, MaterialError> {
    let mut store = RootCertStore::empty();
    for root in roots {
        store
            .add(root.clone())
            .map_err(|error| MaterialError::Roots(error.to_string()))?;
    }
    if store.is_empty() {
        return Err(MaterialError::Roots("there are none".to_owned()));
    }
    Ok(Arc::new(store))
}

fn not_after(der: &[u8]) -> Result<i64, PeerRefusal> {
    let (_, cert) = x509_parser::parse_x509_certificate(der).map_err(|_| PeerRefusal::Malformed)?;
    Ok(cert.validity().not_after.timestamp())
}
