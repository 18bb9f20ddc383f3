//! Rules on their way to sidecars.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringmesh_control::model::State;
use ringmesh_control::publish::Verdict;
use ringmesh_control::service::{
    Applied, ApplyError, Control, Intent, Request, Settings, SourceFile,
};
use ringmesh_control::store::{
    Book, Change, ChangeKind, Disk, Document, ObjectKey, StoreError, StoredObject,
};
use ringmesh_wire::frame::Kind;
use ringmesh_wire::snapshot::Body;
use ringmesh_wire::{Ack, Nack, Push, SectionKind, Snapshot};

use crate::player::{House, Session, registration, until};

fn timeout(host: &str, seconds: u32) -> String {
    format!(
        "apiVersion: networking.istio.io/v1alpha3\nkind: VirtualService\nmetadata:\n  name: {host}\n\
         spec:\n  hosts:\n  - {host}\n  http:\n  - route:\n    - destination:\n        host: {host}\n    \
         timeout: {seconds}s\n"
    )
}

fn subset_v9(host: &str) -> String {
    timeout(host, 9).replace("        host:", "        subset: v9\n        host:")
}

fn request(text: String) -> Request {
    let file = SourceFile {
        name: "rules.yaml".into(),
        text,
    };
    Request {
        intent: Intent::Apply(vec![file]),
        strict: false,
        dry_run: false,
        expected: None,
        who: "test".into(),
        what: "apply rules.yaml".into(),
    }
}

async fn apply(house: &House, request: Request) -> Result<Applied, ApplyError> {
    let control = Arc::clone(&house.control);
    let applied = tokio::task::spawn_blocking(move || control.apply(&request));
    applied.await.unwrap()
}

async fn applied(house: &House, text: String) -> Applied {
    apply(house, request(text)).await.unwrap()
}

/// A sidecar that holds configurations.
struct Sidecar {
    session: Session,
    held: Option<Snapshot>,
}

impl Sidecar {
    async fn of(house: &House, node: &str, service: &str) -> Self {
        let joined = house.join(node, service).await;
        let mut session = house.session(&joined).await;
        session.say(Kind::Register, &registration(service)).await;
        Self {
            session,
            held: None,
        }
    }

    async fn next(&mut self) -> Push {
        let push: Push = self.session.expect(Kind::Push).await;
        let node = ringmesh_wire::NodeId("any".into());
        self.held = Some(Snapshot::with_push(self.held.as_ref(), &node, &push).unwrap());
        push
    }

    async fn ack(&mut self, push: &Push) {
        let revision = push.revision;
        self.session.say(Kind::Ack, &Ack { revision }).await;
    }

    /// Takes pushes until what it holds is as wanted.
    async fn until(&mut self, what: &str, wanted: impl Fn(&Self) -> bool) -> Push {
        let deadline = tokio::time::Instant::now() + crate::player::PATIENCE;
        loop {
            let push = tokio::time::timeout_at(deadline, self.next());
            let push = push
                .await
                .unwrap_or_else(|_| panic!("waited in vain: {what}"));
            self.ack(&push).await;
            if wanted(self) {
                return push;
            }
        }
    }

    fn bodies(&self) -> Vec<Body> {
        let held = self.held.iter().flat_map(|s| &s.sections);
        held.map(|s| s.open().unwrap()).collect()
    }

    /// Timeouts of all routes it holds, milliseconds.
    fn timeouts(&self) -> Vec<u64> {
        let routes = self.bodies().into_iter().filter_map(|body| match body {
            Body::Routes(host) => Some(host),
            _ => None,
        });
        let routes = routes.flat_map(|host| host.http);
        routes.filter_map(|route| route.timeout_ms).collect()
    }

