//! The workload this sidecar stands beside.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use ringmesh_wire::ServiceId;
use ringmesh_wire::snapshot::{MtlsMode, Protocol};

/// The local workload, from `sidecar.yaml`; the `mtls` of its ports is filled in from the snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workload {
    /// Its service.
    pub service: ServiceId,
    /// Its service account.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its ports.
    pub ports: Vec<WorkloadPort>,
}

/// A port the local app serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkloadPort {
    /// Name, e.g. `http`.
    pub name: String,
    /// Port of the service: what callers and SNI name.
    pub number: u16,
    /// Protocol, by declaration.
    pub protocol: Protocol,
    /// Where the app listens; its port is the *workload port* of policies.
    pub app: SocketAddr,
    /// Mutual TLS demanded of callers. [`super::Tables::build`] sets it (port over mesh setting);
    /// what stands here before does not matter.
    pub mtls: MtlsMode,
}

impl Workload {
    /// The label `version`, empty if there is none.
    #[must_use]
    pub fn version(&self) -> &str {
        self.labels.get("version").map_or("", String::as_str)
    }
}
