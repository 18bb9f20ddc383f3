//! Connections and their streams.
//!
//! Whoever comes without a certificate gets one [`Enroll`](ringmesh_wire::Enroll) answered and
//! little time for it. Bounds: [`LINKS_MAX`] links, [`STRANGERS_MAX`] of them without certificate,
//! streams and windows per link, a frame size per kind of peer.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use quinn::{Connection, ConnectionError, Endpoint, Incoming, RecvStream, SendStream, VarInt};
use ringmesh_wire::codec::Validate;
use ringmesh_wire::frame::Kind;
use ringmesh_wire::{
    CLOSE_LEAVING, Enroll, Hello, LeaseDown, LeaseUp, LogBatch, NodeId, Reject, Renew, Report,
    Revision,
};
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;

use super::close;
use super::frames::{LinkError, read_frame, take, write_frame};
use super::session;
use crate::registry::Evidence;
use crate::service::Control;
use crate::svid::{CaError, Peer, Purpose};

/// A link that is silent this long is gone. Sidecars speak every 500 ms: four may be lost.
pub const IDLE_TIMEOUT: Duration = Duration::from_millis(2_200);
/// Links at once.
pub const LINKS_MAX: usize = 20_000;
/// Links without a certificate at once.
pub const STRANGERS_MAX: usize = 256;
/// Time such a link has in all.
const STRANGER_TIME: Duration = Duration::from_secs(10);
/// Largest frame of such a link: an Enroll is two signing requests.
const STRANGER_FRAME_BYTES_MAX: usize = 64 * 1024;
/// Largest frame of a sidecar: the Hello of one that holds 30,000 sections.
pub(super) const SIDECAR_FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Streams of each kind a sidecar may have open.
const STREAMS_MAX: u32 = 16;
/// Bytes a link may have sent that we have not read.
const RECEIVE_WINDOW_BYTES: u32 = 2 * 1024 * 1024;
/// Quota messages that may wait for their authority, per link and direction.
const LEASE_QUEUE_MAX: usize = 256;

/// Where quota leases are dealt with. `control/lease` implements it.
pub trait LeaseDoor: std::fmt::Debug + Send + Sync {
    /// A sidecar opened its lease stream. Runs until the stream or the authority ends; must not
    /// block.
    fn opened(&self, link: LeaseLink);
}

/// A sidecar's lease stream, as two queues. Dropping either ends the stream.
#[derive(Debug)]
pub struct LeaseLink {
    /// Who.
    pub node: NodeId,
    /// What it says, in order; ends with the stream.
    pub up: mpsc::Receiver<LeaseUp>,
    /// What to tell it. Full: it does not read; drop the link rather than wait.
    pub down: mpsc::Sender<LeaseDown>,
}

/// Binds the mesh link.
///
/// # Errors
/// Where the address cannot be bound or the CA cannot sign.
pub fn bind(control: &Control, address: SocketAddr) -> Result<Endpoint, CaError> {
    Endpoint::server(link_config(control)?, address).map_err(|source| CaError::File {
        path: format!("listening on {address} (UDP)"),
        source,
    })
}

/// How links are taken: by the certificates of now.
fn link_config(control: &Control) -> Result<quinn::ServerConfig, CaError> {
    let tls = super::server_config(control.issuer())?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(tls));
    let mut transport = quinn::TransportConfig::default();
    let idle = VarInt::from_u32(u32::try_from(IDLE_TIMEOUT.as_millis()).unwrap_or(u32::MAX));
    transport
        .max_idle_timeout(Some(idle.into()))
        .max_concurrent_bidi_streams(STREAMS_MAX.into())
        .max_concurrent_uni_streams(STREAMS_MAX.into())
        .receive_window(RECEIVE_WINDOW_BYTES.into())
        .stream_receive_window((RECEIVE_WINDOW_BYTES / 2).into())
        .datagram_receive_buffer_size(None);
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// Serves the link until the endpoint is closed.
pub async fn serve(control: Arc<Control>, endpoint: Endpoint, lease: Option<Arc<dyn LeaseDoor>>) {
    let strangers = Arc::new(Semaphore::new(STRANGERS_MAX));
    let mut roots = control.roots_changed();
    loop {
        let incoming = tokio::select! {
            incoming = endpoint.accept() => incoming,
            changed = roots.changed() => {
                // Links that stand are not touched.
                match changed.map(|()| link_config(&control)) {
                    Ok(Ok(config)) => endpoint.set_server_config(Some(config)),
                    Ok(Err(error)) => tracing::error!(%error, "links go on under the old roots"),
                    Err(_) => {}
                }
                continue;
            }
        };
        let Some(incoming) = incoming else { return };
        if endpoint.open_connections() >= LINKS_MAX {
            control.counters().refused("links_max");
            incoming.refuse();
            continue;
        }
        // Under load an address must be shown to be real before we do TLS for it.
        if endpoint.open_connections() >= LINKS_MAX / 2 && !incoming.remote_address_validated() {
            let _ = incoming.retry();
            continue;
        }
        let (control, strangers) = (Arc::clone(&control), Arc::clone(&strangers));
        let lease = lease.clone();
        tokio::spawn(async move { link(control, incoming, strangers, lease).await });
    }
}

