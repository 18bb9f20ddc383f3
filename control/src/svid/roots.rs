//! When one root takes the other's place (pure).
//!
//! ```text
//!            trusted by sidecars   signs   trusted on the link
//! Announced          x                              x         until every sidecar trusts it
//! Issuing            x               x              x
//! Retiring           x                              x         until the last SVID under it has ended
//! Withdrawn                                         x         until the last node credential has
//! ```
//! Then it is forgotten. A sidecar that was away cannot miss its turn: what it shows others ends before they
//! stop trusting it, and its node credential renews it for as long as that lives.

use serde::{Deserialize, Serialize};

/// What a root is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Sidecars are told to trust it.
    Announced,
    /// Its intermediate signs.
    Issuing,
    /// What it signed still stands.
    Retiring,
    /// Sidecars have stopped trusting it; node credentials may still be under it.
    Withdrawn,
}

impl Stage {
    /// Its name, as in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Announced => "announced",
            Self::Issuing => "issuing",
            Self::Retiring => "retiring",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// One root with its intermediate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// Folder inside the CA's; empty for the first.
    pub folder: String,
    /// What it is good for.
    pub stage: Stage,
    /// Since when, milliseconds since 1970.
    pub since_ms: u64,
}

/// All roots that count, oldest first. Exactly one is [`Stage::Issuing`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Succession {
    /// They.
    pub generations: Vec<Generation>,
}

/// What the next step depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Now, milliseconds since 1970.
    pub now_ms: u64,
    /// Every sidecar with a valid SVID has said that it trusts the announced root.
    pub trusted_everywhere: bool,
    /// End of the last SVID that was signed before the step under way began.
    pub workloads_end_ms: u64,
    /// The same of node credentials.
    pub nodes_end_ms: u64,
}

/// Clocks differ: nothing is withdrawn before this long after its end, milliseconds. Certificates are
/// dated back by as much.
pub const SKEW_MS_MAX: u64 = 60_000;

impl Default for Succession {
    /// The first root alone.
    fn default() -> Self {
        Self {
            generations: vec![Generation {
                folder: String::new(),
                stage: Stage::Issuing,
                since_ms: 0,
            }],
        }
    }
}

impl Succession {
    /// The one in a stage that began last.
    #[must_use]
    pub fn newest(&self, stage: Stage) -> Option<&Generation> {
        let of_stage = self.generations.iter().filter(|one| one.stage == stage);
        of_stage.max_by_key(|one| one.since_ms)
    }

    /// Whether a step is still to come.
    #[must_use]
    pub fn is_under_way(&self) -> bool {
        self.generations.len() > 1
    }

    /// Begins: a new root is made known. `None` while another is announced or retiring.
    #[must_use]
    pub fn announce(&self, folder: &str, now_ms: u64) -> Option<Self> {
        let busy = [Stage::Announced, Stage::Retiring];
        if self.generations.iter().any(|one| busy.contains(&one.stage)) {
            return None;
        }
        let mut next = self.clone();
        next.generations.push(Generation {
            folder: folder.to_owned(),
            stage: Stage::Announced,
            since_ms: now_ms,
        });
        Some(next)
    }

    /// The next step, if its time has come. `facts` are about the generation that [`Self::waiting`] names.
    #[must_use]
    pub fn step(&self, facts: &Facts, skew_ms: u64) -> Option<Self> {
        let waiting = self.waiting()?;
        let over = |end_ms: u64| facts.now_ms >= end_ms.saturating_add(skew_ms);
        let mut next = self.clone();
        match waiting.stage {
            // A sidecar that has not heard of it and has no valid certificate any more hears of it
            // when it gets a new one.
            Stage::Announced if facts.trusted_everywhere || over(facts.workloads_end_ms) => {
                for one in &mut next.generations {
                    one.stage = match one.stage {
                        Stage::Announced => Stage::Issuing,
                        Stage::Issuing => Stage::Retiring,
                        other => {
                            debug_assert_eq!(other, Stage::Withdrawn);
                            continue;
                        }
                    };
                    one.since_ms = facts.now_ms;
                }
            }
            Stage::Retiring if over(facts.workloads_end_ms) => {
                for one in &mut next.generations {
                    if one.stage == Stage::Retiring {
                        // Since when it signs no more stays: its node credentials are told by it.
                        one.stage = Stage::Withdrawn;
                    }
                }
            }
            Stage::Withdrawn if over(facts.nodes_end_ms) => {
                let folder = waiting.folder.clone();
                next.generations.retain(|one| one.folder != folder);
            }
            _ => return None,
        }
        Some(next)
    }

