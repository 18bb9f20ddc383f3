//! [`ringmesh_wire::Hello`] from a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmesh_wire::{Hello, codec};

fuzz_target!(|payload: &[u8]| {
    if let Ok(message) = codec::decode::<Hello>(payload) {
        let again = codec::encode(&message).expect("what decodes, encodes");
        assert_eq!(codec::decode::<Hello>(&again).as_ref(), Ok(&message));
    }
});
