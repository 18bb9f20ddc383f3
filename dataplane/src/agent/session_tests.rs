use proptest::prelude::*;
use ringmesh_wire::snapshot::{
    Body, Mesh, MtlsMode, OnQuotaUnavailable, OutboundMode, Protocol, Trust,
};
use ringmesh_wire::{Section, ServiceId};

use super::*;

const LOCAL: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 5));
const REMOTE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));

fn mesh(timeout_ms: u64) -> Section {
    Body::Mesh(Mesh {
        trust_domain: "mesh.local".into(),
        default_timeout_ms: timeout_ms,
        outbound: OutboundMode::AllowAny,
        on_quota_unavailable: OnQuotaUnavailable::Share,
        retry_non_idempotent: false,
        mtls: MtlsMode::Strict,
        mtls_ports: Vec::new(),
    })
    .seal("")
    .unwrap()
}

fn snapshot(revision: u64) -> Snapshot {
    let trust = Body::Trust(Trust::default()).seal("").unwrap();
    let sections = vec![mesh(revision), trust];
    Snapshot::new(Revision(revision), NodeId("n".into()), sections).unwrap()
}

fn ourselves() -> Ourselves {
    Ourselves {
        node: NodeId("n".into()),
        boot: 7,
        build: "test".into(),
        registration: Some(Registration {
            service: ServiceId::new("s", "default"),
            service_account: "s".into(),
            labels: std::collections::BTreeMap::new(),
            address: LOCAL,
            mesh_port: 15_008,
            ports: vec![RegisteredPort {
                name: "http".into(),
                port: 80,
                app_port: 80,
                protocol: Protocol::Http1,
                healthy: false,
            }],
            region: String::new(),
            zone: String::new(),
        }),
        advertise: None,
    }
}

fn drain(session: &mut Session) -> Vec<Output> {
    std::iter::from_fn(|| session.poll()).collect()
}

fn give(session: &mut Session, fact: Input, at_ms: u64) -> Vec<Output> {
    session.handle(fact, Mono(0).plus_ms(at_ms), 0);
    drain(session)
}

fn said(down: Down) -> Input {
    Input::Said(Box::new(down))
}

fn welcome() -> Input {
    welcome_of(1)
}

/// A control of schema `version`.
fn welcome_of(version: u16) -> Input {
    said(Down::Welcome(Welcome {
        version,
        boot: 1,
        lease_ms: 2_500,
    }))
}

fn push(revision: u64) -> Input {
    said(Down::Push(
        snapshot(revision).push_for(&std::collections::BTreeMap::new()),
    ))
}

fn connected() -> Input {
    Input::Connected {
        local: LOCAL,
        remote: REMOTE,
    }
}

fn live() -> Session {
    let mut session = Session::new(ourselves(), None, Mono(0));
    assert_eq!(give(&mut session, Input::Wake, 0), [Output::Connect]);
    give(&mut session, connected(), 1);
    give(&mut session, welcome(), 2);
    assert_eq!(session.phase(), Phase::Live);
    session
}

fn is_send(output: &Output, want: impl Fn(&Up) -> bool) -> bool {
    matches!(output, Output::Send(up) if want(up))
}

#[test]
fn hello_names_what_is_held() {
    let held = Arc::new(snapshot(4));
    let mut session = Session::new(ourselves(), Some(Arc::clone(&held)), Mono(0));
    give(&mut session, Input::Wake, 0);
    let wishes = give(&mut session, connected(), 1);
    let [Output::Send(up)] = wishes.as_slice() else {
        panic!("{wishes:?}");
    };
    let Up::Hello(hello) = up.as_ref() else {
        panic!("{up:?}");
    };
    assert_eq!((hello.revision, hello.boot), (Revision(4), 7));
    assert_eq!(hello.have, held.order());
}

#[test]
fn a_welcome_is_answered_by_a_registration_with_the_local_address_and_the_health() {
    let mut session = Session::new(ourselves(), None, Mono(0));
    give(&mut session, Input::Wake, 0);
    let healthy = PortHealth {
        port: 80,
        healthy: true,
        detail: String::new(),
    };
    assert_eq!(give(&mut session, Input::Health(vec![healthy]), 0), []);
    give(&mut session, connected(), 1);
    let wishes = give(&mut session, welcome(), 2);
    assert_eq!(wishes[0], Output::Tell(Tell::Live));
    assert!(is_send(&wishes[1], |up| matches!(up, Up::Register(r)
        if r.address == LOCAL && r.ports[0].healthy)));
}

#[test]
fn loopback_is_not_registered_at_a_remote_control() {
    let mut us = ourselves();
    us.advertise = Some("127.0.0.1".parse().unwrap());
    let mut session = Session::new(us, None, Mono(0));
    give(&mut session, Input::Wake, 0);
    give(&mut session, connected(), 1);
    let wishes = give(&mut session, welcome(), 2);
    let address = "127.0.0.1".parse().unwrap();
    assert_eq!(wishes[1..], [Output::Tell(Tell::NotRegistered { address })]);
}

