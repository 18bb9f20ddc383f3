//! A DNS question as bytes, and what an answer's bytes say (RFC 1035, RFC 3596). Pure.
//!
//! The bytes come from whoever can reach our port: the parser is the `domain` crate's, everything is
//! bounded, and what is not an answer to this very question is none.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr as _;
use std::time::Duration;

use domain::base::iana::{Class, Opcode, Rcode};
use domain::base::name::ToName as _;
use domain::base::{Message, MessageBuilder, Name, ParsedName, Rtype};
use domain::rdata::{A, Aaaa, Cname};

/// Addresses of one family taken from an answer; what is more is not looked at.
pub const ADDRESSES_MAX: usize = 32;
/// Aliases followed inside an answer (RFC 1034 section 3.6.2 only warns of loops). Servers stop at 8 to 16.
const ALIASES_MAX: usize = 16;
/// Records of an answer looked at.
const RECORDS_MAX: usize = 512;

/// Which addresses are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

/// Why a lookup gave no addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// There is no such name (NXDOMAIN).
    NoName,
    /// The name has no address.
    NoAddress,
    /// All its addresses are such as nobody can be reached at.
    BadAddress,
    /// The server could not or would not answer (SERVFAIL, REFUSED, ...).
    ServerFailed,
    /// The answer's bytes break RFC 1035.
    Malformed,
    /// No answer in time.
    Timeout,
    /// No server could be reached.
    Unreachable,
    /// It is no name that can be asked for.
    BadName,
}

impl Fault {
    /// All, for counters.
    pub const ALL: [Self; 8] = [
        Self::NoName,
        Self::NoAddress,
        Self::BadAddress,
        Self::ServerFailed,
        Self::Malformed,
        Self::Timeout,
        Self::Unreachable,
        Self::BadName,
    ];

    /// For labels.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NoName => "no_name",
            Self::NoAddress => "no_address",
            Self::BadAddress => "bad_address",
            Self::ServerFailed => "server_failed",
            Self::Malformed => "malformed",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::BadName => "bad_name",
        }
    }

    /// Whether a server has said so, rather than failed to say anything.
    #[must_use]
    pub fn is_denial(self) -> bool {
        matches!(self, Self::NoName | Self::NoAddress | Self::BadAddress)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// Addresses of one family, and for how long they may be believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// As the server ordered them; not empty.
    pub addresses: Vec<IpAddr>,
    /// The least time to live of the records they were found by.
    pub ttl: Duration,
}

/// A question that was asked.
#[derive(Debug, Clone)]
pub struct Question {
    message: Message<Vec<u8>>,
    name: Name<Vec<u8>>,
    family: Family,
}

/// What a message says to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// It is no answer to this question: somebody else's, or a forgery. The wait goes on.
    Nothing,
    /// The answer does not fit into a datagram: ask over TCP (RFC 7766 section 5).
    Truncated,
    /// The answer.
    Answer(Result<Found, Fault>),
}

impl Question {
    /// Asks for one family of a name; `id` should not be guessable.
    ///
    /// # Errors
    /// [`Fault::BadName`]: it is longer than DNS allows, or has an empty label.
    pub fn new(name: &str, family: Family, id: u16) -> Result<Self, Fault> {
        let name: Name<Vec<u8>> = Name::from_str(name).map_err(|_| Fault::BadName)?;
        let mut builder = MessageBuilder::new_vec();
        builder.header_mut().set_id(id);
        builder.header_mut().set_rd(true);
        let mut question = builder.question();
        let rtype = match family {
            Family::V4 => Rtype::A,
            Family::V6 => Rtype::AAAA,
        };
        question
            .push((&name, rtype, Class::IN))
            .map_err(|_| Fault::BadName)?;
        Ok(Self {
            message: question.into_message(),
            name,
            family,
        })
    }

