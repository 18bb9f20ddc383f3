//! How a shard gets on to the local app.

use std::net::SocketAddr;

use super::{Active, ShardState};
use crate::exchange::flow::Flow;
use crate::tables::Link;
use crate::upstream::{PoolId, PoolKey};

impl ShardState {
    /// How a connection of a caller gets on to the app: with TPROXY in the caller's name, at the address
    /// that it called.
    pub fn app_link(&self, flow: &Flow, app: SocketAddr) -> Link {
        match flow.original_dst {
            Some(called) if self.tproxy => Link::Client {
                app: called,
                client: flow.peer.address.ip(),
            },
            _ => Link::Plain(app),
        }
    }

    /// The pool of connections to the app's port that go this way. With TPROXY of one caller, so that
    /// nobody is given a connection in another's name; it ends with its last connection.
    pub fn app_pool(&self, active: &Active, port: usize, link: Link) -> Option<PoolId> {
        match link {
            Link::Client { .. } => Some(self.pools.borrow_mut().passing(&PoolKey {
                link,
                sni: Box::from(""),
                owner: None,
                lanes: false,
            })),
            Link::Plain(_) | Link::Mesh(_) => active.app_pool(port),
        }
    }
}
