//! Ports of which nobody said what they speak: whoever speaks first tells.
//!
//! The server is dialled at once and both sides are watched, so a server that greets is heard within
//! its own round trip. No time-out turns anything into anything: a client that is slow, or sends
//! `GE` and pauses, is still a client that may speak HTTP, unless the server speaks before it does.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use ringmesh_wire::ServiceId;

use super::first_bytes::{FirstBytes, Said};
use crate::detect::{self, Detected, Place, Verdict};
use crate::exchange::{Direction, Early, Flow, ShardState};
use crate::ring::{ByteStream, Chunk};
use crate::route;
use crate::tables::{Tables, TcpTarget};
use crate::telemetry::{self, Party};
use crate::upstream::Stream;
use crate::wait::{self, First};

/// With no server to be had, or one that ends without a word, the client gets this long to say that
/// it speaks HTTP and can be told so, milliseconds.
const ANSWERABLE_MS: u64 = 1_000;

/// What was heard first.
pub(super) struct Heard {
    pub(super) detected: Detected,
    /// From the client.
    first: Chunk,
    /// From the server.
    greeting: Chunk,
    /// Boxed: every connection would carry its size.
    early: Option<Box<Early>>,
}

impl Heard {
    /// Goes on as HTTP, with what came first: the early connection is one for requests.
    pub(super) fn into_http(self, shard: &Rc<ShardState>, flow: &Flow) -> Chunk {
        if let Some(early) = self.early
            && self.detected == Detected::Http1
        {
            early.give_to_pool(shard, flow);
        }
        self.first
    }

    /// What the client said. The early connection is closed: another one may be needed, or none.
    pub(super) fn into_first(self) -> Chunk {
        self.first
    }

    /// Goes on as bytes; gives back what came first if no connection was made yet.
    pub(super) async fn carry(
        self,
        shard: &Rc<ShardState>,
        flow: &Flow,
        stream: &Stream,
    ) -> Result<(), Chunk> {
        let Some(early) = self.early else {
            return Err(self.first);
        };
        early
            .carry(shard, flow, stream, self.first, self.greeting)
            .await;
        Ok(())
    }
}

/// Waits for the first word of either side; `None`: there was none, or it may not be said any more.
pub(super) async fn listen(shard: &Rc<ShardState>, flow: &Flow, stream: &Stream) -> Option<Heard> {
    let began = shard.now();
    let place = place(shard, flow);
    let recalled = shard.verdicts.borrow().recall(place);
    let heard = hear(shard, flow, stream, recalled).await?;
    // The rules may have changed while both were silent.
    if let Some(reason) = shard.refuses(flow, stream) {
        shard.meter().refused(reason);
        stream.reset();
        return None;
    }
    let verdict = match heard.detected {
        Detected::Http1 => Verdict::Http1,
        Detected::H2Preface => Verdict::Http2,
        Detected::TlsHello => Verdict::Tls,
        Detected::Other | Detected::NeedMore if !heard.greeting.is_empty() => Verdict::ServerFirst,
        Detected::Other | Detected::NeedMore if !heard.first.is_empty() => Verdict::ClientFirst,
        // One side has ended without a word.
        Detected::Other | Detected::NeedMore => return Some(heard),
    };
    shard.verdicts.borrow_mut().remember(place, verdict);
    count(shard, flow, verdict, shard.now().since(began));
    Some(heard)
}

/// Where a connection goes, as far as it is known before its first byte: the service, what labels call it, and
/// its port.
fn destination<'t>(tables: &'t Tables, flow: &Flow) -> (Option<&'t ServiceId>, Party<'t>, u16) {
    match flow.direction {
        Direction::Inbound { port } => {
            let port = tables.workload.ports.get(port).map_or(0, |row| row.number);
            let own = &tables.workload.service;
            (Some(own), Party::of(own, ""), port)
        }
        Direction::Outbound => match tables.resolve_tcp(flow.original_dst) {
            TcpTarget::Known(to) => {
                let called = to.service.map(|service| tables.service(service));
                let party = called.map_or(Party::default(), |row| Party::called(&row.name, ""));
                (called.map(|row| &row.id), party, to.port)
            }
            TcpTarget::Passthrough(_) | TcpTarget::Unknown => (None, Party::default(), 0),
        },
    }
}

fn place(shard: &ShardState, flow: &Flow) -> Place {
    let active = shard.active();
    let active = active.as_ref();
    let found = active.map(|active| destination(&active.tables, flow));
    let (service, port) = found.map_or((None, 0), |(service, _, port)| (service, port));
    match (flow.direction, service) {
        (Direction::Inbound { .. }, _) => Place::Inbound(port),
        (Direction::Outbound, Some(id)) => {
            Place::Service(shard.verdicts.borrow().service(id), port)
        }
        (Direction::Outbound, None) => Place::Address(flow.original_dst),
    }
}

/// Counts what an undeclared connection turned out to be. An address of the world is not a label.
fn count(shard: &ShardState, flow: &Flow, verdict: Verdict, took: Duration) {
    let Some(active) = shard.active() else { return };
    let (_, party, port) = destination(&active.tables, flow);
    let direction = match flow.direction {
        Direction::Inbound { .. } => telemetry::Direction::Inbound,
        Direction::Outbound => telemetry::Direction::Outbound,
    };
    let mut meter = shard.meter();
    meter.detected(direction, &party, port, verdict, took);
}

