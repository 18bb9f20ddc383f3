//! Request ids: version 4 UUIDs (RFC 9562 section 5.4), written without allocation.

/// Text of a fresh id, from 128 random bits.
#[must_use]
pub(super) fn fresh(high: u64, low: u64) -> [u8; 36] {
    let bits = (u128::from(high) << 64) | u128::from(low);
    let bits = (bits & !(0xf << 76)) | (4 << 76);
    let bits = (bits & !(0b11 << 62)) | (0b10 << 62);
    let mut text = [b'-'; 36];
    for (at, byte) in PLACES.into_iter().zip(bits.to_be_bytes()) {
        [text[at], text[at + 1]] = HEX[usize::from(byte)];
    }
    text
}

/// Where the bytes stand: between the dashes.
const PLACES: [usize; 16] = [0, 2, 4, 6, 9, 11, 14, 16, 19, 21, 24, 26, 28, 30, 32, 34];

/// 00 to ff.
const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

#[cfg(test)]
mod tests {
    use super::fresh;

    #[test]
    fn it_is_a_version_4_uuid() {
        let text = fresh(u64::MAX, u64::MAX);
        assert_eq!(&text, b"ffffffff-ffff-4fff-bfff-ffffffffffff");
        let text = fresh(0, 0x0123_4567_89ab_cdef);
        assert_eq!(&text, b"00000000-0000-4000-8123-456789abcdef");
    }
}
