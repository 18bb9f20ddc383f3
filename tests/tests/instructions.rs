//! Instructions per call of the rooms that decide about a request, against their budgets.
//!
//! Unlike time they do not depend on the machine's load, so growth of a few percent can be told.
//! `dataplane/examples/decide.rs` makes the calls; callgrind counts. Our crates are built optimised
//! for it, the others are those of the ordinary test build, so that it costs a minute and not ten;
//! absolute figures of a release build are lower where a library does the work (`parse`, `answer`).

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use ringmesh_tests::ability::{Ability, has};
use ringmesh_tests::{bins, repository};

const BUDGETS: &str = "tests/instructions.txt";
/// Set to anything: what is counted becomes the budget.
const ACCEPT: &str = "RINGMESH_ACCEPT_INSTRUCTIONS";
/// Growth that fails. Counts of the same code differ by less than 0.1 % (seeds of hash tables);
/// inlining that falls out otherwise moves a room by a percent or two.
const TOLERANCE_PERCENT: f64 = 3.0;
/// Crates built as in a release, without link-time optimisation.
const OURS: [&str; 4] = ["wire", "quota", "tuning", "dataplane"];
/// What callgrind looks at: the function that makes a room's calls.
const MEASURED: &str = "decide::measured";

#[test]
fn no_deciding_room_costs_more_instructions_than_its_budget() {
    if !has(&[Ability::Valgrind]) {
        return;
    }
    build();
    let counted = count();
    let path = repository(BUDGETS);
    let text = std::fs::read_to_string(&path).expect(BUDGETS);
    if std::env::var_os(ACCEPT).is_some() {
        std::fs::write(&path, accepted(&text, &counted)).expect(BUDGETS);
        return;
    }
    let budgets: BTreeMap<&str, f64> = text.lines().filter_map(budget).collect();
    let mut grown = String::new();
    for (room, cost) in &counted {
        let Some(budget) = budgets.get(room.as_str()) else {
            let _ = writeln!(grown, "  {room}: {cost:.0}, and no budget");
            continue;
        };
        let percent = (cost / budget - 1.0) * 100.0;
        println!("{room:10} {cost:8.0} of {budget:8.0} ({percent:+.1} %)");
        if percent > TOLERANCE_PERCENT {
            let _ = writeln!(
                grown,
                "  {room}: {cost:.0} instructions per call, the budget is {budget:.0} ({percent:+.1} %)"
            );
        }
    }
    let is_counted = |room: &str| counted.iter().any(|(name, _)| name == room);
    for room in budgets.keys().filter(|room| !is_counted(room)) {
        let _ = writeln!(grown, "  {room}: has a budget but is not counted");
    }
    assert!(
        grown.is_empty(),
        "rooms above their budget (more than {TOLERANCE_PERCENT} %):\n{grown}\
         Where they go: callgrind_annotate on what this writes:\n  \
         valgrind --tool=callgrind --toggle-collect={MEASURED} --dump-after={MEASURED} \
         target/debug/examples/decide callgrind\n\
         If it is worth it, take the new counts and say why in the commit:\n  \
         {ACCEPT}=1 cargo test -p ringmesh-tests --test instructions"
    );
}

/// `room instructions`; comments and empty lines say nothing.
fn budget(line: &str) -> Option<(&str, f64)> {
    let line = line.split('#').next()?.trim();
    let (room, count) = line.split_once(' ')?;
    let count = count.trim().parse();
    Some((room, count.unwrap_or_else(|_| panic!("{BUDGETS}: {line}"))))
}

/// The file's comments with new counts below.
fn accepted(text: &str, counted: &[(String, f64)]) -> String {
    let comments = text.lines().take_while(|line| line.starts_with('#'));
    let mut new: String = comments.flat_map(|line| [line, "\n"]).collect();
    for (room, cost) in counted {
        let _ = writeln!(new, "{room:10} {cost:.0}");
    }
    new
}

fn build() {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    // The whole workspace, so that libraries have the features they have in the test build.
    build
        .args(["build", "--locked", "--quiet", "--workspace"])
        .args(["--example", "decide"])
        .env("CARGO_INCREMENTAL", "0")
        .current_dir(repository("."));
    for name in OURS {
        for setting in [
            "opt-level=3",
            "debug-assertions=false",
            "overflow-checks=false",
            // What is inlined must not hang on which functions happen to be compiled together.
            "codegen-units=1",
        ] {
            let setting = format!("profile.dev.package.ringmesh-{name}.{setting}");
            build.args(["--config", &setting]);
        }
    }
    assert!(build.status().expect("cargo").success(), "cargo build");
}

/// Instructions per call of each room, in the order of a request.
fn count() -> Vec<(String, f64)> {
    let folder = tempfile::tempdir().expect("a folder");
    let out = folder.path().join("out");
    let run = Command::new("valgrind")
        .args(["-q", "--tool=callgrind"])
        .arg(format!("--toggle-collect={MEASURED}"))
        .arg(format!("--dump-after={MEASURED}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(bins().path("examples/decide"))
        .arg("callgrind")
        .output()
        .expect("valgrind");
    let told = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "{told}{}",
        String::from_utf8_lossy(&run.stderr)
    );
    // A dump per room, numbered in the order in which it tells of them.
    let rooms = told.lines().enumerate().map(|(at, line)| {
        let (room, calls) = line.split_once(' ').expect("room and calls");
        let calls: f64 = calls.parse().expect("a number");
        let total = total(&out.with_extension((at + 1).to_string()));
        (room.to_owned(), total / calls)
    });
    rooms.collect()
}

fn total(dump: &Path) -> f64 {
    let text =
        std::fs::read_to_string(dump).unwrap_or_else(|error| panic!("{}: {error}", dump.display()));
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    let total: f64 = total.and_then(|n| n.parse().ok()).expect("totals");
    assert!(total > 0.0, "callgrind did not find {MEASURED}");
    total
}
