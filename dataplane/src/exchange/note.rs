//! The one `Outcome` of an exchange: counted, and written to the access log.

use ringmesh_wire::ServiceId;

use super::context::Exchange;
use super::flow::{Direction, Flow};
use super::record::Record;
use super::sides::Client;
use super::state::ShardState;
use crate::tables::Tables;
use crate::telemetry::{self, Flags, Outcome, Party, Transport};
use crate::time::Mono;

/// Notes an HTTP exchange.
pub(super) fn http(x: &Exchange<'_>, record: &Record) {
    let tables = &*x.active.tables;
    let mut outcome = outcome(x.shard, x.flow, record, Some(tables), transport(x.client));
    outcome.grpc_status = record.grpc_status;
    outcome.method = x.request.method();
    outcome.authority = x.authority;
    outcome.path = x.request.path();
    outcome.request_id = x.id();
    x.shard.note(&outcome);
}

/// What a client speaks.
pub(super) fn transport(client: Client<'_>) -> Transport {
    match client {
        Client::Http1(_) => Transport::Http1,
        Client::Http2(stream) if stream.is_grpc() => Transport::Grpc,
        Client::Http2(_) => Transport::Http2,
    }
}

/// Notes an opaque connection.
pub(super) fn opaque(shard: &ShardState, flow: &Flow, record: &Record, names: Option<&Names>) {
    let mut outcome = outcome(shard, flow, record, None, Transport::Tcp);
    if let Some(names) = names {
        let own = Party::of(&names.own.0, &names.own.1);
        match outcome.direction {
            telemetry::Direction::Outbound => {
                outcome.source = own;
                if let Some(called) = &names.called {
                    outcome.destination = Party::called(&called.name, &called.version);
                }
            }
            telemetry::Direction::Inbound => {
                outcome.source = Party::peer(flow.peer.identity.as_deref());
                outcome.destination = own;
            }
        }
        outcome.cluster = &names.cluster;
    }
    shard.note(&outcome);
}

/// What an opaque connection's outcome calls things, taken when it was connected: it may outlive
/// many configurations, and its indices mean nothing in a later one's tables.
#[derive(Debug)]
pub(super) struct Names {
    own: (ServiceId, Box<str>),
    called: Option<Called>,
    cluster: Box<str>,
}

#[derive(Debug)]
struct Called {
    id: ServiceId,
    name: Box<str>,
    version: Box<str>,
}

impl Names {
    /// As `tables`, by which `record` was filled in, has them.
    pub(super) fn of(tables: &Tables, flow: &Flow, record: &Record) -> Self {
        let row = record.cluster.map(|cluster| tables.cluster(cluster));
        let endpoint = row
            .zip(record.endpoint)
            .and_then(|(row, at)| row.endpoints.get(at));
        let version = endpoint.map_or("", |endpoint| &endpoint.version);
        let called = match flow.direction {
            Direction::Outbound => record.service,
            Direction::Inbound { .. } => None,
        };
        Self {
            own: (
                tables.workload.service.clone(),
                tables.workload.version().into(),
            ),
            called: called.map(|at| Called {
                id: tables.service(at).id.clone(),
                name: tables.service(at).name.clone(),
                version: version.into(),
            }),
            cluster: row.map_or_else(Box::default, |row| row.name.clone()),
        }
    }

    /// The service that was called; `None`: none of the mesh's, or the local app.
    pub(super) fn called(&self) -> Option<&ServiceId> {
        self.called.as_ref().map(|called| &called.id)
    }
}

/// Notes a connection whose request was never understood, or came before any configuration.
pub(super) fn headless(shard: &ShardState, flow: &Flow, record: &Record, transport: Transport) {
    let active = shard.active();
    let tables = active.as_ref().map(|active| &*active.tables);
    let mut outcome = outcome(shard, flow, record, tables, transport);
    outcome.grpc_status = record.grpc_status;
    shard.note(&outcome);
}

fn outcome<'o>(
    shard: &ShardState,
    flow: &'o Flow,
    record: &'o Record,
    tables: Option<&'o Tables>,
    transport: Transport,
) -> Outcome<'o> {
    let direction = match flow.direction {
        Direction::Outbound => telemetry::Direction::Outbound,
        Direction::Inbound { .. } => telemetry::Direction::Inbound,
    };
    let mut outcome = Outcome::new(direction, transport);
    let identity = flow.peer.identity.as_deref();
    if let Some(tables) = tables {
        let own = Party::of(&tables.workload.service, tables.workload.version());
        let row = record.cluster.map(|cluster| tables.cluster(cluster));
        let endpoint = row
            .zip(record.endpoint)
            .and_then(|(row, at)| row.endpoints.get(at));
        match direction {
            telemetry::Direction::Outbound => {
                outcome.source = own;
                if let Some(service) = record.service {
                    let version = endpoint.map_or("", |endpoint| &endpoint.version);
                    outcome.destination = Party::called(&tables.service(service).name, version);
                }
            }
            telemetry::Direction::Inbound => {
                outcome.source = Party::peer(identity);
                outcome.destination = own;
            }
        }
        outcome.names = Some(names_key(tables, direction, flow, record));
        outcome.route = record.route.map_or("", |route| &tables.route(route).name);
        outcome.cluster = row.map_or("", |row| &row.name);
    }
    outcome.audited = record.audited.map(|audited| {
        let kept = record.audit_policy.as_deref();
        let policy = kept.or_else(|| tables.map(|tables| audited.policy(tables)));
        (policy.unwrap_or(""), audited.rule)
    });
    outcome.endpoint = record.upstream;
    outcome.peer_address = Some(flow.peer.address);
    outcome.peer_principal = identity.map_or("", |peer| peer.spiffe.principal());
    outcome.status = record.status;
    outcome.reason = record.reason;
    outcome.policy = record.policy.as_deref().unwrap_or("");
    outcome.bytes_in = record.bytes_in;
    outcome.bytes_out = record.bytes_out;
    let now = shard.now();
    outcome.start_unix_us = shard.unix_us(record.started);
    outcome.total_us = span_us(record.started, now);
    outcome.upstream_us = record
        .sent
        .zip(record.answered)
        .map(|(sent, answered)| span_us(sent, answered));
    outcome.queue_us = record.sent.map_or(0, |sent| span_us(record.started, sent));
    outcome.attempts = record.tries;
    outcome.flags = Flags {
        downstream_tls: identity.is_some(),
        upstream_tls: record.upstream_tls,
        reused: record.reused,
        delayed: record.delayed,
        passthrough: record.passthrough,
    };
    outcome
}

/// What the names of an outcome come from; see [`outcome`].
fn names_key(
    tables: &Tables,
    direction: telemetry::Direction,
    flow: &Flow,
    record: &Record,
) -> telemetry::Names {
    const NONE: u32 = telemetry::Names::NONE;
    telemetry::Names {
        direction,
        generation: tables.generation().number(),
        connection: flow.peer.identity.as_ref().map_or(0, |_| flow.serial),
        called: [
            record.service.map_or(NONE, |at| at.0),
            record.cluster.map_or(NONE, |at| at.0),
        ],
        chosen: [
            record.route.map_or(NONE, |at| at.0),
            record
                .endpoint
                .and_then(|at| u32::try_from(at).ok())
                .unwrap_or(NONE),
        ],
    }
}

fn span_us(from: Mono, to: Mono) -> u64 {
    u64::try_from(to.since(from).as_micros()).unwrap_or(u64::MAX)
}
