//! What operators and machines ask of control: the API on a unix socket, metrics and health.
//!
//! Owns: the shape of the API ([`api`]). May not: decide anything; every route is one call of
//! [`crate::service::Control`]. Who is on the other end is what the kernel says (peer credentials
//! of the socket), never what a request says.

pub mod api;
mod metrics;
mod peer;
mod routes;

pub use metrics::serve as serve_metrics;
pub use peer::Who;
pub use routes::{bind, serve};
