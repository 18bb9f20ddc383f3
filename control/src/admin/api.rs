//! The API's messages, shared by service and tool. JSON; times are milliseconds since 1970.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::store::{AuditRecord, Chain};

/// A file of rules.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// As the user named it.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// `POST /v1/apply`, `POST /v1/delete`
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Change {
    /// The objects, as files.
    pub files: Vec<File>,
    /// Delete only: one object instead of files.
    pub object: Option<ObjectName>,
    /// Refuse what would be INACTIVE.
    pub strict: bool,
    /// Only say what would happen.
    pub dry_run: bool,
    /// The revision believed to be current.
    pub expected: Option<u64>,
}

/// Names an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ObjectName {
    /// Kind as written.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
}

/// Answer to a change.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Changed {
    /// The revision that holds it.
    pub revision: u64,
    /// Every object spoken of.
    pub objects: Vec<ChangedObject>,
    /// Other objects whose status changed by it.
    pub also: Vec<ObjectStatus>,
}

/// What became of one object.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ChangedObject {
    /// Which.
    pub object: ObjectName,
    /// `created`, `configured`, `unchanged`, `deleted`.
    pub change: String,
    /// Its text before.
    pub before: Option<String>,
    /// Its text after.
    pub after: Option<String>,
    /// Its status; absent once deleted.
    pub status: Option<ObjectStatus>,
}

/// Status of an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectStatus {
    /// Which.
    pub object: ObjectName,
    /// `ACTIVE` or `INACTIVE`.
    pub state: String,
    /// What is missing, or wrong with it, each as `file:line:column: field: what; what would help`.
    pub missing: Vec<String>,
    /// What should be known though nothing is wrong.
    pub notes: Vec<String>,
}

/// `GET /v1/objects`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Object {
    /// Its name.
    #[serde(flatten)]
    pub name: ObjectName,
    /// Revision that last changed it.
    pub revision: u64,
    /// The file it came from.
    pub file: String,
    /// What the user wrote.
    pub yaml: String,
    /// Its status.
    pub status: Option<ObjectStatus>,
}

/// Any refusal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Problem {
    /// Stable code.
    pub code: String,
    /// For people.
    pub message: String,
    /// One per fault of the input, as `file:line:column: field: what; what would be right`.
    #[serde(default)]
    pub errors: Vec<String>,
}

/// `GET /v1/wait`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Waited {
    /// In force on every live sidecar.
    pub everywhere: bool,
    /// Live sidecars.
    pub live: usize,
    /// Those that do not hold it.
    pub laggards: Vec<Laggard>,
}

/// A sidecar that does not hold a revision.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Laggard {
    /// Which.
    pub node: String,
    /// Why it refused; absent: it has not answered.
    pub refused: Option<String>,
}

/// `GET /v1/history`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Revision {
    /// Its number.
    pub revision: u64,
    /// When.
    pub when_ms: u64,
    /// Who.
    pub who: String,
    /// What they called it.
    pub what: String,
    /// `change KIND namespace/name` each.
    pub changes: Vec<String>,
}

/// `POST /v1/rollback`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rollback {
    /// To what it was then.
    pub revision: u64,
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

/// `GET /v1/proxies`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Proxy {
    /// Its node.
    pub node: String,
    /// Its service; empty before it is known.
    pub service: String,
    /// Where it comes from.
    pub peer: String,
    /// Its software.
    pub build: String,
    /// Since.
    pub since_ms: u64,
    /// Newest configuration meant for it.
    pub wanted: u64,
    /// Newest it acknowledged.
    pub acked: u64,
    /// Revision of the rules it holds.
    pub rules: u64,
    /// `SYNCED`, `WAITING`, `REFUSED`, `NO CONFIG`.
    pub state: String,
    /// Why, where it is not SYNCED.
    pub why: String,
}

/// `GET /v1/endpoints`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Endpoint {
    /// Its service.
    pub service: String,
    /// Its node.
    pub node: String,
    /// Its address.
    pub address: String,
    /// Its mutual-TLS port.
    pub mesh_port: u16,
    /// `number/name`, with `(down)` where the app does not answer.
    pub ports: Vec<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its identity.
    pub identity: String,
    /// `live`, `resuming`, `unconfirmed`, `expired`, `last-known`, `left`.
    pub lease: String,
    /// How others see it: `ready`, `unconfirmed`, `last-known`, or `withdrawn`.
    pub state: String,
}

