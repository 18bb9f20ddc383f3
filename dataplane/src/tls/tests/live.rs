//! Two ends over real sockets on one ring.

use std::cell::Cell;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Instant;

use super::*;
use crate::budget::Budget;
use crate::reason::Reason;
use crate::ring::{ByteStream, Chunk, ListenOptions, Listener, Out, Park, Ring, RingPlan, Socket};

/// Runs a task on a ring of its own until it ends; `false` where there is no io_uring.
pub(super) fn on_ring<T: Future<Output = ()> + 'static>(test: impl FnOnce(Ring) -> T) -> bool {
    let ring = match Ring::new(&RingPlan::default()) {
        Ok(ring) => ring,
        Err(error) => {
            let required = std::env::var("RINGMESH_REQUIRE").unwrap_or_default();
            assert!(!required.contains("uring"), "no ring: {error}");
            println!("SKIPPED: no ring: {error}");
            return false;
        }
    };
    let done = Rc::new(Cell::new(false));
    let (flag, work) = (Rc::clone(&done), test(ring.clone()));
    assert!(ring.spawn(async move {
        work.await;
        flag.set(true);
    }));
    let deadline = Instant::now() + Duration::from_secs(300);
    while !done.get() {
        assert!(Instant::now() < deadline, "the test hangs");
        ring.turn(Park::Until(ring.now().plus_ms(20)));
    }
    true
}

pub(super) async fn both<A: Future, B: Future>(a: A, b: B) -> (A::Output, B::Output) {
    let (mut a, mut b) = (pin!(a), pin!(b));
    let (mut got_a, mut got_b) = (None, None);
    std::future::poll_fn(|cx| {
        if got_a.is_none()
            && let Poll::Ready(got) = a.as_mut().poll(cx)
        {
            got_a = Some(got);
        }
        if got_b.is_none()
            && let Poll::Ready(got) = b.as_mut().poll(cx)
        {
            got_b = Some(got);
        }
        match (got_a.take(), got_b.take()) {
            (Some(a), Some(b)) => Poll::Ready((a, b)),
            (a, b) => {
                (got_a, got_b) = (a, b);
                Poll::Pending
            }
        }
    })
    .await
}

pub(super) async fn pair(ring: &Ring) -> (Socket, Socket) {
    let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
    let listener = Listener::bind(ring, any, &ListenOptions::default()).unwrap();
    let (server, client) = both(
        listener.accept(),
        Socket::connect(ring, listener.local_addr()),
    )
    .await;
    (server.unwrap(), client.unwrap())
}

pub(super) const SNI: &str = "p9080.reviews.default.ringmesh";

pub(super) type Ends = (Result<TlsStream, TlsRefusal>, Result<TlsStream, TlsRefusal>);

/// (server's end, client's end)
async fn shake(ring: &Ring, server: TlsMaterial, client: TlsMaterial) -> Ends {
    let (server, client) = (Arc::new(server), Arc::new(client));
    shake_again(ring, &server, &client, &Sessions::default()).await
}

/// (server's end, client's end), with sessions to resume.
pub(super) async fn shake_again(
    ring: &Ring,
    server: &Arc<TlsMaterial>,
    client: &Arc<TlsMaterial>,
    sessions: &Sessions,
) -> Ends {
    let (at_server, at_client) = pair(ring).await;
    connected(ring, at_server, at_client, server, client, sessions).await
}

async fn connected(
    ring: &Ring,
    at_server: Socket,
    at_client: Socket,
    server: &Arc<TlsMaterial>,
    client: &Arc<TlsMaterial>,
    sessions: &Sessions,
) -> Ends {
    let connect = async {
        let stream = connect(ring, at_client, client, sessions, SNI, Inner::Http1).await?;
        // Otherwise it goes with the first bytes, for which the server would wait here.
        stream.finish_handshake().await?;
        Ok(stream)
    };
    both(accept(ring, at_server, server, &Budget::new(0)), connect).await
}

fn reviews(house: &House) -> TlsMaterial {
    house
        .material(&workload("reviews-sa", "reviews", "v3"))
        .unwrap()
}

fn productpage(house: &House) -> TlsMaterial {
    house
        .material(&workload("product-sa", "productpage", "v1"))
        .unwrap()
}

pub(super) fn out(bytes: &'static [u8]) -> Out {
    Chunk::from_static(bytes).into()
}

async fn read_all(stream: &impl ByteStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let chunk = stream.recv().await?;
        if chunk.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(&chunk);
    }
}

