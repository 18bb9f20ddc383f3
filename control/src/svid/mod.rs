//! The certificate authority: who is who in the mesh.
//!
//! Owns: root and intermediate keys (`DATA_DIR/ca`, 0600, encrypted where there is a passphrase), join tokens, what goes into a
//! certificate. May not: open sockets, decide who may talk to whom.
//!
//! Invariants: a certificate says what the CA's own record says, never what a signing request
//! asks for; workload keys are never seen here; a token buys one certificate pair, once.
//!
//! Doors: [`Authority`] (which roots count, and who signs), [`Ca`] (a key that signs), [`Issuer`] (tokens and records
//! to certificates), [`Peer`] (a verified certificate, read back). [`Succession`] says when one root takes the
//! other's place.

mod authority;
mod ca;
mod files;
mod given;
mod issuer;
mod passphrase;
mod peer;
mod roots;
mod token;

pub use authority::{Authority, RootInForce};
pub use ca::{Ca, CaError, Ends, Leaf, Lives, Signed, serial_hex};
pub use files::write_secret;
pub use given::Given;
pub use issuer::{Issuer, Refusal};
pub use passphrase::Passphrase;
pub use peer::{Peer, Purpose, verify_chain};
pub use roots::{Facts, SKEW_MS_MAX, Stage, Succession};
pub use token::{JoinToken, TokenError, sha256_hex};

/// Reads the name of a trust domain.
///
/// # Errors
/// Why it is none (SPIFFE-ID section 2.1).
pub fn parse_trust_domain(text: &str) -> Result<String, String> {
    ringmesh_wire::SpiffeId::parse(&format!("spiffe://{text}/control"))
        .map(|_| text.to_owned())
        .map_err(|error| format!("{text:?} is no trust domain: {error}"))
}

/// Milliseconds since 1970, as records keep them.
#[must_use]
pub fn unix_ms(at: std::time::SystemTime) -> u64 {
    at.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests;
