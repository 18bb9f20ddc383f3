//! Why the tool stops, and the exit code that says whose fault it is.

use std::fmt;
use std::io;

/// Why the tool stops.
#[derive(Debug)]
pub(crate) enum Problem {
    /// Something has to be installed or written differently first: exit 2.
    Yours(String),
    /// It was tried and did not go well: exit 1.
    Failed(String),
    /// Somebody wanted the end: exit 130, as shells have it.
    Interrupted,
}

impl Problem {
    /// What the process exits with.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Yours(_) => 2,
            Self::Failed(_) => 1,
            Self::Interrupted => 130,
        }
    }

    pub(crate) fn failed(what: impl fmt::Display) -> Self {
        Self::Failed(what.to_string())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Yours(text) | Self::Failed(text) => f.write_str(text),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<ringmesh_dataplane::ring::RingError> for Problem {
    fn from(error: ringmesh_dataplane::ring::RingError) -> Self {
        Self::Yours(error.to_string())
    }
}
