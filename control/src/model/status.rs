//! What became of an object.

use std::fmt;

use crate::rules::{ObjectKey, Place, RuleError};

/// State of one object, for `ringmesh get` and the answer of `apply`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Which object.
    pub key: ObjectKey,
    /// File it was written in.
    pub file: String,
    /// Whether it is in force.
    pub state: State,
    /// What the user should know though nothing is wrong: defaults taken, conflicts, an older
    /// version still in force.
    pub notes: Vec<String>,
}

/// Whether an object is in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// It is.
    Active,
    /// It is not, because these are missing; never empty.
    Inactive(Vec<Missing>),
    /// It is not, because an earlier version stored what this one refuses; never empty.
    Refused(Vec<RuleError>),
}

/// What a reference names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MissingKind {
    /// A service.
    Host,
    /// A subset of a service.
    Subset,
    /// A port of a service.
    Port,
    /// A Mixer handler.
    Handler,
    /// A Mixer instance.
    Instance,
    /// A QuotaSpec.
    QuotaSpec,
    /// A ServiceEntry.
    ServiceEntry,
}

/// A reference to something that is not there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// Where it is written.
    pub place: Place,
    /// What kind of thing.
    pub kind: MissingKind,
    /// Its full name.
    pub name: String,
    /// What would make it resolve.
    pub fix: String,
}

impl State {
    /// `ACTIVE` or `INACTIVE`.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Inactive(_) | Self::Refused(_) => "INACTIVE",
        }
    }

    /// Why it is not in force: `LINE:COLUMN: FIELD: ...` each.
    #[must_use]
    pub fn why(&self) -> Vec<String> {
        match self {
            Self::Active => Vec::new(),
            Self::Inactive(missing) => missing.iter().map(ToString::to_string).collect(),
            Self::Refused(errors) => errors.iter().map(RuleError::in_file).collect(),
        }
    }
}

impl fmt::Display for MissingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Host => "host",
            Self::Subset => "subset",
            Self::Port => "port",
            Self::Handler => "handler",
            Self::Instance => "instance",
            Self::QuotaSpec => "QuotaSpec",
            Self::ServiceEntry => "ServiceEntry",
        })
    }
}

impl fmt::Display for Missing {
    /// `LINE:COLUMN: FIELD: KIND NAME does not exist; FIX`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} {} does not exist; {}",
            self.place, self.kind, self.name, self.fix
        )
    }
}
