//! A control service for tests of the agent: certifies whoever asks, pushes what it is told to, and
//! tells what it sees. It can also misbehave.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer,
    CustomExtension, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use ringmesh_wire::codec;
use ringmesh_wire::frame::{self, HEADER_BYTES, Kind};
use ringmesh_wire::{
    ALPN_CONTROL, ATTRIBUTES_OID, Ack, AppHealth, Attributes, CONTROL_SERVER_NAME, Enroll, Hello,
    Issued, LogAck, LogBatch, Nack, Registration, Reject, Renew, Report, Revision, ServiceId,
    Snapshot, Welcome,
};
use rustls::crypto::aws_lc_rs;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

use super::verify::sha256;

type Ca = CertifiedIssuer<'static, KeyPair>;

/// What it saw.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Seen {
    Enrolled,
    /// Its answer was not sent: what the sidecar asked with.
    Unanswered(Enroll),
    Renewed,
    Hello(Hello),
    Registered(Registration),
    Health(AppHealth),
    Ack(Revision),
    Nack(Nack),
    Report(Report),
    Log(LogBatch),
    Closed(String),
}

/// How it behaves; read anew for every stream.
#[derive(Clone)]
pub(super) struct Manners {
    /// Life of the certificates it issues.
    pub(super) life: Duration,
    /// Pushed to every session.
    pub(super) snapshots: Vec<Snapshot>,
    /// Sent in place of a Welcome.
    pub(super) garbage: Option<Vec<u8>>,
    /// Every token is refused.
    pub(super) refuse_tokens: bool,
    /// What is issued for a token never arrives.
    pub(super) lose_answers: bool,
    /// Names of tokens that are refused as used.
    pub(super) used_tokens: Vec<String>,
    /// Whoever has not joined anew since is turned away.
    pub(super) turn_away: Option<TurnAway>,
}

/// How control turns away those whose certificates it does not want.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TurnAway {
    /// Their links are closed.
    Revoked,
    /// They are greeted, and refused when they register.
    Mismatch,
}

pub(super) struct FakeControl {
    pub(super) at: SocketAddr,
    pub(super) root: Vec<u8>,
    pub(super) manners: Arc<Mutex<Manners>>,
    ca: Arc<Ca>,
    seen: Receiver<Seen>,
    tell: Sender<Seen>,
    thread: Option<(
        tokio::sync::oneshot::Sender<()>,
        std::thread::JoinHandle<()>,
    )>,
}

impl FakeControl {
    pub(super) fn start() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let manners = Manners {
            life: Duration::from_secs(3_600),
            snapshots: Vec::new(),
            garbage: None,
            refuse_tokens: false,
            lose_answers: false,
            used_tokens: Vec::new(),
            turn_away: None,
        };
        let (tell, seen) = channel();
        let mut control = Self {
            at: "127.0.0.1:0".parse().unwrap(),
            root: ca.der().to_vec(),
            manners: Arc::new(Mutex::new(manners)),
            ca: Arc::new(ca),
            seen,
            tell,
            thread: None,
        };
        control.listen();
        control
    }

    pub(super) fn token(&self) -> String {
        self.token_named("id")
    }

    pub(super) fn token_named(&self, id: &str) -> String {
        let pin: String = sha256(&self.root)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        format!("{id}.secret.{pin}")
    }

    /// As after kill -9: what is under way is dropped, and nobody is told anything.
    pub(super) fn die(&mut self) {
        if let Some((stop, thread)) = self.thread.take() {
            let _ = stop.send(());
            thread.join().unwrap();
        }
    }

    /// Begins to listen, at the same address as before.
    pub(super) fn listen(&mut self) {
        let (ca, manners, tell) = (self.ca.clone(), self.manners.clone(), self.tell.clone());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let (bound, address) = channel();
        let at = self.at;
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let endpoint = Endpoint::server(server_config(&ca), at).unwrap();
                bound.send(endpoint.local_addr().unwrap()).unwrap();
                let accepting = async {
                    while let Some(incoming) = endpoint.accept().await {
                        let (ca, manners, tell) = (ca.clone(), manners.clone(), tell.clone());
                        tokio::spawn(async move {
                            if let Ok(connection) = incoming.await {
                                serve(connection, ca, manners, tell).await;
                            }
                        });
                    }
                };
                tokio::select! {
                    () = accepting => {}
                    _ = stopped => {}
                }
            });
        });
        self.at = address.recv().unwrap();
        self.thread = Some((stop, thread));
    }

    /// The next thing seen for which `pick` has a value.
    #[track_caller]
    /// What it has seen and nobody waited for.
    pub(super) fn drain(&self) -> impl Iterator<Item = Seen> {
        self.seen.try_iter()
    }

    pub(super) fn wait<T>(&self, what: &str, mut pick: impl FnMut(Seen) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.seen.recv_timeout(left) {
                Ok(seen) => {
                    if let Some(value) = pick(seen) {
                        return value;
                    }
                }
                Err(RecvTimeoutError::Timeout) => panic!("not seen in time: {what}"),
                Err(RecvTimeoutError::Disconnected) => panic!("control has ended"),
            }
        }
    }
}

