//! From a connected socket to a stream with a proven peer.
//!
//! The caller bounds the time: dropping the future closes the connection.

use std::sync::Arc;

use rustls::{ClientConnection, Connection, ServerConnection};
use rustls_pki_types::{ServerName, UnixTime};

use super::Inner;
use super::identity::{PeerRefusal, identify};
use super::material::TlsMaterial;
use super::refusal::TlsRefusal;
use super::stream::{Pipe, TlsStream};
use crate::ring::{Chunk, Ring, Socket};

/// Serves a handshake: the peer has to show a certificate.
///
/// # Errors
/// [`TlsRefusal`]; the socket is gone.
pub async fn accept(
    ring: &Ring,
    socket: Socket,
    material: &Arc<TlsMaterial>,
) -> Result<TlsStream, TlsRefusal> {
    check_own(material)?;
    // A plain request is told apart before rustls sees it, for a reason that says so.
    let first = socket.recv().await?;
    if first.first().is_some_and(|byte| *byte != HANDSHAKE_RECORD) {
        socket.reset();
        return Err(TlsRefusal::Plaintext);
    }
    let server = ServerConnection::new(Arc::clone(&material.server))?;
    let pipe = Pipe::new(ring, socket, Connection::Server(server));
    finish(pipe, first, material).await
}

/// First byte of a TLS record of type handshake (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// Asks for a handshake. `sni` says which port of which service is wanted. Whether the identity that
/// comes back may answer for that service is for the caller to check, before it sends anything.
///
/// # Errors
/// [`TlsRefusal`]; the socket is gone.
pub async fn connect(
    ring: &Ring,
    socket: Socket,
    material: &Arc<TlsMaterial>,
    sni: &str,
    inner: Inner,
) -> Result<TlsStream, TlsRefusal> {
    check_own(material)?;
    let name = ServerName::try_from(sni.to_owned()).map_err(|_| TlsRefusal::ServerName)?;
    let client = ClientConnection::new(Arc::clone(material.client(inner)), name)?;
    let pipe = Pipe::new(ring, socket, Connection::Client(client));
    finish(pipe, Chunk::empty(), material).await
}

async fn finish(pipe: Pipe, first: Chunk, material: &TlsMaterial) -> Result<TlsStream, TlsRefusal> {
    if let Err(refusal) = pipe.handshake(first).await {
        // The alert that says why, as far as it goes out.
        let _ = pipe.drain().await;
        return Err(refusal);
    }
    let checked = pipe.with_tls(|tls| {
        let leaf = tls
            .peer_certificates()
            .and_then(|chain| chain.first())
            .ok_or(PeerRefusal::NoCertificate)?;
        let peer = identify(leaf, now_unix_s(), &material.trust)?;
        let inner = Inner::from_alpn(tls.alpn_protocol()).ok_or(TlsRefusal::NoProtocol)?;
        let sni = match tls {
            Connection::Server(server) => server.server_name().map(str::to_owned),
            Connection::Client(_) => None,
        };
        Ok((peer, inner, sni))
    });
    match checked {
        Ok((peer, inner, sni)) => Ok(TlsStream::new(pipe, peer, inner, sni)),
        Err(refusal) => {
            pipe.reset();
            Err(refusal)
        }
    }
}

fn check_own(material: &TlsMaterial) -> Result<(), TlsRefusal> {
    if now_unix_s() > material.not_after_unix_s() {
        return Err(TlsRefusal::OwnExpired);
    }
    Ok(())
}

/// Certificates are dated by the wall clock; read per handshake, which costs a thousand times more.
fn now_unix_s() -> i64 {
    i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX)
}
