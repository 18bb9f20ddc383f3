//! [`ringmesh_wire::Report`] from a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmesh_wire::{Report, codec};

fuzz_target!(|payload: &[u8]| {
    if let Ok(message) = codec::decode::<Report>(payload) {
        let again = codec::encode(&message).expect("what decodes, encodes");
        assert_eq!(codec::decode::<Report>(&again).as_ref(), Ok(&message));
    }
});