    /// The generation whose next step comes first.
    #[must_use]
    pub fn waiting(&self) -> Option<&Generation> {
        [Stage::Announced, Stage::Retiring, Stage::Withdrawn]
            .into_iter()
            .find_map(|stage| {
                let mut of_stage = self.generations.iter().filter(|one| one.stage == stage);
                of_stage.next()
            })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stages(of: &Succession) -> Vec<Stage> {
        of.generations.iter().map(|one| one.stage).collect()
    }

    fn facts(now_ms: u64, trusted_everywhere: bool) -> Facts {
        Facts {
            now_ms,
            trusted_everywhere,
            workloads_end_ms: 1_000,
            nodes_end_ms: 9_000,
        }
    }

    #[test]
    fn a_root_is_trusted_before_it_signs_and_until_what_it_signed_has_ended() {
        let first = Succession::default();
        assert_eq!(first.step(&facts(99_999, true), 10), None);
        let announced = first.announce("1", 100).unwrap();
        assert_eq!(announced.announce("2", 101), None);
        assert_eq!(stages(&announced), [Stage::Issuing, Stage::Announced]);
        assert_eq!(announced.step(&facts(500, false), 10), None);
        // Everybody has it; or whoever has not cannot be believed by anybody any more.
        let issuing = announced.step(&facts(500, true), 10).unwrap();
        assert_eq!(announced.step(&facts(1_009, false), 10), None);
        assert!(announced.step(&facts(1_010, false), 10).is_some());
        assert_eq!(stages(&issuing), [Stage::Retiring, Stage::Issuing]);
        assert_eq!(issuing.announce("2", 501), None);
        assert_eq!(issuing.step(&facts(1_009, true), 10), None);
        let withdrawn = issuing.step(&facts(1_010, true), 10).unwrap();
        assert_eq!(stages(&withdrawn), [Stage::Withdrawn, Stage::Issuing]);
        assert_eq!(withdrawn.generations[0].since_ms, 500);
        assert_eq!(withdrawn.step(&facts(9_009, true), 10), None);
        let forgotten = withdrawn.step(&facts(9_010, true), 10).unwrap();
        assert_eq!(stages(&forgotten), [Stage::Issuing]);
        assert_eq!(forgotten.generations[0].folder, "1");
        // The next may begin while credentials of the one before last still stand.
        assert!(withdrawn.announce("2", 2_000).is_some());
    }

    proptest! {
        /// Whatever happens when: exactly one signs, and it has been announced before.
        #[test]
        fn exactly_one_signs(
            events in proptest::collection::vec((any::<bool>(), any::<bool>(), 0_u64..5_000), 1..60),
        ) {
            let mut now = Succession::default();
            let (mut clock, mut folders) = (0, 0);
            for (begin, trusted, wait) in events {
                clock += wait;
                let facts = Facts {
                    now_ms: clock,
                    trusted_everywhere: trusted,
                    workloads_end_ms: now.waiting().map_or(0, |one| one.since_ms + 3_000),
                    nodes_end_ms: now.waiting().map_or(0, |one| one.since_ms + 9_000),
                };
                let next = if begin {
                    folders += 1;
                    now.announce(&folders.to_string(), clock)
                } else {
                    now.step(&facts, 100)
                };
                let Some(next) = next else { continue };
                let signs = |of: &Succession| {
                    let mut all = of.generations.iter().filter(|one| one.stage == Stage::Issuing);
                    let one = all.next().unwrap().folder.clone();
                    assert!(all.next().is_none());
                    one
                };
                let signer = signs(&next);
                if signer != signs(&now) {
                    prop_assert_eq!(&now.newest(Stage::Announced).unwrap().folder, &signer);
                }
                now = next;
            }
        }
    }
}
