//! [`ringmesh_wire::LogBatch`] from a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmesh_wire::{LogBatch, codec};

fuzz_target!(|payload: &[u8]| {
    if let Ok(message) = codec::decode::<LogBatch>(payload) {
        let again = codec::encode(&message).expect("what decodes, encodes");
        assert_eq!(codec::decode::<LogBatch>(&again).as_ref(), Ok(&message));
    }
});
