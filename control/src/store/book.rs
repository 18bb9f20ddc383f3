//! The typed layer over a [`Store`].

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ringmesh_wire::{NodeId, ServiceId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::chain::{self, AuditRecord, Chain, Link};
use super::objects::{Change, HistoryEntry, InForce, ObjectKey, StoredObject};
use super::records::{AuditEntry, NodeRecord, Revocation, StoredEndpoint, TokenRecord, TokenState};
use super::{Shelf, Store, StoreError, Txn};

/// Revisions kept for `history` and `rollback`; older ones are dropped one by one.
const HISTORY_MAX: u64 = 10_000;
/// Audit entries kept. Of the last that fell off the hash stays, so that the rest can be checked.
const AUDIT_MAX: u64 = 100_000;
/// How often an audit entry is tried to be written. Each time another process or thread has written one
/// meanwhile, so it takes that many of them, all faster, to lose one.
const AUDIT_TRIES_MAX: usize = 1_000;
/// How often the audit record is read until nothing was written meanwhile.
const AUDIT_READS_MAX: usize = 100;
/// Publish generations reserved per write of the counter.
const GENERATIONS_PER_BLOCK: u64 = 1_000;

const REVISION: &str = "revision";
const AUDIT: &str = "audit";
const AUDIT_CHAIN: &str = "audit_chain";
const GENERATION: &str = "generation";
const IN_FORCE: &str = "in_force";
const VIPS: &str = "vips";

/// Everything control remembers.
#[derive(Debug, Clone)]
pub struct Book {
    store: Arc<dyn Store>,
    audit_max: u64,
}

fn number_row(n: u64) -> String {
    format!("{n:020}")
}

fn to_json<T: Serialize>(value: &T) -> Result<Vec<u8>, StoreError> {
    serde_json::to_vec(value).map_err(StoreError::broken("encoding a record"))
}

fn from_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(StoreError::broken("reading a record of the store"))
}

fn audit_record(row: &str, bytes: &[u8]) -> Result<AuditRecord, StoreError> {
    let broken = |why: &dyn std::fmt::Display| {
        let number = row.trim_start_matches('0');
        StoreError::broken("reading the audit record")(format!("entry {number}: {why}"))
    };
    let number = row.parse().map_err(|error| broken(&error))?;
    let stored: Stored = serde_json::from_slice(bytes).map_err(|error| broken(&error))?;
    Ok(AuditRecord {
        number,
        entry: stored.entry,
        sha256: stored.sha256,
    })
}

/// An audit entry as it is stored; the number is its row.
#[derive(Serialize, Deserialize)]
struct Stored {
    #[serde(flatten)]
    entry: AuditEntry,
    sha256: Option<String>,
}

