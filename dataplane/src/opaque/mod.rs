//! Opaque bytes both ways, between any two streams.
//!
//! Owns nothing but the loop: half-closes stay half-closes, a reset is passed on as a reset, bytes
//! are counted, silence is bounded. What lies between the two sides at any moment is one chunk per
//! direction plus what a socket may queue; or, where both are plaintext and a direction is in bulk,
//! what one pipe holds: those bytes are spliced and never come into this process.

mod relay;

pub use relay::{RelayOptions, Relayed, relay};
