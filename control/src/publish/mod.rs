//! Configuration to sidecars, and the link they come by.
//!
//! Owns: the QUIC endpoint and everything that is said on it, who holds which revision. May not:
//! decide what a rule means ([`crate::compile`]) or which endpoints there are
//! ([`crate::registry`]).
//!
//! Invariants: one push per sidecar is under way at a time, and the next is always the newest (a
//! slow sidecar skips what it missed); equal sections are not sent again; bytes that break the
//! protocol close their own link, with a reason that is counted, and disturb nothing else.
//!
//! Reading order: [`link`] (connections), `session` (one sidecar), [`Fanout`] (pure: who has what).

mod fanout;
mod frames;
pub mod link;
mod session;
mod tls;

pub use fanout::{Fanout, Laggard, NodeRow, Verdict};
pub use frames::{LinkError, read_frame, write_frame};
pub use link::{LeaseDoor, LeaseLink, bind, serve};
pub use tls::server_config;

/// Close codes of the link. 0 is [`ringmesh_wire::CLOSE_LEAVING`]; 1 and 2 are the sidecar's
/// (protocol broken, no session).
pub mod close {
    /// The other side broke the protocol.
    pub const PROTOCOL: u32 = 1;
    /// A newer session of the same node took over.
    pub const REPLACED: u32 = 3;
    /// Its certificate is revoked, or not one of ours.
    pub const IDENTITY: u32 = 4;
    /// Control stops.
    pub const STOPPING: u32 = 5;
    /// Too many links.
    pub const BUSY: u32 = 6;
}
