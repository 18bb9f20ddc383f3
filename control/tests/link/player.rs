//! A control service in this process, and a sidecar that says what a test wants it to say.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use rcgen::{CertificateParams, KeyPair};
use ringmesh_control::publish::{self, read_frame};
use ringmesh_control::registry::Guards;
use ringmesh_control::service::{Control, Settings, plan};
use ringmesh_control::store::{Binding, Disk};
use ringmesh_control::svid::{JoinToken, Lives, Passphrase};
use ringmesh_wire::codec::{self, Validate};
use ringmesh_wire::frame::{self, Header, Kind};
use ringmesh_wire::session::RegisteredPort;
use ringmesh_wire::snapshot::Protocol;
use ringmesh_wire::{
    ALPN_CONTROL, CONTROL_SERVER_NAME, Enroll, Hello, Issued, NodeId, Registration, Reject,
    Revision, ServiceId, Welcome,
};
use rustls::RootCertStore;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Longest a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running control service.
pub(crate) struct House {
    pub(crate) control: Arc<Control>,
    pub(crate) address: SocketAddr,
    endpoint: Endpoint,
    tasks: tokio::task::JoinSet<()>,
    pub(crate) settings: Settings,
    _dir: Option<tempfile::TempDir>,
}

pub(crate) fn settings(dir: &std::path::Path) -> Settings {
    Settings {
        data_dir: dir.to_owned(),
        trust_domain: "mesh.local".into(),
        lives: Lives::default(),
        guards: Guards::default(),
        ca: None,
        ca_passphrase: Passphrase::default(),
    }
}

impl House {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut house = Self::open(settings(dir.path()));
        house._dir = Some(dir);
        house
    }

    /// Its data lives as long as it does.
    pub(crate) fn keep(&mut self, dir: Option<tempfile::TempDir>) {
        self._dir = dir;
    }

    pub(crate) fn open(settings: Settings) -> Self {
        let control = Control::start(&settings).unwrap();
        let endpoint = publish::bind(&control, "127.0.0.1:0".parse().unwrap()).unwrap();
        let address = endpoint.local_addr().unwrap();
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(publish::serve(Arc::clone(&control), endpoint.clone(), None));
        tasks.spawn(plan::run(Arc::clone(&control)));
        Self {
            control,
            address,
            endpoint,
            tasks,
            settings,
            _dir: None,
        }
    }

    /// Ends it without a word, as a kill would: what is on disk is all that is left.
    pub(crate) async fn kill(mut self) -> (Settings, Option<tempfile::TempDir>) {
        self.tasks.shutdown().await;
        self.endpoint.close(0_u32.into(), b"");
        let (settings, dir) = (self.settings.clone(), self._dir.take());
        drop(self);
        // The store's file is locked until the last task of a link lets go of it.
        let store = settings.data_dir.join("store.redb");
        until("the old service is gone", || Disk::open(&store).is_ok()).await;
        (settings, dir)
    }

    pub(crate) fn token(&self, node: &str, service: &str) -> JoinToken {
        let binding = Binding {
            node: NodeId(node.into()),
            namespace: "default".into(),
            service_account: service.into(),
            service: service.into(),
            labels: labels(),
        };
        let day = Duration::from_secs(86_400);
        let issuer = self.control.issuer();
        issuer
            .create_token(binding, day, "test", SystemTime::now())
            .unwrap()
    }

    pub(crate) fn root(&self) -> Vec<u8> {
        self.control.issuer().ca().root_der().to_vec()
    }

    /// A link with these credentials, or none.
    pub(crate) async fn link(&self, identity: Option<&Identity>) -> Result<Connection, String> {
        let keep_alive = Some(Duration::from_millis(500));
        self.link_with(identity, keep_alive).await
    }

    pub(crate) async fn link_with(
        &self,
        identity: Option<&Identity>,
        keep_alive: Option<Duration>,
    ) -> Result<Connection, String> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(self.root())).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots);
        let mut tls = match identity {
            Some(identity) => {
                let chain = identity.chain.iter().cloned().map(CertificateDer::from);
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(identity.key.clone()));
                builder.with_client_auth_cert(chain.collect(), key).unwrap()
            }
            None => builder.with_no_client_auth(),
        };
        tls.alpn_protocols = vec![ALPN_CONTROL.to_vec()];
        let mut config =
            quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let mut transport = quinn::TransportConfig::default();
        transport.keep_alive_interval(keep_alive);
        config.transport_config(Arc::new(transport));
        let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let connecting = endpoint
            .connect_with(config, self.address, CONTROL_SERVER_NAME)
            .map_err(|e| e.to_string())?;
        connecting.await.map_err(|e| e.to_string())
    }

    /// Joins as `node` of `service`.
    pub(crate) async fn join(&self, node: &str, service: &str) -> Joined {
        let token = self.token(node, service);
        self.enroll(&token, node).await.unwrap()
    }

    pub(crate) async fn enroll(&self, token: &JoinToken, node: &str) -> Result<Joined, Reject> {
        let link = self.link(None).await.unwrap();
        let (workload_key, workload_csr) = key_and_csr();
        let (node_key, node_csr) = key_and_csr();
        let request = Enroll {
            token_id: token.id.clone(),
            token_secret: token.secret.clone(),
            node: NodeId(node.into()),
            workload_csr,
            node_csr,
        };
        let issued: Issued = ask(&link, Kind::Enroll, &request, Kind::Issued).await?;
        Ok(Joined {
            node: node.to_owned(),
            workload: Identity {
                chain: issued.workload_chain,
                key: workload_key,
            },
            credential: Identity {
                chain: issued.node_chain,
                key: node_key,
            },
        })
    }
}

