//! The configuration of one sidecar: a set of sections, each with a content hash.
//!
//! Sections refer to each other by name, so each can change alone; the sidecar's table builder
//! resolves the names and refuses (Nack) a snapshot in which one is missing. Control never sends
//! such a snapshot: an object with an unresolved reference is INACTIVE and not compiled.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_128;

use crate::SCHEMA_VERSION_MIN;
use crate::codec::{self, Validate};
use crate::error::WireError;
use crate::frame::{self, Kind};
use crate::ids::{NodeId, Revision};
use crate::limits::{SECTION_BYTES_MAX, SECTIONS_MAX};

mod mesh;
mod names;
mod policy;
mod quota;
mod route;
mod service;

pub use mesh::{Mesh, MtlsMode, OnQuotaUnavailable, OutboundMode, Trust};
pub use names::{NamedEndpoint, Names, Resolution};
pub use policy::{
    Applies, Authz, AuthzAction, AuthzRule, CheckRule, Condition, Denial, IpBlock, Operation,
    Pattern, Policy, Source,
};
pub use quota::{Limit, LimitOverride, QuotaRule, QuotaScope, lease_name};
pub use route::{
    Abort, AbortWith, Action, Delay, Destination, Fault, HeaderOps, HttpMatch, HttpRoute, Redirect,
    Retry, RetryOn, Rewrite, StringMatch, TcpRoute, VirtualHost,
};
pub use service::{
    Balance, Endpoint, EndpointPort, EndpointState, Endpoints, Limits, Outlier, Protocol, Service,
    ServicePort, Subset, TrafficPolicy, UpstreamTls,
};

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum SectionKind {
    /// [`Mesh`]; exactly one, with an empty name.
    Mesh,
    /// [`Trust`]; exactly one, with an empty name.
    Trust,
    /// [`Service`], by `name.namespace`.
    Service,
    /// [`Endpoints`] of the service of the same name.
    Endpoints,
    /// [`VirtualHost`], by the object's `name.namespace`.
    Routes,
    /// [`Policy`]; at most one, with an empty name.
    Policy,
    /// [`QuotaRule`], by its name.
    Quota,
    /// [`Names`] of the service of the same name. Since schema 2.
    Names,
}

impl SectionKind {
    /// First schema version that has it.
    #[must_use]
    pub fn since(self) -> u16 {
        match self {
            Self::Names => 2,
            _ => 1,
        }
    }
}

/// Names a section inside a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SectionKey {
    /// What it holds.
    pub kind: SectionKind,
    /// Which one.
    pub name: String,
}

/// xxh3-128 of a section's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SectionHash(pub u128);

/// A section as it travels: still encoded, so that equal ones are shared and never decoded twice.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Section {
    /// Its name.
    pub key: SectionKey,
    /// The encoded body.
    pub bytes: Vec<u8>,
}

/// A section's body, decoded.
#[derive(Debug, Clone, PartialEq)]
pub enum Body {
    /// Mesh-wide settings.
    Mesh(Mesh),
    /// Roots and revocations.
    Trust(Trust),
    /// A service.
    Service(Service),
    /// Its endpoints.
    Endpoints(Endpoints),
    /// Routing of some hosts.
    Routes(VirtualHost),
    /// Authorization and checks.
    Policy(Policy),
    /// A quota.
    Quota(QuotaRule),
    /// Endpoints of a service that are known by name.
    Names(Names),
}

impl Body {
    /// Encodes the body under `name` (see [`SectionKind`] for what the name is).
    ///
    /// # Errors
    /// [`WireError::TooLong`] over [`SECTION_BYTES_MAX`]; [`WireError::Invalid`] where the value
    /// breaks its own rules.
    pub fn seal(&self, name: impl Into<String>) -> Result<Section, WireError> {
        fn sealed<T: Serialize + Validate>(
            kind: SectionKind,
            body: &T,
        ) -> Result<(SectionKind, Vec<u8>), WireError> {
            body.validate()?;
            Ok((kind, codec::encode(body)?))
        }
        let (kind, bytes) = match self {
            Self::Mesh(body) => sealed(SectionKind::Mesh, body)?,
            Self::Trust(body) => sealed(SectionKind::Trust, body)?,
            Self::Service(body) => sealed(SectionKind::Service, body)?,
            Self::Endpoints(body) => sealed(SectionKind::Endpoints, body)?,
            Self::Routes(body) => sealed(SectionKind::Routes, body)?,
            Self::Policy(body) => sealed(SectionKind::Policy, body)?,
            Self::Quota(body) => sealed(SectionKind::Quota, body)?,
            Self::Names(body) => sealed(SectionKind::Names, body)?,
        };
        let section = Section {
            key: SectionKey {
                kind,
                name: name.into(),
            },
            bytes,
        };
        section.validate()?;
        Ok(section)
    }
}

impl Section {
    /// The content hash.
    #[must_use]
    pub fn hash(&self) -> SectionHash {
        SectionHash(xxh3_128(&self.bytes))
    }

    /// Decodes and validates the body.
    ///
    /// # Errors
    /// Any error of [`codec::decode`].
    pub fn open(&self) -> Result<Body, WireError> {
        Ok(match self.key.kind {
            SectionKind::Mesh => Body::Mesh(codec::decode(&self.bytes)?),
            SectionKind::Trust => Body::Trust(codec::decode(&self.bytes)?),
            SectionKind::Service => Body::Service(codec::decode(&self.bytes)?),
            SectionKind::Endpoints => Body::Endpoints(codec::decode(&self.bytes)?),
            SectionKind::Routes => Body::Routes(codec::decode(&self.bytes)?),
            SectionKind::Policy => Body::Policy(codec::decode(&self.bytes)?),
            SectionKind::Quota => Body::Quota(codec::decode(&self.bytes)?),
            SectionKind::Names => Body::Names(codec::decode(&self.bytes)?),
        })
    }
}

