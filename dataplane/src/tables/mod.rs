//! A snapshot, opened and indexed: what the deciding rooms read.
//!
//! [`Tables::build`] resolves every name to a dense index, compiles every pattern and merges
//! nothing that control has not merged. It runs on the agent's thread, so a snapshot that does not
//! hold together is refused (Nack) before any shard sees it.
//!
//! Invariants: tables never change after they are built; they are `Send + Sync`; no lookup
//! allocates; an index taken from one [`Tables`] means nothing in another (state that outlives a
//! swap is carried over by name, see `balance`). Maps that peers choose the keys of are hashed with
//! a seed drawn at start.

mod answers;
mod build;
mod error;
mod hosts;
mod index;
mod policy_rows;
mod program;
mod resolve;
mod route_rows;
mod seeded;
mod service_rows;
#[cfg(any(test, feature = "fuzzing"))]
#[cfg_attr(
    not(test),
    expect(dead_code, reason = "the fuzz door uses a part of it")
)]
#[expect(
    clippy::unwrap_used,
    reason = "a fixture of tests fails where it cannot go on"
)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod text;
mod workload;

use std::collections::HashMap;
use std::net::SocketAddr;

use ringmesh_wire::snapshot::{Mesh, Trust};
use ringmesh_wire::{NodeId, Revision, ServiceId, Snapshot, SpiffeId};

pub use answers::{Addresses, Answers};
pub(crate) use build::of_grpc;
pub use error::TablesError;
pub use index::{ClusterIndex, QuotaIndex, RouteIndex, ServiceIndex, VirtualHostIndex};
pub use policy_rows::{
    Address, AuthzRow, CheckRow, Condition, ConditionTest, Glob, Operation, PolicyRows, QuotaRow,
    Rule, Site, Source,
};
pub use program::{Attribute, MapAttribute, Op, Program, Stays};
pub use resolve::{Destined, Target, TcpTarget, Tunnel};
pub use route_rows::{
    ActionRow, ClusterChoice, DestinationRow, MatchRow, RouteRow, TcpRouteRow, Text, VirtualHostRow,
};
pub use seeded::{Seeded, SeededMap};
pub use service_rows::{ClusterKey, ClusterRow, EndpointRow, Link, ServiceRow};
pub use text::{lowered, normal_ip};
pub use workload::{Workload, WorkloadPort};

use crate::view::PeerIdentity;
use hosts::HostIndex;
use resolve::AddressEntry;

/// Tells the tables of one build from those of every other in this process. A revision does not:
/// a standalone sidecar may load the same one twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(u64);

impl Generation {
    /// As a number: no two builds of this process have the same.
    #[must_use]
    pub fn number(self) -> u64 {
        self.0
    }
}

/// All configuration of one sidecar, indexed.
#[derive(Debug)]
pub struct Tables {
    /// Revision it was built from.
    pub revision: Revision,
    /// The sidecar it is for.
    pub node: NodeId,
    /// Mesh-wide settings.
    pub mesh: Mesh,
    /// Roots and revocations.
    pub trust: Trust,
    /// The local workload, as `sidecar.yaml` says it.
    pub workload: Workload,
    own: PeerIdentity,
    generation: Generation,
    services: Box<[ServiceRow]>,
    clusters: Box<[ClusterRow]>,
    virtual_hosts: Box<[VirtualHostRow]>,
    routes: Box<[RouteRow]>,
    quotas: Box<[QuotaRow]>,
    inbound_policy: PolicyRows,
    /// Policies of calls to services without sidecars, by service; most have none.
    /// By service: asked for every request.
    outbound_policy: Box<[Option<Box<PolicyRows>>]>,
    hosts: HostIndex,
    addresses: SeededMap<SocketAddr, AddressEntry>,
    services_by_id: HashMap<ServiceId, ServiceIndex>,
    clusters_by_key: HashMap<ClusterKey, ClusterIndex>,
}

