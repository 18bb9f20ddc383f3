//! Users' objects and their history, as stored.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Names an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// `VirtualService`, `memquota`, ... as written.
    pub kind: String,
    /// Namespace; `default` where none was written.
    pub namespace: String,
    /// Name.
    pub name: String,
}

impl ObjectKey {
    pub(crate) fn row(&self) -> String {
        format!("{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// A document as its user wrote it, and where: enough to read it again with the same positions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    /// The file it came from, as the user named it.
    pub file: String,
    /// Line of that file on which `text` begins, from 1.
    pub first_line: u32,
    /// The document, byte for byte.
    pub text: String,
}

/// An object as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredObject {
    /// Its name.
    pub key: ObjectKey,
    /// What the user wrote.
    pub document: Document,
    /// Revision that last changed it.
    pub revision: u64,
}

/// How what is in force differs from what users wrote (an object with an unresolved
/// reference leaves what was effective in place). Empty most of the time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// Objects of which an older version, or one deleted since, is in force.
    pub older: Vec<Document>,
    /// Objects of which no version is in force.
    pub absent: Vec<ObjectKey>,
    /// Older documents that objects in force still need.
    pub held: Vec<Document>,
}

/// What one change does to one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// It did not exist.
    Created,
    /// It was another.
    Configured,
    /// It is the same.
    Unchanged,
    /// It is gone.
    Deleted,
}

impl fmt::Display for ChangeKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
            Self::Deleted => "deleted",
        })
    }
}

/// One object before and after.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which.
    pub key: ObjectKey,
    /// Before; `None`: it did not exist.
    pub before: Option<StoredObject>,
    /// After; `None`: it is deleted.
    pub after: Option<StoredObject>,
}

impl Change {
    /// What it amounts to.
    #[must_use]
    pub fn kind(&self) -> ChangeKind {
        match (&self.before, &self.after) {
            (None, Some(_)) => ChangeKind::Created,
            (Some(old), Some(new)) if old.document.text == new.document.text => {
                ChangeKind::Unchanged
            }
            (Some(_), Some(_)) => ChangeKind::Configured,
            (_, None) => ChangeKind::Deleted,
        }
    }
}

/// One revision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryEntry {
    /// Its number.
    pub revision: u64,
    /// When, milliseconds since 1970.
    pub when_ms: u64,
    /// Who: the peer of the API's socket, or `control` itself.
    pub who: String,
    /// What they called it, e.g. `apply canary.yaml`.
    pub what: String,
    /// What it did.
    pub changes: Vec<Change>,
}
