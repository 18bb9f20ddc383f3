//! What survives a restart: objects, history, tokens, node records, revocations, endpoints.
//!
//! Owns: the files of the data directory's `store.redb`. May not: interpret YAML, know a socket.
//!
//! Two layers. [`Store`] is the seam (embedded redb today, etcd for replicas later): shelves of
//! keys and values, and one atomic [`Txn`] with preconditions. [`Book`] is the typed layer that
//! everything else uses.
//!
//! Invariants: one apply is one transaction; a revision is never used twice; whatever `commit`
//! returned `Ok` for is there after a kill -9.

mod book;
mod chain;
mod disk;
mod objects;
mod records;

pub use book::Book;
pub use chain::{AuditRecord, Broken, Chain, Link, Unbroken, holds, verify};
pub use disk::Disk;
pub use objects::{Change, ChangeKind, Document, HistoryEntry, InForce, ObjectKey, StoredObject};
pub use records::{
    AuditEntry, Binding, CertificateRecord, NodeRecord, Revocation, StoredEndpoint, TokenRecord,
    TokenState,
};

use std::fmt;

/// Where a value stands. Each has its own key space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shelf {
    /// Counters and the format version.
    Meta,
    /// Users' objects, by `kind/namespace/name`.
    Objects,
    /// One entry per revision, by its number.
    History,
    /// Who did what, by sequence.
    Audit,
    /// Join tokens, by id.
    Tokens,
    /// Enrolled nodes, by name.
    Nodes,
    /// Revoked certificates, by serial in hex.
    Revoked,
    /// Registered endpoints, by node.
    Endpoints,
}

/// All shelves, for whoever creates them.
pub const SHELVES: [Shelf; 8] = [
    Shelf::Meta,
    Shelf::Objects,
    Shelf::History,
    Shelf::Audit,
    Shelf::Tokens,
    Shelf::Nodes,
    Shelf::Revoked,
    Shelf::Endpoints,
];

/// What one transaction expects and does. Nothing of it happens unless every expectation holds.
#[derive(Debug, Default, Clone)]
pub struct Txn {
    /// `(where, key, value it must have now; None: it must be absent)`.
    pub expect: Vec<(Shelf, String, Option<Vec<u8>>)>,
    /// `(where, key, new value; None: remove it)`, done in order.
    pub write: Vec<(Shelf, String, Option<Vec<u8>>)>,
}

/// A transactional store of bytes.
pub trait Store: Send + Sync + fmt::Debug {
    /// One value.
    ///
    /// # Errors
    /// [`StoreError::Broken`] where the store cannot be read.
    fn get(&self, shelf: Shelf, key: &str) -> Result<Option<Vec<u8>>, StoreError>;

    /// A shelf whole, ordered by key.
    ///
    /// # Errors
    /// [`StoreError::Broken`] where the store cannot be read.
    fn scan(&self, shelf: Shelf) -> Result<Vec<(String, Vec<u8>)>, StoreError>;

    /// Does all of `txn` durably, or nothing.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where an expectation does not hold, [`StoreError::Broken`] where
    /// the store cannot be written.
    fn commit(&self, txn: &Txn) -> Result<(), StoreError>;
}

/// Why the store did not do it.
#[derive(Debug)]
#[non_exhaustive]
pub enum StoreError {
    /// Somebody else was faster; read again and retry.
    Conflict {
        /// Which key was not as expected.
        key: String,
    },
    /// The caller's expected revision is not the current one.
    Revision {
        /// What the caller expected.
        expected: u64,
        /// What it is.
        current: u64,
    },
    /// There is no such thing.
    Absent {
        /// What was asked for.
        what: String,
    },
    /// The store itself fails.
    Broken {
        /// What was being done.
        doing: &'static str,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl StoreError {
    pub(crate) fn broken<E>(doing: &'static str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| Self::Broken {
            doing,
            source: source.into(),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Conflict { key } => write!(f, "{key} was changed by somebody else meanwhile"),
            Self::Revision { expected, current } => write!(
                f,
                "revision {expected} was expected, but the current one is {current}: look at what \
                 changed (ringmesh history) and apply again"
            ),
            Self::Absent { what } => write!(f, "there is no {what}"),
            Self::Broken { doing, source } => write!(f, "{doing}: {source}"),
        }
    }
}

impl std::error::Error for StoreError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Broken { source, .. } => Some(&**source),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
