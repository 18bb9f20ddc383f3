//! Statuses of objects as lines for people.

use crate::model::Status;

/// One line per reason why an object is not in force.
pub(super) fn inactive(statuses: &[Status]) -> impl Iterator<Item = String> + '_ {
    statuses.iter().flat_map(|status| {
        let why = status.state.why().into_iter();
        why.map(move |one| format!("{}:{one} ({} is INACTIVE)", status.file, status.key))
    })
}
