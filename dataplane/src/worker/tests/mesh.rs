//! Two workers with mutual TLS between them: the caller's sidecar, the callee's, and impostors.

use std::time::SystemTime;

use rcgen::CertificateParams;
use ringmesh_wire::SpiffeId;
use ringmesh_wire::snapshot::MtlsMode;

use super::*;
use crate::tls::tests::{House, trust, workload};
use crate::tls::{Inner, PeerTrust, TlsMaterial};

/// productpage's sidecar and ratings' sidecar, with ratings' app behind.
pub(super) struct Pair {
    pub(super) house: House,
    pub(super) caller: Bed,
    pub(super) callee: Bed,
    calls: Arc<AtomicUsize>,
    caller_draft: Draft,
    callee_draft: Draft,
}

fn productpage() -> CertificateParams {
    workload("productpage", "productpage", "v1")
}

fn ratings() -> CertificateParams {
    workload("ratings", "ratings", "v1")
}

impl Pair {
    fn start() -> Self {
        Self::of(Protocol::Http1, hello())
    }

    pub(super) fn of(protocol: Protocol, app: (SocketAddr, Arc<AtomicUsize>)) -> Self {
        Self::by_way_of(protocol, app, ConnLimits::default(), |port| port)
    }

    /// With something between the two: `way` gets the callee's port and gives the one to call.
    pub(super) fn by_way_of(
        protocol: Protocol,
        (app, calls): (SocketAddr, Arc<AtomicUsize>),
        limits: ConnLimits,
        way: impl FnOnce(u16) -> u16,
    ) -> Self {
        let mut draft = Draft::new();
        let port = &mut draft.workload.ports[0];
        (port.app, port.mtls, port.protocol) = (app, MtlsMode::Strict, protocol);
        let callee = Bed::start_with(&draft, Role::Mesh, limits);
        let mesh_port = way(callee.at.port());
        let callee_draft = draft;
        let mut draft = Draft::new().service("ratings", &[9080]).endpoint_with(
            "ratings",
            "127.0.0.1",
            &[],
            |endpoint| {
                endpoint.mesh_port = Some(mesh_port);
                endpoint.identity =
                    Some(SpiffeId::workload("mesh.local", "default", "ratings").unwrap());
            },
        );
        let service = draft.at("ratings");
        service.ports[0].protocol = protocol;
        if protocol == Protocol::Auto {
            // Nobody names a host before it is known whether names are spoken of.
            service.hosts = vec!["*".into()];
        }
        draft.workload.service = ringmesh_wire::ServiceId::new("productpage", "default");
        let caller = Bed::start_with(&draft, Role::Outbound, limits);
        let pair = Self {
            house: House::new(),
            caller,
            callee,
            calls,
            caller_draft: draft,
            callee_draft,
        };
        pair.certify(&productpage(), &ratings());
        pair
    }

    /// What the caller goes by: the callee's sidecar belongs there, or at the same address there is to be another
    /// service account's.
    pub(super) fn tables_by(&self, is_ours: bool) -> Tables {
        let mut draft = self.caller_draft.clone();
        if !is_ours {
            let other = SpiffeId::workload("mesh.local", "default", "ratings-2").unwrap();
            draft.at("ratings").identities = vec![other.clone()];
            draft.endpoints.get_mut("ratings").unwrap()[0].identity = Some(other);
        }
        draft.tables()
    }

    /// New certificates for both; in force when this returns.
    fn certify(&self, caller: &CertificateParams, callee: &CertificateParams) {
        self.give(&self.caller, self.house.material(caller).unwrap());
        self.give(&self.callee, self.house.material(callee).unwrap());
    }

    /// The inbox keeps order: what was collected after it, happened after it.
    pub(super) fn give(&self, bed: &Bed, material: TlsMaterial) {
        bed.mailbox.send(ToShard::Tls(Arc::new(material))).unwrap();
        bed.log();
    }

    fn get(&self) -> String {
        self.caller.get("ratings")
    }

