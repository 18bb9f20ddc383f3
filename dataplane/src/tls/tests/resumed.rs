//! Resumed handshakes: what they save, and what they must not.

use std::net::SocketAddr;
use std::sync::Arc;

use super::live::{SNI, both, on_ring, out, shake_again};
use super::*;
use crate::budget::Budget;
use crate::ring::{ByteStream, ListenOptions, Listener, Ring, Socket};

/// A server that stays at one address, and a client with the sessions it has collected.
struct Two {
    ring: Ring,
    listener: Listener,
    server: Arc<TlsMaterial>,
    client: Arc<TlsMaterial>,
    sessions: Sessions,
    inner: Inner,
}

type End = Result<TlsStream, TlsRefusal>;

impl Two {
    fn new(ring: &Ring, server: TlsMaterial, client: TlsMaterial) -> Self {
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        Self {
            ring: ring.clone(),
            listener: Listener::bind(ring, any, &ListenOptions::default()).unwrap(),
            server: Arc::new(server),
            client: Arc::new(client),
            sessions: Sessions::default(),
            inner: Inner::Http1,
        }
    }

    /// A connection with a question and an answer, with which the ticket comes along.
    async fn talk(&self) -> (End, End) {
        let listener = &self.listener;
        let address = listener.local_addr();
        let (at_server, at_client) =
            both(listener.accept(), Socket::connect(&self.ring, address)).await;
        let serve = async {
            let stream = accept(
                &self.ring,
                at_server.unwrap(),
                &self.server,
                &Budget::new(0),
            )
            .await?;
            let question = stream.recv().await?;
            assert_eq!(&question[..], b"question");
            stream.send(out(b"answer")).await?;
            Ok(stream)
        };
        let ask = async {
            let (client, sessions) = (&self.client, &self.sessions);
            let socket = at_client.unwrap();
            let stream = connect(&self.ring, socket, client, sessions, SNI, self.inner).await?;
            stream.send(out(b"question")).await?;
            // A server that refuses answers with a reset: what is to be seen is its own end.
            if let Ok(answer) = stream.recv().await {
                assert!(answer.is_empty() || &answer[..] == b"answer");
            }
            Ok(stream)
        };
        both(serve, ask).await
    }

    /// Whether each end says that the handshake was a resumed one.
    async fn resumes(&self) -> (bool, bool) {
        let (server, client) = self.talk().await;
        (server.unwrap().is_resumed(), client.unwrap().is_resumed())
    }
}

/// Signed once, to be built into material with differing trust.
struct Signed(CertificateDer<'static>, PrivateKeyDer<'static>);

impl Signed {
    fn by(house: &House, params: &CertificateParams) -> Self {
        let (cert, key) = house.sign(params);
        Self(cert, key)
    }

    fn material(&self, house: &House, trust: PeerTrust) -> TlsMaterial {
        let (chain, key) = (vec![self.0.clone()], self.1.clone_key());
        TlsMaterial::build(chain, key, &house.roots(), trust).unwrap()
    }
}

fn revoking(serial: &[u8]) -> PeerTrust {
    PeerTrust {
        revoked_serials: vec![serial.to_vec()],
        ..trust()
    }
}

fn caller() -> CertificateParams {
    let mut params = workload("product-sa", "productpage", "v1");
    params.serial_number = Some(SerialNumber::from_slice(&[9, 9]));
    params
}

fn callee() -> CertificateParams {
    workload("reviews-sa", "reviews", "v3")
}

#[test]
fn the_second_handshake_is_resumed_and_both_still_know_each_other() {
    on_ring(|ring| async move {
        let house = House::new();
        let (server, client) = (house.material(&callee()), house.material(&caller()));
        let two = Two::new(&ring, server.unwrap(), client.unwrap());
        assert_eq!(two.resumes().await, (false, false));
        for _ in 0..5 {
            let (server, client) = two.talk().await;
            let (server, client) = (server.unwrap(), client.unwrap());
            assert!(server.is_resumed() && client.is_resumed());
            assert_eq!(
                server.peer().service,
                ServiceId::new("productpage", "default")
            );
            assert_eq!(client.peer().labels["version"], "v3");
            assert_eq!(server.sni(), Some(SNI));
            assert_eq!(server.inner(), Inner::Http1);
        }
    });
}

