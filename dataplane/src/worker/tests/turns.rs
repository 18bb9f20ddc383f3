//! Connections that shards share: whoever waits gets its turn, whatever the other shards do.

use std::cell::Cell;
use std::sync::atomic::AtomicBool;

use ringmesh_wire::snapshot::Limits;

use super::http2::{block_on, connect};
use super::limits::{begin, gated, limited, shards};
use super::limits_http2::{Open, Shared, app, one, service};
use super::*;
use crate::balance::{Balancer, Credits, Limit, Slot};
use crate::ring::RemoteWaker;
use crate::shard::{InboxSeed, Peers, inbox};
use crate::tables::ClusterKey;
use crate::time::Mono;

/// Longer ago than any request.
const LONG_AGO: Mono = Mono(1);

/// The other shard of a sidecar that has two, played by the test.
struct Other {
    shard: u16,
    cluster: ClusterKey,
    slot: Slot,
    inbox: InboxSeed<ToShard>,
    to: Mailbox<ToShard>,
}

/// What the worker wants.
struct Wanted {
    round: u32,
    slot: Slot,
    since: Mono,
}

impl Other {
    /// A worker, as shard `own` of two, and the other one.
    fn beside(own: u32, draft: &Draft) -> (Bed, Self) {
        let share = ShardShare {
            shard: own,
            shards: 2,
        };
        let (limits, plan) = (ConnLimits::default(), RingPlan::default());
        let bed = Bed::start_as(share, draft, Role::Outbound, limits, plan, turn_until);
        let (mailbox, inbox) = inbox(RemoteWaker::new().unwrap());
        let mut all = [mailbox, bed.mailbox.clone()];
        all.rotate_left(own as usize ^ 1);
        let peers = Peers::new(own as usize, Arc::new(all));
        bed.mailbox.send(ToShard::Peers(peers)).unwrap();
        let tables = draft.tables();
        let limited = (tables.clusters().iter())
            .find(|row| row.policy.limits.connections_max < u32::MAX)
            .unwrap();
        let mut balancer = Balancer::new(ShardShare::WHOLE);
        let other = Self {
            shard: own as u16 ^ 1,
            cluster: limited.key.clone(),
            slot: balancer.slot_named(&tables, &limited.key).unwrap(),
            inbox,
            to: bed.mailbox.clone(),
        };
        (bed, other)
    }

    fn say(&self, message: Credits) {
        self.to.send(ToShard::Credits(message)).unwrap();
    }

    async fn hear(&self) -> Credits {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(ToShard::Credits(message)) = self.inbox.take() {
                return message;
            }
            assert!(Instant::now() < until, "the shard says nothing");
            moment().await;
        }
    }

    fn lend(&self, wanted: &Wanted, credits: u32) {
        self.say(Credits::Lent {
            from: self.shard,
            limit: Limit::Connections,
            round: wanted.round,
            slot: wanted.slot,
            credits,
        });
    }

    /// Asks for a connection, for a request that waits since then.
    fn want(&self, since: Mono) {
        self.say(Credits::Want {
            from: self.shard,
            cluster: self.cluster.clone(),
            limit: Limit::Connections,
            round: 1,
            slot: self.slot,
            since: Some(since),
        });
    }

    /// The worker's next question.
    async fn wanted(&self) -> Wanted {
        loop {
            if let Some(wanted) = wanted(&self.hear().await) {
                return wanted;
            }
        }
    }

    /// The worker's next answer.
    async fn lent(&self) -> u32 {
        loop {
            if let Credits::Lent { credits, .. } = self.hear().await {
                return credits;
            }
        }
    }

    /// Waits until the worker gives way.
    async fn yielded(&self) {
        loop {
            match self.hear().await {
                Credits::Yielded { .. } => return,
                message => {
                    if let Some(wanted) = wanted(&message) {
                        self.lend(&wanted, 0);
                    }
                }
            }
        }
    }

    /// Goes on wanting a connection until the worker gives one.
    async fn insist(&self, since: Mono) {
        loop {
            self.want(since);
            loop {
                match self.hear().await {
                    Credits::Yielded { .. } | Credits::Lent { credits: 1, .. } => return,
                    Credits::Lent { .. } => break,
                    message => {
                        if let Some(wanted) = wanted(&message) {
                            self.lend(&wanted, 0);
                        }
                    }
                }
            }
        }
    }
}

fn wanted(message: &Credits) -> Option<Wanted> {
    match message {
        Credits::Want {
            limit: Limit::Connections,
            round,
            slot,
            since: Some(since),
            ..
        } => Some(Wanted {
            round: *round,
            slot: *slot,
            since: *since,
        }),
        _ => None,
    }
}

fn only_one(upstream: SocketAddr) -> Draft {
    limited(
        upstream,
        Limits {
            connections_max: 1,
            ..Limits::default()
        },
    )
}

