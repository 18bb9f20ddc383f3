//! How a command failed.

use std::fmt;

/// What to print and which status to end with.
#[derive(Debug)]
pub struct Failure {
    /// 1: it could not be done; 2: the input is wrong.
    pub status: u8,
    /// What happened, and what to do next.
    pub message: String,
    /// Faults of the input, one per line, without a prefix: editors jump to them.
    pub errors: Vec<String>,
}

impl Failure {
    /// It could not be done.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self {
            status: 1,
            message: message.into(),
            errors: Vec::new(),
        }
    }

    /// The input is wrong.
    pub(super) fn wrong(message: impl Into<String>) -> Self {
        Self {
            status: 2,
            ..Self::failed(message)
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for error in &self.errors {
            writeln!(f, "{error}")?;
        }
        writeln!(f, "ringmesh: {}", self.message)
    }
}

impl std::error::Error for Failure {}
