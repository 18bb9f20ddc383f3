//! `cargo +nightly fuzz run detect`: what first bytes say never changes with more of them.
#![no_main]

use ringmesh_dataplane::detect::{DETECT_BYTES_MAX, Detected, detect, is_http_greeting};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut decided = None;
    for len in 0..=bytes.len() {
        let now = detect(&bytes[..len]);
        match decided {
            Some(before) => assert_eq!(before, now),
            None if now != Detected::NeedMore => decided = Some(now),
            None => assert!(len < DETECT_BYTES_MAX),
        }
    }
    // Nine bytes are all that is looked at.
    if let Some(begin) = bytes.get(..9) {
        assert_eq!(is_http_greeting(begin), is_http_greeting(bytes));
    }
});
