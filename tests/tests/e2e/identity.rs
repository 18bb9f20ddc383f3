//! Who may talk to whom: plaintext, wrong certificates, tokens.

use std::net::SocketAddr;

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::mesh::Mesh;
use ringmesh_tests::{Conn, Node, NodePlan, SOON, Sidecar, wait};

const CAST: [(&str, &str); 2] = [("reviews", "v3"), ("ratings", "v1")];

#[test]
fn plaintext_does_not_reach_a_strict_service() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let mesh = Mesh::start("{}\n", &CAST);
    mesh.wait_for_a_call();
    let ratings = mesh.node("ratings", "v1");
    ratings.app.reset().expect("reset");
    for to in [ratings.sidecar.mesh(), ratings.sidecar.inbound()] {
        // It may be refused as early as while connecting.
        let asked =
            Conn::open(to, SOON).and_then(|mut conn| conn.get("ratings:9080", "/ratings/0", &[]));
        match asked {
            Ok(answer) => assert_ne!(answer.status, 200, "{to}"),
            Err(error) => assert!(
                error.contains("closed") || error.contains("reset by peer"),
                "{to}: {error}"
            ),
        }
    }
    assert_eq!(ratings.app.count().expect("count"), 0);
    mesh.wait_for_a_call();
}

#[test]
fn the_sidecar_s_own_certificate_is_mutual_tls_1_3_only() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let mesh = Mesh::start("{}\n", &CAST);
    mesh.wait_for_a_call();
    // openssl without a client certificate: the handshake may start but no request gets through.
    let to = mesh.node("ratings", "v1").sidecar.mesh();
    mesh.node("ratings", "v1").app.reset().expect("reset");
    for version in ["-tls1_2", "-tls1_3"] {
        let mut openssl = std::process::Command::new("openssl");
        openssl.args([
            "s_client",
            "-quiet",
            "-connect",
            &to.to_string(),
            version,
            "-servername",
            "p9080.ratings.default.ringmesh",
        ]);
        openssl.args([
            "-alpn",
            &String::from_utf8_lossy(ringmesh_wire::ALPN_MESH_HTTP1),
        ]);
        openssl
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        let mut child = openssl.spawn().expect("openssl");
        let mut stdin = child.stdin.take().expect("stdin");
        // It may already have been refused.
        let _ = std::io::Write::write_all(
            &mut stdin,
            b"GET /ratings/0 HTTP/1.1\r\nhost: ratings:9080\r\nconnection: close\r\n\r\n",
        );
        drop(stdin);
        let output = child.wait_with_output().expect("openssl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(!text.contains("200 OK"), "{version}: {text}");
    }
    assert_eq!(mesh.node("ratings", "v1").app.count().expect("count"), 0);
}

/// Starts a sidecar with a token text and gives what it ends up saying.
fn joins_with(mesh: &Mesh, plan: &NodePlan, token: &str, what: &str) {
    let state = mesh.stage.dir().join(&plan.name);
    std::fs::write(state.with_extension("token"), token).expect("token");
    let app = SocketAddr::new(plan.ip, 9080);
    let settings = plan.settings(Some(app), Some(mesh.control.mesh), &state);
    let mut sidecar = Sidecar::launch(&mesh.stage, plan, &settings, &[], None).expect("sidecar");
    wait::until(&format!("a refusal that says {what}"), SOON, || {
        let log = sidecar.process.log();
        if log.to_lowercase().contains(what) {
            Ok(())
        } else {
            Err(log)
        }
    })
    .expect("refused");
    assert!(
        !state.join("svid.pem").exists(),
        "got a certificate all the same"
    );
    sidecar.process.kill();
}

