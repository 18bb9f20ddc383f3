//! The whole agent against a control service that certifies, pushes, misbehaves, dies and returns.
//! Shards are queues that say yes.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::Mutex;
use std::thread::JoinHandle;

use ringmesh_wire::Revision;
use ringmesh_wire::report::SeriesValue;
use ringmesh_wire::snapshot::{Body, Mesh, MtlsMode, OnQuotaUnavailable, OutboundMode, Trust};

use super::super::fake_control::{FakeControl, Seen};
use super::*;
use crate::admin::Face;
use crate::agent::credentials::Credentials;
use crate::ring::SendZc;
use crate::ring::tests::picked;
use crate::telemetry::Meter;
use crate::vacant::Vacant;

fn snapshot(revision: u64) -> Snapshot {
    snapshot_with(revision, Trust::default())
}

fn snapshot_with(revision: u64, trust: Trust) -> Snapshot {
    let mesh = Body::Mesh(Mesh {
        trust_domain: "mesh.local".into(),
        default_timeout_ms: revision,
        outbound: OutboundMode::AllowAny,
        on_quota_unavailable: OnQuotaUnavailable::Share,
        retry_non_idempotent: false,
        mtls: MtlsMode::Strict,
        mtls_ports: Vec::new(),
    });
    let trust = Body::Trust(trust);
    let sections = vec![mesh.seal("").unwrap(), trust.seal("").unwrap()];
    Snapshot::new(Revision(revision), NodeId("n".into()), sections).unwrap()
}

#[path = "run_names_tests.rs"]
mod names;

#[path = "run_refusal_tests.rs"]
mod refusal;

/// What the shards were told, and the way to end the agent.
#[derive(Clone)]
struct Shard {
    to_agent: Arc<Mutex<VecDeque<FromShard>>>,
    materials: Arc<Mutex<u32>>,
    /// Numbers of those that counted when each of the tables came.
    materials_of_tables: Arc<Mutex<Vec<u64>>>,
    drains: Arc<Mutex<u32>>,
    /// Put in force, in order.
    tables: Arc<Mutex<Vec<Arc<crate::tables::Tables>>>>,
    bell: bell::Bell,
}

impl Shard {
    fn say(&self, message: FromShard) {
        self.to_agent.lock().unwrap().push_back(message);
        self.bell.ring();
    }

    fn doors(&self) -> Doors {
        let (asked, answers) = (self.clone(), self.to_agent.clone());
        let material = Cell::new(0);
        let send = move |message| {
            match message {
                ToShard::Config(tables) => {
                    asked.say(FromShard::InForce(tables.generation()));
                    asked.tables.lock().unwrap().push(tables);
                    let mut materials = asked.materials_of_tables.lock().unwrap();
                    materials.push(material.get());
                }
                ToShard::Collect => {
                    let stats = Meter::new().collect().on(picked(SendZc::Copied));
                    asked.say(FromShard::Stats(Box::new(stats)));
                }
                ToShard::Drain => {
                    *asked.drains.lock().unwrap() += 1;
                    asked.say(FromShard::Drained);
                }
                ToShard::Tls(new) => {
                    *asked.materials.lock().unwrap() += 1;
                    material.set(new.number());
                }
                _ => {}
            }
            Ok(())
        };
        Doors::new(vec![Box::new(send)], move || {
            Some((0, answers.lock().unwrap().pop_front()?))
        })
    }
}

struct Sidecar {
    board: Board,
    shard: Shard,
    thread: Option<JoinHandle<Result<(), String>>>,
    /// Of the app, held while nobody answers there.
    place: Vacant,
    app: Option<std::net::TcpListener>,
}

impl Sidecar {
    fn start(control: &FakeControl, state: &Path) -> Self {
        Self::start_with(&control.at.to_string(), &control.token(), state, "")
    }

