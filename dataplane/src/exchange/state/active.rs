//! A configuration in force, and where a shard's pools are found by it.

use std::sync::Arc;

use crate::tables::{ClusterIndex, ClusterRow, EndpointRow, Link, Tables};
use crate::upstream::{PoolId, PoolKey, Pools};

/// One configuration in force, with this shard's pools for it.
#[derive(Debug)]
pub struct Active {
    /// The tables, shared with the other shards and never changed.
    pub tables: Arc<Tables>,
    /// Pools by cluster and endpoint.
    endpoints: Box<[Box<[EndpointPools]>]>,
    /// Pools of the local app, by workload port.
    apps: Box<[PoolId]>,
}

impl Active {
    /// Gives every endpoint and every port of the app its pool. Pools that nothing has now end with their
    /// connections.
    pub(super) fn new(tables: Arc<Tables>, pools: &mut Pools) -> Self {
        pools.begin_swap();
        let endpoints: Box<[Box<[EndpointPools]>]> = tables
            .clusters()
            .iter()
            .map(|row| {
                row.endpoints
                    .iter()
                    .map(|e| EndpointPools::named(pools, row, e))
                    .collect()
            })
            .collect();
        let apps: Box<[PoolId]> = tables
            .workload
            .ports
            .iter()
            .map(|port| {
                let key = PoolKey {
                    link: Link::Plain(port.app),
                    sni: Box::from(""),
                    owner: None,
                    lanes: false,
                };
                pools.named(&key, u64::MAX)
            })
            .collect();
        pools.retire_unnamed();
        Self {
            tables,
            endpoints,
            apps,
        }
    }

    /// The pool of an endpoint of a cluster.
    #[must_use]
    pub fn pool(&self, cluster: ClusterIndex, endpoint: usize) -> Option<PoolId> {
        Some(self.endpoints.get(cluster.at())?.get(endpoint)?.own)
    }

    /// The pool of its lanes; `None` where it is no sidecar.
    #[must_use]
    pub fn lanes(&self, cluster: ClusterIndex, endpoint: usize) -> Option<PoolId> {
        self.endpoints.get(cluster.at())?.get(endpoint)?.lanes
    }

    /// The pool of the local app's port, by its place in the workload's ports.
    #[must_use]
    pub fn app_pool(&self, port: usize) -> Option<PoolId> {
        self.apps.get(port).copied()
    }
}

/// The pools of one endpoint.
#[derive(Debug, Clone, Copy)]
struct EndpointPools {
    own: PoolId,
    lanes: Option<PoolId>,
}

impl EndpointPools {
    fn named(pools: &mut Pools, row: &ClusterRow, endpoint: &EndpointRow) -> Self {
        let link = endpoint.link;
        let sni = match link {
            // What stands for many addresses shares no pool with an endpoint at that one.
            Link::Plain(_) if endpoint.among.is_empty() => Box::from(""),
            Link::Plain(_) | Link::Mesh(_) | Link::Client { .. } => row.sni.clone(),
        };
        let owner = row.limits_connections().then(|| row.key.clone());
        let mut named = |lanes| {
            let key = PoolKey {
                link,
                sni: sni.clone(),
                owner: owner.clone(),
                lanes,
            };
            pools.named(&key, row.policy.idle_timeout_ms)
        };
        Self {
            own: named(false),
            lanes: matches!(link, Link::Mesh(_)).then(|| named(true)),
        }
    }
}
