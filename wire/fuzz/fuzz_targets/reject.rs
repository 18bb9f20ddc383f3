//! [`ringmesh_wire::Reject`] from a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmesh_wire::{Reject, codec};

fuzz_target!(|payload: &[u8]| {
    if let Ok(message) = codec::decode::<Reject>(payload) {
        let again = codec::encode(&message).expect("what decodes, encodes");
        assert_eq!(codec::decode::<Reject>(&again).as_ref(), Ok(&message));
    }
});
