//! Quota leases, between the shards and control's quota authority.
//!
//! Owns the lease stream and the [`Link`] that decides what goes over it. In a standalone sidecar
//! with several shards it runs an [`Authority`] of its own in control's place; with one shard
//! there is nothing to share out. May not drop or reorder messages of one stream.

use std::collections::BTreeSet;

use ringmesh_quota::{Authority, FromCells, Link, Nanos, RuleFacts, Session, ToCells, Wish};
use ringmesh_wire::frame::Kind;
use ringmesh_wire::{LeaseDown, LeaseUp, NodeId, Revision};
use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::link::{LinkNumber, News, Tell};
use super::quic::{self, LinkError};

/// A stream that ended is not opened again sooner.
const REOPEN_AFTER: Nanos = 500_000_000;

/// Numbers lease streams, so that late news of an old one can be told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamNumber(u64);

#[derive(Debug)]
enum Upstream {
    /// One shard and no control: the shard owns everything.
    None,
    /// Control's, over the link that stands.
    Control {
        link: Option<(LinkNumber, quic::Link)>,
        stream: Option<Stream>,
    },
    /// Our own, for the shards of a standalone sidecar.
    Local(Box<Authority>),
}

#[derive(Debug)]
struct Stream {
    number: StreamNumber,
    up: mpsc::UnboundedSender<LeaseUp>,
    task: AbortHandle,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// See the module.
#[derive(Debug)]
pub struct Leases {
    node: NodeId,
    link: Link,
    upstream: Upstream,
    wants_open: bool,
    open_not_before: Nanos,
    streams: u64,
    tell: Tell,
    /// For the shards, in order.
    out: Vec<(u16, ToCells)>,
}

impl Leases {
    /// `standalone`: there is no control.
    #[must_use]
    pub fn new(
        node: NodeId,
        boot: u64,
        shards: u16,
        standalone: bool,
        now: Nanos,
        tell: Tell,
    ) -> Self {
        let upstream = match (standalone, shards) {
            (true, ..=1) => Upstream::None,
            (true, _) => Upstream::Local(Box::new(Authority::new(now, BTreeSet::new()))),
            (false, _) => Upstream::Control {
                link: None,
                stream: None,
            },
        };
        Self {
            node,
            link: Link::new(boot, shards),
            upstream,
            wants_open: false,
            open_not_before: 0,
            streams: 0,
            tell,
            out: Vec::new(),
        }
    }

    /// Whether [`Self::tick`] has anything to do.
    #[must_use]
    pub fn is_active(&self) -> bool {
        match &self.upstream {
            Upstream::None => false,
            Upstream::Control { link, .. } => link.is_some(),
            Upstream::Local(_) => true,
        }
    }

    /// The link to control stands.
    pub fn connected(&mut self, number: LinkNumber, quic: quic::Link, now: Nanos) {
        if let Upstream::Control { link, stream } = &mut self.upstream {
            *link = Some((number, quic));
            *stream = None;
            self.open_not_before = 0;
            if !self.wants_open {
                self.link.closed();
            }
        }
        self.carry_out(now);
    }

    /// The link to control is gone.
    pub fn disconnected(&mut self, now: Nanos) {
        if let Upstream::Control { link, stream } = &mut self.upstream {
            *link = None;
            if stream.take().is_some() {
                self.link.closed();
            }
        }
        self.carry_out(now);
    }

    /// Control said something on a lease stream.
    pub fn said(&mut self, number: StreamNumber, message: LeaseDown, now: Nanos) {
        if self.is_current(number) {
            self.link.from_authority(message, now);
            self.carry_out(now);
        }
    }

    /// A lease stream ended.
    pub fn ended(&mut self, number: StreamNumber, now: Nanos) {
        if self.is_current(number) {
            if let Upstream::Control { stream, .. } = &mut self.upstream {
                *stream = None;
            }
            self.open_not_before = now + REOPEN_AFTER;
            self.link.closed();
            self.carry_out(now);
        }
    }

    /// A shard said something.
    pub fn from_shard(&mut self, shard: usize, message: FromCells, now: Nanos) {
        if let (Ok(shard), false) = (
            u16::try_from(shard),
            matches!(self.upstream, Upstream::None),
        ) {
            self.link.from_cells(shard, message, now);
            self.carry_out(now);
        }
    }

    /// Time passed; about five times a second.
    pub fn tick(&mut self, now: Nanos) {
        self.link.tick(now);
        if let Upstream::Local(authority) = &mut self.upstream {
            authority.tick(now);
        }
        self.carry_out(now);
    }

    /// The sidecar has stopped: nothing is spent any more.
    pub fn goodbye(&mut self, now: Nanos) {
        self.link.goodbye();
        self.carry_out(now);
    }

