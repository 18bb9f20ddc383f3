//! What the agent itself counts, as series beside those of the shards.

use std::collections::BTreeMap;

use ringmesh_wire::report::{Series, SeriesValue};
use ringmesh_wire::session::PortHealth;

use super::names::Fault;
use super::names::book::Tally;
use super::svid::UnixMs;

/// The agent's counters and gauges.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    /// The session with control stands.
    pub connected: bool,
    /// Sessions begun since start.
    pub sessions: u64,
    /// Bytes or messages of control that break the protocol, by code.
    pub faults: BTreeMap<&'static str, u64>,
    /// Revision in force.
    pub revision: u64,
    /// When it came into force.
    pub changed: Option<UnixMs>,
    /// Configurations refused.
    pub refused: u64,
    /// When the workload certificate ends.
    pub svid_expires: Option<UnixMs>,
    /// Certificates obtained.
    pub renewals: u64,
    /// Attempts that failed.
    pub renewal_failures: u64,
    /// Half-life is over and renewal fails: wake somebody.
    pub svid_alarm: bool,
    /// Health of the app's ports.
    pub health: Vec<PortHealth>,
    /// Names, by how well known they are.
    pub names: Tally,
    /// Lookups of names that brought addresses.
    pub name_lookups: u64,
    /// Lookups that did not, by fault.
    pub name_faults: BTreeMap<Fault, u64>,
    /// Log lines written to the file, and dropped before it.
    pub log_file: Option<(u64, u64)>,
    /// Log lines waiting for control, and dropped.
    pub log_forward: Option<(usize, u64)>,
    /// Allocations of the shards, in builds that count them.
    pub shard_allocations: Option<u64>,
}

impl Figures {
    /// As series, sorted by name and labels.
    #[must_use]
    pub fn series(&self) -> Vec<Series> {
        let mut out = Vec::new();
        let mut one = |name: &str, labels: &[(&str, &str)], value| {
            let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
            out.push(Series {
                name: name.to_owned(),
                labels: labels.iter().map(own).collect(),
                value,
            });
        };
        let gauge = |value: u64| SeriesValue::Gauge(i64::try_from(value).unwrap_or(i64::MAX));
        let seconds = |at: UnixMs| gauge(at.0 / 1_000);
        let count = SeriesValue::Counter;
        if let Some((written, dropped)) = self.log_file {
            one(
                "ringmesh_access_log_dropped_total",
                &[("to", "file")],
                count(dropped),
            );
            one(
                "ringmesh_access_log_written_total",
                &[("to", "file")],
                count(written),
            );
        }
        if let Some((waiting, dropped)) = self.log_forward {
            one(
                "ringmesh_access_log_dropped_total",
                &[("to", "control")],
                count(dropped),
            );
            one(
                "ringmesh_access_log_waiting",
                &[("to", "control")],
                gauge(waiting as u64),
            );
        }
        for port in &self.health {
            let number = port.port.to_string();
            let healthy = gauge(port.healthy.into());
            one("ringmesh_app_healthy", &[("port", &number)], healthy);
        }
        if let Some(changed) = self.changed {
            one(
                "ringmesh_config_changed_timestamp_seconds",
                &[],
                seconds(changed),
            );
        }
        if self.names != Tally::default() || self.name_lookups > 0 {
            let lookups = |result| [("result", result)];
            one(
                "ringmesh_dns_lookups_total",
                &lookups("ok"),
                count(self.name_lookups),
            );
            for (fault, number) in &self.name_faults {
                one(
                    "ringmesh_dns_lookups_total",
                    &lookups(fault.code()),
                    count(*number),
                );
            }
            let Tally {
                resolved,
                stale,
                unresolved,
            } = self.names;
            for (state, number) in [
                ("resolved", resolved),
                ("stale", stale),
                ("unresolved", unresolved),
            ] {
                one("ringmesh_dns_names", &[("state", state)], gauge(number));
            }
        }
        one("ringmesh_config_refused_total", &[], count(self.refused));
        one("ringmesh_config_revision", &[], gauge(self.revision));
        one(
            "ringmesh_control_connected",
            &[],
            gauge(self.connected.into()),
        );
        for (code, faults) in &self.faults {
            one(
                "ringmesh_control_faults_total",
                &[("code", code)],
                count(*faults),
            );
        }
        one("ringmesh_control_sessions_total", &[], count(self.sessions));
        if let Some(made) = self.shard_allocations {
            one("ringmesh_shard_allocations_total", &[], count(made));
        }
        one("ringmesh_svid_alarm", &[], gauge(self.svid_alarm.into()));
        if let Some(expires) = self.svid_expires {
            one(
                "ringmesh_svid_expiry_timestamp_seconds",
                &[],
                seconds(expires),
            );
        }
        one(
            "ringmesh_svid_renewal_failures_total",
            &[],
            count(self.renewal_failures),
        );
        one("ringmesh_svid_renewals_total", &[], count(self.renewals));
        out.sort_by(|a, b| (&a.name, &a.labels).cmp(&(&b.name, &b.labels)));
        out
    }
}