/// A shard that is kept from its CPU hears the answer when its request has stopped waiting for it, and
/// the next question of the other shard right behind: each would give back what it has waited for.
#[test]
fn a_credit_that_comes_late_is_for_who_waits() {
    block_on(async {
        let (upstream, _, gate) = gated();
        let (bed, other) = Other::beside(1, &only_one(upstream));
        let mut client = begin(&bed);
        let first = other.wanted().await;
        // It has given up the first question.
        let _second = other.wanted().await;
        other.lend(&first, 1);
        other.want(first.since.plus_ms(1));
        assert_eq!(other.lent().await, 0);
        // Only now: a connection whose request is over may go to the other shard.
        gate.set_open(true);
        assert!(read_answer(&mut client).ends_with("hello"));
    });
}

/// HTTP/1.1: the connection is never idle, since a request waits whenever one ends.
#[test]
fn a_connection_goes_to_the_shard_that_has_waited_longer() {
    block_on(async {
        let (upstream, connections, gate) = gated();
        let (bed, other) = Other::beside(0, &only_one(upstream));
        let mut first = begin(&bed);
        gate.wait_for(1);
        let mut second = begin(&bed);
        let _waits = other.wanted().await;
        other.want(LONG_AGO);
        assert_eq!(other.lent().await, 0);
        gate.set_open(true);
        other.yielded().await;
        assert!(read_answer(&mut first).ends_with("hello"));
        assert_eq!(gate.seen().all, 1);
        other.lend(&other.wanted().await, 1);
        assert!(read_answer(&mut second).ends_with("hello"));
        assert_eq!(
            (connections.load(Ordering::SeqCst), gate.seen().most),
            (2, 1)
        );
    });
}

#[test]
fn requests_that_came_before_go_before_another_shard() {
    block_on(async {
        let (upstream, connections, gate) = gated();
        let (bed, other) = Other::beside(0, &only_one(upstream));
        let mut first = begin(&bed);
        gate.wait_for(1);
        let mut second = begin(&bed);
        let waits = other.wanted().await;
        let since = waits.since.plus_ms(1);
        other.want(since);
        assert_eq!(other.lent().await, 0);
        gate.set_open(true);
        for client in [&mut first, &mut second] {
            assert!(read_answer(client).ends_with("hello"));
        }
        // On the connection there was.
        assert_eq!(connections.load(Ordering::SeqCst), 1);
        other.insist(since).await;
    });
}

#[test]
fn a_connection_of_streams_ends_for_the_shard_that_has_waited_longer() {
    let seen = Shared::default();
    let (bed, other) = Other::beside(0, &service(&[app(&seen, None)], one()));
    block_on(async {
        let mut sender = connect(bed.at).await;
        let mut first = Open::begin(&mut sender, "/").await;
        first.is_inside().await;
        other.want(LONG_AGO);
        assert_eq!(other.lent().await, 0);
        // Nobody joins it any more.
        let second = Open::begin(&mut sender, "/").await;
        let _waits = other.wanted().await;
        first.end().await;
        other.insist(LONG_AGO).await;
        assert_eq!(seen.lock().unwrap().calls, 1);
        other.lend(&other.wanted().await, 1);
        second.end().await;
    });
    let seen = seen.lock().unwrap();
    assert_eq!((seen.connections, seen.calls, seen.busy_most), (2, 2, 1));
}

#[test]
fn a_shard_that_never_rests_lets_another_have_its_turn() {
    let (upstream, _, gate) = gated();
    gate.set_open(true);
    let beds = shards(2, &only_one(upstream));
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut client = beds[0].client();
                while !is_over.load(Ordering::SeqCst) {
                    let asked = client.write_all(b"GET / HTTP/1.1\r\nHost: app\r\n\r\n");
                    asked.unwrap();
                    assert!(read_answer(&mut client).ends_with("hello"));
                }
            });
        }
        let until = Instant::now() + PATIENCE;
        while gate.seen().all < 20 && Instant::now() < until {
            pause();
        }
        let answers: Vec<String> = (0..5).map(|_| beds[1].get("app")).collect();
        is_over.store(true, Ordering::SeqCst);
        assert!(
            answers.iter().all(|answer| answer.ends_with("hello")),
            "{answers:#?}"
        );
    });
    assert_eq!(gate.seen().most, 1);
}

/// HTTP/2: a call begins before the one before it ends, unless it has to wait.
#[test]
fn a_shard_whose_streams_never_cease_lets_another_have_its_turn() {
    let seen = Shared::default();
    let beds = shards(2, &service(&[app(&seen, None)], one()));
    let is_over = Cell::new(false);
    block_on(async {
        let busy = async {
            let mut sender = connect(beds[0].at).await;
            let mut inside = Open::begin(&mut sender, "/").await;
            while !is_over.get() {
                let next = Open::begin(&mut sender, "/").await;
                inside.end().await;
                inside = next;
            }
            inside.end().await;
        };
        let other = async {
            while seen.lock().unwrap().calls < 20 {
                moment().await;
            }
            let mut sender = connect(beds[1].at).await;
            for _ in 0..5 {
                Open::begin(&mut sender, "/").await.end().await;
            }
            is_over.set(true);
        };
        tokio::join!(busy, other);
    });
    assert_eq!(seen.lock().unwrap().busy_most, 1);
}
