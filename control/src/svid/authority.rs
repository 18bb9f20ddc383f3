//! The roots on disk, and who signs now.
//!
//! ```text
//! DATA_DIR/ca/                       the first root
//! DATA_DIR/ca/N/                     the Nth after it
//!     root.pem root.key intermediate.pem intermediate.key
//!     bridge.pem                     the intermediate, signed by the root before as well; made anew with it
//! DATA_DIR/ca/roots.json             which of them is good for what; replaced whole at each step
//! ```
//! Keys are never moved: a step is one replaced file, so a crash leaves the step before or after.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::ca::{Ca, CaError, ROOT_LIFE, create_private_dir, not_after};
use super::files::write_secret;
use super::given::{self, Given};
use super::passphrase::Passphrase;
use super::roots::{Facts, Generation, Stage, Succession};
use super::{sha256_hex, unix_ms};

/// The certificate authority of one trust domain, over time.
#[derive(Debug)]
pub struct Authority {
    dir: PathBuf,
    trust_domain: String,
    passphrase: Passphrase,
    /// Where certificate and key were given.
    given: Option<Given>,
    held: RwLock<Held>,
    /// Held from reading what is in force to replacing it.
    changing: Mutex<()>,
}

#[derive(Debug, Clone)]
struct Held {
    succession: Succession,
    /// With a root's DER each, in the same order. Empty where certificate and key were given.
    roots: Vec<Vec<u8>>,
    issuing: Arc<Ca>,
    /// Given along with certificate and key.
    given: Vec<Vec<u8>>,
}

/// One root, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootInForce {
    /// SHA-256 of its DER, hex.
    pub sha256: String,
    /// What it is good for.
    pub stage: Stage,
    /// Since when, milliseconds since 1970; 0: from the beginning.
    pub since_ms: u64,
    /// Its own end.
    pub not_after: Option<SystemTime>,
}

fn damaged(path: &Path, why: &(impl ToString + ?Sized)) -> CaError {
    CaError::Damaged {
        path: path.display().to_string(),
        why: why.to_string(),
    }
}

fn file(path: &Path) -> impl Fn(std::io::Error) -> CaError + '_ {
    move |source| CaError::File {
        path: path.display().to_string(),
        source,
    }
}