/// `POST /v1/tokens`
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// Node.
    pub node: String,
    /// Namespace.
    pub namespace: String,
    /// Service.
    pub service: String,
    /// Service account.
    pub service_account: String,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Life, seconds.
    pub life_s: u64,
}

/// Answer to it: the only time the secret is seen.
#[derive(Clone, Serialize, Deserialize)]
pub struct MadeToken {
    /// `id.secret.sha256(root)`
    pub token: String,
    /// Void from.
    pub expires_ms: u64,
}

/// Shows no secret.
impl std::fmt::Debug for MadeToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MadeToken").finish_non_exhaustive()
    }
}

/// `GET /v1/tokens`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Token {
    /// Its public part.
    pub id: String,
    /// For this node.
    pub node: String,
    /// Service it grants.
    pub service: String,
    /// Service account it grants.
    pub service_account: String,
    /// `fresh`, `used`, `expired`.
    pub state: String,
    /// Void from.
    pub expires_ms: u64,
    /// Made by.
    pub created_by: String,
}

/// `GET /v1/quota`: one quota, and who may spend how much of it now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quota {
    /// Its name.
    pub name: String,
    /// Units per window where no override holds.
    #[serde(default)]
    pub amount_max: Option<u64>,
    /// That window, milliseconds.
    #[serde(default)]
    pub window_ms: Option<u64>,
    /// Units are being granted. Not so while a sidecar that may still spend is silent.
    pub granting: bool,
    /// The silent sidecars.
    pub waits_for: Vec<String>,
    /// Who has how many of the 64 slots: of a slot's buckets it holds all units unless they are
    /// listed below.
    pub slots: Vec<Holding>,
    /// Buckets that several sidecars want.
    pub buckets: Vec<QuotaBucket>,
}

/// A bucket that several sidecars want.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotaBucket {
    /// Values of its dimensions, in the order of the dimensions' names.
    pub values: Vec<String>,
    /// Units per window.
    pub amount_max: u64,
    /// Window, milliseconds.
    pub window_ms: u64,
    /// Units that control has to grant.
    pub here: u64,
    /// Units that were granted.
    pub held: Vec<Holding>,
}

/// What a shard of a sidecar holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    /// The sidecar.
    pub node: String,
    /// Its shard.
    pub shard: u16,
    /// Units, or slots.
    pub units: u64,
}

/// `GET /v1/proxies/{node}/names`: what a sidecar found a name of endpoints to lead to
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Name {
    /// As configured.
    pub name: String,
    /// In the order of trying; none before the first answer.
    pub addresses: Vec<std::net::IpAddr>,
    /// What went wrong with the last lookup; empty if nothing did.
    pub trouble: String,
}

/// `GET /v1/certs`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Certificate {
    /// Whose.
    pub node: String,
    /// `workload` or `node`.
    pub purpose: String,
    /// Serial number, hex.
    pub serial: String,
    /// Identity it shows.
    pub identity: String,
    /// Issued at.
    pub issued_ms: u64,
    /// Valid until.
    pub not_after_ms: u64,
    /// Whether it is revoked.
    pub revoked: bool,
}

/// `GET /v1/roots`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Root {
    /// SHA-256 of the certificate (DER), hex: the third part of a join token.
    pub sha256: String,
    /// `announced`, `issuing`, `retiring` or `withdrawn`.
    pub stage: String,
    /// Since when; 0: from the beginning.
    pub since_ms: u64,
    /// Its own end.
    pub not_after_ms: u64,
}

/// `GET /v1/hosts`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Host {
    /// Address of the service.
    pub address: String,
    /// Its names.
    pub names: Vec<String>,
}

/// `GET /v1/status`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Status {
    /// Current revision.
    pub revision: u64,
    /// Trust domain.
    pub trust_domain: String,
    /// Sidecars connected.
    pub sessions: usize,
    /// Whether removal of endpoints is frozen.
    pub frozen: bool,
    /// Version of the software.
    pub version: String,
}

/// `GET /v1/audit/chain`; `GET /v1/audit` has the records alone.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AuditChain {
    /// Where the chain begins and ends; none where nothing was written since there are chains.
    pub chain: Option<Chain>,
    /// Oldest first.
    pub records: Vec<AuditRecord>,
}
