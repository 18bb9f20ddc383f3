//! [`ringmesh_wire::Resolved`] from a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmesh_wire::{Resolved, codec};

fuzz_target!(|payload: &[u8]| {
    if let Ok(message) = codec::decode::<Resolved>(payload) {
        let again = codec::encode(&message).expect("what decodes, encodes");
        assert_eq!(codec::decode::<Resolved>(&again).as_ref(), Ok(&message));
    }
});
