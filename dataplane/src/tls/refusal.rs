//! Why there is no encrypted stream.

use std::{fmt, io};

use super::identity::PeerRefusal;
use crate::reason::Reason;

/// Why a handshake ended without a stream. The connection is closed.
#[derive(Debug)]
#[non_exhaustive]
pub enum TlsRefusal {
    /// The peer did not speak TLS.
    Plaintext,
    /// The peer's certificate is not acceptable.
    Peer(PeerRefusal),
    /// The peer agreed to nothing we speak inside.
    NoProtocol,
    /// The peer broke TLS, or refused us (its alert is in the text).
    Protocol(String),
    /// Our own certificate has expired.
    OwnExpired,
    /// A server name that cannot be one.
    ServerName,
    /// The shard keeps too much already for more of a handshake.
    NoRoom,
    /// The connection ended or failed.
    Io(io::Error),
}

impl TlsRefusal {
    /// The stable reason code.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Plaintext => Reason::PlaintextRefused,
            // A peer that breaks TLS or refuses us with an alert is no peer either.
            Self::Peer(_) | Self::Protocol(_) => Reason::PeerRefused,
            Self::NoProtocol => Reason::UnsupportedProtocol,
            Self::OwnExpired => Reason::SvidExpired,
            Self::NoRoom => Reason::Shed,
            Self::ServerName | Self::Io(_) => Reason::ConnectFailure,
        }
    }
}

impl fmt::Display for TlsRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plaintext => f.write_str("the peer does not speak TLS"),
            Self::Peer(why) => why.fmt(f),
            Self::NoProtocol => f.write_str("no common protocol (ALPN)"),
            Self::Protocol(why) => write!(f, "TLS: {why}"),
            Self::OwnExpired => f.write_str("our own certificate has expired"),
            Self::ServerName => f.write_str("the server name is no DNS name"),
            Self::NoRoom => f.write_str("no memory is left for more of its handshake"),
            Self::Io(why) => write!(f, "the connection failed: {why}"),
        }
    }
}

impl std::error::Error for TlsRefusal {}

impl From<io::Error> for TlsRefusal {
    fn from(error: io::Error) -> Self {
        match error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>())
        {
            Some(inner) => inner.clone().into(),
            None if error.kind() == io::ErrorKind::OutOfMemory => Self::NoRoom,
            None => Self::Io(error),
        }
    }
}

impl From<PeerRefusal> for TlsRefusal {
    fn from(refusal: PeerRefusal) -> Self {
        Self::Peer(refusal)
    }
}

impl From<rustls::Error> for TlsRefusal {
    fn from(error: rustls::Error) -> Self {
        use rustls::CertificateError::{Expired, ExpiredContext, NotValidYet, NotValidYetContext};
        match error {
            rustls::Error::NoCertificatesPresented => PeerRefusal::NoCertificate.into(),
            rustls::Error::InvalidCertificate(Expired | ExpiredContext { .. }) => {
                PeerRefusal::Expired.into()
            }
            rustls::Error::InvalidCertificate(NotValidYet | NotValidYetContext { .. }) => {
                PeerRefusal::NotYetValid.into()
            }
            rustls::Error::InvalidCertificate(why) => PeerRefusal::Chain(why.to_string()).into(),
            rustls::Error::NoApplicationProtocol => Self::NoProtocol,
            other => Self::Protocol(other.to_string()),
        }
    }
}
