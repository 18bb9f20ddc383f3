//! One sidecar's session stream (`wire::v1::session` has the picture).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, RecvStream, SendStream};
use ringmesh_wire::frame::{self, Header, Kind};
use ringmesh_wire::{
    Ack, AppHealth, Hello, Nack, Registration, Reject, Resolved, Revision, SCHEMA_VERSION,
    SCHEMA_VERSION_MIN, SectionHash, SectionKey, Snapshot, Welcome, codec,
};
use tokio::sync::{mpsc, watch};

use super::frames::{LinkError, read_frame, take, write_frame};
use super::link::{SIDECAR_FRAME_BYTES_MAX, ending, reply_reject};
use crate::registry::{Evidence, SessionId};
use crate::service::{Control, Ending};

/// A sidecar that has ports registers right after the Welcome. One that has none never does: it
/// gets its configuration after this.
const REGISTRATION_GRACE: Duration = Duration::from_millis(500);
/// Messages read ahead.
const READ_AHEAD: usize = 4;

/// What a sidecar holds: the base of the next push.
type Have = BTreeMap<SectionKey, SectionHash>;

/// Runs a session from its Hello to its end.
pub(super) async fn run(
    control: &Arc<Control>,
    connection: &Connection,
    evidence: Evidence,
    hello: Hello,
    mut send: SendStream,
    recv: RecvStream,
) -> Result<(), LinkError> {
    let begun = greet(&evidence, &hello)
        .and_then(|()| control.session_begins(&evidence, &hello, connection.clone()));
    let (id, newest) = match begun {
        Ok(begun) => begun,
        Err(reject) => {
            tracing::warn!(node = %evidence.node, code = reject.code, "session refused: {}", reject.message);
            control.counters().reject(&reject.code);
            return reply_reject(&mut send, &reject).await;
        }
    };
    // However this ends, also by being dropped with the link, the registry hears of it.
    let guard = Leaver {
        control: Arc::clone(control),
        connection: connection.clone(),
        node: evidence.node.clone(),
        id,
    };
    tracing::info!(node = %evidence.node, from = %connection.remote_address(), "session");
    let version = hello.version_max.min(SCHEMA_VERSION);
    let welcome = Welcome {
        version,
        boot: control.boot(),
        lease_ms: u32::try_from(control.lease().as_millis()).unwrap_or(u32::MAX),
    };
    write_frame(&mut send, Kind::Welcome, Revision(0), &welcome).await?;
    let session = Session {
        control: Arc::clone(control),
        id,
        evidence,
        have: hello.have.into_iter().collect(),
        outstanding: None,
        sent: Revision(0),
        registered: false,
        version,
    };
    let result = session.talk(send, recv, newest).await;
    drop(guard);
    result
}

fn greet(evidence: &Evidence, hello: &Hello) -> Result<(), Reject> {
    if hello
        .negotiate(SCHEMA_VERSION_MIN, SCHEMA_VERSION)
        .is_none()
    {
        return Err(Reject {
            code: "version_mismatch".into(),
            message: format!(
                "the sidecar reads schema versions {} to {}, control {SCHEMA_VERSION_MIN} to \
                 {SCHEMA_VERSION}: update the older of the two",
                hello.version_min, hello.version_max
            ),
        });
    }
    if hello.node != evidence.node {
        return Err(Reject {
            code: "node_mismatch".into(),
            message: format!(
                "the sidecar calls itself {}, but its certificate is for {}",
                hello.node, evidence.node
            ),
        });
    }
    Ok(())
}

/// Tells the end of the session.
struct Leaver {
    control: Arc<Control>,
    connection: Connection,
    node: ringmesh_wire::NodeId,
    id: SessionId,
}

impl Drop for Leaver {
    fn drop(&mut self) {
        let reason = self.connection.close_reason();
        // The stream ended and the link stands, or control itself closes it: the sidecar lives.
        let how = reason.as_ref().map_or(Ending::Closed, ending);
        tracing::info!(node = %self.node, ?how, reason = ?reason.map(|r| r.to_string()), "session ended");
        self.control.session_ends(&self.node, self.id, how);
    }
}

struct Session {
    control: Arc<Control>,
    id: SessionId,
    evidence: Evidence,
    have: Have,
    /// Sent and not answered.
    outstanding: Option<Arc<Snapshot>>,
    /// Newest that was sent.
    sent: Revision,
    registered: bool,
    /// Schema version both sides read.
    version: u16,
}