    /// Nodes it may call, by service.
    fn endpoints(&self) -> BTreeMap<String, Vec<String>> {
        let bodies = self.bodies().into_iter();
        let all = bodies.filter_map(|body| match body {
            Body::Endpoints(endpoints) => Some(endpoints),
            _ => None,
        });
        all.map(|of| {
            let nodes = of.endpoints.iter().filter_map(|e| e.node.as_ref());
            (of.service.to_string(), nodes.map(|n| n.0.clone()).collect())
        })
        .collect()
    }
}

#[tokio::test]
async fn a_rule_reaches_every_sidecar_and_only_what_changed_is_sent() {
    let house = House::new();
    let mut a = Sidecar::of(&house, "a", "reviews").await;
    let mut b = Sidecar::of(&house, "b", "ratings").await;
    let both = |s: &Sidecar| s.endpoints().len() == 2;
    a.until("both services", both).await;
    b.until("both services", both).await;

    let done = applied(&house, timeout("ratings", 7)).await;
    assert_eq!(done.revision, 1);
    assert_eq!(
        done.outcomes[0].status.as_ref().unwrap().state,
        State::Active
    );
    let control = Arc::clone(&house.control);
    let waiting =
        tokio::spawn(async move { control.wait_everywhere(1, crate::player::PATIENCE).await });
    let push = a.until("the rule", |s| s.timeouts() == [7_000]).await;
    let kinds: Vec<SectionKind> = push.sections.iter().map(|s| s.key.kind).collect();
    assert_eq!(
        kinds,
        [SectionKind::Routes],
        "equal sections are not sent again"
    );
    let soon = house.control.wait_everywhere(1, Duration::ZERO).await;
    assert!(matches!(soon, Verdict::Waiting(behind) if behind.iter().any(|l| l.node.0 == "b")));
    b.until("the rule", |s| s.timeouts() == [7_000]).await;
    assert_eq!(waiting.await.unwrap(), Verdict::Everywhere(2));
}

const BY_NAME: &str = "
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: a}
spec:
  hosts: [a.example.com]
  ports: [{number: 80, name: http}]
  resolution: DNS
";

#[tokio::test]
async fn endpoints_by_name_go_to_those_who_can_read_them_and_the_others_get_the_rest() {
    let house = House::new();
    let mut old = Sidecar::of(&house, "a", "reviews").await;
    let joined = house.join("b", "ratings").await;
    let link = house.link(Some(&joined.workload)).await.unwrap();
    let mut newer = crate::player::hello("b");
    newer.version_max = ringmesh_wire::SCHEMA_VERSION;
    let mut session = crate::player::greet(link, &newer).await;
    let _: ringmesh_wire::Welcome = session.expect(Kind::Welcome).await;
    session.say(Kind::Register, &registration("ratings")).await;
    let mut new = Sidecar {
        session,
        held: None,
    };
    let kinds = |s: &Sidecar| -> Vec<SectionKind> {
        let held = s.held.iter().flat_map(|s| &s.sections);
        let about = held.filter(|section| section.key.name == "a.example.com.default");
        about.map(|section| section.key.kind).collect()
    };
    applied(&house, BY_NAME.into()).await;
    let rest = vec![SectionKind::Service, SectionKind::Endpoints];
    old.until("all but the names", |s| kinds(s) == rest).await;
    let all = [rest, vec![SectionKind::Names]].concat();
    new.until("the names too", |s| kinds(s) == all).await;
    let everywhere = house.control.wait_everywhere(1, crate::player::PATIENCE);
    assert_eq!(everywhere.await, Verdict::Everywhere(2));
}

#[tokio::test]
async fn a_refusal_of_one_sidecar_is_seen_with_its_reason() {
    let house = House::new();
    let mut a = Sidecar::of(&house, "a", "reviews").await;
    a.until("its service", |s| s.endpoints().len() == 1).await;
    applied(&house, timeout("reviews", 7)).await;
    let push = a.next().await;
    let nack = Nack {
        revision: push.revision,
        reason: "no room".into(),
    };
    a.session.say(Kind::Nack, &nack).await;
    match house
        .control
        .wait_everywhere(1, crate::player::PATIENCE)
        .await
    {
        Verdict::Refused(who) => {
            assert_eq!(who[0].node.0, "a");
            assert_eq!(who[0].refused.as_deref(), Some("no room"));
        }
        other => panic!("{other:?}"),
    }
    // The next configuration is built on what the sidecar still holds, and heals it.
    applied(&house, timeout("reviews", 8)).await;
    a.until("the next", |s| s.timeouts() == [8_000]).await;
    let verdict = house
        .control
        .wait_everywhere(2, crate::player::PATIENCE)
        .await;
    assert_eq!(verdict, Verdict::Everywhere(1));
}

