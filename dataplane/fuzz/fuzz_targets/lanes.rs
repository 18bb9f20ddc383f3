//! `cargo +nightly fuzz run lanes`: frames are the same in any pieces, and no bytes make either end of a
//! connection keep or say more than its bounds.
#![no_main]

use ringmesh_dataplane::lanes::drive;
use ringmesh_dataplane::ring::{Ring, RingPlan};

thread_local! {
    static RING: Ring = Ring::new(&RingPlan::default()).expect("a ring");
}

libfuzzer_sys::fuzz_target!(|input: (u16, &[u8])| {
    let (step, bytes) = input;
    drive::frames(bytes, usize::from(step));
    RING.with(|ring| drive::hostile(ring, bytes, usize::from(step)));
});
