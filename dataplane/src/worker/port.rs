//! A port for a worker under test. Compiled for tests and fuzzing only.

use std::net::{Ipv4Addr, SocketAddr};

use socket2::{Domain, Socket, Type};

/// A port on loopback that no other process and no other test is given, as long as this lives. Bound and
/// not listening: whoever connects is refused, unless somebody listens there who was told the address.
#[derive(Debug)]
pub(super) struct Port {
    _bound: Socket,
    pub(super) at: SocketAddr,
}

impl Port {
    /// A free one.
    pub(super) fn new() -> Self {
        let at = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, None).expect("socket");
        // So that a worker may listen there, which says the same. A port the kernel chooses is shared
        // with nobody, even so.
        socket.set_reuse_port(true).expect("reuse port");
        socket.bind(&at.into()).expect("bind");
        let at = socket.local_addr().expect("address").as_socket();
        Self {
            _bound: socket,
            at: at.expect("IPv4"),
        }
    }
}
