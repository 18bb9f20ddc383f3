//! `cargo +nightly fuzz run grpc`: deadlines and statuses of gRPC.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ringmesh_dataplane::http2::drive::grpc(bytes);
});
