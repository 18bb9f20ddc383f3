//! `ringmesh demo` as a user runs it: all rows as expected, nothing left, also after Ctrl-C.

use std::time::Duration;

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::{Launch, Process, SOON, bins, wait};

fn start(folder: &std::path::Path, words: &[&str]) -> Process {
    let launch = words.iter().fold(
        Launch::new(bins().path("ringmesh")).arg("demo"),
        |launch, word| launch.arg(word),
    );
    Process::start("demo", &launch, folder).expect("demo")
}

/// Processes of this machine whose command line names `text`.
fn naming(text: &str) -> Vec<String> {
    let entries = std::fs::read_dir("/proc").expect("/proc").flatten();
    entries
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok())
        .filter(|line| line.contains(text))
        .map(|line| line.replace('\0', " "))
        .collect()
}

/// Waits for the demo's eight sidecars to run as themselves. `setpriv` starts them, and is named by the same command
/// line before it has asked the kernel to end it with the demo.
fn wait_for_sidecars(ours: &str) {
    let is_sidecar = |line: &String| {
        let program = line.split(' ').next();
        program.is_some_and(|program| program.ends_with("/ringmesh-proxy"))
    };
    wait::until_true("sidecars of the demo", SOON * 3, || {
        naming(ours).iter().filter(|line| is_sidecar(line)).count() == 8
    })
    .expect("sidecars");
}

#[test]
fn every_row_is_as_expected() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let mut demo = start(folder.path(), &[]);
    let pid = demo.pid();
    let status = wait::until("the demo's end", Duration::from_secs(900), || {
        demo.status().ok_or_else(|| demo.log_tail())
    });
    let log = demo.log();
    assert!(
        status.as_ref().is_ok_and(std::process::ExitStatus::success),
        "{status:?}\n{log}"
    );
    assert!(
        !log.contains("NOT BUILT") && !log.contains("DIFFERS") && !log.contains("FAILED"),
        "{log}"
    );
    if !log.contains("left out") {
        assert!(log.contains("18 as expected, 0 not, 0 left out"), "{log}");
    }
    assert_eq!(naming(&format!("ringmesh-{pid}-")), Vec::<String>::new());
}

#[test]
fn ctrl_c_leaves_nothing() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let mut demo = start(folder.path(), &["--only", "plain,canary"]);
    let ours = format!("ringmesh-{}-", demo.pid());
    wait_for_sidecars(&ours);
    demo.signal(rustix::process::Signal::INT);
    let status = wait::until("the demo's end", SOON, || {
        demo.status().ok_or_else(|| "it runs".to_owned())
    })
    .expect("an end");
    assert_eq!(status.code(), Some(130), "{}", demo.log());
    wait::until("nothing left", SOON, || match naming(&ours) {
        left if left.is_empty() => Ok(()),
        left => Err(left.join("; ")),
    })
    .expect("nothing left");
}

#[test]
fn killing_the_demo_ends_its_children() {
    if !has(&[Ability::Uring]) {
        return;
    }
    let folder = tempfile::tempdir().expect("folder");
    let mut demo = start(folder.path(), &["--only", "plain,canary"]);
    let ours = format!("ringmesh-{}-", demo.pid());
    wait_for_sidecars(&ours);
    demo.kill();
    wait::until_true("nothing left", SOON, || naming(&ours).is_empty()).expect("nothing left");
}
