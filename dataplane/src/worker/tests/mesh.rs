//! Two workers with mutual TLS between them: the caller's sidecar, the callee's, and impostors.

use std::time::SystemTime;

use rcgen::CertificateParams;
use ringmesh_wire::SpiffeId;
use ringmesh_wire::snapshot::MtlsMode;

use super::*;
use crate::tls::tests::{House, trust, workload};
use crate::tls::{PeerTrust, TlsMaterial};

/// productpage's sidecar and ratings' sidecar, with ratings' app behind.
struct Pair {
    house: House,
    caller: Bed,
    callee: Bed,
    calls: Arc<AtomicUsize>,
    caller_draft: Draft,
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

    fn of(protocol: Protocol, (app, calls): (SocketAddr, Arc<AtomicUsize>)) -> Self {
        let mut draft = Draft::new();
        let port = &mut draft.workload.ports[0];
        (port.app, port.mtls, port.protocol) = (app, MtlsMode::Strict, protocol);
        let callee = Bed::start(&draft, Role::Mesh);
        let mesh_port = callee.at.port();
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
        draft.at("ratings").ports[0].protocol = protocol;
        draft.workload.service = ringmesh_wire::ServiceId::new("productpage", "default");
        let caller = Bed::start(&draft, Role::Outbound);
        let pair = Self {
            house: House::new(),
            caller,
            callee,
            calls,
            caller_draft: draft,
        };
        pair.certify(&productpage(), &ratings());
        pair
    }

    /// New certificates for both; in force when this returns.
    fn certify(&self, caller: &CertificateParams, callee: &CertificateParams) {
        self.give(&self.caller, self.house.material(caller).unwrap());
        self.give(&self.callee, self.house.material(callee).unwrap());
    }

    /// The inbox keeps order: what was collected after it, happened after it.
    fn give(&self, bed: &Bed, material: TlsMaterial) {
        bed.mailbox.send(ToShard::Tls(Arc::new(material))).unwrap();
        bed.log();
    }

    fn get(&self) -> String {
        self.caller.get("ratings")
    }
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
