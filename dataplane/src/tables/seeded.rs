//! Hashing for maps whose keys peers may choose: xxh3 under a secret seed drawn at start.
//!
//! std's SipHash costs about twice as much per short host name; xxh3 with a secret seed of 64 bits
//! and bounded, operator-written tables leaves a peer nothing to aim at (it can only look up).

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Map with seeded hashing.
pub type SeededMap<K, V> = HashMap<K, V, Seeded>;

/// Builds seeded hashers.
#[derive(Debug, Clone, Copy)]
pub struct Seeded(u64);

impl Default for Seeded {
    fn default() -> Self {
        Self(RandomState::new().hash_one(0u8))
    }
}

impl BuildHasher for Seeded {
    type Hasher = SeededHasher;

    fn build_hasher(&self) -> SeededHasher {
        SeededHasher(self.0)
    }
}

/// Each write is hashed with the state so far as its seed.
#[derive(Debug)]
pub struct SeededHasher(u64);

impl Hasher for SeededHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxh3_64_with_seed(bytes, self.0);
    }

    /// `str` and slices end with this (a length or 0xff): folded in without another round.
    fn write_u8(&mut self, byte: u8) {
        self.0 = self.0.rotate_left(5) ^ u64::from(byte);
    }
}