impl Drop for FakeControl {
    fn drop(&mut self) {
        self.die();
    }
}

fn server_config(ca: &Ca) -> quinn::ServerConfig {
    let mut params = CertificateParams::new(vec![CONTROL_SERVER_NAME.to_owned()]).unwrap();
    let uri = "spiffe://mesh.local/control".try_into().unwrap();
    params.subject_alt_names.push(SanType::URI(uri));
    let key = KeyPair::generate().unwrap();
    let leaf = params.signed_by(&key, ca).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca.der().clone()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .unwrap();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(clients)
        .with_single_cert(vec![leaf.der().clone(), ca.der().clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![ALPN_CONTROL.to_vec()];
    quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()))
}

fn sign(ca: &Ca, csr: &[u8], uri: &str, life: Duration) -> Vec<Vec<u8>> {
    let csr = CertificateSigningRequestParams::from_der(&csr.into()).unwrap();
    let mut params = csr.params;
    let now = SystemTime::now();
    params.not_before = (now - Duration::from_secs(60)).into();
    params.not_after = (now + life).into();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
    let attributes = Attributes {
        service: ServiceId::new("s", "default"),
        labels: BTreeMap::new(),
    };
    params
        .custom_extensions
        .push(CustomExtension::from_oid_content(
            &ATTRIBUTES_OID,
            attributes.to_bytes().unwrap(),
        ));
    let signed = params.signed_by(&csr.public_key, ca).unwrap();
    vec![signed.der().to_vec()]
}

async fn serve(
    connection: Connection,
    ca: Arc<Ca>,
    manners: Arc<Mutex<Manners>>,
    tell: Sender<Seen>,
) {
    loop {
        tokio::select! {
            stream = connection.accept_bi() => match stream {
                Ok((send, recv)) => {
                    let (connection, manners) = (connection.clone(), manners.clone());
                    tokio::spawn(serve_stream(
                        connection, send, recv, ca.clone(), manners, tell.clone(),
                    ));
                }
                Err(error) => {
                    let _ = tell.send(Seen::Closed(error.to_string()));
                    return;
                }
            },
            Ok(mut recv) = connection.accept_uni() => {
                let tell = tell.clone();
                tokio::spawn(async move {
                    while let Some((_, payload)) = read(&mut recv).await {
                        let report: Report = codec::decode(&payload).unwrap();
                        let _ = tell.send(Seen::Report(report));
                    }
                });
            }
        }
    }
}