impl Authority {
    /// Opens the CA in `dir`, or creates it. Keys that are not under `passphrase` yet are put under it.
    ///
    /// # Errors
    /// [`CaError`], naming the file.
    pub fn open(
        dir: &Path,
        trust_domain: &str,
        passphrase: &Passphrase,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let path = dir.join(FILE);
        let succession = match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| damaged(&path, &error))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Succession::default(),
            Err(error) => return Err(file(&path)(error)),
        };
        Ok(Self {
            dir: dir.to_owned(),
            trust_domain: trust_domain.to_owned(),
            passphrase: passphrase.clone(),
            given: None,
            held: RwLock::new(load(dir, trust_domain, succession, passphrase, now)?),
            changing: Mutex::default(),
        })
    }

    /// Signs with a certificate and key of somebody else's CA; nothing is made here.
    ///
    /// # Errors
    /// [`CaError`], naming the file and what is wrong with it.
    pub fn given(
        given: &Given,
        trust_domain: &str,
        passphrase: &Passphrase,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        Ok(Self {
            dir: PathBuf::new(),
            trust_domain: trust_domain.to_owned(),
            passphrase: passphrase.clone(),
            given: Some(given.clone()),
            held: RwLock::new(read_given(given, trust_domain, passphrase, now)?),
            changing: Mutex::default(),
        })
    }

    /// Reads again what was given; false if nothing was. What is wrong with it changes nothing. Blocks on
    /// the disk.
    ///
    /// # Errors
    /// [`CaError`], naming the file; also where the root that would sign is not among those in force, so
    /// that sidecars do not know it yet.
    pub fn read_again(&self, now: SystemTime) -> Result<bool, CaError> {
        let Some(given) = &self.given else {
            return Ok(false);
        };
        let _changing = self.changing();
        let next = read_given(given, &self.trust_domain, &self.passphrase, now)?;
        let root = next.issuing.root_der();
        if !self.trusted().iter().any(|known| known == root) {
            return Err(CaError::Wrong {
                path: given.roots.display().to_string(),
                why: "the first root is not in force yet, so no sidecar would take what it signs: put it \
                      behind those of before first, and exchange certificate and key when all sidecars \
                      have it"
                    .into(),
            });
        }
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(true)
    }

    fn changing(&self) -> MutexGuard<'_, ()> {
        // A panic left what was in force.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn held(&self) -> Held {
        self.held
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Who signs now.
    #[must_use]
    pub fn issuing(&self) -> Arc<Ca> {
        let held = self.held.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&held.issuing)
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.trust_domain
    }

    /// The roots sidecars trust (DER); the one that signs first.
    #[must_use]
    pub fn trusted(&self) -> Vec<Vec<u8>> {
        self.held()
            .of(&[Stage::Issuing, Stage::Announced, Stage::Retiring])
    }

    /// The roots that sidecars' certificates may be under when they come to control (DER).
    #[must_use]
    pub fn known(&self) -> Vec<Vec<u8>> {
        let all = [
            Stage::Issuing,
            Stage::Announced,
            Stage::Retiring,
            Stage::Withdrawn,
        ];
        self.held().of(&all)
    }

    /// Which roots there are.
    #[must_use]
    pub fn roots(&self) -> Vec<RootInForce> {
        let held = self.held();
        let own = held.succession.generations.iter().zip(&held.roots);
        let own = own.map(|(one, der)| (one.stage, one.since_ms, der));
        let given = held.given.iter().map(|der| (Stage::Issuing, 0, der));
        own.chain(given)
            .map(|(stage, since_ms, der)| RootInForce {
                sha256: sha256_hex(der),
                stage,
                since_ms,
                not_after: not_after(der),
            })
            .collect()
    }

    /// Where the roots stand.
    #[must_use]
    pub fn succession(&self) -> Succession {
        self.held().succession
    }

    /// Whether the root that signs is in the last fifth of its life and no successor is there.
    #[must_use]
    pub fn is_due(&self, now: SystemTime) -> bool {
        let held = self.held();
        let left = not_after(held.issuing.root_der()).unwrap_or(now);
        held.given.is_empty()
            && held.succession.newest(Stage::Announced).is_none()
            && held.succession.newest(Stage::Retiring).is_none()
            && left < now + ROOT_LIFE / 5
    }

    /// How long a CA that was given has left, once that is less than a fifth of its life or less than `life`, how
    /// long what it signs is to live. Our own is renewed by itself.
    #[must_use]
    pub fn given_ends_in(&self, life: Duration, now: SystemTime) -> Option<Duration> {
        self.given.as_ref()?;
        let ca = self.issuing();
        let left = ca.ends().first().duration_since(now).unwrap_or_default();
        (left < life.max(ca.made_for() / 5)).then_some(left)
    }

    /// Makes a new intermediate if that of now is near its end; whether it did. What the old one signed stays
    /// good: it is shown along with its signer's certificate. Blocks on the disk.
    ///
    /// # Errors
    /// [`CaError`]; then the old one goes on.
    pub fn renew_intermediate(&self, now: SystemTime) -> Result<bool, CaError> {
        if self.given.is_some() || !self.issuing().is_due(now) {
            return Ok(false);
        }
        let _changing = self.changing();
        let held = self.load(self.succession(), now)?;
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = held;
        Ok(true)
    }

    /// Makes a new root, to be announced. Blocks on the disk.
    ///
    /// # Errors
    /// `Ok(None)` while another is under way; [`CaError::Given`] where the CA is not ours.
    pub fn announce(&self, now: SystemTime) -> Result<Option<()>, CaError> {
        let _changing = self.changing();
        let held = self.held();
        if !held.given.is_empty() {
            return Err(CaError::Given);
        }
        let folders = held.succession.generations.iter();
        let last = folders
            .filter_map(|one| one.folder.parse::<u32>().ok())
            .max();
        let folder = (last.unwrap_or(0) + 1).to_string();
        let Some(next) = held.succession.announce(&folder, unix_ms(now)) else {
            return Ok(None);
        };
        let dir = self.dir.join(&folder);
        // What a crash left there was never announced.
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(file(&dir)(error));
            }
            _ => {}
        }
        Ca::open(&dir, &self.trust_domain, &self.passphrase, now)?;
        let old = held.succession.newest(Stage::Issuing);
        let old = old.map_or_else(|| self.dir.clone(), |one| self.dir.join(&one.folder));
        let bridge = Ca::bridge(&dir, &old, &self.passphrase, now)?;
        let path = dir.join("bridge.pem");
        write_secret(&path, bridge.pem().as_bytes()).map_err(file(&path))?;
        self.put(next, now)?;
        Ok(Some(()))
    }

    /// Takes the next step if its time has come. Blocks on the disk.
    ///
    /// # Errors
    /// The files'.
    pub fn step(
        &self,
        facts: &Facts,
        skew: Duration,
        now: SystemTime,
    ) -> Result<Option<Succession>, CaError> {
        let _changing = self.changing();
        let before = self.succession();
        let skew_ms = u64::try_from(skew.as_millis()).unwrap_or(u64::MAX);
        let Some(next) = before.step(facts, skew_ms) else {
            return Ok(None);
        };
        self.put(next.clone(), now)?;
        // Keys that sign nothing any more are nobody's; the certificates stay to be looked at.
        let gone = before.generations.iter().filter(|one| {
            let stays = next.generations.iter();
            !stays
                .map(|kept| &kept.folder)
                .any(|folder| *folder == one.folder)
        });
        for one in gone {
            for key in KEYS {
                let path = self.dir.join(&one.folder).join(key);
                if let Err(error) = fs::remove_file(&path) {
                    tracing::warn!(path = %path.display(), %error, "an old key could not be removed");
                }
            }
        }
        Ok(Some(next))
    }

    fn load(&self, succession: Succession, now: SystemTime) -> Result<Held, CaError> {
        load(
            &self.dir,
            &self.trust_domain,
            succession,
            &self.passphrase,
            now,
        )
    }

    fn put(&self, next: Succession, now: SystemTime) -> Result<(), CaError> {
        let held = self.load(next, now)?;
        let path = self.dir.join(FILE);
        let text = serde_json::to_string_pretty(&held.succession)
            .map_err(|error| damaged(&path, &error))?;
        write_secret(&path, text.as_bytes()).map_err(file(&path))?;
        *self.held.write().unwrap_or_else(PoisonError::into_inner) = held;
        Ok(())
    }
}

