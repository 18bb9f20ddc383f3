//! Registration, leases, telemetry.

use std::time::{Duration, Instant};

use quinn::VarInt;
use ringmesh_control::publish::link::IDLE_TIMEOUT;
use ringmesh_wire::frame::Kind;
use ringmesh_wire::report::{Series, SeriesValue};
use ringmesh_wire::session::PortHealth;
use ringmesh_wire::snapshot::EndpointState;
use ringmesh_wire::{
    AppHealth, CLOSE_LEAVING, LogAck, LogBatch, NodeId, Reject, Report, Resolved, ResolvedName,
    Welcome,
};

use crate::player::{House, ask, greet, hear, hello, registration, say, state, until};

async fn registered(house: &House, node: &str, service: &str) -> crate::player::Session {
    let joined = house.join(node, service).await;
    let mut session = house.session(&joined).await;
    session.say(Kind::Register, &registration(service)).await;
    until("registered", || {
        state(house, node) == Some(EndpointState::Ready)
    })
    .await;
    session
}

#[tokio::test]
async fn one_that_leaves_is_gone_at_once() {
    let house = House::new();
    let session = registered(&house, "n1", "reviews").await;
    let left = Instant::now();
    session
        .link
        .close(VarInt::from_u32(CLOSE_LEAVING), b"leaving");
    until("withdrawn", || state(&house, "n1").is_none()).await;
    // Not by its silence, which takes that long.
    assert!(left.elapsed() < IDLE_TIMEOUT, "{:?}", left.elapsed());
}

/// A sidecar killed by -9 says nothing more; so does one without keep-alives. It is gone within three seconds, but
/// for what the machine takes to run whom it concerns.
#[tokio::test]
async fn one_that_falls_silent_is_gone_when_its_link_has_been_idle() {
    const { assert!(IDLE_TIMEOUT.as_millis() < 3_000) };
    let house = House::new();
    let _other = registered(&house, "n2", "reviews").await;
    let joined = house.join("n1", "reviews").await;
    let link = house.link_with(Some(&joined.workload), None).await.unwrap();
    let mut session = greet(link, &hello("n1")).await;
    let _: Welcome = session.expect(Kind::Welcome).await;
    session.say(Kind::Register, &registration("reviews")).await;
    until("registered", || {
        state(&house, "n1") == Some(EndpointState::Ready)
    })
    .await;
    let silent = Instant::now();
    until("withdrawn", || state(&house, "n1").is_none()).await;
    assert!(
        silent.elapsed() < Duration::from_secs(10),
        "{:?}",
        silent.elapsed()
    );
    assert_eq!(state(&house, "n2"), Some(EndpointState::Ready));
}

#[tokio::test]
async fn a_newer_session_of_a_node_takes_over() {
    let house = House::new();
    let joined = house.join("n1", "reviews").await;
    let old = house.session(&joined).await;
    let mut new = house.session(&joined).await;
    let closed = tokio::time::timeout(crate::player::PATIENCE, old.link.closed())
        .await
        .unwrap();
    assert!(closed.to_string().contains("took over"), "{closed}");
    new.say(Kind::Register, &registration("reviews")).await;
    until("registered", || {
        state(&house, "n1") == Some(EndpointState::Ready)
    })
    .await;
    assert_eq!(house.control.sessions().len(), 1);
}

#[tokio::test]
async fn a_registration_that_disagrees_with_the_certificate_is_refused() {
    let house = House::new();
    let joined = house.join("n1", "reviews").await;
    let mut session = house.session(&joined).await;
    session.say(Kind::Register, &registration("ratings")).await;
    let refused: Reject = session.expect(Kind::Reject).await;
    assert_eq!(refused.code, "registration_mismatch");
    assert!(house.control.endpoint_rows().is_empty());
}

#[tokio::test]
async fn an_app_that_is_down_withdraws_its_endpoint() {
    let house = House::new();
    let mut session = registered(&house, "n1", "reviews").await;
    let health = |healthy| AppHealth {
        ports: vec![PortHealth {
            port: 9_080,
            healthy,
            detail: String::new(),
        }],
    };
    session.say(Kind::AppHealth, &health(false)).await;
    until("withdrawn", || state(&house, "n1").is_none()).await;
    session.say(Kind::AppHealth, &health(true)).await;
    until("back", || state(&house, "n1") == Some(EndpointState::Ready)).await;
}

#[tokio::test]
async fn what_a_sidecar_says_of_names_replaces_what_it_said_and_ends_with_it() {
    let house = House::new();
    let joined = house.join("n1", "reviews").await;
    let node = NodeId("n1".into());
    let say = |addresses: &[[u8; 4]]| Resolved {
        names: vec![ResolvedName {
            name: "a.example".into(),
            addresses: addresses.iter().map(|four| (*four).into()).collect(),
            trouble: String::new(),
        }],
    };
    let link = house.link(Some(&joined.workload)).await.unwrap();
    let mut newer = hello("n1");
    newer.version_max = 2;
    let mut session = greet(link, &newer).await;
    let _: Welcome = session.expect(Kind::Welcome).await;
    for addresses in [&[[10, 0, 0, 7]][..], &[[10, 0, 0, 8], [10, 0, 0, 9]]] {
        let said = say(addresses);
        session.say(Kind::Resolved, &said).await;
        until("known", || house.control.resolved(&node) == said.names).await;
    }
    session.link.close(CLOSE_LEAVING.into(), b"leaving");
    until("forgotten", || house.control.resolved(&node).is_empty()).await;

    // One that speaks version 1 cannot say so.
    let mut session = house.session(&joined).await;
    session.say(Kind::Resolved, &say(&[])).await;
    assert!(hear(&mut session.recv).await.is_none());
}

#[tokio::test]
async fn endpoints_survive_a_kill_of_control_unconfirmed() {
    let house = House::new();
    let _session = registered(&house, "n1", "reviews").await;
    let control = std::sync::Arc::clone(&house.control);
    until("on disk", || control.book().endpoints().unwrap().len() == 1).await;
    drop(control);
    let (settings, _dir) = house.kill().await;
    let house = House::open(settings);
    assert_eq!(state(&house, "n1"), Some(EndpointState::Unconfirmed));
}

#[tokio::test]
async fn reports_replace_and_logs_are_stored_once() {
    let house = House::new();
    let joined = house.join("n1", "reviews").await;
    let link = house.link(Some(&joined.workload)).await.unwrap();
    let mut uni = link.open_uni().await.unwrap();
    for (sequence, value) in [(1, 5), (2, 9)] {
        let report = Report {
            node: NodeId("n1".into()),
            boot: 1,
            sequence,
            series: vec![Series {
                name: "ringmesh_requests_total".into(),
                labels: Vec::new(),
                value: SeriesValue::Counter(value),
            }],
        };
        say(&mut uni, Kind::Report, &report).await;
    }
    let node = NodeId("n1".into());
    let nine = Some(SeriesValue::Counter(9));
    let series = house.control.series();
    until("the report", || {
        series.value(&node, "ringmesh_requests_total", &[]) == nine
    })
    .await;

    let batch = LogBatch {
        node: node.clone(),
        boot: 1,
        first: 0,
        dropped: 0,
        lines: vec!["{\"status\":200}".into()],
    };
    for _ in 0..2 {
        let ack: LogAck = ask(&link, Kind::LogBatch, &batch, Kind::LogAck)
            .await
            .unwrap();
        assert_eq!(ack.next, 1);
    }
    let counts = house.control.log().counts();
    assert_eq!((counts.stored, counts.repeated), (1, 1));
}