    fn start_with(control: &str, token: &str, state: &Path, more: &str) -> Self {
        let place = Vacant::new([127, 0, 0, 1]);
        let app = place.listener();
        std::fs::write(state.join("join.token"), token).unwrap();
        let text = format!(
            "node: n\nservice: s\nstate_dir: {state}\n\
             control: {{address: \"{control}\", token_file: {state}/join.token}}\n\
             ports: [{{name: http, port: 80, app: \"{app}\"}}]\n{more}",
            state = state.display(),
            app = place.at,
        );
        let settings = Settings::parse(&text).unwrap();
        let listeners = settings.listeners;
        let board = Board::new(Face {
            node: "n".into(),
            service: "s.default".into(),
            boot: 1,
            listeners,
            shards: 1,
            listening: 0,
            draining: false,
            session: None,
            trouble: None,
            locked_out: false,
            snapshot: None,
            origin: "",
            refused: None,
            credentials: Credentials::default(),
            renew_at: None,
            health: Vec::new(),
            series: Vec::new(),
            quota: serde_json::Value::Null,
            names: std::collections::BTreeMap::new(),
            names_awaited: false,
            rings: vec![None],
        });
        let (bell, listener) = bell::bell().unwrap();
        let shard = Shard {
            to_agent: Arc::default(),
            materials: Arc::default(),
            materials_of_tables: Arc::default(),
            drains: Arc::default(),
            tables: Arc::default(),
            bell,
        };
        let (theirs, face) = (shard.clone(), board.clone());
        let thread = std::thread::spawn(move || {
            run(AgentPlan {
                workload: crate::bootstrap::workload(&settings),
                settings,
                snapshot_file: None,
                doors: theirs.doors(),
                listener,
                admin: None,
                board: face,
                boot: 1,
                level: Arc::new(|_| Ok(())),
            })
        });
        shard.say(FromShard::Listening);
        Self {
            board,
            shard,
            thread: Some(thread),
            place,
            app: Some(app),
        }
    }

    /// Ends it without a farewell, as a crash would.
    fn crash(&mut self) {
        self.shard.say(FromShard::Failed("the test is over".into()));
        if let Some(thread) = self.thread.take() {
            let ended = thread.join().unwrap();
            assert!(ended.unwrap_err().contains("the test is over"));
        }
    }

    /// Polls until `is`, or fails the test.
    #[track_caller]
    fn until<T>(&self, what: &str, is: impl Fn(&Face) -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(15);
        loop {
            if let Some(value) = is(&self.board.face()) {
                return value;
            }
            assert!(Instant::now() < deadline, "{what}: {:?}", self.board.face());
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    #[track_caller]
    fn until_revision(&self, revision: u64) {
        self.until("revision", |face| {
            let snapshot = face.snapshot.as_ref()?;
            (snapshot.revision.0 == revision).then_some(())
        });
    }
}

impl Drop for Sidecar {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.crash();
        }
    }
}

fn counter(face: &Face, name: &str) -> u64 {
    let of = face.series.iter().filter(|series| series.name == name);
    of.map(|series| match series.value {
        SeriesValue::Counter(value) => value,
        _ => 0,
    })
    .sum()
}

#[test]
fn it_enrols_registers_takes_a_push_and_reports() {
    let control = FakeControl::start();
    control.manners.lock().unwrap().snapshots = vec![snapshot(1), snapshot(2)];
    let state = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&control, state.path());
    control.wait("enrolment", |seen| (seen == Seen::Enrolled).then_some(()));
    let hello = control.wait("hello", |seen| match seen {
        Seen::Hello(hello) => Some(hello),
        _ => None,
    });
    assert_eq!((hello.node.0.as_str(), hello.have.len()), ("n", 0));
    let registration = control.wait("registration", |seen| match seen {
        Seen::Registered(registration) => Some(registration),
        _ => None,
    });
    assert!(
        registration.address.is_loopback(),
        "control is on loopback too"
    );
    assert_eq!(registration.mesh_port, 15_008);
    for revision in [1, 2] {
        let acked = control.wait("ack", |seen| match seen {
            Seen::Ack(revision) => Some(revision),
            _ => None,
        });
        assert_eq!(acked, Revision(revision));
    }
    sidecar.until("ready", |face| face.not_ready().is_empty().then_some(()));
    let report = control.wait("report", |seen| match seen {
        Seen::Report(report) => Some(report),
        _ => None,
    });
    // The first report of a link holds everything, and it is what /metrics shows.
    let shown = sidecar.board.face().series.clone();
    assert!(
        report
            .series
            .iter()
            .any(|s| s.name == "ringmesh_config_revision")
    );
    assert!(shown.iter().any(|s| s.name == "ringmesh_config_revision"));
    assert!(*sidecar.shard.materials.lock().unwrap() >= 1);
    let mode = |file: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        let about = std::fs::metadata(state.path().join(file)).unwrap();
        about.permissions().mode() & 0o777
    };
    for file in [
        "svid.key",
        "node.key",
        "svid.pem",
        "last-good.rmsh",
        "admin.sock",
    ] {
        assert_eq!(mode(file), 0o600, "{file}");
    }
}

