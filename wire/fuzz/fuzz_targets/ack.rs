//! [`ringmesh_wire::Ack`] from a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmesh_wire::{Ack, codec};

fuzz_target!(|payload: &[u8]| {
    if let Ok(message) = codec::decode::<Ack>(payload) {
        let again = codec::encode(&message).expect("what decodes, encodes");
        assert_eq!(codec::decode::<Ack>(&again).as_ref(), Ok(&message));
    }
});
