//! `cargo +nightly fuzz run http2_frames`: frames are the same frames however their bytes are cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ringmesh_dataplane::http2::drive::frames(bytes);
});
