//! `cargo +nightly fuzz run request_head`: parse, write, parse again; the meaning stays.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    // Every prefix is parsed as a slow peer would send it: keep that quadratic walk short.
    ringmesh_dataplane::http1::drive::request_head(&bytes[..bytes.len().min(2_048)]);
});
