//! From a listener to a flow: who connected, where to, and which room serves it.
//!
//! ```text
//! outbound  captured: original destination   direct: Host          -> http1 | opaque
//! inbound   captured: the app's port         direct: the only port -> http1 | opaque
//!           PERMISSIVE: mutual TLS of a sidecar is ended here, other TLS is the app's
//! mesh      mutual TLS: SNI names the port, ALPN the protocol      -> http1 | opaque
//!           DISABLE: refused, the port takes plaintext only
//! ```
//! Invariants: connections above the bound are answered 503 and closed before anything else is
//! done for them; on a STRICT port plaintext never reaches the app, on a DISABLE port mutual TLS; a connection whose destination
//! is this sidecar itself is never forwarded.

mod first_bytes;
mod listen;
mod permissive;
mod route_conn;
mod sni;
mod undeclared;

pub use listen::{Role, listen};
