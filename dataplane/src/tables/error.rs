//! Why a snapshot cannot be used.

use std::fmt;

use ringmesh_wire::WireError;

/// A snapshot that does not hold together. The previous one stays in force.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum TablesError {
    /// A section does not decode.
    Section {
        /// Which.
        section: String,
        /// Why.
        source: WireError,
    },
    /// Something is named that is not in the snapshot.
    Missing {
        /// Who names it.
        by: String,
        /// What is missing, e.g. `subset v3 of service reviews.default`.
        what: String,
    },
    /// A pattern does not compile, or a value cannot be used.
    Invalid {
        /// Where.
        place: String,
        /// Why.
        why: String,
    },
}

impl TablesError {
    pub(super) fn missing(by: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Missing {
            by: by.into(),
            what: what.into(),
        }
    }

    pub(super) fn invalid(place: impl Into<String>, why: impl Into<String>) -> Self {
        Self::Invalid {
            place: place.into(),
            why: why.into(),
        }
    }
}

impl fmt::Display for TablesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Section { section, source } => write!(f, "section {section}: {source}"),
            Self::Missing { by, what } => {
                write!(f, "{by} names {what}, which is not in the snapshot")
            }
            Self::Invalid { place, why } => write!(f, "{place}: {why}"),
        }
    }
}

impl std::error::Error for TablesError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Section { source, .. } => Some(source),
            Self::Missing { .. } | Self::Invalid { .. } => None,
        }
    }
}
