//! Names on their way into tables: asked, put in force, kept while the server fails.

use ringmesh_wire::snapshot::Resolution;

use super::*;
use crate::agent::names::fake_server::FakeServer;
use crate::reason::Reason;
use crate::tables::testing::Draft;

/// Revision 1 with service `app`, whose endpoint is `app.example`.
fn named(revision: u64, resolution: Resolution) -> Snapshot {
    let draft = Draft::new()
        .service("app", &[80])
        .named("app", resolution, &["app.example"], 8080);
    let snapshot = draft.snapshot();
    Snapshot::new(Revision(revision), NodeId("n".into()), snapshot.sections).unwrap()
}

fn sidecar(control: &FakeControl, server: &FakeServer, state: &Path) -> Sidecar {
    let dns = format!(
        "dns: {{servers: [\"{}\"], refresh_min: 20ms, refresh_max: 50ms}}\n",
        server.at
    );
    Sidecar::start_with(&control.at.to_string(), &control.token(), state, &dns)
}

/// Addresses of the endpoints of `app` in the tables last put in force.
fn endpoints(sidecar: &Sidecar) -> Vec<String> {
    let tables = sidecar.shard.tables.lock().unwrap();
    let rows = tables.last().map(|tables| &tables.clusters()[0].endpoints);
    let shown = rows
        .into_iter()
        .flatten()
        .map(|row| row.address.ip().to_string());
    shown.collect()
}

#[track_caller]
fn until_endpoints(sidecar: &Sidecar, wanted: &[&str]) {
    sidecar.until("endpoints", |_| {
        (endpoints(sidecar) == wanted).then_some(())
    });
}

fn shown(face: &Face) -> serde_json::Value {
    face.endpoints()["app.default"][0].clone()
}

#[test]
fn a_name_is_resolved_before_ready_followed_and_kept_while_its_server_fails() {
    let control = FakeControl::start();
    control.manners.lock().unwrap().snapshots = vec![named(1, Resolution::Each)];
    let server = FakeServer::start(|asked| vec![asked.addresses(&["127.0.0.2", "127.0.0.1"], 0)]);
    let state = tempfile::tempdir().unwrap();
    let sidecar = sidecar(&control, &server, state.path());
    sidecar.until("ready", |face| face.not_ready().is_empty().then_some(()));
    assert_eq!(
        endpoints(&sidecar),
        ["127.0.0.1", "127.0.0.2"],
        "in force before ready"
    );
    let row = shown(&sidecar.board.face());
    assert_eq!(row["name"], "app.example");
    assert_eq!(row["resolution"], "dns");
    assert_eq!(
        row["addresses"],
        serde_json::json!(["127.0.0.2", "127.0.0.1"])
    );
    assert_eq!(row["failures"], 0);
    assert!(row["age_seconds"].is_u64());
    sidecar.until("figures", |face| {
        (counter(face, "ringmesh_dns_lookups_total") > 0).then_some(())
    });

    // Other addresses come into force without a new revision, ...
    server.turn(|asked| vec![asked.addresses(&["127.0.0.3"], 0)]);
    until_endpoints(&sidecar, &["127.0.0.3"]);
    assert_eq!(
        sidecar.board.face().snapshot.as_ref().unwrap().revision.0,
        1
    );
    // ... no answer leaves them, and more failures do too, ...
    server.turn(|asked| vec![asked.code(domain::base::iana::Rcode::SERVFAIL)]);
    sidecar.until("failures", |face| {
        (shown(face)["failures"].as_u64() >= Some(4)).then_some(())
    });
    assert_eq!(shown(&sidecar.board.face())["trouble"], "server_failed");
    assert_eq!(endpoints(&sidecar), ["127.0.0.3"]);
    // ... and a server that goes on to deny the name takes them away.
    server.turn(|asked| vec![asked.code(domain::base::iana::Rcode::NXDOMAIN)]);
    until_endpoints(&sidecar, &[]);
    let tables = sidecar
        .shard
        .tables
        .lock()
        .unwrap()
        .last()
        .cloned()
        .unwrap();
    assert_eq!(tables.clusters()[0].nobody(), Reason::NameUnresolved);
    // Control heard of one configuration and no more.
    let acks = control.drain().filter(|seen| matches!(seen, Seen::Ack(_)));
    assert_eq!(acks.count(), 1);
}

#[test]
fn a_name_server_that_is_silent_holds_readiness_back_for_a_while_only() {
    let control = FakeControl::start();
    control.manners.lock().unwrap().snapshots = vec![named(1, Resolution::One)];
    let server = FakeServer::start(|_| Vec::new());
    let state = tempfile::tempdir().unwrap();
    let sidecar = sidecar(&control, &server, state.path());
    sidecar.until_revision(1);
    assert_eq!(sidecar.board.face().not_ready(), ["names"]);
    sidecar.until("ready", |face| face.not_ready().is_empty().then_some(()));
    assert!(endpoints(&sidecar).is_empty());
}

#[test]
fn names_of_the_configuration_in_force_are_those_that_are_asked_for() {
    let control = FakeControl::start();
    control.manners.lock().unwrap().snapshots = vec![named(1, Resolution::Each), snapshot(2)];
    let server = FakeServer::start(|asked| vec![asked.addresses(&["127.0.0.1"], 0)]);
    let state = tempfile::tempdir().unwrap();
    let sidecar = sidecar(&control, &server, state.path());
    sidecar.until_revision(2);
    sidecar.until("forgotten", |face| face.names.is_empty().then_some(()));
    sidecar.until("ready", |face| face.not_ready().is_empty().then_some(()));
}