async fn link(
    control: Arc<Control>,
    incoming: Incoming,
    strangers: Arc<Semaphore>,
    lease: Option<Arc<dyn LeaseDoor>>,
) {
    let from = incoming.remote_address();
    let connection = match incoming.await {
        Ok(connection) => connection,
        Err(error) => {
            tracing::debug!(%from, %error, "a handshake failed");
            control.counters().refused("handshake");
            return;
        }
    };
    let Some(chain) = connection.peer_identity() else {
        let Ok(_place) = strangers.try_acquire() else {
            control.counters().refused("strangers_max");
            connection.close(
                close::BUSY.into(),
                b"busy: too many are joining, come again",
            );
            return;
        };
        let served = tokio::time::timeout(STRANGER_TIME, stranger(&control, &connection)).await;
        match served {
            Ok(result) => end(&control, &connection, &result),
            Err(_) => {
                control.counters().refused("stranger_timeout");
                connection.close(
                    close::PROTOCOL.into(),
                    b"stranger_timeout: only Enroll is served",
                );
            }
        }
        return;
    };
    let leaf = chain
        .downcast::<Vec<rustls_pki_types::CertificateDer<'static>>>()
        .ok()
        .and_then(|chain| chain.first().cloned());
    let peer = leaf.map(|leaf| Peer::from_der(&leaf));
    let Some(Ok(peer)) = peer else {
        control.counters().refused("identity");
        connection.close(
            close::IDENTITY.into(),
            b"identity: not a sidecar's certificate",
        );
        return;
    };
    // Before it is asked for the first time, so that none is missed.
    let mut revocations = control.revocations();
    let sidecar = Sidecar {
        control: Arc::clone(&control),
        connection: connection.clone(),
        peer: Arc::new(peer),
        lease,
    };
    let mut served = pin!(sidecar.run());
    while !control.is_revoked(&sidecar.peer.serial) {
        tokio::select! {
            result = served.as_mut() => return end(&control, &connection, &result),
            _ = revocations.changed() => {}
        }
    }
    // Every link of the node ends, whether it has a session or not; what it served is dropped with it.
    control.counters().refused("revoked");
    connection.close(
        close::IDENTITY.into(),
        b"revoked: this certificate is revoked",
    );
}

/// Closes the link of a peer that broke the protocol, and counts it.
fn end(control: &Control, connection: &Connection, result: &Result<(), LinkError>) {
    if let Err(error) = result
        && let Some(code) = error.code()
    {
        tracing::warn!(from = %connection.remote_address(), code, %error, "mesh link closed");
        control.counters().refused(code);
        let reason = format!("{code}: {error}");
        let bytes = reason.as_bytes();
        connection.close(close::PROTOCOL.into(), bytes.get(..200).unwrap_or(bytes));
    }
}

/// Serves one Enroll.
async fn stranger(control: &Arc<Control>, connection: &Connection) -> Result<(), LinkError> {
    loop {
        let Ok((mut send, mut recv)) = connection.accept_bi().await else {
            return Ok(());
        };
        let Some((header, payload)) = read_frame(&mut recv, STRANGER_FRAME_BYTES_MAX).await? else {
            return Err(LinkError::Unexpected("a stream without a message"));
        };
        if header.kind != Kind::Enroll {
            let reject = Reject {
                code: "certificate_required".into(),
                message: "without a certificate only Enroll is served".into(),
            };
            control.counters().reject(&reject.code);
            reply_reject(&mut send, &reject).await?;
            continue;
        }
        let request: Enroll = take(&header, Kind::Enroll, &payload)?;
        let node = request.node.clone();
        let worker = Arc::clone(control);
        let issued = blocking(move || worker.issuer().enroll(&request, SystemTime::now())).await?;
        if issued.is_ok() {
            tracing::info!(%node, "joined");
        }
        reply_issued(control, &mut send, &node, issued).await?;
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, LinkError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|_| LinkError::Gone)
}