#[test]
fn a_peer_revoked_meanwhile_is_not_resumed_on_either_side() {
    on_ring(|ring| async move {
        let house = House::new();
        let (callee, caller) = (Signed::by(&house, &callee()), Signed::by(&house, &caller()));
        let mut two = Two::new(
            &ring,
            callee.material(&house, trust()),
            caller.material(&house, trust()),
        );
        assert_eq!(two.resumes().await, (false, false));
        // Somebody else is revoked: sessions go on.
        let next = callee
            .material(&house, revoking(&[1, 2]))
            .succeed(&two.server);
        two.server = Arc::new(next);
        assert_eq!(two.resumes().await, (true, true));

        let next = callee
            .material(&house, revoking(&[9, 9]))
            .succeed(&two.server);
        two.server = Arc::new(next);
        let (server, client) = two.talk().await;
        let refused = server.map(drop).unwrap_err();
        assert!(
            matches!(refused, TlsRefusal::Peer(PeerRefusal::Revoked)),
            "{refused}"
        );
        // It was the resumed handshake that was refused.
        assert!(client.unwrap().is_resumed());

        // And the server, by the client.
        let next = callee.material(&house, trust()).succeed(&two.server);
        two.server = Arc::new(next);
        assert!(two.talk().await.0.is_ok());
        let next = caller
            .material(&house, revoking(&[7, 7]))
            .succeed(&two.client);
        two.client = Arc::new(next);
        let (_, client) = two.talk().await;
        let refused = client.map(drop).unwrap_err();
        assert!(
            matches!(refused, TlsRefusal::Peer(PeerRefusal::Revoked)),
            "{refused}"
        );
    });
}

/// The client's certificate of the first handshake has ended since: a session that is kept by
/// somebody who does not look at his own certificate.
#[test]
fn a_peer_whose_certificate_ended_meanwhile_is_not_resumed() {
    on_ring(|ring| async move {
        let house = House::new();
        let mut params = caller();
        params.not_after = (SystemTime::now() + Duration::from_secs(3)).into();
        let two = Two::new(
            &ring,
            house.material(&callee()).unwrap(),
            house.material(&params).unwrap(),
        );
        assert_eq!(two.resumes().await, (false, false));
        assert_eq!(two.resumes().await, (true, true));
        let ends = two.client.not_after_unix_s();
        while now() <= ends {
            ring.sleep_until(ring.now().plus_ms(50)).await;
        }
        let config = two.sessions.of(
            &two.client,
            two.client.client(Inner::Http1),
            two.listener.local_addr(),
            SNI,
        );
        let address = two.listener.local_addr();
        let (at_server, at_client) =
            both(two.listener.accept(), Socket::connect(&ring, address)).await;
        let client = async {
            let name = rustls_pki_types::ServerName::try_from(SNI).unwrap();
            let tls = rustls::ClientConnection::new(config, name).unwrap();
            let pipe = Pipe::new(&ring, at_client.unwrap(), tls.into());
            let _ = pipe.handshake(crate::ring::Chunk::empty()).await;
            let _ = pipe.drain().await;
            pipe.with_tls(|tls| tls.handshake_kind())
        };
        let (server, kind) = both(
            accept(&ring, at_server.unwrap(), &two.server, &Budget::new(0)),
            client,
        )
        .await;
        let refused = server.map(drop).unwrap_err();
        assert!(
            matches!(refused, TlsRefusal::Peer(PeerRefusal::Expired)),
            "{refused}"
        );
        assert_eq!(kind, Some(rustls::HandshakeKind::Resumed));
    });
}

#[test]
fn another_certificate_other_roots_or_another_host_begin_anew() {
    on_ring(|ring| async move {
        let house = House::new();
        let material = |params: &CertificateParams| house.material(params).unwrap();
        let mut two = Two::new(&ring, material(&callee()), material(&caller()));
        assert_eq!(two.resumes().await, (false, false));
        assert_eq!(two.resumes().await, (true, true));
        // The server has rotated: its ticket keys are gone, and nobody is refused for it.
        two.server = Arc::new(material(&callee()).succeed(&two.server));
        assert_eq!(two.resumes().await, (false, false));
        assert_eq!(two.resumes().await, (true, true));
        // The client has.
        two.client = Arc::new(material(&caller()).succeed(&two.client));
        assert_eq!(two.resumes().await, (false, false));
        // One more root to trust, or one less.
        let signed = Signed::by(&house, &callee());
        two.server = Arc::new(signed.material(&house, trust()));
        assert_eq!(two.resumes().await, (false, false));
        let roots = [house.roots(), House::new().roots()].concat();
        let next = TlsMaterial::build(
            vec![signed.0.clone()],
            signed.1.clone_key(),
            &roots,
            trust(),
        );
        two.server = Arc::new(next.unwrap().succeed(&two.server));
        assert_eq!(two.resumes().await, (false, false));
        assert_eq!(two.resumes().await, (true, true));
        // Another endpoint of the same service has another address: its sessions are its own.
        let (server, client) = shake_again(&ring, &two.server, &two.client, &two.sessions).await;
        assert!(!server.unwrap().is_resumed() && !client.unwrap().is_resumed());
    });
}

