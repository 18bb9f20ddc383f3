//! One upstream connection, lent to one exchange.

use std::net::SocketAddr;
use std::time::Duration;

use ringmesh_wire::SpiffeId;

use super::lines::Opened;
use super::pools::PoolId;
use super::stream::Stream;

/// A connection and where it belongs.
#[derive(Debug)]
pub struct Lane {
    /// The connection.
    pub stream: Stream,
    /// Pool it goes back to; `None` for connections that are used once.
    pub pool: Option<PoolId>,
    /// How long it lay idle in its pool before this exchange: the server may be closing it this very
    /// moment. `None`: it is new.
    pub idle_for: Option<Duration>,
    /// A new lane of a trunk that stood before: the server may be closing that this very moment.
    pub joined: bool,
    /// Its place in the count of a cluster that limits its connections.
    pub opened: Option<Opened>,
    /// Exchanges begun on it, this one included.
    pub exchanges: u32,
}

impl Lane {
    /// A fresh connection.
    #[must_use]
    pub fn fresh(stream: Stream, pool: Option<PoolId>, opened: Option<Opened>) -> Self {
        Self {
            stream,
            pool,
            idle_for: None,
            joined: false,
            opened,
            exchanges: 1,
        }
    }

    /// The address it is connected to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.stream.peer_addr()
    }

    /// Who the server proved to be; `None` on plaintext.
    #[must_use]
    pub fn identity(&self) -> Option<&SpiffeId> {
        self.stream.identity().map(|peer| &peer.spiffe)
    }
}
