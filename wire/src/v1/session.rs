//! The session stream: hello, configuration pushes, their acknowledgement, registration.
//!
//! ```text
//! sidecar                         control
//!   Hello (what I have)   ------>
//!                         <------  Welcome | Reject
//!   Registration          ------>
//!                         <------  Push (only the sections that differ)
//!   Ack | Nack            ------>
//!   AppHealth             ------>
//!   Resolved              ------>   (schema 2)
//! ```
//! Every `Push` gets exactly one `Ack` or `Nack`, in order, carrying its revision.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::snapshot::{Protocol, Section, SectionHash, SectionKey};
use crate::codec::Validate;
use crate::error::WireError;
use crate::ids::{NodeId, Revision, ServiceId, check_name};
use crate::limits::{
    BUILD_BYTES_MAX, HEALTH_DETAIL_BYTES_MAX, NAME_BYTES_MAX, REGISTERED_PORTS_MAX,
    RESOLVED_ADDRESSES_MAX, RESOLVED_NAMES_MAX, SECTIONS_MAX,
};

/// A sidecar introduces itself and says which sections it already holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Oldest schema version the sidecar reads.
    pub version_min: u16,
    /// Newest schema version the sidecar reads.
    pub version_max: u16,
    /// Its name. Must be the one in its certificate.
    pub node: NodeId,
    /// Random per process start; tells a restart from a reconnect.
    pub boot: u64,
    /// Software version, for people; [`BUILD_BYTES_MAX`] at most.
    pub build: String,
    /// Revision in force, 0 for none.
    pub revision: Revision,
    /// Sections it holds: equal ones are not sent again. Only kinds of schema 1, so that an older control can
    /// read it; what is left out is sent once more.
    pub have: Vec<(SectionKey, SectionHash)>,
}

/// Control accepts the session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// Schema version both sides use from here on.
    pub version: u16,
    /// Random per control start.
    pub boot: u64,
    /// A registration is withdrawn this long after the link went silent, milliseconds.
    pub lease_ms: u32,
}

/// Control refuses; the stream ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// Stable reason code, e.g. `version_mismatch`, `token_used`, `node_mismatch`.
    pub code: String,
    /// What to do about it, for people.
    pub message: String,
}

/// One whole configuration, atomically: the list of all its sections, and the bodies the sidecar
/// said it lacks. A key missing from `order` is removed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Push {
    /// The revision this push brings.
    pub revision: Revision,
    /// Every section of the revision, sorted by key.
    pub order: Vec<(SectionKey, SectionHash)>,
    /// Bodies of those that the sidecar does not hold.
    pub sections: Vec<Section>,
}

/// The revision is in force on every shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Which.
    pub revision: Revision,
}

/// The revision is refused; the previous one stays in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Nack {
    /// Which.
    pub revision: Revision,
    /// Why, for the person who applied it.
    pub reason: String,
}

/// A port the workload serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredPort {
    /// Name, e.g. `http`.
    pub name: String,
    /// Port of the service.
    pub port: u16,
    /// Port the app itself listens on.
    pub app_port: u16,
    /// Protocol, by declaration.
    pub protocol: Protocol,
    /// Whether the app answered the sidecar's check just now.
    pub healthy: bool,
}

/// Where this workload can be reached. Service, account and labels must be those signed into the
/// certificate; control refuses a registration that says otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Service the workload belongs to.
    pub service: ServiceId,
    /// Service account it runs as.
    pub service_account: String,
    /// Labels: what subsets select on.
    pub labels: BTreeMap<String, String>,
    /// Address others reach the sidecar and the app at.
    pub address: IpAddr,
    /// Mutual-TLS port of the sidecar.
    pub mesh_port: u16,
    /// The ports served.
    pub ports: Vec<RegisteredPort>,
    /// Region, empty if unknown.
    pub region: String,
    /// Zone, empty if unknown.
    pub zone: String,
}

/// Health of one registered port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortHealth {
    /// Service port.
    pub port: u16,
    /// Whether the app answers.
    pub healthy: bool,
    /// What the check saw, for people; [`HEALTH_DETAIL_BYTES_MAX`] at most.
    pub detail: String,
}

