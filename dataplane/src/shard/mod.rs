//! One shard: a thread with a ring, its inbox, and the loop that runs both.
//!
//! The only room that names glommio, and it does so in one file; a plain thread with the same loop
//! could take its place. Nothing on a shard blocks; messages cross threads through bounded queues
//! only.

mod allocations;
mod executor;
pub mod message;
mod queue;

pub use allocations::allocations;
pub use executor::{Seat, ShardError, ShardHandle, prepare_process, spawn_shards};
pub use message::{FromShard, Peers, ToShard};
pub use queue::{Collected, Inbox, InboxSeed, Mailbox, Outbox, inbox, outboxes};
