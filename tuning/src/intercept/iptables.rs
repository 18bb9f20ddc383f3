//! The rules as `iptables-restore --noflush` input, one text per family, and what of ours is
//! already there, read from `iptables-save -t TABLE`.

use std::fmt::Write as _;

use super::rules::{Hook, LOOPBACK, Match, Rule, Verdict, rules};
use super::spec::{Capture, Mode, Name, Net};

/// The tables we have chains in, as they are read and shown.
pub(super) const TABLES: [&str; 2] = ["nat", "mangle"];

/// Where a hook's rules are: the table, the built-in chain, the end of our chain's name.
struct Place {
    hook: Hook,
    table: &'static str,
    builtin: &'static str,
    suffix: &'static str,
}

const fn place(
    hook: Hook,
    table: &'static str,
    builtin: &'static str,
    suffix: &'static str,
) -> Place {
    Place {
        hook,
        table,
        builtin,
        suffix,
    }
}

const PLACES: [Place; 4] = [
    place(Hook::Output, "nat", "OUTPUT", "OUT"),
    place(Hook::Prerouting, "nat", "PREROUTING", "IN"),
    place(Hook::Arriving, "mangle", "PREROUTING", "TP"),
    place(Hook::Leaving, "mangle", "OUTPUT", "BACK"),
];

fn places(table: &str) -> impl Iterator<Item = &'static Place> {
    PLACES.iter().filter(move |place| place.table == table)
}

/// `multiport` takes this many ports.
const MULTIPORT_MAX: usize = 15;

fn chain_of(name: &Name, suffix: &str) -> String {
    format!("RINGMESH_{}_{suffix}", name.as_str())
}

/// The lines of `iptables-save -t TABLE` that are ours: chain declarations, rules in our chains, and
/// the jumps to them.
pub(super) fn ours<'a>(saved: &'a str, name: &Name) -> Vec<&'a str> {
    let chains: Vec<String> = PLACES
        .iter()
        .map(|place| chain_of(name, place.suffix))
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

/// The cgroup that a rule is about: its path, and its number when the rule was made.
pub(super) fn cgroup_of(line: &str) -> Option<(&str, u64)> {
    let path = line.split_once(" --path ")?.1.split(' ').next()?;
    let told = line
        .split_once("--comment \"cgroup ")?
        .1
        .split('"')
        .next()?;
    Some((path.trim_matches('"'), told.parse().ok()?))
}

/// Whether another capture of ours is in TPROXY mode, by `iptables-save -t mangle`.
pub(super) fn others_are_tproxy(saved: &str, name: &Name) -> bool {
    let own = format!(":{}", chain_of(name, "TP"));
    tproxy_chains(saved).any(|chain| chain != own)
}

/// Whether any capture of ours is.
pub(super) fn any_is_tproxy(saved: &str) -> bool {
    tproxy_chains(saved).next().is_some()
}

fn tproxy_chains(saved: &str) -> impl Iterator<Item = &str> {
    let declared = saved
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    declared.filter(|word| word.starts_with(":RINGMESH_") && word.ends_with("_TP"))
}

/// `-D` for each jump that is there, so that replacing and removing never leave two.
fn unhook(text: &mut String, table: &str, lines: &[String]) {
    for place in places(table) {
        let jump = format!("-A {} ", place.builtin);
        for line in lines.iter().filter_map(|line| line.strip_prefix(&jump)) {
            let _ = writeln!(text, "-D {} {line}", place.builtin);
        }
    }
}

/// Those of our chains that are declared in `lines`.
fn declared(name: &Name, table: &str, lines: &[String]) -> Vec<String> {
    places(table)
        .map(|place| chain_of(name, place.suffix))
        .filter(|chain| {
            lines
                .iter()
                .any(|line| line.starts_with(&format!(":{chain} ")))
        })
        .collect()
}

fn remove(text: &mut String, chains: &[String]) {
    for verb in ["-F", "-X"] {
        for chain in chains {
            let _ = writeln!(text, "{verb} {chain}");
        }
    }
}

/// One text for both tables; `present` are our lines of each. Each table is one change for the kernel,
/// and what captures is put in place before what captured is taken away.
pub(super) fn up(capture: &Capture, v6: bool, present: [&[String]; 2]) -> String {
    let mut tables: Vec<(&str, &[String])> = TABLES.into_iter().zip(present).collect();
    if capture.mode == Mode::Tproxy {
        tables.reverse();
    }
    let all = rules(capture);
    tables
        .into_iter()
        .map(|(table, lines)| up_in(table, capture, v6, &all, lines))
        .collect()
}

