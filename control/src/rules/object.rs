//! An object as a user wrote it: what it is called, where it stands, what it says.

use std::fmt;
use std::sync::Arc;

use super::mixer::{Denier, MemQuota, QuotaInstance, QuotaSpec, QuotaSpecBinding, Rule};
use super::place::Place;
use super::security::{AuthorizationPolicy, PeerAuthentication};
use super::service_entry::ServiceEntry;
use super::settings::MeshSettings;
use super::traffic::{DestinationRule, VirtualService};

/// Kind of an object, in the order in which lists show them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `ringmesh.io/v1 MeshSettings`
    MeshSettings,
    /// `networking.istio.io VirtualService`
    VirtualService,
    /// `networking.istio.io DestinationRule`
    DestinationRule,
    /// `networking.istio.io ServiceEntry`
    ServiceEntry,
    /// `security.istio.io AuthorizationPolicy`
    AuthorizationPolicy,
    /// `security.istio.io PeerAuthentication`
    PeerAuthentication,
    /// `config.istio.io/v1alpha2 rule`
    Rule,
    /// `config.istio.io/v1alpha2 handler`
    Handler,
    /// `config.istio.io/v1alpha2 memquota`
    MemQuota,
    /// `config.istio.io/v1alpha2 denier`
    Denier,
    /// `config.istio.io/v1alpha2 instance`
    Instance,
    /// `config.istio.io/v1alpha2 quota`
    Quota,
    /// `config.istio.io/v1alpha2 checknothing`
    CheckNothing,
    /// `config.istio.io/v1alpha2 QuotaSpec`
    QuotaSpec,
    /// `config.istio.io/v1alpha2 QuotaSpecBinding`
    QuotaSpecBinding,
}

/// API groups, their versions and their kinds.
const GROUPS: &[(&str, &[&str], &[Kind])] = &[
    (
        "networking.istio.io",
        &["v1alpha3", "v1beta1", "v1"],
        &[
            Kind::VirtualService,
            Kind::DestinationRule,
            Kind::ServiceEntry,
        ],
    ),
    (
        "security.istio.io",
        &["v1beta1", "v1"],
        &[Kind::AuthorizationPolicy, Kind::PeerAuthentication],
    ),
    (
        "config.istio.io",
        &["v1alpha2"],
        &[
            Kind::Rule,
            Kind::Handler,
            Kind::MemQuota,
            Kind::Denier,
            Kind::Instance,
            Kind::Quota,
            Kind::CheckNothing,
            Kind::QuotaSpec,
            Kind::QuotaSpecBinding,
        ],
    ),
    ("ringmesh.io", &["v1"], &[Kind::MeshSettings]),
];

impl Kind {
    /// Every kind.
    pub const ALL: [Self; 15] = [
        Self::MeshSettings,
        Self::VirtualService,
        Self::DestinationRule,
        Self::ServiceEntry,
        Self::AuthorizationPolicy,
        Self::PeerAuthentication,
        Self::Rule,
        Self::Handler,
        Self::MemQuota,
        Self::Denier,
        Self::Instance,
        Self::Quota,
        Self::CheckNothing,
        Self::QuotaSpec,
        Self::QuotaSpecBinding,
    ];

    /// The name as it is written in YAML.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MeshSettings => "MeshSettings",
            Self::VirtualService => "VirtualService",
            Self::DestinationRule => "DestinationRule",
            Self::ServiceEntry => "ServiceEntry",
            Self::AuthorizationPolicy => "AuthorizationPolicy",
            Self::PeerAuthentication => "PeerAuthentication",
            Self::Rule => "rule",
            Self::Handler => "handler",
            Self::MemQuota => "memquota",
            Self::Denier => "denier",
            Self::Instance => "instance",
            Self::Quota => "quota",
            Self::CheckNothing => "checknothing",
            Self::QuotaSpec => "QuotaSpec",
            Self::QuotaSpecBinding => "QuotaSpecBinding",
        }
    }

    /// The kind a person means on a command line: any case, plural `s` allowed.
    #[must_use]
    pub fn by_name(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| {
            let name = kind.name();
            text.eq_ignore_ascii_case(name)
                || text
                    .strip_suffix('s')
                    .is_some_and(|one| one.eq_ignore_ascii_case(name))
        })
    }

    /// The API group.
    #[must_use]
    pub fn group(self) -> &'static str {
        GROUPS
            .iter()
            .find(|(_, _, kinds)| kinds.contains(&self))
            .map_or("", |(group, _, _)| group)
    }

    /// The versions of an API group, newest last; `None` for an unknown group.
    pub(super) fn versions_of(group: &str) -> Option<&'static [&'static str]> {
        GROUPS
            .iter()
            .find(|(name, _, _)| *name == group)
            .map(|(_, versions, _)| *versions)
    }

    /// The kinds of an API group.
    pub(super) fn kinds_of(group: &str) -> &'static [Self] {
        GROUPS
            .iter()
            .find(|(name, _, _)| *name == group)
            .map_or(&[], |(_, _, kinds)| kinds)
    }

    /// All API groups.
    pub(super) fn groups() -> impl Iterator<Item = &'static str> {
        GROUPS.iter().map(|(group, _, _)| *group)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Names an object.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// `NAME.NAMESPACE`.
    #[must_use]
    pub fn full_name(&self) -> String {
        format!("{}.{}", self.name, self.namespace)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}.{}", self.kind, self.name, self.namespace)
    }
}

/// One object. Two are equal when they say the same, wherever they were written.
#[derive(Debug, Clone)]
pub struct Object {
    /// Its name.
    pub key: ObjectKey,
    /// File it was written in, as the user named it.
    pub file: Arc<str>,
    /// Line of the file on which `text` begins, from 1.
    pub first_line: u32,
    /// The document, byte for byte. [`super::parse_document`] with the two fields above gives
    /// this object again; that is how it is stored.
    pub text: Arc<str>,
    /// What it says.
    pub spec: Spec,
}

impl Object {
    /// `FILE:PLACE` for messages.
    #[must_use]
    pub fn at(&self, place: &Place) -> String {
        format!("{}:{place}", self.file)
    }
}

/// What an object says.
#[derive(Debug, Clone)]
pub enum Spec {
    /// Settings of the mesh.
    MeshSettings(MeshSettings),
    /// Routing.
    VirtualService(VirtualService),
    /// Subsets and traffic policy.
    DestinationRule(DestinationRule),
    /// Services without sidecars.
    ServiceEntry(ServiceEntry),
    /// Who may call.
    AuthorizationPolicy(AuthorizationPolicy),
    /// Mutual TLS of workloads.
    PeerAuthentication(PeerAuthentication),
    /// Mixer: which instances go to which handler, and when.
    Rule(Rule),
    /// Mixer handler: limits (`memquota`, or `handler` with that adapter).
    MemQuota(MemQuota),
    /// Mixer handler: refusal (`denier`, or `handler` with that adapter).
    Denier(Denier),
    /// Mixer instance: dimensions (`quota`, or `instance` with that template).
    Quota(QuotaInstance),
    /// Mixer instance without content (`checknothing`, or `instance` with that template).
    CheckNothing,
    /// What a request is charged.
    QuotaSpec(QuotaSpec),
    /// Which services charge.
    QuotaSpecBinding(QuotaSpecBinding),
}
