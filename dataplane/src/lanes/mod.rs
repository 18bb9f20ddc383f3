//! Many HTTP/1.1 connections between two sidecars on one TLS connection (docs/lanes.md).
//!
//! A [`Trunk`] is the connection. A [`TrunkLane`] on it carries the bytes of one HTTP/1.1 connection,
//! unchanged, and has the face of a socket: pools keep it, requests follow each other on it. What all
//! lanes wrote in one turn of the ring leaves in one record and one system call, which is what two
//! sidecars spend most of a small request on.
//!
//! Reading order: [`Frame`] and [`Decoder`], then `core` (all lanes' state, without a socket), then
//! `trunk` (its task).
//!
//! Invariants: a lane whose bytes nobody takes holds up no other; what a peer can make us keep is
//! [`WINDOW_BYTES`] per lane, [`LANES_MAX`] lanes; a peer's fault ends the connection, never the process.

mod core;
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub mod drive;
mod frame;
mod lane;
mod limits;
mod slot;
mod staged;
#[cfg(test)]
mod tests;
mod trunk;

pub use frame::{Decoder, Frame, FrameFault, LaneId, Step};
pub use lane::TrunkLane;
pub use limits::{LANES_MAX, WINDOW_BYTES};
pub use trunk::{Patience, Trunk, TrunkEnd};
