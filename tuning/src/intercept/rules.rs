//! The rules in their order, without a backend. The order *is* the correctness: swapping two steps
//! makes loops or bypasses. It is Istio's (`istio-iptables`, OUTPUT and PREROUTING), with the
//! difference that bare metal needs: ports are listed, and incoming rules only touch local addresses.

use super::spec::{Capture, Net, Ports};

/// Where a rule hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Connections that processes of this host open.
    Output,
    /// Connections that arrive.
    Prerouting,
}

/// One condition. Conditions of a rule are ANDed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// Leaves over the loopback interface.
    OutLoopback,
    /// Arrives over this interface.
    In(String),
    /// Source is this address.
    Source(Net),
    /// Destination is inside this block.
    Destination(Net),
    /// Destination is not a loopback address (127.0.0.0/8, ::1).
    DestinationNotLoopback,
    /// Destination is an address of this host.
    DestinationLocal,
    /// Destination port is one of these.
    Port(Vec<u16>),
    /// Destination port is none of these.
    PortNot(Vec<u16>),
    /// The socket belongs to this user.
    Uid(u32),
    /// The socket does not belong to this user.
    UidNot(u32),
    /// The socket belongs to this group.
    Gid(u32),
    /// The socket does not belong to this group.
    GidNot(u32),
    /// The socket was not made in this cgroup.
    CgroupNot(String),
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leave the connection alone.
    Return,
    /// To this port of this host.
    Redirect(u16),
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Where.
    pub hook: Hook,
    /// Why, in a few words; becomes the rule's comment.
    pub why: &'static str,
    /// When.
    pub when: Vec<Match>,
    /// What.
    pub then: Verdict,
}

/// All rules of a checked capture, in order.
#[must_use]
pub fn rules(capture: &Capture) -> Vec<Rule> {
    let mut rules = output(capture);
    rules.extend(prerouting(capture));
    rules
}

fn output(capture: &Capture) -> Vec<Rule> {
    let mut list = List {
        hook: Hook::Output,
        rules: Vec::new(),
    };
    if !capture.exclude_outbound.is_empty() {
        list.leave(
            "a excluded ports",
            vec![Match::Port(capture.exclude_outbound.clone())],
        );
    }
    for source in PASS_THROUGH {
        list.leave(
            "b sidecar to app",
            vec![Match::OutLoopback, Match::Source(source)],
        );
    }
    if let Some(uid) = capture.proxy_uid {
        list.proxy(capture, &Match::Uid(uid), Match::UidNot(uid));
    }
    if let Some(gid) = capture.proxy_gid {
        list.proxy(capture, &Match::Gid(gid), Match::GidNot(gid));
    }
    for uid in &capture.exclude_uids {
        list.leave("f excluded user", vec![Match::Uid(*uid)]);
    }
    let outsiders = outsiders(capture);
    if !outsiders.is_empty() {
        list.leave("f not of the captured", outsiders);
    }
    for net in LOOPBACK {
        list.leave("h loopback", vec![Match::Destination(net)]);
    }
    for net in &capture.exclude_nets {
        list.leave("i excluded block", vec![Match::Destination(*net)]);
    }
    list.redirect("j outbound", vec![], &capture.outbound, capture.outbound_to);
    list.rules
}

fn prerouting(capture: &Capture) -> Vec<Rule> {
    let mut list = List {
        hook: Hook::Prerouting,
        rules: Vec::new(),
    };
    list.leave("mesh port", vec![Match::Port(vec![capture.mesh_port])]);
    for name in &capture.exclude_interfaces {
        list.leave("excluded interface", vec![Match::In(name.clone())]);
    }
    if !capture.exclude_inbound.is_empty() {
        list.leave(
            "excluded ports",
            vec![Match::Port(capture.exclude_inbound.clone())],
        );
    }
    list.redirect(
        "inbound",
        vec![Match::DestinationLocal],
        &capture.inbound,
        capture.inbound_to,
    );
    list.rules
}

struct List {
    hook: Hook,
    rules: Vec<Rule>,
}

impl List {
    fn leave(&mut self, why: &'static str, when: Vec<Match>) {
        self.rules.push(Rule {
            hook: self.hook,
            why,
            when,
            then: Verdict::Return,
        });
    }

    fn redirect(&mut self, why: &'static str, mut when: Vec<Match>, ports: &Ports, to: u16) {
        match ports {
            Ports::Listed(ports) if ports.is_empty() => return,
            Ports::Listed(ports) => when.push(Match::Port(ports.clone())),
            Ports::All => when.push(Match::PortNot(Ports::NEVER.to_vec())),
        }
        self.rules.push(Rule {
            hook: self.hook,
            why,
            when,
            then: Verdict::Redirect(to),
        });
    }

    /// Steps c, d, e for one owner of the sidecar's sockets. c before e: a service that calls itself
    /// by its virtual address goes app -> outbound -> inbound -> app.
    fn proxy(&mut self, capture: &Capture, owner: &Match, other: Match) {
        let to_itself = vec![
            owner.clone(),
            Match::OutLoopback,
            Match::DestinationNotLoopback,
            Match::PortNot(vec![capture.mesh_port]),
        ];
        self.redirect(
            "c app calls itself",
            to_itself,
            &capture.inbound,
            capture.inbound_to,
        );
        self.leave("d app to app on loopback", vec![Match::OutLoopback, other]);
        self.leave("e sidecar's own", vec![owner.clone()]);
    }
}

/// The captured are listed users OR groups OR a cgroup; so one is an outsider who is none of them.
fn outsiders(capture: &Capture) -> Vec<Match> {
    let uids = capture.from_uids.iter().map(|uid| Match::UidNot(*uid));
    let gids = capture.from_gids.iter().map(|gid| Match::GidNot(*gid));
    let cgroup = capture.from_cgroup.iter().cloned().map(Match::CgroupNot);
    uids.chain(gids).chain(cgroup).collect()
}

const fn v4(a: u8, b: u8, c: u8, d: u8, bits: u8) -> Net {
    Net {
        address: std::net::IpAddr::V4(std::net::Ipv4Addr::new(a, b, c, d)),
        bits,
    }
}

const fn v6(last: u16) -> Net {
    Net {
        address: std::net::IpAddr::V6(std::net::Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, last)),
        bits: 128,
    }
}

/// Where a sidecar that must reach the app on its outside address binds its socket.
const PASS_THROUGH: [Net; 2] = [v4(127, 0, 0, 6, 32), v6(6)];
pub(super) const LOOPBACK: [Net; 2] = [v4(127, 0, 0, 0, 8), v6(1)];
