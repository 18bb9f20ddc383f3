//! `sidecar.yaml`, strictly (docs/sidecar-yaml.md).
//!
//! Owns the file's shape, its defaults and the words of every complaint about it. Touches nothing
//! but the text it is given ([`Settings::parse`]) or the file it is named ([`Settings::load`]): it
//! opens no port and resolves no name. An unknown key is a mistake, never ignored.

mod read;
#[cfg(test)]
mod tests;
mod tree;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use ringmesh_tuning::placement::Shards;
use ringmesh_wire::snapshot::Protocol;
use ringmesh_wire::{NodeId, ServiceId};
use serde_saphyr::Location;

/// Everything `sidecar.yaml` says, with its defaults filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Unique in the mesh.
    pub node: NodeId,
    /// The service this sidecar stands beside.
    pub service: ServiceId,
    /// Account the workload runs as; default: the service's name.
    pub service_account: String,
    /// Address others reach it at; `None`: the local address of the control link.
    pub advertise: Option<IpAddr>,
    /// Where it stands.
    pub locality: Locality,
    /// What subsets select on.
    pub labels: BTreeMap<String, String>,
    /// What the app serves. May be empty for a sidecar that only calls.
    pub ports: Vec<AppPort>,
    /// Where to listen.
    pub listeners: Listeners,
    /// The control service; `None` is standalone.
    pub control: Option<Control>,
    /// How many shards.
    pub shards: Shards,
    /// Last good configuration, keys and certificates; made with mode 0700 where missing.
    pub state_dir: PathBuf,
    /// How names of endpoints are resolved.
    pub dns: Dns,
    /// Access log; `None` is off.
    pub access_log: Option<AccessLog>,
    /// Bytes a shard keeps beside its pools at most. Default 64 MiB.
    pub kept_memory: usize,
    /// Sends of so many bytes or more are tried without a copy, 4 KiB to [`ZERO_COPY_MIN_BYTES_MAX`]. Default: none.
    pub zero_copy_min_bytes: Option<u32>,
    /// Longest time in which no byte moves inside an HTTP exchange, from 1 s on. Default 5 min.
    pub idle_timeout: Duration,
    /// The same on an opaque connection. Default 1 h.
    pub tcp_idle_timeout: Duration,
    /// Longest time open exchanges get to finish after TERM. Default 10 s.
    pub drain_timeout: Duration,
}

/// The largest `zero_copy_min`: no send carries more.
pub const ZERO_COPY_MIN_BYTES_MAX: u32 = 512 * 1024;

/// Name servers asked, as in resolv.conf(5).
pub const NAME_SERVERS_MAX: usize = 3;

/// How names of endpoints are resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// Who is asked, in this order; at most 3. Empty: those of `/etc/resolv.conf`.
    pub servers: Vec<SocketAddr>,
    /// A name is asked for no more often. Default 5 s.
    pub refresh_min: Duration,
    /// A name is asked for no less often. Default 5 min.
    pub refresh_max: Duration,
}

impl Default for Dns {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            refresh_min: Duration::from_secs(5),
            refresh_max: Duration::from_secs(300),
        }
    }
}

/// Region and zone; empty if unknown.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Locality {
    /// Region.
    pub region: String,
    /// Zone.
    pub zone: String,
}

/// A port the app serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppPort {
    /// Name, e.g. `http`.
    pub name: String,
    /// Port of the service, as clients call it.
    pub port: u16,
    /// Where the app listens.
    pub app: SocketAddr,
    /// By `protocol:`, else by the name.
    pub protocol: Protocol,
    /// How the app's health is asked.
    pub check: AppCheck,
}

/// How to ask whether the app lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppCheck {
    /// It accepts a connection.
    Tcp,
    /// `GET` of this path answers 2xx or 3xx.
    Http {
        /// Begins with `/`.
        path: String,
    },
    /// gRPC health v1 says SERVING.
    Grpc {
        /// Which service; empty: the server as a whole.
        service: String,
    },
    /// Always healthy.
    None,
}

/// How arriving connections get to the inbound listener (Istio's interception mode).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum InboundMode {
    /// REDIRECT, or not captured at all: the app sees the sidecar as its client.
    #[default]
    Redirect,
    /// TPROXY: the app sees the client's own address.
    Tproxy,
}