#[test]
fn both_ends_know_each_other() {
    on_ring(|ring| async move {
        let house = House::new();
        let (server, client) = shake(&ring, reviews(&house), productpage(&house)).await;
        let (server, client) = (server.unwrap(), client.unwrap());
        assert_eq!(
            server.peer().service,
            ServiceId::new("productpage", "default")
        );
        assert_eq!(
            client.peer().spiffe.as_str(),
            "spiffe://mesh.local/ns/default/sa/reviews-sa"
        );
        assert_eq!(client.peer().labels["version"], "v3");
        assert_eq!(server.sni(), Some(SNI));
        assert_eq!(
            (server.inner(), client.inner()),
            (Inner::Http1, Inner::Http1)
        );

        assert!(client.try_recv().is_none());
        client.send(out(b"ping")).await.unwrap();
        assert_eq!(&server.recv().await.unwrap()[..], b"ping");
        let mut answer = Out::new();
        for piece in [&b"p"[..], b"on", b"g"] {
            answer.push(Chunk::from_static(piece)).unwrap();
        }
        server.send(answer).await.unwrap();
        // Several pieces are one record.
        assert_eq!(&client.recv().await.unwrap()[..], b"pong");
    });
}

#[test]
fn each_direction_ends_by_itself() {
    on_ring(|ring| async move {
        let house = House::new();
        let (server, client) = shake(&ring, reviews(&house), productpage(&house)).await;
        let (server, client) = (server.unwrap(), client.unwrap());
        client.send(out(b"request")).await.unwrap();
        client.shutdown_write().await.unwrap();
        assert_eq!(read_all(&server).await.unwrap(), b"request");
        // The end stays the end.
        assert!(server.recv().await.unwrap().is_empty());
        server.send(out(b"late answer")).await.unwrap();
        server.shutdown_write().await.unwrap();
        assert_eq!(read_all(&client).await.unwrap(), b"late answer");
    });
}

#[test]
fn a_cut_is_not_an_end() {
    on_ring(|ring| async move {
        let house = House::new();
        let (server, client) = shake(&ring, reviews(&house), productpage(&house)).await;
        let (server, client) = (server.unwrap(), client.unwrap());
        client.send(out(b"half of it")).await.unwrap();
        client.flush().await.unwrap();
        // Dropped without close_notify: the TCP stream ends, the TLS one does not.
        drop(client);
        let error = read_all(&server).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    });
}

#[test]
fn sixty_four_mebibytes_arrive_as_they_left() {
    const LEN: usize = 64 << 20;
    let byte = |at: usize| (at ^ (at >> 8) ^ (at >> 16)) as u8;
    on_ring(move |ring| async move {
        let house = House::new();
        let (server, client) = shake(&ring, reviews(&house), productpage(&house)).await;
        let (server, client) = (server.unwrap(), client.unwrap());
        let send = async {
            let mut at = 0;
            while at < LEN {
                let mut out = Out::new();
                // Pieces of odd sizes, several to a send.
                while at < LEN && out.room() > 0 {
                    let Some(mut buf) = ring.buf() else { break };
                    let len = (1 + at % 16_000).min(LEN - at);
                    for (to, from) in buf.spare()[..len].iter_mut().zip(at..) {
                        *to = byte(from);
                    }
                    buf.advance(len);
                    at += len;
                    out.push(buf).unwrap();
                }
                client.send(out).await.unwrap();
            }
            client.shutdown_write().await.unwrap();
        };
        let receive = async {
            let mut at = 0;
            loop {
                let chunk = server.recv().await.unwrap();
                if chunk.is_empty() {
                    return at;
                }
                for got in &chunk[..] {
                    assert_eq!(*got, byte(at), "at {at}");
                    at += 1;
                }
            }
        };
        let ((), received) = both(send, receive).await;
        assert_eq!(received, LEN);
    });
}

