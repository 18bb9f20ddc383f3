//! What undeclared ports turned out to speak.
//!
//! A verdict is a hint about *dialling*, never a decision: the first bytes of every connection are
//! looked at all the same, or one caller's odd first bytes would carry everyone's requests past the
//! rules for HTTP.

use std::hash::BuildHasher;
use std::net::SocketAddr;

use ringmesh_wire::ServiceId;

use crate::tables::SeededMap;

/// What a connection turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The client sent an HTTP/1.x request line.
    Http1,
    /// The client sent HTTP/2's preface.
    Http2,
    /// The client sent a TLS hello.
    Tls,
    /// The client spoke first, and something else.
    ClientFirst,
    /// The server spoke first.
    ServerFirst,
}

impl Verdict {
    /// For labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Tls => "tls",
            Self::ClientFirst => "tcp_client_first",
            Self::ServerFirst => "tcp_server_first",
        }
    }

    /// Whether requests were spoken: they have pools, a connection made ahead of them helps little.
    #[must_use]
    pub fn is_http(self) -> bool {
        matches!(self, Self::Http1 | Self::Http2)
    }
}

/// Where a connection goes, as far as it is known before its first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place {
    /// To the app's port.
    Inbound(u16),
    /// To a service's port, whichever of its addresses was dialled. The service as
    /// [`Verdicts::service`] has it.
    Service(u64, u16),
    /// To an address that is no service's; `None`: the sidecar itself was called.
    Address(Option<SocketAddr>),
}

/// Places remembered by one shard. More than the ports most meshes have; about 64 KiB.
const PLACES_MAX: usize = 1024;

/// The last verdict of each place.
#[derive(Debug, Default)]
pub struct Verdicts {
    last: SeededMap<Place, Verdict>,
}

impl Verdicts {
    /// A service, in a word. That two may share it does no harm: what is remembered is a hint.
    #[must_use]
    pub fn service(&self, id: &ServiceId) -> u64 {
        self.last.hasher().hash_one(id)
    }

    /// What the last connection to a place turned out to be.
    #[must_use]
    pub fn recall(&self, place: Place) -> Option<Verdict> {
        self.last.get(&place).copied()
    }

    /// Remembers. Above the bound everything else is forgotten, which costs each place one
    /// connection that may not be needed.
    pub fn remember(&mut self, place: Place, verdict: Verdict) {
        if self.last.len() >= PLACES_MAX && !self.last.contains_key(&place) {
            self.last.clear();
        }
        self.last.insert(place, verdict);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_verdict_counts_and_the_table_is_bounded() {
        let mut verdicts = Verdicts::default();
        assert_eq!(verdicts.recall(Place::Inbound(1)), None);
        verdicts.remember(Place::Inbound(1), Verdict::Http1);
        verdicts.remember(Place::Inbound(1), Verdict::ServerFirst);
        assert_eq!(
            verdicts.recall(Place::Inbound(1)),
            Some(Verdict::ServerFirst)
        );
        assert_eq!(verdicts.recall(Place::Address(None)), None);
        for port in 0..=u16::MAX {
            let at = SocketAddr::from(([10, 0, 0, 1], port));
            verdicts.remember(Place::Address(Some(at)), Verdict::Tls);
            assert!(verdicts.last.len() <= PLACES_MAX);
            assert_eq!(
                verdicts.recall(Place::Address(Some(at))),
                Some(Verdict::Tls)
            );
        }
    }
}
