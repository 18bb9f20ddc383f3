//! What the agent's thread and the shards say to each other. Append variants as rooms need them.

use std::sync::Arc;

use ringmesh_quota::{FromCells, ToCells};

use crate::tables::{Generation, Tables};
use crate::telemetry::Stats;
use crate::tls::TlsMaterial;

/// Agent to shard.
#[derive(Debug, Clone)]
pub enum ToShard {
    /// Put this in force between two requests; answer with [`FromShard::InForce`].
    Config(Arc<Tables>),
    /// Certificates for handshakes from now on.
    Tls(Arc<TlsMaterial>),
    /// A message of the quota authority, or about its leases.
    Quota(ToCells),
    /// Answer with [`FromShard::Stats`] or [`FromShard::Quiet`], and hand over the log lines there are.
    Collect,
    /// An emptied log buffer to write into.
    LogSpare(Vec<u8>),
    /// Accept nothing more, finish what is open, answer with [`FromShard::Drained`].
    Drain,
    /// End now.
    Stop,
}

/// Shard to agent.
#[derive(Debug)]
pub enum FromShard {
    /// Every listener stands.
    Listening,
    /// A listener could not be bound, or the ring could not be made; the shard has ended.
    Failed(String),
    /// These tables serve every request from now on.
    InForce(Generation),
    /// For the quota authority, or about the leases.
    Quota(FromCells),
    /// Everything counted since start.
    Stats(Box<Stats>),
    /// Nothing was counted since the last [`FromShard::Stats`]: do not ask again until
    /// [`FromShard::Stirring`].
    Quiet,
    /// Something is being counted again.
    Stirring,
    /// Access-log lines, each ended by a line feed.
    Log(Vec<u8>),
    /// Nothing is open any more.
    Drained,
}
