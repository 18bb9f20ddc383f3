//! Which rule a request falls under, where it goes, and what happens on the way.
//!
//! Pure: the tables, the request and a random number in, a [`Choice`] out. The split over weighted
//! destinations is drawn once per request; retries stay in the chosen cluster (SEMANTICS 1.7).
//!
//! - [`choose`] / [`choose_tcp`] / [`choose_tunnel`]: match list (SEMANTICS 1), default route, split;
//! - [`fault`]: delay and abort draws (SEMANTICS 2.12 to 2.14);
//! - [`retry`]: whether a failed try is repeated (SEMANTICS 2.3 to 2.10);
//! - [`rewrite`]: the forwarded path (SEMANTICS 1.11).

mod choose;
pub mod fault;
mod matching;
pub mod retry;
pub mod rewrite;
#[cfg(test)]
mod tests;

pub use choose::{Choice, Decided, TcpChoice, choose, choose_tcp, choose_tunnel, split};
