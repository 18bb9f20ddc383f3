//! Which rule a request falls under, where it goes, and what happens on the way.
//!
//! Pure: the tables, the request and a random number in, a [`Choice`] out. The split over weighted
//! destinations is drawn once per request; retries stay in the chosen cluster.
//!
//! - [`choose`] / [`choose_tcp`] / [`choose_tunnel`]: match list, default route, split;
//! - [`fault`]: delay and abort draws;
//! - [`retry`]: whether a failed try is repeated;
//! - [`rewrite`]: the forwarded path.

mod choose;
pub mod fault;
mod matching;
pub mod retry;
pub mod rewrite;
#[cfg(test)]
mod tests;

pub use choose::{Choice, Decided, TcpChoice, choose, choose_tcp, choose_tunnel, split};
