//! What version 1 looks like in bytes. A difference here is a break of the wire format: once the
//! version is released it takes a new version, not a new file. `UPDATE_GOLDEN=1` writes them.

mod samples;

use std::path::PathBuf;

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/v1")
}

#[test]
fn every_sample_encodes_to_its_golden_bytes_and_back() {
    for sample in samples::all() {
        let path = folder().join(sample.name).with_extension("bin");
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&path, &sample.bytes).unwrap();
        }
        let golden = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        assert_eq!(
            sample.bytes, golden,
            "{} encodes to other bytes",
            sample.name
        );
        assert_eq!(
            (sample.equal)(&golden),
            Ok(true),
            "{} decodes to another value",
            sample.name
        );
    }
}

#[test]
fn every_golden_file_has_a_sample() {
    let names: Vec<String> = samples::all()
        .iter()
        .map(|s| format!("{}.bin", s.name))
        .collect();
    for file in std::fs::read_dir(folder()).unwrap() {
        let name = file.unwrap().file_name().into_string().unwrap();
        assert!(
            names.contains(&name),
            "golden/v1/{name} belongs to no sample"
        );
    }
}
