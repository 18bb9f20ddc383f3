//! What ringmesh wants to reach beside the others, and whether it has. Pure.

use serde::Serialize;

use super::contender::Contender::{
    self, Envoy, EnvoyMesh, Haproxy, HaproxyH2, HaproxySplice, Nginx, Ringmesh,
};
use super::results::Results;
use super::scenario::Scenario;
use crate::figures::Figure;

/// One aim.
#[derive(Debug)]
struct Target {
    scenario: Scenario,
    figure: Figure,
    bound: Bound,
}

#[derive(Debug)]
enum Bound {
    /// At most so many times the least of these.
    Times(f64, &'static [Contender]),
    /// Below each of these.
    Below(&'static [Contender]),
    AtMost(f64),
}

const PROXIES: &[Contender] = &[Haproxy, Nginx];
const EVERY_HTTP: &[Contender] = &[Haproxy, Nginx, Envoy, EnvoyMesh];
const HAPROXIES: &[Contender] = &[Haproxy, HaproxyH2];
const EVERY_PAIR: &[Contender] = &[Haproxy, HaproxyH2, Nginx, Envoy, EnvoyMesh];
const EVERY_BARE: &[Contender] = &[Haproxy, Nginx, Envoy];
const EVERY_BARE_PAIR: &[Contender] = &[Haproxy, HaproxyH2, Nginx, Envoy];
const EVERY_TCP: &[Contender] = &[Haproxy, Nginx, Envoy];

const TARGETS: &[Target] = &[
    times(Scenario::HttpSmall, Figure::CpuUs, 0.75, PROXIES),
    times(Scenario::HttpSmall, Figure::CpuUs, 0.6, PROXIES),
    times(Scenario::HttpSmall, Figure::CpuUs, 0.25, &[Envoy]),
    times(Scenario::Http64k, Figure::CpuUs, 0.8, PROXIES),
    times(Scenario::HttpChurn, Figure::CpuUs, 0.8, PROXIES),
    times(Scenario::HttpPaced, Figure::CpuUs, 0.8, EVERY_HTTP),
    times(Scenario::HttpPaced, Figure::AddedP50Us, 1.0, EVERY_HTTP),
    times(Scenario::HttpPaced, Figure::AddedP99Us, 1.0, EVERY_HTTP),
    times(Scenario::HttpSameRate, Figure::AddedP99Us, 1.0, EVERY_BARE),
    times(Scenario::H2Small, Figure::CpuUs, 0.8, &[Haproxy]),
    times(Scenario::H2Small, Figure::CpuUs, 0.25, &[Envoy]),
    times(Scenario::MtlsPair, Figure::CpuUs, 0.8, HAPROXIES),
    times(Scenario::MtlsPair, Figure::CpuUs, 0.2, &[Envoy]),
    times(Scenario::MtlsPairPaced, Figure::CpuUs, 0.8, HAPROXIES),
    below(Scenario::MtlsPairPaced, Figure::AddedP50Us, EVERY_PAIR),
    times(
        Scenario::MtlsPairSameRate,
        Figure::AddedP99Us,
        1.0,
        EVERY_BARE_PAIR,
    ),
    times(Scenario::GrpcPair, Figure::CpuUs, 0.8, &[Haproxy]),
    times(Scenario::GrpcPair, Figure::CpuUs, 0.25, &[Envoy]),
    times(
        Scenario::MtlsHandshakes,
        Figure::FullHandshakeUs,
        0.8,
        &[Haproxy],
    ),
    times(
        Scenario::MtlsHandshakes,
        Figure::ResumedHandshakeUs,
        0.8,
        &[Haproxy],
    ),
    times(Scenario::TcpBulk, Figure::CpuSPerGib, 0.4, &[Haproxy]),
    times(Scenario::TcpBulk, Figure::CpuSPerGib, 1.0, &[HaproxySplice]),
    times(Scenario::TcpBulk, Figure::CpuSPerGib, 0.5, &[Envoy]),
    below(Scenario::TcpPingpong, Figure::AddedP50Us, EVERY_TCP),
    below(Scenario::TcpPingpong, Figure::CpuUs, EVERY_TCP),
    at_most(Scenario::Idle, Figure::IdleConnectionBytes, 2048.0),
    at_most(Scenario::AtRest, Figure::FreshMib, 15.0),
    at_most(Scenario::AtRest, Figure::AfterLoadMib, 25.0),
    at_most(Scenario::AtRest, Figure::ShardWakeUpsPerS, 0.0),
    at_most(Scenario::AtRest, Figure::AgentWakeUpsPerS, 2.0),
    // None per request; a sidecar tells its counters once a second, which takes a few.
    at_most(Scenario::Allocations, Figure::AllocationsHttp1, 0.01),
];

const fn times(
    scenario: Scenario,
    figure: Figure,
    factor: f64,
    others: &'static [Contender],
) -> Target {
    let bound = Bound::Times(factor, others);
    Target {
        scenario,
        figure,
        bound,
    }
}

const fn below(scenario: Scenario, figure: Figure, others: &'static [Contender]) -> Target {
    Target {
        scenario,
        figure,
        bound: Bound::Below(others),
    }
}

const fn at_most(scenario: Scenario, figure: Figure, most: f64) -> Target {
    Target {
        scenario,
        figure,
        bound: Bound::AtMost(most),
    }
}

/// How an aim stands.
#[derive(Debug, PartialEq, Serialize)]
pub(crate) struct Standing {
    pub(crate) scenario: String,
    /// What is asked.
    pub(crate) aim: String,
    /// What was found, in words.
    pub(crate) found: String,
    /// `None`: it could not be told.
    pub(crate) reached: Option<bool>,
}

/// How every aim of a scenario that was run stands.
pub(crate) fn standings(results: &Results) -> Vec<Standing> {
    let run = |target: &&Target| results.of(target.scenario).is_some();
    TARGETS
        .iter()
        .filter(run)
        .map(|t| t.standing(results))
        .collect()
}

impl Target {
    fn standing(&self, results: &Results) -> Standing {
        let (found, reached) = match self.found(results) {
            Ok((text, reached)) => (text, Some(reached)),
            Err(why) => (format!("not told: {why}"), None),
        };
        Standing {
            scenario: self.scenario.name(),
            aim: self.aim(),
            found,
            reached,
        }
    }

    fn aim(&self) -> String {
        let title = self.figure.title();
        match self.bound {
            Bound::Times(factor, others) => {
                format!("{title} at most {factor} x {}", least_of(others))
            }
            Bound::Below(others) => format!("{title} below {}", names(others)),
            Bound::AtMost(most) => format!("{title} at most {}", self.figure.show(most)),
        }
    }

    fn found(&self, results: &Results) -> Result<(String, bool), String> {
        let ours = results.median(self.scenario, Ringmesh, self.figure)?;
        let shown = self.figure.show(ours);
        let (others, factor, open) = match self.bound {
            Bound::AtMost(most) => return Ok((shown, ours <= most)),
            Bound::Times(factor, others) => (others, factor, false),
            Bound::Below(others) => (others, 1.0, true),
        };
        // All of them have to be there: a race without the best is not won.
        let mut least = f64::INFINITY;
        for other in others {
            least = least.min(results.median(self.scenario, *other, self.figure)?);
        }
        let best = self.figure.show(least);
        let bound = least * factor;
        let reached = if open { ours < bound } else { ours <= bound };
        // A ratio to nothing, or to less, says nothing.
        let ratio = if least > 0.0 {
            format!("{:.2} x: ", ours / least)
        } else {
            String::new()
        };
        Ok((format!("{ratio}{shown} against {best}"), reached))
    }
}

fn names(all: &[Contender]) -> String {
    let names: Vec<&str> = all.iter().map(|one| one.title()).collect();
    names.join(", ")
}

fn least_of(all: &[Contender]) -> String {
    match all {
        [one] => one.title().to_owned(),
        _ => format!("the best of {}", names(all)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::results::{Found, Round, Series};
    use super::*;

    fn results(figures: &[(Contender, f64)]) -> Results {
        let series = figures.iter().map(|(contender, us)| Series {
            contender: *contender,
            title: contender.title(),
            version: String::new(),
            absent: us.is_nan().then(|| "not installed".to_owned()),
            rounds: Some(Round {
                figures: [(Figure::CpuUs, *us)].into(),
                latency: Vec::new(),
            })
            .filter(|_| !us.is_nan())
            .into_iter()
            .collect(),
        });
        Results {
            found: vec![Found {
                scenario: Scenario::HttpSmall,
                about: "",
                series: series.collect(),
            }],
            ..Results::default()
        }
    }

    fn reached(figures: &[(Contender, f64)]) -> Vec<Option<bool>> {
        let standings = standings(&results(figures));
        standings.into_iter().map(|one| one.reached).collect()
    }

    #[test]
    fn medians_decide_and_the_best_counts() {
        let all = |ours| {
            [
                (Haproxy, 30.0),
                (Nginx, 20.0),
                (Envoy, 60.0),
                (Ringmesh, ours),
            ]
        };
        assert_eq!(reached(&all(15.0)), [Some(true), Some(false), Some(true)]);
        assert_eq!(reached(&all(15.1)), [Some(false), Some(false), Some(false)]);
        assert_eq!(reached(&all(12.0)), [Some(true); 3]);
    }

    #[test]
    fn without_a_peer_nothing_is_reached() {
        let found = standings(&results(&[
            (Haproxy, 30.0),
            (Nginx, f64::NAN),
            (Ringmesh, 1.0),
        ]));
        assert_eq!(found[0].reached, None);
        assert_eq!(found[0].found, "not told: nginx is absent");
        assert_eq!(found[2].found, "not told: Envoy takes no part");
    }
}
