//! Why there is no TLS connection, and what to do about it.

use std::io;

use rustls::{AlertDescription, CertificateError};

use super::Client;
use crate::load::dial::HANDSHAKE;

/// Why there is no TLS connection.
#[derive(Debug)]
pub(in crate::load) struct Refusal {
    pub(in crate::load) why: String,
    /// It will not go away by trying again.
    pub(in crate::load) lasting: bool,
}

impl Client {
    /// What an error of a connection, while it did `what`, means to who started the load.
    pub(in crate::load) fn refusal(&self, what: &str, error: &io::Error) -> Refusal {
        let inner = error
            .get_ref()
            .and_then(|e| e.downcast_ref::<rustls::Error>());
        let lasting = matches!(
            inner,
            Some(
                rustls::Error::InvalidCertificate(_)
                    | rustls::Error::AlertReceived(_)
                    | rustls::Error::InvalidMessage(_)
                    | rustls::Error::PeerIncompatible(_)
            )
        );
        let why = match inner {
            Some(rustls::Error::InvalidCertificate(why)) => {
                format!("the server's certificate is refused: {}", self.refused(why))
            }
            Some(rustls::Error::AlertReceived(alert)) => {
                format!(
                    "the server ended it with alert {alert:?}{}",
                    self.advice(*alert)
                )
            }
            Some(rustls::Error::InvalidMessage(_)) if what == HANDSHAKE => {
                "what the server answers is not TLS: does it speak it on this port?".to_owned()
            }
            Some(other) => other.to_string(),
            None if error.kind() == io::ErrorKind::TimedOut && what == HANDSHAKE => {
                "the server is silent: does it speak TLS on this port?".to_owned()
            }
            None if error.kind() == io::ErrorKind::UnexpectedEof && what == HANDSHAKE => {
                "the server ended the connection: does it speak TLS on this port?".to_owned()
            }
            None if error.kind() == io::ErrorKind::UnexpectedEof => {
                "the connection ended without close_notify: the answer may be cut off".to_owned()
            }
            None => error.to_string(),
        };
        Refusal {
            why: format!("{what}: {why}"),
            lasting,
        }
    }

    fn refused(&self, why: &CertificateError) -> String {
        match why {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
                "none of {} has signed it; --ca FILE names other roots, --insecure checks nothing",
                self.roots
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!("{why}; --server-name asks for another name")
            }
            // What `openssl req -x509` writes unless told otherwise. The error is of a crate below rustls.
            CertificateError::Other(other) if other.to_string() == "CaUsedAsEndEntity" => {
                "it is a CA's own, and a server has to show one that a CA has signed \
                 (basicConstraints=CA:FALSE); --insecure checks nothing"
                    .to_owned()
            }
            other => other.to_string(),
        }
    }

    fn advice(&self, alert: AlertDescription) -> String {
        use AlertDescription as Alert;
        match alert {
            // Some servers name a missing certificate so, too.
            Alert::CertificateRequired | Alert::HandshakeFailure | Alert::BadCertificate
                if !self.shows =>
            {
                ": it may want a certificate, --cert and --key".to_owned()
            }
            Alert::UnknownCA
            | Alert::BadCertificate
            | Alert::CertificateUnknown
            | Alert::CertificateExpired
            | Alert::CertificateRevoked
            | Alert::UnsupportedCertificate
            | Alert::DecryptError
            | Alert::AccessDenied
                if self.shows =>
            {
                ": it does not accept the certificate of --cert".to_owned()
            }
            Alert::NoApplicationProtocol => {
                let asked = self.config.alpn_protocols.join(&b", "[..]);
                let asked = String::from_utf8_lossy(&asked);
                format!(": it speaks none of {asked}; --alpn asks for others")
            }
            Alert::ProtocolVersion => {
                ": it has another version of TLS; see --tls-version".to_owned()
            }
            Alert::UnrecognisedName => format!(
                ": it has no certificate for {}; --server-name asks for another name",
                self.name.to_str()
            ),
            _ => String::new(),
        }
    }
}