#[tokio::test]
async fn a_slow_sidecar_gets_only_the_newest() {
    let house = House::new();
    let mut a = Sidecar::of(&house, "a", "reviews").await;
    a.until("its service", |s| s.endpoints().len() == 1).await;
    applied(&house, timeout("reviews", 1)).await;
    let first = a.next().await;
    for seconds in 2..=5 {
        let revision = applied(&house, timeout("reviews", seconds)).await.revision;
        // Each is planned on its own, so that each would be a push if pushes queued.
        let control = &house.control;
        let planned = || {
            let wanted = control.wanted(&ringmesh_wire::NodeId("a".into())).unwrap();
            wanted.revision > first.revision
                && control.sessions()[0].row.wanted.0 > first.revision.0 + u64::from(seconds) - 2
        };
        until(&format!("revision {revision} planned"), planned).await;
    }
    a.ack(&first).await;
    let second = a.next().await;
    assert_eq!(a.timeouts(), [5_000], "the ones in between were skipped");
    a.ack(&second).await;
    let verdict = house
        .control
        .wait_everywhere(5, crate::player::PATIENCE)
        .await;
    assert_eq!(verdict, Verdict::Everywhere(1));
}

#[tokio::test]
async fn what_is_missing_is_inactive_and_becomes_active_by_itself() {
    let house = House::new();
    let mut a = Sidecar::of(&house, "a", "reviews").await;
    a.until("its service", |s| s.endpoints().len() == 1).await;
    let strict = Request {
        strict: true,
        ..request(timeout("ratings", 7))
    };
    assert!(matches!(
        apply(&house, strict).await,
        Err(ApplyError::Inactive(_))
    ));
    let done = applied(&house, timeout("ratings", 7)).await;
    assert_eq!(done.revision, 1, "the strict one left no trace");
    let state = &done.outcomes[0].status.as_ref().unwrap().state;
    assert!(
        matches!(state, State::Inactive(missing) if missing[0].place.line == 11),
        "{state:?}"
    );
    let _ratings = Sidecar::of(&house, "b", "ratings").await;
    a.until("the rule in force", |s| s.timeouts() == [7_000])
        .await;
    let statuses = house.control.statuses();
    assert_eq!(statuses[0].state, State::Active);
}

#[tokio::test]
async fn what_was_in_force_stays_while_its_successor_is_not_also_over_a_kill() {
    let house = House::new();
    let mut a = Sidecar::of(&house, "a", "reviews").await;
    a.until("its service", |s| s.endpoints().len() == 1).await;
    applied(&house, timeout("reviews", 7)).await;
    a.until("the first", |s| s.timeouts() == [7_000]).await;
    let done = applied(&house, subset_v9("reviews")).await;
    let state = &done.outcomes[0].status.as_ref().unwrap().state;
    assert!(matches!(state, State::Inactive(_)), "{state:?}");
    let verdict = house
        .control
        .wait_everywhere(2, crate::player::PATIENCE)
        .await;
    assert_eq!(
        verdict,
        Verdict::Everywhere(1),
        "nothing changes for the sidecar"
    );
    assert_eq!(a.timeouts(), [7_000]);

    let before = house
        .control
        .wanted(&ringmesh_wire::NodeId("a".into()))
        .unwrap()
        .revision;
    let control = Arc::clone(&house.control);
    until("addresses remembered", || {
        control.book().vips().unwrap().len() == 1
    })
    .await;
    let vips = control.book().vips().unwrap();
    drop((a, control));
    let (settings, _dir) = house.kill().await;
    let house = House::open(settings);
    let soon = house.control.wait_everywhere(2, Duration::ZERO).await;
    assert!(
        matches!(&soon, Verdict::Waiting(who) if who[0].node.0 == "a"),
        "a sidecar that is expected back is waited for: {soon:?}"
    );
    let services = house.control.services_for("default").unwrap();
    assert_eq!(
        services[0].vips[0], vips[&services[0].id],
        "addresses do not move"
    );
    assert_eq!(house.control.book().history().unwrap().len(), 2);
    let mut a = Sidecar::of(&house, "a", "reviews").await;
    let push = a
        .until("what was in force", |s| s.timeouts() == [7_000])
        .await;
    assert!(push.revision > before, "generations go on over a kill");
    assert!(matches!(
        house.control.statuses()[0].state,
        State::Inactive(_)
    ));
}

