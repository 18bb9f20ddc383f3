//! What every step of an exchange may look at, and what follows from it.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;

use ringmesh_wire::snapshot::{MtlsMode, Protocol};

use super::attempt::{Speaks, Way};
use super::flow::{Direction, Flow};
use super::last_target::LastTarget;
use super::progress::Progress;
use super::sides::{Client, Seen};
use super::state::{Active, ShardState};
use crate::http1::{Known, Request, TargetForm};
use crate::http2::{grpc, websocket};
use crate::policy::quota::QuotaMemo;
use crate::ring::Chunk;
use crate::tables::{Target, Tunnel};
use crate::time::Mono;
use crate::view::RequestView;

/// What every step of an exchange may look at.
pub(super) struct Exchange<'x> {
    pub(super) shard: &'x Rc<ShardState>,
    pub(super) active: &'x Rc<Active>,
    pub(super) flow: &'x Flow,
    pub(super) client: Client<'x>,
    pub(super) request: Request<'x>,
    /// When its head was complete.
    pub(super) started: Mono,
    /// Who is asked.
    pub(super) authority: &'x str,
    /// Normalised path.
    pub(super) path: &'x str,
    /// Used where the request brings none.
    pub(super) request_id: &'x str,
    /// Quota cells this connection found before.
    pub(super) quota: &'x RefCell<QuotaMemo>,
    /// Where its last request was meant to go.
    pub(super) last_target: &'x RefCell<LastTarget>,
    /// The client's next request, seen while it waited.
    pub(super) early: Cell<Option<Chunk>>,
    /// When something of it last moved.
    pub(super) progress: Progress<'x>,
}

impl<'x> Exchange<'x> {
    pub(super) fn has_early(&self) -> bool {
        let early = self.early.take();
        let has = early.is_some();
        self.early.set(early);
        has
    }

    /// Takes in what was seen of the client while it waited; whether it does not wait any more.
    pub(super) fn is_left(&self, seen: Seen) -> bool {
        match seen {
            Seen::Gone => return true,
            Seen::HalfClosed => {}
            Seen::Early(chunk) => self.early.set(Some(chunk)),
        }
        false
    }

    pub(super) fn view(&self, port: u16) -> RequestView<'_> {
        RequestView {
            method: self.request.method(),
            authority: self.authority,
            path: self.path,
            query: self.request.query(),
            headers: &self.request,
            port,
        }
    }

    /// Where the local app's request is meant to go, and whether it is a tunnel that begins here.
    pub(super) fn target(&self) -> (Target, bool) {
        let (tables, original_dst) = (&self.active.tables, self.flow.original_dst);
        let authority = self.authority;
        if self.request.form() == TargetForm::Authority
            && let Tunnel::Here(target) = tables.resolve_tunnel(authority, original_dst)
        {
            return (target, true);
        }
        let mut last = self.last_target.borrow_mut();
        (last.resolve(tables, authority, original_dst), false)
    }

    /// The addresses of the endpoint of a try, where it has many.
    pub(super) fn among(&self, way: &Way<'_>) -> &[SocketAddr] {
        way.endpoint.map_or(&[], |(cluster, at)| {
            &self.active.tables.cluster(cluster).endpoints[at].among
        })
    }

    /// Whether it is a gRPC call.
    pub(super) fn is_grpc(&self) -> bool {
        matches!(self.client, Client::Http2(stream) if stream.is_grpc())
    }

    /// When a gRPC client stops waiting.
    pub(super) fn grpc_deadline(&self) -> Mono {
        let timeout = self
            .is_grpc()
            .then(|| self.request.field(Known::GrpcTimeout));
        timeout
            .flatten()
            .and_then(grpc::timeout_ms)
            .map_or(Mono::NEVER, |ms| self.started.plus_ms(ms))
    }

    /// What the upstream is spoken to in: what its port declares, else what the client speaks. gRPC
    /// has no other way than HTTP/2, and tunnels none than HTTP/1.1, nor have upgrades to anything
    /// but WebSocket.
    pub(super) fn speaks(&self, declared: Protocol) -> Speaks {
        let from_http2 = matches!(self.client, Client::Http2(_));
        let asks_for_other =
            self.request.upgrade().is_some() && !websocket::is_asked_for(&self.request);
        if asks_for_other || self.request.form() == TargetForm::Authority {
            return Speaks::Http1;
        }
        match declared {
            Protocol::Http2 | Protocol::Grpc => Speaks::Http2,
            Protocol::Http1 if !self.is_grpc() => Speaks::Http1,
            _ if from_http2 => Speaks::Http2,
            _ => Speaks::Http1,
        }
    }

    /// The request id that came, where whoever sent it is of the mesh: the app here, or a caller with
    /// its sidecar. What the outside says could be another request's.
    pub(super) fn sent_id(&self) -> Option<&[u8]> {
        let is_of_the_mesh = match self.flow.direction {
            Direction::Outbound => true,
            Direction::Inbound { port } => {
                let ports = &self.active.tables.workload.ports;
                self.flow.peer.identity.is_some()
                    || !self.shard.has_identity()
                    || ports
                        .get(port)
                        .is_some_and(|port| port.mtls == MtlsMode::Disable)
            }
        };
        (self.request.field(Known::RequestId)).filter(|_| is_of_the_mesh)
    }

    /// The id in use.
    pub(super) fn id(&self) -> &str {
        let sent = self.sent_id();
        sent.and_then(|id| std::str::from_utf8(id).ok())
            .unwrap_or(self.request_id)
    }
}
