//! HTTP/2 over the ring: the `h2` crate does frames, HPACK, flow control and streams.
//!
//! Reading order:
//! 1. [`head`] turns heads into the canonical form the rest of the data path reads (HTTP/1.1 bytes,
//!    parsed by [`crate::http1`]) and back, purely: routing, policy, rules' changes and telemetry are
//!    written once for both versions; [`pass`] spares the way back where nothing changes;
//! 2. [`Wire`] is a connection of the ring with the face `h2` wants;
//! 3. [`Incoming`] is a stream a client opened, [`Outgoing`] one we opened at an upstream, [`Body`]
//!    the bytes that arrive on either;
//! 4. [`Pings`] are for sidecars that have fallen silent;
//! 5. [`grpc`] is what the mesh has to know of gRPC;
//! 6. [`websocket`] makes an Upgrade of an extended CONNECT and back.
//!
//! Invariants:
//! - a body's window is given back when the other side of the exchange took the bytes, never before:
//!   what one connection can make us hold is [`limits::STREAMS_MAX`] stream windows, and a stream
//!   that nobody reads takes nothing from its neighbours' windows; what all of a shard hold is bounded by
//!   its budget ([`Account`]);
//! - writes of all streams of a connection gather in pooled buffers and leave together, once per
//!   turn of the connection's task;
//! - what a peer may make us do for nothing (resets, control frames, header blocks) is bounded by
//!   [`limits`]; over it the connection ends with ENHANCE_YOUR_CALM.

mod account;
mod body;
mod cancels;
#[cfg(any(test, feature = "fuzzing"))]
pub mod drive;
mod frames;
pub mod grpc;
pub mod head;
mod held;
mod keep_alive;
pub mod limits;
pub mod pass;
mod streams;
pub mod websocket;
mod wire;

pub use account::{Account, Part};
pub use body::Body;
pub use cancels::Cancels;
pub(crate) use keep_alive::KeepAlive;
pub use keep_alive::Pings;
pub use streams::{Asks, Broken, Incoming, Outgoing, Piece, ReadHead};
pub use wire::Wire;