impl Validate for Section {
    fn validate(&self) -> Result<(), WireError> {
        if self.bytes.len() > SECTION_BYTES_MAX {
            return Err(WireError::TooLong {
                what: "section",
                got: self.bytes.len(),
                max: SECTION_BYTES_MAX,
            });
        }
        Ok(())
    }
}

/// All configuration of one sidecar at one revision. The same bytes serve as `snapshot.rmsh`
/// (`ringmesh compile`) and as the sidecar's last good configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Revision of the configuration.
    pub revision: Revision,
    /// The sidecar it was compiled for.
    pub node: NodeId,
    /// Sections, sorted by key.
    pub sections: Vec<Section>,
}

impl Snapshot {
    /// Puts a snapshot together, sorting its sections.
    ///
    /// # Errors
    /// [`WireError::Invalid`] where a key occurs twice or the mesh section is missing.
    pub fn new(
        revision: Revision,
        node: NodeId,
        mut sections: Vec<Section>,
    ) -> Result<Self, WireError> {
        sections.sort_by(|a, b| a.key.cmp(&b.key));
        let snapshot = Self {
            revision,
            node,
            sections,
        };
        snapshot.validate()?;
        Ok(snapshot)
    }

    /// Every section's key and hash, in order.
    #[must_use]
    pub fn order(&self) -> Vec<(SectionKey, SectionHash)> {
        self.sections
            .iter()
            .map(|s| (s.key.clone(), s.hash()))
            .collect()
    }

    /// The push that takes a sidecar holding `have` to this snapshot.
    #[must_use]
    pub fn push_for(&self, have: &BTreeMap<SectionKey, SectionHash>) -> super::Push {
        let order = self.order();
        let lacking = self.sections.iter().zip(&order);
        let sections = lacking
            .filter(|(_, (key, hash))| have.get(key) != Some(hash))
            .map(|(section, _)| section.clone())
            .collect();
        super::Push {
            revision: self.revision,
            order,
            sections,
        }
    }

    /// The snapshot that `push` makes of this one (or of nothing).
    ///
    /// # Errors
    /// [`WireError::Invalid`] where the push names a section that neither it nor `self` holds, or
    /// whose bytes do not have the hash it promises.
    pub fn with_push(
        held: Option<&Self>,
        node: &NodeId,
        push: &super::Push,
    ) -> Result<Self, WireError> {
        let old = held.map_or(&[][..], |s| &s.sections);
        let find = |key: &SectionKey| {
            push.sections.iter().find(|s| s.key == *key).or_else(|| {
                old.binary_search_by(|s| s.key.cmp(key))
                    .ok()
                    .and_then(|at| old.get(at))
            })
        };
        let mut sections = Vec::with_capacity(push.order.len());
        for (key, hash) in &push.order {
            match find(key) {
                Some(section) if section.hash() == *hash => sections.push(section.clone()),
                _ => {
                    return Err(WireError::Invalid(format!(
                        "push {}: section {key:?} is missing or has another hash",
                        push.revision
                    )));
                }
            }
        }
        Self::new(push.revision, node.clone(), sections)
    }

    /// The oldest schema version that can say it.
    #[must_use]
    pub fn schema(&self) -> u16 {
        schema_of(self.sections.iter().map(|section| &section.key))
    }

    /// What a reader of schema `version` can be told of it: sections of later versions are left out.
    #[must_use]
    pub fn for_version(&self, version: u16) -> Self {
        let mut known = self.clone();
        known
            .sections
            .retain(|section| section.key.kind.since() <= version);
        known
    }

    /// The file form: one frame, of the oldest schema version that can say it. A sidecar too old to
    /// serve all of it refuses the file as a whole.
    ///
    /// # Errors
    /// [`WireError::TooLong`] over the frame limit.
    pub fn to_file(&self) -> Result<Vec<u8>, WireError> {
        frame::seal_as(
            self.schema(),
            Kind::Snapshot,
            self.revision,
            &codec::encode(self)?,
        )
    }

    /// Reads the file form.
    ///
    /// # Errors
    /// Any [`WireError`].
    pub fn from_file(bytes: &[u8]) -> Result<Self, WireError> {
        let (header, payload) = frame::open(bytes)?;
        if header.kind != Kind::Snapshot {
            return Err(WireError::Kind {
                got: header.kind as u8,
            });
        }
        codec::decode(payload)
    }
}

/// The oldest schema version that has all these sections.
pub(super) fn schema_of<'k>(keys: impl Iterator<Item = &'k SectionKey>) -> u16 {
    keys.map(|key| key.kind.since())
        .max()
        .unwrap_or(SCHEMA_VERSION_MIN)
}

impl Validate for Snapshot {
    fn validate(&self) -> Result<(), WireError> {
        self.node.validate()?;
        if self.sections.len() > SECTIONS_MAX {
            return Err(WireError::TooLong {
                what: "section list",
                got: self.sections.len(),
                max: SECTIONS_MAX,
            });
        }
        if !self.sections.is_sorted_by(|a, b| a.key < b.key) {
            return Err(WireError::Invalid(
                "snapshot: keys are not sorted and unique".into(),
            ));
        }
        if self
            .sections
            .first()
            .is_none_or(|s| s.key.kind != SectionKind::Mesh)
        {
            return Err(WireError::Invalid(
                "snapshot: the mesh section is missing".into(),
            ));
        }
        self.sections.iter().try_for_each(Validate::validate)
    }
}
