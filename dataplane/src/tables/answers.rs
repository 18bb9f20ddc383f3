//! What names lead to: found by the agent, and put into tables beside the snapshot's endpoints.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// The addresses of one name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addresses {
    /// Stands for the name where all its addresses are one endpoint: that endpoint's name across
    /// snapshots, so that its connections and its health outlive a change of addresses. The first
    /// address the name ever had; perhaps no longer one of `list`.
    pub anchor: IpAddr,
    /// In the order in which they are to be tried (RFC 8305 section 4). Not empty.
    pub list: Vec<IpAddr>,
}

/// The addresses of all names that have any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Answers {
    by_name: BTreeMap<Box<str>, Addresses>,
}

impl Answers {
    /// Where `name` leads; `None` before it is resolved.
    #[must_use]
    pub fn of(&self, name: &str) -> Option<&Addresses> {
        self.by_name.get(name)
    }
}

impl<N: Into<Box<str>>> FromIterator<(N, Addresses)> for Answers {
    fn from_iter<I: IntoIterator<Item = (N, Addresses)>>(all: I) -> Self {
        Self {
            by_name: all.into_iter().map(|(n, a)| (n.into(), a)).collect(),
        }
    }
}

/// Every address with `port`.
pub(super) fn on_port(list: &[IpAddr], port: u16) -> Box<[SocketAddr]> {
    list.iter()
        .map(|ip| SocketAddr::new(super::normal_ip(*ip), port))
        .collect()
}
