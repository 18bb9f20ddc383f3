//! The agent's side of the shards' queues.

use std::fmt;

use crate::shard::{FromShard, ToShard};

/// Puts a message into a shard's inbox and wakes it; gives it back where the inbox is full.
pub type Send = Box<dyn Fn(ToShard) -> Result<(), ToShard>>;
/// Takes the next message of any shard, with the shard's number.
type Receive = Box<dyn FnMut() -> Option<(usize, FromShard)>>;

/// The ways to all shards and back.
pub struct Doors {
    doors: Vec<Door>,
    receive: Receive,
}

impl fmt::Debug for Doors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Doors")
            .field("doors", &self.doors)
            .finish_non_exhaustive()
    }
}

impl Doors {
    /// Made of the agent's ends of the shards' queues.
    pub fn new(
        sends: Vec<Send>,
        receive: impl FnMut() -> Option<(usize, FromShard)> + 'static,
    ) -> Self {
        let doors = sends.into_iter().map(|send| Door {
            send,
            waiting: Vec::new(),
        });
        Self {
            doors: doors.collect(),
            receive: Box::new(receive),
        }
    }

    /// How many shards there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.doors.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.doors.is_empty()
    }

    /// Sends to one shard.
    pub fn send(&mut self, shard: usize, message: ToShard) {
        if let Some(door) = self.doors.get_mut(shard) {
            door.send(message);
        }
    }

    /// Sends to all shards.
    pub fn send_all(&mut self, message: &ToShard) {
        for door in &mut self.doors {
            door.send(message.clone());
        }
    }

    /// Sends what did not fit into an inbox before.
    pub fn retry(&mut self) {
        self.doors.iter_mut().for_each(Door::retry);
    }

    /// The next message of any shard.
    pub fn receive(&mut self) -> Option<(usize, FromShard)> {
        (self.receive)()
    }
}

/// The way to one shard.
struct Door {
    send: Send,
    /// What did not fit into the inbox, in order. A shard that is slow to look must not lose a
    /// configuration; what may be lost is not kept (see [`Door::send`]).
    waiting: Vec<ToShard>,
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door")
            .field("waiting", &self.waiting.len())
            .finish_non_exhaustive()
    }
}

/// Messages kept for a shard that does not look. Configurations supersede each other, so a shard
/// that is this far behind hangs.
const WAITING_MAX: usize = 64;

impl Door {
    /// Sends. What does not fit now is sent by a later [`Self::retry`], except for what the next
    /// second repeats anyway.
    fn send(&mut self, message: ToShard) {
        self.retry();
        let refused = if self.waiting.is_empty() {
            (self.send)(message).err()
        } else {
            Some(message)
        };
        match refused {
            None | Some(ToShard::Collect | ToShard::LogSpare(_)) => {}
            Some(message) => {
                if self.waiting.len() < WAITING_MAX {
                    self.waiting.push(message);
                } else {
                    tracing::error!("a shard does not read its inbox; a message is lost");
                }
            }
        }
    }

    fn retry(&mut self) {
        while !self.waiting.is_empty() {
            let message = self.waiting.remove(0);
            if let Err(message) = (self.send)(message) {
                self.waiting.insert(0, message);
                return;
            }
        }
    }
}
