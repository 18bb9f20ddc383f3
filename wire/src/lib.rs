//! The one language of ringmesh: what control service and sidecars say to each other.
//!
//! No I/O, no clock, no randomness: bytes in, values out. Reading order:
//!
//! 1. [`frame`]: the envelope around every message (magic, schema version, kind, length, checksum);
//! 2. [`codec`]: the only door to bincode, with limits and "consumed everything" checks;
//! 3. [`v1`]: schema version 1. Frozen once released: fields are never reordered, enum variants are
//!    only appended. A version that only appends (2) lives there too; any other gets its own module and
//!    `From` conversions;
//! 4. the current version's types, re-exported here, are what the other crates name.
//!
//! Invariants: decoding never panics and never allocates beyond its stated limit, whatever the
//! bytes (`fuzz/`, `tests/hostile.rs`, `golden/`); every value that leaves a decoder has been `validate`d.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod attributes;
pub mod codec;
pub mod error;
pub mod frame;
pub mod ids;
pub mod limits;
pub mod spiffe;
pub mod v1;

pub use attributes::{ATTRIBUTES_OID, Attributes};
pub use error::WireError;
pub use ids::{NodeId, Revision, ServiceId};
pub use spiffe::SpiffeId;
pub use v1::*;

/// Oldest schema version this build reads.
pub const SCHEMA_VERSION_MIN: u16 = 1;
/// Newest schema version this build reads. It writes each message in the oldest version that can say it.
/// Version 2 is version 1, [`snapshot::Names`] and [`Resolved`].
pub const SCHEMA_VERSION: u16 = 2;

/// ALPN of the link between sidecar and control service (QUIC).
pub const ALPN_CONTROL: &[u8] = b"ringmesh-control/1";
/// ALPN between two sidecars when the inner protocol is HTTP/1.1.
pub const ALPN_MESH_HTTP1: &[u8] = b"ringmesh-http/1.1";
/// ALPN between two sidecars when the inner protocol is HTTP/2.
pub const ALPN_MESH_HTTP2: &[u8] = b"ringmesh-h2";
/// ALPN between two sidecars when the inner protocol is many HTTP/1.1 connections (docs/lanes.md).
pub const ALPN_MESH_LANES: &[u8] = b"ringmesh-lanes/1";
/// ALPN between two sidecars when the inner protocol is an opaque byte stream.
pub const ALPN_MESH_TCP: &[u8] = b"ringmesh-tcp";
/// DNS name in the control service's certificate (beside `spiffe://TD/control`); what a sidecar
/// verifies it against. Names under `.ringmesh` are reserved: no node can get one.
pub const CONTROL_SERVER_NAME: &str = "control.ringmesh";
/// Code with which a sidecar that is told to stop closes the control link: its endpoint is
/// withdrawn at once. Any other end of the link is treated as a loss (the lease's guards apply).
pub const CLOSE_LEAVING: u32 = 0;
