//! Arriving connections of a caller outside the mesh, captured by rules in a network namespace of
//! the test's own, both port layouts. Captured outgoing ones are rows of the demo.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::Command;

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::stage::{Space, inside};
use ringmesh_tests::{App, ControlService, NodePlan, SOON, Sidecar, bins, get, stage, wait};

const APP_UID: u32 = 4101;
const PERMISSIVE: &str = "apiVersion: security.istio.io/v1\nkind: PeerAuthentication\nmetadata: {name: mesh, namespace: istio-system}\nspec: {mtls: {mode: PERMISSIVE}}\n";

fn outside(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(10, 88, 0, last))
}

#[test]
fn arriving_connections_are_captured_in_both_layouts() {
    if !has(&[Ability::Root, Ability::Netns, Ability::Uring]) {
        return;
    }
    for (layout, inbound_to) in [("two", "15006"), ("one", "15001")] {
        let stage = stage();
        // The sidecar's address is not the interface's first one: REDIRECT then changes it.
        let space = Space::make(&format!("in-{layout}"), &[2, 31].map(outside)).expect("namespace");
        let netns = Some(space.name());
        let control = ControlService::start_in(&stage, "control", outside(2), "{}\n", netns)
            .expect("control");
        let local = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 31));
        let app = App::start_in(
            &stage,
            "ratings",
            "ratings",
            "v1",
            local,
            space.name(),
            APP_UID,
        )
        .expect("app");
        let mut plan = NodePlan::new("ratings", "v1", "1", outside(31));
        (plan.admin, plan.outbound) = (local, IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let state = stage.dir().join(&plan.name);
        std::fs::write(
            state.with_extension("token"),
            control.token(&plan).expect("token"),
        )
        .expect("token");
        let settings = plan
            .settings(
                Some(SocketAddr::new(local, 9080)),
                Some(control.mesh),
                &state,
            )
            .replace("\"10.88.0.31:15006\"", "\"0.0.0.0:15006\"");
        let mut sidecar = Sidecar::launch(&stage, &plan, &settings, &[], netns).expect("sidecar");
        sidecar.wait_ready().expect("ready");
        let options = [
            "--name",
            "t",
            "--family",
            "v4",
            "--proxy-uid",
            "0",
            "--inbound",
            "9080",
            "--inbound-to",
            inbound_to,
        ];
        space
            .intercept(&stage, &[&["up"], &options[..]].concat())
            .expect("up");

        let call = || {
            inside(space.world(), || {
                get(
                    SocketAddr::new(outside(31), 9080),
                    "ratings:9080",
                    "/ratings/0",
                    &[],
                    SOON,
                )
            })
            .expect("the other end")
        };
        // Strict: plaintext is refused before the app.
        if let Ok(answer) = call() {
            assert_ne!(answer.status, 200, "{layout}: {}", answer.text());
        }
        assert_eq!(app.count().expect("count"), 0, "{layout}");
        let rule = stage.file("permissive.yaml", PERMISSIVE).expect("file");
        control.apply(&rule).expect("apply");
        wait::until(
            &format!("a permissive answer, {layout}"),
            SOON,
            || match call()? {
                answer if answer.status == 200 => Ok(()),
                answer => Err(format!("{} {}", answer.status, answer.text())),
            },
        )
        .expect("captured");
        assert!(app.count().expect("count") >= 1, "{layout}");
        space
            .intercept(&stage, &["down", "--name", "t"])
            .expect("down");
        assert_eq!(
            space.rules().expect("rules"),
            Vec::<String>::new(),
            "{layout}"
        );
    }
}

/// In namespaces of its own, with cgroups where nft looks for them; `$1` is the tool.
const A_UNIT_STARTS_ANEW: &str = r#"
set -e
cgroup=ringmesh-test-$$
mount --make-rprivate /
mount -t cgroup2 none /sys/fs/cgroup
trap 'rmdir /sys/fs/cgroup/$cgroup' EXIT
start() { mkdir /sys/fs/cgroup/$cgroup; }
stop() { rmdir /sys/fs/cgroup/$cgroup; }
up() { "$1" intercept up --backend "$2" --outbound 80 --proxy-uid 1337 --from-cgroup $cgroup; }
show() { "$1" intercept show | sed -n '1{s/ .*//;p}'; }
start; up "$@"; show "$1"
stop; show "$1"
start; show "$1"
up "$@"; show "$1"
"#;

#[test]
fn rules_for_the_cgroup_of_a_unit_that_started_anew_are_broken_until_they_are_renewed() {
    if !has(&[Ability::Root, Ability::Netns]) {
        return;
    }
    for backend in ["nftables", "iptables"] {
        let output = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c", A_UNIT_STARTS_ANEW, "sh"])
            .arg(bins().path("ringmesh"))
            .arg(backend)
            .output()
            .expect("util-linux");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{backend}: {said}");
        let states = String::from_utf8_lossy(&output.stdout);
        assert_eq!(states, "up\nbroken:\nbroken:\nup\n", "{backend}: {said}");
    }
}
