//! The one door to bincode (=2.0.1; RUSTSEC-2025-0141, docs/decisions/0005-bincode.md).
//!
//! Decoding always has a limit (without one a hostile length panics), always consumes every byte,
//! and always ends in [`Validate`]. Nothing outside this file names bincode.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::WireError;
use crate::limits::FRAME_PAYLOAD_BYTES_MAX;

/// Rules of the schema that the type system cannot hold; run on every decoded value.
pub trait Validate {
    /// Checks the rules.
    ///
    /// # Errors
    /// [`WireError::Invalid`] or [`WireError::TooLong`], naming the field.
    fn validate(&self) -> Result<(), WireError>;
}

/// Encodes a value.
///
/// # Errors
/// [`WireError::TooLong`] if the result is over [`FRAME_PAYLOAD_BYTES_MAX`]: what we would refuse
/// to read we refuse to write. [`WireError::Malformed`] if serde refuses the value.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, WireError> {
    let bytes = bincode::serde::encode_to_vec(value, bincode::config::standard())
        .map_err(|e| WireError::Malformed(e.to_string()))?;
    if bytes.len() > FRAME_PAYLOAD_BYTES_MAX {
        return Err(WireError::TooLong {
            what: "payload",
            got: bytes.len(),
            max: FRAME_PAYLOAD_BYTES_MAX,
        });
    }
    Ok(bytes)
}

/// Decodes and validates a value that must fill `bytes` exactly.
///
/// # Errors
/// Any [`WireError`] but the frame's own (magic, version, kind, checksum). Never panics; allocates
/// at most [`FRAME_PAYLOAD_BYTES_MAX`] bytes on behalf of announced lengths.
pub fn decode<T: DeserializeOwned + Validate>(bytes: &[u8]) -> Result<T, WireError> {
    let config = bincode::config::standard().with_limit::<FRAME_PAYLOAD_BYTES_MAX>();
    let (value, consumed): (T, usize) = bincode::serde::decode_from_slice(bytes, config)
        .map_err(|e| WireError::Malformed(e.to_string()))?;
    if consumed != bytes.len() {
        return Err(WireError::Trailing {
            bytes: bytes.len() - consumed,
        });
    }
    value.validate()?;
    Ok(value)
}
