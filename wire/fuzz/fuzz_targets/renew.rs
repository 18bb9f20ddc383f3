//! [`ringmesh_wire::Renew`] from a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringmesh_wire::{Renew, codec};

fuzz_target!(|payload: &[u8]| {
    if let Ok(message) = codec::decode::<Renew>(payload) {
        let again = codec::encode(&message).expect("what decodes, encodes");
        assert_eq!(codec::decode::<Renew>(&again).as_ref(), Ok(&message));
    }
});
