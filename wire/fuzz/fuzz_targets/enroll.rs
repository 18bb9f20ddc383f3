//! [`ringmesh_wire::Enroll`] from a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmesh_wire::{Enroll, codec};

fuzz_target!(|payload: &[u8]| {
    if let Ok(message) = codec::decode::<Enroll>(payload) {
        let again = codec::encode(&message).expect("what decodes, encodes");
        assert_eq!(codec::decode::<Enroll>(&again).as_ref(), Ok(&message));
    }
});