    /// As it travels in a datagram; over TCP a length of two bytes goes before.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.message.as_slice()
    }

    /// What `bytes` say to it.
    #[must_use]
    pub fn read(&self, bytes: &[u8]) -> Said {
        let Ok(message) = Message::from_slice(bytes) else {
            return Said::Nothing;
        };
        let header = message.header();
        if header.opcode() != Opcode::QUERY || !message.is_answer(&self.message) {
            return Said::Nothing;
        }
        if header.tc() {
            return Said::Truncated;
        }
        Said::Answer(match header.rcode() {
            Rcode::NOERROR => self.found(message),
            Rcode::NXDOMAIN => Err(Fault::NoName),
            _ => Err(Fault::ServerFailed),
        })
    }

    /// The addresses of the name, through its aliases.
    fn found(&self, message: &Message<[u8]>) -> Result<Found, Fault> {
        let malformed = |_| Fault::Malformed;
        let mut aliases: Vec<OfName<'_, ParsedName<&[u8]>>> = Vec::new();
        let mut addresses: Vec<OfName<'_, IpAddr>> = Vec::new();
        for record in message.answer().map_err(malformed)?.take(RECORDS_MAX) {
            let record = record.map_err(malformed)?;
            if record.class() != Class::IN {
                continue;
            }
            let (owner, ttl) = (record.owner(), record.ttl().as_secs());
            // RFC 2181 section 8: with the highest bit set it means 0.
            let ttl = Duration::from_secs(u64::from(if ttl > i32::MAX as u32 { 0 } else { ttl }));
            match (record.rtype(), self.family) {
                (Rtype::CNAME, _) if aliases.len() < ALIASES_MAX => {
                    let cname = record.into_record::<Cname<_>>().map_err(malformed)?;
                    let target = cname.map(|record| record.into_data().into_cname());
                    aliases.extend(target.map(|target| (owner, target, ttl)));
                }
                (Rtype::A, Family::V4) => {
                    let a = record.into_record::<A>().map_err(malformed)?;
                    addresses.extend(a.map(|a| (owner, IpAddr::V4(a.data().addr()), ttl)));
                }
                (Rtype::AAAA, Family::V6) => {
                    let aaaa = record.into_record::<Aaaa>().map_err(malformed)?;
                    addresses.extend(aaaa.map(|aaaa| (owner, IpAddr::V6(aaaa.data().addr()), ttl)));
                }
                _ => {}
            }
        }
        let mut ttl = Duration::MAX;
        let mut name = None;
        for _ in 0..ALIASES_MAX {
            let is_it = |owner: &ParsedName<&[u8]>| match name {
                None => owner.name_eq(&self.name),
                Some(name) => owner.name_eq(&name),
            };
            let Some((_, target, alias_ttl)) = aliases.iter().find(|(owner, ..)| is_it(owner))
            else {
                break;
            };
            ttl = ttl.min(*alias_ttl);
            name = Some(*target);
        }
        let mut found = Vec::new();
        let mut bad = false;
        for (owner, address, address_ttl) in addresses {
            let is_it = match &name {
                None => owner.name_eq(&self.name),
                Some(name) => owner.name_eq(name),
            };
            if !is_it || found.len() >= ADDRESSES_MAX {
                continue;
            }
            if !may_be_anybody(address) {
                bad = true;
                continue;
            }
            ttl = ttl.min(address_ttl);
            if !found.contains(&address) {
                found.push(address);
            }
        }
        match (found.is_empty(), bad) {
            (true, true) => Err(Fault::BadAddress),
            (true, false) => Err(Fault::NoAddress),
            (false, _) => Ok(Found {
                addresses: found,
                ttl,
            }),
        }
    }
}

/// What a record says of the name it is about, and for how long.
type OfName<'m, T> = (ParsedName<&'m [u8]>, T, Duration);

/// Whether a server can stand at this address at all. Loopback may be meant: apps of one host name it.
fn may_be_anybody(address: IpAddr) -> bool {
    let odd_v4 = |v4: Ipv4Addr| v4.is_broadcast() || v4.octets()[0] == 0;
    let mapped = |v6: Ipv6Addr| v6.to_ipv4_mapped();
    let odd = match address {
        IpAddr::V4(v4) => odd_v4(v4),
        IpAddr::V6(v6) => mapped(v6).is_some_and(odd_v4),
    };
    let plain = match address {
        IpAddr::V6(v6) => mapped(v6).map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    };
    !odd && !plain.is_unspecified() && !plain.is_multicast()
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
