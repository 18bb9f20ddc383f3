//! What was found: rounds of contenders in scenarios. It is what report.json holds.

use std::collections::BTreeMap;

use serde::Serialize;

use super::contender::Contender;
use super::scenario::Scenario;
use crate::figures::{Figure, Spread, spread};

/// One round of one contender.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Round {
    pub(crate) figures: BTreeMap<Figure, f64>,
    /// `(percentile, microseconds)`.
    pub(crate) latency: Vec<(f64, f64)>,
}

/// All rounds of one contender.
#[derive(Debug, Serialize)]
pub(crate) struct Series {
    pub(crate) contender: Contender,
    pub(crate) title: &'static str,
    pub(crate) version: String,
    /// Why it took no part.
    pub(crate) absent: Option<String>,
    pub(crate) rounds: Vec<Round>,
}

impl Series {
    pub(crate) fn spread(&self, figure: Figure) -> Option<Spread> {
        let found = self
            .rounds
            .iter()
            .filter_map(|round| round.figures.get(&figure));
        spread(found.copied())
    }

    /// `(percentile, median over the rounds)`.
    pub(crate) fn latency(&self) -> Vec<(f64, f64)> {
        let Some(first) = self.rounds.first() else {
            return Vec::new();
        };
        let points = first.latency.iter().enumerate();
        points
            .filter_map(|(at, (percentile, _))| {
                let values = self.rounds.iter().filter_map(|round| round.latency.get(at));
                let median = spread(values.map(|(_, us)| *us))?.median;
                Some((*percentile, median))
            })
            .collect()
    }
}

/// One scenario.
#[derive(Debug, Serialize)]
pub(crate) struct Found {
    pub(crate) scenario: Scenario,
    pub(crate) about: &'static str,
    pub(crate) series: Vec<Series>,
}

impl Found {
    pub(crate) fn of(&self, contender: Contender) -> Option<&Series> {
        self.series
            .iter()
            .find(|series| series.contender == contender)
    }
}

/// Everything of one run.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Results {
    /// Lines that say where it was measured and how.
    pub(crate) machine: Vec<String>,
    pub(crate) found: Vec<Found>,
    /// What went wrong: figures beside a fault are not to be trusted.
    pub(crate) faults: Vec<String>,
}

impl Results {
    pub(crate) fn of(&self, scenario: Scenario) -> Option<&Found> {
        self.found.iter().find(|found| found.scenario == scenario)
    }

    /// Median of a figure.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) fn median(
        &self,
        scenario: Scenario,
        contender: Contender,
        figure: Figure,
    ) -> Result<f64, String> {
        let title = contender.title();
        let found = self
            .of(scenario)
            .ok_or_else(|| format!("{} was not run", scenario.name()))?;
        let series = found
            .of(contender)
            .ok_or_else(|| format!("{title} takes no part"))?;
        match (series.spread(figure), &series.absent) {
            (Some(spread), _) => Ok(spread.median),
            (None, Some(_)) => Err(format!("{title} is absent")),
            (None, None) => Err(format!("{title} has no {}", figure.title())),
        }
    }
}
