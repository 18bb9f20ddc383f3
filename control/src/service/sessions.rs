//! Who is connected, and what sessions tell.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ringmesh_wire::{
    AppHealth, Hello, NodeId, Registration, Reject, ResolvedName, Revision, Snapshot,
};
use tokio::sync::watch;

use super::control::Control;
use crate::compile::{Mode, NodePort, NodeScope};
use crate::publish::close;
use crate::registry::{Evidence, SessionId};
use crate::svid::unix_ms;

/// A connected sidecar.
pub(super) struct Connected {
    session: SessionId,
    /// Known once it has registered, or has had its chance to.
    pub(super) scope: Option<NodeScope>,
    pub(super) newest: watch::Sender<Option<Arc<Snapshot>>>,
    link: quinn::Connection,
    peer: SocketAddr,
    build: String,
    since_ms: u64,
    /// What it found the names of endpoints to lead to.
    names: Vec<ResolvedName>,
}

impl std::fmt::Debug for Connected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connected")
            .field("session", &self.session)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl Connected {
    pub(super) fn close(&self, code: u32, why: &str) {
        self.link.close(code.into(), why.as_bytes());
    }
}

/// One line of `ringmesh proxy list`.
#[derive(Debug, Clone)]
pub struct SessionInfo {
    /// What it holds.
    pub row: crate::publish::NodeRow,
    /// Its service.
    pub service: Option<ringmesh_wire::ServiceId>,
    /// Where it comes from.
    pub peer: SocketAddr,
    /// Its software.
    pub build: String,
    /// Connected since, milliseconds since 1970.
    pub since_ms: u64,
    /// Why no configuration could be compiled for it.
    pub compile_error: Option<String>,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The sidecar said that it leaves.
    Left,
    /// The link was closed by either side, the sidecar is alive.
    Closed,
    /// The link went silent.
    Lost,
}

/// What a session is to send next: the newest snapshot, once there is one.
pub(crate) type Newest = watch::Receiver<Option<Arc<Snapshot>>>;

impl Control {
    /// A sidecar said hello. Returns its session and where its newest configuration will appear.
    pub(crate) fn session_begins(
        &self,
        evidence: &Evidence,
        hello: &Hello,
        link: quinn::Connection,
    ) -> Result<(SessionId, Newest), Reject> {
        let (newest, seen) = watch::channel(None);
        let mut state = self.lock();
        // Under the lock that a revocation takes: its link may not have heard of it yet.
        if state.has_revoked(&evidence.serial) {
            return Err(Reject {
                code: "revoked".into(),
                message: "this certificate is revoked: join again with a new token".into(),
            });
        }
        state.sessions_ever += 1;
        let session = SessionId(state.sessions_ever);
        let node = evidence.node.clone();
        let connected = Connected {
            session,
            scope: None,
            newest,
            peer: link.remote_address(),
            link,
            build: hello.build.clone(),
            since_ms: unix_ms(SystemTime::now()),
            names: Vec::new(),
        };
        state.fanout.join(node.clone(), session);
        if let Some(old) = state.connected.insert(node, connected) {
            old.close(close::REPLACED, "a newer session of this node took over");
        }
        let count = i64::try_from(state.connected.len()).unwrap_or(i64::MAX);
        self.counters.sessions.set(count);
        Ok((session, seen))
    }

    /// The sidecar registers its workload; its ports also decide what it is sent.
    pub(crate) fn session_registers(
        &self,
        session: SessionId,
        evidence: &Evidence,
        registration: Registration,
    ) -> Result<(), Reject> {
        let now = self.now();
        let ports = registration.ports.iter().map(|port| NodePort {
            name: port.name.clone(),
            port: port.port,
            protocol: port.protocol,
        });
        let ports: Vec<NodePort> = ports.collect();
        let mut state = self.lock();
        if state
            .connected
            .get(&evidence.node)
            .is_none_or(|c| c.session != session)
        {
            // A newer session of the node took over meanwhile.
            return Ok(());
        }
        state
            .registry
            .register(session, evidence, registration, now)?;
        state.dirty.endpoints();
        drop(state);
        self.session_scope(session, evidence, ports);
        Ok(())
    }

