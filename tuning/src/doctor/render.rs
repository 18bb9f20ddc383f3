//! Findings for people and for programs.

use std::fmt::Write as _;

use serde_json::json;

use super::{Finding, Severity, must_fix};
use crate::probe::Facts;

/// A table for a terminal: verdict, check, what was found, and the fix on its own line.
#[must_use]
pub fn table(findings: &[Finding]) -> String {
    let width = findings
        .iter()
        .map(|finding| finding.check.len())
        .max()
        .unwrap_or(0);
    let mut text = String::new();
    for finding in findings {
        let verdict = match finding.severity {
            Severity::Good => "ok  ",
            Severity::Advice => "note",
            Severity::Must => "FIX ",
        };
        let _ = writeln!(
            text,
            "{verdict}  {:width$}  {}",
            finding.check, finding.found
        );
        if !finding.fix.is_empty() {
            let _ = writeln!(text, "      {:width$}  fix: {}", "", finding.fix);
        }
    }
    let count = |severity| {
        findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    };
    let _ = writeln!(
        text,
        "{} checks: {} must be fixed, {} note{}",
        findings.len(),
        count(Severity::Must),
        count(Severity::Advice),
        if count(Severity::Advice) == 1 {
            ""
        } else {
            "s"
        }
    );
    text
}

/// Facts and findings as one JSON value: `{"must_fix": bool, "findings": [..], "facts": {..}}`.
#[must_use]
pub fn json(facts: &Facts, findings: &[Finding]) -> serde_json::Value {
    json!({ "must_fix": must_fix(findings), "findings": findings, "facts": facts })
}
