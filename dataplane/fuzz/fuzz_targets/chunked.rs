//! `cargo +nightly fuzz run chunked`: the same bytes whole and in slices decode alike.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: (u8, &[u8])| {
    let (step, bytes) = input;
    ringmesh_dataplane::http1::drive::chunked(bytes, usize::from(step));
});
