//! `cargo +nightly fuzz run dns_answer`: what a name server sends, or whoever forges its answer. Id and
//! question are made to fit, or nothing would get in.
#![no_main]

use ringmesh_dataplane::agent::names::message::{ADDRESSES_MAX, Family, Question, Said};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    for family in [Family::V4, Family::V6] {
        let question = Question::new("api.example.com", family, 7).expect("it is a name");
        let _ = question.read(bytes);
        let asked = question.bytes();
        let mut answer = asked.to_vec();
        if let Some(flags_and_counts) = bytes.get(..8) {
            answer[2..4].copy_from_slice(&flags_and_counts[..2]);
            answer[2] |= 0x80;
            answer[6..12].copy_from_slice(&flags_and_counts[2..]);
            answer.extend_from_slice(&bytes[8..]);
        }
        if let Said::Answer(Ok(found)) = question.read(&answer) {
            assert!((1..=ADDRESSES_MAX).contains(&found.addresses.len()));
            assert!(found.addresses.iter().all(|to| to.is_ipv4() == (family == Family::V4)));
        }
    }
});
