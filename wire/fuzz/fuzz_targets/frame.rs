//! Envelopes from the network.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmesh_wire::frame;

fuzz_target!(|bytes: &[u8]| {
    if let Ok((header, payload)) = frame::open(bytes) {
        // What opens, seals to the same bytes.
        assert_eq!(
            frame::seal_as(header.schema, header.kind, header.revision, payload).as_deref(),
            Ok(bytes)
        );
    }
});
