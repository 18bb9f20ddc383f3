//! [`ringmesh_wire::Push`] from a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmesh_wire::{Push, codec};

fuzz_target!(|payload: &[u8]| {
    if let Ok(message) = codec::decode::<Push>(payload) {
        let again = codec::encode(&message).expect("what decodes, encodes");
        assert_eq!(codec::decode::<Push>(&again).as_ref(), Ok(&message));
    }
});
