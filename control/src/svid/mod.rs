//! The certificate authority: who is who in the mesh.
//!
//! Owns: root and intermediate key (`DATA_DIR/ca`, 0600), join tokens, what goes into a
//! certificate. May not: open sockets, decide who may talk to whom.
//!
//! Invariants: a certificate says what the CA's own record says, never what a signing request
//! asks for; workload keys are never seen here; a token buys one certificate pair, once.
//!
//! Doors: [`Ca`] (keys and signing), [`Issuer`] (tokens and records to certificates), [`Peer`]
//! (a verified certificate, read back).

mod ca;
mod files;
mod issuer;
mod peer;
mod token;

pub use ca::{Ca, CaError, Leaf, Lives, Signed, serial_hex};
pub use files::write_secret;
pub use issuer::{Issuer, Refusal};
pub use peer::{Peer, Purpose};
pub use token::{JoinToken, TokenError, sha256_hex};

/// Milliseconds since 1970, as records keep them.
#[must_use]
pub fn unix_ms(at: std::time::SystemTime) -> u64 {
    at.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests;