/// Declaring a chain empties it under `--noflush`, and only it: so the text replaces what is there.
fn up_in(table: &str, capture: &Capture, v6: bool, all: &[Rule], present: &[String]) -> String {
    let wanted: Vec<&Place> = places(table)
        .filter(|place| all.iter().any(|rule| rule.hook == place.hook))
        .collect();
    if wanted.is_empty() {
        return down_in(table, &capture.name, present);
    }
    let mut text = format!("*{table}\n");
    for place in &wanted {
        let _ = writeln!(text, ":{} - [0:0]", chain_of(&capture.name, place.suffix));
    }
    unhook(&mut text, table, present);
    for place in &wanted {
        let chain = chain_of(&capture.name, place.suffix);
        for rule in all.iter().filter(|rule| rule.hook == place.hook) {
            for line in lines(rule, v6) {
                let _ = writeln!(text, "-A {chain} {line}");
            }
        }
        let _ = writeln!(text, "-A {} -p tcp -j {chain}", place.builtin);
    }
    let mut left = declared(&capture.name, table, present);
    left.retain(|chain| {
        let is_of = |place: &&Place| chain_of(&capture.name, place.suffix) == *chain;
        !wanted.iter().any(is_of)
    });
    remove(&mut text, &left);
    text.push_str("COMMIT\n");
    text
}

/// Empty when nothing of ours is there.
pub(super) fn down(name: &Name, present: [&[String]; 2]) -> String {
    TABLES
        .into_iter()
        .zip(present)
        .map(|(table, lines)| down_in(table, name, lines))
        .collect()
}

fn down_in(table: &str, name: &Name, present: &[String]) -> String {
    if present.is_empty() {
        return String::new();
    }
    let mut text = format!("*{table}\n");
    unhook(&mut text, table, present);
    remove(&mut text, &declared(name, table, present));
    text.push_str("COMMIT\n");
    text
}

/// A rule whose addresses are all of the other family gives no line; long port lists give several.
fn lines(rule: &Rule, v6: bool) -> Vec<String> {
    let foreign = |when: &Match| match when {
        Match::Source(net) | Match::Destination(net) => net.address.is_ipv6() != v6,
        _ => false,
    };
    // TPROXY itself drops where it finds nobody.
    if rule.when.iter().any(foreign) || rule.then == Verdict::Refuse {
        return Vec::new();
    }
    let ports = rule.when.iter().find_map(|when| match when {
        Match::Port(ports) if ports.len() > MULTIPORT_MAX => Some(ports),
        _ => None,
    });
    let Some(ports) = ports else {
        return line(rule, v6, None);
    };
    ports
        .chunks(MULTIPORT_MAX)
        .flat_map(|chunk| line(rule, v6, Some(chunk)))
        .collect()
}

/// A target that goes on where the rule's verdict ends takes a second line that ends.
fn line(rule: &Rule, v6: bool, chunk: Option<&[u16]>) -> Vec<String> {
    let mut text = "-p tcp ".to_owned();
    for when in &rule.when {
        let _ = write!(text, "{} ", condition(when, v6, chunk));
    }
    let targets: Vec<String> = match rule.then {
        Verdict::Return => vec!["RETURN".to_owned()],
        Verdict::Redirect(port) => vec![format!("REDIRECT --to-ports {port}")],
        Verdict::MarkConnection(mark) => vec![format!("CONNMARK --set-mark {mark}")],
        Verdict::MarkPacket(mark) => {
            vec![format!("MARK --set-mark {mark}"), "RETURN".to_owned()]
        }
        Verdict::Tproxy(port) => vec![format!("TPROXY --on-port {port}")],
        Verdict::Refuse => Vec::new(),
    };
    targets
        .into_iter()
        .map(|target| format!("{text}-m comment --comment \"{}\" -j {target}", rule.why))
        .collect()
}

fn condition(when: &Match, v6: bool, chunk: Option<&[u16]>) -> String {
    match when {
        Match::OutLoopback => "-o lo".to_owned(),
        Match::InLoopback => "-i lo".to_owned(),
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
        Match::CgroupNot { path, number } => {
            let told = number.map(|number| format!("-m comment --comment \"cgroup {number}\" "));
            format!("{}-m cgroup ! --path {path}", told.unwrap_or_default())
        }
        Match::Mark(mark) => format!("-m mark --mark {mark}"),
        Match::ConnectionMark(mark) => format!("-m connmark --mark {mark}"),
        Match::New => "--syn -m conntrack --ctstate NEW".to_owned(),
        Match::Answer => "-m conntrack --ctdir REPLY".to_owned(),
    }
}

fn loopback(v6: bool) -> Net {
    LOOPBACK[usize::from(v6)]
}

fn set(ports: &[u16]) -> String {
    let words: Vec<String> = ports.iter().map(u16::to_string).collect();
    words.join(",")
}
