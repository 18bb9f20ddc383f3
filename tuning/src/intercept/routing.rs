//! Policy routing that TPROXY mode needs: what carries [`STAY_MARK`] is delivered on this host,
//! whatever its destination. One rule and one route per family, the same for every capture of the
//! host: so the last capture in TPROXY mode takes them away.

use serde::Serialize;

use super::rules::STAY_MARK;

/// Number of the routing table, Istio's.
pub const TABLE: u32 = 133;
/// Place of the rule: behind the table of local addresses, before what VPNs put in.
pub const PRIORITY: u32 = 133;

const ROUTE: &str = "local default dev lo";

/// What of it is there for one family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct SeenRouting {
    /// The kernel routes this family at all.
    pub routed: bool,
    /// Our rule.
    pub rule: bool,
    /// Somebody else's rule leads to the same table.
    pub foreign_rule: bool,
    /// The route.
    pub route: bool,
}

impl SeenRouting {
    /// Reads `ip -N rule show` and `ip route show table 133`.
    #[must_use]
    pub fn read(rules: &str, routes: &str) -> Self {
        let mut seen = Self {
            routed: true,
            route: routes.lines().any(|line| line.trim().starts_with(ROUTE)),
            ..Self::default()
        };
        let own = [
            format!("{PRIORITY}:"),
            format!("from all fwmark {STAY_MARK:#x} lookup {TABLE}"),
        ];
        for line in rules.lines() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let Some((place, rest)) = words.split_first() else {
                continue;
            };
            if *place == own[0] && rest.join(" ") == own[1] {
                seen.rule = true;
            } else if rest.ends_with(&["lookup", &TABLE.to_string()]) {
                seen.foreign_rule = true;
            }
        }
        seen
    }

    /// Whether what carries the mark stays here.
    #[must_use]
    pub const fn works(&self) -> bool {
        self.rule && self.route
    }

    /// Batch lines of `ip` that add what is missing; the route before what leads to it.
    pub(super) fn up(&self) -> String {
        let mut text = String::new();
        if self.routed && !self.route {
            text.push_str(&route("add"));
        }
        if self.routed && !self.rule {
            text.push_str(&rule("add"));
        }
        text
    }

    /// Batch lines that take away what is ours.
    pub(super) fn down(&self) -> String {
        let mut text = String::new();
        if self.rule {
            text.push_str(&rule("del"));
        }
        // Without any rule it is what a crash between the two left.
        if self.route && !self.foreign_rule {
            text.push_str(&route("del"));
        }
        text
    }

    /// Batch lines that take back what [`Self::up`] adds.
    pub(super) fn undo(&self) -> String {
        let mut text = String::new();
        if self.routed && !self.rule {
            text.push_str(&rule("del"));
        }
        if self.routed && !self.route {
            text.push_str(&route("del"));
        }
        text
    }
}

fn rule(verb: &str) -> String {
    format!("rule {verb} fwmark {STAY_MARK} lookup {TABLE} pref {PRIORITY}\n")
}

fn route(verb: &str) -> String {
    format!("route {verb} {ROUTE} table {TABLE}\n")
}
