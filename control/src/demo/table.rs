//! Prints the table: progress while rows are played, each row when it is done, a summary.

use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use ringmesh_tuning::stdout;

use super::rows::Row;
use super::stage::cleanup;

/// A line on standard output; where that fails nothing of the stage may stay behind.
macro_rules! say {
    ($format:literal $($arguments:tt)*) => {{
        let line = format_args!($format $($arguments)*);
        if let Err(error) = stdout::try_write(format_args!("{line}\n")) {
            cleanup::all_and_exit(stdout::failed(&error));
        }
    }};
}

/// The outcome of a row.
#[derive(Clone, Debug)]
pub(super) enum Verdict {
    /// What was expected was seen.
    AsExpected(String),
    /// Something else was seen.
    Differs(String),
    /// The row could not be played to its end.
    Failed(String),
    /// This machine cannot; the reason. Does not make the exit status 1.
    LeftOut(String),
    /// This part of the mesh does not exist yet.
    NotBuilt,
}

impl Verdict {
    const fn word(&self) -> &'static str {
        match self {
            Self::AsExpected(_) => "as expected",
            Self::Differs(_) => "DIFFERS",
            Self::Failed(_) => "FAILED",
            Self::LeftOut(_) => "left out",
            Self::NotBuilt => "NOT BUILT",
        }
    }

    fn seen(&self) -> &str {
        match self {
            Self::AsExpected(text)
            | Self::Differs(text)
            | Self::Failed(text)
            | Self::LeftOut(text) => text,
            Self::NotBuilt => "-",
        }
    }

    const fn is_good(&self) -> bool {
        matches!(self, Self::AsExpected(_) | Self::LeftOut(_))
    }
}

#[derive(Debug)]
pub(super) struct Table {
    start: Instant,
    rows: usize,
    done: Vec<(Row, Verdict)>,
}

impl Table {
    pub(super) fn begin(rows: usize) -> Self {
        Self {
            start: Instant::now(),
            rows,
            done: Vec::new(),
        }
    }

    /// Something that takes a moment begins.
    pub(super) fn note(&self, what: &str) {
        let elapsed = self.start.elapsed().as_secs();
        ringmesh_tuning::errln!("[{elapsed:3} s] {what}");
    }

    /// A row begins.
    pub(super) fn playing(&self, row: &Row) {
        if std::io::stderr().is_terminal() {
            self.note(&format!(
                "row {} of {}: {} ...",
                self.done.len() + 1,
                self.rows,
                row.name
            ));
        }
    }

    /// A row is done: prints it.
    pub(super) fn add(&mut self, row: &Row, verdict: Verdict, took: Duration) {
        cleanup::not_interrupted();
        say!(
            "\n{}  {}  ({:.1} s)\n  rule      {}\n  asked     {}\n  expected  {}\n  seen      {}\n  verdict   {}",
            self.done.len() + 1,
            row.name,
            took.as_secs_f64(),
            row.rule,
            row.asked,
            row.expected,
            verdict.seen().replace('\n', "\n            "),
            verdict.word(),
        );
        self.done.push((*row, verdict));
    }

    /// Prints the summary; whether every row is as expected.
    pub(super) fn end(&self) -> bool {
        say!("\n{:16} {:46} verdict", "row", "rule");
        for (row, verdict) in &self.done {
            say!("{:16} {:46} {}", row.name, row.rule, verdict.word());
        }
        let good = self
            .done
            .iter()
            .filter(|(_, verdict)| verdict.is_good())
            .count();
        let left_out = self
            .done
            .iter()
            .filter(|(_, verdict)| matches!(verdict, Verdict::LeftOut(_)))
            .count();
        say!(
            "\n{} rows: {} as expected, {} not, {left_out} left out; {} s",
            self.done.len(),
            good - left_out,
            self.done.len() - good,
            self.start.elapsed().as_secs()
        );
        good == self.done.len()
    }
}
