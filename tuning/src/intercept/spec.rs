//! What the user wants captured, checked.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::Serialize;

/// Which firewall tool to use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Backend {
    /// `nft`, one table of the inet family.
    Nftables,
    /// `iptables-restore` and `ip6tables-restore`, own chains in the nat table.
    Iptables,
}

/// Which address families are captured.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Families {
    /// IPv4 and IPv6.
    #[default]
    Both,
    /// IPv4 only.
    V4,
    /// IPv6 only.
    V6,
}

/// How arriving connections get to the sidecar. Outgoing ones are always redirected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// REDIRECT: the app sees the sidecar as its client.
    #[default]
    Redirect,
    /// TPROXY: the app sees the client's own address. The sidecar's inbound listener has to be told
    /// (`inbound_mode: tproxy`).
    Tproxy,
}

/// Names one capture on this host: lower-case letters, digits and `_`, 1 to 14 bytes. The bound
/// comes from iptables, whose chain names end at 28 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Name(String);

/// An address block, `10.0.0.0/8` or a bare address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Net {
    /// Network address.
    pub address: IpAddr,
    /// Prefix length in bits.
    pub bits: u8,
}

/// Which destination ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Ports {
    /// Exactly these; may be empty (none).
    Listed(Vec<u16>),
    /// Every port but the excluded ones and those that are never captured ([`Ports::NEVER`]).
    All,
}

impl Ports {
    /// Never captured by `*`: ssh, and the sidecar's and control service's own ports. Locking
    /// oneself out of a machine is worse than a port that must be listed by hand.
    pub const NEVER: [u16; 7] = [22, 15000, 15001, 15006, 15008, 15012, 15014];

    fn is_none(&self) -> bool {
        matches!(self, Self::Listed(ports) if ports.is_empty())
    }
}

/// A capture, as wished. [`Capture::check`] must pass before it is planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Capture {
    /// Names it, so that it is found again.
    pub name: Name,
    /// Tool.
    pub backend: Backend,
    /// Address families.
    pub families: Families,
    /// How arriving connections are captured.
    pub mode: Mode,
    /// Where captured outgoing connections go (15001).
    pub outbound_to: u16,
    /// Where captured incoming connections go: 15006, or the same as `outbound_to` (one port for both).
    pub inbound_to: u16,
    /// The sidecar's mesh port (15008): never captured.
    pub mesh_port: u16,
    /// Outgoing connections to these ports are captured.
    pub outbound: Ports,
    /// Incoming connections to these ports are captured.
    pub inbound: Ports,
    /// User id the sidecar runs as: never captured.
    pub proxy_uid: Option<u32>,
    /// Group id the sidecar runs as: never captured.
    pub proxy_gid: Option<u32>,
    /// Only outgoing connections of these users are captured ...
    pub from_uids: Vec<u32>,
    /// ... or of these groups ...
    pub from_gids: Vec<u32>,
    /// ... or of this cgroup (v2 path below the root, no leading slash). All three empty: everyone's.
    pub from_cgroup: Option<String>,
    /// The number of that cgroup now ([`Host::cgroup_number`](super::Host::cgroup_number)), so that it is found
    /// out later when there is a newer one at its path; `None`: iptables rules cannot tell.
    pub cgroup_number: Option<u64>,
    /// Outgoing connections of these users are never captured.
    pub exclude_uids: Vec<u32>,
    /// Outgoing connections to these ports are never captured.
    pub exclude_outbound: Vec<u16>,
    /// Incoming connections to these ports are never captured.
    pub exclude_inbound: Vec<u16>,
    /// Outgoing connections to these blocks are never captured.
    pub exclude_nets: Vec<Net>,
    /// Incoming connections over these interfaces are never captured.
    pub exclude_interfaces: Vec<String>,
}

impl Capture {
    /// A capture of nothing with the usual ports, to be filled in.
    #[must_use]
    pub const fn new(name: Name, backend: Backend) -> Self {
        Self {
            name,
            backend,
            families: Families::Both,
            mode: Mode::Redirect,
            outbound_to: 15001,
            inbound_to: 15006,
            mesh_port: 15008,
            outbound: Ports::Listed(Vec::new()),
            inbound: Ports::Listed(Vec::new()),
            proxy_uid: None,
            proxy_gid: None,
            from_uids: Vec::new(),
            from_gids: Vec::new(),
            from_cgroup: None,
            cgroup_number: None,
            exclude_uids: Vec::new(),
            exclude_outbound: Vec::new(),
            exclude_inbound: Vec::new(),
            exclude_nets: Vec::new(),
            exclude_interfaces: Vec::new(),
        }
    }

