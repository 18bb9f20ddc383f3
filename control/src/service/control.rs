//! The state and its start.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use ringmesh_wire::{NodeId, Revision, ServiceId};
use tokio::sync::{Notify, watch};

use super::apply::rule_key;
use super::counters::Counters;
use super::plan::Dirty;
use super::sessions::Connected;
use crate::compile::TrustView;
use crate::model::{Effective, Model, Refused, RegistryView, Status};
use crate::publish::Fanout;
use crate::registry::{Guards, Registry};
use crate::rules::{self, Kind, Object, RuleErrors};
use crate::sink::{AccessLog, SeriesStore};
use crate::store::{
    AuditEntry, Book, Disk, Document, InForce, ObjectKey, Store, StoreError, StoredEndpoint,
    StoredObject,
};
use crate::svid::{Authority, CaError, Given, Issuer, Lives, Passphrase, unix_ms};
use crate::time::{Clock, Mono};

/// What the service is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Everything control keeps.
    pub data_dir: PathBuf,
    /// Trust domain of every identity.
    pub trust_domain: String,
    /// Lives of certificates.
    pub lives: Lives,
    /// Guards of the registry.
    pub guards: Guards,
    /// A CA of somebody else's to sign with; `None`: our own, under `data_dir`.
    pub ca: Option<Given>,
    /// Where the passphrase of the CA's keys is.
    pub ca_passphrase: Passphrase,
}

/// Why it does not start.
#[derive(Debug)]
#[non_exhaustive]
pub enum StartError {
    /// The data directory or the log.
    Io {
        /// Which path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The store.
    Store(StoreError),
    /// The CA.
    Ca(CaError),
    /// An object is stored whose kind this version does not know.
    Kind(String),
    /// An object is stored and cannot be read that stops calls, or that such a one may need; with why.
    Policy(String, RuleErrors),
    /// The system has no random numbers.
    Random,
}

impl StartError {
    /// Whether somebody said something wrong, as opposed to something that failed.
    #[must_use]
    pub fn is_wrong_input(&self) -> bool {
        matches!(self, Self::Ca(CaError::Wrong { .. }))
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Store(error) => write!(
                f,
                "{error} (does another ringmesh-control use this data directory?)"
            ),
            Self::Ca(error) => error.fmt(f),
            Self::Kind(object) => write!(
                f,
                "{object} is stored, and its kind is not one of this version: start the one that stored it"
            ),
            Self::Policy(object, errors) => write!(
                f,
                "{object} is stored, and this version refuses it: {errors}; without it calls would pass that it \
                 may be there to stop, so nothing is started (sidecars go on with what they have). Start the \
                 version that stored it, and replace or delete it there"
            ),
            Self::Random => f.write_str("the system has no random numbers"),
        }
    }
}

impl std::error::Error for StartError {}

/// A running control service.
#[derive(Debug)]
pub struct Control {
    pub(super) book: Book,
    pub(super) issuer: Issuer,
    pub(super) clock: Clock,
    /// Random per start.
    pub(super) boot: u64,
    pub(super) state: Mutex<State>,
    /// Held by whoever changes rules or plans, over disk and compile.
    pub(super) gate: Mutex<()>,
    /// The planner has something to look at.
    pub(super) changed: Notify,
    /// Rises with every acknowledgement and every plan: who waits looks again.
    pub(super) settled: watch::Sender<u64>,
    /// Rises when other roots count, or another signs.
    pub(super) roots_changed: watch::Sender<u64>,
    /// Rises when certificates are revoked: every link looks whether it is meant.
    pub(super) revoked: watch::Sender<u64>,
    /// What the quota authority must know; `None` before the first plan.
    pub(super) quotas: watch::Sender<Option<Arc<Vec<ringmesh_quota::RuleFacts>>>>,
    /// Metrics of sidecars.
    pub(super) series: Arc<SeriesStore>,
    /// Access log of sidecars.
    pub(super) log: AccessLog,
    /// Control's own metrics.
    pub(super) counters: Counters,
}

