//! Rules as people write them: Istio's YAML, read strictly.
//!
//! Owns: which kinds and fields exist, and what is wrong with a file, with positions. May not: look
//! at other objects (that is [`crate::model`]) or at files (callers give the text).
//!
//! Doors: [`parse`] (a file of documents to [`Object`]s), [`parse_document`] (one stored document
//! again), [`RuleErrors`]. Invariants: no text panics or is read without bound; a field that is
//! not understood is an error, never ignored; every error has a place.

mod control;
mod cursor;
mod document;
mod error;
mod node;
mod object;
mod place;
mod read;
mod scalar;
mod sidecar;

pub mod mixer;
pub mod security;
pub mod service_entry;
pub mod settings;
pub mod traffic;

#[cfg(test)]
mod tests;

pub use control::{CaFiles, ControlFile, check_svid_life, parse_control};
pub(crate) use cursor::closest;
pub use document::FILE_BYTES_MAX;
pub use error::{RuleError, RuleErrors};
pub use object::{Kind, Object, ObjectKey, Spec};
pub use place::{At, Place};
pub use sidecar::{Sidecar, parse_sidecar};

/// Namespace of an object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";
/// Namespace whose policies and rules hold for the whole mesh.
pub const ROOT_NAMESPACE: &str = "istio-system";

/// Reads all documents of a file.
///
/// # Errors
/// Everything wrong with it, in order; then nothing of the file is taken.
pub fn parse(file: &str, text: &str) -> Result<Vec<Object>, RuleErrors> {
    document::parse_file(file, text)
}

/// Reads one document again, as it was stored: `first_line` is the line of the file it began on.
/// `None` where it is empty.
///
/// # Errors
/// Everything wrong with it.
pub fn parse_document(
    file: &str,
    first_line: u32,
    text: &str,
) -> Result<Option<Object>, RuleErrors> {
    document::parse_one(file, first_line, text)
}
