//! A connection made before it is known what for.
//!
//! On an undeclared port the server may be the one to speak first, so somebody has to have called
//! it. Until the verdict it can only be listened to: what it said goes nowhere, and nothing goes to
//! it, before policy was asked. It counts in its cluster's connections like any other.

use std::io;
use std::rc::{Rc, Weak};

use super::flow::{Direction, Flow};
use super::note::Names;
use super::record::Record;
use super::relay;
use super::state::{Active, ShardState};
use crate::policy::Permit;
use crate::reason::Reason;
use crate::ring::{ByteStream, Chunk};
use crate::route;
use crate::tables::{Link, Site, TcpTarget};
use crate::tls::Inner;
use crate::upstream::{Lane, Stream};

/// See the module.
#[derive(Debug)]
pub struct Early {
    lane: Lane,
    record: Record,
    names: Names,
    /// What it was made under. Weak: a client may be silent for longer than a configuration lives.
    made_under: Weak<Active>,
}

impl Early {
    /// Connects to where an opaque connection of this flow would go.
    ///
    /// # Errors
    /// Why there is no connection.
    pub async fn dial(shard: &Rc<ShardState>, flow: &Flow) -> Result<Self, Reason> {
        let active = shard.active().ok_or(Reason::NoConfig)?;
        let mut record = Record::new(shard.now());
        let lane = match flow.direction {
            Direction::Outbound => outbound(shard, &active, flow, &mut record).await?,
            Direction::Inbound { port } => {
                let row = active.tables.workload.ports.get(port);
                let app = row.ok_or(Reason::NoRoute)?.app;
                relay::to_link(shard, shard.app_link(flow, app), &mut record).await?
            }
        };
        Ok(Self {
            lane,
            names: Names::of(&active.tables, flow, &record),
            record,
            made_under: Rc::downgrade(&active),
        })
    }

    /// What the server says; empty: it has ended.
    ///
    /// # Errors
    /// Its connection failed.
    pub async fn hear(&self) -> io::Result<Chunk> {
        self.lane.stream.recv().await
    }

    /// Carries the connection as opaque bytes, if policy permits it. `first` came from the client,
    /// `greeting` from the server.
    pub async fn carry(
        mut self,
        shard: &Rc<ShardState>,
        flow: &Flow,
        downstream: &Stream,
        first: Chunk,
        greeting: Chunk,
    ) {
        let connected = match self.judge(shard, flow) {
            Ok(_permit) => Ok(self.lane),
            Err(reason) => {
                self.lane.stream.reset();
                Err(reason)
            }
        };
        relay::carry(
            shard,
            flow,
            downstream,
            connected,
            first,
            greeting,
            self.record,
            Some(self.names),
        )
        .await;
    }

    /// By the rules of now, which may have changed since it was made; `None` where there are none.
    fn judge(&mut self, shard: &Rc<ShardState>, flow: &Flow) -> Result<Option<Permit>, Reason> {
        let active = shard.active().ok_or(Reason::NoConfig)?;
        let tables = &*active.tables;
        let (site, destination) = match flow.direction {
            Direction::Inbound { .. } => {
                (Site::Inbound, self.record.upstream.unwrap_or(flow.local))
            }
            Direction::Outbound => {
                let Some(called) = self.names.called() else {
                    return Ok(None);
                };
                let service = tables.service_by_id(called);
                let site = Site::Outbound(service.ok_or(Reason::UnknownDestination)?);
                if tables.policy(site).is_none() {
                    return Ok(None);
                }
                (site, flow.local)
            }
        };
        relay::judge(shard, &active, flow, site, destination, &mut self.record).map(Some)
    }

    /// It was HTTP/1.1: requests find the connection in its pool, if it can carry them. Only for one
    /// that is being listened to, and has said nothing.
    pub fn give_to_pool(self, shard: &Rc<ShardState>, flow: &Flow) {
        // A sidecar was told to expect bytes.
        if self.lane.identity().is_some() {
            return;
        }
        // Places of other tables mean nothing, nor do the pools they had.
        let Some(active) = shard.active() else { return };
        if !std::ptr::eq(Rc::as_ptr(&active), self.made_under.as_ptr()) {
            return;
        }
        let pool = match flow.direction {
            Direction::Inbound { port } => {
                let row = active.tables.workload.ports.get(port);
                row.and_then(|row| shard.app_pool(&active, port, shard.app_link(flow, row.app)))
            }
            Direction::Outbound => (self.record.cluster)
                .zip(self.record.endpoint)
                .and_then(|(cluster, at)| active.pool(cluster, at)),
        };
        let Some(pool) = pool else { return };
        let lane = Lane {
            pool: Some(pool),
            exchanges: 0,
            ..self.lane
        };
        // As if it had been asked for and were given back.
        shard.pools.borrow_mut().begin(pool);
        shard.rest(lane);
    }
}

async fn outbound(
    shard: &Rc<ShardState>,
    active: &Active,
    flow: &Flow,
    record: &mut Record,
) -> Result<Lane, Reason> {
    let tables = &*active.tables;
    let destined = match tables.resolve_tcp(flow.original_dst) {
        TcpTarget::Known(destined) => destined,
        TcpTarget::Passthrough(address) => {
            return relay::to_link(shard, Link::Plain(address), record).await;
        }
        TcpTarget::Unknown => return Err(Reason::UnknownDestination),
    };
    let cluster = route::choose_tcp(tables, &destined, shard.random())?.cluster;
    record.cluster = Some(cluster);
    record.service = Some(tables.cluster(cluster).service);
    relay::to_endpoint(shard, active, cluster, destined.only, Inner::Tcp, record).await
}
