//! Who waits for a connection of a cluster whose connections are limited: in order, first come first
//! served.
//!
//! A connection that counts is an [`Opened`] wherever it lies, and tells the line when it is gone.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use crate::balance::{Open, Slot};
use crate::tables::Seeded;
use crate::time::Mono;

/// The lines of one shard. They are as long as `http1MaxPendingRequests` allows.
#[derive(Debug, Clone, Default)]
pub struct Lines(Rc<RefCell<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    by_cluster: HashMap<Slot, VecDeque<Waiting>, Seeded>,
    next_ticket: u64,
    /// Tokens of connections that are gone, for the balancer.
    gone: Vec<Open>,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    since: Mono,
    /// Something has changed since it looked.
    called: bool,
    waker: Option<Waker>,
}

impl Lines {
    /// Whether nobody waits for a connection of a cluster.
    #[must_use]
    pub fn is_empty(&self, cluster: Slot) -> bool {
        !self.0.borrow().by_cluster.contains_key(&cluster)
    }

    /// How many wait for a connection of a cluster.
    #[must_use]
    pub fn len(&self, cluster: Slot) -> usize {
        let inner = self.0.borrow();
        inner.by_cluster.get(&cluster).map_or(0, VecDeque::len)
    }

    /// Since when the first of them does.
    #[must_use]
    pub fn since(&self, cluster: Slot) -> Option<Mono> {
        let inner = self.0.borrow();
        let first = inner.by_cluster.get(&cluster)?.front()?;
        Some(first.since)
    }

    /// Joins the end of a line.
    #[must_use]
    pub fn join(&self, cluster: Slot, now: Mono) -> Ticket {
        let mut inner = self.0.borrow_mut();
        inner.next_ticket += 1;
        let number = inner.next_ticket;
        let line = inner.by_cluster.entry(cluster).or_default();
        line.push_back(Waiting {
            ticket: number,
            since: now,
            called: false,
            waker: None,
        });
        Ticket {
            lines: self.clone(),
            cluster,
            number,
        }
    }

    /// A connection of a cluster is idle, or there is room for one: the first looks again.
    pub fn call(&self, cluster: Slot) {
        self.0.borrow_mut().call(cluster);
    }

    /// A connection that counts from now on.
    #[must_use]
    pub fn opened(&self, open: Open) -> Opened {
        Opened {
            lines: self.clone(),
            cluster: open.cluster(),
            open: Some(open),
        }
    }

    /// The next token of a connection that is gone, to be given back to the balancer.
    #[must_use]
    pub fn next_gone(&self) -> Option<Open> {
        self.0.borrow_mut().gone.pop()
    }
}

impl Inner {
    fn call(&mut self, cluster: Slot) {
        let line = self.by_cluster.get_mut(&cluster);
        if let Some(first) = line.and_then(VecDeque::front_mut) {
            first.called = true;
            if let Some(waker) = first.waker.take() {
                waker.wake();
            }
        }
    }
}

/// A place in a line, left when this is dropped.
#[derive(Debug)]
pub struct Ticket {
    lines: Lines,
    cluster: Slot,
    number: u64,
}

impl Ticket {
    /// Whether it is the first.
    #[must_use]
    pub fn is_first(&self) -> bool {
        let inner = self.lines.0.borrow();
        let line = inner.by_cluster.get(&self.cluster);
        line.and_then(VecDeque::front)
            .is_some_and(|first| first.ticket == self.number)
    }

    /// Resolves when it is worth looking again.
    pub async fn called(&self) {
        poll_fn(|cx| {
            let mut inner = self.lines.0.borrow_mut();
            let line = inner.by_cluster.get_mut(&self.cluster);
            let mut own = line.into_iter().flatten();
            let Some(own) = own.find(|waiting| waiting.ticket == self.number) else {
                return Poll::Ready(());
            };
            if std::mem::take(&mut own.called) {
                return Poll::Ready(());
            }
            own.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut inner = self.lines.0.borrow_mut();
        if let Some(line) = inner.by_cluster.get_mut(&self.cluster) {
            line.retain(|waiting| waiting.ticket != self.number);
            if line.is_empty() {
                inner.by_cluster.remove(&self.cluster);
            }
        }
        // What it was called for may be left.
        inner.call(self.cluster);
    }
}

/// One connection in the count of its cluster, until this is dropped.
#[derive(Debug)]
pub struct Opened {
    lines: Lines,
    cluster: Slot,
    open: Option<Open>,
}

impl Opened {
    /// Its cluster.
    #[must_use]
    pub fn cluster(&self) -> Slot {
        self.cluster
    }

    /// There is room on it: the first in its cluster's line looks again.
    pub fn call(&self) {
        self.lines.call(self.cluster);
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        let mut inner = self.lines.0.borrow_mut();
        inner.gone.extend(self.open.take());
        inner.call(self.cluster);
    }
}
