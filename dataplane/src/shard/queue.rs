//! Bounded queues between the agent's thread and a shard: no lock, no waiting on either side.

use std::fmt;
use std::sync::Arc;

use crossbeam_queue::ArrayQueue;

use crate::ring::{RemoteWaker, Ring};

/// Messages one direction holds. The agent asks and a shard answers, a handful a second; a queue
/// this long means that one side has stopped, and then more would not help.
const QUEUE_MAX: usize = 256;

/// The agent's end towards one shard.
#[derive(Debug)]
pub struct Mailbox<T> {
    queue: Arc<ArrayQueue<T>>,
    waker: RemoteWaker,
}

/// The shard's end.
#[derive(Debug)]
pub struct Inbox<T> {
    queue: Arc<ArrayQueue<T>>,
    ring: Ring,
}

/// The part of an [`Inbox`] that can travel to the shard's thread before there is a ring.
#[derive(Debug)]
pub struct InboxSeed<T> {
    queue: Arc<ArrayQueue<T>>,
}

/// A queue into a shard whose ring will answer `waker`.
#[must_use]
pub fn inbox<T>(waker: RemoteWaker) -> (Mailbox<T>, InboxSeed<T>) {
    let queue = Arc::new(ArrayQueue::new(QUEUE_MAX));
    (
        Mailbox {
            queue: Arc::clone(&queue),
            waker,
        },
        InboxSeed { queue },
    )
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self {
            queue: Arc::clone(&self.queue),
            waker: self.waker.clone(),
        }
    }
}

impl<T> Mailbox<T> {
    /// Leaves a message and wakes the shard.
    ///
    /// # Errors
    /// The message, if the shard has stopped taking them.
    pub fn send(&self, message: T) -> Result<(), T> {
        self.queue.push(message)?;
        self.waker.wake();
        Ok(())
    }
}

impl<T> InboxSeed<T> {
    /// The next message, for tests that are a shard themselves.
    #[cfg(test)]
    pub fn take(&self) -> Option<T> {
        self.queue.pop()
    }

    /// The shard's end, on the shard's thread.
    #[must_use]
    pub fn on(self, ring: Ring) -> Inbox<T> {
        Inbox {
            queue: self.queue,
            ring,
        }
    }
}

impl<T> Inbox<T> {
    /// The next message.
    pub async fn recv(&self) -> T {
        loop {
            // Before looking: a message left in between rings the bell.
            let rung = self.ring.rung();
            if let Some(message) = self.queue.pop() {
                return message;
            }
            rung.await;
        }
    }
}

/// The shard's end towards the agent.
pub struct Outbox<T> {
    shard: usize,
    queue: Arc<ArrayQueue<(usize, T)>>,
    notify: Arc<dyn Fn() + Send + Sync>,
}

/// The agent's end of all shards' outboxes.
#[derive(Debug)]
pub struct Collected<T> {
    queue: Arc<ArrayQueue<(usize, T)>>,
}

/// One queue out of `shards` shards; `notify` wakes the agent and must not block.
pub fn outboxes<T>(
    shards: usize,
    notify: &Arc<dyn Fn() + Send + Sync>,
) -> (Vec<Outbox<T>>, Collected<T>) {
    let queue = Arc::new(ArrayQueue::new(QUEUE_MAX * shards.max(1)));
    let boxes = (0..shards)
        .map(|shard| Outbox {
            shard,
            queue: Arc::clone(&queue),
            notify: Arc::clone(notify),
        })
        .collect();
    (boxes, Collected { queue })
}

impl<T> Outbox<T> {
    /// Leaves a message for the agent. False: the queue is full and the message is gone, because
    /// the agent has stopped.
    pub fn send(&self, message: T) -> bool {
        let sent = self.queue.push((self.shard, message)).is_ok();
        (self.notify)();
        sent
    }
}

impl<T> Clone for Outbox<T> {
    fn clone(&self) -> Self {
        Self {
            shard: self.shard,
            queue: Arc::clone(&self.queue),
            notify: Arc::clone(&self.notify),
        }
    }
}

impl<T> fmt::Debug for Outbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Outbox(shard {})", self.shard)
    }
}

impl<T> Collected<T> {
    /// The next message and the shard it is from.
    #[must_use]
    pub fn take(&self) -> Option<(usize, T)> {
        self.queue.pop()
    }
}
