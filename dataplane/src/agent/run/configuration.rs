//! Configurations on their way into force, and what HUP reads again.

use super::*;

impl Agent {
    pub(super) fn publish(
        &mut self,
        snapshot: &Arc<Snapshot>,
        origin: Origin,
    ) -> Result<(), String> {
        let tables = self.publisher.begin(snapshot, &self.names.book.answers())?;
        self.publishing = Some((Arc::clone(snapshot), origin));
        // Trust or revocations may be others now. Before the tables: a shard that has those in force has
        // both, and control takes our word for it that others may show what a new root has signed.
        self.push_material();
        self.doors.send_all(&ToShard::Config(tables));
        self.track_names(snapshot);
        Ok(())
    }

    pub(super) fn refused(&mut self, revision: u64, why: &str) {
        tracing::error!(revision, %why, "a configuration is refused; the one before stays");
        self.figures.refused += 1;
        self.board.face().refused = Some((revision, why.to_owned()));
    }

    pub(super) fn in_force(&mut self) {
        let Some((snapshot, origin)) = self.publishing.take() else {
            return;
        };
        let revision = snapshot.revision;
        if origin == Origin::Names {
            tracing::debug!(revision = revision.0, "names lead to other addresses");
            self.tend_names();
            return;
        }
        tracing::info!(
            revision = revision.0,
            origin = origin.name(),
            "configuration in force"
        );
        let tables = self.publisher.in_force().cloned();
        let rules = tables.iter().flat_map(|tables| tables.quotas());
        let local = rules.map(|row| {
            let limits = row.rule.overrides.iter().map(|over| over.limit);
            let windows = limits.chain([row.rule.limit]).map(|limit| limit.window_ms);
            (row.rule.lease_name(), windows.max().unwrap_or(0))
        });
        self.leases.local_rules(local, ring::monotonic().0);
        self.figures.revision = revision.0;
        self.figures.changed = Some(UnixMs::now());
        {
            let mut face = self.board.face();
            face.snapshot = Some(Arc::clone(&snapshot));
            face.origin = origin.name();
            face.refused = None;
        }
        if origin == Origin::Control {
            let path = self.settings.state_dir.join("last-good.rmsh");
            if let Err(error) = last_good::store(&path, &snapshot) {
                tracing::error!(%error, "the last good configuration cannot be written");
            }
            self.unleased = Some((revision, Instant::now() + LEASE_PATIENCE));
        }
        self.tell_leased();
        self.tend_names();
        self.tell_ready();
    }

    pub(super) fn push_material(&mut self) {
        let tables = self.publisher.newest().cloned();
        match self.keeper.material(tables.as_deref()) {
            Ok(Some(material)) => {
                self.doors.send_all(&ToShard::Tls(material));
            }
            Ok(None) => {}
            Err(why) => tracing::error!(%why, "no mutual TLS with these certificates"),
        }
        self.show_credentials();
    }

    pub(super) fn show_credentials(&mut self) {
        let credentials = self.keeper.credentials();
        self.figures.svid_expires = credentials.svid.as_ref().map(|svid| svid.life.expires);
        let mut face = self.board.face();
        face.credentials = credentials.clone();
        face.renew_at = self.keeper.renewal().map(crate::agent::svid::Renewal::next);
    }

    pub(super) fn hang_up(&mut self) {
        if let Some(log) = &self.log_file {
            log.reopen();
        }
        let Some(file) = self.snapshot_file.clone() else {
            tracing::info!("HUP: access log reopened; control owns the configuration");
            return;
        };
        let (keeper, complaints) = Keeper::load(&self.settings.state_dir, fastrand::u64(..));
        for complaint in complaints {
            tracing::error!(%complaint, "a file of the state directory is not usable");
        }
        self.keeper = keeper;
        self.push_material();
        let loaded = last_good::load(&file, &self.settings.node).map_err(|error| error.to_string());
        let outcome = loaded.and_then(|snapshot| {
            let snapshot =
                snapshot.ok_or_else(|| format!("{}: there is no such file", file.display()))?;
            let snapshot = Arc::new(snapshot);
            self.publish(&snapshot, Origin::File)
                .map_err(|why| format!("{}: {why}", file.display()))
        });
        if let Err(why) = outcome {
            self.refused(0, &why);
        }
    }
}