#[test]
fn a_push_is_published_and_then_acknowledged() {
    let mut session = live();
    let wishes = give(&mut session, push(1), 3);
    assert_eq!(wishes, [Output::Publish(Arc::new(snapshot(1)))]);
    assert!(session.in_force().is_none());
    let fact = Input::Published {
        revision: Revision(1),
        result: Ok(()),
    };
    let wishes = give(&mut session, fact, 4);
    assert!(is_send(
        &wishes[0],
        |up| matches!(up, Up::Ack(a) if a.revision == Revision(1))
    ));
    assert_eq!(session.in_force().unwrap().revision, Revision(1));
}

#[test]
fn a_refused_push_leaves_the_old_one_and_a_delta_may_build_on_it() {
    let mut session = live();
    give(&mut session, push(1), 3);
    give(
        &mut session,
        Input::Published {
            revision: Revision(1),
            result: Ok(()),
        },
        4,
    );
    give(&mut session, push(2), 5);
    let refused = Input::Published {
        revision: Revision(2),
        result: Err("no cluster".into()),
    };
    let wishes = give(&mut session, refused, 6);
    assert!(
        wishes
            .iter()
            .any(|w| is_send(w, |up| matches!(up, Up::Nack(n)
        if n.reason == "no cluster")))
    );
    assert_eq!(session.in_force().unwrap().revision, Revision(1));
    // A delta on the refused one: nothing but the revision changes.
    let have = snapshot(2).order().into_iter().collect();
    let mut delta = snapshot(2).push_for(&have);
    delta.revision = Revision(3);
    let wishes = give(&mut session, said(Down::Push(delta)), 7);
    assert!(matches!(&wishes[0], Output::Publish(s) if s.revision == Revision(3)));
}

#[test]
fn pushes_are_published_one_at_a_time_and_answered_in_order() {
    let mut session = live();
    assert_eq!(give(&mut session, push(1), 3).len(), 1);
    assert_eq!(give(&mut session, push(2), 3), []);
    let done = |revision| Input::Published {
        revision: Revision(revision),
        result: Ok(()),
    };
    // A late word on another revision changes nothing.
    assert_eq!(give(&mut session, done(9), 4), []);
    let wishes = give(&mut session, done(1), 4);
    assert!(is_send(&wishes[0], |up| matches!(up, Up::Ack(_))));
    assert!(matches!(&wishes[1], Output::Publish(s) if s.revision == Revision(2)));
}

#[test]
fn a_delta_on_something_we_do_not_have_is_refused() {
    let mut session = live();
    let have = snapshot(1).order().into_iter().collect();
    let wishes = give(
        &mut session,
        said(Down::Push(snapshot(1).push_for(&have))),
        3,
    );
    assert!(
        wishes
            .iter()
            .any(|w| is_send(w, |up| matches!(up, Up::Nack(_))))
    );
}

#[test]
fn no_answer_goes_to_a_link_the_push_did_not_come_by() {
    let mut session = live();
    give(&mut session, push(1), 3);
    give(&mut session, Input::Lost, 4);
    let wishes = give(
        &mut session,
        Input::Published {
            revision: Revision(1),
            result: Ok(()),
        },
        5,
    );
    assert_eq!(wishes, []);
    assert_eq!(session.in_force().unwrap().revision, Revision(1));
}

#[test]
fn a_loss_is_followed_by_attempts_further_and_further_apart() {
    let mut session = live();
    give(&mut session, Input::Lost, 10_000);
    let mut now = Mono(0).plus_ms(10_000);
    let mut bounds = Vec::new();
    for _ in 0..6 {
        let until = session.deadline().unwrap();
        bounds.push(until.since(now).as_millis());
        session.handle(Input::Wake, until, u64::MAX);
        assert_eq!(drain(&mut session), [Output::Connect]);
        now = until;
        session.handle(Input::Failed, now, u64::MAX - u64::MAX % 3_001 - 1);
    }
    assert!(bounds.iter().all(|ms| *ms <= 3_000), "{bounds:?}");
    assert!(session.attempt >= 6);
}

#[test]
fn a_silent_control_is_left_after_the_deadline() {
    let mut session = Session::new(ourselves(), None, Mono(0));
    give(&mut session, Input::Wake, 0);
    give(&mut session, connected(), 1);
    assert_eq!(give(&mut session, Input::Wake, 5_000), []);
    let wishes = give(&mut session, Input::Wake, 5_001);
    assert!(matches!(
        &wishes[0],
        Output::Close {
            code: CLOSE_NO_SESSION,
            ..
        }
    ));
    assert_eq!(session.phase(), Phase::Waiting);
}

#[test]
fn unreadable_bytes_close_the_link_with_the_reason() {
    let mut session = live();
    let wishes = give(&mut session, Input::Unreadable("wire_magic".into()), 3);
    assert_eq!(
        wishes,
        [
            Output::Tell(Tell::Fault("wire_magic".into())),
            Output::Close {
                code: CLOSE_PROTOCOL,
                why: "wire_magic".into()
            },
        ]
    );
}

