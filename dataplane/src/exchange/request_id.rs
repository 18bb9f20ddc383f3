//! Request ids: version 4 UUIDs (RFC 9562 section 5.4), written without allocation.

/// Text of a fresh id, from 128 random bits.
#[must_use]
pub(super) fn fresh(high: u64, low: u64) -> [u8; 36] {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    let bits = (u128::from(high) << 64) | u128::from(low);
    let bits = (bits & !(0xf << 76)) | (4 << 76);
    let bits = (bits & !(0b11 << 62)) | (0b10 << 62);
    let mut text = [b'-'; 36];
    let mut bytes = bits.to_be_bytes().into_iter();
    // The places between the dashes.
    for group in [0..8, 9..13, 14..18, 19..23, 24..36] {
        for (pair, byte) in text[group]
            .as_chunks_mut::<2>()
            .0
            .iter_mut()
            .zip(&mut bytes)
        {
            *pair = [HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 0xf)]];
        }
    }
    text
}

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
