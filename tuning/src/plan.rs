//! What the sidecar does on this host: a pure function of [`Facts`] and the wish for shards.
//!
//! Probe, degrade, say so: everything that is switched off here is named in
//! [`HostPlan::degraded`], which the sidecar logs once at start.

use serde::Serialize;

use crate::placement::{self, Shard, Shards};
use crate::probe::{Facts, Uring};

/// How to run here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HostPlan {
    /// The shards to start.
    pub shards: Vec<Shard>,
    /// How to make each shard's ring.
    pub ring: RingAdvice,
    /// What is left out and what it costs, one sentence each.
    pub degraded: Vec<String>,
}

/// Set-up flags and operations this kernel takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct RingAdvice {
    /// SINGLE_ISSUER with DEFER_TASKRUN.
    pub defer_taskrun: bool,
    /// NO_SQARRAY.
    pub no_sqarray: bool,
    /// A multishot receive can carry a byte limit (6.18); else bound it by cancelling.
    pub recv_limit: bool,
    /// Sends without a copy, single and gathered, exist and report copies (6.2). Off unless asked for;
    /// whether they pay is found at run time.
    pub send_zc: bool,
}

impl RingAdvice {
    /// What this host offers; `None` if no ring can be made.
    #[must_use]
    pub fn of(facts: &Facts) -> Option<Self> {
        let Uring::Usable {
            missing,
            defer_taskrun,
            no_sqarray,
            ..
        } = &facts.uring
        else {
            return None;
        };
        let has = |name| missing.iter().all(|op| op.name != name);
        Some(Self {
            defer_taskrun: *defer_taskrun,
            no_sqarray: *no_sqarray,
            recv_limit: facts.kernel.at_least(6, 18),
            send_zc: has("SEND_ZC") && has("SENDMSG_ZC") && facts.kernel.at_least(6, 2),
        })
    }
}

/// Plans, or says why the sidecar cannot run here at all (the doctor's sentence with the fix).
///
/// # Errors
/// One sentence per obstacle: no io_uring, an operation missing, a kernel below 5.19.
pub fn plan(facts: &Facts, shards: Shards) -> Result<HostPlan, Vec<String>> {
    let obstacles: Vec<String> = crate::doctor::examine(facts)
        .into_iter()
        .filter(|finding| finding.blocks_start)
        .map(|finding| format!("{}; fix: {}", finding.found, finding.fix))
        .collect();
    let Some(ring) = RingAdvice::of(facts).filter(|_| obstacles.is_empty()) else {
        return Err(obstacles);
    };
    Ok(HostPlan {
        shards: placement::place(shards, &facts.cpus),
        degraded: degraded(ring),
        ring,
    })
}

fn degraded(ring: RingAdvice) -> Vec<String> {
    let costs = [
        (
            ring.defer_taskrun,
            "DEFER_TASKRUN is missing (kernel < 6.1): more CPU per request",
        ),
        (
            ring.recv_limit,
            "receive byte limit is missing (kernel < 6.18): receives are bounded by cancelling",
        ),
    ];
    costs
        .into_iter()
        .filter(|(there, _)| !there)
        .map(|(_, cost)| cost.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::tests::{good_host, old_host};

    #[test]
    fn a_good_host_gets_everything() {
        let plan = plan(&good_host(), Shards::All).expect("runs");
        assert_eq!(plan.shards.len(), 2);
        assert_eq!(plan.degraded, Vec::<String>::new());
        assert!(plan.ring.recv_limit && plan.ring.defer_taskrun);
    }

    #[test]
    fn an_older_kernel_is_used_and_said_so() {
        let mut facts = good_host();
        facts.kernel = crate::probe::KernelVersion::parse("6.1.0-28-amd64");
        let plan = plan(&facts, Shards::Auto).expect("runs");
        assert!(!plan.ring.recv_limit);
        assert_eq!(plan.degraded.len(), 1, "{:?}", plan.degraded);
    }

    #[test]
    fn without_a_ring_the_reasons_are_told() {
        let reasons = plan(&old_host(), Shards::Auto).expect_err("cannot run");
        assert!(
            reasons.iter().any(|reason| reason.contains("io_uring")),
            "{reasons:?}"
        );
    }
}
