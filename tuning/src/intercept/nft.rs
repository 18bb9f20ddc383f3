//! The rules as one nftables transaction.

use std::fmt::Write as _;
use std::net::IpAddr;

use super::rules::{Hook, LOOPBACK, Match, Rule, Verdict, rules};
use super::spec::{Capture, Families, Name, Net};

/// The chain that a table has in TPROXY mode, and only then.
const ARRIVING: &str = "arriving";

/// Whether a listing of our table is that of TPROXY mode.
pub(super) fn is_tproxy(listing: &str) -> bool {
    let chain = format!("chain {ARRIVING} {{");
    listing.lines().any(|line| line.trim() == chain)
}

/// Whether a rule of a listing holds a cgroup that no path leads to: its number is printed instead.
pub(super) fn holds_unnamed_cgroup(listing: &str) -> bool {
    let holds = |line: &str| {
        let mut words = line
            .split_whitespace()
            .skip_while(|word| *word != "cgroupv2");
        // cgroupv2 level N [!=] "PATH"
        let cgroup = words.nth(3).map(|word| match word {
            "!=" => words.next().unwrap_or_default(),
            word => word,
        });
        cgroup.is_some_and(|word| word.parse::<u64>().is_ok())
    };
    listing.lines().any(holds)
}

/// Whether another table of ours is in TPROXY mode, by `nft list chains inet`.
pub(super) fn others_are_tproxy(chains: &str, name: &Name) -> bool {
    let own = table_of(name);
    tproxy_tables(chains).any(|table| table != own)
}

/// Whether any table of ours is.
pub(super) fn any_is_tproxy(chains: &str) -> bool {
    tproxy_tables(chains).next().is_some()
}

fn tproxy_tables(chains: &str) -> impl Iterator<Item = &str> {
    let chain = format!("chain {ARRIVING} {{");
    let mut table = "";
    chains.lines().map(str::trim).filter_map(move |line| {
        if let Some(begun) = line.strip_prefix("table inet ") {
            table = begun.trim_end_matches(" {");
        }
        (line == chain && table.starts_with("ringmesh_")).then_some(table)
    })
}

pub(super) fn table_of(name: &Name) -> String {
    format!("ringmesh_{}", name.as_str())
}

/// Adds the (maybe absent) table, deletes it, adds it anew: one transaction, the same result
/// whether it was there or not.
pub(super) fn up(capture: &Capture) -> String {
    let table = table_of(&capture.name);
    let mut text =
        format!("table inet {table}\ndelete table inet {table}\ntable inet {table} {{\n");
    let all = rules(capture);
    for (hook, chain, line) in [
        (
            Hook::Output,
            "output",
            "type nat hook output priority -100; policy accept;",
        ),
        (
            Hook::Prerouting,
            "prerouting",
            "type nat hook prerouting priority dstnat; policy accept;",
        ),
        (
            Hook::Arriving,
            ARRIVING,
            "type filter hook prerouting priority mangle; policy accept;",
        ),
        (
            Hook::Leaving,
            "leaving",
            "type route hook output priority mangle; policy accept;",
        ),
    ] {
        if !all.iter().any(|rule| rule.hook == hook) {
            continue;
        }
        let _ = writeln!(
            text,
            "\tchain {chain} {{\n\t\t{line}\n\t\tmeta l4proto != tcp return"
        );
        match capture.families {
            Families::Both => {}
            Families::V4 => text.push_str("\t\tmeta nfproto != ipv4 return\n"),
            Families::V6 => text.push_str("\t\tmeta nfproto != ipv6 return\n"),
        }
        for rule in all.iter().filter(|rule| rule.hook == hook) {
            for line in lines(rule) {
                let _ = writeln!(text, "\t\t{line}");
            }
        }
        text.push_str("\t}\n");
    }
    text.push_str("}\n");
    text
}

pub(super) fn down(name: &Name) -> String {
    let table = table_of(name);
    format!("table inet {table}\ndelete table inet {table}\n")
}

/// "Not loopback" is a different expression per family, so such a rule becomes two lines.
fn lines(rule: &Rule) -> Vec<String> {
    if !rule.when.contains(&Match::DestinationNotLoopback) {
        return vec![line(rule, None)];
    }
    LOOPBACK.iter().map(|net| line(rule, Some(*net))).collect()
}

fn line(rule: &Rule, loopback: Option<Net>) -> String {
    let mut text = String::new();
    for when in &rule.when {
        let _ = write!(text, "{} ", condition(when, loopback));
    }
    let verdict = match rule.then {
        Verdict::Return => "return".to_owned(),
        Verdict::Redirect(port) => format!("counter redirect to :{port}"),
        Verdict::MarkConnection(mark) => format!("ct mark set {mark}"),
        Verdict::MarkPacket(mark) => format!("counter meta mark set {mark} return"),
        Verdict::Tproxy(port) => format!("counter tproxy to :{port} accept"),
        Verdict::Refuse => "counter reject with tcp reset".to_owned(),
    };
    format!("{text}{verdict} comment \"{}\"", rule.why)
}

fn condition(when: &Match, loopback: Option<Net>) -> String {
    match when {
        Match::OutLoopback => "oifname \"lo\"".to_owned(),
        Match::InLoopback => "iifname \"lo\"".to_owned(),
        Match::In(name) => format!("iifname \"{name}\""),
        Match::Source(net) => format!("{} saddr {}", family(*net), block(*net)),
        Match::Destination(net) => format!("{} daddr {}", family(*net), block(*net)),
        Match::DestinationNotLoopback => {
            let net = loopback.unwrap_or(LOOPBACK[0]);
            format!("{} daddr != {}", family(net), block(net))
        }
        Match::DestinationLocal => "fib daddr type local".to_owned(),
        Match::Port(ports) => format!("tcp dport {}", set(ports)),
        Match::PortNot(ports) => format!("tcp dport != {}", set(ports)),
        Match::Uid(uid) => format!("meta skuid {uid}"),
        Match::UidNot(uid) => format!("meta skuid != {uid}"),
        Match::Gid(gid) => format!("meta skgid {gid}"),
        Match::GidNot(gid) => format!("meta skgid != {gid}"),
        Match::CgroupNot { path, .. } => {
            let level = path.split('/').count();
            format!("socket cgroupv2 level {level} != \"{path}\"")
        }
        Match::Mark(mark) => format!("meta mark {mark}"),
        Match::ConnectionMark(mark) => format!("ct mark {mark}"),
        Match::New => "tcp flags & (fin | syn | rst | ack) == syn ct state new".to_owned(),
        Match::Answer => "ct direction reply".to_owned(),
    }
}

fn family(net: Net) -> &'static str {
    if net.address.is_ipv4() { "ip" } else { "ip6" }
}

fn block(net: Net) -> String {
    let whole = match net.address {
        IpAddr::V4(_) => net.bits == 32,
        IpAddr::V6(_) => net.bits == 128,
    };
    if whole {
        net.address.to_string()
    } else {
        net.to_string()
    }
}

fn set(ports: &[u16]) -> String {
    let words: Vec<String> = ports.iter().map(u16::to_string).collect();
    format!("{{ {} }}", words.join(", "))
}
