//! What the agent's thread and the shards say to each other, and shards among themselves. Append variants as rooms need them.

use std::sync::Arc;

use ringmesh_quota::{FromCells, ToCells};

use super::queue::Mailbox;
use crate::balance::Credits;
use crate::tables::{Generation, Tables};
use crate::telemetry::Stats;
use crate::tls::TlsMaterial;

/// Agent to shard.
#[derive(Debug, Clone)]
pub enum ToShard {
    /// Put this in force between two requests; answer with [`FromShard::InForce`].
    Config(Arc<Tables>),
    /// The other shards, before any connection comes; not sent to an only shard.
    Peers(Peers),
    /// What another shard says of the limits they share.
    Credits(Credits),
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

/// The ways from one shard to the others.
#[derive(Debug, Clone)]
pub struct Peers {
    own: usize,
    all: Arc<[Mailbox<ToShard>]>,
}

impl Peers {
    /// Those of shard `own` among `all`.
    #[must_use]
    pub fn new(own: usize, all: Arc<[Mailbox<ToShard>]>) -> Self {
        Self { own, all }
    }

    /// How many others there are.
    #[must_use]
    pub fn others(&self) -> usize {
        self.all.len().saturating_sub(1)
    }

    /// This one.
    #[must_use]
    pub fn own(&self) -> u16 {
        u16::try_from(self.own).unwrap_or(u16::MAX)
    }

    /// The one after this.
    #[must_use]
    pub fn next(&self) -> u16 {
        u16::try_from((self.own + 1) % self.all.len().max(1)).unwrap_or(0)
    }

    /// Sends to one; false if its inbox is full.
    #[must_use]
    pub fn send(&self, to: u16, message: Credits) -> bool {
        let to = self.all.get(usize::from(to));
        to.is_some_and(|to| to.send(ToShard::Credits(message)).is_ok())
    }

    /// Sends to all others; returns how many inboxes were full.
    #[must_use]
    pub fn send_all(&self, message: &Credits) -> usize {
        let others = self
            .all
            .iter()
            .enumerate()
            .filter(|(at, _)| *at != self.own);
        others
            .filter(|(_, to)| to.send(ToShard::Credits(message.clone())).is_err())
            .count()
    }
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
