//! House rules, as a test: what ARCHITECTURE.md says nobody does, nobody does.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("a workspace")
        .to_owned()
}

/// Every file of an ending below our own folders, as (path from the root, text).
fn files(ending: &str) -> Vec<(String, String)> {
    let root = root();
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = OURS.iter().map(|name| root.join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("our folder").flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if path.is_dir() {
                if name != "target" && name != "corpus" && name != "artifacts" {
                    folders.push(path);
                }
            } else if name.ends_with(ending) {
                let shown = path
                    .strip_prefix(&root)
                    .expect("below the root")
                    .display()
                    .to_string();
                found.push((shown, fs::read_to_string(&path).expect("text")));
            }
        }
    }
    assert!(!found.is_empty(), "no {ending} found: the walk is broken");
    found.sort();
    found
}

const OURS: [&str; 9] = [
    "wire",
    "tuning",
    "quota",
    "dataplane",
    "control",
    "benches",
    "tests",
    "docs",
    "examples",
];

/// Lines that are code, with their numbers.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(at, line)| (at + 1, line))
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// Complains about every code line that `breaks` finds outside of `allowed`.
fn nowhere_but(allowed: &[&str], rule: &str, breaks: impl Fn(&str) -> bool) {
    let mut wrong = Vec::new();
    for (path, text) in files(".rs") {
        if path.ends_with("tidy.rs") || allowed.iter().any(|prefix| path.starts_with(prefix)) {
            continue;
        }
        let lines = code(&text).filter(|(_, line)| breaks(line));
        wrong.extend(lines.map(|(at, line)| format!("{path}:{at}: {}", line.trim())));
    }
    assert!(wrong.is_empty(), "{rule}:\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_lives_in_ring_and_tuning() {
    nowhere_but(
        // The allocation counter of tests has to implement an unsafe trait.
        &["dataplane/src/ring/", "tuning/", "dataplane/tests/"],
        "`unsafe` belongs to dataplane/src/ring and tuning",
        |line| {
            ["unsafe {", "unsafe fn", "unsafe impl"]
                .iter()
                .any(|word| line.contains(word))
        },
    );
}

#[test]
fn one_room_names_glommio_and_one_door_names_bincode() {
    let names = |word: &'static str| move |line: &str| line.contains(word);
    nowhere_but(
        &["dataplane/src/shard/"],
        "glommio belongs to shard",
        names("glommio::"),
    );
    nowhere_but(
        &["wire/src/codec.rs"],
        "bincode belongs to wire's codec",
        names("bincode::"),
    );
    nowhere_but(
        &["dataplane/src/ring/", "tuning/"],
        "opcodes belong to ring",
        names("io_uring::"),
    );
}

#[test]
fn the_two_planes_do_not_know_each_other() {
    for (plane, other) in [
        ("control", "ringmesh_dataplane"),
        ("dataplane", "ringmesh_control"),
    ] {
        for (path, text) in files(".rs") {
            if path.starts_with(&format!("{plane}/src")) {
                assert!(
                    !text.contains(&format!("{other}::")),
                    "{path} names {other}"
                );
            }
        }
    }
}

#[test]
fn every_source_file_says_what_it_is() {
    let silent: Vec<String> = files(".rs")
        .into_iter()
        // A room's tests are about the room, which has said what it is.
        .filter(|(path, _)| !path.ends_with("tests.rs"))
        .filter(|(_, text)| !text.starts_with("//!") && !text.starts_with("#![no_main]"))
        .map(|(path, _)| path)
        .collect();
    assert!(
        silent.is_empty(),
        "files without a first line of `//!`: {silent:#?}"
    );
}

#[test]
fn nothing_is_left_open() {
    nowhere_but(&[], "left open in the code", |line| {
        ["todo!(", "unimplemented!(", "FIXME", "XXX", "#[ignore"]
            .iter()
            .any(|w| line.contains(w))
    });
}

/// docs/decisions/0008-duplicate-dependencies.md.
#[test]
fn duplicate_dependencies_are_the_known_ones() {
    let lock = fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock");
    let known = fs::read_to_string(root().join("docs/decisions/0008-duplicate-dependencies.md"))
        .expect("0008");
    let mut versions: BTreeMap<&str, u32> = BTreeMap::new();
    for name in lock.lines().filter_map(|line| line.strip_prefix("name = ")) {
        *versions.entry(name.trim_matches('"')).or_default() += 1;
    }
    // What only other platforms pull in is in the lock file but never built here.
    let elsewhere = |name: &str| name.starts_with("windows") || name.starts_with("wasi");
    let unknown: Vec<&str> = versions
        .into_iter()
        .filter(|(name, count)| *count > 1 && !elsewhere(name))
        .map(|(name, _)| name)
        .filter(|name| !known.contains(&format!("| {name} |")))
        .collect();
    assert!(
        unknown.is_empty(),
        "two versions, and 0008 does not say who forces them: {unknown:?}"
    );
}

#[test]
fn links_in_documents_lead_somewhere() {
    let root = root();
    let mut documents = files(".md");
    for name in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        documents.push((
            name.to_owned(),
            fs::read_to_string(root.join(name)).expect("a document"),
        ));
    }
    let mut broken = Vec::new();
    for (path, text) in documents {
        let folder = root.join(&path).parent().expect("a folder").to_owned();
        for target in text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split(')').next())
        {
            let file = target.split('#').next().unwrap_or("");
            let outside = target.starts_with("http") || file.is_empty() || file.contains(' ');
            if !outside && !folder.join(file).exists() {
                broken.push(format!("{path}: {target}"));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}