impl Book {
    /// Opens the book.
    #[must_use]
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            audit_max: AUDIT_MAX,
        }
    }

    /// One that keeps fewer audit entries.
    #[cfg(test)]
    pub(super) fn keeping(store: Arc<dyn Store>, audit_max: u64) -> Self {
        Self { store, audit_max }
    }

    fn counter(&self, name: &str) -> Result<u64, StoreError> {
        let bytes = self.store.get(Shelf::Meta, name)?;
        bytes.as_deref().map_or(Ok(0), from_json)
    }

    fn step(txn: &mut Txn, name: &str, from: u64, to: u64) -> Result<(), StoreError> {
        let expected = (from > 0).then(|| to_json(&from)).transpose()?;
        txn.expect.push((Shelf::Meta, name.to_owned(), expected));
        txn.write
            .push((Shelf::Meta, name.to_owned(), Some(to_json(&to)?)));
        Ok(())
    }

    fn shelf<T: DeserializeOwned>(&self, shelf: Shelf) -> Result<Vec<T>, StoreError> {
        let rows = self.store.scan(shelf)?;
        rows.iter().map(|(_, bytes)| from_json(bytes)).collect()
    }

    fn one<T: DeserializeOwned>(&self, shelf: Shelf, key: &str) -> Result<Option<T>, StoreError> {
        let bytes = self.store.get(shelf, key)?;
        bytes.as_deref().map(from_json).transpose()
    }

    fn write<T: Serialize>(
        &self,
        shelf: Shelf,
        key: &str,
        value: Option<&T>,
    ) -> Result<(), StoreError> {
        let bytes = value.map(to_json).transpose()?;
        self.store.commit(&Txn {
            expect: Vec::new(),
            write: vec![(shelf, key.to_owned(), bytes)],
        })
    }

    /// The current revision; 0 before the first apply.
    ///
    /// # Errors
    /// [`StoreError::Broken`].
    pub fn revision(&self) -> Result<u64, StoreError> {
        self.counter(REVISION)
    }

    /// All objects, by key.
    ///
    /// # Errors
    /// [`StoreError::Broken`].
    pub fn objects(&self) -> Result<BTreeMap<ObjectKey, StoredObject>, StoreError> {
        let all: Vec<StoredObject> = self.shelf(Shelf::Objects)?;
        Ok(all.into_iter().map(|o| (o.key.clone(), o)).collect())
    }

    /// Makes one revision of `changes`, all or nothing, and returns its number. `base` is the
    /// revision the changes were computed from.
    ///
    /// # Errors
    /// [`StoreError::Revision`] where `base` is not the current revision any more.
    pub fn apply(
        &self,
        base: u64,
        mut changes: Vec<Change>,
        who: &str,
        what: &str,
        now_ms: u64,
    ) -> Result<u64, StoreError> {
        let revision = base + 1;
        let mut txn = Txn::default();
        Self::step(&mut txn, REVISION, base, revision)?;
        for change in &mut changes {
            if let Some(after) = &mut change.after {
                after.revision = revision;
            }
            let bytes = change.after.as_ref().map(to_json).transpose()?;
            txn.write.push((Shelf::Objects, change.key.row(), bytes));
        }
        let entry = HistoryEntry {
            revision,
            when_ms: now_ms,
            who: who.to_owned(),
            what: what.to_owned(),
            changes,
        };
        txn.write
            .push((Shelf::History, number_row(revision), Some(to_json(&entry)?)));
        if let Some(old) = revision.checked_sub(HISTORY_MAX) {
            txn.write.push((Shelf::History, number_row(old), None));
        }
        match self.store.commit(&txn) {
            Err(StoreError::Conflict { .. }) => Err(StoreError::Revision {
                expected: base,
                current: self.revision()?,
            }),
            other => other.map(|()| revision),
        }
    }

    /// Records how what is in force differs from what users wrote; no revision of its own, since
    /// nobody wrote it.
    ///
    /// # Errors
    /// [`StoreError::Broken`].
    pub fn set_in_force(&self, in_force: &InForce) -> Result<(), StoreError> {
        self.write(Shelf::Meta, IN_FORCE, Some(in_force))
    }

    /// What [`Self::set_in_force`] recorded last.
    ///
    /// # Errors
    /// [`StoreError::Broken`].
    pub fn in_force(&self) -> Result<InForce, StoreError> {
        Ok(self.one(Shelf::Meta, IN_FORCE)?.unwrap_or_default())
    }

    /// Remembers the virtual addresses given out, so that no service's ever moves.
    ///
    /// # Errors
    /// [`StoreError::Broken`].
    pub fn set_vips(&self, vips: &BTreeMap<ServiceId, IpAddr>) -> Result<(), StoreError> {
        let rows: Vec<(&ServiceId, &IpAddr)> = vips.iter().collect();
        self.write(Shelf::Meta, VIPS, Some(&rows))
    }

    /// What [`Self::set_vips`] remembered last.
    ///
    /// # Errors
    /// [`StoreError::Broken`].
    pub fn vips(&self) -> Result<BTreeMap<ServiceId, IpAddr>, StoreError> {
        let rows: Option<Vec<(ServiceId, IpAddr)>> = self.one(Shelf::Meta, VIPS)?;
        Ok(rows.unwrap_or_default().into_iter().collect())
    }

    /// Every revision kept, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Broken`].
    pub fn history(&self) -> Result<Vec<HistoryEntry>, StoreError> {
        self.shelf(Shelf::History)
    }

    /// The changes that take the objects back to what they were at `revision`.
    ///
    /// # Errors
    /// [`StoreError::Absent`] where the revision is not one that is kept.
    pub fn back_to(&self, revision: u64) -> Result<Vec<Change>, StoreError> {
        let current = self.revision()?;
        let history = self.history()?;
        let oldest = history.first().map_or(current, |entry| entry.revision);
        if revision > current || revision + 1 < oldest {
            return Err(StoreError::Absent {
                what: format!("revision {revision} to go back to (ringmesh history lists them)"),
            });
        }
        let now = self.objects()?;
        let mut then = now.clone();
        let undone = history.iter().rev();
        for entry in undone.take_while(|entry| entry.revision > revision) {
            for change in entry.changes.iter().rev() {
                match &change.before {
                    Some(before) => then.insert(change.key.clone(), before.clone()),
                    None => then.remove(&change.key),
                };
            }
        }
        let gone = now.iter().filter(|(key, _)| !then.contains_key(*key));
        let deleted = gone.map(|(key, object)| Change {
            key: key.clone(),
            before: Some(object.clone()),
            after: None,
        });
        let differing = then.iter().filter(|(key, object)| {
            now.get(*key).map(|o| &o.document.text) != Some(&object.document.text)
        });
        let restored = differing.map(|(key, object)| Change {
            key: key.clone(),
            before: now.get(key).cloned(),
            after: Some(object.clone()),
        });
        Ok(deleted.chain(restored).collect())
    }

    /// Reserves publish generations: `(first, one after the last)`. They never repeat, also across
    /// a crash.
    ///
    /// # Errors
    /// [`StoreError::Broken`].
    pub fn reserve_generations(&self) -> Result<(u64, u64), StoreError> {
        let from = self.counter(GENERATION)?;
        let to = from + GENERATIONS_PER_BLOCK;
        let mut txn = Txn::default();
        Self::step(&mut txn, GENERATION, from, to)?;
        self.store.commit(&txn)?;
        Ok((from + 1, to + 1))
    }

    /// Writes down who did what, behind whatever others write at the same time; the entry's place in the chain.
    ///
    /// # Errors
    /// [`StoreError::Broken`]; [`StoreError::Conflict`] where a thousand others were faster.
    pub fn audit(&self, entry: &AuditEntry) -> Result<Link, StoreError> {
        let mut tries = 1;
        loop {
            match self.audit_once(entry) {
                Err(StoreError::Conflict { .. }) if tries < AUDIT_TRIES_MAX => tries += 1,
                other => return other,
            }
        }
    }

    fn audit_once(&self, entry: &AuditEntry) -> Result<Link, StoreError> {
        let last = self.counter(AUDIT)?;
        let number = last + 1;
        let mut txn = Txn::default();
        Self::step(&mut txn, AUDIT, last, number)?;
        let stored = self.store.get(Shelf::Meta, AUDIT_CHAIN)?;
        let chain: Option<Chain> = stored.as_deref().map(from_json).transpose()?;
        txn.expect
            .push((Shelf::Meta, AUDIT_CHAIN.to_owned(), stored));
        // An older version may have written between without it: a new chain begins then, and says where.
        let chain = chain.filter(|chain| chain.head.number == last);
        let before = chain.as_ref().map(|chain| chain.head.sha256.as_str());
        let head = chain::link(before, number, entry);
        let record = Stored {
            entry: entry.clone(),
            sha256: Some(head.sha256.clone()),
        };
        txn.write
            .push((Shelf::Audit, number_row(number), Some(to_json(&record)?)));
        let (begins, mut anchor) = match chain {
            Some(chain) => (chain.begins, chain.anchor),
            None => (number, None),
        };
        if let Some(old) = number.checked_sub(self.audit_max) {
            let row = number_row(old);
            // A damaged one must not keep new ones out; what follows it has no anchor then.
            if let Some(bytes) = self.store.get(Shelf::Audit, &row)? {
                let record = audit_record(&row, &bytes);
                if let Err(error) = &record {
                    tracing::error!(%error, "an old entry of the audit record is damaged");
                }
                let sha256 = record.ok().and_then(|record| record.sha256);
                anchor = sha256.map(|sha256| Link {
                    number: old,
                    sha256,
                });
            }
            txn.write.push((Shelf::Audit, row, None));
        }
        let chain = Chain {
            begins,
            anchor,
            head: head.clone(),
        };
        txn.write
            .push((Shelf::Meta, AUDIT_CHAIN.to_owned(), Some(to_json(&chain)?)));
        self.store.commit(&txn)?;
        Ok(head)
    }

    /// Everything done through the API, oldest first.
    ///
    /// # Errors
    /// [`StoreError::Broken`].
    pub fn audit_records(&self) -> Result<Vec<AuditRecord>, StoreError> {
        let rows = self.store.scan(Shelf::Audit)?;
        rows.iter()
            .map(|(row, bytes)| audit_record(row, bytes))
            .collect()
    }

    /// The same with what is known of its chain, as both stood at one moment. `None`: nothing was written since
    /// there is a chain.
    ///
    /// # Errors
    /// [`StoreError::Broken`]; [`StoreError::Conflict`] where entries are written faster than they can be read.
    pub fn audit_chain(&self) -> Result<(Option<Chain>, Vec<AuditRecord>), StoreError> {
        for _ in 0..AUDIT_READS_MAX {
            let before: Option<Chain> = self.one(Shelf::Meta, AUDIT_CHAIN)?;
            let records = self.audit_records()?;
            if self.one(Shelf::Meta, AUDIT_CHAIN)? == before {
                return Ok((before, records));
            }
        }
        Err(StoreError::Conflict {
            key: AUDIT_CHAIN.to_owned(),
        })
    }

    /// Keeps a new token.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where the id exists.
    pub fn add_token(&self, token: &TokenRecord) -> Result<(), StoreError> {
        self.store.commit(&Txn {
            expect: vec![(Shelf::Tokens, token.id.clone(), None)],
            write: vec![(Shelf::Tokens, token.id.clone(), Some(to_json(token)?))],
        })
    }

    /// One token.
    ///
    /// # Errors
    /// [`StoreError::Broken`].
    pub fn token(&self, id: &str) -> Result<Option<TokenRecord>, StoreError> {
        self.one(Shelf::Tokens, id)
    }

    /// All tokens.
    ///
    /// # Errors
    /// [`StoreError::Broken`].
    pub fn tokens(&self) -> Result<Vec<TokenRecord>, StoreError> {
        self.shelf(Shelf::Tokens)
    }

    /// Spends `token` on `node`, which leaves it in `state`, in one transaction: of two who come at once, one gets
    /// [`StoreError::Conflict`].
    ///
    /// # Errors
    /// [`StoreError::Conflict`] where the token is not as it was read.
    pub fn enroll(
        &self,
        token: &TokenRecord,
        node: &NodeRecord,
        state: TokenState,
    ) -> Result<(), StoreError> {
        let mut used = token.clone();
        used.state = state;
        self.store.commit(&Txn {
            expect: vec![(Shelf::Tokens, token.id.clone(), Some(to_json(token)?))],
            write: vec![
                (Shelf::Tokens, token.id.clone(), Some(to_json(&used)?)),
                (
                    Shelf::Nodes,
                    node.binding.node.0.clone(),
                    Some(to_json(node)?),
                ),
            ],
        })
    }

    /// One node.
    ///
    /// # Errors
    /// [`StoreError::Broken`].
    pub fn node(&self, node: &NodeId) -> Result<Option<NodeRecord>, StoreError> {
        self.one(Shelf::Nodes, &node.0)
    }

    /// All nodes that ever enrolled.
    ///
    /// # Errors
    /// [`StoreError::Broken`].
    pub fn nodes(&self) -> Result<Vec<NodeRecord>, StoreError> {
        self.shelf(Shelf::Nodes)
    }

    /// Writes a node's record.
    ///
    /// # Errors
    /// [`StoreError::Broken`].
    pub fn put_node(&self, node: &NodeRecord) -> Result<(), StoreError> {
        self.write(Shelf::Nodes, &node.binding.node.0, Some(node))
    }

    /// Adds revocations and forgets those whose certificate has expired by itself.
    ///
    /// # Errors
    /// [`StoreError::Broken`].
    pub fn revoke(&self, revoked: &[Revocation], now_ms: u64) -> Result<(), StoreError> {
        let mut txn = Txn::default();
        let expired = self.revocations()?.into_iter();
        for old in expired.filter(|r| r.not_after_ms < now_ms) {
            txn.write.push((Shelf::Revoked, old.serial, None));
        }
        for new in revoked {
            txn.write
                .push((Shelf::Revoked, new.serial.clone(), Some(to_json(new)?)));
        }
        self.store.commit(&txn)
    }

    /// All revocations.
    ///
    /// # Errors
    /// [`StoreError::Broken`].
    pub fn revocations(&self) -> Result<Vec<Revocation>, StoreError> {
        self.shelf(Shelf::Revoked)
    }

    /// Replaces what is remembered of endpoints: `None` forgets the node.
    ///
    /// # Errors
    /// [`StoreError::Broken`].
    pub fn put_endpoints(
        &self,
        changes: &[(NodeId, Option<StoredEndpoint>)],
    ) -> Result<(), StoreError> {
        let mut txn = Txn::default();
        for (node, endpoint) in changes {
            let bytes = endpoint.as_ref().map(to_json).transpose()?;
            txn.write.push((Shelf::Endpoints, node.0.clone(), bytes));
        }
        self.store.commit(&txn)
    }

    /// All remembered endpoints.
    ///
    /// # Errors
    /// [`StoreError::Broken`].
    pub fn endpoints(&self) -> Result<Vec<StoredEndpoint>, StoreError> {
        self.shelf(Shelf::Endpoints)
    }
}
