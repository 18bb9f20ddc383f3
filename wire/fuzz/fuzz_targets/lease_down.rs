//! [`ringmesh_wire::LeaseDown`] from a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmesh_wire::{LeaseDown, codec};

fuzz_target!(|payload: &[u8]| {
    if let Ok(message) = codec::decode::<LeaseDown>(payload) {
        let again = codec::encode(&message).expect("what decodes, encodes");
        assert_eq!(codec::decode::<LeaseDown>(&again).as_ref(), Ok(&message));
    }
});
