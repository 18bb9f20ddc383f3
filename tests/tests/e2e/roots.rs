//! Whose signature counts: one root after the other under traffic, and a CA of somebody else's.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::load::{Call, statuses, with_status};
use ringmesh_tests::mesh::Mesh;
use ringmesh_tests::{SOON, Stop, wait};
use rustix::process::Signal;

/// Stage and hash of every root, as the tool tells them.
fn roots(mesh: &Mesh) -> Vec<(String, String)> {
    let told = mesh.control.tool(&["cert", "roots", "--output", "json"]);
    let told = told.expect("tool").done().expect("roots");
    let roots: Vec<serde_json::Value> = serde_json::from_str(&told).expect("JSON");
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    roots
        .iter()
        .map(|root| (text(&root["stage"]), text(&root["sha256"])))
        .collect()
}

/// Hash of the root that signed what a node holds now.
fn root_of_svid(state: &Path, known: &Path) -> bool {
    let out = Command::new("openssl")
        .args([
            "verify",
            "-x509_strict",
            "-no-CApath",
            "-no-CAstore",
            "-CAfile",
        ])
        .arg(known)
        .arg("-untrusted")
        .arg(state.join("svid.pem"))
        .arg(state.join("svid.pem"))
        .output()
        .expect("openssl");
    out.status.success()
}

/// Short enough to wait for its end; half of it is what a renewal may take on a machine that has much else to
/// do: with 6 s, a sidecar that got no CPU for three was seen to show one that had ended.
const SVID_LIFE: Duration = Duration::from_secs(12);

#[test]
fn a_root_takes_the_others_place_under_traffic_and_no_call_fails() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let cast = [("reviews", "v3"), ("ratings", "v1"), ("details", "v1")];
    let life = format!("svid_life: {}s\n", SVID_LIFE.as_secs());
    let mut mesh = Mesh::start(&life, &cast);
    let ca = mesh.stage.dir().join("control/ca");
    let reviews = mesh.node("reviews", "v3");
    let call = Call {
        to: reviews.sidecar.outbound(),
        authority: "ratings:9080",
        target: "/ratings/0",
        caller: "reviews/v3",
    };
    mesh.wait_for_a_call();
    // This machine is off while all of it happens, and has a token nobody has used yet.
    let joins_later = mesh.plan("ratings", "v2");
    let old_token = mesh.control.token(&joins_later).expect("token");
    mesh.node_mut("details", "v1")
        .sidecar
        .process
        .stop()
        .expect("stop");
    let off = Instant::now();

    let before = roots(&mesh);
    assert_eq!(before.len(), 1, "{before:?}");
    let stop = Stop::default();
    let (kept, fresh) = std::thread::scope(|scope| {
        let kept = scope.spawn(|| call.until(stop.flag()));
        let fresh = scope.spawn(|| {
            let mut answers = Vec::new();
            while !stop.flag().load(Ordering::Relaxed) {
                answers.extend(call.times(2, 2)?);
                wait::pass(Duration::from_millis(10));
            }
            Ok::<_, String>(answers)
        });
        let working = stop.at_end();
        let said = mesh.control.tool(&["cert", "rotate-root"]).expect("tool");
        said.done().expect("rotated");
        let again = mesh.control.tool(&["cert", "rotate-root"]).expect("tool");
        let told = again.done().expect_err("one at a time");
        assert!(told.contains("another root is on its way"), "{told}");
        let patience = 10 * SVID_LIFE;
        let mut seen = Vec::new();
        let ended = wait::until_true("the old root withdrawn", patience, || {
            let now = roots(&mesh);
            if seen.last() != Some(&now) {
                seen.push(now.clone());
            }
            now.iter().any(|(stage, _)| stage == "withdrawn")
        });
        // A while longer under the new one alone.
        wait::pass(SVID_LIFE * 2 / 3);
        ended.unwrap_or_else(|error| panic!("{error}: {seen:?}"));
        let last = seen.last().expect("seen");
        assert_eq!(last.len(), 2, "{seen:?}");
        assert_eq!(last[0], ("withdrawn".to_owned(), before[0].1.clone()));
        assert_eq!(last[1].0, "issuing");
        drop(working);
        (
            kept.join().expect("a thread"),
            fresh.join().expect("a thread"),
        )
    });
    for answers in [kept.expect("answers"), fresh.expect("answers")] {
        assert_eq!(
            with_status(&answers, 200) as usize,
            answers.len(),
            "{}",
            statuses(&answers)
        );
        // All the time, also where there is little CPU.
        assert!(answers.len() > 20, "{}", answers.len());
    }
    let state = &mesh.node("ratings", "v1").sidecar.state;
    assert!(root_of_svid(state, &ca.join("1/root.pem")));
    assert!(!root_of_svid(state, &ca.join("root.pem")));

    // The machine that was off for two lives of its certificate comes back by its node credential, without a token; and the old
    // token, which pins the old root, still lets its node in.
    wait::until_after(off, 2 * SVID_LIFE + Duration::from_secs(1));
    let details = mesh.node_mut("details", "v1");
    std::fs::remove_file(details.sidecar.state.with_extension("token")).expect("token");
    details.sidecar.restart().expect("restart");
    details.sidecar.wait_ready().expect("ready");
    let state = mesh.stage.dir().join(&joins_later.name);
    let added = mesh.add("ratings", "v2");
    assert_eq!(added.plan.name, joins_later.name);
    added.sidecar.process.kill();
    std::fs::remove_dir_all(&state).ok();
    std::fs::write(state.with_extension("token"), old_token).expect("token");
    added.sidecar.restart().expect("restart");
    added.sidecar.wait_ready().expect("ready");
    let details = mesh.node("details", "v1");
    for _ in 0..10 {
        let answer = details
            .call("ratings", "/ratings/0", &[])
            .expect("an answer");
        assert_eq!(answer.status, 200);
    }
}

