//! TLS of the link: control's own certificate, renewed while it runs, and the check of sidecars'.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use quinn::crypto::rustls::QuicServerConfig;
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::svid::{CaError, Issuer};

/// Control's own certificate lives this long, whatever sidecars' do: it signs it itself.
const LIFE: Duration = Duration::from_secs(24 * 3_600);

/// Hands out control's certificate, and makes a new one at half its life.
struct Own {
    issuer: Issuer,
    held: Mutex<Option<(SystemTime, Arc<CertifiedKey>)>>,
}

impl fmt::Debug for Own {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Own")
    }
}

impl Own {
    fn current(&self, now: SystemTime) -> Result<Arc<CertifiedKey>, CaError> {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((renew, key)) = &*held
            && now < *renew
            // A clock that was set back: not valid yet for others either.
            && *renew <= now + LIFE
        {
            return Ok(Arc::clone(key));
        }
        let (signed, key) = self.issuer.ca().own(LIFE, now)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key));
        let signing = aws_lc_rs::sign::any_supported_type(&key)
            .map_err(|e| CaError::Signing(e.to_string()))?;
        let chain = signed.chain.into_iter().map(CertificateDer::from).collect();
        let key = Arc::new(CertifiedKey::new(chain, signing));
        let lives = signed.not_after.duration_since(now).unwrap_or_default();
        *held = Some((now + lives / 2, Arc::clone(&key)));
        Ok(key)
    }
}

impl ResolvesServerCert for Own {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match self.current(SystemTime::now()) {
            Ok(key) => Some(key),
            Err(error) => {
                tracing::error!(%error, "no certificate for the mesh link");
                None
            }
        }
    }
}

/// The TLS of the mesh link: TLS 1.3, our ALPN, a client certificate under one of our roots or none.
///
/// # Errors
/// [`CaError::Signing`] where the CA cannot sign or its root cannot be used.
pub fn server_config(issuer: &Issuer) -> Result<QuicServerConfig, CaError> {
    let broken = |e: &dyn fmt::Display| CaError::Signing(e.to_string());
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut roots = RootCertStore::empty();
    // Also those that sidecars have stopped trusting: a machine that was off comes with what it had.
    for root in issuer.authority().known() {
        roots
            .add(CertificateDer::from(root))
            .map_err(|e| broken(&e))?;
    }
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|e| broken(&e))?;
    let own = Own {
        issuer: issuer.clone(),
        held: Mutex::new(None),
    };
    own.current(SystemTime::now())?;
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| broken(&e))?
        .with_client_cert_verifier(clients)
        .with_cert_resolver(Arc::new(own));
    config.alpn_protocols = vec![ringmesh_wire::ALPN_CONTROL.to_vec()];
    // No tickets: every link shows a certificate that is checked now.
    config.send_tls13_tickets = 0;
    QuicServerConfig::try_from(config).map_err(|e| broken(&e))
}
