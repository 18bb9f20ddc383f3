//! Passive health: endpoints that fail in a row are left out for a while.

use ringmesh_wire::snapshot::Outlier;

use crate::time::Mono;

/// The longest an endpoint is out at a time where its rule's base time is shorter (Envoy's
/// `max_ejection_time`): one that was broken for a day is not out for hours once it is well.
const EJECTION_MAX_MS: u64 = 300_000;

/// How a try went, as the endpoint's doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The endpoint answered with this status.
    Answer(u16),
    /// It could not be reached, reset or timed out: a local-origin failure.
    LocalFailure,
    /// Says nothing of the endpoint: the client went away, the mesh itself refused.
    Neutral,
}

/// Health of one endpoint.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Health {
    /// Failures in a row: 5xx, gateway, local.
    consecutive: [u32; 3],
    /// Ejected until then.
    pub(super) ejected_until: Option<Mono>,
    /// Ejections in a row; goes down by one each healthy interval.
    times: u32,
}

impl Health {
    /// Counts a verdict. True if a limit is reached now.
    pub(super) fn count(&mut self, rule: &Outlier, verdict: Verdict) -> bool {
        let [server, gateway, local] = &mut self.consecutive;
        let step = |count: &mut u32, failed: bool, limit: u32| {
            *count = if failed { count.saturating_add(1) } else { 0 };
            limit > 0 && *count >= limit
        };
        match verdict {
            Verdict::Neutral => false,
            Verdict::Answer(status) => {
                // An answer ends a row of local failures whatever it says. Every condition is
                // stepped, hence no short-circuit.
                step(local, false, 0);
                let by_server = step(server, status >= 500, rule.consecutive_5xx);
                let is_gateway = matches!(status, 502..=504);
                let by_gateway = step(gateway, is_gateway, rule.consecutive_gateway);
                by_server || by_gateway
            }
            Verdict::LocalFailure if rule.split_local => step(local, true, rule.consecutive_local),
            Verdict::LocalFailure => {
                let by_server = step(server, true, rule.consecutive_5xx);
                let by_gateway = step(gateway, true, rule.consecutive_gateway);
                by_server || by_gateway
            }
        }
    }

    /// Out, for the base time multiplied by how often in a row, but no longer than [`EJECTION_MAX_MS`].
    #[cold]
    pub(super) fn eject(&mut self, rule: &Outlier, now: Mono) {
        let longest_ms = rule.base_ejection_ms.max(EJECTION_MAX_MS);
        let length_ms = |times: u32| rule.base_ejection_ms.saturating_mul(times.into());
        // Where it is that long it does not grow, or it would take as many quiet intervals to forget.
        if length_ms(self.times) < longest_ms {
            self.times = self.times.saturating_add(1);
        }
        self.consecutive = [0; 3];
        let length_ms = length_ms(self.times).min(longest_ms);
        self.ejected_until = Some(now.plus_ms(length_ms));
    }

    /// Looks at the clock once per interval. True if the endpoint comes back now.
    pub(super) fn look(&mut self, now: Mono) -> bool {
        match self.ejected_until {
            Some(until) if until <= now => {
                self.ejected_until = None;
                true
            }
            Some(_) => false,
            None => {
                self.times = self.times.saturating_sub(1);
                false
            }
        }
    }
}
