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
    Command::new(env!("CARGO_BIN_EXE_ringmesh-bench"))
        .args(["suite", "--rounds", "1", "--seconds", "0.3", "--root"])
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

#[test]
fn without_binaries_it_says_what_to_build() {
    let out = tempfile::tempdir().unwrap();
    let run = suite(Path::new("/nowhere"), out.path(), &[]);
    assert_eq!(run.status.code(), Some(2));
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    assert!(said.contains("--bin /nowhere"), "{said}");
}