const FILE: &str = "roots.json";
/// Of each root.
const KEYS: [&str; 2] = ["root.key", "intermediate.key"];

impl Held {
    fn of(&self, stages: &[Stage]) -> Vec<Vec<u8>> {
        let pairs = || self.succession.generations.iter().zip(&self.roots);
        let own = stages.iter().flat_map(|stage| {
            pairs()
                .filter(move |(one, _)| one.stage == *stage)
                .map(|(_, der)| der.clone())
        });
        own.chain(self.given.iter().cloned()).collect()
    }
}

fn read_given(
    given: &Given,
    trust_domain: &str,
    passphrase: &Passphrase,
    now: SystemTime,
) -> Result<Held, CaError> {
    let (ca, roots) = given::open(given, trust_domain, passphrase, now)?;
    Ok(Held {
        succession: Succession::default(),
        roots: Vec::new(),
        issuing: Arc::new(ca),
        given: roots,
    })
}

fn load(
    dir: &Path,
    trust_domain: &str,
    succession: Succession,
    passphrase: &Passphrase,
    now: SystemTime,
) -> Result<Held, CaError> {
    create_private_dir(dir).map_err(file(dir))?;
    let signs = |one: &&Generation| one.stage == Stage::Issuing;
    let issuing = succession.generations.iter().find(signs);
    let Some(issuing) = issuing else {
        return Err(damaged(&dir.join(FILE), "no root is the issuing one"));
    };
    for one in &succession.generations {
        for key in KEYS {
            passphrase.seal(&dir.join(&one.folder).join(key))?;
        }
    }
    let own = dir.join(&issuing.folder);
    let mut ca = Ca::open(&own, trust_domain, passphrase, now)?;
    let mut roots = Vec::with_capacity(succession.generations.len());
    for one in &succession.generations {
        roots.push(certificate(&dir.join(&one.folder).join("root.pem"))?);
    }
    let bridge = own.join("bridge.pem");
    let older = succession.generations.iter().zip(&roots);
    let older = older.take_while(|(one, _)| one.folder != issuing.folder);
    let older: Vec<_> = older.collect();
    if let Some((before, _)) = older.last()
        && bridge.exists()
    {
        let mut der = certificate(&bridge)?;
        if !ca.is_bridged_by(&der) {
            // The intermediate has been renewed, and who knows only the root before must recognise it.
            let made = Ca::bridge(&own, &dir.join(&before.folder), passphrase, now)?;
            write_secret(&bridge, made.pem().as_bytes()).map_err(file(&bridge))?;
            der = made.der().to_vec();
        }
        ca.bridge_der.push(der);
        ca.bridge_der
            .extend(older.iter().map(|(_, der)| (*der).clone()));
    }
    Ok(Held {
        succession,
        roots,
        issuing: Arc::new(ca),
        given: Vec::new(),
    })
}

fn certificate(path: &Path) -> Result<Vec<u8>, CaError> {
    let text = fs::read(path).map_err(file(path))?;
    let der = CertificateDer::from_pem_slice(&text).map_err(|error| damaged(path, &error))?;
    Ok(der.to_vec())
}
