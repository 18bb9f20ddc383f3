//! `ringmesh-proxy`: the sidecar.
//!
//! Modules in the order a request meets them. A room uses only rooms above it, takes the previous
//! room's value and returns the next; only [`exchange`] calls the deciding rooms in sequence.
//!
//! ```text
//! ring      the io_uring: sockets, buffers, timers, tasks       (unsafe lives here and nowhere else)
//! shard     one thread: glommio, a ring, an inbox               (the only room that names glommio)
//! budget    what a shard keeps beside the ring's pools           (pure)
//! accept    listeners and where a connection was meant to go
//! tls       mutual TLS between sidecars
//! detect    which protocol is this
//! http1     heads, bodies, encoding                             (pure)
//! opaque    bytes both ways
//! tables    a snapshot, indexed                                 (pure)
//! route     which rule, which destination                       (pure)
//! policy    may it, and how often                               (pure)
//! balance   which endpoint                                      (pure)
//! upstream  connections to endpoints
//! exchange  one request and its answer; read pipeline.rs first
//! telemetry what happened                                       (pure)
//! agent     the link to control; last good configuration; certificates
//! admin     health, metrics and dumps for people
//! ```

// Standard output may fail: `ringmesh_tuning::stdout`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod accept;
pub mod admin;
pub mod agent;
pub mod balance;
pub mod bootstrap;
pub mod budget;
pub mod detect;
pub mod exchange;
pub mod http1;
pub mod http2;
pub mod lanes;
pub mod opaque;
pub mod policy;
pub mod reason;
pub mod ring;
pub mod route;
pub mod settings;
pub mod shard;
pub mod tables;
pub mod telemetry;
pub mod time;
pub mod tls;
pub mod upstream;
#[cfg(test)]
mod vacant;
pub mod view;
pub mod wait;
pub mod worker;