    /// A counter of a sidecar that has moved since it was asked last.
    pub(super) fn counted(bed: &Bed, name: &str) -> u64 {
        bed.mailbox.send(ToShard::Collect).unwrap();
        loop {
            match bed.next() {
                FromShard::Stats(stats) => {
                    let series = crate::telemetry::merge(&[*stats]);
                    let mut named = series.iter().filter(|series| series.name == name);
                    return match named.next().map(|series| &series.value) {
                        Some(ringmesh_wire::report::SeriesValue::Counter(count)) => *count,
                        None => 0,
                        other => panic!("{other:?}"),
                    };
                }
                FromShard::Log(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
}

const RESUMED: &str = "ringmesh_tls_handshakes_resumed_total";

/// A plaintext client of the caller's sidecar that asks again and again on one connection.
fn ask(client: &mut TcpStream) -> String {
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: ratings\r\n\r\n")
        .unwrap();
    read_answer(client)
}

#[test]
fn a_resumed_session_does_not_outlive_the_identity_it_was_made_for() {
    let pair = Pair::start();
    assert!(pair.get().ends_with("hello"));
    // Every pool is new: a connection has to be made, and its session is resumed.
    pair.caller.configure(Draft::new().tables());
    pair.caller.configure(pair.caller_draft.tables());
    assert!(pair.get().ends_with("hello"));
    assert_eq!(Pair::counted(&pair.callee, RESUMED), 1);

    // The same address is somebody else's now; service, name asked for and session are the same.
    pair.caller.configure(pair.tables_by(false));
    let answer = pair.get();
    assert!(
        answer.contains("x-ringmesh-reason: identity_mismatch\r\n"),
        "{answer}"
    );
    assert_eq!(pair.calls.load(Ordering::SeqCst), 1);
    // And back.
    pair.caller.configure(pair.caller_draft.tables());
    assert!(pair.get().ends_with("hello"));
}

#[test]
fn a_permissive_port_takes_mutual_tls_plaintext_and_the_apps_own_tls() {
    // Answers each connection with what it first heard, so that it is seen what came through.
    let (app, _) = server(|_, mut stream| {
        let mut heard = vec![0; 4096];
        let len = stream.read(&mut heard).unwrap_or(0);
        let shown = format!("{:?}", String::from_utf8_lossy(&heard[..len.min(5)]));
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{shown}",
            shown.len()
        );
        let _ = stream.write_all(answer.as_bytes());
    });
    let house = House::new();
    for protocol in [Protocol::Http1, Protocol::Auto, Protocol::Tls] {
        let mut draft = Draft::new();
        let port = &mut draft.workload.ports[0];
        (port.app, port.protocol) = (app, protocol);
        draft.mesh.mtls = MtlsMode::Permissive;
        let callee = Bed::start(&draft, Role::Inbound);
        let material = house.material(&ratings()).unwrap();
        callee
            .mailbox
            .send(ToShard::Tls(Arc::new(material)))
            .unwrap();
        callee.log();

        let answer = callee.get("ratings");
        assert!(answer.ends_with("\"GET /\""), "{protocol:?}: {answer}");

        // Another sidecar's: ended here, and the app hears plaintext.
        let material = house.material(&productpage()).unwrap();
        let config = crate::tls::tests::client_config(&material, Inner::Http1);
        let name = "p9080.ratings.default.ringmesh".try_into().unwrap();
        let tls = rustls::ClientConnection::new(config, name).unwrap();
        let mut client = rustls::StreamOwned::new(tls, callee.client());
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: ratings\r\n\r\n")
            .unwrap();
        let mut answer = [0; 512];
        let len = client.read(&mut answer).unwrap();
        let answer = String::from_utf8_lossy(&answer[..len]).into_owned();
        assert!(
            answer.starts_with("HTTP/1.1 200 "),
            "{protocol:?}: {answer}"
        );
        let log = callee.log();
        let last = log.last().unwrap();
        assert_eq!(
            last["principal"], "mesh.local/ns/default/sa/productpage",
            "{last}"
        );

        // The app's own: as it is, a hello in two segments.
        let mut config = (*crate::tls::tests::client_config(&material, Inner::Http1)).clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let name = "shop.example.com".try_into().unwrap();
        let mut tls = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
        let mut hello = Vec::new();
        tls.write_tls(&mut hello).unwrap();
        let mut client = callee.client();
        client.set_nodelay(true).unwrap();
        client.write_all(&hello[..7]).unwrap();
        client.write_all(&hello[7..]).unwrap();
        let answer = read_answer(&mut client);
        assert!(
            answer.contains("\\u{16}\\u{3}\\u{1}"),
            "{protocol:?}: {answer}"
        );
    }
}

#[test]
fn a_port_that_takes_plaintext_only_refuses_mutual_tls_by_workload_and_by_port() {
    let pair = Pair::start();
    let mut client = pair.caller.client();
    assert!(ask(&mut client).ends_with("hello"));
    let app_port = pair.callee_draft.workload.ports[0].app.port();
    for (mode, ports) in [
        (MtlsMode::Disable, vec![]),
        (MtlsMode::Strict, vec![(app_port, MtlsMode::Disable)]),
    ] {
        let mut draft = pair.callee_draft.clone();
        draft.mesh.mtls = mode;
        draft.mesh.mtls_ports = ports;
        pair.callee.configure(draft.tables());
        // What stands is told to end with the next answer, not in the middle of one.
        assert!(ask(&mut client).ends_with("hello"));
        let calls = pair.calls.load(Ordering::SeqCst);
        for _ in 0..2 {
            let answer = ask(&mut client);
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        }
        assert_eq!(pair.calls.load(Ordering::SeqCst), calls);
        let refused = Pair::counted(&pair.callee, "ringmesh_connections_refused_total");
        assert!(refused >= 2, "{refused}");
        // Another port's mode does not touch this one, and neither does PERMISSIVE.
        for mode in [MtlsMode::Strict, MtlsMode::Permissive] {
            let mut draft = pair.callee_draft.clone();
            draft.mesh.mtls = mode;
            draft.mesh.mtls_ports = vec![(app_port ^ 1, MtlsMode::Disable)];
            pair.callee.configure(draft.tables());
            assert!(ask(&mut client).ends_with("hello"), "{mode:?}");
        }
    }
}

#[test]
fn a_plaintext_connection_does_not_outlive_a_port_that_becomes_strict() {
    let (app, calls) = hello();
    let mut draft = Draft::new();
    draft.workload.ports[0].app = app;
    draft.mesh.mtls = MtlsMode::Permissive;
    let bed = Bed::start(&draft, Role::Inbound);
    let mut client = bed.client();
    assert!(ask(&mut client).ends_with("hello"));
    draft.mesh.mtls = MtlsMode::Strict;
    bed.configure(draft.tables());
    let _ = client.write_all(b"GET / HTTP/1.1\r\nHost: ratings\r\n\r\n");
    let mut answer = Vec::new();
    let _ = client.read_to_end(&mut answer);
    assert!(answer.is_empty(), "{}", answer.escape_ascii());
    assert_eq!(calls.load(Ordering::SeqCst), 1);
}

fn wait_for_line(bed: &Bed) -> Vec<serde_json::Value> {
    let until = Instant::now() + PATIENCE;
    loop {
        let log = bed.log();
        if !log.is_empty() {
            return log;
        }
        assert!(Instant::now() < until, "nothing is logged");
    }
}

/// What cannot be told to end is given some time, whether it carries anything or rests between two requests.
#[test]
fn opaque_and_idle_plaintext_connections_are_cut_some_time_after_a_port_becomes_strict() {
    let (app, _) = server(|_, mut stream| {
        let mut bytes = [0; 64];
        while let Ok(len @ 1..) = stream.read(&mut bytes) {
            let _ = stream.write_all(&bytes[..len]);
        }
    });
    let mut draft = Draft::new();
    let port = &mut draft.workload.ports[0];
    (port.app, port.protocol) = (app, Protocol::Tcp);
    draft.mesh.mtls = MtlsMode::Permissive;
    let drained = |ms| ConnLimits {
        plaintext_drain_ms: ms,
        ..ConnLimits::default()
    };
    let echo = |client: &mut TcpStream| {
        client.write_all(b"x")?;
        client.read_exact(&mut [0])
    };
    // A change that is taken back in time, and others that mean nothing.
    let bed = Bed::start_with(&draft, Role::Inbound, drained(60_000));
    let mut client = bed.client();
    echo(&mut client).unwrap();
    for mode in [MtlsMode::Strict, MtlsMode::Permissive, MtlsMode::Disable] {
        let mut changed = draft.clone();
        changed.mesh.mtls = mode;
        bed.configure(changed.tables());
        echo(&mut client).unwrap();
    }
    drop(bed);

    let (http_app, _) = hello();
    for protocol in [Protocol::Tcp, Protocol::Http1] {
        draft.workload.ports[0].protocol = protocol;
        draft.mesh.mtls = MtlsMode::Permissive;
        if protocol == Protocol::Http1 {
            draft.workload.ports[0].app = http_app;
        }
        let bed = Bed::start_with(&draft, Role::Inbound, drained(200));
        let mut client = bed.client();
        match protocol {
            Protocol::Tcp => echo(&mut client).unwrap(),
            _ => assert!(ask(&mut client).ends_with("hello")),
        }
        draft.mesh.mtls = MtlsMode::Strict;
        bed.configure(draft.tables());
        let begun = Instant::now();
        let end = client.read(&mut [0]);
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        assert!(begun.elapsed() < PATIENCE, "{protocol:?}: not cut");
        if protocol == Protocol::Tcp {
            let log = wait_for_line(&bed);
            assert_eq!(log[0]["reason"], "plaintext_refused", "{log:?}");
        }
    }
}

#[test]
fn a_revocation_ends_connections_that_stand_and_refuses_resumed_ones() {
    let pair = Pair::start();
    let mut caller = productpage();
    caller.serial_number = Some(rcgen::SerialNumber::from_slice(&[9, 9]));
    pair.give(&pair.caller, pair.house.material(&caller).unwrap());
    let (cert, key) = pair.house.sign(&ratings());
    let callee = |revoked: &[Vec<u8>]| {
        let trust = PeerTrust {
            revoked_serials: revoked.to_vec(),
            ..trust()
        };
        let (chain, key) = (vec![cert.clone()], key.clone_key());
        TlsMaterial::build(chain, key, &pair.house.roots(), trust).unwrap()
    };
    let before = callee(&[]);
    let after = callee(&[vec![9, 9]]).succeed(&before);
    pair.give(&pair.callee, before);
    let mut client = pair.caller.client();
    assert!(ask(&mut client).ends_with("hello"));
    assert!(ask(&mut client).ends_with("hello"));
    pair.give(&pair.callee, after);
    // The connection between the sidecars falls, and so does the session that would replace it.
    for _ in 0..3 {
        let answer = ask(&mut client);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
}

/// Material of `who` with a serial number of its own, under which others are revoked later.
struct Revocable {
    chain: rustls_pki_types::CertificateDer<'static>,
    key: rustls_pki_types::PrivateKeyDer<'static>,
}

impl Revocable {
    fn new(house: &House, mut who: CertificateParams, serial: u8) -> Self {
        who.serial_number = Some(rcgen::SerialNumber::from_slice(&[serial]));
        let (chain, key) = house.sign(&who);
        Self { chain, key }
    }

    fn material(&self, house: &House, revoked: &[u8]) -> TlsMaterial {
        let trust = PeerTrust {
            revoked_serials: revoked.iter().map(|serial| vec![*serial]).collect(),
            ..trust()
        };
        let (chain, key) = (vec![self.chain.clone()], self.key.clone_key());
        TlsMaterial::build(chain, key, &house.roots(), trust).unwrap()
    }
}

/// Sends back what it hears, for ever.
fn echo() -> (SocketAddr, Arc<AtomicUsize>) {
    server(|_, mut stream| {
        let mut heard = [0; 1024];
        while let Ok(len @ 1..) = stream.read(&mut heard) {
            let _ = stream.write_all(&heard[..len]);
        }
    })
}

#[test]
fn a_revocation_cuts_what_runs_at_whichever_end_hears_of_it_and_nothing_else() {
    const CALLER: u8 = 21;
    const CALLEE: u8 = 22;
    const OTHER: u8 = 23;
    for caller_is_revoked in [true, false] {
        let pair = Pair::of(Protocol::Tcp, echo());
        let house = &pair.house;
        let caller = Revocable::new(house, productpage(), CALLER);
        let callee = Revocable::new(house, ratings(), CALLEE);
        let other = Revocable::new(house, productpage(), OTHER);
        let before = [caller.material(house, &[9]), callee.material(house, &[9])];
        let [at_caller, at_callee] = before;
        let after = match caller_is_revoked {
            true => callee.material(house, &[9, CALLER]).succeed(&at_callee),
            false => caller.material(house, &[CALLEE, 9]).succeed(&at_caller),
        };
        pair.give(&pair.caller, at_caller);
        pair.give(&pair.callee, at_callee);
        let mut tunnels: Vec<TcpStream> = (0..3)
            .map(|_| {
                let mut client = pair.caller.client();
                client
                    .write_all(b"CONNECT ratings:9080 HTTP/1.1\r\nHost: ratings:9080\r\n\r\n")
                    .unwrap();
                assert!(read_head(&mut client).is_some());
                client.write_all(b"x").unwrap();
                client.read_exact(&mut [0]).unwrap();
                client
            })
            .collect();
        let config = crate::tls::tests::client_config(&other.material(house, &[]), Inner::Tcp);
        let name = "p9080.ratings.default.ringmesh".try_into().unwrap();
        let tls = rustls::ClientConnection::new(config, name).unwrap();
        let mut bystander = rustls::StreamOwned::new(tls, pair.callee.client());
        bystander.write_all(b"x").unwrap();
        bystander.read_exact(&mut [0]).unwrap();

        let hears = match caller_is_revoked {
            true => &pair.callee,
            false => &pair.caller,
        };
        hears.mailbox.send(ToShard::Tls(Arc::new(after))).unwrap();
        // Nothing is sent meanwhile: what ends them is the revocation alone.
        for tunnel in &mut tunnels {
            let end = tunnel.read(&mut [0]);
            assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
        }
        let until = Instant::now() + PATIENCE;
        let mut log = Vec::new();
        while log.len() < 3 {
            log.extend(hears.log());
            assert!(Instant::now() < until, "{log:?}");
        }
        assert!(
            log.iter().all(|line| line["reason"] == "peer_refused"),
            "{log:?}"
        );
        bystander.write_all(b"x").unwrap();
        bystander.read_exact(&mut [0]).unwrap();
        // A session that would be resumed is refused as a new one is.
        let mut client = pair.caller.client();
        client
            .write_all(b"CONNECT ratings:9080 HTTP/1.1\r\nHost: ratings:9080\r\n\r\nping")
            .unwrap();
        let mut rest = Vec::new();
        let _ = client.read_to_end(&mut rest);
        let rest = String::from_utf8_lossy(&rest).into_owned();
        match caller_is_revoked {
            // The callee's word comes after the tunnel stands.
            true => assert!(!rest.contains("ping"), "{rest}"),
            false => assert!(
                rest.contains("x-ringmesh-reason: peer_refused\r\n"),
                "{rest}"
            ),
        }
    }
}

#[test]
fn a_revocation_ends_an_answer_under_way() {
    const CALLER: u8 = 31;
    for protocol in [Protocol::Http1, Protocol::Auto] {
        let (app, calls) = server(|_, mut stream| {
            let _ = read_head(&mut stream);
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nfirst");
            // Nothing more, until the sidecar has enough.
            let _ = stream.read(&mut [0; 64]);
        });
        let pair = Pair::of(protocol, (app, calls));
        let caller = Revocable::new(&pair.house, productpage(), CALLER);
        let callee = Revocable::new(&pair.house, ratings(), 32);
        let at_callee = callee.material(&pair.house, &[]);
        let after = callee.material(&pair.house, &[CALLER]).succeed(&at_callee);
        pair.give(&pair.caller, caller.material(&pair.house, &[]));
        pair.give(&pair.callee, at_callee);
        let mut client = pair.caller.client();
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: ratings\r\n\r\n")
            .unwrap();
        let head = read_head(&mut client).unwrap();
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        client.read_exact(&mut [0; 5]).unwrap();
        pair.give(&pair.callee, after);
        let end = client.read(&mut [0; 64]);
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
}

#[test]
fn connections_are_renewed_before_their_certificates_end_and_no_request_fails() {
    let pair = Pair::start();
    let mut short = ratings();
    short.not_after = (SystemTime::now() + Duration::from_secs(2)).into();
    pair.give(&pair.callee, pair.house.material(&short).unwrap());
    let mut client = pair.caller.client();
    assert!(ask(&mut client).ends_with("hello"));
    // Rotated at half-life, as the agent does it: the connection that stands is not touched.
    pair.give(&pair.callee, pair.house.material(&ratings()).unwrap());
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(2_500) {
        let answer = ask(&mut client);
        assert!(answer.ends_with("hello"), "{answer}");
    }
    // One at the start, and one when the first had to go.
    let opened = Pair::counted(&pair.caller, "ringmesh_upstream_connections_opened_total");
    assert_eq!(opened, 2);
}

#[test]
fn an_opaque_connection_is_cut_some_time_after_its_certificates() {
    let (app, calls) = server(|_, mut stream| {
        let mut byte = [0];
        while matches!(stream.read(&mut byte), Ok(1)) {
            let _ = stream.write_all(&byte);
        }
    });
    let pair = Pair::of(Protocol::Tcp, (app, calls));
    let mut short = productpage();
    short.not_after = (SystemTime::now() + Duration::from_secs(2)).into();
    let material = pair.house.material(&short).unwrap();
    let config = crate::tls::tests::client_config(&material, Inner::Tcp);
    let name = "p9080.ratings.default.ringmesh".try_into().unwrap();
    let tls = rustls::ClientConnection::new(config, name).unwrap();
    let mut client = rustls::StreamOwned::new(tls, pair.callee.client());
    client.write_all(b"x").unwrap();
    assert_eq!(client.read(&mut [0; 16]).unwrap(), 1);
    // It is left alone until then, and nothing but the end of its time ends it.
    let begun = Instant::now();
    let end = client.read(&mut [0; 16]);
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    assert!(begun.elapsed() < PATIENCE, "not cut");
    let log = pair.callee.log();
    assert_eq!(log[0]["reason"], "svid_expired", "{log:?}");
}

#[test]
fn a_call_goes_through_two_sidecars_and_both_tell_of_it() {
    let pair = Pair::start();
    for _ in 0..3 {
        let answer = pair.get();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.ends_with("hello"), "{answer}");
    }
    let (out, into) = (pair.caller.log(), pair.callee.log());
    assert_eq!((out.len(), into.len()), (3, 3));
    for (out, into) in out.iter().zip(&into) {
        assert_eq!(out["request_id"], into["request_id"], "{out} {into}");
        assert_eq!(out["upstream_mtls"], true, "{out}");
        assert_eq!(into["mtls"], true, "{into}");
        // The source is who the certificate says.
        assert_eq!(
            into["principal"], "mesh.local/ns/default/sa/productpage",
            "{into}"
        );
    }
    // One handshake, one connection to the app.
    assert_eq!(out[2]["reused"], true, "{}", out[2]);
    assert_eq!(pair.calls.load(Ordering::SeqCst), 1);
}

/// What goes through a tunnel to an HTTP port are requests for the sidecar there, each judged and
/// charged as if it had come without one.
#[test]
fn requests_inside_a_tunnel_are_requests_to_the_callees_sidecar() {
    let pair = Pair::start();
    let mut client = pair.caller.client();
    client
        .write_all(b"CONNECT ratings:9080 HTTP/1.1\r\nHost: ratings:9080\r\n\r\n")
        .unwrap();
    let head = read_head(&mut client).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    for _ in 0..2 {
        client
            .write_all(b"GET /inside HTTP/1.1\r\nHost: ratings\r\n\r\n")
            .unwrap();
        assert!(read_answer(&mut client).ends_with("hello"));
    }
    client.write_all(b"nonsense\r\n\r\n").unwrap();
    let answer = read_answer(&mut client);
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    drop(client);
    let into = pair.callee.log();
    assert_eq!(into.len(), 3);
    assert_eq!(into[1]["path"], "/inside", "{}", into[1]);
    let through_tcp = Pair::of(Protocol::Tcp, hello());
    let mut client = through_tcp.caller.client();
    client
        .write_all(b"CONNECT ratings:9080 HTTP/1.1\r\nHost: ratings:9080\r\n\r\n")
        .unwrap();
    assert!(read_head(&mut client).is_some());
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(read_answer(&mut client).ends_with("hello"));
}

/// An app that answers with the `x-forwarded-client-cert` lines it got.
fn mirror() -> (SocketAddr, Arc<AtomicUsize>) {
    server(|_, mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let lines = head.lines();
            let said: Vec<&str> = lines
                .filter(|line| {
                    line.to_ascii_lowercase()
                        .starts_with("x-forwarded-client-cert:")
                })
                .collect();
            let said = said.join("|");
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{said}",
                said.len()
            );
            stream.write_all(answer.as_bytes()).unwrap();
        }
    })
}

#[test]
fn the_app_learns_who_called_from_the_certificate_alone() {
    const FORGED: &str = "GET / HTTP/1.1\r\nHost: ratings\r\n\
        X-Forwarded-Client-Cert: By=x;URI=spiffe://mesh.local/ns/default/sa/admin\r\n\r\n";
    let pair = Pair::of(Protocol::Http1, mirror());
    let (cert, key) = pair.house.sign(&productpage());
    let hash: String = crate::tls::sha256(&cert)
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    let caller = TlsMaterial::build(vec![cert], key, &pair.house.roots(), trust()).unwrap();
    pair.give(&pair.caller, caller);
    let answer = pair.caller.ask(FORGED);
    let expected = format!(
        "x-forwarded-client-cert: By=spiffe://mesh.local/ns/default/sa/ratings;Hash={hash};\
         URI=spiffe://mesh.local/ns/default/sa/productpage"
    );
    assert!(answer.ends_with(&format!("\r\n\r\n{expected}")), "{answer}");

    // A plaintext caller proves nothing, whatever it says.
    let mut draft = Draft::new();
    let port = &mut draft.workload.ports[0];
    (port.app, port.protocol) = (mirror().0, Protocol::Http1);
    draft.mesh.mtls = MtlsMode::Permissive;
    let plain = Bed::start(&draft, Role::Inbound);
    let answer = plain.ask(FORGED);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.ends_with("\r\n\r\n"), "{answer}");
}

