//! Plots as SVG text. Pure: numbers in, markup out. Colours are classes of the page.

use std::fmt::Write as _;

use crate::figures::{Figure, Spread};

/// One bar.
#[derive(Debug)]
pub(super) struct Bar {
    /// Class that gives it its colour.
    pub(super) class: String,
    pub(super) label: String,
    pub(super) spread: Spread,
}

/// One line.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) class: String,
    pub(super) label: String,
    /// `(percentile, microseconds)`, rising.
    pub(super) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 560.0;
const LABEL_WIDTH: f64 = 150.0;
/// Room for a value right of the longest bar.
const VALUE_WIDTH: f64 = 70.0;
const BAR_HEIGHT: f64 = 22.0;
const ROW_HEIGHT: f64 = 34.0;

/// Lying bars from zero, with the spread as a whisker.
pub(super) fn bars(bars: &[Bar], figure: Figure) -> String {
    let most = bars.iter().map(|bar| bar.spread.max).fold(0.0, f64::max);
    if most <= 0.0 {
        return String::new();
    }
    let height = ROW_HEIGHT * bars.len() as f64 + 8.0;
    let scale = (WIDTH - LABEL_WIDTH - VALUE_WIDTH) / most;
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
        escape(figure.title())
    );
    for (at, bar) in bars.iter().enumerate() {
        let top = at as f64 * ROW_HEIGHT + 6.0;
        let middle = top + BAR_HEIGHT / 2.0;
        let x = |value: f64| LABEL_WIDTH + value.max(0.0) * scale;
        let Spread { median, min, max } = bar.spread;
        let _ = write!(
            out,
            "<text class=\"label\" x=\"{}\" y=\"{middle}\" text-anchor=\"end\" dominant-baseline=\"central\">{}</text>\
             <rect class=\"{}\" x=\"{LABEL_WIDTH}\" y=\"{top}\" width=\"{:.1}\" height=\"{BAR_HEIGHT}\" rx=\"3\"/>",
            LABEL_WIDTH - 8.0,
            escape(&bar.label),
            bar.class,
            (x(median) - LABEL_WIDTH).max(1.0),
        );
        if max > min {
            let _ = write!(
                out,
                "<path class=\"whisker\" d=\"M{0:.1} {middle}H{1:.1}M{0:.1} {2}v8M{1:.1} {2}v8\"/>",
                x(min),
                x(max),
                middle - 4.0,
            );
        }
        let _ = write!(
            out,
            "<text class=\"value\" x=\"{:.1}\" y=\"{middle}\" dominant-baseline=\"central\">{}</text>",
            x(max) + 8.0,
            figure.show(median)
        );
    }
    out + "</svg>"
}

const PLOT_HEIGHT: f64 = 300.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 12.0;
const BOTTOM: f64 = 40.0;
/// Percentiles with a mark, and the last one that is drawn: beyond it is a handful of requests.
const MARKS: [f64; 5] = [0.0, 50.0, 90.0, 99.0, 99.9];
const PERCENTILE_MAX: f64 = 99.9;

/// Latency by percentile: percentiles by their nines, latency by its magnitude.
pub(super) fn latency(lines: &[Line]) -> String {
    let shown = |line: &Line| {
        let points = line.points.iter().copied();
        let kept = points.filter(|(percentile, us)| *percentile <= PERCENTILE_MAX && *us > 0.0);
        kept.collect::<Vec<_>>()
    };
    let all: Vec<f64> = lines.iter().flat_map(shown).map(|(_, us)| us).collect();
    let low = all.iter().copied().fold(f64::INFINITY, f64::min);
    let high = all.iter().copied().fold(0.0, f64::max);
    if high <= 0.0 {
        return String::new();
    }
    let (low, high) = (low.log10() - 0.05, high.log10() + 0.05);
    let x = |percentile: f64| {
        let share = nines(percentile) / nines(PERCENTILE_MAX);
        LEFT + share * (WIDTH - LEFT - RIGHT)
    };
    let y = |us: f64| {
        let share = (us.log10() - low) / (high - low);
        PLOT_HEIGHT - BOTTOM - share * (PLOT_HEIGHT - TOP - BOTTOM)
    };
    let mut out = format!(
        "<svg viewBox=\"0 0 {WIDTH} {PLOT_HEIGHT}\" role=\"img\" aria-label=\"latency by percentile\">"
    );
    for us in round_values(low, high) {
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{LEFT} {0:.1}H{1}\"/><text class=\"tick\" x=\"{2}\" y=\"{0:.1}\" text-anchor=\"end\" dominant-baseline=\"central\">{3}</text>",
            y(us),
            WIDTH - RIGHT,
            LEFT - 6.0,
            time(us)
        );
    }
    for mark in MARKS {
        let _ = write!(
            out,
            "<path class=\"grid\" d=\"M{0:.1} {TOP}V{1}\"/><text class=\"tick\" x=\"{0:.1}\" y=\"{2}\" text-anchor=\"middle\">{mark}</text>",
            x(mark),
            PLOT_HEIGHT - BOTTOM,
            PLOT_HEIGHT - BOTTOM + 16.0,
        );
    }
    let _ = write!(
        out,
        "<text class=\"tick\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">percentile</text>",
        f64::midpoint(LEFT, WIDTH - RIGHT),
        PLOT_HEIGHT - 6.0
    );
    for line in lines {
        let points: Vec<String> = shown(line)
            .iter()
            .map(|(percentile, us)| format!("{:.1},{:.1}", x(*percentile), y(*us)))
            .collect();
        let _ = write!(
            out,
            "<polyline class=\"{}\" points=\"{}\"><title>{}</title></polyline>",
            line.class,
            points.join(" "),
            escape(&line.label)
        );
    }
    out + "</svg>"
}

