//! The plan: which text to feed to which program, in which order. Pure; can be shown (`--dry-run`).

use std::fmt;

use serde::Serialize;

use super::cgroup::SeenCgroup;
use super::routing::SeenRouting;
use super::spec::{Backend, Capture, Families, Mode, Name};
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
    /// `ip -4 -batch -`
    Ip4,
    /// `ip -6 -batch -`
    Ip6,
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
                Tool::Ip4 => "ip -4 -batch -",
                Tool::Ip6 => "ip -6 -batch -",
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
    /// Our lines in the v4 tables.
    pub v4: SeenIptables,
    /// Our lines in the v6 tables.
    pub v6: SeenIptables,
    /// What TPROXY mode needs of v4 routing.
    pub routing_v4: SeenRouting,
    /// What TPROXY mode needs of v6 routing.
    pub routing_v6: SeenRouting,
    /// Another capture of ours on this host is in TPROXY mode: the routing is its, too.
    pub routing_shared: bool,
    /// What became of the cgroup whose connections are captured.
    pub cgroup: SeenCgroup,
}

/// Our lines of `iptables-save`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SeenIptables {
    /// Of the nat table, as printed.
    pub lines: Vec<String>,
    /// Of the mangle table, as printed.
    pub mangle: Vec<String>,
}

/// Whether a capture is in place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Nothing of it is there.
    Down,
    /// It captures.
    Up,
    /// Something of it is there but no connection reaches it, or none of the cgroup it is for
    /// ([`Seen::lost_cgroup`]): `up` or `down` mends it.
    Broken,
}

impl SeenIptables {
    /// Picks our lines out of `iptables-save -t nat` and `iptables-save -t mangle`.
    #[must_use]
    pub fn pick(nat: &str, mangle: &str, name: &Name) -> Self {
        let ours = |saved| {
            let lines = iptables::ours(saved, name).into_iter();
            lines.map(str::to_owned).collect()
        };
        Self {
            lines: ours(nat),
            mangle: ours(mangle),
        }
    }

    /// Our lines of every table.
    pub fn all(&self) -> impl Iterator<Item = &String> {
        self.lines.iter().chain(&self.mangle)
    }

    fn is_empty(&self) -> bool {
        self.all().next().is_none()
    }

    const fn by_table(&self) -> [&[String]; 2] {
        [self.lines.as_slice(), self.mangle.as_slice()]
    }

    fn state(&self) -> State {
        let hooked = |lines: &[String]| {
            let jump = |line: &String| {
                line.starts_with("-A OUTPUT ") || line.starts_with("-A PREROUTING ")
            };
            lines.is_empty() || lines.iter().any(jump)
        };
        match (self.is_empty(), self.by_table().into_iter().all(hooked)) {
            (true, _) => State::Down,
            (false, true) => State::Up,
            (false, false) => State::Broken,
        }
    }
}

impl Seen {
    /// The cgroup of the rules and the number it had, as iptables tells them.
    pub(super) fn cgroup_of_iptables(&self) -> Option<(&str, u64)> {
        let mut lines = self.v4.lines.iter().chain(&self.v6.lines);
        lines.find_map(|line| iptables::cgroup_of(line))
    }

    /// Whether the rules are for a cgroup that is not there any more: its unit was stopped, or started anew.
    /// Nothing of it is captured.
    #[must_use]
    pub fn lost_cgroup(&self) -> bool {
        let made_for = self.cgroup_of_iptables();
        match self.cgroup {
            SeenCgroup::Unknown => false,
            SeenCgroup::Gone => true,
            SeenCgroup::Is(now) => made_for.is_some_and(|(_, number)| number != now),
        }
    }

    /// Up if any backend captures. TPROXY without its routing is broken: the app's answers are lost.
    #[must_use]
    pub fn state(&self) -> State {
        let lost =
            |captured: bool, routing: &SeenRouting| captured && routing.routed && !routing.works();
        let by_nft = self.nftables.as_deref().is_some_and(nft::is_tproxy);
        if lost(by_nft || !self.v4.mangle.is_empty(), &self.routing_v4)
            || lost(by_nft || !self.v6.mangle.is_empty(), &self.routing_v6)
        {
            return State::Broken;
        }
        if self.lost_cgroup() {
            return State::Broken;
        }
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
    let mut steps = routing_up(capture, seen);
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
                (Tool::IptablesRestore, false, &seen.v4),
                (Tool::Ip6tablesRestore, true, &seen.v6),
            ] {
                let wanted = wants(capture, v6);
                let input = if wanted {
                    iptables::up(capture, v6, present.by_table())
                } else {
                    iptables::down(&capture.name, present.by_table())
                };
                if input.is_empty() {
                    continue;
                }
                let undo = if wanted {
                    iptables::down(&capture.name, added(&input).by_table())
                } else {
                    String::new()
                };
                steps.push(Step { tool, input, undo });
            }
            steps.extend(nft_down(&capture.name, seen));
        }
    }
    steps.extend(routing_down(seen, |v6| {
        capture.mode == Mode::Redirect || !wants(capture, v6)
    }));
    Change { steps }
}

const fn wants(capture: &Capture, v6: bool) -> bool {
    match capture.families {
        Families::Both => true,
        Families::V4 => !v6,
        Families::V6 => v6,
    }
}

/// Removes all that `name` has on the host, whichever backend added it.
#[must_use]
pub fn plan_down(name: &Name, seen: &Seen) -> Change {
    Change {
        steps: nft_down(name, seen)
            .into_iter()
            .chain(iptables_down(name, seen))
            .chain(routing_down(seen, |_| true))
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
    .map(|(tool, present)| (tool, iptables::down(name, present.by_table())))
    .filter(|(_, input)| !input.is_empty())
    .map(|(tool, input)| Step {
        tool,
        input,
        undo: String::new(),
    })
    .collect()
}

const fn routings(seen: &Seen) -> [(Tool, bool, &SeenRouting); 2] {
    [
        (Tool::Ip4, false, &seen.routing_v4),
        (Tool::Ip6, true, &seen.routing_v6),
    ]
}

/// First: by itself it does nothing, as nothing has the mark.
fn routing_up(capture: &Capture, seen: &Seen) -> Vec<Step> {
    routings(seen)
        .into_iter()
        .filter(|(_, v6, _)| capture.mode == Mode::Tproxy && wants(capture, *v6))
        .map(|(tool, _, routing)| Step {
            tool,
            input: routing.up(),
            undo: routing.undo(),
        })
        .filter(|step| !step.input.is_empty())
        .collect()
}

/// Last, and only what no other capture needs.
fn routing_down(seen: &Seen, of: impl Fn(bool) -> bool) -> Vec<Step> {
    routings(seen)
        .into_iter()
        .filter(|(_, v6, _)| !seen.routing_shared && of(*v6))
        .map(|(tool, _, routing)| Step {
            tool,
            input: routing.down(),
            undo: String::new(),
        })
        .filter(|step| !step.input.is_empty())
        .collect()
}

/// What an `up` text leaves behind, for its undo: its own declarations and jumps.
fn added(input: &str) -> SeenIptables {
    let mut added = SeenIptables::default();
    let mut mangle = false;
    for line in input.lines() {
        match line.strip_prefix('*') {
            Some(table) => mangle = table == "mangle",
            None if line.starts_with(':') || line.starts_with("-A") => {
                let lines = match mangle {
                    true => &mut added.mangle,
                    false => &mut added.lines,
                };
                lines.push(line.to_owned());
            }
            None => {}
        }
    }
    added
}
