//! The plan: which text to feed to which program, in which order. Pure; can be shown (`--dry-run`).

use std::fmt;

use serde::Serialize;

use super::spec::{Backend, Capture, Families, Name};
use super::{iptables, nft};

/// A program that changes rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Tool {
    /// `nft -f -`
    Nft,
    /// `iptables-restore --noflush`
    IptablesRestore,
    /// `ip6tables-restore --noflush`
    Ip6tablesRestore,
}

/// Text for one program: applied whole or not at all by that program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The program.
    pub tool: Tool,
    /// Its standard input.
    pub input: String,
    /// What takes this step back, should a later one fail.
    pub undo: String,
}

/// Steps in order. Empty: there is nothing to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// The steps.
    pub steps: Vec<Step>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.steps.is_empty() {
            return f.write_str("# nothing to do\n");
        }
        for step in &self.steps {
            let program = match step.tool {
                Tool::Nft => "nft -f -",
                Tool::IptablesRestore => "iptables-restore --noflush",
                Tool::Ip6tablesRestore => "ip6tables-restore --noflush",
            };
            write!(f, "# {program}\n{}", step.input)?;
        }
        Ok(())
    }
}

/// What of a capture is on the host now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Seen {
    /// The listing of our nftables table, with counters; `None`: no such table.
    pub nftables: Option<String>,
    /// Our lines in the v4 nat table.
    pub v4: SeenIptables,
    /// Our lines in the v6 nat table.
    pub v6: SeenIptables,
}

/// Our lines of one `iptables-save -t nat`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SeenIptables {
    /// Lines as printed.
    pub lines: Vec<String>,
}

/// Whether a capture is in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing of it is there.
    Down,
    /// It captures.
    Up,
    /// Something of it is there but no connection reaches it: `up` or `down` mends it.
    Broken,
}

impl SeenIptables {
    /// Picks our lines out of `iptables-save -t nat`.
    #[must_use]
    pub fn pick(saved: &str, name: &Name) -> Self {
        Self {
            lines: iptables::ours(saved, name)
                .into_iter()
                .map(str::to_owned)
                .collect(),
        }
    }

    fn state(&self) -> State {
        let hooked = self
            .lines
            .iter()
            .any(|line| line.starts_with("-A OUTPUT ") || line.starts_with("-A PREROUTING "));
        match (self.lines.is_empty(), hooked) {
            (true, _) => State::Down,
            (false, true) => State::Up,
            (false, false) => State::Broken,
        }
    }
}

impl Seen {
    /// Up if any backend captures.
    #[must_use]
    pub fn state(&self) -> State {
        let states = [self.v4.state(), self.v6.state()];
        if self.nftables.is_some() || states.contains(&State::Up) {
            State::Up
        } else if states.contains(&State::Broken) {
            State::Broken
        } else {
            State::Down
        }
    }
}

/// Puts `capture` in place, replacing what its name has there now.
#[must_use]
pub fn plan_up(capture: &Capture, seen: &Seen) -> Change {
    let mut steps = Vec::new();
    match capture.backend {
        Backend::Nftables => {
            steps.push(Step {
                tool: Tool::Nft,
                input: nft::up(capture),
                undo: nft::down(&capture.name),
            });
            // Taken down only after the new table stands: no moment without capture.
            steps.extend(iptables_down(&capture.name, seen));
        }
        Backend::Iptables => {
            for (tool, v6, present) in [
                (Tool::IptablesRestore, false, &seen.v4.lines),
                (Tool::Ip6tablesRestore, true, &seen.v6.lines),
            ] {
                let wanted = match capture.families {
                    Families::Both => true,
                    Families::V4 => !v6,
                    Families::V6 => v6,
                };
                let input = if wanted {
                    iptables::up(capture, v6, present)
                } else {
                    iptables::down(&capture.name, present)
                };
                if input.is_empty() {
                    continue;
                }
                let undo = if wanted {
                    iptables::down(&capture.name, &added(&input))
                } else {
                    String::new()
                };
                steps.push(Step { tool, input, undo });
            }
            steps.extend(nft_down(&capture.name, seen));
        }
    }
    Change { steps }
}

/// Removes all that `name` has on the host, whichever backend added it.
#[must_use]
pub fn plan_down(name: &Name, seen: &Seen) -> Change {
    Change {
        steps: nft_down(name, seen)
            .into_iter()
            .chain(iptables_down(name, seen))
            .collect(),
    }
}

fn nft_down(name: &Name, seen: &Seen) -> Option<Step> {
    seen.nftables.as_ref().map(|_| Step {
        tool: Tool::Nft,
        input: nft::down(name),
        undo: String::new(),
    })
}

fn iptables_down(name: &Name, seen: &Seen) -> Vec<Step> {
    [
        (Tool::IptablesRestore, &seen.v4),
        (Tool::Ip6tablesRestore, &seen.v6),
    ]
    .into_iter()
    .map(|(tool, present)| (tool, iptables::down(name, &present.lines)))
    .filter(|(_, input)| !input.is_empty())
    .map(|(tool, input)| Step {
        tool,
        input,
        undo: String::new(),
    })
    .collect()
}

/// What an `up` text leaves behind, for its undo: its own declarations and jumps.
fn added(input: &str) -> Vec<String> {
    input
        .lines()
        .filter(|line| line.starts_with([':', '-']) && !line.starts_with("-D"))
        .map(str::to_owned)
        .collect()
}