#[test]
fn a_token_is_for_one_node_once_and_pins_the_root() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let mesh = Mesh::start("{}\n", &CAST);
    let used = std::fs::read_to_string(mesh.stage.dir().join("ratings-v1-2.token")).expect("token");
    let plan = mesh.plan("details", "v1");
    // Used by ratings already: and it was for another node.
    joins_with(&mesh, &plan, &used, "token");
    // Right secret, wrong root.
    let fresh = mesh.control.token(&plan).expect("token");
    let (rest, root) = fresh.rsplit_once('.').expect("three parts");
    let turned: String = root
        .chars()
        .map(|c| if c == '0' { '1' } else { '0' })
        .collect();
    joins_with(&mesh, &plan, &format!("{rest}.{turned}"), "root");
    // For another node.
    let other = NodePlan {
        name: "someone-else".to_owned(),
        ..plan.clone()
    };
    joins_with(&mesh, &other, &fresh, "node");
    // It was not used up by all that.
    let mut node = Node::start(&mesh.stage, &mesh.control, plan.clone()).expect("node");
    node.sidecar.wait_ready().expect("ready");
    // Twice: a new state directory with the token that has been used.
    let used = std::fs::read_to_string(mesh.stage.dir().join(format!("{}.token", plan.name)))
        .expect("token");
    node.sidecar.process.stop().expect("stop");
    std::fs::remove_dir_all(&node.sidecar.state).expect("state");
    joins_with(&mesh, &plan, &used, "used");
}

#[test]
fn an_endpoint_goes_when_its_sidecar_leaves_and_when_it_is_killed() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let mut mesh = Mesh::start(
        "{}\n",
        &[("reviews", "v3"), ("ratings", "v1"), ("ratings", "v2")],
    );
    mesh.add("ratings", "v3")
        .sidecar
        .wait_ready()
        .expect("ready");
    mesh.wait_for_a_call();
    let count = |mesh: &Mesh| {
        let text = mesh
            .control
            .tool(&["endpoints"])
            .expect("tool")
            .done()
            .expect("endpoints");
        text.lines()
            .filter(|line| line.contains("ratings-") && line.contains("live"))
            .count()
    };
    wait::until_true("three endpoints", SOON, || count(&mesh) == 3).expect("three endpoints");
    mesh.node_mut("ratings", "v3")
        .sidecar
        .process
        .signal(rustix::process::Signal::TERM);
    wait::until_true("the endpoint gone on TERM", SOON, || count(&mesh) == 2).expect("withdrawn");
    mesh.node_mut("ratings", "v2").sidecar.process.kill();
    wait::until_true("the endpoint gone after KILL", SOON, || count(&mesh) == 1)
        .expect("withdrawn");
    // How soon depends on the machine; by what does not. One that leaves is not waited for until its silence tells.
    let log = mesh.control.process.log();
    for (version, how) in [("v3", "Left"), ("v2", "Lost")] {
        let node = &mesh.node("ratings", version).plan.name;
        let told = log.lines().any(|line| {
            ["session ended", node, how]
                .iter()
                .all(|word| line.contains(word))
        });
        assert!(told, "{node} {how}: {log}");
    }
    mesh.wait_for_a_call();
}

#[test]
fn a_sidecar_restarts_without_control() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let mut mesh = Mesh::start("{}\n", &CAST);
    mesh.apply("subsets.yaml");
    mesh.apply("denier-complete.yaml");
    wait::until_true("the denial", SOON, || {
        mesh.node("reviews", "v3")
            .call("ratings", "/ratings/0", &[])
            .is_ok_and(|answer| answer.status == 403)
    })
    .expect("the denial");
    mesh.control.process.kill();
    for (service, version) in CAST {
        let node = mesh.node_mut(service, version);
        node.sidecar.process.stop().expect("stop");
        node.sidecar.restart().expect("restart");
        node.sidecar.wait_ready().expect("ready");
    }
    let answer = mesh
        .node("reviews", "v3")
        .call("ratings", "/ratings/0", &[])
        .expect("an answer");
    assert_eq!(
        answer.status, 403,
        "the last good configuration holds, with its policy"
    );
    let answer = mesh
        .node("ratings", "v1")
        .call("reviews", "/reviews/0", &[])
        .expect("an answer");
    assert_eq!(answer.status, 200);
}
