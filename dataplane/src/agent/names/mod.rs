//! What the host names of endpoints lead to (DNS): asked in the background, on the agent's thread.
//!
//! ```text
//! book     which names, what they led to last, when to ask again      (pure: time and chance are arguments)
//! message  a question as bytes, an answer from bytes                  (pure)
//! ask      the servers, over UDP and TCP                              (I/O)
//! ```
//! A name is asked again when its records' time to live is over, and while that fails keeps what it
//! led to last. The answers go into the tables beside the snapshot's endpoints (`tables::Answers`).
//! No search list and no `/etc/hosts`: names are absolute, and the hosts file may well send the app's
//! own names to virtual addresses of the mesh, that is back to this sidecar.
//!
//! Bounds: [`book::NAMES_MAX`] names, [`message::ADDRESSES_MAX`] addresses of each and family,
//! [`book::ASKED_AT_ONCE_MAX`] lookups under way, [`ask::LOOKUP_TIMEOUT`] for each.

pub mod ask;
pub mod book;
#[cfg(test)]
pub(crate) mod fake_server;
pub mod message;

pub use book::{Book, Refresh, Row};
pub use message::Fault;
