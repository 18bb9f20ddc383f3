//! SHA-256 by the one crypto provider.

use rustls::crypto::aws_lc_rs;

/// SHA-256 of the bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let suite = aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256;
    let digest = suite
        .tls13()
        .map(|suite| suite.common.hash_provider.hash(bytes));
    let mut out = [0; 32];
    if let Some(digest) = digest {
        // Lengths are equal by the definition of SHA-256; anything else must not pass as a match.
        if digest.as_ref().len() == out.len() {
            out.copy_from_slice(digest.as_ref());
        }
    }
    out
}