impl Tables {
    /// Opens and indexes a snapshot for the workload this sidecar stands beside.
    ///
    /// # Errors
    /// [`TablesError`], naming the section and the reference, pattern or value that is wrong.
    pub fn build(snapshot: &Snapshot, workload: &Workload) -> Result<Self, TablesError> {
        Self::build_with(snapshot, workload, &Answers::default())
    }

    /// [`Self::build`], with what names lead to now.
    ///
    /// # Errors
    /// As [`Self::build`]; a name without an answer is none.
    pub fn build_with(
        snapshot: &Snapshot,
        workload: &Workload,
        answers: &Answers,
    ) -> Result<Self, TablesError> {
        build::build(snapshot, workload, answers)
    }

    /// Which build these are.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// A service.
    #[must_use]
    pub fn service(&self, at: ServiceIndex) -> &ServiceRow {
        &self.services[at.at()]
    }

    /// A cluster.
    #[must_use]
    pub fn cluster(&self, at: ClusterIndex) -> &ClusterRow {
        &self.clusters[at.at()]
    }

    /// A route. [`RouteIndex::DEFAULT`] is the one of services without a virtual host.
    #[must_use]
    pub fn route(&self, at: RouteIndex) -> &RouteRow {
        &self.routes[at.at()]
    }

    /// A virtual host.
    #[must_use]
    pub fn virtual_host(&self, at: VirtualHostIndex) -> &VirtualHostRow {
        &self.virtual_hosts[at.at()]
    }

    /// All services, in index order.
    #[must_use]
    pub fn services(&self) -> &[ServiceRow] {
        &self.services
    }

    /// All clusters, in index order.
    #[must_use]
    pub fn clusters(&self) -> &[ClusterRow] {
        &self.clusters
    }

    /// All virtual hosts, in index order.
    #[must_use]
    pub fn virtual_hosts(&self) -> &[VirtualHostRow] {
        &self.virtual_hosts
    }

    /// All quota rules, in index order.
    #[must_use]
    pub fn quotas(&self) -> &[QuotaRow] {
        &self.quotas
    }

    /// A quota rule.
    #[must_use]
    pub fn quota(&self, at: QuotaIndex) -> &QuotaRow {
        &self.quotas[at.at()]
    }

    /// The local workload as its peers see it: what its own certificate says.
    #[must_use]
    pub fn own_identity(&self) -> &PeerIdentity {
        &self.own
    }

    /// The policies of a site; `None` where there is none, and everything passes.
    #[must_use]
    pub fn policy(&self, site: Site) -> Option<&PolicyRows> {
        match site {
            Site::Inbound => (!self.inbound_policy.is_empty()).then_some(&self.inbound_policy),
            Site::Outbound(service) => self.outbound_policy.get(service.at())?.as_deref(),
        }
    }

    /// A service by name.
    #[must_use]
    pub fn service_by_id(&self, id: &ServiceId) -> Option<ServiceIndex> {
        self.services_by_id.get(id).copied()
    }

    /// A cluster by name; how state survives a swap.
    #[must_use]
    pub fn cluster_by_key(&self, key: &ClusterKey) -> Option<ClusterIndex> {
        self.clusters_by_key.get(key).copied()
    }

    /// Whether a server that shows `shown` may answer for `endpoint` of `cluster` (secure naming):
    /// the identity is one of the service's, and the endpoint's own if that is
    /// known.
    #[must_use]
    pub fn server_may_be(
        &self,
        cluster: ClusterIndex,
        endpoint: &EndpointRow,
        shown: &SpiffeId,
    ) -> bool {
        let service = self.service(self.cluster(cluster).service);
        service.identities.binary_search(shown).is_ok()
            && endpoint.identity.as_ref().is_none_or(|own| own == shown)
    }

    /// The local workload's port that serves service port `number`.
    #[must_use]
    pub fn inbound_port(&self, number: u16) -> Option<&WorkloadPort> {
        self.workload.ports.iter().find(|p| p.number == number)
    }
}
