//! Statuses of objects as lines for people.

use crate::model::{State, Status};

/// What an object that is not in force lacks: `LINE:COLUMN: FIELD: ...`.
pub(super) fn missing(status: &Status) -> impl Iterator<Item = String> + '_ {
    let missing = match &status.state {
        State::Active => [].as_slice(),
        State::Inactive(missing) => missing.as_slice(),
    };
    missing.iter().map(ToString::to_string)
}

/// One line per missing reference of objects that are not in force.
pub(super) fn inactive(statuses: &[Status]) -> impl Iterator<Item = String> + '_ {
    statuses.iter().flat_map(|status| {
        missing(status)
            .map(move |one| format!("{}:{one} ({} is INACTIVE)", status.file, status.key))
    })
}
