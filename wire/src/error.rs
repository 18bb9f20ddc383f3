//! Why bytes were refused. Each variant has a stable reason code for logs and metrics.

use std::fmt;

/// A message or file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes do not begin with the frame magic.
    Magic,
    /// The schema version is outside what this build reads.
    Version {
        /// Version found.
        got: u16,
    },
    /// The kind byte names no message of this schema.
    Kind {
        /// Kind byte found.
        got: u8,
    },
    /// A length is over its limit; refused before allocation.
    TooLong {
        /// What was too long.
        what: &'static str,
        /// Length announced.
        got: usize,
        /// Largest length allowed.
        max: usize,
    },
    /// The bytes end before the message does.
    Truncated,
    /// The checksum does not match the payload.
    Checksum,
    /// The payload does not decode as its kind.
    Malformed(String),
    /// Bytes are left over after the value.
    Trailing {
        /// How many.
        bytes: usize,
    },
    /// It decodes, but breaks a rule of the schema.
    Invalid(String),
}

impl WireError {
    /// Stable reason code, for counters and logs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Magic => "wire_magic",
            Self::Version { .. } => "wire_version",
            Self::Kind { .. } => "wire_kind",
            Self::TooLong { .. } => "wire_too_long",
            Self::Truncated => "wire_truncated",
            Self::Checksum => "wire_checksum",
            Self::Malformed(_) => "wire_malformed",
            Self::Trailing { .. } => "wire_trailing",
            Self::Invalid(_) => "wire_invalid",
        }
    }
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("not a ringmesh message: the magic bytes are missing"),
            Self::Version { got } => write!(
                f,
                "schema version {got} is not one this build reads ({} to {})",
                crate::SCHEMA_VERSION_MIN,
                crate::SCHEMA_VERSION
            ),
            Self::Kind { got } => write!(f, "unknown message kind {got}"),
            Self::TooLong { what, got, max } => {
                write!(
                    f,
                    "{what} is {got} bytes or items long; at most {max} are allowed"
                )
            }
            Self::Truncated => f.write_str("the message is cut short"),
            Self::Checksum => f.write_str("the checksum does not match: the bytes were damaged"),
            Self::Malformed(why) => write!(f, "the payload does not decode: {why}"),
            Self::Trailing { bytes } => write!(f, "{bytes} bytes are left over after the message"),
            Self::Invalid(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for WireError {}
