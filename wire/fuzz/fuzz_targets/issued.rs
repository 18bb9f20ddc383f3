//! [`ringmesh_wire::Issued`] from a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmesh_wire::{Issued, codec};

fuzz_target!(|payload: &[u8]| {
    if let Ok(message) = codec::decode::<Issued>(payload) {
        let again = codec::encode(&message).expect("what decodes, encodes");
        assert_eq!(codec::decode::<Issued>(&again).as_ref(), Ok(&message));
    }
});