async fn serve_stream(
    connection: Connection,
    mut send: SendStream,
    mut recv: RecvStream,
    ca: Arc<Ca>,
    shared: Arc<Mutex<Manners>>,
    tell: Sender<Seen>,
) {
    let manners = shared.lock().unwrap().clone();
    while let Some((kind, payload)) = read(&mut recv).await {
        match kind {
            Kind::Enroll => {
                let request: Enroll = codec::decode(&payload).unwrap();
                let used = manners.used_tokens.contains(&request.token_id);
                if used || manners.refuse_tokens || request.token_secret != "secret" {
                    let (code, message) = ("token_used".into(), "make another".into());
                    write(&mut send, Kind::Reject, &Reject { code, message }).await;
                    continue;
                }
                if manners.lose_answers {
                    let _ = tell.send(Seen::Unanswered(request));
                    return;
                }
                let issued = issue(
                    &ca,
                    &request.workload_csr,
                    Some(&request.node_csr),
                    &manners,
                );
                shared.lock().unwrap().turn_away = None;
                write(&mut send, Kind::Issued, &issued).await;
                let _ = tell.send(Seen::Enrolled);
            }
            Kind::Renew => {
                let request: Renew = codec::decode(&payload).unwrap();
                let node = request.node_csr.as_deref();
                let issued = issue(&ca, &request.workload_csr, node, &manners);
                write(&mut send, Kind::Issued, &issued).await;
                let _ = tell.send(Seen::Renewed);
            }
            Kind::Hello => {
                if let Some(garbage) = &manners.garbage {
                    let _ = send.write_all(garbage).await;
                    continue;
                }
                let hello: Hello = codec::decode(&payload).unwrap();
                let have: BTreeMap<_, _> = hello.have.iter().cloned().collect();
                let _ = tell.send(Seen::Hello(hello));
                if manners.turn_away == Some(TurnAway::Revoked) {
                    connection.close(4_u32.into(), b"revoked: this certificate is revoked");
                    return;
                }
                let welcome = Welcome {
                    version: 1,
                    boot: 1,
                    lease_ms: 2_500,
                };
                write(&mut send, Kind::Welcome, &welcome).await;
                if manners.turn_away == Some(TurnAway::Mismatch) {
                    continue;
                }
                for snapshot in &manners.snapshots {
                    write(&mut send, Kind::Push, &snapshot.push_for(&have)).await;
                }
            }
            Kind::LogBatch => {
                let batch: LogBatch = codec::decode(&payload).unwrap();
                let next = batch.first + batch.lines.len() as u64;
                let _ = tell.send(Seen::Log(batch));
                write(&mut send, Kind::LogAck, &LogAck { next }).await;
            }
            Kind::Register => {
                let _ = tell.send(Seen::Registered(codec::decode(&payload).unwrap()));
                if manners.turn_away == Some(TurnAway::Mismatch) {
                    let code = "registration_mismatch".into();
                    let message = "service is another".into();
                    write(&mut send, Kind::Reject, &Reject { code, message }).await;
                }
            }
            Kind::AppHealth => {
                let _ = tell.send(Seen::Health(codec::decode(&payload).unwrap()));
            }
            Kind::Ack => {
                let ack: Ack = codec::decode(&payload).unwrap();
                let _ = tell.send(Seen::Ack(ack.revision));
            }
            Kind::Nack => {
                let _ = tell.send(Seen::Nack(codec::decode(&payload).unwrap()));
            }
            other => panic!("{other:?} was not expected"),
        }
    }
}

fn issue(ca: &Ca, workload: &[u8], node: Option<&[u8]>, manners: &Manners) -> Issued {
    let svid = "spiffe://mesh.local/ns/default/sa/s";
    let node_life = Duration::from_secs(90 * 86_400);
    Issued {
        workload_chain: sign(ca, workload, svid, manners.life),
        node_chain: node.map_or_else(Vec::new, |csr| {
            sign(ca, csr, "spiffe://mesh.local/node/n", node_life)
        }),
        roots: vec![ca.der().to_vec()],
    }
}

async fn write<T: serde::Serialize>(send: &mut SendStream, kind: Kind, message: &T) {
    let bytes = frame::seal(kind, Revision(0), &codec::encode(message).unwrap()).unwrap();
    let _ = send.write_all(&bytes).await;
}

async fn read(recv: &mut RecvStream) -> Option<(Kind, Vec<u8>)> {
    let mut head = [0; HEADER_BYTES];
    recv.read_exact(&mut head).await.ok()?;
    let header = frame::open_header(&head).unwrap();
    let mut payload = vec![0; header.payload_bytes];
    recv.read_exact(&mut payload).await.ok()?;
    header.verify(&payload).unwrap();
    Some((header.kind, payload))
}
