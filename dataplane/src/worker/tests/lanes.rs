//! Lanes between two sidecars, and peers that misuse them.

use std::sync::Barrier;
use std::sync::atomic::AtomicBool;

use ringmesh_wire::snapshot::MtlsMode;

use super::mesh::Pair;
use super::*;
use crate::lanes::{Decoder, Frame, LaneId, Step};
use crate::tls::tests::{House, client_config, workload};
use crate::tls::{Inner, TlsMaterial};

const HANDSHAKES: &str = "ringmesh_tls_handshakes_total";
const ACCEPTED: &str = "ringmesh_lanes_accepted_total";
const OPENED: &str = "ringmesh_lanes_opened_total";

/// Clients at once: enough that most share.
const CLIENTS: usize = 40;

/// Answers with the path that was asked, when as many have asked as there are clients: so they are all
/// under way at once.
fn all_at_once() -> (SocketAddr, Arc<AtomicUsize>) {
    let barrier = Arc::new(Barrier::new(CLIENTS));
    server(move |_, mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let path = head.split(' ').nth(1).unwrap().to_owned();
            barrier.wait();
            let len = path.len();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n{path}");
            stream.write_all(answer.as_bytes()).unwrap();
        }
    })
}

/// Every client asks `rounds` times on its connection.
fn rounds(pair: &Pair, rounds: usize) {
    let at = pair.caller.at;
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let mut stream = TcpStream::connect(at).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                for round in 0..rounds {
                    let path = format!("/{client}/{round}");
                    let request = format!("GET {path} HTTP/1.1\r\nHost: ratings\r\n\r\n");
                    stream.write_all(request.as_bytes()).unwrap();
                    let answer = read_answer(&mut stream);
                    assert!(answer.ends_with(&format!("\r\n\r\n{path}")), "{answer}");
                }
            });
        }
    });
}

#[test]
fn many_requests_share_a_connection_and_few_do_not() {
    let pair = Pair::of(Protocol::Http1, all_at_once());
    rounds(&pair, 3);
    let shaken = Pair::counted(&pair.callee, HANDSHAKES);
    assert!(shaken <= 9, "{shaken} connections for {CLIENTS} clients");
    let opened = Pair::counted(&pair.caller, OPENED);
    assert!(
        (CLIENTS as u64 - 8..=CLIENTS as u64).contains(&opened),
        "{opened}"
    );
    let lines = pair.callee.log();
    assert!(lines.iter().all(|line| line["status"] == 200));

    let (app, _) = hello();
    let pair = Pair::of(Protocol::Http1, (app, Arc::default()));
    for _ in 0..3 {
        assert!(pair.caller.get("ratings").ends_with("hello"));
    }
    assert_eq!(Pair::counted(&pair.caller, OPENED), 0);
}

#[test]
fn a_sidecar_without_lanes_is_spoken_to_as_before() {
    let pair = Pair::of(Protocol::Http1, all_at_once());
    let old = pair.house.material(&workload("ratings", "ratings", "v1"));
    pair.give(&pair.callee, old.unwrap().without_lanes());
    rounds(&pair, 2);
    assert_eq!(Pair::counted(&pair.caller, OPENED), 0);
    assert_eq!(Pair::counted(&pair.callee, ACCEPTED), 0);
}

