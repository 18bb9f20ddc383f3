//! `cargo +nightly fuzz run http2_head`: what leaves in HTTP/2 is read back from any bytes, or refused.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ringmesh_dataplane::http2::drive::written(bytes);
});
