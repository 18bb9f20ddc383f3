//! Who we are: the credentials in use, what is to be done about them, and what TLS is made of.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use super::credentials::{Credentials, Identity};
use super::link::Fresh;
use super::svid::{Life, Renewal, UnixMs};
use super::verify::Anchor;
use crate::tables::Tables;
use crate::tls::{PeerTrust, TlsMaterial};

/// What has to happen before control can be talked to, or to keep talking to it.
#[derive(Debug, Clone)]
pub enum Step {
    /// Show this.
    Connect(Arc<Identity>),
    /// The SVID has expired: buy a new one with the node credential first.
    RenewBy(Arc<Identity>),
    /// There is nothing to show: a join token is needed.
    Enroll,
}

/// Keeps credentials.
#[derive(Debug)]
pub struct Keeper {
    dir: PathBuf,
    credentials: Credentials,
    renewal: Option<Renewal>,
    /// Made last, so that the next can go on with its sessions.
    material: Option<Arc<TlsMaterial>>,
    /// The roots of the configuration in force. Newer than those that came with the certificate.
    pushed: Vec<CertificateDer<'static>>,
}

impl Keeper {
    /// Reads what is in `dir`; complaints about damaged files come beside.
    #[must_use]
    pub fn load(dir: &Path, random: u64) -> (Self, Vec<String>) {
        let (credentials, complaints) = Credentials::load(dir);
        let mut keeper = Self {
            dir: dir.to_owned(),
            credentials,
            renewal: None,
            material: None,
            pushed: Vec::new(),
        };
        keeper.replan(random);
        (keeper, complaints)
    }

    fn replan(&mut self, random: u64) {
        let svid = self.credentials.svid.as_ref();
        self.renewal = svid.map(|svid| Renewal::plan(svid.life, random));
    }

    /// What this host holds.
    #[must_use]
    pub fn credentials(&self) -> &Credentials {
        &self.credentials
    }

    /// The plan for the SVID.
    #[must_use]
    pub fn renewal(&self) -> Option<&Renewal> {
        self.renewal.as_ref()
    }

    /// The roots control is verified against, once we have some: those that came with the certificate, and
    /// those of the configuration in force, which hears first of a new one.
    #[must_use]
    pub fn anchor(&self) -> Anchor {
        let mut roots = self.credentials.roots.clone();
        let more = self
            .pushed
            .iter()
            .filter(|root| !self.credentials.roots.contains(root));
        roots.extend(more.cloned());
        Anchor::Roots(roots)
    }

    /// The next step towards control.
    #[must_use]
    pub fn step(&self, now: UnixMs) -> Step {
        let usable = |identity: &&Arc<Identity>| identity.usable(now);
        if let Some(svid) = self.credentials.svid.as_ref().filter(usable) {
            return Step::Connect(Arc::clone(svid));
        }
        match self.credentials.node.as_ref().filter(usable) {
            Some(node) => Step::RenewBy(Arc::clone(node)),
            None => Step::Enroll,
        }
    }

    /// Whether the node credential is to be renewed along: from its own half-life on.
    #[must_use]
    pub fn node_due(&self, now: UnixMs) -> bool {
        self.credentials.node.as_ref().is_none_or(|node| {
            let Life { obtained, expires } = node.life;
            now.0 >= obtained.0 / 2 + expires.0 / 2
        })
    }

    /// Takes over what was issued.
    ///
    /// # Errors
    /// Why not; what was there stays.
    pub fn accept(&mut self, fresh: &Fresh, now: UnixMs, random: u64) -> Result<(), String> {
        let keys = &fresh.keys;
        self.credentials.accept(
            &fresh.issued,
            &keys.workload,
            keys.node.as_ref(),
            &self.dir,
            now,
        )?;
        self.replan(random);
        Ok(())
    }

    /// Writes certificates that could not be written when they came.
    pub fn save_what_is_owed(&mut self) {
        if self.credentials.is_unsaved() && self.credentials.save(&self.dir).is_ok() {
            tracing::info!("certificates are written to the state directory");
        }
    }

    /// A renewal failed.
    pub fn failed(&mut self, now: UnixMs, random: u64) {
        if let Some(renewal) = &mut self.renewal {
            renewal.failed(now, random);
        }
    }

    /// What shards need for handshakes, under the trust of `tables`; `None` without an SVID.
    ///
    /// # Errors
    /// Why the credentials are not usable.
    pub fn material(
        &mut self,
        tables: Option<&Tables>,
    ) -> Result<Option<Arc<TlsMaterial>>, String> {
        self.pushed = tables
            .map(|tables| &tables.trust.roots)
            .into_iter()
            .flatten()
            .map(|der| CertificateDer::from(der.clone()))
            .collect();
        let Some(svid) = &self.credentials.svid else {
            return Ok(None);
        };
        // The snapshot's roots are newer than those that came with the certificate, and may be
        // fewer: a root that was withdrawn must not be trusted any more.
        let roots = match self.pushed.is_empty() {
            true => &self.credentials.roots,
            false => &self.pushed,
        };
        let trust = PeerTrust {
            trust_domain: tables.map_or_else(
                || svid.spiffe.trust_domain().to_owned(),
                |tables| tables.mesh.trust_domain.clone(),
            ),
            revoked_serials: tables
                .map(|tables| tables.trust.revoked_serials.clone())
                .unwrap_or_default(),
        };
        let built = TlsMaterial::build(svid.chain.clone(), svid.key.clone_key(), roots, trust)
            .map_err(|error| error.to_string())?;
        let built = match &self.material {
            Some(before) => built.succeed(before),
            None => built,
        };
        let built = Arc::new(built);
        self.material = Some(Arc::clone(&built));
        Ok(Some(built))
    }
}