/// What the server makes of a client, and the client of a server.
#[test]
fn the_wrong_peer_gets_no_stream() {
    on_ring(|ring| async move {
        let (house, stranger) = (House::new(), House::new());
        let reason = |end: Result<TlsStream, TlsRefusal>| end.map(drop).unwrap_err().reason();

        // Signed by another authority, though it trusts ours.
        let impostor = |params: &CertificateParams| {
            let (cert, key) = stranger.sign(params);
            TlsMaterial::build(vec![cert], key, &house.roots(), trust()).unwrap()
        };
        let client = impostor(&workload("product-sa", "productpage", "v1"));
        let (server, _) = shake(&ring, reviews(&house), client).await;
        assert!(
            matches!(server, Err(TlsRefusal::Peer(PeerRefusal::Chain(_)))),
            "{server:?}"
        );
        let server = impostor(&workload("reviews-sa", "reviews", "v3"));
        let (server, client) = shake(&ring, server, productpage(&house)).await;
        assert!(
            matches!(client, Err(TlsRefusal::Peer(PeerRefusal::Chain(_)))),
            "{client:?}"
        );
        // The other end hears of it by an alert.
        assert!(matches!(server, Err(TlsRefusal::Protocol(_))), "{server:?}");

        // A revoked client.
        let (cert, key) = house.sign(&workload("reviews-sa", "reviews", "v3"));
        let strict = PeerTrust {
            revoked_serials: vec![vec![9, 9]],
            ..trust()
        };
        let server = TlsMaterial::build(vec![cert], key, &house.roots(), strict).unwrap();
        let mut revoked = workload("product-sa", "productpage", "v1");
        revoked.serial_number = Some(SerialNumber::from_slice(&[9, 9]));
        let (server, _) = shake(&ring, server, house.material(&revoked).unwrap()).await;
        assert_eq!(reason(server), Reason::PeerRefused);

        // Our own certificate has expired: said so, on either side, before anything is sent.
        let mut old = workload("product-sa", "productpage", "v1");
        old.not_after = (SystemTime::now() - Duration::from_secs(2)).into();
        let expired = Arc::new(house.material(&old).unwrap());
        let (at_server, at_client) = pair(&ring).await;
        let refused = connect(
            &ring,
            at_client,
            &expired,
            &Sessions::default(),
            SNI,
            Inner::Tcp,
        )
        .await;
        assert_eq!(reason(refused), Reason::SvidExpired);
        let refused = accept(&ring, at_server, &expired, &Budget::new(0)).await;
        assert_eq!(reason(refused), Reason::SvidExpired);
    });
}

/// Peers that our own material cannot be: made with rustls alone.
#[test]
fn a_forged_peer_gets_no_stream() {
    type Spoil = fn(&mut CertificateParams);
    let spoils: [(&str, Spoil); 4] = [
        ("two URIs", |p| {
            p.subject_alt_names
                .push(uri("spiffe://mesh.local/ns/default/sa/other"));
        }),
        ("another trust domain", |p| {
            p.subject_alt_names = vec![uri("spiffe://evil.local/ns/default/sa/reviews-sa")];
        }),
        ("an authority", |p| {
            p.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        }),
        ("expired", |p| {
            p.not_after = (SystemTime::now() - Duration::from_secs(2)).into();
        }),
    ];
    for (case, spoil) in spoils {
        on_ring(move |ring| async move {
            let house = House::new();
            let mut params = workload("product-sa", "productpage", "v1");
            spoil(&mut params);
            let forged = forge(&house, Some(&params));
            let refusal = accept_forged(&ring, &house, forged).await;
            assert_eq!(refusal.reason(), Reason::PeerRefused, "{case}: {refusal}");
        });
    }
    on_ring(|ring| async move {
        let house = House::new();
        let forged = forge(&house, None);
        let refusal = accept_forged(&ring, &house, forged).await;
        assert!(
            matches!(refusal, TlsRefusal::Peer(PeerRefusal::NoCertificate)),
            "{refusal}"
        );
    });
}

