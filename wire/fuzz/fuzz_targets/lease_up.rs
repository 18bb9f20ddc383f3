//! [`ringmesh_wire::LeaseUp`] from a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmesh_wire::{LeaseUp, codec};

fuzz_target!(|payload: &[u8]| {
    if let Ok(message) = codec::decode::<LeaseUp>(payload) {
        let again = codec::encode(&message).expect("what decodes, encodes");
        assert_eq!(codec::decode::<LeaseUp>(&again).as_ref(), Ok(&message));
    }
});
