//! From a connected socket to a stream with a proven peer.
//!
//! The caller bounds the time: dropping the future closes the connection.

use std::fmt::Write as _;
use std::rc::Rc;
use std::sync::Arc;

use rustls::{ClientConnection, Connection, HandshakeKind, ServerConnection};
use rustls_pki_types::{ServerName, UnixTime};

use super::Inner;
use super::hash::sha256;
use super::identity::{PeerRefusal, Proven, prove};
use super::material::TlsMaterial;
use super::pipe::Pipe;
use super::refusal::TlsRefusal;
use super::resume::Sessions;
use super::stream::{Agreed, TlsStream};
use crate::budget::{Budget, Charge};
use crate::ring::{ByteStream as _, Chunk, Ring, Socket};

/// Serves a handshake: the peer has to show a certificate. What a long one makes us keep is charged to `budget`.
///
/// # Errors
/// [`TlsRefusal`]; the socket is gone.
pub async fn accept(
    ring: &Ring,
    socket: Socket,
    material: &Arc<TlsMaterial>,
    budget: &Rc<Budget>,
) -> Result<TlsStream, TlsRefusal> {
    let first = socket.recv().await?;
    accept_begun(ring, socket, first, material, budget).await
}

/// As [`accept`], where the first bytes have come already.
///
/// # Errors
/// [`TlsRefusal`]; the socket is gone.
pub async fn accept_begun(
    ring: &Ring,
    socket: Socket,
    first: Chunk,
    material: &Arc<TlsMaterial>,
    budget: &Rc<Budget>,
) -> Result<TlsStream, TlsRefusal> {
    check_own(material)?;
    // A plain request is told apart before rustls sees it, for a reason that says so.
    if first.first().is_some_and(|byte| *byte != HANDSHAKE_RECORD) {
        socket.reset();
        return Err(TlsRefusal::Plaintext);
    }
    let server = ServerConnection::new(Arc::clone(&material.server))?;
    let pipe = Pipe::new(ring, socket, Connection::Server(server));
    finish(pipe, first, material, Some(&Charge::new(budget))).await
}

/// First byte of a TLS record of type handshake (RFC 8446 section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// Asks for a handshake. `sni` says which port of which service is wanted. Whether the identity that
/// comes back may answer for that service is for the caller to check, before it sends anything. A
/// session of this endpoint is resumed where `sessions` has one. The last flight leaves with the first
/// bytes that are sent: whoever does not send at once calls [`TlsStream::finish_handshake`].
///
/// # Errors
/// [`TlsRefusal`]; the socket is gone.
pub async fn connect(
    ring: &Ring,
    socket: Socket,
    material: &Arc<TlsMaterial>,
    sessions: &Sessions,
    sni: &str,
    inner: Inner,
) -> Result<TlsStream, TlsRefusal> {
    check_own(material)?;
    let name = ServerName::try_from(sni.to_owned()).map_err(|_| TlsRefusal::ServerName)?;
    let config = sessions.of(material, material.client(inner), socket.peer_addr(), sni);
    let client = ClientConnection::new(config, name)?;
    let pipe = Pipe::new(ring, socket, Connection::Client(client));
    // No more of these than we begin ourselves.
    finish(pipe, Chunk::empty(), material, None).await
}

async fn finish(
    pipe: Pipe,
    first: Chunk,
    material: &TlsMaterial,
    charge: Option<&Charge>,
) -> Result<TlsStream, TlsRefusal> {
    if let Err(error) = pipe.handshake_charged(first, charge).await {
        // The alert that says why, as far as it goes out.
        let _ = pipe.drain().await;
        return Err(error.into());
    }
    let now_unix_s = now_unix_s();
    let checked = pipe.with_tls(|tls| {
        // rustls gives the chain of the first handshake in a resumed one: examined all the same.
        let leaf = tls
            .peer_certificates()
            .and_then(|chain| chain.first())
            .ok_or(PeerRefusal::NoCertificate)?;
        let leaf_hash = sha256(leaf);
        let proven = prove(leaf, now_unix_s, &material.trust)?;
        let inner = Inner::from_alpn(tls.alpn_protocol()).ok_or(TlsRefusal::NoProtocol)?;
        let (sni, client_cert) = match tls {
            Connection::Server(server) => (
                server.server_name().map(str::to_owned),
                Some(client_cert(material, leaf_hash, &proven)),
            ),
            Connection::Client(_) => (None, None),
        };
        let resumed = tls.handshake_kind() == Some(HandshakeKind::Resumed);
        Ok(Agreed {
            proven,
            inner,
            sni,
            resumed,
            client_cert,
        })
    });
    match checked {
        Ok(agreed) => Ok(TlsStream::new(pipe, agreed, material, now_unix_s)),
        Err(refusal) => {
            pipe.reset();
            Err(refusal)
        }
    }
}

/// As Envoy writes it. SPIFFE IDs and hashes need no quoting: neither has `;`, `,`, `=` or `"`.
fn client_cert(material: &TlsMaterial, leaf_hash: [u8; 32], client: &Proven) -> Box<str> {
    let mut out = format!("By={};Hash=", material.own().spiffe);
    for byte in leaf_hash {
        let _ = write!(out, "{byte:02x}");
    }
    let _ = write!(out, ";URI={}", client.identity.spiffe);
    out.into()
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
