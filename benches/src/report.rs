//! The table people read and the JSON programs read.

use std::fmt::Write;
use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::figures::{Round, Spread, spread};

/// All rounds of one proxy.
#[derive(Debug, Serialize)]
pub(crate) struct Contender {
    pub(crate) name: &'static str,
    pub(crate) version: String,
    pub(crate) rounds: Vec<Round>,
}

/// What is written.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) machine: String,
    pub(crate) load: String,
    pub(crate) contenders: Vec<Contender>,
    pub(crate) absent: Vec<String>,
}

impl Report {
    /// Writes `report.md` and `report.json` into `dir`; returns the table.
    pub(crate) fn write(&self, dir: &Path) -> io::Result<String> {
        fs::create_dir_all(dir)?;
        let text = self.to_markdown();
        fs::write(dir.join("report.md"), &text)?;
        fs::write(dir.join("report.json"), serde_json::to_vec_pretty(self)?)?;
        Ok(text)
    }

    fn to_markdown(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "# CPU per request\n\n{}\n\n{}\n",
            self.machine, self.load
        );
        out += "| proxy | CPU us/request: median (min to max) | requests/s | p50 us | p99 us | CPU against the first |\n";
        out += "| --- | --- | --- | --- | --- | --- |\n";
        let cpu = |c: &Contender| spread(c.rounds.iter().map(|r| r.cpu_us));
        let first = self.contenders.first().map(cpu);
        for contender in &self.contenders {
            let Spread { median, min, max } = cpu(contender);
            let of = |get: fn(&Round) -> f64| spread(contender.rounds.iter().map(get)).median;
            let ratio = first.map_or(1.0, |first| median / first.median);
            let _ = writeln!(
                out,
                "| {} ({}) | **{median:.1}** ({min:.1} to {max:.1}) | {:.0} | {:.0} | {:.0} | {ratio:.2} |",
                contender.name,
                contender.version,
                of(|r| r.rps),
                of(|r| r.p50_us),
                of(|r| r.p99_us),
            );
        }
        for absent in &self.absent {
            let _ = writeln!(out, "\nNot measured: {absent}.");
        }
        out
    }
}
