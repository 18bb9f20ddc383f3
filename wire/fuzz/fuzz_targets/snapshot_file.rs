//! Snapshot files: payload and every section. The checksum is made to fit, or nothing would get in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmesh_wire::frame::{self, Kind};
use ringmesh_wire::{Revision, Snapshot};

fuzz_target!(|payload: &[u8]| {
    let file = frame::seal(Kind::Snapshot, Revision(1), payload).expect("inputs are small");
    if let Ok(snapshot) = Snapshot::from_file(&file) {
        for section in &snapshot.sections {
            let _ = section.open();
        }
    }
});