#[tokio::test]
async fn rollback_delete_and_history_are_revisions() {
    let house = House::new();
    let mut a = Sidecar::of(&house, "a", "reviews").await;
    a.until("its service", |s| s.endpoints().len() == 1).await;
    applied(&house, timeout("reviews", 7)).await;
    a.until("the first", |s| s.timeouts() == [7_000]).await;
    applied(&house, timeout("reviews", 8)).await;
    a.until("the second", |s| s.timeouts() == [8_000]).await;
    let same = applied(&house, timeout("reviews", 8)).await;
    assert_eq!(same.revision, 2, "nothing changed: no new revision");
    let back = Request {
        intent: Intent::Rollback(1),
        ..request(String::new())
    };
    assert_eq!(apply(&house, back).await.unwrap().revision, 3);
    a.until("the first again", |s| s.timeouts() == [7_000])
        .await;
    let file = SourceFile {
        name: "rules.yaml".into(),
        text: timeout("reviews", 1),
    };
    let delete = Request {
        intent: Intent::DeleteFiles(vec![file]),
        ..request(String::new())
    };
    assert_eq!(apply(&house, delete).await.unwrap().revision, 4);
    a.until("none", |s| s.timeouts().is_empty()).await;
    assert!(house.control.book().objects().unwrap().is_empty());
    assert_eq!(house.control.book().history().unwrap().len(), 4);
}

#[tokio::test]
async fn wrong_input_changes_nothing() {
    let house = House::new();
    applied(&house, timeout("reviews", 7)).await;
    let mut twice = timeout("reviews", 8);
    twice.push_str("---\n");
    twice.push_str(&timeout("reviews", 9));
    for bad in [
        timeout("reviews", 8).replace("timeout:", "timeuot:"),
        timeout("reviews", 8).replace("8s", "eight"),
        twice,
    ] {
        let refused = apply(&house, request(bad)).await;
        match refused {
            Err(ApplyError::Invalid(errors)) => {
                assert!(
                    errors[0].to_string().starts_with("rules.yaml:"),
                    "{}",
                    errors[0]
                );
            }
            other => panic!("{other:?}"),
        }
    }
    let late = Request {
        expected: Some(0),
        ..request(timeout("reviews", 8))
    };
    let refused = apply(&house, late).await;
    assert!(matches!(
        refused,
        Err(ApplyError::Store(StoreError::Revision {
            expected: 0,
            current: 1
        }))
    ));
    let dry = Request {
        dry_run: true,
        ..request(timeout("reviews", 8))
    };
    apply(&house, dry).await.unwrap();
    assert_eq!(house.control.book().revision().unwrap(), 1);
    let objects = house.control.book().objects().unwrap();
    assert!(objects.values().all(|o| o.document.text.contains("7s")));
}

/// Leaves in the store what an earlier version, less strict, would have taken.
async fn with_stored(house: House, texts: &[&str]) -> House {
    let (settings, dir) = house.kill().await;
    store(&settings, texts);
    let mut house = House::open(settings);
    house.keep(dir);
    house
}

