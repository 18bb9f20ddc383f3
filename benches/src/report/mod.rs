//! What people and programs read: report.md, report.json, report.html.

mod html;
pub(crate) mod markdown;
mod plot;

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::suite::{Results, Standing, standings};

/// report.json: the results, and how the aims stand.
#[derive(Debug, Serialize)]
struct Whole<'a> {
    #[serde(flatten)]
    results: &'a Results,
    standings: Vec<Standing>,
}

/// Writes all three into `dir`.
pub(crate) fn write(results: &Results, dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    let whole = Whole {
        results,
        standings: standings(results),
    };
    fs::write(dir.join("report.md"), markdown::text(results))?;
    fs::write(dir.join("report.json"), serde_json::to_vec_pretty(&whole)?)?;
    fs::write(dir.join("report.html"), html::page(results))
}
