//! [`ringmesh_wire::Welcome`] from a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmesh_wire::{Welcome, codec};

fuzz_target!(|payload: &[u8]| {
    if let Ok(message) = codec::decode::<Welcome>(payload) {
        let again = codec::encode(&message).expect("what decodes, encodes");
        assert_eq!(codec::decode::<Welcome>(&again).as_ref(), Ok(&message));
    }
});
