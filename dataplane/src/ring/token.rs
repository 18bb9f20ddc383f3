//! What travels with an operation through the kernel and comes back in its completion.

use super::arena::Key;

/// Completions nobody waits for: cancels and closes. No real key encodes to it: index `u32::MAX`
/// is never given out.
pub(super) const NOBODY: u64 = u64::MAX;

pub(super) fn encode(key: Key) -> u64 {
    u64::from(key.generation) << 32 | u64::from(key.index)
}

pub(super) fn decode(user_data: u64) -> Option<Key> {
    (user_data != NOBODY).then_some(Key {
        index: user_data as u32,
        generation: (user_data >> 32) as u32,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_the_way_through_the_kernel() {
        for key in [
            Key {
                index: 0,
                generation: 0,
            },
            Key {
                index: 7,
                generation: u32::MAX,
            },
            Key {
                index: u32::MAX - 1,
                generation: u32::MAX,
            },
        ] {
            assert_eq!(decode(encode(key)), Some(key));
        }
        assert_eq!(decode(NOBODY), None);
    }
}