/// What the lock protects.
#[derive(Debug)]
pub(super) struct State {
    pub(super) model: Arc<Model>,
    pub(super) effective: Arc<Effective>,
    pub(super) in_force: InForce,
    pub(super) statuses: Vec<Status>,
    pub(super) registry: Registry,
    /// What the store holds of it.
    pub(super) stored: BTreeMap<NodeId, StoredEndpoint>,
    /// What was planned from last.
    pub(super) view: RegistryView,
    /// Virtual addresses given out.
    pub(super) vips: BTreeMap<ServiceId, IpAddr>,
    pub(super) trust: Arc<TrustView>,
    pub(super) fanout: Fanout,
    pub(super) connected: BTreeMap<NodeId, Connected>,
    pub(super) sessions_ever: u64,
    pub(super) generations: std::ops::Range<u64>,
    pub(super) dirty: Dirty,
    /// Where node's last compile failed, and why.
    pub(super) compile_errors: BTreeMap<NodeId, String>,
}

/// Reads again what stays in force though it was changed or deleted. That may be what stops calls, or what it
/// needs, so none of it is left out.
fn read_again(documents: &[Document]) -> Result<Vec<Arc<Object>>, StartError> {
    let read = |document: &Document| {
        let Document {
            file,
            first_line,
            text,
        } = document;
        rules::parse_document(file, *first_line, text)
            .map_err(|errors| StartError::Policy(format!("an object of {file}"), errors))
    };
    let read = documents.iter().map(read);
    let objects = read.filter_map(Result::transpose);
    objects.map(|object| object.map(Arc::new)).collect()
}

/// Whether an object of this kind may be left out: it stops no calls, and nothing that does may need it.
fn may_be_left_out(kind: Kind) -> bool {
    match kind {
        Kind::VirtualService | Kind::DestinationRule | Kind::QuotaSpec | Kind::QuotaSpecBinding => {
            true
        }
        Kind::AuthorizationPolicy
        | Kind::PeerAuthentication
        | Kind::MeshSettings
        | Kind::ServiceEntry
        | Kind::Rule
        | Kind::Handler
        | Kind::Denier
        | Kind::Instance
        | Kind::CheckNothing
        | Kind::MemQuota
        | Kind::Quota => false,
    }
}

/// What users wrote, as this version reads it.
fn read_model(
    revision: u64,
    stored: BTreeMap<ObjectKey, StoredObject>,
) -> Result<Model, StartError> {
    let mut model = Model {
        revision: Revision(revision),
        ..Model::default()
    };
    for (key, StoredObject { document, .. }) in stored {
        let Document {
            file,
            first_line,
            text,
        } = document;
        match rules::parse_document(&file, first_line, &text) {
            Ok(None) => {}
            Ok(Some(object)) => {
                model.objects.insert(object.key.clone(), Arc::new(object));
            }
            Err(RuleErrors(errors)) => {
                let key = rule_key(&key).ok_or_else(|| StartError::Kind(key.to_string()))?;
                if !may_be_left_out(key.kind) {
                    return Err(StartError::Policy(key.to_string(), RuleErrors(errors)));
                }
                for error in &errors {
                    tracing::error!(object = %key, %error, "a stored rule is NOT IN FORCE: this \
                        version refuses it; replace or delete it");
                }
                let refused = Refused {
                    key: key.clone(),
                    file,
                    text: text.into(),
                    errors,
                };
                model.refused.insert(key, Arc::new(refused));
            }
        }
    }
    Ok(model)
}

impl Control {
    /// Opens the data directory and takes up where the last run ended. Blocks on the disk.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(settings: &Settings) -> Result<Arc<Self>, StartError> {
        let dir = &settings.data_dir;
        let io = |path: PathBuf| move |source| StartError::Io { path, source };
        std::fs::create_dir_all(dir).map_err(io(dir.clone()))?;
        let store: Arc<dyn Store> =
            Arc::new(Disk::open(&dir.join("store.redb")).map_err(StartError::Store)?);
        let book = Book::new(store);
        let now = SystemTime::now();
        let domain = &settings.trust_domain;
        let authority = match &settings.ca {
            Some(given) => Authority::given(given, domain, &settings.ca_passphrase, now),
            None => Authority::open(&dir.join("ca"), domain, &settings.ca_passphrase, now),
        };
        let authority = authority.map_err(StartError::Ca)?;
        let roots = authority.trusted();
        let issuer = Issuer::new(Arc::new(authority), book.clone(), settings.lives);
        let logs = dir.join("logs");
        let log = AccessLog::open(&logs).map_err(io(logs))?;

