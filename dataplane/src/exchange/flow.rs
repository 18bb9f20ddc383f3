//! What is known of a downstream connection before its first request.

use std::net::SocketAddr;

use crate::view::Peer;

/// Which side of the workload a connection is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The local app calls somebody.
    Outbound,
    /// Somebody calls the local app.
    Inbound {
        /// Place of the port in the workload's ports.
        port: usize,
    },
}

/// One downstream connection.
#[derive(Debug, Clone)]
pub struct Flow {
    /// Tells it from every other connection of its shard: never used again, never 0.
    pub serial: u64,
    /// Which side.
    pub direction: Direction,
    /// Who called.
    pub peer: Peer,
    /// Where the connection was meant to go before it was captured; `None` in direct mode. Of a connection
    /// to the mesh port only where the app is to see its peer (TPROXY).
    pub original_dst: Option<SocketAddr>,
    /// The listener's address.
    pub local: SocketAddr,
}
