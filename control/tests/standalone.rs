//! `ringmesh compile` on examples/standalone, and on input that is wrong.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where its ground is missing"
)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use ringmesh_control::tool::compile::{CompileArgs, run};
use ringmesh_wire::v1::Snapshot;
use ringmesh_wire::v1::snapshot::{Applies, Body};

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    args: CompileArgs,
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

const SIDECAR: &str = "node: standalone\nservice: standalone\nlabels: {app: standalone}\n\
                       shards: 1\nstate_dir: /nowhere\n";

/// Runs `compile`; its exit status and the snapshot, if there is one.
fn compile(folder: &Path, rules: &[&Path], more: &[&str]) -> (ExitCode, Option<Vec<u8>>) {
    let node = folder.join("sidecar.yaml");
    let out = folder.join("out.rmsh");
    if !node.exists() {
        std::fs::write(&node, SIDECAR).unwrap();
    }
    let _ = std::fs::remove_file(&out);
    let mut words: Vec<&std::ffi::OsStr> = vec!["compile".as_ref()];
    for path in rules {
        words.extend(["-f".as_ref(), path.as_os_str()]);
    }
    words.extend([
        "--node".as_ref(),
        node.as_os_str(),
        "-o".as_ref(),
        out.as_os_str(),
    ]);
    words.extend(
        more.iter()
            .map(|word| AsRef::<std::ffi::OsStr>::as_ref(*word)),
    );
    let code = run(&Line::parse_from(words).args);
    (code, std::fs::read(&out).ok())
}

fn is(code: ExitCode, wanted: u8) -> bool {
    format!("{code:?}") == format!("{:?}", ExitCode::from(wanted))
}

#[test]
fn the_standalone_rules_compile_to_what_they_promise() {
    let folder = tempfile::tempdir().unwrap();
    let rules = root().join("examples/standalone/rules");
    let (code, bytes) = compile(folder.path(), &[&rules], &["--strict"]);
    assert!(is(code, 0));
    let bytes = bytes.unwrap();
    let snapshot = Snapshot::from_file(&bytes).unwrap();
    let (mut services, mut routes, mut quotas, mut policies) = (0, Vec::new(), 0, Vec::new());
    for section in &snapshot.sections {
        match section.open().unwrap() {
            Body::Service(service) => {
                assert!(service.external && service.policy.outlier.is_some());
                services += 1;
            }
            Body::Routes(host) => routes.push(host.http.len()),
            Body::Quota(quota) => {
                // Nobody can call this sidecar, so its own calls alone are charged.
                let all = Applies::OutboundNamespace("default".to_owned());
                assert!(quota.applies == all && quota.when.is_some() && quota.enforcers == 1);
                quotas += 1;
            }
            Body::Policy(policy) => policies = policy.authz,
            _ => {}
        }
    }
    assert_eq!((services, routes.len(), quotas), (100, 100, 20));
    assert!(routes.iter().all(|routes| *routes == 10));
    assert_eq!(policies.len(), 25);
    // Equal input, equal file; files in any order.
    let each: Vec<PathBuf> = ["routes", "quotas", "policies", "services"]
        .iter()
        .map(|name| rules.join(format!("{name}.yaml")))
        .collect();
    let each: Vec<&Path> = each.iter().map(PathBuf::as_path).collect();
    let (_, again) = compile(folder.path(), &each, &[]);
    assert!(again.unwrap() == bytes);
}

#[test]
fn wrong_input_ends_with_2_and_writes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    let write = |text: &str| std::fs::write(&rules, text).unwrap();
    write("kind: x\n");
    let (code, out) = compile(folder.path(), &[&rules], &[]);
    assert!(is(code, 2) && out.is_none());
    // Well-formed, but what it needs is not there.
    let timeout = root().join("examples/rules/timeout-10s.yaml");
    let (code, out) = compile(folder.path(), &[&timeout], &["--strict"]);
    assert!(is(code, 2) && out.is_none());
    let (code, out) = compile(folder.path(), &[&timeout], &[]);
    assert!(is(code, 0) && out.is_some());
    // The same object twice.
    let (code, out) = compile(folder.path(), &[&timeout, &timeout], &[]);
    assert!(is(code, 2) && out.is_none());
    let (code, _) = compile(folder.path(), &[Path::new("/nowhere.yaml")], &[]);
    assert!(is(code, 2));
    // An unknown key of sidecar.yaml.
    std::fs::write(
        folder.path().join("sidecar.yaml"),
        format!("{SIDECAR}bogus: 1\n"),
    )
    .unwrap();
    let (code, out) = compile(folder.path(), &[&timeout], &[]);
    assert!(is(code, 2) && out.is_none());
}

#[test]
fn the_committed_rules_are_those_of_the_generator() {
    let folder = tempfile::tempdir().unwrap();
    let standalone = root().join("examples/standalone");
    std::fs::create_dir(folder.path().join("rules")).unwrap();
    std::fs::copy(standalone.join("generate"), folder.path().join("generate")).unwrap();
    let done = std::process::Command::new("bash")
        .arg(folder.path().join("generate"))
        .status()
        .unwrap();
    assert!(done.success());
    for name in ["services", "routes", "policies", "quotas"] {
        let name = format!("rules/{name}.yaml");
        let fresh = std::fs::read_to_string(folder.path().join(&name)).unwrap();
        let committed = std::fs::read_to_string(standalone.join(&name)).unwrap();
        assert!(
            fresh == committed,
            "{name}: run examples/standalone/generate"
        );
    }
}
