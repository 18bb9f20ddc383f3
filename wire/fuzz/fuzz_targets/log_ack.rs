//! [`ringmesh_wire::LogAck`] from a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmesh_wire::{LogAck, codec};

fuzz_target!(|payload: &[u8]| {
    if let Ok(message) = codec::decode::<LogAck>(payload) {
        let again = codec::encode(&message).expect("what decodes, encodes");
        assert_eq!(codec::decode::<LogAck>(&again).as_ref(), Ok(&message));
    }
});