    /// Refuses wishes that would make a loop, capture nothing, or capture a whole host by accident.
    ///
    /// # Errors
    /// The field and what would be right.
    pub fn check(&self) -> Result<(), SpecError> {
        let wrong = |field, what: &str| {
            Err(SpecError {
                field,
                what: what.to_owned(),
            })
        };
        if self.outbound.is_none() && self.inbound.is_none() {
            return wrong(
                "outbound",
                "nothing to capture: list ports, here or in --inbound",
            );
        }
        if !self.outbound.is_none() && self.proxy_uid.is_none() && self.proxy_gid.is_none() {
            return wrong(
                "proxy-uid",
                "without the sidecar's user or group its own calls would be captured again and again",
            );
        }
        if [self.outbound_to, self.inbound_to, self.mesh_port].contains(&0) {
            return wrong("port", "0 is no port; would be right: 1 to 65535");
        }
        if self.mode == Mode::Tproxy && self.inbound.is_none() {
            return wrong(
                "mode",
                "tproxy is for arriving connections: list inbound ports",
            );
        }
        if self.mode == Mode::Tproxy && self.inbound_to == self.outbound_to {
            return wrong(
                "inbound-to",
                "with tproxy arriving connections need a port of the sidecar for themselves, as 15006",
            );
        }
        if self.outbound == Ports::All && self.captures_everyone() {
            return wrong(
                "outbound",
                "every port of every process would be captured, ssh sessions' and node agents' too; \
                 name users, groups or a cgroup, or list the ports",
            );
        }
        if self
            .proxy_uid
            .is_some_and(|uid| self.from_uids.contains(&uid))
        {
            return wrong("from-uid", "is the sidecar's own user");
        }
        if self
            .from_cgroup
            .as_deref()
            .is_some_and(|path| !is_cgroup_path(path))
        {
            return wrong(
                "from-cgroup",
                "would be right: a path below the cgroup root, as system.slice/app.service",
            );
        }
        if self
            .exclude_interfaces
            .iter()
            .any(|name| !is_interface(name))
        {
            return wrong(
                "exclude-interface",
                "would be right: 1 to 15 letters, digits, `.`, `_` or `-`",
            );
        }
        Ok(())
    }

    fn captures_everyone(&self) -> bool {
        self.from_uids.is_empty() && self.from_gids.is_empty() && self.from_cgroup.is_none()
    }
}

/// A wish that is refused, by field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpecError {
    /// The option's name.
    pub field: &'static str,
    /// What is wrong and what would be right.
    pub what: String,
}

impl fmt::Display for SpecError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.what)
    }
}

impl std::error::Error for SpecError {}

impl Name {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const NAME_BYTES_MAX: usize = 14;

impl FromStr for Name {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let fits = (1..=NAME_BYTES_MAX).contains(&text.len());
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
        if fits && text.bytes().all(plain) {
            return Ok(Self(text.to_owned()));
        }
        Err(SpecError {
            field: "name",
            what: format!("{text:?}; would be right: 1 to {NAME_BYTES_MAX} of a-z, 0-9 and _"),
        })
    }
}

impl FromStr for Net {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Self, SpecError> {
        let wrong = || SpecError {
            field: "exclude-cidr",
            what: format!("{text:?}; would be right: 10.0.0.0/8, fd00::/8 or one address"),
        };
        let (address, bits) = text
            .split_once('/')
            .map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let widest = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(widest), str::parse).map_err(|_| wrong())?;
        if bits > widest {
            return Err(wrong());
        }
        Ok(Self { address, bits })
    }
}

impl fmt::Display for Net {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

impl FromStr for Ports {
    type Err = SpecError;

    /// `*`, or `80,443,9080`.
    fn from_str(text: &str) -> Result<Self, SpecError> {
        if text == "*" {
            return Ok(Self::All);
        }
        let parse = |word: &str| match word.trim().parse::<u16>() {
            Ok(port) if port > 0 => Ok(port),
            _ => Err(SpecError {
                field: "ports",
                what: format!(
                    "{word:?}; would be right: `*` or ports separated by commas, as 80,9080"
                ),
            }),
        };
        text.split(',')
            .map(parse)
            .collect::<Result<_, _>>()
            .map(Self::Listed)
    }
}

fn is_cgroup_path(path: &str) -> bool {
    let plain = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    let parts = || path.split('/');
    !path.is_empty()
        && path.bytes().all(plain)
        && parts().all(|part| !part.is_empty() && part != "..")
}

fn is_interface(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    (1..=15).contains(&name.len()) && name.bytes().all(plain)
}
