//! What control counts about itself.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// One label: why.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// Stable code.
    pub reason: String,
}

/// Control's own metrics.
#[derive(Debug, Default, Clone)]
pub struct Counters {
    /// Links closed because of what came on them, by reason.
    pub link_refused: Family<Reason, Counter>,
    /// Sessions and certificate requests refused, by code.
    pub rejected: Family<Reason, Counter>,
    /// Sidecars connected.
    pub sessions: Gauge,
    /// Certificates issued.
    pub certificates_issued: Counter,
    /// Configurations sent.
    pub pushes: Counter,
    /// Bytes of them.
    pub push_bytes: Counter,
    /// Configurations refused by sidecars.
    pub nacks: Counter,
    /// Snapshots that could not be compiled.
    pub compile_failures: Counter,
    /// Snapshots compiled.
    pub compiles: Counter,
    /// 1 while a mass expiry has frozen the removal of endpoints.
    pub registry_frozen: Gauge,
    /// Current revision of the rules.
    pub revision: Gauge,
    /// Series of sidecars that are not kept, by reason.
    pub series_refused: Family<Reason, Counter>,
}

impl Counters {
    /// Counts a closed link.
    pub fn refused(&self, reason: &str) {
        let reason = reason.to_owned();
        self.link_refused.get_or_create(&Reason { reason }).inc();
    }

    /// Counts a refused session or certificate request.
    pub fn reject(&self, code: &str) {
        let reason = code.to_owned();
        self.rejected.get_or_create(&Reason { reason }).inc();
    }

    /// Counts series that are not kept.
    pub fn refuse_series(&self, reason: &str, count: u64) {
        let reason = reason.to_owned();
        let counter = self.series_refused.get_or_create(&Reason { reason });
        counter.inc_by(count);
    }

    /// Registers all of them.
    pub fn register(&self, registry: &mut Registry) {
        let r = registry.sub_registry_with_prefix("ringmesh_control");
        r.register(
            "link_refused",
            "Mesh links closed because of what came on them",
            self.link_refused.clone(),
        );
        r.register(
            "rejected",
            "Sessions and certificate requests refused",
            self.rejected.clone(),
        );
        r.register("sidecars", "Sidecars connected", self.sessions.clone());
        r.register(
            "certificates_issued",
            "Certificates issued to sidecars",
            self.certificates_issued.clone(),
        );
        r.register("pushes", "Configurations sent", self.pushes.clone());
        r.register(
            "push_bytes",
            "Bytes of configurations sent",
            self.push_bytes.clone(),
        );
        r.register(
            "nacks",
            "Configurations refused by sidecars",
            self.nacks.clone(),
        );
        r.register("compiles", "Snapshots compiled", self.compiles.clone());
        r.register(
            "compile_failures",
            "Snapshots that could not be compiled",
            self.compile_failures.clone(),
        );
        r.register(
            "registry_frozen",
            "1 while a mass expiry has frozen the removal of endpoints",
            self.registry_frozen.clone(),
        );
        r.register("revision", "Revision of the rules", self.revision.clone());
        r.register(
            "series_refused",
            "Reported series refused",
            self.series_refused.clone(),
        );
    }
}
