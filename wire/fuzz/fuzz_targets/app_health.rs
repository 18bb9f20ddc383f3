//! [`ringmesh_wire::AppHealth`] from a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmesh_wire::{AppHealth, codec};

fuzz_target!(|payload: &[u8]| {
    if let Ok(message) = codec::decode::<AppHealth>(payload) {
        let again = codec::encode(&message).expect("what decodes, encodes");
        assert_eq!(codec::decode::<AppHealth>(&again).as_ref(), Ok(&message));
    }
});