#[test]
fn a_revocation_ends_every_lane_of_a_connection() {
    let pair = Pair::of(Protocol::Http1, all_at_once());
    let house = &pair.house;
    let mut caller = workload("productpage", "productpage", "v1");
    caller.serial_number = Some(rcgen::SerialNumber::from_slice(&[42]));
    pair.give(&pair.caller, house.material(&caller).unwrap());
    rounds(&pair, 1);
    // None of these is answered: one short of what the app waits for, all of them under way.
    let mut clients: Vec<TcpStream> = (1..CLIENTS).map(|_| pair.caller.client()).collect();
    for client in &mut clients {
        client
            .write_all(b"GET / HTTP/1.1\r\nHost: ratings\r\n\r\n")
            .unwrap();
    }
    let (cert, key) = house.sign(&workload("ratings", "ratings", "v1"));
    let trust = crate::tls::PeerTrust {
        revoked_serials: vec![vec![42]],
        ..crate::tls::tests::trust()
    };
    let revoking = TlsMaterial::build(vec![cert], key, &house.roots(), trust).unwrap();
    pair.give(&pair.callee, revoking);
    for client in &mut clients {
        let answer = read_answer(client);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
}

/// What two requests come to of which the second waits for the connection that the first has begun: each goes
/// by the tables of its time. `is_ours`: whether those know the callee by the name it proves.
fn of_two_that_wait_for_one(is_ours: [bool; 2]) -> [String; 2] {
    // Those have connections of their own.
    const ALONE: usize = 5;
    let (asked, answers) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let (count, does) = (Arc::clone(&asked), Arc::clone(&answers));
    let (app, _) = server(move |_, mut stream| {
        while read_head(&mut stream).is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            while !does.load(Ordering::SeqCst) {
                pause();
            }
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello");
        }
    });
    let (called, open) = (
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicBool::new(false)),
    );
    let (calls, is_open) = (Arc::clone(&called), Arc::clone(&open));
    let gate = |port| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let at = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for caller in listener.incoming() {
                let caller = caller.unwrap();
                let is_alone = calls.fetch_add(1, Ordering::SeqCst) < ALONE;
                let is_open = Arc::clone(&is_open);
                std::thread::spawn(move || {
                    while !is_alone && !is_open.load(Ordering::SeqCst) {
                        pause();
                    }
                    let callee = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
                    for (from, to) in [(&caller, &callee), (&callee, &caller)] {
                        let (mut from, mut to) =
                            (from.try_clone().unwrap(), to.try_clone().unwrap());
                        std::thread::spawn(move || {
                            let _ = std::io::copy(&mut from, &mut to);
                            let _ = to.shutdown(std::net::Shutdown::Write);
                        });
                    }
                });
            }
        });
        at
    };
    let app = (app, Arc::default());
    let pair = Pair::by_way_of(Protocol::Http1, app, ConnLimits::default(), gate);
    let until = |count: &AtomicUsize, wanted: usize| {
        let patience = Instant::now() + PATIENCE;
        while count.load(Ordering::SeqCst) < wanted {
            assert!(Instant::now() < patience, "{wanted} never come");
            pause();
        }
    };
    let ask = || {
        let mut client = pair.caller.client();
        let request = b"POST / HTTP/1.1\r\nHost: ratings\r\nContent-Length: 0\r\n\r\n";
        client.write_all(request).unwrap();
        client
    };
    let alone: Vec<TcpStream> = (1..=ALONE)
        .map(|nth| {
            let client = ask();
            until(&asked, nth);
            client
        })
        .collect();
    pair.caller.configure(pair.tables_by(is_ours[0]));
    let mut first = ask();
    until(&called, ALONE + 1);
    pair.caller.configure(pair.tables_by(is_ours[1]));
    let mut second = ask();
    // The worker has turned since, and has seen it.
    pair.caller.log();
    assert_eq!(called.load(Ordering::SeqCst), ALONE + 1);
    answers.store(true, Ordering::SeqCst);
    open.store(true, Ordering::SeqCst);
    let got = [&mut first, &mut second].map(read_answer);
    drop(alone);
    got
}

#[test]
fn who_waits_for_a_connection_of_another_goes_by_its_own_tables() {
    for is_ours in [[true, false], [false, true], [true, true]] {
        let got = of_two_that_wait_for_one(is_ours);
        for (is_ours, answer) in is_ours.iter().zip(got) {
            match is_ours {
                true => assert!(answer.ends_with("hello"), "{answer}"),
                false => assert!(
                    answer.contains("x-ringmesh-reason: identity_mismatch\r\n"),
                    "{answer}"
                ),
            }
        }
    }
}

/// A sidecar that says what it likes.
struct Peer {
    tls: rustls::StreamOwned<rustls::ClientConnection, TcpStream>,
    decoder: Decoder,
    unread: Vec<u8>,
}

impl Peer {
    fn of(callee: &Bed, house: &House) -> Self {
        let material = house.material(&workload("productpage", "productpage", "v1"));
        let config = client_config(&material.unwrap(), Inner::Lanes);
        let name = "p9080.ratings.default.ringmesh".try_into().unwrap();
        let tls = rustls::ClientConnection::new(config, name).unwrap();
        let mut tls = rustls::StreamOwned::new(tls, callee.client());
        while tls.conn.is_handshaking() {
            tls.conn.complete_io(&mut tls.sock).unwrap();
        }
        assert_eq!(tls.conn.alpn_protocol(), Some(Inner::Lanes.alpn()));
        Self {
            tls,
            decoder: Decoder::default(),
            unread: Vec::new(),
        }
    }

