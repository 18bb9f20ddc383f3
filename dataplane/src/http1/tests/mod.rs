//! Tables of cases (docs/http1-strictness.md is their prose), splits at every byte, and properties.

mod answers;
pub(crate) mod bodies;
pub(crate) mod heads;
mod paths;
mod properties;
mod written;

use super::*;

/// Parses a whole request head.
fn request(bytes: &[u8]) -> (RequestHead, Parsed) {
    let mut head = RequestHead::new();
    let parsed = head.parse(bytes);
    (head, parsed)
}

/// Parses a whole response head.
fn response(bytes: &[u8]) -> (ResponseHead, Parsed) {
    let mut head = ResponseHead::new();
    let parsed = head.parse(bytes);
    (head, parsed)
}

/// Runs a decoder over `input` in slices of `step` bytes; payload, and how many bytes were the
/// body's.
pub(crate) fn decode_all(
    framing: Framing,
    input: &[u8],
    step: usize,
) -> Result<(Vec<u8>, usize, BodyDecoder), BodyFault> {
    let mut decoder = BodyDecoder::new();
    decoder.begin(framing);
    let mut payload = Vec::new();
    let mut used = 0;
    for slice in input.chunks(step.max(1)) {
        let mut rest = slice;
        while !decoder.is_over() && !rest.is_empty() {
            let piece = decoder.decode(rest)?;
            payload.extend_from_slice(&rest[piece.skip..piece.skip + piece.payload]);
            used += piece.skip + piece.payload;
            rest = &rest[piece.skip + piece.payload..];
            assert_eq!(piece.end, decoder.is_over());
        }
    }
    decoder.finish()?;
    Ok((payload, used, decoder))
}
