//! What is wrong with this host, and the exact fix. Pure: facts in, findings out.
//!
//! Door types: [`Finding`], [`Severity`]. [`examine`] gives all findings in a fixed order, good ones
//! too, so that a reader sees what was looked at; [`render`] prints them. Exit status is the
//! caller's: 1 if [`must_fix`].

mod checks;
mod render;

use serde::Serialize;

use crate::probe::Facts;

pub use render::{json, table};

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// As it should be.
    Good,
    /// Something is off or slower; nothing breaks.
    Advice,
    /// It must be fixed: a sidecar fails to start, or fails under load.
    Must,
}

/// One thing looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Stable name, for scripts.
    pub check: &'static str,
    /// How bad.
    pub severity: Severity,
    /// What was found, with the value.
    pub found: String,
    /// The exact command or setting; empty when nothing is to be done.
    pub fix: String,
    /// The sidecar cannot start until this is fixed.
    #[serde(skip)]
    pub blocks_start: bool,
}

/// Looks at everything; the order is fixed.
#[must_use]
pub fn examine(facts: &Facts) -> Vec<Finding> {
    checks::ALL.iter().map(|check| check(facts)).collect()
}

/// Whether anything must be fixed.
#[must_use]
pub fn must_fix(findings: &[Finding]) -> bool {
    findings
        .iter()
        .any(|finding| finding.severity == Severity::Must)
}

#[cfg(test)]
pub(crate) mod tests;
