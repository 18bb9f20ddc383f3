//! [`ringmesh_wire::Nack`] from a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmesh_wire::{Nack, codec};

fuzz_target!(|payload: &[u8]| {
    if let Ok(message) = codec::decode::<Nack>(payload) {
        let again = codec::encode(&message).expect("what decodes, encodes");
        assert_eq!(codec::decode::<Nack>(&again).as_ref(), Ok(&message));
    }
});
