//! A small run of the suite, so that it cannot rot: one round with whatever peers there are.

#![expect(clippy::unwrap_used, reason = "a failed step of a test ends the test")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

/// The folder of this build's binaries, if the ones a sidecar needs are among them.
fn binaries() -> PathBuf {
    let own = Path::new(env!("CARGO_BIN_EXE_ringmesh-bench"));
    own.parent().unwrap().to_owned()
}

fn suite(bin: &Path, out: &Path, arguments: &[&str]) -> std::process::Output {
    suite_of("0.3", bin, out, arguments)
}

/// [`suite`] with a length of its round.
fn suite_of(seconds: &str, bin: &Path, out: &Path, arguments: &[&str]) -> std::process::Output {
    Command::new(env!("CARGO_BIN_EXE_ringmesh-bench"))
        .args(["suite", "--rounds", "1", "--seconds", seconds, "--root"])
        .arg(root())
        .arg("--bin")
        .arg(bin)
        .arg("--out")
        .arg(out)
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn a_round_leaves_a_whole_report() {
    let out = tempfile::tempdir().unwrap();
    let run = suite(
        &binaries(),
        out.path(),
        &["--scenario", "http-small", "--envoy", "/nowhere/envoy"],
    );
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    let read = |name: &str| std::fs::read_to_string(out.path().join(name)).unwrap_or_default();
    let json: serde_json::Value = serde_json::from_str(&read("report.json"))
        .unwrap_or_else(|error| panic!("{error}: {said}"));
    let series = json["found"][0]["series"].as_array().unwrap();
    let of = |name: &str| series.iter().find(|one| one["contender"] == name).unwrap();
    // Direct is always there; who is absent says why; who is there has figures.
    assert!(
        of("direct")["rounds"][0]["figures"]["rps"]
            .as_f64()
            .unwrap()
            > 0.0
    );
    let why = of("envoy")["absent"].as_str().unwrap();
    assert!(why.contains("/nowhere/envoy"), "{why}");
    for one in series.iter().filter(|one| one["absent"].is_null()) {
        assert_eq!(one["rounds"].as_array().unwrap().len(), 1, "{one}");
        let added = &one["rounds"][0]["figures"]["added_p50_us"];
        assert_eq!(added.is_null(), one["contender"] == "direct", "{one}");
    }
    // Where the sidecar was built beside us it took part, and its books agreed.
    if binaries().join("ringmesh-proxy").exists() && binaries().join("ringmesh").exists() {
        assert!(run.status.success(), "{said}");
        assert!(
            of("ringmesh")["rounds"][0]["figures"]["cpu_us"]
                .as_f64()
                .unwrap()
                > 0.0
        );
    }
    assert!(read("report.md").contains("| Envoy | absent: /nowhere/envoy"));
    assert!(read("report.html").ends_with("</html>\n"));
    let left: Vec<_> = std::fs::read_dir(out.path()).unwrap().flatten().collect();
    assert_eq!(left.len(), 3, "only the report stays: {left:?}");
}

/// New connections have a load of their own; allocations ask for a build that counts them.
#[test]
fn new_connections_are_measured_and_allocations_where_they_are_counted() {
    let bin = binaries();
    if !bin.join("ringmesh-control").exists() {
        return;
    }
    // On a busy machine it takes many handshakes to tell which kind costs less.
    let told = ["0.3", "3", "10"].into_iter().any(|seconds| {
        let [handshakes, allocations] = handshakes_and_allocations(seconds, &bin);
        let why = allocations["absent"].as_str().unwrap();
        assert!(why.contains("/nowhere/ringmesh-proxy"), "{why}");
        let figure = |name: &str| handshakes["rounds"][0]["figures"][name].as_f64();
        let took = [figure("full_handshake_us"), figure("resumed_handshake_us")];
        println!("{seconds} s: a full handshake and a resumed one take {took:?} us");
        matches!(took, [Some(full), Some(resumed)] if 0.0 < resumed && resumed < full)
    });
    assert!(told, "a resumed handshake costs as much as a full one");
}

/// What a report says of the sidecar in both scenarios.
fn handshakes_and_allocations(seconds: &str, bin: &Path) -> [serde_json::Value; 2] {
    let out = tempfile::tempdir().unwrap();
    let scenarios = ["--scenario", "mtls-handshakes", "--scenario", "allocations"];
    let only = ["--only", "haproxy", "--only", "ringmesh"];
    let more = [&scenarios[..], &only, &["--counting", "/nowhere"]].concat();
    let run = suite_of(seconds, bin, out.path(), &more);
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(run.status.success(), "{said}");
    let report = std::fs::read(out.path().join("report.json")).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&report).unwrap();
    [0, 1].map(|scenario| {
        let mut series = json["found"][scenario]["series"].as_array().unwrap().iter();
        let own = series.find(|one| one["contender"] == "ringmesh");
        own.unwrap().clone()
    })
}

/// Everything below a process.
fn below(pid: u32) -> Vec<u32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    let tasks = tasks.into_iter().flatten().flatten();
    let text = tasks.map(|task| std::fs::read_to_string(task.path().join("children")));
    let text: String = text.flatten().collect();
    let own = text.split_whitespace().filter_map(|pid| pid.parse().ok());
    own.flat_map(|pid| [vec![pid], below(pid)].concat())
        .collect()
}

#[test]
fn what_a_killed_suite_has_started_ends() {
    let out = tempfile::tempdir().unwrap();
    let mut suite = Command::new(env!("CARGO_BIN_EXE_ringmesh-bench"))
        .args(["suite", "--scenario", "http-small", "--only", "direct"])
        .args(["--only", "ringmesh", "--seconds", "60", "--root"])
        .arg(root())
        .arg("--bin")
        .arg(binaries())
        .arg("--out")
        .arg(out.path())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let wait = |what: &str, done: &mut dyn FnMut() -> bool| {
        while !done() {
            assert!(std::time::Instant::now() < until, "{what}");
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
    };
    let is_a_load = |pid: &u32| {
        let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline"));
        line.is_ok_and(|line| line.contains("\0load\0"))
    };
    let mut started = Vec::new();
    wait("it never came to a load", &mut || {
        started = below(suite.id());
        started.iter().any(is_a_load)
    });
    suite.kill().unwrap();
    suite.wait().unwrap();
    // Whoever adopted them may be slow to look after what is dead.
    let runs = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        !stat.is_empty() && !stat.contains(") Z ")
    };
    wait("some of it runs on", &mut || !started.iter().any(runs));
}

#[test]
fn without_binaries_it_says_what_to_build() {
    let out = tempfile::tempdir().unwrap();
    let run = suite(Path::new("/nowhere"), out.path(), &[]);
    assert_eq!(run.status.code(), Some(2));
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(said.contains("--bin /nowhere"), "{said}");
}
