//! Which endpoints there are, and how sure we are of each.
//!
//! A sidecar registers its workload on its session; the registration lives as long as the QUIC
//! link does (the lease). Pure: facts and time come in by calls, [`Registry::view`] goes to
//! [`crate::compile`]. May not: open sockets, write files, ask a clock.
//!
//! Guards, so that a fault of control's own never empties the mesh:
//! - **restart**: endpoints of before come back `Unconfirmed` and have [`Guards::unconfirmed`] to
//!   register again;
//! - **mass expiry**: when more than [`Guards::freeze_percent`] of the leases expire within one
//!   [`Guards::window`], and at least [`Guards::freeze_floor`] of them (so that two of five
//!   sidecars killed by hand are not a disaster), removal freezes: what expired within the window
//!   comes back `Unconfirmed` until enough have returned, or an operator thaws it;
//! - **last endpoint**: the last endpoint of a service is marked `LastKnown` when its lease
//!   expires, and stays until another of the service is ready. One that *leaves* is removed.
//!
//! Invariants: an endpoint with a live lease and a healthy app is in the view as `Ready`; one that
//! left, or whose app is down, is not in it; nothing enters that does not agree with its
//! certificate.

mod core;
mod lease;

pub use self::core::{Evidence, Registry, Row};
pub use lease::{Guards, Lease, SessionId};

#[cfg(test)]
mod tests;