/// A client configuration with any certificate, or none.
fn forge(house: &House, params: Option<&CertificateParams>) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(house.roots().remove(0)).unwrap();
    let verifier = Arc::new(verify::MeshServerVerifier {
        roots: Arc::new(roots),
        provider: Arc::clone(&provider),
    });
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match params {
        Some(params) => {
            let (cert, key) = house.sign(params);
            config.with_client_auth_cert(vec![cert], key).unwrap()
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![Inner::Http1.alpn().to_vec()];
    Arc::new(config)
}

async fn accept_forged(
    ring: &Ring,
    house: &House,
    forged: Arc<rustls::ClientConfig>,
) -> TlsRefusal {
    let server = Arc::new(reviews(house));
    let (at_server, at_client) = pair(ring).await;
    let client = async {
        let name = rustls_pki_types::ServerName::try_from(SNI).unwrap();
        let tls = rustls::ClientConnection::new(forged, name).unwrap();
        let pipe = Pipe::new(ring, at_client, tls.into());
        // In TLS 1.3 the client is done before the server has looked at its certificate.
        let _ = pipe.handshake(Chunk::empty()).await;
        let _ = pipe.drain().await;
        pipe
    };
    let (refused, _client) = both(accept(ring, at_server, &server, &Budget::new(0)), client).await;
    refused.map(drop).unwrap_err()
}

#[test]
fn what_is_not_tls_is_refused_by_name() {
    on_ring(|ring| async move {
        let house = House::new();
        let server = Arc::new(reviews(&house));
        let (at_server, at_client) = pair(&ring).await;
        at_client
            .send(out(b"GET / HTTP/1.1\r\nHost: reviews\r\n\r\n"))
            .await
            .unwrap();
        let refusal = accept(&ring, at_server, &server, &Budget::new(0))
            .await
            .map(drop)
            .unwrap_err();
        assert_eq!(refusal.reason(), Reason::PlaintextRefused);
        // The client sees the connection go, not an answer.
        let end = at_client.recv().await;
        assert!(end.is_err() || end.unwrap().is_empty());

        // TLS, then garbage.
        let (at_server, at_client) = pair(&ring).await;
        at_client
            .send(out(
                b"\x16\x03\x01\x00\x05hello world, this is no handshake",
            ))
            .await
            .unwrap();
        let refusal = accept(&ring, at_server, &server, &Budget::new(0))
            .await
            .map(drop)
            .unwrap_err();
        assert!(matches!(refusal, TlsRefusal::Protocol(_)), "{refusal}");

        // Nothing but an end.
        let (at_server, at_client) = pair(&ring).await;
        drop(at_client);
        let refusal = accept(&ring, at_server, &server, &Budget::new(0))
            .await
            .map(drop)
            .unwrap_err();
        assert!(matches!(refusal, TlsRefusal::Io(_)), "{refusal}");
    });
}

/// New material is for new connections; those that stand go on.
#[test]
fn rotation_leaves_connections_alone() {
    on_ring(|ring| async move {
        let house = House::new();
        let (server, client) = shake(&ring, reviews(&house), productpage(&house)).await;
        let (server, client) = (server.unwrap(), client.unwrap());
        for _ in 0..3 {
            // Fresh keys on both sides, the same authority.
            let (a, b) = shake(&ring, reviews(&house), productpage(&house)).await;
            let (a, b) = (a.unwrap(), b.unwrap());
            b.send(out(b"new")).await.unwrap();
            assert_eq!(&a.recv().await.unwrap()[..], b"new");
            client.send(out(b"old")).await.unwrap();
            assert_eq!(&server.recv().await.unwrap()[..], b"old");
        }
    });
}

/// A send given up half-way tears the record sequence: nothing may follow.
#[test]
fn a_torn_stream_sends_no_more() {
    on_ring(|ring| async move {
        let house = House::new();
        let (server, client) = shake(&ring, reviews(&house), productpage(&house)).await;
        let (_server, client) = (server.unwrap(), client.unwrap());
        // Nobody reads: after a while a send has to wait, and is dropped there.
        let stuck = loop {
            let mut out = Out::new();
            while out.room() > 0 {
                let mut buf = ring.buf().unwrap();
                let len = buf.room();
                buf.advance(len);
                out.push(buf).unwrap();
            }
            let until = ring.now().plus_ms(200);
            let sleep = pin!(ring.sleep_until(until));
            if crate::wait::or_timeout(client.send(out), sleep)
                .await
                .is_none()
            {
                break true;
            }
        };
        assert!(stuck);
        let error = client.send(out(b"more")).await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn a_long_handshake_needs_room() {
    on_ring(|ring| async move {
        let house = House::new();
        let server = Arc::new(reviews(&house));
        // A hello of 64 KiB, in records of 8 KiB.
        let record: &'static [u8] = [&[22, 3, 1, 0x20, 0][..], &[1, 0, 0xff, 0xf0], &[7; 8_188]]
            .concat()
            .leak();
        for (max, fits) in [(0, false), (1 << 20, true)] {
            let budget = Budget::new(max);
            let (at_server, at_client) = pair(&ring).await;
            at_client.send(out(record)).await.unwrap();
            at_client.send(out(record)).await.unwrap();
            if fits {
                at_client.shutdown_write();
            }
            let refusal = accept(&ring, at_server, &server, &budget)
                .await
                .map(drop)
                .unwrap_err();
            match fits {
                true => assert!(matches!(refusal, TlsRefusal::Io(_)), "{refusal}"),
                false => assert_eq!(refusal.reason(), Reason::Shed, "{refusal}"),
            }
            assert_eq!(budget.kept(), 0);
        }
    });
}
