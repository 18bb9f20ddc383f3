//! The mesh link end to end: a real control service, real QUIC, real certificates, and a sidecar
//! played by the test over the wire's own types.

#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

mod hostile;
mod identity;
mod player;
mod rules;
mod sessions;