#[test]
fn a_stream_ages_before_its_certificates_and_falls_with_a_revocation() {
    on_ring(|ring| async move {
        let house = House::new();
        let mut short = caller();
        short.not_after = (SystemTime::now() + Duration::from_secs(100)).into();
        let callee = Signed::by(&house, &callee());
        let server = Arc::new(callee.material(&house, trust()));
        let client = Arc::new(house.material(&short).unwrap());
        let (at_server, at_client) =
            shake_again(&ring, &server, &client, &Sessions::default()).await;
        let (at_server, at_client) = (at_server.unwrap(), at_client.unwrap());
        let begun = ring.now();
        for (stream, own) in [(&at_server, &server), (&at_client, &client)] {
            let standing = |ms| stream.standing(Some(own), begun.plus_ms(ms));
            assert_eq!(standing(0), Standing::Good);
            assert_eq!(standing(75_000), Standing::Good);
            // The shorter certificate counts at both ends.
            assert_eq!(standing(91_000), Standing::Aged);
            assert!(stream.over_at() > begun.plus_ms(99_000 + 9_900 - 1));
            assert!(stream.over_at() <= begun.plus_ms(100_000 + 10_000));
        }
        let next = Arc::new(callee.material(&house, revoking(&[9, 9])).succeed(&server));
        assert_eq!(at_server.standing(Some(&next), begun), Standing::Revoked);
        let next = Arc::new(callee.material(&house, revoking(&[8])).succeed(&server));
        assert_eq!(at_server.standing(Some(&next), begun), Standing::Good);
        assert_eq!(at_server.standing(Some(&next), begun), Standing::Good);
    });
}

#[test]
fn sessions_outlive_the_news_that_somebody_else_is_revoked_whatever_is_spoken() {
    on_ring(|ring| async move {
        for inner in [Inner::Http1, Inner::Http2, Inner::Tcp] {
            let house = House::new();
            let (callee, caller) = (Signed::by(&house, &callee()), Signed::by(&house, &caller()));
            let (server, client) = (
                callee.material(&house, trust()),
                caller.material(&house, trust()),
            );
            let mut two = Two::new(&ring, server, client);
            two.inner = inner;
            assert_eq!(two.resumes().await, (false, false));
            let next = |signed: &Signed, before: &TlsMaterial| {
                Arc::new(signed.material(&house, revoking(&[8])).succeed(before))
            };
            two.server = next(&callee, &two.server);
            two.client = next(&caller, &two.client);
            assert_eq!(two.resumes().await, (true, true), "{inner:?}");
        }
    });
}

/// A handshake that began before a revocation and ended after it.
#[test]
fn what_was_revoked_during_a_handshake_is_found_when_the_stream_is_listed() {
    on_ring(|ring| async move {
        let house = House::new();
        let callee = Signed::by(&house, &callee());
        let server = Arc::new(callee.material(&house, trust()));
        let client = Arc::new(house.material(&caller()).unwrap());
        let live = Live::default();
        assert_eq!(live.examine(&server), 0);
        let (first, _kept) = shake_again(&ring, &server, &client, &Sessions::default()).await;
        let (late, _kept) = shake_again(&ring, &server, &client, &Sessions::default()).await;
        let (mut first, mut late) = (first.unwrap(), late.unwrap());
        first.enlist(&live).unwrap();
        let next = Arc::new(
            callee
                .material(&house, revoking(&[0, 9, 9]))
                .succeed(&server),
        );
        assert_eq!(live.examine(&next), 1);
        assert_eq!(live.examine(&next), 0);
        let refused = late.enlist(&live).unwrap_err();
        assert_eq!(refused.reason(), crate::reason::Reason::PeerRefused);
        assert!(first.recv().await.is_err());
        // Gone from the list with its stream.
        drop(first);
        assert_eq!(live.examine(&server), 0);
        assert_eq!(live.examine(&next), 0);
    });
}
