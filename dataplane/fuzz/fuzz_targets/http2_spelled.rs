//! `cargo +nightly fuzz run http2_spelled`: a request of HTTP/2 is spelled as one whole head, or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ringmesh_dataplane::http2::drive::spelled(bytes);
});