impl Session {
    async fn talk(
        mut self,
        mut send: SendStream,
        mut recv: RecvStream,
        mut newest: watch::Receiver<Option<Arc<Snapshot>>>,
    ) -> Result<(), LinkError> {
        // Reading a frame is not cancel-safe, so it has a task of its own; dropped, it ends.
        let (tell, mut told) = mpsc::channel(READ_AHEAD);
        let reader = async move {
            loop {
                let frame = read_frame(&mut recv, SIDECAR_FRAME_BYTES_MAX).await;
                let last = !matches!(frame, Ok(Some(_)));
                if tell.send(frame).await.is_err() || last {
                    return;
                }
            }
        };
        tokio::pin!(reader);
        let mut reading = true;
        let grace = tokio::time::sleep(REGISTRATION_GRACE);
        tokio::pin!(grace);
        loop {
            tokio::select! {
                () = &mut reader, if reading => reading = false,
                frame = told.recv() => match frame {
                    Some(Ok(Some((header, payload)))) => {
                        if let Some(reject) = self.hear(&header, &payload)? {
                            return reply_reject(&mut send, &reject).await;
                        }
                    }
                    Some(Ok(None)) | None => return Ok(()),
                    Some(Err(error)) => return Err(error),
                },
                changed = newest.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                () = &mut grace, if !self.registered => {
                    self.registered = true;
                    self.control.session_scope(self.id, &self.evidence, Vec::new());
                }
            }
            if self.outstanding.is_none() {
                let snapshot = newest.borrow_and_update().clone();
                if let Some(snapshot) = snapshot.filter(|s| s.revision > self.sent) {
                    self.push(&mut send, snapshot).await?;
                }
            }
        }
    }

    async fn push(
        &mut self,
        send: &mut SendStream,
        snapshot: Arc<Snapshot>,
    ) -> Result<(), LinkError> {
        let snapshot = match snapshot.schema() > self.version {
            true => {
                tracing::warn!(
                    node = %self.evidence.node, version = self.version,
                    "this sidecar is too old for endpoints by name: it answers 503 for services that \
                     have no others; update it"
                );
                Arc::new(snapshot.for_version(self.version))
            }
            false => snapshot,
        };
        let push = snapshot.push_for(&self.have);
        let revision = snapshot.revision;
        self.sent = revision;
        let bytes = codec::encode(&push)
            .and_then(|b| frame::seal_as(push.schema(), Kind::Push, revision, &b));
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(error) => {
                // The sidecar keeps what it has; the operator sees why.
                let why = format!("control cannot send it: {error}");
                self.control
                    .session_nacks(&self.evidence.node, self.id, revision, why);
                return Ok(());
            }
        };
        self.control.counters().pushes.inc();
        self.control
            .counters()
            .push_bytes
            .inc_by(bytes.len() as u64);
        send.write_all(&bytes).await.map_err(|_| LinkError::Gone)?;
        self.outstanding = Some(snapshot);
        Ok(())
    }

    /// Takes one message; returns a refusal that ends the session.
    fn hear(&mut self, header: &Header, payload: &[u8]) -> Result<Option<Reject>, LinkError> {
        match header.kind {
            Kind::Register => {
                let registration: Registration = take(header, Kind::Register, payload)?;
                self.registered = true;
                let refused = self
                    .control
                    .session_registers(self.id, &self.evidence, registration);
                if let Err(reject) = refused {
                    tracing::warn!(
                        node = %self.evidence.node, code = reject.code,
                        "registration refused: {}", reject.message
                    );
                    self.control.counters().reject(&reject.code);
                    return Ok(Some(reject));
                }
            }
            Kind::AppHealth => {
                let health: AppHealth = take(header, Kind::AppHealth, payload)?;
                self.control.session_health(self.id, &health);
            }
            // Only of a sidecar whose version has it.
            Kind::Resolved if self.version >= Kind::Resolved.since() => {
                let resolved: Resolved = take(header, Kind::Resolved, payload)?;
                self.control
                    .session_names(&self.evidence.node, self.id, resolved.names);
            }
            Kind::Ack => {
                let ack: Ack = take(header, Kind::Ack, payload)?;
                let snapshot = self.answered(ack.revision)?;
                self.have = snapshot.order().into_iter().collect();
                self.control
                    .session_acks(&self.evidence.node, self.id, ack.revision);
            }
            Kind::Nack => {
                let nack: Nack = take(header, Kind::Nack, payload)?;
                self.answered(nack.revision)?;
                let reason = nack.reason.chars().take(1_000).collect();
                self.control
                    .session_nacks(&self.evidence.node, self.id, nack.revision, reason);
            }
            _ => {
                return Err(LinkError::Unexpected(
                    "a message that does not belong on a session stream",
                ));
            }
        }
        Ok(None)
    }

    fn answered(&mut self, revision: Revision) -> Result<Arc<Snapshot>, LinkError> {
        let unexpected = LinkError::Unexpected("an answer to a push that is not under way");
        match self.outstanding.take() {
            Some(snapshot) if snapshot.revision == revision => Ok(snapshot),
            _ => Err(unexpected),
        }
    }
}
