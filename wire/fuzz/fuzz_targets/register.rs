//! [`ringmesh_wire::Registration`] from a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmesh_wire::{Registration, codec};

fuzz_target!(|payload: &[u8]| {
    if let Ok(message) = codec::decode::<Registration>(payload) {
        let again = codec::encode(&message).expect("what decodes, encodes");
        assert_eq!(codec::decode::<Registration>(&again).as_ref(), Ok(&message));
    }
});