fn store(settings: &Settings, texts: &[&str]) {
    {
        let disk = Disk::open(&settings.data_dir.join("store.redb")).unwrap();
        let book = Book::new(Arc::new(disk));
        let changes = texts.iter().map(|text| {
            let name = text.split_once("name: ").unwrap().1.lines().next().unwrap();
            let kind = text.split_once("kind: ").unwrap().1.lines().next().unwrap();
            let key = ObjectKey {
                kind: kind.into(),
                namespace: "default".into(),
                name: name.into(),
            };
            Change {
                key: key.clone(),
                before: None,
                after: Some(StoredObject {
                    key,
                    document: Document {
                        file: "old.yaml".into(),
                        first_line: 3,
                        text: (*text).into(),
                    },
                    revision: 0,
                }),
            }
        });
        let base = book.revision().unwrap();
        let changes = changes.collect();
        book.apply(base, changes, "test", "apply old.yaml", 1)
            .unwrap();
    }
}

/// What may stop calls is not left out: nothing is started without it.
#[tokio::test]
async fn a_stored_policy_that_is_refused_today_ends_the_start() {
    let house = House::new();
    let (settings, _dir) = house.kill().await;
    let policy = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata:\n  name: deny\n\
                  spec:\n  actoin: DENY\n  rules:\n  - {}\n";
    store(&settings, &[policy]);
    let why = Control::start(&settings).expect_err("an error").to_string();
    assert!(
        why.starts_with("AuthorizationPolicy deny.default is stored"),
        "{why}"
    );
    assert!(why.contains("spec.actoin"), "{why}");
}

#[tokio::test]
async fn a_stored_rule_that_is_refused_today_is_inactive_until_it_is_replaced_or_deleted() {
    let house = House::new();
    applied(&house, timeout("reviews", 7)).await;
    let old = |name: &str| timeout(name, 9).replace("timeout:", "timeuot:");
    let house = with_stored(house, &[&old("details"), &old("ratings")]).await;

    let states = || {
        let statuses = house.control.statuses().into_iter();
        statuses
            .map(|s| (s.key.name, s.state.word()))
            .collect::<Vec<_>>()
    };
    let is = |name: &str, word: &'static str| (name.to_owned(), word);
    let mut a = Sidecar::of(&house, "a", "reviews").await;
    a.until("what else there is", |s| s.timeouts() == [7_000])
        .await;
    let wanted = [
        is("details", "INACTIVE"),
        is("ratings", "INACTIVE"),
        is("reviews", "ACTIVE"),
    ];
    assert_eq!(states(), wanted);
    let why = house.control.statuses()[0].state.why();
    assert!(
        why[0].starts_with("14:5: spec.http[0].timeuot: "),
        "{why:?}"
    );

    // Others may be changed, and the two remain as they are.
    applied(&house, timeout("reviews", 8)).await;
    a.until("the change", |s| s.timeouts() == [8_000]).await;
    assert_eq!(states(), wanted);
    let key = ringmesh_control::rules::ObjectKey {
        kind: ringmesh_control::rules::Kind::VirtualService,
        namespace: "default".into(),
        name: "details".into(),
    };
    let delete = Request {
        intent: Intent::Delete(key),
        ..request(String::new())
    };
    assert_eq!(apply(&house, delete).await.unwrap().outcomes.len(), 1);
    assert_eq!(states(), wanted[1..]);
    let done = applied(&house, timeout("ratings", 9)).await;
    assert_eq!(done.outcomes[0].change.kind(), ChangeKind::Configured);
    let state = &done.outcomes[0].status.as_ref().unwrap().state;
    assert!(matches!(state, State::Inactive(_)), "{state:?}");
    let _ratings = Sidecar::of(&house, "b", "ratings").await;
    a.until("the new one", |s| s.timeouts().contains(&9_000))
        .await;
}
