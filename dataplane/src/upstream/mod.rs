//! Connections to endpoints and to the local app: made, kept warm, lent out.
//!
//! A [`Lane`] is one upstream connection lent to one exchange. It comes from [`Pools`] (last used
//! first, so that the kernel's and the server's caches are warm and surplus connections age out) or
//! from [`connect`], and goes back only when its last answer ended cleanly.
//!
//! Invariants: pools are bounded per endpoint and per shard; a lane from which anything arrived
//! while it lay idle is never lent again; nothing here decides *whether* or *where* to connect.

mod connect;
mod eyeballs;
mod keep_alive;
mod lane;
mod lines;
mod pools;
mod shared;
mod sharing;
mod stream;
mod trunks;

pub use connect::{ConnectFault, Dial, connect};
pub use lane::Lane;
pub use lines::{Lines, Opened, Ticket};
pub use pools::{PoolId, PoolKey, Pools, Want};
pub use shared::{Making, SharedConns, SharedLane, Sought, begin, join};
pub use stream::Stream;
pub use trunks::{Joining, MakingTrunk, Trunks, Wanted, Wished};
