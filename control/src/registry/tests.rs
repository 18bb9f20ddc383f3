use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

use proptest::prelude::*;
use ringmesh_wire::session::{PortHealth, RegisteredPort};
use ringmesh_wire::snapshot::{EndpointState, Protocol};
use ringmesh_wire::{AppHealth, Attributes, NodeId, Registration, ServiceId, SpiffeId};

use super::*;
use crate::time::Mono;

fn at(ms: u64) -> Mono {
    Mono(Duration::from_millis(ms))
}

fn registration(service: &str) -> Registration {
    Registration {
        service: ServiceId::new(service, "default"),
        service_account: "sa".into(),
        labels: BTreeMap::new(),
        address: IpAddr::from([10, 0, 0, 1]),
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

fn evidence(node: &str, service: &str) -> Evidence {
    Evidence {
        serial: String::new(),
        node: NodeId(node.into()),
        id: SpiffeId::workload("mesh.local", "default", "sa").unwrap(),
        attributes: Attributes {
            service: ServiceId::new(service, "default"),
            labels: BTreeMap::new(),
        },
        local: false,
    }
}

fn join(registry: &mut Registry, session: u64, node: &str, service: &str, now: u64) {
    let joined = registry.register(
        SessionId(session),
        &evidence(node, service),
        registration(service),
        at(now),
    );
    joined.unwrap();
}

fn empty() -> Registry {
    Registry::new(Guards::default(), Vec::new(), at(0))
}

fn seen(registry: &Registry) -> Vec<(String, EndpointState)> {
    let view = registry.view();
    let endpoints = view.services.into_values().flat_map(|s| s.endpoints);
    endpoints.map(|e| (e.node.unwrap().0, e.state)).collect()
}

use EndpointState::{LastKnown, Ready, Unconfirmed};

#[test]
fn a_silent_endpoint_goes_at_once_and_the_last_of_a_service_is_marked() {
    let mut registry = empty();
    join(&mut registry, 1, "a", "reviews", 0);
    join(&mut registry, 2, "b", "reviews", 0);
    registry.lost(SessionId(1), at(10));
    assert_eq!(seen(&registry), [("b".into(), Ready)]);
    registry.lost(SessionId(2), at(20));
    assert_eq!(seen(&registry), [("b".into(), LastKnown)]);
    registry.tick(at(3_600_000));
    assert_eq!(seen(&registry), [("b".into(), LastKnown)], "however long");
    join(&mut registry, 3, "c", "reviews", 3_600_001);
    assert_eq!(seen(&registry), [("c".into(), Ready)]);
}

#[test]
fn one_that_leaves_is_removed_even_as_the_last_and_the_service_stays_known() {
    let mut registry = empty();
    join(&mut registry, 1, "a", "reviews", 0);
    registry.left(SessionId(1), at(10));
    assert_eq!(seen(&registry), []);
    let view = registry.view();
    assert_eq!(
        view.services[&ServiceId::new("reviews", "default")]
            .ports
            .len(),
        1
    );
    join(&mut registry, 2, "b", "reviews", 20);
    registry.left(SessionId(2), at(30));
    assert_eq!(
        registry.rows().len(),
        1,
        "one that left is enough to know a service"
    );
    assert_eq!(registry.to_store().len(), 1);
}

#[test]
fn a_sidecar_that_reconnects_with_a_new_certificate_is_ready_all_along() {
    let mut registry = empty();
    join(&mut registry, 1, "a", "reviews", 0);
    registry.closed(SessionId(1), at(10));
    assert_eq!(seen(&registry), [("a".into(), Ready)]);
    join(&mut registry, 2, "a", "reviews", 200);
    registry.tick(at(60_000));
    assert_eq!(seen(&registry), [("a".into(), Ready)]);
    // The old session's end, noticed late, says nothing about the new one.
    registry.lost(SessionId(1), at(60_001));
    registry.left(SessionId(1), at(60_001));
    assert_eq!(seen(&registry), [("a".into(), Ready)]);
    join(&mut registry, 3, "b", "reviews", 60_002);
    registry.closed(SessionId(2), at(60_010));
    let due = registry.deadline().unwrap();
    assert_eq!(due, at(61_510));
    registry.tick(due);
    assert_eq!(
        seen(&registry),
        [("b".into(), Ready)],
        "it did not come back"
    );
}

#[test]
fn an_endpoint_whose_app_is_down_is_withdrawn_until_it_is_up() {
    let mut registry = empty();
    join(&mut registry, 1, "a", "reviews", 0);
    let health = |healthy| AppHealth {
        ports: vec![PortHealth {
            port: 9_080,
            healthy,
            detail: String::new(),
        }],
    };
    registry.health(SessionId(1), &health(false));
    assert_eq!(seen(&registry), []);
    registry.health(SessionId(1), &health(true));
    assert_eq!(seen(&registry), [("a".into(), Ready)]);
}

#[test]
fn after_a_restart_endpoints_have_15_seconds_to_confirm() {
    let mut before = empty();
    for (session, node) in ["a", "b", "c"].into_iter().enumerate() {
        join(&mut before, session as u64, node, "reviews", 0);
    }
    let stored: Vec<_> = before.to_store().into_values().collect();
    let mut registry = Registry::new(Guards::default(), stored, at(0));
    assert_eq!(seen(&registry).len(), 3);
    assert!(
        seen(&registry)
            .iter()
            .all(|(_, state)| *state == Unconfirmed)
    );
    join(&mut registry, 9, "b", "reviews", 5_000);
    registry.tick(at(14_999));
    assert_eq!(seen(&registry).len(), 3);
    registry.tick(at(15_000));
    assert_eq!(seen(&registry), [("b".into(), Ready)]);
}

#[test]
fn a_mass_expiry_freezes_removal_until_enough_are_back() {
    let mut registry = empty();
    for n in 0..10 {
        join(&mut registry, n, &format!("n{n}"), "reviews", 0);
    }
    for n in 0..3 {
        registry.lost(SessionId(n), at(100 + n));
    }
    assert!(!registry.frozen(), "30 percent is not more than 30 percent");
    assert_eq!(seen(&registry).len(), 7);
    registry.lost(SessionId(3), at(200));
    assert!(registry.frozen());
    assert_eq!(
        seen(&registry).len(),
        10,
        "what had gone just before is back"
    );
    assert_eq!(seen(&registry)[0], ("n0".into(), Unconfirmed));
    registry.tick(at(3_600_000));
    assert_eq!(seen(&registry).len(), 10, "frozen, however long");
    join(&mut registry, 20, "n3", "reviews", 3_600_001);
    assert!(!registry.frozen());
    assert_eq!(seen(&registry).len(), 7, "those that did not return go");
}

#[test]
fn a_small_mesh_may_lose_three_of_five_and_an_operator_may_thaw() {
    let mut registry = empty();
    for n in 0..5 {
        join(&mut registry, n, &format!("n{n}"), "reviews", 0);
    }
    for n in 0..3 {
        registry.lost(SessionId(n), at(1));
    }
    assert!(!registry.frozen());
    assert_eq!(seen(&registry).len(), 2);
    registry.lost(SessionId(3), at(2));
    assert!(registry.frozen());
    assert_eq!(seen(&registry).len(), 5);
    registry.thaw(at(3));
    assert_eq!(seen(&registry), [("n4".into(), Ready)]);
}

#[test]
fn expiries_far_apart_are_not_one_event() {
    let mut registry = empty();
    for n in 0..10 {
        join(&mut registry, n, &format!("n{n}"), "reviews", 0);
    }
    for n in 0..8 {
        registry.lost(SessionId(n), at(20_000 * (n + 1)));
        assert!(!registry.frozen());
    }
    assert_eq!(seen(&registry).len(), 2);
}

#[test]
fn what_disagrees_with_the_certificate_is_refused() {
    type Edit = fn(&mut Registration);
    let cases: [(&str, Edit); 9] = [
        ("service_invalid", |r| r.service.name = "Reviews".into()),
        ("service_invalid", |r| r.service.namespace = "a.b".into()),
        ("registration_mismatch", |r| {
            r.service.name = "ratings".into();
        }),
        ("registration_mismatch", |r| {
            r.service_account = "root".into();
        }),
        ("registration_mismatch", |r| {
            r.labels.insert("version".into(), "v9".into());
        }),
        ("address_loopback", |r| {
            r.address = IpAddr::from([127, 0, 0, 1]);
        }),
        ("address_invalid", |r| {
            r.address = IpAddr::from([0, 0, 0, 0]);
        }),
        ("ports_invalid", |r| r.ports.push(r.ports[0].clone())),
        ("ports_invalid", |r| r.mesh_port = 0),
    ];
    for (code, edit) in cases {
        let mut registry = empty();
        let mut wrong = registration("reviews");
        edit(&mut wrong);
        let refused = registry.register(SessionId(1), &evidence("a", "reviews"), wrong, at(0));
        assert_eq!(refused.unwrap_err().code, code);
        assert_eq!(seen(&registry), []);
    }
    let mut local = evidence("a", "reviews");
    local.local = true;
    let mut here = registration("reviews");
    here.address = IpAddr::from([127, 0, 0, 1]);
    empty().register(SessionId(1), &local, here, at(0)).unwrap();
}

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    Join(u8),
    Leave(u8),
    Lose(u8),
    Close(u8),
    App(u8, bool),
    Pass(u16),
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let node = 0..12_u8;
    prop_oneof![
        5 => node.clone().prop_map(Step::Join),
        1 => node.clone().prop_map(Step::Leave),
        3 => node.clone().prop_map(Step::Lose),
        1 => node.clone().prop_map(Step::Close),
        1 => (node, any::<bool>()).prop_map(|(n, up)| Step::App(n, up)),
        2 => (0..20_000_u16).prop_map(Step::Pass),
        1 => Just(Step::Restart),
    ]
}

/// What the world knows of one node, without any guard.
#[derive(Debug, Clone, Copy, Default)]
struct Shadow {
    session: Option<u64>,
    healthy: bool,
    left: bool,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_happens_the_guards_hold(steps in proptest::collection::vec(step(), 1..80)) {
        let mut registry = empty();
        let mut shadow: BTreeMap<u8, Shadow> = BTreeMap::new();
        let (mut now, mut sessions) = (0, 0);
        let service = |node: u8| ["reviews", "ratings", "details"][usize::from(node % 3)];
        for step in steps {
            match step {
                Step::Join(node) => {
                    sessions += 1;
                    join(&mut registry, sessions, &format!("n{node}"), service(node), now);
                    let known = Shadow { session: Some(sessions), healthy: true, left: false };
                    shadow.insert(node, known);
                }
                Step::Leave(node) | Step::Lose(node) | Step::Close(node) => {
                    let Some(known) = shadow.get_mut(&node) else { continue };
                    let Some(session) = known.session.take() else { continue };
                    match step {
                        Step::Leave(_) => {
                            registry.left(SessionId(session), at(now));
                            known.left = true;
                        }
                        Step::Lose(_) => registry.lost(SessionId(session), at(now)),
                        _ => registry.closed(SessionId(session), at(now)),
                    }
                }
                Step::App(node, healthy) => {
                    let Some(known) = shadow.get_mut(&node) else { continue };
                    let Some(session) = known.session else { continue };
                    known.healthy = healthy;
                    let port = PortHealth { port: 9_080, healthy, detail: String::new() };
                    registry.health(SessionId(session), &AppHealth { ports: vec![port] });
                }
                Step::Pass(ms) => {
                    let end = now + u64::from(ms);
                    while let Some(due) = registry.deadline().filter(|due| *due <= at(end)) {
                        registry.tick(due);
                        prop_assert!(registry.deadline().is_none_or(|next| next > due));
                    }
                    now = end;
                }
                Step::Restart => {
                    let stored = registry.to_store().into_values().collect();
                    registry = Registry::new(Guards::default(), stored, at(now));
                    for known in shadow.values_mut() {
                        known.session = None;
                    }
                }
            }
            let view: BTreeMap<String, EndpointState> = seen(&registry).into_iter().collect();
            for (node, known) in &shadow {
                let state = view.get(&format!("n{node}"));
                if known.session.is_some() && known.healthy {
                    prop_assert_eq!(state, Some(&Ready), "live and healthy: node {}", node);
                }
                if known.left || !known.healthy {
                    prop_assert_eq!(state, None, "left or down: node {}", node);
                }
            }
            // A service that only ever lost endpoints to silence is never empty.
            let services: BTreeSet<&str> = shadow.keys().map(|n| service(*n)).collect();
            for name in services {
                let of_it: Vec<&Shadow> =
                    shadow.iter().filter(|(n, _)| service(**n) == name).map(|(_, k)| k).collect();
                if of_it.iter().all(|k| k.healthy && !k.left) {
                    let id = ServiceId::new(name, "default");
                    prop_assert!(!registry.view().services[&id].endpoints.is_empty(), "{}", name);
                }
            }
        }
    }
}

#[test]
fn a_revoked_node_serves_no_more_and_its_service_stays() {
    let mut registry = empty();
    join(&mut registry, 1, "n1", "reviews", 0);
    let service = ServiceId::new("reviews", "default");
    registry.withdraw(&NodeId("n1".into()), at(1));
    assert!(registry.view().services[&service].endpoints.is_empty());
    // Neither its session nor the passing of time changes that.
    registry.health(SessionId(1), &AppHealth { ports: Vec::new() });
    registry.closed(SessionId(1), at(2));
    registry.tick(at(100_000));
    assert!(registry.view().services[&service].endpoints.is_empty());
    // It may come back by a new session.
    join(&mut registry, 2, "n1", "reviews", 100_001);
    assert_eq!(registry.view().services[&service].endpoints.len(), 1);
}