    /// What the sidecar is sent is decided by these ports; none, where it has not registered.
    pub(crate) fn session_scope(
        &self,
        session: SessionId,
        evidence: &Evidence,
        ports: Vec<NodePort>,
    ) {
        let mut state = self.lock();
        let Some(connected) = state.connected.get_mut(&evidence.node) else {
            return;
        };
        if connected.session != session {
            return;
        }
        connected.scope = Some(NodeScope {
            node: evidence.node.clone(),
            service: evidence.attributes.service.clone(),
            labels: evidence.attributes.labels.clone(),
            ports,
            mode: Mode::Mesh,
        });
        state.dirty.node(evidence.node.clone());
        drop(state);
        self.changed.notify_one();
    }

    /// Its app went up or down.
    pub(crate) fn session_health(&self, session: SessionId, health: &AppHealth) {
        let mut state = self.lock();
        state.registry.health(session, health);
        state.dirty.endpoints();
        drop(state);
        self.changed.notify_one();
    }

    /// What it found the names of endpoints to lead to.
    pub(crate) fn session_names(
        &self,
        node: &NodeId,
        session: SessionId,
        names: Vec<ResolvedName>,
    ) {
        let mut state = self.lock();
        let connected = state.connected.get_mut(node);
        if let Some(connected) = connected.filter(|connected| connected.session == session) {
            connected.names = names;
        }
    }

    /// It holds `revision`.
    pub(crate) fn session_acks(&self, node: &NodeId, session: SessionId, revision: Revision) {
        self.lock().fanout.acked(node, session, revision);
        self.settle();
    }

    /// It refuses `revision`.
    pub(crate) fn session_nacks(
        &self,
        node: &NodeId,
        session: SessionId,
        revision: Revision,
        reason: String,
    ) {
        tracing::warn!(%node, %revision, reason, "a sidecar refused its configuration");
        self.counters.nacks.inc();
        self.lock().fanout.nacked(node, session, revision, reason);
        self.settle();
    }

    /// Its link ended.
    pub(crate) fn session_ends(&self, node: &NodeId, session: SessionId, ending: Ending) {
        let now = self.now();
        let mut state = self.lock();
        match ending {
            Ending::Left => state.registry.left(session, now),
            Ending::Closed => state.registry.closed(session, now),
            Ending::Lost => state.registry.lost(session, now),
        }
        state.fanout.leave(node, session);
        if state
            .connected
            .get(node)
            .is_some_and(|c| c.session == session)
        {
            state.connected.remove(node);
        }
        state.dirty.endpoints();
        let count = i64::try_from(state.connected.len()).unwrap_or(i64::MAX);
        self.counters.sessions.set(count);
        drop(state);
        self.changed.notify_one();
        self.settle();
    }

    /// Everyone connected.
    #[must_use]
    pub fn sessions(&self) -> Vec<SessionInfo> {
        let state = self.lock();
        let rows = state.fanout.rows().into_iter();
        rows.filter_map(|row| {
            let connected = state.connected.get(&row.node)?;
            Some(SessionInfo {
                service: connected.scope.as_ref().map(|s| s.service.clone()),
                peer: connected.peer,
                build: connected.build.clone(),
                since_ms: connected.since_ms,
                compile_error: state.compile_errors.get(&row.node).cloned(),
                row,
            })
        })
        .collect()
    }

    /// What `node` found the names of its endpoints to lead to; empty for one that does not say.
    #[must_use]
    pub fn resolved(&self, node: &NodeId) -> Vec<ResolvedName> {
        let state = self.lock();
        let connected = state.connected.get(node);
        connected.map_or(Vec::new(), |connected| connected.names.clone())
    }

    /// What `node` is meant to have.
    #[must_use]
    pub fn wanted(&self, node: &NodeId) -> Option<Arc<Snapshot>> {
        self.lock().fanout.wanted(node)
    }

    /// Every registration.
    #[must_use]
    pub fn endpoint_rows(&self) -> Vec<crate::registry::Row> {
        self.lock().registry.rows()
    }

    /// Whether the registry is frozen.
    #[must_use]
    pub fn frozen(&self) -> bool {
        self.lock().registry.frozen()
    }
}
