//! What is wrong with a rule, said so that it can be put right.

use std::fmt;

use super::place::Place;

/// One fault in what the user wrote. Shown as
/// `file:line:column: field.path: what is wrong; what would be right`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct RuleError {
    /// File as the user named it.
    pub file: String,
    /// Where in it.
    pub place: Place,
    /// What is wrong.
    pub what: String,
    /// What would be right; may be empty where `what` says it all.
    pub fix: String,
}

impl RuleError {
    /// As shown, for whoever names the file already: `line:column: field.path: ...`
    #[must_use]
    pub fn in_file(&self) -> String {
        let fix = match self.fix.as_str() {
            "" => String::new(),
            fix => format!("; {fix}"),
        };
        format!("{}: {}{fix}", self.place, self.what)
    }
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.in_file())
    }
}

impl std::error::Error for RuleError {}

/// Everything wrong with one file, in the order of the file. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleErrors(pub Vec<RuleError>);

impl fmt::Display for RuleErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for RuleErrors {}
