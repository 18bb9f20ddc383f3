//! The rules as `iptables-restore --noflush` input, one text per family, and what of ours is
//! already there, read from `iptables-save -t nat`.

use std::fmt::Write as _;

use super::rules::{Hook, LOOPBACK, Match, Rule, Verdict, rules};
use super::spec::{Capture, Name, Net};

/// The built-in chain and our chain per hook.
const HOOKS: [(Hook, &str, &str); 2] = [
    (Hook::Output, "OUTPUT", "OUT"),
    (Hook::Prerouting, "PREROUTING", "IN"),
];

/// `multiport` takes this many ports.
const MULTIPORT_MAX: usize = 15;

fn chain_of(name: &Name, suffix: &str) -> String {
    format!("RINGMESH_{}_{suffix}", name.as_str())
}

/// The lines of `iptables-save -t nat` that are ours: chain declarations, rules in our chains, and
/// the jumps to them.
pub(super) fn ours<'a>(saved: &'a str, name: &Name) -> Vec<&'a str> {
    let chains: Vec<String> = HOOKS
        .iter()
        .map(|(_, _, suffix)| chain_of(name, suffix))
        .collect();
    let is_ours = |word: &str| {
        chains
            .iter()
            .any(|chain| word.trim_start_matches(':') == chain)
    };
    saved
        .lines()
        .filter(|line| line.split_whitespace().any(is_ours))
        .collect()
}

/// `-D` for each jump that is there, so that replacing and removing never leave two.
fn unhook(text: &mut String, lines: &[String]) {
    for (_, builtin, _) in HOOKS {
        let jump = format!("-A {builtin} ");
        for line in lines.iter().filter_map(|line| line.strip_prefix(&jump)) {
            let _ = writeln!(text, "-D {builtin} {line}");
        }
    }
}

/// Declaring a chain empties it under `--noflush`, and only it: so the text replaces what is there.
pub(super) fn up(capture: &Capture, v6: bool, present: &[String]) -> String {
    let mut text = "*nat\n".to_owned();
    for (_, _, suffix) in HOOKS {
        let _ = writeln!(text, ":{} - [0:0]", chain_of(&capture.name, suffix));
    }
    unhook(&mut text, present);
    let all = rules(capture);
    for (hook, builtin, suffix) in HOOKS {
        let chain = chain_of(&capture.name, suffix);
        for rule in all.iter().filter(|rule| rule.hook == hook) {
            for line in lines(rule, v6) {
                let _ = writeln!(text, "-A {chain} {line}");
            }
        }
        let _ = writeln!(text, "-A {builtin} -p tcp -j {chain}");
    }
    text.push_str("COMMIT\n");
    text
}

/// Empty when nothing of ours is there.
pub(super) fn down(name: &Name, present: &[String]) -> String {
    if present.is_empty() {
        return String::new();
    }
    let mut text = "*nat\n".to_owned();
    unhook(&mut text, present);
    let chains: Vec<String> = HOOKS
        .iter()
        .map(|(_, _, suffix)| chain_of(name, suffix))
        .filter(|chain| {
            present
                .iter()
                .any(|line| line.starts_with(&format!(":{chain} ")))
        })
        .collect();
    for verb in ["-F", "-X"] {
        for chain in &chains {
            let _ = writeln!(text, "{verb} {chain}");
        }
    }
    text.push_str("COMMIT\n");
    text
}

/// A rule whose addresses are all of the other family gives no line; long port lists give several.
fn lines(rule: &Rule, v6: bool) -> Vec<String> {
    let foreign = |when: &Match| match when {
        Match::Source(net) | Match::Destination(net) => net.address.is_ipv6() != v6,
        _ => false,
    };
    if rule.when.iter().any(foreign) {
        return Vec::new();
    }
    let ports = rule.when.iter().find_map(|when| match when {
        Match::Port(ports) if ports.len() > MULTIPORT_MAX => Some(ports),
        _ => None,
    });
    let Some(ports) = ports else {
        return vec![line(rule, v6, None)];
    };
    ports
        .chunks(MULTIPORT_MAX)
        .map(|chunk| line(rule, v6, Some(chunk)))
        .collect()
}

fn line(rule: &Rule, v6: bool, chunk: Option<&[u16]>) -> String {
    let mut text = "-p tcp ".to_owned();
    for when in &rule.when {
        let _ = write!(text, "{} ", condition(when, v6, chunk));
    }
    let verdict = match rule.then {
        Verdict::Return => "RETURN".to_owned(),
        Verdict::Redirect(port) => format!("REDIRECT --to-ports {port}"),
    };
    format!("{text}-m comment --comment \"{}\" -j {verdict}", rule.why)
}

fn condition(when: &Match, v6: bool, chunk: Option<&[u16]>) -> String {
    match when {
        Match::OutLoopback => "-o lo".to_owned(),
        Match::In(name) => format!("-i {name}"),
        Match::Source(net) => format!("-s {net}"),
        Match::Destination(net) => format!("-d {net}"),
        Match::DestinationNotLoopback => format!("! -d {}", loopback(v6)),
        Match::DestinationLocal => "-m addrtype --dst-type LOCAL".to_owned(),
        Match::Port(ports) => format!("-m multiport --dports {}", set(chunk.unwrap_or(ports))),
        Match::PortNot(ports) => format!("-m multiport ! --dports {}", set(ports)),
        Match::Uid(uid) => format!("-m owner --uid-owner {uid}"),
        Match::UidNot(uid) => format!("-m owner ! --uid-owner {uid}"),
        Match::Gid(gid) => format!("-m owner --gid-owner {gid}"),
        Match::GidNot(gid) => format!("-m owner ! --gid-owner {gid}"),
        Match::CgroupNot(path) => format!("-m cgroup ! --path {path}"),
    }
}

fn loopback(v6: bool) -> Net {
    LOOPBACK[usize::from(v6)]
}

fn set(ports: &[u16]) -> String {
    let words: Vec<String> = ports.iter().map(u16::to_string).collect();
    words.join(",")
}