    /// Every rule of these is leased to every shard, and each knows its seeds.
    #[must_use]
    pub fn settled<'a>(&self, rules: impl IntoIterator<Item = &'a str>) -> bool {
        match &self.upstream {
            Upstream::Control { .. } => self.link.has_leases(rules),
            Upstream::None | Upstream::Local(_) => true,
        }
    }

    /// The next message for a shard.
    pub fn poll(&mut self) -> Vec<(u16, ToCells)> {
        std::mem::take(&mut self.out)
    }

    fn is_current(&self, number: StreamNumber) -> bool {
        match &self.upstream {
            Upstream::Control { stream, .. } => stream.as_ref().is_some_and(|s| s.number == number),
            Upstream::None | Upstream::Local(_) => false,
        }
    }

    fn carry_out(&mut self, now: Nanos) {
        loop {
            if self.wants_open {
                self.open(now);
            }
            self.hear_local(now);
            let Some(wish) = self.link.poll() else {
                return;
            };
            match wish {
                Wish::Open => self.wants_open = true,
                Wish::Send(message) => self.send(message, now),
                Wish::ToShard(shard, message) => self.hand_to(shard, message),
            }
        }
    }

    fn hand_to(&mut self, shard: u16, message: ToCells) {
        let endless = matches!(self.upstream, Upstream::Local(_));
        if endless && matches!(message, ToCells::Renewed { .. }) {
            // Our own authority lives and dies with the shards.
            return;
        }
        self.out.push((shard, message));
    }

    fn open(&mut self, now: Nanos) {
        match &mut self.upstream {
            Upstream::None => self.wants_open = false,
            Upstream::Local(authority) => {
                self.streams += 1;
                authority.connected(Session(self.streams), self.node.clone());
                self.wants_open = false;
                self.link.opened();
            }
            Upstream::Control { link, stream } => {
                let Some((number, quic)) = link else { return };
                if now < self.open_not_before {
                    return;
                }
                self.streams += 1;
                let stream_number = StreamNumber(self.streams);
                let (up, queue) = mpsc::unbounded_channel();
                let task = run(
                    *number,
                    stream_number,
                    quic.clone(),
                    queue,
                    self.tell.clone(),
                );
                let task = tokio::spawn(task).abort_handle();
                *stream = Some(Stream {
                    number: stream_number,
                    up,
                    task,
                });
                self.wants_open = false;
                self.link.opened();
            }
        }
    }

    fn send(&mut self, message: LeaseUp, now: Nanos) {
        match &mut self.upstream {
            Upstream::None => {}
            Upstream::Control { stream, .. } => {
                if let Some(stream) = stream {
                    // A stream that has ended tells so by its news.
                    let _ = stream.up.send(message);
                }
            }
            Upstream::Local(authority) => {
                authority.message(Session(self.streams), message, now);
            }
        }
    }

    fn hear_local(&mut self, now: Nanos) {
        if let Upstream::Local(authority) = &mut self.upstream {
            while let Some((session, message)) = authority.poll() {
                if session == Session(self.streams) {
                    self.link.from_authority(message, now);
                }
            }
        }
    }

    /// The rules of a standalone sidecar, by lease name and longest window.
    pub fn local_rules(&mut self, rules: impl IntoIterator<Item = (String, u64)>, now: Nanos) {
        if let Upstream::Local(authority) = &mut self.upstream {
            let facts = rules.into_iter().map(|(name, window_ms_max)| RuleFacts {
                limit: None,
                name,
                window_ms_max,
                enforcers: std::iter::once(self.node.clone()).collect(),
            });
            let facts: Vec<RuleFacts> = facts.collect();
            authority.rules(&facts, now);
            self.carry_out(now);
        }
    }
}

/// One lease stream, until it ends.
async fn run(
    number: LinkNumber,
    stream: StreamNumber,
    link: quic::Link,
    queue: mpsc::UnboundedReceiver<LeaseUp>,
    tell: Tell,
) {
    if let Err(error) = carry(number, stream, &link, queue, &tell).await {
        tracing::debug!(%error, "the lease stream ended");
    }
    let _ = tell.send((number, News::LeaseEnded(stream)));
}

async fn carry(
    number: LinkNumber,
    stream: StreamNumber,
    link: &quic::Link,
    mut queue: mpsc::UnboundedReceiver<LeaseUp>,
    tell: &Tell,
) -> Result<(), LinkError> {
    let (mut writer, mut reader) = link.open().await?;
    let reading = async {
        loop {
            let message: LeaseDown = reader.expect(Kind::LeaseDown).await?;
            let _ = tell.send((number, News::Leased(stream, Box::new(message))));
        }
    };
    let writing = async {
        while let Some(message) = queue.recv().await {
            writer.write(Kind::LeaseUp, Revision(0), &message).await?;
        }
        Ok(())
    };
    tokio::select! {
        ended = reading => ended,
        ended = writing => ended,
    }
}
