//! Join tokens: `id.secret.sha256(root)`, all hex.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA256, digest};

use super::ca::serial_hex;

/// A token as the operator carries it to a host.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Names the record at control.
    pub id: String,
    /// Known to whoever holds the token, and to nobody else.
    pub secret: String,
    /// SHA-256 of the root certificate (DER): the sidecar's first contact checks it.
    pub root_sha256: String,
}

/// Shows everything but the secret.
impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinToken")
            .field("id", &self.id)
            .field("root_sha256", &self.root_sha256)
            .finish_non_exhaustive()
    }
}

/// The text is not a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenError;

impl fmt::Display for TokenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a join token: three parts in hex, divided by dots, are expected")
    }
}

impl std::error::Error for TokenError {}

/// SHA-256 in lower-case hex.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    serial_hex(digest(&SHA256, bytes).as_ref())
}

impl JoinToken {
    /// Makes a new one: 64 bits of id, 256 bits of secret.
    ///
    /// # Errors
    /// Where the system gives no random numbers.
    pub fn mint(root_der: &[u8]) -> Result<Self, aws_lc_rs::error::Unspecified> {
        let (mut id, mut secret) = ([0; 8], [0; 32]);
        aws_lc_rs::rand::fill(&mut id)?;
        aws_lc_rs::rand::fill(&mut secret)?;
        Ok(Self {
            id: serial_hex(&id),
            secret: serial_hex(&secret),
            root_sha256: sha256_hex(root_der),
        })
    }

    /// Reads what [`fmt::Display`] wrote; white space around it is ignored.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn parse(text: &str) -> Result<Self, TokenError> {
        let mut parts = text.trim().split('.');
        let (Some(id), Some(secret), Some(root), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TokenError);
        };
        let hex = |part: &str, digits: usize| {
            part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit())
        };
        if !(hex(id, 16) && hex(secret, 64) && hex(root, 64)) {
            return Err(TokenError);
        }
        Ok(Self {
            id: id.to_owned(),
            secret: secret.to_owned(),
            root_sha256: root.to_ascii_lowercase(),
        })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.id, self.secret, self.root_sha256)
    }
}

/// Whether `secret` hashes to `sha256`, in constant time.
#[must_use]
pub(super) fn secret_matches(secret: &str, sha256: &str) -> bool {
    verify_slices_are_equal(sha256_hex(secret.as_bytes()).as_bytes(), sha256.as_bytes()).is_ok()
}