/// Control signs with a new root when every sidecar has acknowledged it.
#[test]
fn what_is_acknowledged_counts_for_handshakes_already() {
    let control = FakeControl::start();
    let revoking = Trust {
        revoked_serials: vec![vec![7]],
        ..Trust::default()
    };
    control.manners.lock().unwrap().snapshots = vec![snapshot(1), snapshot_with(2, revoking)];
    let state = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&control, state.path());
    sidecar.until_revision(2);
    let materials = sidecar.shard.materials_of_tables.lock().unwrap().clone();
    assert_eq!(materials.len(), 2);
    assert_ne!(materials[0], materials[1]);
}

#[test]
fn an_app_that_goes_away_and_returns_is_told() {
    let control = FakeControl::start();
    let state = tempfile::tempdir().unwrap();
    let mut sidecar = Sidecar::start(&control, state.path());
    let healthy = |want: bool| {
        control.wait("health", |seen| match seen {
            Seen::Registered(registration) => (registration.ports[0].healthy == want).then_some(()),
            Seen::Health(health) => (health.ports[0].healthy == want).then_some(()),
            _ => None,
        });
    };
    healthy(true);
    sidecar.app = None;
    healthy(false);
    sidecar.app = Some(sidecar.place.listener());
    healthy(true);
}

#[test]
fn certificates_of_five_seconds_are_renewed_without_losing_the_session() {
    let control = FakeControl::start();
    control.manners.lock().unwrap().life = Duration::from_secs(5);
    let state = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&control, state.path());
    let mut serials = BTreeSet::new();
    for _ in 0..3 {
        control.wait("renewal", |seen| match seen {
            Seen::Renewed => Some(()),
            Seen::Closed(why) => panic_unless_for_certificates(&why),
            _ => None,
        });
        let serial = sidecar.until("new serial", |face| {
            let svid = face.credentials.svid.as_ref()?;
            (!serials.contains(&svid.serial)).then(|| svid.serial.clone())
        });
        serials.insert(serial);
        let face = sidecar.board.face();
        assert!(
            face.credentials
                .svid
                .as_ref()
                .unwrap()
                .usable(UnixMs::now())
        );
    }
    assert!(*sidecar.shard.materials.lock().unwrap() >= 3);
}

/// Connections made for certificates alone are closed on purpose, any other is not: one for enrolment,
/// and one for each renewal that comes after the end of the certificate the session was opened with. On a machine
/// with much else to do one may end by itself, because it was silent for too long.
fn panic_unless_for_certificates(why: &str) -> Option<()> {
    let on_purpose = ["enrolled", "renewed"].map(|done| format!("closed by peer: {done} (code"));
    let is_expected = on_purpose.iter().any(|done| why.contains(done)) || why == "timed out";
    assert!(is_expected, "{why}");
    None
}

#[test]
fn a_control_that_dies_is_found_again_and_nothing_is_sent_twice() {
    let mut control = FakeControl::start();
    control.manners.lock().unwrap().snapshots = vec![snapshot(1)];
    let state = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&control, state.path());
    sidecar.until_revision(1);
    control.die();
    sidecar.until("loss", |face| {
        (face.session != Some(Phase::Live)).then_some(())
    });
    assert!(
        sidecar.board.face().not_ready().is_empty(),
        "traffic goes on"
    );
    control.manners.lock().unwrap().snapshots = vec![snapshot(2)];
    control.listen();
    let hello = control.wait("a second hello", |seen| match seen {
        Seen::Hello(hello) if hello.revision == Revision(1) => Some(hello),
        _ => None,
    });
    assert_eq!(hello.have, snapshot(1).order());
    sidecar.until_revision(2);
}

#[test]
fn without_control_the_last_good_configuration_serves_after_a_restart() {
    let mut control = FakeControl::start();
    control.manners.lock().unwrap().snapshots = vec![snapshot(7)];
    let state = tempfile::tempdir().unwrap();
    let mut sidecar = Sidecar::start(&control, state.path());
    sidecar.until_revision(7);
    sidecar.crash();
    control.die();
    let again = Sidecar::start(&control, state.path());
    again.until_revision(7);
    again.until("ready", |face| face.not_ready().is_empty().then_some(()));
    assert_eq!(again.board.face().origin, "last_good");
    assert!(
        *again.shard.materials.lock().unwrap() >= 1,
        "mutual TLS works too"
    );
}