async fn reply_issued(
    control: &Control,
    send: &mut SendStream,
    node: &NodeId,
    issued: Result<ringmesh_wire::Issued, crate::svid::Refusal>,
) -> Result<(), LinkError> {
    match issued {
        Ok(issued) => {
            control.counters().certificates_issued.inc();
            write_frame(send, Kind::Issued, Revision(0), &issued).await?;
            let _ = send.finish();
            Ok(())
        }
        Err(refusal) => {
            tracing::warn!(%node, code = refusal.code, "no certificate: {}", refusal.message);
            control.counters().reject(refusal.code);
            reply_reject(send, &refusal.into()).await
        }
    }
}

pub(super) async fn reply_reject(send: &mut SendStream, reject: &Reject) -> Result<(), LinkError> {
    write_frame(send, Kind::Reject, Revision(0), reject).await?;
    let _ = send.finish();
    Ok(())
}

/// A link whose peer showed a certificate of ours.
struct Sidecar {
    control: Arc<Control>,
    connection: Connection,
    peer: Arc<Peer>,
    lease: Option<Arc<dyn LeaseDoor>>,
}

impl Sidecar {
    /// Serves all streams until the link ends or one of them breaks the protocol.
    async fn run(&self) -> Result<(), LinkError> {
        let mut streams = JoinSet::new();
        loop {
            tokio::select! {
                bidi = self.connection.accept_bi() => {
                    let Ok((send, recv)) = bidi else { return Ok(()) };
                    streams.spawn(self.part().bidi(send, recv));
                }
                uni = self.connection.accept_uni() => {
                    let Ok(recv) = uni else { return Ok(()) };
                    streams.spawn(self.part().reports(recv));
                }
                Some(ended) = streams.join_next() => {
                    if let Ok(Err(error)) = ended
                        && error.code().is_some()
                    {
                        return Err(error);
                    }
                }
            }
        }
    }

    fn part(&self) -> Self {
        Self {
            control: Arc::clone(&self.control),
            connection: self.connection.clone(),
            peer: Arc::clone(&self.peer),
            lease: self.lease.clone(),
        }
    }

    async fn bidi(self, mut send: SendStream, mut recv: RecvStream) -> Result<(), LinkError> {
        let Some((header, payload)) = read_frame(&mut recv, SIDECAR_FRAME_BYTES_MAX).await? else {
            return Err(LinkError::Unexpected("a stream without a message"));
        };
        match header.kind {
            Kind::Renew => {
                let request: Renew = take(&header, Kind::Renew, &payload)?;
                let (worker, peer) = (Arc::clone(&self.control), Arc::clone(&self.peer));
                let renewed =
                    blocking(move || worker.issuer().renew(&request, &peer, SystemTime::now()));
                reply_issued(&self.control, &mut send, &self.peer.node, renewed.await?).await
            }
            Kind::Enroll => {
                // A sidecar with a token joins anew, whatever it still holds.
                let request: Enroll = take(&header, Kind::Enroll, &payload)?;
                let worker = Arc::clone(&self.control);
                let issued =
                    blocking(move || worker.issuer().enroll(&request, SystemTime::now())).await?;
                reply_issued(&self.control, &mut send, &self.peer.node, issued).await
            }
            Kind::Hello => {
                let hello: Hello = take(&header, Kind::Hello, &payload)?;
                let Some(evidence) = self.evidence() else {
                    return self.svid_required(&mut send).await;
                };
                session::run(&self.control, &self.connection, evidence, hello, send, recv).await
            }
            Kind::LogBatch => {
                let first: LogBatch = take(&header, Kind::LogBatch, &payload)?;
                self.logs(first, send, recv).await
            }
            Kind::LeaseUp => {
                let first: LeaseUp = take(&header, Kind::LeaseUp, &payload)?;
                if self.evidence().is_none() {
                    return self.svid_required(&mut send).await;
                }
                self.leases(first, send, recv).await
            }
            _ => Err(LinkError::Unexpected("no stream begins with this message")),
        }
    }

