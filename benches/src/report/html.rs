//! The report as one page that needs nothing else: no script, no font, no picture from outside.

use std::fmt::Write as _;

use clap::ValueEnum as _;

use super::markdown::{verdict, who};
use super::plot::{self, Bar, Line, escape};
use crate::suite::{Contender, Found, Results, Series, standings};

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(super) fn page(results: &Results) -> String {
    let mut out = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>ringmesh beside other proxies</title>\n<style>\n{STYLE}{}</style>\n</head>\n<body>\n<main>\n\
         <h1>ringmesh beside other proxies</h1>\n",
        colours()
    );
    for line in &results.machine {
        let _ = writeln!(out, "<p class=\"soft\">{}</p>", escape(line));
    }
    if !results.faults.is_empty() {
        out += "<section class=\"faults\"><h2>Not everything went well</h2>\
                <p class=\"soft\">Figures beside a fault are not to be trusted.</p><ul>";
        for fault in &results.faults {
            let _ = write!(out, "<li>{}</li>", escape(fault));
        }
        out += "</ul></section>\n";
    }
    out += &aims(results);
    for found in &results.found {
        out += &scenario(found);
    }
    out + "</main>\n</body>\n</html>\n"
}

/// Each contender has one colour on the whole page.
fn colours() -> String {
    let mut out = String::new();
    for contender in Contender::value_variants() {
        let class = class(*contender);
        let _ = writeln!(
            out,
            "rect.{class} {{ fill: var(--{class}); }} polyline.{class} {{ stroke: var(--{class}); }} i.{class} {{ background: var(--{class}); }}"
        );
    }
    out
}

fn class(contender: Contender) -> String {
    let value = contender.to_possible_value();
    value.map_or_else(String::new, |value| value.get_name().to_owned())
}

fn aims(results: &Results) -> String {
    let standings = standings(results);
    if standings.is_empty() {
        return String::new();
    }
    let reached = standings.iter().filter(|one| one.reached == Some(true));
    let mut out = format!(
        "<section><h2>Aims: {} of {} reached</h2><div class=\"scroll\"><table class=\"words\">\
         <tr><th>scenario</th><th>aim</th><th>found</th><th></th></tr>\n",
        reached.count(),
        standings.len()
    );
    for one in standings {
        let class = match one.reached {
            Some(true) => " yes",
            Some(false) => " no",
            None => "",
        };
        let _ = writeln!(
            out,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td><span class=\"verdict{class}\">{}</span></td></tr>",
            escape(&one.scenario),
            escape(&one.aim),
            escape(&one.found),
            verdict(one.reached)
        );
    }
    out + "</table></div></section>\n"
}

fn scenario(found: &Found) -> String {
    let mut out = format!(
        "<section id=\"{0}\"><h2>{0}</h2><p class=\"soft\">{1}</p>",
        escape(&found.scenario.name()),
        escape(found.about)
    );
    out += &table(found);
    let (bars, lines) = (bars(found), lines(found));
    let figure = found.scenario.main_figure();
    out += "<div class=\"plots\">";
    if bars.len() > 1 {
        let _ = write!(
            out,
            "<figure><figcaption>{}</figcaption>{}</figure>",
            escape(figure.title()),
            plot::bars(&bars, figure)
        );
    }
    if !lines.is_empty() {
        let _ = write!(
            out,
            "<figure><figcaption>Latency by percentile</figcaption>{}<div class=\"legend\">",
            plot::latency(&lines)
        );
        for line in &lines {
            let (class, label) = (&line.class, escape(&line.label));
            let _ = write!(out, "<span><i class=\"{class}\"></i>{label}</span>");
        }
        out += "</div></figure>";
    }
    out + "</div></section>\n"
}

fn table(found: &Found) -> String {
    let figures = found.scenario.figures();
    let mut out = String::from("<div class=\"scroll\"><table>\n<tr><th></th>");
    for figure in figures {
        let _ = write!(out, "<th>{}</th>", escape(figure.title()));
    }
    out += "</tr>\n";
    for series in &found.series {
        let _ = write!(
            out,
            "<tr class=\"{}\"><td>{}</td>",
            class(series.contender),
            escape(&who(series))
        );
        if let Some(why) = &series.absent {
            let _ = write!(
                out,
                "<td class=\"absent\" colspan=\"{}\">absent: {}</td>",
                figures.len(),
                escape(why)
            );
        } else {
            for figure in figures {
                out += "<td>";
                if let Some(spread) = series.spread(*figure) {
                    out += &figure.show(spread.median);
                    if series.rounds.len() > 1 {
                        let (least, most) = (figure.show(spread.min), figure.show(spread.max));
                        let _ = write!(out, "<small>{least} to {most}</small>");
                    }
                }
                out += "</td>";
            }
        }
        out += "</tr>\n";
    }
    out + "</table></div>"
}

fn bars(found: &Found) -> Vec<Bar> {
    let figure = found.scenario.main_figure();
    let bar = |series: &Series| {
        Some(Bar {
            class: class(series.contender),
            label: series.title.to_owned(),
            spread: series.spread(figure)?,
        })
    };
    found.series.iter().filter_map(bar).collect()
}

fn lines(found: &Found) -> Vec<Line> {
    let line = |series: &Series| Line {
        class: class(series.contender),
        label: series.title.to_owned(),
        points: series.latency(),
    };
    let lines = found.series.iter().map(line);
    lines.filter(|line| !line.points.is_empty()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::markdown::tests::results;
    use super::*;

    #[test]
    fn the_page_stands_alone_and_every_tag_is_closed() {
        let page = page(&results());
        for outside in ["http:", "https:", "src=", "url(", "@import", "<script"] {
            assert!(!page.contains(outside), "{outside}");
        }
        for tag in [
            "section", "table", "tr", "td", "svg", "figure", "span", "div", "text",
        ] {
            let open = page.matches(&format!("<{tag}>")).count()
                + page.matches(&format!("<{tag} ")).count();
            let closed = page.matches(&format!("</{tag}>")).count();
            assert_eq!(open, closed, "{tag}");
        }
        assert!(page.contains("A &lt;machine&gt;"));
        assert!(page.contains("absent: not | there"));
    }

    #[test]
    fn every_contender_has_a_colour() {
        for contender in Contender::value_variants() {
            let colour = format!("--{}: #", class(*contender));
            assert!(STYLE.contains(&colour), "{colour}");
        }
    }
}