/// Whether the server that would be dialled declares HTTP, although the place the app called does not:
/// it waits for its client, and a connection made early would be one that nobody uses.
fn leads_to_http(shard: &ShardState, flow: &Flow) -> bool {
    let Some(active) = shard.active() else {
        return false;
    };
    let tables = &*active.tables;
    let (Direction::Outbound, TcpTarget::Known(to)) =
        (flow.direction, tables.resolve_tcp(flow.original_dst))
    else {
        return false;
    };
    let chosen = route::choose_tcp(tables, &to, 0);
    chosen.is_ok_and(|choice| tables.cluster(choice.cluster).port.protocol.is_http())
}

async fn hear(
    shard: &Rc<ShardState>,
    flow: &Flow,
    stream: &Stream,
    recalled: Option<Verdict>,
) -> Option<Heard> {
    let mut client = FirstBytes::default();
    if leads_to_http(shard, flow) {
        let until = shard.now().plus_ms(shard.limits.keep_alive_timeout_ms);
        let idle = pin!(shard.ring.sleep_until(until));
        let said = wait::or_timeout(client.listen(shard, stream), idle).await??;
        return heard(client, shard, said, None);
    }
    if recalled.is_some_and(Verdict::is_http) {
        let until = shard.now().plus_ms(shard.limits.http_patience_ms);
        let patience = pin!(shard.ring.sleep_until(until));
        if let Some(said) = wait::or_timeout(client.listen(shard, stream), patience).await {
            return heard(client, shard, said?, None);
        }
    }
    // Both silent: an idle connection of whichever kind is likelier.
    let limits = &shard.limits;
    let (silence_ms, answerable_ms) = match recalled {
        Some(Verdict::Http1 | Verdict::Http2) => {
            (limits.keep_alive_timeout_ms, limits.keep_alive_timeout_ms)
        }
        // A client that waits for its server's word has nothing to say of it.
        Some(Verdict::ServerFirst) => (limits.tcp_idle_timeout_ms, 0),
        Some(Verdict::Tls | Verdict::ClientFirst) | None => {
            (limits.tcp_idle_timeout_ms, ANSWERABLE_MS)
        }
    };
    let until = shard.now().plus_ms(silence_ms);
    let give_up = pin!(shard.ring.sleep_until(until));
    let race = race(shard, flow, stream, client, answerable_ms);
    wait::or_timeout(race, give_up).await?
}

async fn race(
    shard: &Rc<ShardState>,
    flow: &Flow,
    stream: &Stream,
    mut client: FirstBytes,
    answerable_ms: u64,
) -> Option<Heard> {
    let mut dialling = pin!(Early::dial(shard, flow));
    let early = match wait::first(client.listen(shard, stream), dialling.as_mut()).await {
        First::A(said) => {
            let said = said?;
            let early = match said.is_http() {
                // Requests find their own way.
                true => None,
                // Without a connection the relay says why.
                false => dialling.await.ok(),
            };
            return heard(client, shard, said, early);
        }
        First::B(Ok(early)) => early,
        First::B(Err(_)) => {
            let said = listen_for(&mut client, shard, stream, answerable_ms).await?;
            return heard(client, shard, said, None);
        }
    };
    let greeting = match wait::first(client.listen(shard, stream), early.hear()).await {
        First::A(said) => return heard(client, shard, said?, Some(early)),
        // A failure is told again to whoever carries on.
        First::B(greeting) => greeting.unwrap_or_default(),
    };
    if greeting.is_empty() {
        // Servers of HTTP do that too, and then it means nothing.
        let said = listen_for(&mut client, shard, stream, answerable_ms).await?;
        return heard(client, shard, said, (!said.is_http()).then_some(early));
    }
    if detect::is_http_greeting(&greeting) {
        // Neither the connection nor the buffer is held while the client is silent.
        drop((early, greeting));
        let said = client.listen(shard, stream).await?;
        return heard(client, shard, said, None);
    }
    let mut said_first = heard(client, shard, Said::Nothing, Some(early))?;
    said_first.greeting = greeting;
    Some(said_first)
}

/// As [`FirstBytes::listen`], for a time.
async fn listen_for(
    client: &mut FirstBytes,
    shard: &ShardState,
    stream: &Stream,
    ms: u64,
) -> Option<Said> {
    let end = pin!(shard.ring.sleep_until(shard.now().plus_ms(ms)));
    let said = wait::or_timeout(client.listen(shard, stream), end).await;
    said.unwrap_or(Some(Said::Nothing))
}

fn heard(
    client: FirstBytes,
    shard: &ShardState,
    said: Said,
    early: Option<Early>,
) -> Option<Heard> {
    Some(Heard {
        detected: match said {
            Said::This(detected) => detected,
            Said::Nothing => Detected::Other,
        },
        first: client.into_chunk(&shard.ring)?,
        greeting: Chunk::empty(),
        early: early.map(Box::new),
    })
}
