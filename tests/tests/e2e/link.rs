//! Hostile bytes on the mesh link: the connection is closed with a reason, counted, nothing else disturbed.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::mesh::Mesh;
use ringmesh_tests::{SOON, get, wait};

/// A QUIC client without a certificate, as a new node has none; it does not check control's.
fn client() -> quinn::Endpoint {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("versions")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Trusting(provider)))
        .with_no_client_auth();
    tls.alpn_protocols = vec![ringmesh_wire::ALPN_CONTROL.to_vec()];
    let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("quic")));
    let mut endpoint =
        quinn::Endpoint::client("127.0.0.1:0".parse().expect("address")).expect("endpoint");
    endpoint.set_default_client_config(config);
    endpoint
}

#[derive(Debug)]
struct Trusting(Arc<rustls::crypto::CryptoProvider>);

impl rustls::client::danger::ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &[rustls_pki_types::CertificateDer<'_>],
        _: &rustls_pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &rustls_pki_types::CertificateDer<'_>,
        _: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls_pki_types::CertificateDer<'_>,
        signed: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(
            message,
            cert,
            signed,
            &self.0.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Sends bytes as the first thing on a stream; how the connection or the stream ended.
async fn send(endpoint: &quinn::Endpoint, to: SocketAddr, bytes: &[u8], finish: bool) -> String {
    let conn = endpoint
        .connect(to, "control.ringmesh")
        .expect("connect")
        .await
        .expect("handshake");
    let (mut up, mut down) = conn.open_bi().await.expect("stream");
    up.write_all(bytes).await.expect("write");
    if finish {
        up.finish().expect("finish");
    }
    let ended = tokio::time::timeout(SOON, async {
        match down.read_to_end(1 << 20).await {
            Ok(_) => conn.closed().await.to_string(),
            Err(error) => error.to_string(),
        }
    });
    ended.await.unwrap_or_else(|_| "HUNG".to_owned())
}

#[test]
fn hostile_bytes_close_their_connection_and_disturb_no_one() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let mesh = Mesh::start("{}\n", &[("reviews", "v3"), ("ratings", "v1")]);
    let works = || {
        mesh.node("reviews", "v3")
            .call("ratings", "/ratings/0", &[])
            .is_ok_and(|answer| answer.status == 200)
    };
    wait::until_true("a working pair", SOON, works).expect("a working pair");
    let before = refused(&mesh);
    let to = mesh.control.mesh;
    let mut random = vec![0; 4096];
    fastrand::Rng::with_seed(7).fill(&mut random);
    let mut oversized = ringmesh_wire::frame::MAGIC.to_vec();
    oversized.extend([0xff; 64]);
    let mut skewed = ringmesh_wire::frame::MAGIC.to_vec();
    skewed.extend([
        0xff, 0xfe, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        0, 0, 0, 0,
    ]);
    let cases: [(&str, &[u8], bool); 5] = [
        ("random", &random, true),
        ("truncated", &ringmesh_wire::frame::MAGIC[..2], true),
        ("oversized", &oversized, false),
        ("another version", &skewed, true),
        ("nothing", &[], true),
    ];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let endpoint = client();
        for (name, bytes, finish) in cases {
            let ended = send(&endpoint, to, bytes, finish).await;
            assert!(ended != "HUNG" && !ended.is_empty(), "{name}: {ended}");
        }
        endpoint.wait_idle().await;
    });
    // Datagrams that are not QUIC at all.
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("socket");
    for chunk in random.chunks(1200) {
        socket.send_to(chunk, to).expect("send");
    }
    assert!(refused(&mesh) > before, "hostile connections are counted");
    assert!(works(), "nothing else is disturbed");
    mesh.apply("subsets.yaml");
}

/// The sum of control's counters of refused link connections.
fn refused(mesh: &Mesh) -> u64 {
    let page = get(
        mesh.control.metrics(),
        "localhost",
        "/metrics",
        &[],
        Duration::from_secs(10),
    )
    .expect("metrics")
    .text();
    let lines = page
        .lines()
        .filter(|line| line.starts_with("ringmesh_control_") && line.contains("refused"));
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .map(|value| value as u64)
        .sum()
}