#[test]
fn a_damaged_last_good_file_is_ignored_and_control_heals_it() {
    let control = FakeControl::start();
    control.manners.lock().unwrap().snapshots = vec![snapshot(1)];
    let state = tempfile::tempdir().unwrap();
    std::fs::write(state.path().join("last-good.rmsh"), b"RMSH nonsense").unwrap();
    let sidecar = Sidecar::start(&control, state.path());
    sidecar.until_revision(1);
    drop(sidecar);
    let node = NodeId("n".into());
    let healed = last_good::load(&state.path().join("last-good.rmsh"), &node).unwrap();
    assert_eq!(healed, Some(snapshot(1)));
}

#[test]
fn a_push_that_does_not_hold_together_is_refused_with_the_reason() {
    let control = FakeControl::start();
    let mut bad = snapshot(2);
    bad.sections[0].bytes.truncate(2);
    control.manners.lock().unwrap().snapshots = vec![snapshot(1), bad];
    let state = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&control, state.path());
    let nack = control.wait("nack", |seen| match seen {
        Seen::Nack(nack) => Some(nack),
        _ => None,
    });
    assert_eq!(nack.revision, Revision(2));
    assert!(!nack.reason.is_empty());
    sidecar.until_revision(1);
    sidecar.until("shown", |face| face.refused.clone());
}

#[test]
fn hostile_bytes_close_the_link_with_the_reason_and_are_counted() {
    let good = {
        let (code, message) = (String::new(), String::new());
        let reject = ringmesh_wire::Reject { code, message };
        let payload = ringmesh_wire::codec::encode(&reject).unwrap();
        ringmesh_wire::frame::seal(ringmesh_wire::frame::Kind::Push, Revision(0), &payload).unwrap()
    };
    let mut huge = good.clone();
    huge[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
    let mut future = good.clone();
    future[4] = 99;
    let mut damaged = good.clone();
    damaged[20] ^= 1;
    let cases = [
        (vec![0x41; 64], "wire_magic"),
        (huge, "wire_too_long"),
        (future, "wire_version"),
        (damaged, "wire_checksum"),
        (good, "wire_malformed"),
    ];
    for (bytes, code) in cases {
        let control = FakeControl::start();
        control.manners.lock().unwrap().garbage = Some(bytes);
        let state = tempfile::tempdir().unwrap();
        let sidecar = Sidecar::start(&control, state.path());
        let why = control.wait(code, |seen| match seen {
            // On a machine with much else to do one may end because it was silent for too long.
            Seen::Closed(why) if !why.contains("enrolled") && why != "timed out" => Some(why),
            _ => None,
        });
        assert!(why.contains(code), "{code}: {why}");
        sidecar.until("counted", |face| {
            (counter(face, "ringmesh_control_faults_total") > 0).then_some(())
        });
        // And it comes back once control behaves.
        let mut manners = control.manners.lock().unwrap();
        manners.garbage = None;
        manners.snapshots = vec![snapshot(1)];
        drop(manners);
        sidecar.until_revision(1);
    }
}

#[test]
fn a_wrong_pin_or_a_used_token_gets_nothing() {
    let control = FakeControl::start();
    let state = tempfile::tempdir().unwrap();
    let wrong = format!("id.secret.{}", "00".repeat(32));
    let sidecar = Sidecar::start_with(&control.at.to_string(), &wrong, state.path(), "");
    let trouble = sidecar.until("trouble", |face| face.trouble.clone());
    assert!(trouble.contains("root_pin"), "{trouble}");
    assert!(sidecar.board.face().credentials.svid.is_none());
    drop(sidecar);

    control.manners.lock().unwrap().refuse_tokens = true;
    let state = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&control, state.path());
    let trouble = sidecar.until("trouble", |face| face.trouble.clone());
    assert!(trouble.contains("token_used"), "{trouble}");
    assert!(!state.path().join("svid.pem").exists());
}

