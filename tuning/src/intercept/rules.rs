//! The rules in their order, without a backend. The order *is* the correctness: swapping two steps
//! makes loops or bypasses. It is Istio's (`istio-iptables`, OUTPUT and PREROUTING), with the
//! difference that bare metal needs: ports are listed, and incoming rules only touch local addresses.

use super::spec::{Capture, Mode, Net, Ports};

/// What the sidecar puts on its connections to the app in TPROXY mode (SO_MARK): they come from the
/// client's address, and are known by it. Kept with the connection, so that the answers are known too.
pub const APP_MARK: u32 = 1338;
/// On packets that stay on this host although their destination is elsewhere: the app's answers to a
/// client's address, which are the sidecar's. Istio's number.
pub const STAY_MARK: u32 = 1337;
/// Kept with an arriving connection that TPROXY captures. Connections from before are left alone.
pub const CAPTURED_MARK: u32 = 1337;

/// Where a rule hangs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Connections that processes of this host open.
    Output,
    /// Connections that arrive.
    Prerouting,
    /// Every packet that arrives (TPROXY).
    Arriving,
    /// Every packet that leaves, before it is routed anew if its mark changes (TPROXY).
    Leaving,
}

/// One condition. Conditions of a rule are ANDed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// Leaves over the loopback interface.
    OutLoopback,
    /// Arrives over the loopback interface.
    InLoopback,
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
    CgroupNot {
        /// Where it is.
        path: String,
        /// Its number, if it is known.
        number: Option<u64>,
    },
    /// The packet has this mark.
    Mark(u32),
    /// The connection has this mark.
    ConnectionMark(u32),
    /// The packet begins a connection: also where connection tracking begins only now, and takes what is
    /// under way for new.
    New,
    /// The packet goes the other way than the connection's first.
    Answer,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Leave the connection alone.
    Return,
    /// To this port of this host.
    Redirect(u16),
    /// Marks the connection, and goes on.
    MarkConnection(u32),
    /// Marks the packet, and ends.
    MarkPacket(u32),
    /// To the socket that listens on this port and may take what is for others. Its connections are
    /// found by their own addresses first.
    Tproxy(u16),
    /// A reset, where the tool goes on after [`Verdict::Tproxy`] found nobody. iptables drops there.
    Refuse,
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
    match capture.mode {
        Mode::Redirect => rules.extend(prerouting(capture)),
        Mode::Tproxy => {
            rules.extend(arriving(capture));
            rules.extend(leaving());
        }
    }
    rules
}

fn output(capture: &Capture) -> Vec<Rule> {
    let mut list = List::of(Hook::Output);
    if !capture.exclude_outbound.is_empty() {
        list.leave(
            "a excluded ports",
            vec![Match::Port(capture.exclude_outbound.clone())],
        );
    }
    if capture.mode == Mode::Tproxy {
        list.leave("b sidecar to app", vec![Match::Mark(APP_MARK)]);
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
    let mut list = List::of(Hook::Prerouting);
    list.never_captured(capture);
    list.redirect(
        "inbound",
        vec![Match::DestinationLocal],
        &capture.inbound,
        capture.inbound_to,
    );
    list.rules
}

/// What arrives, every packet of it. Only what has the mark from its first packet on is captured, so
/// connections from before the rules go on; the mark also holds where the kernel keeps nothing of a
/// half-open connection (SYN cookies), whose last packet would else reach the app past the sidecar.
fn arriving(capture: &Capture) -> Vec<Rule> {
    let mut list = List::of(Hook::Arriving);
    list.leave("opened on this host", vec![Match::InLoopback]);
    list.never_captured(capture);
    for (why, condition, then) in [
        (
            "inbound begins",
            Match::New,
            Verdict::MarkConnection(CAPTURED_MARK),
        ),
        (
            "inbound",
            Match::ConnectionMark(CAPTURED_MARK),
            Verdict::Tproxy(capture.inbound_to),
        ),
        (
            "no sidecar",
            Match::ConnectionMark(CAPTURED_MARK),
            Verdict::Refuse,
        ),
    ] {
        let when = vec![Match::DestinationLocal];
        if let Some(mut when) = on_ports(when, &capture.inbound) {
            when.push(condition);
            list.add(why, when, then);
        }
    }
    list.rules
}

/// The app answers to the client's address, and its answers are the sidecar's. They are told first: a
/// host may have the app's sockets take over the mark of what they accepted (tcp_fwmark_accept).
fn leaving() -> Vec<Rule> {
    let mut list = List::of(Hook::Leaving);
    list.add(
        "app's answer to the sidecar",
        vec![Match::ConnectionMark(APP_MARK), Match::Answer],
        Verdict::MarkPacket(STAY_MARK),
    );
    list.add(
        "sidecar to app",
        vec![Match::Mark(APP_MARK)],
        Verdict::MarkConnection(APP_MARK),
    );
    list.rules
}

/// `None`: no port at all.
fn on_ports(mut when: Vec<Match>, ports: &Ports) -> Option<Vec<Match>> {
    match ports {
        Ports::Listed(ports) if ports.is_empty() => return None,
        Ports::Listed(ports) => when.push(Match::Port(ports.clone())),
        Ports::All => when.push(Match::PortNot(Ports::NEVER.to_vec())),
    }
    Some(when)
}

struct List {
    hook: Hook,
    rules: Vec<Rule>,
}

impl List {
    const fn of(hook: Hook) -> Self {
        Self {
            hook,
            rules: Vec::new(),
        }
    }

    fn add(&mut self, why: &'static str, when: Vec<Match>, then: Verdict) {
        self.rules.push(Rule {
            hook: self.hook,
            why,
            when,
            then,
        });
    }

    fn leave(&mut self, why: &'static str, when: Vec<Match>) {
        self.add(why, when, Verdict::Return);
    }

    fn redirect(&mut self, why: &'static str, when: Vec<Match>, ports: &Ports, to: u16) {
        if let Some(when) = on_ports(when, ports) {
            self.add(why, when, Verdict::Redirect(to));
        }
    }

    /// What arrives and is left alone in either mode.
    fn never_captured(&mut self, capture: &Capture) {
        self.leave("mesh port", vec![Match::Port(vec![capture.mesh_port])]);
        for name in &capture.exclude_interfaces {
            self.leave("excluded interface", vec![Match::In(name.clone())]);
        }
        if !capture.exclude_inbound.is_empty() {
            self.leave(
                "excluded ports",
                vec![Match::Port(capture.exclude_inbound.clone())],
            );
        }
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
    let cgroup = capture.from_cgroup.iter().map(|path| Match::CgroupNot {
        path: path.clone(),
        number: capture.cgroup_number,
    });
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
