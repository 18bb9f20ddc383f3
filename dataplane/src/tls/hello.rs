//! Whose TLS a client hello begins: another sidecar's, or somebody's own (pure).

use rustls::server::Acceptor;

use super::Inner;

/// What the first bytes of a TLS connection say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hello {
    /// Cannot be told yet.
    NeedMore,
    /// A sidecar's: it offers one of our protocols.
    Mesh,
    /// An app's own TLS, or no TLS at all: not for us.
    Foreign,
}

/// Looks at the bytes from the connection's start; rustls reads them, nothing is kept. Bounded by
/// what rustls takes for a hello (64 KiB); callers give less.
#[must_use]
pub fn hello(bytes: &[u8]) -> Hello {
    let mut acceptor = Acceptor::default();
    let mut rest = bytes;
    loop {
        if !matches!(acceptor.read_tls(&mut rest), Ok(1..)) {
            return Hello::NeedMore;
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let offered = accepted.client_hello().alpn();
                let ours = offered
                    .into_iter()
                    .flatten()
                    .any(|name| Inner::from_alpn(Some(name)).is_some());
                return if ours { Hello::Mesh } else { Hello::Foreign };
            }
            Ok(None) => {}
            Err(_) => return Hello::Foreign,
        }
    }
}