        let revision = book.revision().map_err(StartError::Store)?;
        let model = read_model(revision, book.objects().map_err(StartError::Store)?)?;
        let in_force = book.in_force().map_err(StartError::Store)?;
        let effective = effective_from(&model, &in_force)?;

        let clock = Clock::start();
        let stored = book.endpoints().map_err(StartError::Store)?;
        let registry = Registry::new(settings.guards, stored.clone(), clock.now());
        let revoked = book.revocations().map_err(StartError::Store)?;
        let trust = TrustView {
            trust_domain: settings.trust_domain.clone(),
            roots,
            revoked_serials: serials(revoked.iter().map(|r| r.serial.as_str())),
        };
        let (from, to) = book.reserve_generations().map_err(StartError::Store)?;
        let vips = book.vips().map_err(StartError::Store)?;
        let view = registry.view();
        let resolution = model.resolve(&view, &effective);
        let counters = Counters::default();
        counters
            .revision
            .set(i64::try_from(revision).unwrap_or(i64::MAX));
        let state = State {
            model: Arc::new(model),
            effective: Arc::new(resolution.effective),
            in_force,
            statuses: resolution.statuses,
            registry,
            stored: stored.into_iter().map(|e| (e.node.clone(), e)).collect(),
            view,
            vips,
            trust: Arc::new(trust),
            fanout: Fanout::default(),
            connected: BTreeMap::new(),
            sessions_ever: 0,
            generations: from..to,
            dirty: Dirty::default(),
            compile_errors: BTreeMap::new(),
        };
        let mut boot = [0; 8];
        aws_lc_rs::rand::fill(&mut boot).map_err(|_| StartError::Random)?;
        Ok(Arc::new(Self {
            book,
            issuer,
            clock,
            boot: u64::from_le_bytes(boot),
            state: Mutex::new(state),
            gate: Mutex::new(()),
            changed: Notify::new(),
            settled: watch::Sender::new(0),
            roots_changed: watch::Sender::new(0),
            revoked: watch::Sender::new(0),
            quotas: watch::Sender::new(None),
            series: Arc::new(SeriesStore::default()),
            log,
            counters,
        }))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn gate(&self) -> MutexGuard<'_, ()> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sidecars the registry holds.
    pub fn registered(&self) -> BTreeSet<NodeId> {
        self.lock().stored.keys().cloned().collect()
    }

    /// The quota rules and who enforces them; `None` before the first plan.
    pub fn quotas(&self) -> watch::Receiver<Option<Arc<Vec<ringmesh_quota::RuleFacts>>>> {
        self.quotas.subscribe()
    }

    /// Rises when other roots count, or another signs.
    pub fn roots_changed(&self) -> watch::Receiver<u64> {
        self.roots_changed.subscribe()
    }

    pub(super) fn now(&self) -> Mono {
        self.clock.now()
    }

    pub(super) fn settle(&self) {
        self.settled.send_modify(|n| *n += 1);
    }

    /// The records.
    #[must_use]
    pub fn book(&self) -> &Book {
        &self.book
    }

    /// The certificate authority.
    #[must_use]
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// Random per start.
    #[must_use]
    pub fn boot(&self) -> u64 {
        self.boot
    }

    /// Control's own counters.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Metrics that sidecars reported.
    #[must_use]
    pub fn series(&self) -> &Arc<SeriesStore> {
        &self.series
    }

    /// The access log.
    #[must_use]
    pub fn log(&self) -> &AccessLog {
        &self.log
    }

    /// Status of every object.
    #[must_use]
    pub fn statuses(&self) -> Vec<Status> {
        self.lock().statuses.clone()
    }

