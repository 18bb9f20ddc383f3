//! Objects of the store that this version's rules refuse: an earlier one, less strict, took them.

use std::sync::Arc;

use crate::rules::{ObjectKey, RuleError};

/// A stored object of which nothing but its name can be told.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Its name, as it was stored under.
    pub key: ObjectKey,
    /// File it was written in.
    pub file: String,
    /// The document, byte for byte.
    pub text: Arc<str>,
    /// What is wrong with it; never empty.
    pub errors: Vec<RuleError>,
}

impl Refused {
    /// Whether it may speak of something called `name`, which may be a full name. Where it does, what was meant
    /// is not known, so nothing may be taken for left out.
    pub(super) fn may_name(&self, name: &str) -> bool {
        let apart = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        let first = name.split('.').next().unwrap_or(name);
        self.text.split(apart).any(|word| word == first)
    }
}
