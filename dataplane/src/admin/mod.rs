//! What people and their tools may ask a sidecar. Runs on the agent's thread, never on a shard.
//!
//! Reads (`/healthz /readyz /metrics /config /endpoints /certs /quota`) stand on a loopback
//! address; writes (`POST /drain`, `POST /log?level=`) only on `STATE_DIR/admin.sock`, mode 0600.
//! Nothing here shows a key, a token or a request's content.

mod board;
pub mod prometheus;
pub mod serve;

pub use board::{Board, Face, NameRow};
pub use serve::Order;