/// A CA that others run, made by openssl: a root, and an intermediate to sign with.
fn foreign_ca(dir: &Path) {
    let run = |words: &str| {
        let mut openssl = Command::new("openssl");
        let out = openssl.args(words.split(' ')).current_dir(dir).output();
        let out = out.expect("openssl");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "{words}: {said}");
    };
    std::fs::write(
        dir.join("ext.cnf"),
        "basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n\
         subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n",
    )
    .expect("file");
    for name in ["root", "sub"] {
        run(&format!(
            "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {name}.key"
        ));
        run(&format!(
            "req -new -key {name}.key -subj /O=Shop/CN=shop-{name} -out {name}.csr"
        ));
    }
    run("x509 -req -in root.csr -signkey root.key -days 30 -extfile ext.cnf -out root.pem");
    run(
        "x509 -req -in sub.csr -CA root.pem -CAkey root.key -CAcreateserial -days 20 -extfile ext.cnf -out sub.pem",
    );
}

#[test]
fn a_ca_of_somebody_else_certifies_the_mesh() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let dir = tempfile::tempdir().expect("folder");
    foreign_ca(dir.path());
    let at = dir.path().display();
    let config = format!(
        "svid_life: 5s\nca: {{certificate: {at}/sub.pem, key: {at}/sub.key, roots: {at}/root.pem}}\n"
    );
    let mut mesh = Mesh::start(&config, &[("reviews", "v3"), ("ratings", "v1")]);
    mesh.wait_for_a_call();
    let state = &mesh.node("ratings", "v1").sidecar.state;
    // Where the machine stands still, one may have ended before it is looked at, and the next is on its way.
    wait::until_true("a certificate that is good", SOON, || {
        root_of_svid(state, &dir.path().join("root.pem"))
    })
    .expect("good");
    // The tool says the same, without a control service.
    let svid = state.join("svid.pem").display().to_string();
    let root = format!("{at}/root.pem");
    let inspect = ["cert", "inspect", &svid, "--roots", &root];
    let told = wait::until("the tool finds it good", SOON, || {
        mesh.control.tool(&inspect)?.done()
    })
    .expect("good");
    assert!(
        told.contains("spiffe://mesh.local/ns/default/sa/ratings"),
        "{told}"
    );
    assert!(told.contains(&format!("good under {root}")), "{told}");
    let told = mesh.control.tool(&["cert", "rotate-root"]).expect("tool");
    let told = told.done().expect_err("not ours to rotate");
    assert!(told.contains("were given"), "{told}");
    another_takes_over(&mut mesh, dir.path());
}

/// Another CA's files are put in place of those in `dir` while everything runs: first its root is told, then
/// it signs.
fn another_takes_over(mesh: &mut Mesh, dir: &Path) {
    let next = tempfile::tempdir().expect("folder");
    foreign_ca(next.path());
    let text = |path: PathBuf| std::fs::read_to_string(path).expect("file");
    let (old, new) = (
        text(dir.join("root.pem")),
        text(next.path().join("root.pem")),
    );
    let roots = |text: &str| std::fs::write(dir.join("root.pem"), text).expect("file");
    let states = ["reviews/v3", "ratings/v1"].map(|name| {
        let (service, version) = name.split_once('/').expect("a name");
        mesh.node(service, version).sidecar.state.clone()
    });
    let hup = |mesh: &mut Mesh| mesh.control.process.signal(Signal::HUP);
    let serve_until = |mesh: &Mesh, what: &str, done: &dyn Fn() -> bool| {
        // A machine that stands still for seconds lets certificates of five end.
        wait::until(what, SOON * 2, || {
            let caller = mesh.node("reviews", "v3");
            match caller.call("ratings", "/ratings/0", &[])?.status {
                200 if done() => Ok(()),
                status => Err(format!("not yet; answered with {status}")),
            }
        })
        .expect("served on");
    };

    // What is wrong changes nothing, and is told.
    roots("no certificate");
    hup(mesh);
    serve_until(mesh, "a word of the wrong file", &|| {
        let log = mesh.control.process.log();
        log.contains("what was in force stays") && log.contains("root.pem: holds no certificate")
    });
    roots(&format!("{old}{new}"));
    hup(mesh);
    serve_until(mesh, "both roots at every sidecar", &|| {
        states.iter().all(|state| {
            let known = text(state.join("roots.pem"));
            known.matches("BEGIN CERTIFICATE").count() == 2
        })
    });
    for name in ["sub.pem", "sub.key"] {
        std::fs::copy(next.path().join(name), dir.join(name)).expect("file");
    }
    roots(&format!("{new}{old}"));
    hup(mesh);
    serve_until(mesh, "certificates of the other CA", &|| {
        let root = next.path().join("root.pem");
        states.iter().all(|state| root_of_svid(state, &root))
    });
}
