//! From a snapshot to tables in force on every shard.
//!
//! Tables are built on the agent's thread, so that a snapshot that does not hold together is
//! refused before a shard sees it; and they are dropped here too, because tearing down thousands of
//! rows is nothing a request should wait for.

use std::sync::Arc;

use ringmesh_wire::{Revision, Snapshot};

use crate::tables::{Answers, Generation, Tables, Workload};

/// Puts configurations in force, one at a time.
#[derive(Debug)]
pub struct Publisher {
    workload: Workload,
    shards: usize,
    in_force: Option<Arc<Tables>>,
    pending: Option<Pending>,
    retired: Vec<Arc<Tables>>,
}

#[derive(Debug)]
struct Pending {
    tables: Arc<Tables>,
    confirmed: Vec<bool>,
}

impl Publisher {
    /// Nothing in force yet on any of `shards`.
    #[must_use]
    pub fn new(workload: Workload, shards: usize) -> Self {
        Self {
            workload,
            shards,
            in_force: None,
            pending: None,
            retired: Vec::new(),
        }
    }

    /// Builds tables, with what names lead to, to be sent to every shard. A publication still under way is superseded: its
    /// confirmations count no more, though shards that have it keep it until this one arrives.
    ///
    /// # Errors
    /// Why the snapshot is refused; nothing changes then.
    pub fn begin(&mut self, snapshot: &Snapshot, answers: &Answers) -> Result<Arc<Tables>, String> {
        let tables = Tables::build_with(snapshot, &self.workload, answers)
            .map_err(|error| error.to_string())?;
        let tables = Arc::new(tables);
        let pending = Pending {
            tables: Arc::clone(&tables),
            confirmed: vec![false; self.shards],
        };
        if let Some(superseded) = self.pending.replace(pending) {
            self.retired.push(superseded.tables);
        }
        Ok(tables)
    }

    /// `shard` has put `generation` in force. The tables, once every shard has.
    pub fn confirmed(&mut self, shard: usize, generation: Generation) -> Option<Arc<Tables>> {
        let pending = self.pending.as_mut()?;
        if pending.tables.generation() != generation {
            return None;
        }
        *pending.confirmed.get_mut(shard)? = true;
        if !pending.confirmed.iter().all(|confirmed| *confirmed) {
            return None;
        }
        let done = self.pending.take()?;
        if let Some(old) = self.in_force.replace(Arc::clone(&done.tables)) {
            self.retired.push(old);
        }
        Some(done.tables)
    }

    /// What is in force on every shard.
    #[must_use]
    pub fn in_force(&self) -> Option<&Arc<Tables>> {
        self.in_force.as_ref()
    }

    /// What is in force, or coming into force.
    #[must_use]
    pub fn newest(&self) -> Option<&Arc<Tables>> {
        let pending = self.pending.as_ref().map(|pending| &pending.tables);
        pending.or(self.in_force.as_ref())
    }

    /// Revision being published.
    #[must_use]
    pub fn pending(&self) -> Option<Revision> {
        self.pending.as_ref().map(|pending| pending.tables.revision)
    }

    /// Drops tables that no shard uses any more. The rest stays until a later call: exchanges keep
    /// the tables they began with.
    pub fn sweep(&mut self) {
        self.retired.retain(|tables| Arc::strong_count(tables) > 1);
    }
}

#[cfg(test)]
mod tests {
    use ringmesh_wire::snapshot::{Body, Mesh, MtlsMode, OnQuotaUnavailable, OutboundMode};
    use ringmesh_wire::{NodeId, ServiceId};

    use super::*;

    fn snapshot(revision: u64) -> Snapshot {
        let mesh = Body::Mesh(Mesh {
            trust_domain: "mesh.local".into(),
            default_timeout_ms: 15_000,
            outbound: OutboundMode::AllowAny,
            on_quota_unavailable: OnQuotaUnavailable::Share,
            retry_non_idempotent: false,
            mtls: MtlsMode::Strict,
            mtls_ports: Vec::new(),
        });
        let sections = vec![mesh.seal("").unwrap()];
        Snapshot::new(Revision(revision), NodeId("n".into()), sections).unwrap()
    }

    fn publisher(shards: usize) -> Publisher {
        let workload = Workload {
            service: ServiceId::new("s", "default"),
            service_account: "s".into(),
            labels: std::collections::BTreeMap::new(),
            ports: Vec::new(),
        };
        Publisher::new(workload, shards)
    }

    #[test]
    fn it_is_in_force_when_every_shard_says_so() {
        let mut publisher = publisher(2);
        let first = publisher.begin(&snapshot(1), &Answers::default()).unwrap();
        assert!(publisher.confirmed(0, first.generation()).is_none());
        assert!(publisher.confirmed(0, first.generation()).is_none());
        assert!(publisher.confirmed(9, first.generation()).is_none());
        assert_eq!(publisher.pending(), Some(Revision(1)));
        assert!(publisher.in_force().is_none());
        assert_eq!(publisher.newest().unwrap().revision, Revision(1));
        assert!(publisher.confirmed(1, first.generation()).is_some());
        assert_eq!(publisher.in_force().unwrap().revision, Revision(1));
        assert_eq!(publisher.pending(), None);
    }

    #[test]
    fn a_superseded_publication_confirms_nothing() {
        let mut publisher = publisher(1);
        let first = publisher.begin(&snapshot(1), &Answers::default()).unwrap();
        let second = publisher.begin(&snapshot(1), &Answers::default()).unwrap();
        assert!(publisher.confirmed(0, first.generation()).is_none());
        assert!(publisher.confirmed(0, second.generation()).is_some());
    }

    #[test]
    fn old_tables_are_dropped_here_once_no_shard_has_them() {
        let mut publisher = publisher(1);
        let first = publisher.begin(&snapshot(1), &Answers::default()).unwrap();
        publisher.confirmed(0, first.generation());
        let second = publisher.begin(&snapshot(2), &Answers::default()).unwrap();
        publisher.confirmed(0, second.generation());
        publisher.sweep();
        assert_eq!(publisher.retired.len(), 1);
        drop(first);
        publisher.sweep();
        assert!(publisher.retired.is_empty());
    }

    #[test]
    fn a_snapshot_that_does_not_hold_together_changes_nothing() {
        let mut publisher = publisher(1);
        let mut bad = snapshot(2);
        bad.sections[0].bytes.truncate(1);
        assert!(publisher.begin(&bad, &Answers::default()).is_err());
        assert_eq!(publisher.pending(), None);
    }
}
