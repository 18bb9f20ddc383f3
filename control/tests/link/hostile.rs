//! Bytes that break the protocol: the link is closed with a reason and counted, and the session of
//! another sidecar goes on.

use quinn::{Connection, ConnectionError};
use ringmesh_control::service::Counters;
use ringmesh_wire::frame::{self, Kind, MAGIC};
use ringmesh_wire::{Hello, NodeId, Reject, Report, Revision, codec};

use crate::player::{House, PATIENCE, greet, hello, registration, state, until};

fn sealed(kind: Kind, payload: &[u8]) -> Vec<u8> {
    frame::seal(kind, Revision(0), payload).unwrap()
}

/// Writes `bytes` on a new stream and says with which reason the link was closed for it.
async fn closed_for(link: &Connection, bytes: &[u8]) -> String {
    let (mut send, _recv) = link.open_bi().await.unwrap();
    send.write_all(bytes).await.unwrap();
    send.finish().unwrap();
    let closed = tokio::time::timeout(PATIENCE, link.closed()).await;
    match closed.expect("the link is closed") {
        ConnectionError::ApplicationClosed(close) => {
            String::from_utf8_lossy(&close.reason).into_owned()
        }
        other => panic!("closed otherwise: {other}"),
    }
}

fn count(counters: &Counters, reason: &str) -> u64 {
    let mut registry = prometheus_client::registry::Registry::default();
    counters.register(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let line = format!("ringmesh_control_link_refused_total{{reason=\"{reason}\"}} ");
    let found = text.lines().find_map(|l| l.strip_prefix(&line));
    found.map_or(0, |n| n.parse().unwrap())
}

/// Every way to be wrong, and the reason it is closed for.
fn cases() -> Vec<(&'static str, Vec<u8>)> {
    let hello = codec::encode(&hello("n2")).unwrap();
    let good = sealed(Kind::Hello, &hello);
    let flipped = |at: usize| {
        let mut bytes = good.clone();
        bytes[at] ^= 0xff;
        bytes
    };
    let mut skewed = good.clone();
    skewed[4] = 99;
    let mut oversized = good.clone();
    oversized[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    // Over what a sidecar may send, but within what a frame may hold.
    let mut large = good.clone();
    large[16..20].copy_from_slice(&(8_u32 << 20).to_le_bytes());
    let mut trailing = hello.clone();
    trailing.push(0);
    let noise: Vec<u8> = (0..4_096_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let mut noise_inside = MAGIC.to_vec();
    noise_inside.extend([1, 0, 1, 0]);
    noise_inside.extend(&noise);
    vec![
        ("wire_magic", noise.clone()),
        ("wire_too_long", noise_inside),
        ("wire_truncated", good[..10].to_vec()),
        ("wire_truncated", good[..good.len() - 1].to_vec()),
        ("wire_version", skewed),
        ("wire_kind", flipped(6)),
        ("wire_too_long", oversized),
        ("wire_too_long", large),
        ("wire_checksum", flipped(good.len() - 1)),
        ("wire_trailing", sealed(Kind::Hello, &trailing)),
        ("wire_malformed", sealed(Kind::Hello, &[0xff; 64])),
        ("wire_unexpected", sealed(Kind::Push, &hello)),
        ("wire_unexpected", Vec::new()),
    ]
}

#[tokio::test]
async fn whatever_comes_only_its_own_link_is_closed() {
    let house = House::new();
    let quiet = house.join("n1", "reviews").await;
    let mut session = house.session(&quiet).await;
    session.say(Kind::Register, &registration("reviews")).await;
    until("registered", || state(&house, "n1").is_some()).await;
    let hostile = house.join("n2", "reviews").await;

    for (reason, bytes) in cases() {
        let before = count(house.control.counters(), reason);
        let link = house.link(Some(&hostile.workload)).await.unwrap();
        let why = closed_for(&link, &bytes).await;
        assert!(why.starts_with(reason), "{reason}: {why}");
        assert_eq!(
            count(house.control.counters(), reason),
            before + 1,
            "{reason}"
        );
    }
    // The same from somebody without any certificate.
    for (reason, bytes) in cases() {
        let link = house.link(None).await.unwrap();
        // A whole frame that is not an Enroll is refused with a message instead: see identity.
        if frame::open(&bytes).is_ok() {
            continue;
        }
        let why = closed_for(&link, &bytes).await;
        assert!(why.starts_with("wire_"), "{reason}: {why}");
    }
    assert!(
        session.link.close_reason().is_none(),
        "the quiet sidecar's link stands"
    );
    assert!(state(&house, "n1").is_some());
    assert_eq!(house.control.sessions().len(), 1);
}

#[tokio::test]
async fn bytes_in_the_middle_of_a_session_end_it_and_it_may_come_back() {
    let house = House::new();
    let joined = house.join("n1", "reviews").await;
    let mut session = house.session(&joined).await;
    session.send.write_all(&[0x55; 100]).await.unwrap();
    let closed = tokio::time::timeout(PATIENCE, session.link.closed())
        .await
        .unwrap();
    assert!(closed.to_string().contains("wire_magic"), "{closed}");
    house.session(&joined).await;
    until("a session", || house.control.sessions().len() == 1).await;
}

#[tokio::test]
async fn a_message_in_the_name_of_another_node_closes_the_link() {
    let house = House::new();
    let joined = house.join("n1", "reviews").await;
    let link = house.link(Some(&joined.workload)).await.unwrap();
    let report = Report {
        node: NodeId("n2".into()),
        boot: 1,
        sequence: 1,
        series: Vec::new(),
    };
    let mut uni = link.open_uni().await.unwrap();
    crate::player::say(&mut uni, Kind::Report, &report).await;
    let closed = tokio::time::timeout(PATIENCE, link.closed()).await.unwrap();
    assert!(closed.to_string().contains("wire_unexpected"), "{closed}");
}

#[tokio::test]
async fn versions_that_do_not_meet_and_names_that_differ_are_refused_with_the_reason() {
    let house = House::new();
    let joined = house.join("n1", "reviews").await;
    type Edit = fn(&mut Hello);
    let cases: [(&str, Edit); 2] = [
        ("version_mismatch", |h| {
            (h.version_min, h.version_max) = (7, 9);
        }),
        ("node_mismatch", |h| h.node = NodeId("n2".into())),
    ];
    for (code, edit) in cases {
        let link = house.link(Some(&joined.workload)).await.unwrap();
        let mut wrong = hello("n1");
        edit(&mut wrong);
        let mut session = greet(link, &wrong).await;
        let refused: Reject = session.expect(Kind::Reject).await;
        assert_eq!(refused.code, code);
    }
    // A newer sidecar that still reads our version is welcome.
    let link = house.link(Some(&joined.workload)).await.unwrap();
    let mut newer = hello("n1");
    newer.version_max = 9;
    let mut session = greet(link, &newer).await;
    let welcome: ringmesh_wire::Welcome = session.expect(Kind::Welcome).await;
    assert_eq!(welcome.version, ringmesh_wire::SCHEMA_VERSION);
}
