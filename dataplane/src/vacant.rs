//! Addresses where nobody answers, for tests that need to be refused.
//!
//! A port that was let go of may be another test's a moment later, and a port that is free at one address
//! of loopback may be in use at another. So it is held: bound, and not listening.

use std::net::{IpAddr, SocketAddr, TcpListener};

use socket2::{Domain, Socket, Type};

/// A TCP address that refuses for as long as this lives.
pub(crate) struct Vacant {
    _held: Socket,
    pub(crate) at: SocketAddr,
}

impl Vacant {
    /// At a port of the kernel's choice.
    pub(crate) fn new(ip: impl Into<IpAddr>) -> Self {
        Self::at(SocketAddr::new(ip.into(), 0)).expect("a free port")
    }

    /// # Errors
    /// Somebody else has it.
    pub(crate) fn at(at: SocketAddr) -> std::io::Result<Self> {
        let held = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
        // As `TcpListener::bind` does, so that one may listen beside it.
        held.set_reuse_address(true)?;
        held.bind(&at.into())?;
        let at = held.local_addr()?.as_socket().expect("an IP address");
        Ok(Self { _held: held, at })
    }

    /// Somebody answers, until the listener is dropped.
    pub(crate) fn listener(&self) -> TcpListener {
        TcpListener::bind(self.at).expect("ours to listen at")
    }

    /// The same, on the runtime this is called on.
    pub(crate) fn tokio_listener(&self) -> tokio::net::TcpListener {
        let listener = self.listener();
        listener.set_nonblocking(true).expect("a socket");
        tokio::net::TcpListener::from_std(listener).expect("a runtime")
    }
}

#[test]
fn it_refuses_before_and_after_it_listens() {
    let vacant = Vacant::new([127, 0, 0, 1]);
    let refused = || {
        let error = std::net::TcpStream::connect(vacant.at).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    };
    refused();
    let listener = vacant.listener();
    assert!(std::net::TcpStream::connect(vacant.at).is_ok());
    drop(listener);
    refused();
}
