//! What the deciding rooms may see of a request and of who sent it.
//!
//! Borrowed, protocol-neutral, and without anything that can do I/O: route, policy, quota and
//! balance are plain functions of these.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ringmesh_wire::{ServiceId, SpiffeId};

/// Header fields by name.
pub trait HeaderLookup {
    /// Value of the first field of this name (given in lower case, compared without case).
    fn first(&self, lower_name: &str) -> Option<&[u8]>;
}

/// No headers at all.
impl HeaderLookup for () {
    fn first(&self, _: &str) -> Option<&[u8]> {
        None
    }
}

/// A request, as rules see it.
#[derive(Clone, Copy)]
pub struct RequestView<'a> {
    /// Method, as sent.
    pub method: &'a str,
    /// Host as sent, port and all; empty if HTTP/1.0 sent none.
    pub authority: &'a str,
    /// Normalised path, without query.
    pub path: &'a str,
    /// Query without `?`.
    pub query: Option<&'a str>,
    /// Header fields.
    pub headers: &'a dyn HeaderLookup,
    /// Service port the request was sent to.
    pub port: u16,
}

impl std::fmt::Debug for RequestView<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}{}", self.method, self.authority, self.path)
    }
}

/// Who a verified certificate says the peer is. Made by the `tls` room from the certificate alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerIdentity {
    /// URI SAN.
    pub spiffe: SpiffeId,
    /// Service the certificate was issued for.
    pub service: ServiceId,
    /// Labels signed into the certificate.
    pub labels: BTreeMap<String, String>,
}

/// The other end of a downstream connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// Who it proved to be; `None` for plaintext. Boxed: most connections are from the local app, and each
    /// holds this for as long as it lives.
    pub identity: Option<Box<PeerIdentity>>,
}
