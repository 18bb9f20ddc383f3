//! The report as tables in text.

use std::fmt::Write as _;

use crate::figures::Figure;
use crate::suite::{Found, Results, Series, standings};

/// The whole report.
pub(crate) fn text(results: &Results) -> String {
    let mut out = String::from("# ringmesh beside other proxies\n\n");
    for line in &results.machine {
        let _ = writeln!(out, "{line}\n");
    }
    if !results.faults.is_empty() {
        out += "**Not everything went well; figures beside a fault are not to be trusted:**\n\n";
        for fault in &results.faults {
            let _ = writeln!(out, "- {}", fault.replace('\n', " "));
        }
        out.push('\n');
    }
    out += "## Aims\n\n| scenario | aim | found | |\n| --- | --- | --- | --- |\n";
    for standing in standings(results) {
        let verdict = verdict(standing.reached);
        let (scenario, aim, found) = (standing.scenario, standing.aim, standing.found);
        let _ = writeln!(out, "| {scenario} | {aim} | {found} | {verdict} |");
    }
    for found in &results.found {
        out += &scenario(found);
    }
    out
}

/// In a word.
pub(super) fn verdict(reached: Option<bool>) -> &'static str {
    match reached {
        Some(true) => "reached",
        Some(false) => "not reached",
        None => "not told",
    }
}

fn scenario(found: &Found) -> String {
    let mut out = format!("\n## {}\n\n{}.\n\n| |", found.scenario.name(), found.about);
    let figures = found.scenario.figures();
    for figure in figures {
        let _ = write!(out, " {} |", figure.title());
    }
    let _ = writeln!(out, "\n| --- |{}", " ---: |".repeat(figures.len()));
    for series in &found.series {
        let _ = write!(out, "| {} |", who(series));
        if let Some(why) = &series.absent {
            let _ = writeln!(out, " absent: {} |", why.replace(['|', '\n'], " "));
            continue;
        }
        for (at, figure) in figures.iter().enumerate() {
            let _ = write!(out, " {} |", cell(series, *figure, at == 0));
        }
        out.push('\n');
    }
    out
}

/// The contender and its version.
pub(super) fn who(series: &Series) -> String {
    match series.version.as_str() {
        "" => series.title.to_owned(),
        version => format!("{} ({version})", series.title),
    }
}

fn cell(series: &Series, figure: Figure, main: bool) -> String {
    let Some(spread) = series.spread(figure) else {
        return String::new();
    };
    let median = figure.show(spread.median);
    let median = if main {
        format!("**{median}**")
    } else {
        median
    };
    if series.rounds.len() == 1 {
        return median;
    }
    let (least, most) = (figure.show(spread.min), figure.show(spread.max));
    format!("{median} ({least} to {most})")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::suite::{Contender, Round, Scenario};

    pub(in crate::report) fn results() -> Results {
        let round = |us: f64| Round {
            figures: [(Figure::CpuUs, us), (Figure::Rps, 1e6 / us)].into(),
            latency: vec![(0.0, us), (50.0, us * 2.0), (99.0, us * 9.0), (100.0, 9e4)],
        };
        let series = |contender: Contender, absent: Option<&str>, us: &[f64]| Series {
            contender,
            title: contender.title(),
            version: "1.2".to_owned(),
            absent: absent.map(str::to_owned),
            rounds: us.iter().copied().map(round).collect(),
        };
        Results {
            machine: vec!["A <machine>".to_owned()],
            found: vec![Found {
                scenario: Scenario::HttpSmall,
                about: Scenario::HttpSmall.about(),
                series: vec![
                    series(Contender::Haproxy, None, &[30.0, 20.0, 25.0]),
                    series(Contender::Nginx, None, &[40.0, 41.0, 42.0]),
                    series(Contender::Envoy, Some("not | there"), &[]),
                    series(Contender::Ringmesh, None, &[10.0, 12.0, 11.0]),
                ],
            }],
            faults: vec!["one\nfault".to_owned()],
        }
    }

    #[test]
    fn medians_spreads_absences_and_faults_are_all_told() {
        let text = text(&results());
        assert!(
            text.contains("| HAProxy (1.2) | **25.0** (20.0 to 30.0) |"),
            "{text}"
        );
        assert!(
            text.contains("| Envoy (1.2) | absent: not   there |"),
            "{text}"
        );
        assert!(text.contains("- one fault\n"), "{text}");
        assert!(
            text.contains("0.44 x: 11.0 against 25.0 | reached |"),
            "{text}"
        );
        assert!(
            text.contains("not told: Envoy is absent | not told |"),
            "{text}"
        );
    }
}