#[test]
fn an_answer_that_is_lost_is_asked_for_again_with_the_same_keys() {
    let control = FakeControl::start();
    control.manners.lock().unwrap().lose_answers = true;
    let state = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&control, state.path());
    let asked = |control: &FakeControl| {
        control.wait("question", |seen| match seen {
            Seen::Unanswered(enroll) => Some(enroll),
            _ => None,
        })
    };
    let (first, again) = (asked(&control), asked(&control));
    assert_eq!(first, again);
    control.manners.lock().unwrap().lose_answers = false;
    sidecar.until("certificate", |face| face.credentials.svid.clone());
}

#[test]
fn an_expired_svid_is_renewed_by_the_node_credential_without_a_token() {
    let control = FakeControl::start();
    control.manners.lock().unwrap().life = Duration::from_secs(2);
    let state = tempfile::tempdir().unwrap();
    let mut sidecar = Sidecar::start(&control, state.path());
    sidecar.until("session", |face| {
        (face.session == Some(Phase::Live)).then_some(())
    });
    sidecar.crash();
    let (old, _) = Credentials::load(state.path());
    let old = old.svid.unwrap();
    // Switched off until it has expired.
    let deadline = Instant::now() + Duration::from_secs(10);
    while old.usable(UnixMs::now()) {
        assert!(Instant::now() < deadline);
        std::thread::park_timeout(Duration::from_millis(20));
    }
    let mut manners = control.manners.lock().unwrap();
    manners.refuse_tokens = true;
    manners.life = Duration::from_secs(3_600);
    drop(manners);
    let again = Sidecar::start(&control, state.path());
    again.until("session", |face| {
        (face.session == Some(Phase::Live)).then_some(())
    });
    let face = again.board.face();
    assert_ne!(face.credentials.svid.as_ref().unwrap().serial, old.serial);
}

#[test]
fn log_lines_reach_control_once_and_in_order() {
    let control = FakeControl::start();
    let state = tempfile::tempdir().unwrap();
    let more = "access_log: {forward: true}\n";
    let at = control.at.to_string();
    let sidecar = Sidecar::start_with(&at, &control.token(), state.path(), more);
    sidecar.until("session", |face| {
        (face.session == Some(Phase::Live)).then_some(())
    });
    let mut expected = 0;
    for round in 0..20 {
        let lines = (0..50).map(|at| format!("{}\n", round * 50 + at));
        let lines: String = lines.collect();
        sidecar.shard.say(FromShard::Log(lines.into_bytes()));
    }
    while expected < 1_000 {
        let batch = control.wait("log", |seen| match seen {
            Seen::Log(batch) => Some(batch),
            _ => None,
        });
        assert_eq!((batch.first, batch.dropped), (expected, 0));
        for (at, line) in (batch.first..).zip(&batch.lines) {
            assert_eq!(*line, at.to_string());
            expected = expected.max(at + 1);
        }
    }
}

#[test]
fn leaving_is_told_at_once_and_the_shards_serve_until_callers_have_heard() {
    let control = FakeControl::start();
    control.manners.lock().unwrap().snapshots = vec![snapshot(1)];
    let state = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&control, state.path());
    sidecar.until_revision(1);
    let socket = state.path().join("admin.sock");
    let mut conn = std::os::unix::net::UnixStream::connect(socket).unwrap();
    let request = b"POST /drain HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n";
    std::io::Write::write_all(&mut conn, request).unwrap();
    control.wait("leaving", |seen| match seen {
        Seen::Closed(why) if why.contains("leaving") => Some(()),
        _ => None,
    });
    sidecar.until("draining", |face| face.draining.then_some(()));
    assert!(*sidecar.shard.drains.lock().unwrap() >= 1);
    // Asked again after the time others need to hear of it.
    let drains = sidecar.shard.drains.clone();
    sidecar.until("asked again", |_| {
        (*drains.lock().unwrap() >= 2).then_some(())
    });
}

#[test]
fn what_the_rings_got_is_shown_and_counted() {
    let control = FakeControl::start();
    let state = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&control, state.path());
    sidecar.until("the ring", |face| {
        (face.rings == [Some(picked(SendZc::Copied))]).then_some(())
    });
    let (labels, value) = sidecar.until("the metric", |face| {
        let mut series = face.series.iter();
        let one = series.find(|one| one.name == "ringmesh_send_zc_shards")?;
        Some((one.labels.clone(), one.value.clone()))
    });
    assert_eq!(labels, [("state".to_owned(), "copied".to_owned())]);
    assert_eq!(value, SeriesValue::Gauge(1));
}