    fn evidence(&self) -> Option<Evidence> {
        match &self.peer.purpose {
            Purpose::Workload { attributes } => Some(Evidence {
                serial: self.peer.serial.clone(),
                node: self.peer.node.clone(),
                id: self.peer.id.clone(),
                attributes: attributes.clone(),
                local: self
                    .connection
                    .remote_address()
                    .ip()
                    .to_canonical()
                    .is_loopback(),
            }),
            Purpose::Node => None,
        }
    }

    async fn svid_required(&self, send: &mut SendStream) -> Result<(), LinkError> {
        let reject = Reject {
            code: "svid_required".into(),
            message: "a node credential is good for Renew only: renew first".into(),
        };
        self.control.counters().reject(&reject.code);
        reply_reject(send, &reject).await
    }

    /// The node a message speaks for must be the one in the certificate.
    fn own(&self, node: &NodeId) -> Result<(), LinkError> {
        if *node == self.peer.node {
            Ok(())
        } else {
            Err(LinkError::Unexpected(
                "a message in the name of another node",
            ))
        }
    }

    async fn reports(self, mut recv: RecvStream) -> Result<(), LinkError> {
        while let Some(report) = next::<Report>(&mut recv, Kind::Report).await? {
            self.own(&report.node)?;
            let refused = self.control.series().take(report, Instant::now());
            for (why, count) in refused {
                self.control.counters().refuse_series(why.code(), count);
            }
        }
        Ok(())
    }

    async fn logs(
        self,
        first: LogBatch,
        mut send: SendStream,
        mut recv: RecvStream,
    ) -> Result<(), LinkError> {
        let mut batch = Some(first);
        while let Some(records) = batch {
            self.own(&records.node)?;
            let worker = Arc::clone(&self.control);
            match blocking(move || worker.log().append(&records)).await? {
                Ok(ack) => write_frame(&mut send, Kind::LogAck, Revision(0), &ack).await?,
                Err(error) => {
                    // Not acknowledged: the sidecar keeps the records and sends them again.
                    tracing::error!(%error, "the access log cannot be written");
                    return Err(LinkError::Gone);
                }
            }
            batch = next::<LogBatch>(&mut recv, Kind::LogBatch).await?;
        }
        Ok(())
    }

    async fn leases(
        self,
        first: LeaseUp,
        mut send: SendStream,
        mut recv: RecvStream,
    ) -> Result<(), LinkError> {
        let Some(door) = &self.lease else {
            let reject = Reject {
                code: "no_quota_authority".into(),
                message: "this control service has no quota authority".into(),
            };
            return reply_reject(&mut send, &reject).await;
        };
        let (up, up_end) = mpsc::channel(LEASE_QUEUE_MAX);
        let (down_end, mut down) = mpsc::channel::<LeaseDown>(LEASE_QUEUE_MAX);
        if up.send(first).await.is_err() {
            return Err(LinkError::Gone);
        }
        door.opened(LeaseLink {
            node: self.peer.node.clone(),
            up: up_end,
            down: down_end,
        });
        let reader = async {
            while let Some(message) = next::<LeaseUp>(&mut recv, Kind::LeaseUp).await? {
                if up.send(message).await.is_err() {
                    break;
                }
            }
            Ok(())
        };
        let writer = async {
            while let Some(message) = down.recv().await {
                write_frame(&mut send, Kind::LeaseDown, Revision(0), &message).await?;
            }
            Ok(())
        };
        tokio::select! {
            ended = reader => ended,
            ended = writer => ended,
        }
    }
}

async fn next<T: DeserializeOwned + Validate>(
    recv: &mut RecvStream,
    kind: Kind,
) -> Result<Option<T>, LinkError> {
    let Some((header, payload)) = read_frame(recv, SIDECAR_FRAME_BYTES_MAX).await? else {
        return Ok(None);
    };
    take(&header, kind, &payload).map(Some)
}

/// How a link ended, for the registry.
pub(super) fn ending(error: &ConnectionError) -> crate::service::Ending {
    use crate::service::Ending;
    match error {
        ConnectionError::ApplicationClosed(by_peer)
            if by_peer.error_code == VarInt::from_u32(CLOSE_LEAVING) =>
        {
            Ending::Left
        }
        ConnectionError::ApplicationClosed(_) | ConnectionError::LocallyClosed => Ending::Closed,
        _ => Ending::Lost,
    }
}