/// The local app went up or down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppHealth {
    /// State of every registered port.
    pub ports: Vec<PortHealth>,
}

/// What one name of endpoints leads to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResolvedName {
    /// As the section [`super::snapshot::Names`] has it.
    pub name: String,
    /// In the order of trying; none before the first answer.
    pub addresses: Vec<IpAddr>,
    /// Code of what went wrong with the last lookup, e.g. `timeout`; empty if nothing did.
    pub trouble: String,
}

/// What all names of endpoints lead to, as the sidecar found; replaces what it said before. For
/// people: nothing in the mesh is decided by it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// Sorted by name.
    pub names: Vec<ResolvedName>,
}

impl Validate for Hello {
    fn validate(&self) -> Result<(), WireError> {
        self.node.validate()?;
        if self.version_min > self.version_max {
            return Err(WireError::Invalid("hello: version range is empty".into()));
        }
        over("build", self.build.len(), BUILD_BYTES_MAX)?;
        check_sections(self.have.len())
    }
}

impl Hello {
    /// The schema version both sides read, newest first; `None` if the ranges do not meet.
    #[must_use]
    pub fn negotiate(&self, min: u16, max: u16) -> Option<u16> {
        let version = self.version_max.min(max);
        (version >= self.version_min && version >= min).then_some(version)
    }
}

impl Push {
    /// The oldest schema version that can say it.
    #[must_use]
    pub fn schema(&self) -> u16 {
        super::snapshot::schema_of(self.order.iter().map(|(key, _)| key))
    }
}

impl Validate for Push {
    fn validate(&self) -> Result<(), WireError> {
        check_sections(self.order.len())?;
        check_sections(self.sections.len())?;
        if !self.order.is_sorted_by(|a, b| a.0 < b.0) {
            return Err(WireError::Invalid(
                "push: section keys are not sorted and unique".into(),
            ));
        }
        self.sections.iter().try_for_each(Validate::validate)
    }
}

impl Validate for Registration {
    fn validate(&self) -> Result<(), WireError> {
        self.service.validate()?;
        check_name("service account", &self.service_account)?;
        if self.ports.is_empty() {
            return Err(WireError::Invalid("registration: no ports".into()));
        }
        // What a node says of itself is in everybody's configuration.
        over("ports", self.ports.len(), REGISTERED_PORTS_MAX)?;
        over("region", self.region.len(), NAME_BYTES_MAX)?;
        over("zone", self.zone.len(), NAME_BYTES_MAX)?;
        let mut ports = self.ports.iter();
        ports.try_for_each(|port| over("port name", port.name.len(), NAME_BYTES_MAX))
    }
}

impl Validate for AppHealth {
    fn validate(&self) -> Result<(), WireError> {
        over("ports", self.ports.len(), REGISTERED_PORTS_MAX)?;
        let mut ports = self.ports.iter();
        ports.try_for_each(|port| over("detail", port.detail.len(), HEALTH_DETAIL_BYTES_MAX))
    }
}

fn over(what: &'static str, got: usize, max: usize) -> Result<(), WireError> {
    match got > max {
        true => Err(WireError::TooLong { what, got, max }),
        false => Ok(()),
    }
}

impl Validate for Resolved {
    fn validate(&self) -> Result<(), WireError> {
        over("resolved names", self.names.len(), RESOLVED_NAMES_MAX)?;
        self.names.iter().try_for_each(|one| {
            over("resolved name", one.name.len(), NAME_BYTES_MAX)?;
            over("trouble of a name", one.trouble.len(), NAME_BYTES_MAX)?;
            over(
                "addresses of a name",
                one.addresses.len(),
                RESOLVED_ADDRESSES_MAX,
            )
        })
    }
}

fn check_sections(got: usize) -> Result<(), WireError> {
    if got > SECTIONS_MAX {
        return Err(WireError::TooLong {
            what: "section list",
            got,
            max: SECTIONS_MAX,
        });
    }
    Ok(())
}

macro_rules! nothing_to_check {
    ($($message:ty),*) => {$(
        impl Validate for $message {
            fn validate(&self) -> Result<(), WireError> { Ok(()) }
        }
    )*};
}
nothing_to_check!(Welcome, Reject, Ack, Nack);