    /// Writes down who did what; a failure is told, not returned: what was done is done.
    pub fn audit(&self, who: &str, what: impl Into<String>) {
        let entry = AuditEntry {
            when_ms: unix_ms(SystemTime::now()),
            who: who.to_owned(),
            what: what.into(),
        };
        // The hash goes into the log, too: who changes the record would have to change both.
        match self.book.audit(&entry) {
            Ok(link) => tracing::info!(who = entry.who, what = entry.what, %link, "audit"),
            Err(error) => {
                tracing::error!(%error, who = entry.who, what = entry.what, "could not write the audit record");
            }
        }
    }

    /// Revokes every certificate of a node: its link is closed, its endpoint withdrawn as if it had left (its
    /// service stays), and all sidecars are told. Blocks on the disk.
    ///
    /// # Errors
    /// [`crate::svid::Refusal`] where the node is unknown.
    pub fn revoke(&self, node: &NodeId, who: &str) -> Result<usize, crate::svid::Refusal> {
        let revoked = self.issuer.revoke(node, who, SystemTime::now())?;
        let all = self.book.revocations()?;
        let now = self.now();
        let mut state = self.lock();
        let mut trust = TrustView::clone(&state.trust);
        trust.revoked_serials = serials(all.iter().map(|r| r.serial.as_str()));
        state.trust = Arc::new(trust);
        state.registry.withdraw(node, now);
        if let Some(connected) = state.connected.get(node) {
            connected.close(crate::publish::close::IDENTITY, "revoked");
        }
        state.dirty.everything();
        drop(state);
        self.revoked.send_modify(|n| *n += 1);
        self.changed.notify_one();
        self.audit(who, format!("cert revoke {node}"));
        Ok(revoked.len())
    }

    /// Hears of every revocation.
    pub(crate) fn revocations(&self) -> watch::Receiver<u64> {
        self.revoked.subscribe()
    }

    /// Whether a certificate (serial in hex) is revoked.
    pub(crate) fn is_revoked(&self, serial: &str) -> bool {
        self.lock().has_revoked(serial)
    }

    /// Forgets the endpoint of a node that is gone for good; says whether there was one.
    pub fn forget_endpoint(&self, node: &NodeId) -> bool {
        let mut state = self.lock();
        let known = state.registry.forget(node);
        state.dirty.endpoints();
        drop(state);
        self.changed.notify_one();
        known
    }

    /// Ends a freeze of the registry.
    pub fn thaw(&self) {
        let now = self.now();
        let mut state = self.lock();
        state.registry.thaw(now);
        state.dirty.endpoints();
        drop(state);
        self.changed.notify_one();
    }

    /// How long a link may be silent.
    #[must_use]
    pub fn lease(&self) -> Duration {
        crate::publish::link::IDLE_TIMEOUT
    }
}

impl State {
    /// Whether a certificate (serial in hex) is revoked.
    pub(super) fn has_revoked(&self, serial: &str) -> bool {
        let wanted = serials(std::iter::once(serial));
        wanted
            .iter()
            .any(|serial| self.trust.revoked_serials.contains(serial))
    }
}

/// Serial numbers as sidecars compare them: big endian, sorted.
fn serials<'a>(hex: impl Iterator<Item = &'a str>) -> Vec<Vec<u8>> {
    let byte = |pair: &[u8]| {
        let text = std::str::from_utf8(pair).unwrap_or("");
        u8::from_str_radix(text, 16).unwrap_or(0)
    };
    let mut all: Vec<Vec<u8>> = hex
        .map(|serial| serial.as_bytes().chunks(2).map(byte).collect())
        .collect();
    all.sort();
    all
}

/// What was in force when the last run ended.
fn effective_from(model: &Model, in_force: &InForce) -> Result<Effective, StartError> {
    let mut objects = model.objects.clone();
    objects.retain(|key, _| {
        !in_force.absent.iter().any(|absent| {
            absent.kind == key.kind.name()
                && absent.namespace == key.namespace
                && absent.name == key.name
        })
    });
    for older in read_again(&in_force.older)? {
        objects.insert(older.key.clone(), older);
    }
    Ok(Effective {
        revision: model.revision,
        objects,
        held: read_again(&in_force.held)?,
        ..Effective::default()
    })
}
