//! Authorization policies, check rules and quotas, partitioned by where they act.

use std::net::IpAddr;
use std::sync::Arc;

use ringmesh_wire::snapshot::QuotaRule;

use super::index::{QuotaIndex, ServiceIndex};
use super::program::{Program, Stays};

/// Where a call is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Site {
    /// A call to the local workload.
    Inbound,
    /// A call of the local app to a service without sidecars.
    Outbound(ServiceIndex),
}

impl Site {
    /// A small number, different for each.
    #[must_use]
    pub fn number(self) -> usize {
        match self {
            Self::Inbound => 0,
            Self::Outbound(service) => service.at() + 1,
        }
    }
}

/// A string pattern of AuthorizationPolicy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Glob {
    /// Equal.
    Exact(Box<str>),
    /// `abc*`
    Prefix(Box<str>),
    /// `*abc`
    Suffix(Box<str>),
    /// `*`: there and not empty.
    Present,
}

impl Glob {
    /// Whether `text` matches.
    #[must_use]
    #[inline]
    pub fn is_match(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => wanted.as_bytes() == text,
            Self::Prefix(wanted) => text.starts_with(wanted.as_bytes()),
            Self::Suffix(wanted) => text.ends_with(wanted.as_bytes()),
            Self::Present => !text.is_empty(),
        }
    }

    /// The same, ignoring ASCII case.
    #[must_use]
    #[inline]
    pub fn is_match_folded(&self, text: &[u8]) -> bool {
        match self {
            Self::Exact(wanted) => wanted.as_bytes().eq_ignore_ascii_case(text),
            Self::Prefix(wanted) => text
                .get(..wanted.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(wanted.as_bytes())),
            Self::Suffix(wanted) => text
                .len()
                .checked_sub(wanted.len())
                .and_then(|from| text.get(from..))
                .is_some_and(|end| end.eq_ignore_ascii_case(wanted.as_bytes())),
            Self::Present => !text.is_empty(),
        }
    }
}

/// An address block as masked bits; v4 blocks hold v4-mapped addresses too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    v6: bool,
    bits: u128,
    mask: u128,
}

impl Address {
    /// A block.
    #[must_use]
    pub fn block(address: IpAddr, prefix_bits: u8) -> Self {
        // 10.0.0.0/8 written as ::ffff:10.0.0.0/104 is the same block.
        let (address, prefix_bits) = match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(v4)) if prefix_bits >= 96 => (v4.into(), prefix_bits - 96),
            _ => (address, prefix_bits),
        };
        let (v6, bits, width) = Self::parts(address);
        let shift = width.saturating_sub(u32::from(prefix_bits));
        let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
        Self {
            v6,
            bits: bits & mask,
            mask,
        }
    }

    /// Whether `address` (canonical) lies in the block.
    #[must_use]
    #[inline]
    pub fn contains(&self, address: IpAddr) -> bool {
        let (v6, bits, _) = Self::parts(address);
        v6 == self.v6 && bits & self.mask == self.bits
    }

    #[inline]
    fn parts(address: IpAddr) -> (bool, u128, u32) {
        match address {
            IpAddr::V4(v4) => (false, u128::from(v4.to_bits()), 32),
            IpAddr::V6(v6) => (true, v6.to_bits(), 128),
        }
    }
}

/// Who calls.
#[derive(Debug, Clone, Default)]
pub struct Source {
    /// Principals without `spiffe://`.
    pub principals: Box<[Glob]>,
    /// Not these.
    pub not_principals: Box<[Glob]>,
    /// Namespaces.
    pub namespaces: Box<[Glob]>,
    /// Not these.
    pub not_namespaces: Box<[Glob]>,
    /// Addresses.
    pub addresses: Box<[Address]>,
    /// Not these.
    pub not_addresses: Box<[Address]>,
}