/// How many nines a percentile has: 90 is one, 99 two.
fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).log10()
}

/// 1, 2, 5, 10, 20, 50 .. between two magnitudes.
fn round_values(low: f64, high: f64) -> Vec<f64> {
    let first = low.floor() as i32;
    let magnitudes = first..=high.ceil() as i32;
    magnitudes
        .flat_map(|magnitude| [1.0, 2.0, 5.0].map(|digit| digit * 10f64.powi(magnitude)))
        .filter(|value| (low..=high).contains(&value.log10()))
        .collect()
}

fn time(us: f64) -> String {
    if us >= 1e6 {
        format!("{} s", us / 1e6)
    } else if us >= 1e3 {
        format!("{} ms", us / 1e3)
    } else {
        format!("{us} us")
    }
}

/// Text that is text in markup too.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(svg: &str, before: &str) -> f64 {
        let (_, rest) = svg.split_once(before).unwrap();
        rest.split('"').next().unwrap().parse().unwrap()
    }

    #[test]
    fn a_bar_half_as_high_is_half_as_long() {
        let bar = |label: &str, median| Bar {
            class: label.to_owned(),
            label: label.to_owned(),
            spread: Spread {
                median,
                min: median,
                max: median,
            },
        };
        let svg = bars(&[bar("a", 40.0), bar("b<", 20.0)], Figure::CpuUs);
        let widths: Vec<f64> = svg
            .split("<rect ")
            .skip(1)
            .map(|rect| number(rect, "width=\""))
            .collect();
        assert!((widths[0] - 2.0 * widths[1]).abs() < 0.2, "{widths:?}");
        assert!(svg.contains("b&lt;") && !svg.contains("b<<"), "{svg}");
        assert_eq!(bars(&[bar("a", 0.0)], Figure::CpuUs), "");
    }

    #[test]
    fn lines_rise_to_the_right_and_stay_inside() {
        let line = Line {
            class: "l".to_owned(),
            label: "l".to_owned(),
            points: vec![(0.0, 10.0), (50.0, 100.0), (99.9, 5_000.0), (100.0, 1e9)],
        };
        let svg = latency(&[line]);
        let (_, rest) = svg.split_once("points=\"").unwrap();
        let points: Vec<(f64, f64)> = rest
            .split('"')
            .next()
            .unwrap()
            .split(' ')
            .map(|point| point.split_once(',').unwrap())
            .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
            .collect();
        assert_eq!(points.len(), 3, "the last is beyond the plot");
        assert!(
            points
                .windows(2)
                .all(|two| two[0].0 < two[1].0 && two[0].1 > two[1].1)
        );
        assert!(
            points
                .iter()
                .all(|(x, y)| (LEFT..=WIDTH).contains(x) && (TOP..=PLOT_HEIGHT).contains(y))
        );
        assert_eq!(latency(&[]), "");
    }

    #[test]
    fn marks_of_the_scale_are_round() {
        assert_eq!(round_values(1.0, 2.0), [10.0, 20.0, 50.0, 100.0]);
        assert_eq!(time(2_000.0), "2 ms");
    }
}