    fn say(&mut self, frame: Frame, bytes: &[u8]) {
        let all = [&frame.encode()[..], bytes].concat();
        self.tls.write_all(&all).unwrap();
    }

    fn data(&mut self, lane: LaneId, open: bool, bytes: &[u8]) {
        let len = bytes.len().try_into().unwrap();
        let frame = Frame::Data {
            lane,
            open,
            end: false,
            len,
        };
        self.say(frame, bytes);
    }

    /// The next frame and its bytes; `None`: the connection has ended.
    fn next(&mut self) -> Option<(Frame, Vec<u8>)> {
        let mut frame = None;
        let mut carried = Vec::new();
        loop {
            while !self.unread.is_empty() {
                let step = self.decoder.next(&self.unread).unwrap();
                let (taken, done) = match step {
                    Step::Frame { len, frame: head } => {
                        frame = Some(head);
                        (len, !matches!(head, Frame::Data { len: 1.., .. }))
                    }
                    Step::Bytes { len, done } => {
                        carried.extend_from_slice(&self.unread[..len]);
                        (len, done)
                    }
                    Step::More { len } => (len, false),
                };
                self.unread.drain(..taken);
                if let Some(frame) = frame.filter(|_| done) {
                    return Some((frame, carried));
                }
            }
            let mut buffer = [0; 4096];
            match self.tls.read(&mut buffer) {
                Ok(len @ 1..) => self.unread.extend_from_slice(&buffer[..len]),
                Ok(0) | Err(_) => return None,
            }
        }
    }

    /// Everything that comes on a lane until it has ended or holds `len` bytes.
    fn heard(&mut self, lane: LaneId, len: usize) -> String {
        let mut all = Vec::new();
        while all.len() < len {
            let Some((frame, bytes)) = self.next() else {
                break;
            };
            let Frame::Data { lane: of, end, .. } = frame else {
                assert_ne!(frame, Frame::Reset { lane });
                continue;
            };
            assert_eq!(of, lane);
            all.extend(bytes);
            if end {
                break;
            }
        }
        String::from_utf8(all).unwrap()
    }
}

/// ratings' sidecar with an app behind.
fn callee(app: SocketAddr, limits: ConnLimits) -> (Bed, House) {
    let mut draft = Draft::new();
    let port = &mut draft.workload.ports[0];
    (port.app, port.mtls, port.protocol) = (app, MtlsMode::Strict, Protocol::Http1);
    let (bed, house) = (Bed::start_with(&draft, Role::Mesh, limits), House::new());
    let material = house.material(&workload("ratings", "ratings", "v1"));
    bed.mailbox
        .send(ToShard::Tls(Arc::new(material.unwrap())))
        .unwrap();
    bed.log();
    (bed, house)
}

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: ratings\r\n\r\n";