/// Where to listen; `None` where the file says `none`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listeners {
    /// Calls of the local app. Default 127.0.0.1:15001.
    pub outbound: Option<SocketAddr>,
    /// Captured calls for the local app. Default 0.0.0.0:15006.
    pub inbound: Option<SocketAddr>,
    /// How they are captured. Default: redirected.
    pub inbound_mode: InboundMode,
    /// Mutual TLS from other sidecars. Default 0.0.0.0:15008.
    pub mesh: Option<SocketAddr>,
    /// Reads of the sidecar's state; loopback only. Default 127.0.0.1:15000.
    pub admin: Option<SocketAddr>,
}

/// The control service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Host name or address.
    pub host: String,
    /// UDP port.
    pub port: u16,
    /// Join token, needed for the first contact only.
    pub token_file: Option<PathBuf>,
    /// Line and column of `token_file`, or of `control` where there is none.
    pub token_place: (u64, u64),
}

/// The access log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// File it is appended to; `None`: no file.
    pub path: Option<PathBuf>,
    /// Whether records are sent to control too.
    pub forward: bool,
}

/// Something wrong in the file: where, what, and what would be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Line, from 1; 0 where no place can be named.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
    /// Path of the field, e.g. `ports[0].app`.
    pub field: String,
    /// What is wrong.
    pub wrong: String,
    /// What would be right.
    pub right: String,
}

impl Mistake {
    fn new(
        at: Location,
        field: impl Into<String>,
        wrong: impl Into<String>,
        right: impl Into<String>,
    ) -> Self {
        Self {
            line: at.line(),
            column: at.column(),
            field: field.into(),
            wrong: wrong.into(),
            right: right.into(),
        }
    }
}

/// Why the settings cannot be had. All of it is wrong input: exit status 2.
#[derive(Debug)]
#[non_exhaustive]
pub enum SettingsError {
    /// The file cannot be read.
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It says something wrong.
    Mistake {
        /// Which file.
        file: PathBuf,
        /// What.
        mistake: Mistake,
    },
}

impl fmt::Display for SettingsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreadable { file, source } => {
                write!(f, "{}: cannot be read: {source}", file.display())
            }
            Self::Mistake { file, mistake } => {
                let Mistake {
                    line,
                    column,
                    field,
                    wrong,
                    right,
                } = mistake;
                let file = file.display();
                write!(f, "{file}:{line}:{column}: {field}: {wrong}; {right}")
            }
        }
    }
}

impl std::error::Error for SettingsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unreadable { source, .. } => Some(source),
            Self::Mistake { .. } => None,
        }
    }
}

impl Settings {
    /// Reads the file.
    ///
    /// # Errors
    /// [`SettingsError`], which says where and what would be right.
    pub fn load(file: &Path) -> Result<Self, SettingsError> {
        let text = std::fs::read_to_string(file).map_err(|source| SettingsError::Unreadable {
            file: file.to_owned(),
            source,
        })?;
        let mut settings = Self::parse(&text).map_err(|mistake| SettingsError::Mistake {
            file: file.to_owned(),
            mistake,
        })?;
        settings.resolve(file.parent().unwrap_or(Path::new("")));
        Ok(settings)
    }

    /// The command that makes a token for this workload, to the letter.
    #[must_use]
    pub fn token_command(&self) -> String {
        let ServiceId { namespace, name } = &self.service;
        let mut command = format!(
            "ringmesh token create --node {} --service {name}",
            self.node
        );
        if namespace != "default" {
            command.push_str(&format!(" --namespace {namespace}"));
        }
        if self.service_account != *name {
            command.push_str(&format!(" --service-account {}", self.service_account));
        }
        for (key, value) in &self.labels {
            command.push_str(&format!(" --label {key}={value}"));
        }
        command
    }

    /// Paths in the file are relative to the file, not to where the sidecar was started.
    fn resolve(&mut self, base: &Path) {
        // `join` keeps an absolute path as it is.
        self.state_dir = base.join(&self.state_dir);
        if let Some(path) = self.access_log.as_mut().and_then(|log| log.path.as_mut()) {
            *path = base.join(&*path);
        }
        if let Some(path) = self.control.as_mut().and_then(|c| c.token_file.as_mut()) {
            *path = base.join(&*path);
        }
    }

    /// Reads the text of the file.
    ///
    /// # Errors
    /// The first [`Mistake`] found, in the order of the fields.
    pub fn parse(text: &str) -> Result<Self, Mistake> {
        read::settings(text)
    }
}