pub(crate) fn labels() -> BTreeMap<String, String> {
    BTreeMap::from([("version".to_owned(), "v1".to_owned())])
}

/// A certificate chain and its key.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) chain: Vec<Vec<u8>>,
    pub(crate) key: Vec<u8>,
}

/// What joining gave.
pub(crate) struct Joined {
    pub(crate) node: String,
    pub(crate) workload: Identity,
    pub(crate) credential: Identity,
}

pub(crate) fn key_and_csr() -> (Vec<u8>, Vec<u8>) {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    (key.serialize_der(), csr.der().to_vec())
}

/// Sends one message on a stream of its own and reads one answer.
pub(crate) async fn ask<Q: Serialize, A: DeserializeOwned + Validate>(
    link: &Connection,
    kind: Kind,
    question: &Q,
    answer: Kind,
) -> Result<A, Reject> {
    let (mut send, mut recv) = link.open_bi().await.unwrap();
    say(&mut send, kind, question).await;
    let (header, payload) = hear(&mut recv).await.expect("an answer");
    if header.kind == Kind::Reject {
        return Err(codec::decode(&payload).unwrap());
    }
    assert_eq!(header.kind, answer);
    Ok(codec::decode(&payload).unwrap())
}

pub(crate) async fn say<T: Serialize>(send: &mut SendStream, kind: Kind, value: &T) {
    let bytes = frame::seal(kind, Revision(0), &codec::encode(value).unwrap()).unwrap();
    send.write_all(&bytes).await.unwrap();
}

/// The next frame; `None` at the end of the stream or link.
pub(crate) async fn hear(recv: &mut RecvStream) -> Option<(Header, Vec<u8>)> {
    let frame = tokio::time::timeout(PATIENCE, read_frame(recv, 16 << 20)).await;
    frame.expect("a message in time").ok().flatten()
}

/// A session stream.
pub(crate) struct Session {
    pub(crate) link: Connection,
    pub(crate) send: SendStream,
    pub(crate) recv: RecvStream,
}

impl House {
    /// Opens a link and says hello.
    pub(crate) async fn session(&self, joined: &Joined) -> Session {
        let link = self.link(Some(&joined.workload)).await.unwrap();
        let mut session = greet(link, &hello(&joined.node)).await;
        let _: Welcome = session.expect(Kind::Welcome).await;
        session
    }
}

pub(crate) async fn greet(link: Connection, hello: &Hello) -> Session {
    let (mut send, recv) = link.open_bi().await.unwrap();
    say(&mut send, Kind::Hello, hello).await;
    Session { link, send, recv }
}

impl Session {
    pub(crate) async fn say<T: Serialize>(&mut self, kind: Kind, value: &T) {
        say(&mut self.send, kind, value).await;
    }

    pub(crate) async fn expect<T: DeserializeOwned + Validate>(&mut self, kind: Kind) -> T {
        let (header, payload) = hear(&mut self.recv).await.expect("a message");
        if header.kind == Kind::Reject && kind != Kind::Reject {
            let reject: Reject = codec::decode(&payload).unwrap();
            panic!("refused: {} {}", reject.code, reject.message);
        }
        assert_eq!(header.kind, kind);
        codec::decode(&payload).unwrap()
    }
}

pub(crate) fn hello(node: &str) -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        node: NodeId(node.into()),
        boot: 7,
        build: "test".into(),
        revision: Revision(0),
        have: Vec::new(),
    }
}

pub(crate) fn registration(service: &str) -> Registration {
    Registration {
        service: ServiceId::new(service, "default"),
        service_account: service.into(),
        labels: labels(),
        address: IpAddr::from([127, 0, 0, 1]),
        mesh_port: 15_008,
        ports: vec![RegisteredPort {
            name: "http".into(),
            port: 9_080,
            app_port: 9_080,
            protocol: Protocol::Http1,
            healthy: true,
        }],
        region: String::new(),
        zone: String::new(),
    }
}

/// Waits for a condition; fails with what was waited for.
pub(crate) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// State of a node's endpoint as others see it.
pub(crate) fn state(house: &House, node: &str) -> Option<ringmesh_wire::snapshot::EndpointState> {
    let rows = house.control.endpoint_rows();
    rows.into_iter()
        .find(|row| row.node.0 == node)
        .and_then(|row| row.state)
}
