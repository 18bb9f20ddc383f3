//! Making a connection: TCP, then mutual TLS where the endpoint has a sidecar.

use std::net::SocketAddr;
use std::sync::Arc;

use ringmesh_tuning::intercept::APP_MARK;

use super::eyeballs;
use super::stream::Stream;
use crate::reason::Reason;
use crate::ring::{ByteStream, Ring, Socket};
use crate::tables::Link;
use crate::time::Mono;
use crate::tls::{self, Live, Sessions, TlsMaterial};
use crate::wait;

/// Why there is no connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectFault {
    /// What to tell the client.
    pub reason: Reason,
}

/// What to connect to.
#[derive(Debug)]
pub struct Dial<'a> {
    /// Where and how.
    pub link: Link,
    /// The addresses to try instead of the link's, where the endpoint has many; else empty.
    pub among: &'a [SocketAddr],
    /// SNI, for TLS.
    pub sni: &'a str,
    /// ALPN, for TLS.
    pub alpn: tls::Inner,
    /// Our certificate and whom to trust, for TLS.
    pub material: Option<Arc<TlsMaterial>>,
    /// Sessions to resume, for TLS.
    pub sessions: &'a Sessions,
    /// Where connections with a proven server are listed.
    pub live: &'a Live,
    /// Something is sent on it at once, with which the last flight of the handshake leaves. Not so where
    /// the server may speak first: it does not before the handshake is over.
    pub speaks_at_once: bool,
    /// Give up then.
    pub deadline: Mono,
}

/// Connects. `accept` is asked whether the identity the server proved may answer for the service
/// (secure naming); it is not asked on plaintext.
///
/// # Errors
/// [`Reason::ConnectFailure`], [`Reason::ConnectTimeout`], [`Reason::IdentityMismatch`],
/// [`Reason::SvidExpired`] or [`Reason::PeerRefused`].
pub async fn connect(
    ring: &Ring,
    dial: Dial<'_>,
    accept: impl Fn(&ringmesh_wire::SpiffeId) -> bool,
) -> Result<Stream, ConnectFault> {
    let fault = |reason| ConnectFault { reason };
    let mut give_up = std::pin::pin!(ring.sleep_until(dial.deadline));
    let connected = match (dial.link, dial.among) {
        // Boxed, as what follows it.
        (Link::Client { app, client }, _) => {
            let connecting = Box::pin(Socket::connect_as(ring, app, client, APP_MARK));
            wait::or_timeout(connecting, give_up.as_mut()).await
        }
        (_, []) => {
            let connecting = Socket::connect(ring, dial.link.address());
            wait::or_timeout(connecting, give_up.as_mut()).await
        }
        // The rare way: boxed, so that it takes no room in every future of those that may connect.
        (_, among) => {
            wait::or_timeout(Box::pin(eyeballs::first(ring, among)), give_up.as_mut()).await
        }
    };
    let socket = match connected {
        Some(Ok(socket)) => socket,
        Some(Err(_)) => return Err(fault(Reason::ConnectFailure)),
        None => return Err(fault(Reason::ConnectTimeout)),
    };
    let Link::Mesh(_) = dial.link else {
        return Ok(Stream::Plain(socket));
    };
    let material = dial.material.ok_or(fault(Reason::SvidExpired))?;
    // Boxed: its state is large, and every future of those that may connect would hold room for it.
    let handshake = Box::pin(tls::connect(
        ring,
        socket,
        &material,
        dial.sessions,
        dial.sni,
        dial.alpn,
    ));
    let mut stream = match wait::or_timeout(handshake, give_up.as_mut()).await {
        Some(Ok(stream)) => stream,
        Some(Err(refusal)) => return Err(fault(refusal.reason())),
        None => return Err(fault(Reason::ConnectTimeout)),
    };
    if let Err(refusal) = stream.enlist(dial.live) {
        return Err(fault(refusal.reason()));
    }
    if !accept(&stream.peer().spiffe) {
        stream.reset();
        return Err(fault(Reason::IdentityMismatch));
    }
    if !dial.speaks_at_once && stream.finish_handshake().await.is_err() {
        return Err(fault(Reason::ConnectFailure));
    }
    Ok(Stream::Tls(Box::new(stream)))
}