/// What is called.
#[derive(Debug, Clone, Default)]
pub struct Operation {
    /// Hosts, lower case.
    pub hosts: Box<[Glob]>,
    /// Not these.
    pub not_hosts: Box<[Glob]>,
    /// Workload ports.
    pub ports: Box<[u16]>,
    /// Not these.
    pub not_ports: Box<[u16]>,
    /// Methods.
    pub methods: Box<[Glob]>,
    /// Not these.
    pub not_methods: Box<[Glob]>,
    /// Paths.
    pub paths: Box<[Glob]>,
    /// Not these.
    pub not_paths: Box<[Glob]>,
}

impl Operation {
    /// Whether it names anything that only a request has.
    #[must_use]
    pub fn needs_request(&self) -> bool {
        [
            &self.hosts,
            &self.not_hosts,
            &self.methods,
            &self.not_methods,
            &self.paths,
            &self.not_paths,
        ]
        .iter()
        .any(|list| !list.is_empty())
    }
}

/// What a condition looks at.
#[derive(Debug, Clone)]
pub enum ConditionTest {
    /// `request.headers[NAME]`, lower case.
    Header(Box<str>, Box<[Glob]>, Box<[Glob]>),
    /// `source.namespace`
    Namespace(Box<[Glob]>, Box<[Glob]>),
    /// `source.principal`
    Principal(Box<[Glob]>, Box<[Glob]>),
    /// `source.ip`
    SourceIp(Box<[Address]>, Box<[Address]>),
    /// `destination.port`
    Port(Box<[u16]>, Box<[u16]>),
}

/// A `when` condition: one of the values, none of the not-values.
#[derive(Debug, Clone)]
pub struct Condition(pub ConditionTest);

/// One rule: from AND to AND when; an empty list is no condition.
#[derive(Debug, Clone, Default)]
pub struct Rule {
    /// Any of these.
    pub from: Box<[Source]>,
    /// Any of these.
    pub to: Box<[Operation]>,
    /// All of these.
    pub when: Box<[Condition]>,
}

/// An AuthorizationPolicy.
#[derive(Debug)]
pub struct AuthzRow {
    /// `NAME.NAMESPACE`.
    pub name: Box<str>,
    /// Any of these; empty never matches.
    pub rules: Box<[Rule]>,
}

/// A Mixer rule with a denier.
#[derive(Debug)]
pub struct CheckRow {
    /// `NAME.NAMESPACE` of the rule.
    pub name: Box<str>,
    /// Condition.
    pub when: Option<Program>,
    /// gRPC status of the refusal.
    pub grpc_status: u8,
    /// HTTP status of the refusal.
    pub status: u16,
    /// Body of the refusal: `PERMISSION_DENIED:handler.namespace:message`.
    pub body: Box<str>,
}

/// A quota.
#[derive(Debug)]
pub struct QuotaRow {
    /// The rule as it came: name, limits, scope.
    pub rule: QuotaRule,
    /// Condition.
    pub when: Option<Program>,
    /// Dimension name and expression, sorted by name.
    pub dimensions: Box<[(Box<str>, Program)]>,
    /// Rules with equal dimensions have equal numbers here, counted from 0 in order of first use:
    /// values worked out for one serve the others.
    pub dimension_set: u32,
    /// For how long condition and dimensions stay what they are.
    pub stays: Stays,
    /// Body of the refusal: `RESOURCE_EXHAUSTED:Quota is exhausted for: NAME`.
    pub body: Box<str>,
}

/// All policies of one site, in the order they are asked. Rows are shared between the sites of a
/// namespace-wide policy.
#[derive(Debug, Default)]
pub struct PolicyRows {
    /// DENY policies.
    pub deny: Vec<Arc<AuthzRow>>,
    /// ALLOW policies.
    pub allow: Vec<Arc<AuthzRow>>,
    /// AUDIT policies.
    pub audit: Vec<Arc<AuthzRow>>,
    /// Check rules.
    pub checks: Vec<Arc<CheckRow>>,
    /// Quotas, as indices into [`super::Tables::quotas`].
    pub quotas: Vec<QuotaIndex>,
}

impl PolicyRows {
    pub(super) fn is_empty(&self) -> bool {
        self.deny.is_empty()
            && self.allow.is_empty()
            && self.audit.is_empty()
            && self.checks.is_empty()
            && self.quotas.is_empty()
    }
}
