//! What a connection may still do: as its certificates, its port and the sidecar's draining say.

use ringmesh_wire::snapshot::MtlsMode;

use super::ShardState;
use crate::exchange::flow::{Direction, Flow};
use crate::reason::Reason;
use crate::tls::{Standing, TlsStream};
use crate::upstream::Stream;

impl ShardState {
    /// What a connection's certificates still allow. Asked per request: no clone, no clock.
    #[must_use]
    pub fn standing(&self, stream: &Stream) -> Standing {
        match stream {
            Stream::Plain(_) => Standing::Good,
            Stream::Tls(connection) => self.standing_of(connection),
            Stream::Lane(lane) => self.standing_of(lane.connection()),
        }
    }

    /// As [`Self::standing`].
    #[must_use]
    pub fn standing_of(&self, connection: &TlsStream) -> Standing {
        connection.standing(self.material.borrow().as_deref(), self.now())
    }

    /// Why a downstream connection may do nothing more: its peer's certificate has been revoked, or its
    /// port has become STRICT and it is plaintext. Asked per request.
    #[must_use]
    pub fn refuses(&self, flow: &Flow, downstream: &Stream) -> Option<Reason> {
        match downstream {
            Stream::Tls(_) | Stream::Lane(_) => {
                (self.standing(downstream) == Standing::Revoked).then_some(Reason::PeerRefused)
            }
            Stream::Plain(_) => {
                (self.mtls_of(flow) == Some(MtlsMode::Strict)).then_some(Reason::PlaintextRefused)
            }
        }
    }

    /// Whether a connection takes no more requests: the sidecar drains, the connection is as old as
    /// its certificates, or its port takes plaintext only by now. The answer says so.
    #[must_use]
    pub fn must_close(&self, flow: &Flow, downstream: &Stream) -> bool {
        match downstream {
            Stream::Plain(_) => self.draining.get(),
            Stream::Tls(connection) => self.closes(flow, connection),
            Stream::Lane(lane) => self.closes(flow, lane.connection()),
        }
    }

    /// As [`Self::must_close`].
    #[must_use]
    pub fn closes(&self, flow: &Flow, connection: &TlsStream) -> bool {
        self.draining.get()
            || self.standing_of(connection) != Standing::Good
            || self.mtls_of(flow) == Some(MtlsMode::Disable)
    }

    /// What the port demands that a connection came in by; `None` for those of the local app.
    fn mtls_of(&self, flow: &Flow) -> Option<MtlsMode> {
        let Direction::Inbound { port } = flow.direction else {
            return None;
        };
        let active = self.active.borrow();
        Some(active.as_ref()?.tables.workload.ports.get(port)?.mtls)
    }
}