#[test]
fn a_server_with_a_valid_certificate_of_another_service_is_not_served() {
    let pair = Pair::start();
    pair.certify(&productpage(), &workload("details", "details", "v1"));
    let answer = pair.get();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.contains("x-ringmesh-reason: identity_mismatch\r\n"),
        "{answer}"
    );
    assert_eq!(pair.calls.load(Ordering::SeqCst), 0);
    // The right one is served again.
    pair.certify(&productpage(), &ratings());
    assert!(pair.get().ends_with("hello"));
}

#[test]
fn an_expired_certificate_is_named_as_the_cause() {
    let pair = Pair::start();
    let mut old = productpage();
    old.not_after = (SystemTime::now() - Duration::from_secs(2)).into();
    pair.certify(&old, &ratings());
    let answer = pair.get();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(
        answer.contains("x-ringmesh-reason: svid_expired\r\n"),
        "{answer}"
    );
    assert_eq!(pair.calls.load(Ordering::SeqCst), 0);
}

#[test]
fn a_stranger_or_a_revoked_caller_does_not_reach_the_app() {
    let pair = Pair::start();
    // Of another authority, though it trusts ours.
    let (cert, key) = House::new().sign(&productpage());
    let stranger = TlsMaterial::build(vec![cert], key, &pair.house.roots(), trust()).unwrap();
    pair.give(&pair.caller, stranger);
    let answer = pair.get();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");

    let mut revoked = productpage();
    revoked.serial_number = Some(rcgen::SerialNumber::from_slice(&[9, 9]));
    let (cert, key) = pair.house.sign(&ratings());
    let strict = PeerTrust {
        revoked_serials: vec![vec![9, 9]],
        ..trust()
    };
    let strict = TlsMaterial::build(vec![cert], key, &pair.house.roots(), strict).unwrap();
    pair.give(&pair.caller, pair.house.material(&revoked).unwrap());
    pair.give(&pair.callee, strict);
    let answer = pair.get();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert_eq!(pair.calls.load(Ordering::SeqCst), 0);
}