#[test]
fn leaving_closes_with_the_code_that_says_so_and_ends_everything() {
    let mut session = live();
    let wishes = give(&mut session, Input::Leave, 3);
    assert!(matches!(
        &wishes[..],
        [Output::Close {
            code: CLOSE_LEAVING,
            ..
        }]
    ));
    assert_eq!(give(&mut session, Input::Wake, 9_999), []);
    assert_eq!(session.deadline(), None);
}

fn any_fact() -> impl Strategy<Value = Input> {
    let revision = 1..4_u64;
    prop_oneof![
        Just(Input::Wake),
        Just(connected()),
        Just(Input::Failed),
        Just(Input::Lost),
        Just(welcome()),
        Just(said(Down::Reject(Reject {
            code: "x".into(),
            message: "y".into()
        }))),
        revision.clone().prop_map(push),
        Just(Input::Unreadable("wire_kind".into())),
        (revision, any::<bool>()).prop_map(|(revision, good)| Input::Published {
            revision: Revision(revision),
            result: if good { Ok(()) } else { Err("no".into()) },
        }),
        Just(Input::Health(Vec::new())),
        Just(Input::Reconnect),
    ]
}

proptest! {
    /// Whatever happens in whatever order: one publication at a time, answers only to pushes that
    /// are owed one and in their order, nothing sent without a link, and it always goes on.
    #[test]
    fn any_order_of_facts_keeps_the_promises(
        facts in proptest::collection::vec((any_fact(), 0..2_000_u64, any::<u64>()), 0..80),
    ) {
        let mut session = Session::new(ourselves(), None, Mono(0));
        let mut now = Mono(0);
        let (mut linked, mut publishing) = (false, None);
        let mut owed: VecDeque<u64> = VecDeque::new();
        for (fact, step_ms, random) in facts {
            now = now.plus_ms(step_ms);
            match &fact {
                Input::Connected { .. } if session.phase() == Phase::Connecting => linked = true,
                Input::Lost => {
                    linked = false;
                    owed.clear();
                }
                Input::Said(down) if session.phase() == Phase::Live => {
                    if let Down::Push(push) = down.as_ref() {
                        owed.push_back(push.revision.0);
                    }
                }
                Input::Published { revision, .. } if publishing == Some(revision.0) => {
                    publishing = None;
                }
                _ => {}
            }
            session.handle(fact, now, random);
            for wish in drain(&mut session) {
                match wish {
                    Output::Publish(snapshot) => {
                        prop_assert_eq!(publishing, None);
                        publishing = Some(snapshot.revision.0);
                    }
                    Output::Send(up) => {
                        prop_assert!(linked, "{up:?} without a link");
                        let answered = match *up {
                            Up::Ack(ack) => Some(ack.revision.0),
                            Up::Nack(nack) => Some(nack.revision.0),
                            _ => None,
                        };
                        if answered.is_some() {
                            prop_assert_eq!(owed.pop_front(), answered);
                        }
                    }
                    Output::Close { .. } => {
                        linked = false;
                        owed.clear();
                    }
                    Output::Connect => prop_assert!(!linked),
                    Output::Tell(_) => {}
                }
            }
            let stuck = session.deadline().is_none()
                && !matches!(session.phase(), Phase::Connecting | Phase::Live);
            prop_assert!(!stuck);
        }
    }
}

/// Control is told what names lead to on each link, and anew when it changes; one that has never
/// heard of names is not.
#[test]
fn what_names_lead_to_is_told_to_who_understands_it() {
    let name = |trouble: &str| ResolvedName {
        name: "a.example".to_owned(),
        addresses: vec![IpAddr::from([10, 0, 0, 7])],
        trouble: trouble.to_owned(),
    };
    let told = |wishes: &[Output]| -> Vec<Vec<ResolvedName>> {
        let sent = wishes.iter().filter_map(|wish| match wish {
            Output::Send(up) => match up.as_ref() {
                Up::Resolved(resolved) => Some(resolved.names.clone()),
                _ => None,
            },
            _ => None,
        });
        sent.collect()
    };
    for (version, tells) in [(1, false), (2, true)] {
        let some = |names: Vec<ResolvedName>| if tells { vec![names] } else { Vec::new() };
        let mut session = Session::new(ourselves(), None, Mono(0));
        give(&mut session, Input::Wake, 0);
        // Before there is anybody to tell.
        let wishes = give(&mut session, Input::Names(vec![name("")]), 1);
        assert_eq!(told(&wishes), Vec::<Vec<_>>::new());
        give(&mut session, connected(), 1);
        let wishes = give(&mut session, welcome_of(version), 2);
        assert_eq!(told(&wishes), some(vec![name("")]), "{version}");
        let wishes = give(&mut session, Input::Names(vec![name("timeout")]), 3);
        assert_eq!(told(&wishes), some(vec![name("timeout")]), "{version}");
    }
}