#[test]
fn a_lane_is_an_http1_connection_with_its_ends() {
    let (app, _) = hello();
    let (bed, house) = callee(app, ConnLimits::default());
    let mut peer = Peer::of(&bed, &house);
    let lane = LaneId::new(3, 1);
    // One request after the other, the second in pieces.
    peer.data(lane, true, GET);
    let first = peer.heard(lane, 1);
    assert!(first.ends_with("\r\n\r\nhello"), "{first}");
    for byte in GET {
        peer.data(lane, false, &[*byte]);
    }
    assert_eq!(peer.heard(lane, first.len()).len(), first.len());
    peer.say(Frame::Ping(77), &[]);
    assert_eq!(peer.next(), Some((Frame::Pong(77), Vec::new())));
    // What is no request gets HTTP's answer, and its lane ends alone.
    let wrong = LaneId::new(0, 1);
    peer.data(wrong, true, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    let refused = peer.heard(wrong, usize::MAX);
    assert!(refused.starts_with("HTTP/1.1 "), "{refused}");
    let end = Frame::Data {
        lane,
        open: false,
        end: true,
        len: 0,
    };
    peer.say(end, &[]);
    assert_eq!(peer.heard(lane, usize::MAX), "", "its end is answered");
    let again = LaneId::new(3, 2);
    peer.data(again, true, GET);
    assert!(peer.heard(again, 1).ends_with("hello"));
    assert_eq!(Pair::counted(&bed, ACCEPTED), 3);
}

#[test]
fn an_upgrade_on_a_lane_is_a_tunnel_with_two_ends() {
    let (app, _) = server(|_, mut stream| {
        assert!(read_head(&mut stream).is_some());
        stream
            .write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhi",
            )
            .unwrap();
        let mut said = Vec::new();
        if stream.read_to_end(&mut said).is_ok() {
            said.reverse();
            let _ = stream.write_all(&said);
        }
    });
    let (bed, house) = callee(app, ConnLimits::default());
    let mut peer = Peer::of(&bed, &house);
    let lane = LaneId::new(0, 1);
    peer.data(
        lane,
        true,
        b"GET / HTTP/1.1\r\nHost: ratings\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    );
    let mut said = peer.heard(lane, 1);
    while !said.ends_with("\r\n\r\nhi") {
        said += &peer.heard(lane, 1);
    }
    assert!(said.starts_with("HTTP/1.1 101 "), "{said}");
    peer.data(lane, false, b"abc");
    let end = Frame::Data {
        lane,
        open: false,
        end: true,
        len: 0,
    };
    peer.say(end, &[]);
    assert_eq!(peer.heard(lane, usize::MAX), "cba");
}

#[test]
fn a_peer_that_breaks_the_protocol_is_cut_off_and_counted_and_nobody_else() {
    let (app, _) = hello();
    let (bed, house) = callee(app, ConnLimits::default());
    let mut other = Peer::of(&bed, &house);
    let lane = LaneId::new(0, 1);
    for (at, wrong) in [
        b"GET / HTTP/1.1\r\n\r\n".to_vec(),
        Frame::Taken { lane, bytes: 1 }.encode().to_vec(),
        Frame::Ping(0).encode().repeat(1_000),
    ]
    .into_iter()
    .enumerate()
    {
        let mut peer = Peer::of(&bed, &house);
        let _ = peer.tls.write_all(&wrong);
        while peer.next().is_some() {}
        assert_eq!(
            Pair::counted(&bed, "ringmesh_connections_refused_total"),
            at as u64 + 1
        );
        other.data(LaneId::new(at as u8, 1), true, GET);
        assert!(other.heard(LaneId::new(at as u8, 1), 1).ends_with("hello"));
    }
}

#[test]
fn lanes_count_as_connections() {
    let (app, _) = hello();
    let limits = ConnLimits {
        conns_max: 3,
        ..ConnLimits::default()
    };
    let (bed, house) = callee(app, limits);
    let mut peer = Peer::of(&bed, &house);
    for place in 0..2 {
        let lane = LaneId::new(place, 1);
        peer.data(lane, true, GET);
        assert!(peer.heard(lane, 1).ends_with("hello"));
    }
    let third = LaneId::new(2, 1);
    peer.data(third, true, GET);
    let answer = peer.heard(third, usize::MAX);
    assert!(answer.contains("x-ringmesh-reason: shed\r\n"), "{answer}");
}

#[test]
fn a_sidecar_that_drains_asks_for_no_more_lanes_and_answers_those_it_has() {
    let (app, _) = hello();
    let (bed, house) = callee(app, ConnLimits::default());
    let mut peer = Peer::of(&bed, &house);
    let (before, crossing) = (LaneId::new(0, 1), LaneId::new(1, 1));
    peer.data(before, true, GET);
    assert!(peer.heard(before, 1).ends_with("hello"));
    bed.mailbox.send(ToShard::Drain).unwrap();
    assert_eq!(peer.next(), Some((Frame::Last, Vec::new())));
    peer.data(crossing, true, GET);
    let answer = peer.heard(crossing, 1);
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    peer.say(Frame::Last, &[]);
    peer.data(before, false, GET);
    let answer = peer.heard_of(before);
    assert!(answer.contains("connection: close\r\n"), "{answer}");
}

impl Peer {
    /// What comes on a lane, whatever the others do.
    fn heard_of(&mut self, lane: LaneId) -> String {
        loop {
            let (frame, bytes) = self.next().unwrap();
            if matches!(frame, Frame::Data { lane: of, len: 1.., .. } if of == lane) {
                return String::from_utf8(bytes).unwrap();
            }
        }
    }
}

#[test]
fn bodies_larger_than_a_window_pass_both_ways() {
    // Sends back what it got.
    let (app, _) = server(|_, mut stream| {
        while let Some(head) = read_head(&mut stream) {
            let lower = head.to_ascii_lowercase();
            let len = lower.split("content-length: ").nth(1).unwrap();
            let len: usize = len.lines().next().unwrap().parse().unwrap();
            let mut body = vec![0; len];
            stream.read_exact(&mut body).unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {len}\r\n\r\n");
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
        }
    });
    let (bed, house) = callee(app, ConnLimits::default());
    let mut peer = Peer::of(&bed, &house);
    let body: Vec<u8> = (0..500_000u32).map(|at| b'a' + (at % 23) as u8).collect();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: ratings\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let lane = LaneId::new(0, 1);
    let all = [head.as_bytes(), &body].concat();
    let (mut sent, mut credit, mut untold) = (0, 65_536, 0);
    let mut got = Vec::new();
    while !got.ends_with(&body[body.len() - 100..]) || got.len() < body.len() {
        while credit > 0 && sent < all.len() {
            let now = credit.min(all.len() - sent).min(10_000);
            peer.data(lane, sent == 0, &all[sent..sent + now]);
            (sent, credit) = (sent + now, credit - now);
        }
        match peer.next().unwrap() {
            (Frame::Taken { bytes, .. }, _) => credit += usize::from(bytes),
            (Frame::Data { .. }, bytes) => {
                untold += bytes.len();
                got.extend(bytes);
                if untold >= 20_000 {
                    // A window has one byte more than a frame can say.
                    let bytes = u16::try_from(untold).unwrap_or(u16::MAX);
                    peer.say(Frame::Taken { lane, bytes }, &[]);
                    untold -= usize::from(bytes);
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(got.ends_with(&body));
}

/// Decodes a chunked body.
fn read_chunks(stream: &mut TcpStream) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\r\n") {
            stream.read_exact(&mut byte).unwrap();
            line.push(byte[0]);
        }
        let len = std::str::from_utf8(&line).unwrap().trim();
        let len = usize::from_str_radix(len, 16).unwrap();
        let mut piece = vec![0; len + 2];
        stream.read_exact(&mut piece).unwrap();
        body.extend_from_slice(&piece[..len]);
        if len == 0 {
            return body;
        }
    }
}

/// Through two sidecars, bodies whose length nobody knows before: several times what a lane may hold, on all
/// lanes of a connection at once.
#[test]
fn large_bodies_of_many_clients_pass_byte_for_byte() {
    const LEN: usize = 300_000;
    let barrier = Arc::new(Barrier::new(CLIENTS));
    let app = server(move |_, mut stream| {
        while read_head(&mut stream).is_some() {
            // All are under way before any goes on.
            barrier.wait();
            let body = read_chunks(&mut stream);
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(head.as_bytes()).unwrap();
            stream.write_all(&body).unwrap();
        }
    });
    let pair = Pair::of(Protocol::Http1, app);
    let at = pair.caller.at;
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            scope.spawn(move || {
                let mut stream = TcpStream::connect(at).unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                let body: Vec<u8> = (0..LEN).map(|at| ((at * 7 + client) % 251) as u8).collect();
                let mut request =
                    b"POST / HTTP/1.1\r\nHost: ratings\r\nTransfer-Encoding: chunked\r\n\r\n"
                        .to_vec();
                for piece in body.chunks(20_001) {
                    request.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    request.extend_from_slice(piece);
                    request.extend_from_slice(b"\r\n");
                }
                request.extend_from_slice(b"0\r\n\r\n");
                stream.write_all(&request).unwrap();
                let head = read_head(&mut stream).unwrap();
                assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                let mut got = vec![0; LEN];
                stream.read_exact(&mut got).unwrap();
                assert!(got == body, "client {client} got other bytes");
            });
        }
    });
    let opened = Pair::counted(&pair.caller, OPENED);
    assert!(opened >= CLIENTS as u64 - 8, "{opened} lanes");
}
