//! `cargo +nightly fuzz run tls_hello`: whose a client hello is never changes with more bytes.
#![no_main]

use ringmesh_dataplane::tls::{Hello, hello};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let whole = hello(bytes);
    // Every cut would be quadratic in the parser; eight of them find what depends on one.
    for eighth in 0..8 {
        let begin = &bytes[..bytes.len() * eighth / 8];
        let early = hello(begin);
        assert!(early == whole || early == Hello::NeedMore);
    }
});
