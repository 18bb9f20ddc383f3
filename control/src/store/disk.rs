//! The embedded store: one redb file, or memory in tests.

use std::path::Path;

use redb::{Builder, Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};

use super::{SHELVES, Shelf, Store, StoreError, Txn};

/// Cache of the database, bytes. The whole store of a large mesh is a few MiB of YAML.
const CACHE_BYTES: usize = 8 * 1024 * 1024;

/// A store on disk.
pub struct Disk {
    database: Database,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Disk")
    }
}

fn table(shelf: Shelf) -> TableDefinition<'static, &'static str, &'static [u8]> {
    TableDefinition::new(match shelf {
        Shelf::Meta => "meta",
        Shelf::Objects => "objects",
        Shelf::History => "history",
        Shelf::Audit => "audit",
        Shelf::Tokens => "tokens",
        Shelf::Nodes => "nodes",
        Shelf::Revoked => "revoked",
        Shelf::Endpoints => "endpoints",
    })
}

impl Disk {
    /// Opens or creates the store at `path`; the file is readable by its owner alone.
    ///
    /// # Errors
    /// [`StoreError::Broken`], also where another process holds it.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)
            .map_err(StoreError::broken("opening the store"))?;
        let backend = redb::backends::FileBackend::new(file)
            .map_err(StoreError::broken("opening the store"))?;
        let database = Builder::new()
            .set_cache_size(CACHE_BYTES)
            .create_with_backend(backend)
            .map_err(StoreError::broken("opening the store"))?;
        Self::with_shelves(database)
    }

    /// A store in memory, gone when dropped: for tests and dry runs.
    ///
    /// # Errors
    /// [`StoreError::Broken`]; not expected.
    pub fn in_memory() -> Result<Self, StoreError> {
        let backend = redb::backends::InMemoryBackend::new();
        let database = Builder::new()
            .create_with_backend(backend)
            .map_err(StoreError::broken("creating a store in memory"))?;
        Self::with_shelves(database)
    }

    fn with_shelves(database: Database) -> Result<Self, StoreError> {
        let doing = "creating the tables of the store";
        let txn = database.begin_write().map_err(StoreError::broken(doing))?;
        for shelf in SHELVES {
            txn.open_table(table(shelf))
                .map_err(StoreError::broken(doing))?;
        }
        txn.commit().map_err(StoreError::broken(doing))?;
        Ok(Self { database })
    }
}

impl Store for Disk {
    fn get(&self, shelf: Shelf, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        let doing = "reading the store";
        let txn = self
            .database
            .begin_read()
            .map_err(StoreError::broken(doing))?;
        let table = txn
            .open_table(table(shelf))
            .map_err(StoreError::broken(doing))?;
        let value = table.get(key).map_err(StoreError::broken(doing))?;
        Ok(value.map(|guard| guard.value().to_vec()))
    }

    fn scan(&self, shelf: Shelf) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
        let doing = "reading the store";
        let txn = self
            .database
            .begin_read()
            .map_err(StoreError::broken(doing))?;
        let table = txn
            .open_table(table(shelf))
            .map_err(StoreError::broken(doing))?;
        let rows = table.iter().map_err(StoreError::broken(doing))?;
        rows.map(|row| {
            let (key, value) = row.map_err(StoreError::broken(doing))?;
            Ok((key.value().to_owned(), value.value().to_vec()))
        })
        .collect()
    }

    fn commit(&self, txn: &Txn) -> Result<(), StoreError> {
        let doing = "writing the store";
        let open = |e: TableError| StoreError::broken(doing)(e);
        // A transaction dropped before its commit is rolled back.
        let write = self
            .database
            .begin_write()
            .map_err(StoreError::broken(doing))?;
        for (shelf, key, expected) in &txn.expect {
            let table = write.open_table(table(*shelf)).map_err(open)?;
            let found = table.get(key.as_str()).map_err(StoreError::broken(doing))?;
            if found.as_ref().map(|guard| guard.value()) != expected.as_deref() {
                return Err(StoreError::Conflict { key: key.clone() });
            }
        }
        for (shelf, key, value) in &txn.write {
            let mut table = write.open_table(table(*shelf)).map_err(open)?;
            match value {
                Some(value) => table.insert(key.as_str(), value.as_slice()),
                None => table.remove(key.as_str()),
            }
            .map_err(StoreError::broken(doing))?;
        }
        write.commit().map_err(StoreError::broken(doing))
    }
}
