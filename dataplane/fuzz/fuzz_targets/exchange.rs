//! `cargo +nightly fuzz run exchange`: a whole worker, and what a client and a server do to it.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ringmesh_dataplane::worker::drive::operations(bytes);
});