#[test]
fn what_is_not_mutual_tls_gets_nothing_from_the_mesh_port() {
    let pair = Pair::start();
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: ratings\r\n\r\n"[..],
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\x16\x03\x01\xff\xff",
        b"\x80\x2e\x01\x03\x01",
        &[0; 300],
    ] {
        let mut client = pair.callee.client();
        let _ = client.write_all(bytes);
        let _ = client.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        // An end or a reset; at most a TLS alert (record type 21).
        let _ = client.read_to_end(&mut answer);
        assert!(answer.first().is_none_or(|byte| *byte == 21), "{answer:?}");
    }
    assert_eq!(pair.calls.load(Ordering::SeqCst), 0);
    // Nothing else is disturbed.
    assert!(pair.get().ends_with("hello"));
}

#[test]
fn rotation_under_traffic_costs_no_request() {
    let pair = Pair::start();
    let mut client = pair.caller.client();
    for _ in 0..20 {
        pair.certify(&productpage(), &ratings());
        for _ in 0..5 {
            client
                .write_all(b"GET / HTTP/1.1\r\nHost: ratings\r\n\r\n")
                .unwrap();
            let answer = read_answer(&mut client);
            assert!(answer.ends_with("hello"), "{answer}");
        }
        // A swap makes new pools or keeps old lanes: either has to work.
        pair.caller.configure(pair.caller_draft.tables());
    }
}

#[test]
fn large_bodies_pass_both_ways() {
    let (app, calls) = server(|_, mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let lower = head.to_ascii_lowercase();
            let length = lower.split("content-length: ").nth(1).unwrap();
            let length = length.split("\r\n").next().unwrap().parse().unwrap();
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            body.reverse();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
        }
    });
    let pair = Pair::of(Protocol::Http1, (app, calls));
    let body: Vec<u8> = (0..8_000_000_u32)
        .map(|n| u8::try_from((n ^ (n >> 9)) & 0xff).unwrap())
        .collect();
    let mut client = pair.caller.client();
    let mut sender = client.try_clone().unwrap();
    let sent = body.clone();
    let sending = std::thread::spawn(move || {
        let head = format!(
            "POST / HTTP/1.1\r\nHost: ratings\r\nContent-Length: {}\r\n\r\n",
            sent.len()
        );
        sender.write_all(head.as_bytes()).unwrap();
        sender.write_all(&sent).unwrap();
    });
    let head = read_head(&mut client).unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let mut got = vec![0; body.len()];
    client.read_exact(&mut got).unwrap();
    got.reverse();
    assert!(got == body, "the body changed on its way");
    sending.join().unwrap();
}
