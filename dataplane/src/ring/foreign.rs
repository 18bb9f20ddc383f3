//! Sockets that stand for another host's address (TPROXY, ip(7) IP_TRANSPARENT).

use std::cell::Cell;
use std::io;
use std::net::{IpAddr, SocketAddr};

/// Ports that a connection may come from in a client's name. Not those that clients take theirs from
/// (Linux 32768 to 60999, IANA and most others 49152 and above): with the client's address, the app's
/// address and a port that the client uses too, our connection would be the client's own to the kernel.
const PORTS: std::ops::RangeInclusive<u16> = 10_240..=32_767;
/// Ports tried for one connection. Those in use lie together: they are handed out in turn.
const TRIES_MAX: u32 = 64;

/// Where the next connection in a client's name comes from.
#[derive(Debug)]
pub(super) struct NextPort(Cell<u16>);

impl NextPort {
    /// Rings of one process begin apart, or they would meet at every port.
    pub(super) fn new(seed: u64) -> Self {
        let span = u64::from(PORTS.end() - PORTS.start()) + 1;
        let offset = u16::try_from(seed % span).unwrap_or(0);
        Self(Cell::new(PORTS.start() + offset))
    }

    fn take(&self) -> u16 {
        let port = self.0.get();
        let next = match port == *PORTS.end() {
            true => *PORTS.start(),
            false => port + 1,
        };
        self.0.set(next);
        port
    }
}

pub(super) fn set_transparent(socket: &socket2::Socket, v6: bool) -> io::Result<()> {
    match v6 {
        true => socket.set_ip_transparent_v6(true),
        false => socket.set_ip_transparent_v4(true),
    }
}

/// Gives a socket a client's address, at a port of ours that nothing on this host uses with it, and the
/// mark by which the app's answers find it.
///
/// # Errors
/// What setsockopt says, without CAP_NET_ADMIN; or bind, where no port was free.
pub(super) fn bind_as(
    socket: &socket2::Socket,
    client: IpAddr,
    mark: u32,
    next: &NextPort,
) -> io::Result<()> {
    set_transparent(socket, client.is_ipv6())?;
    socket.set_mark(mark)?;
    let mut tries = 0;
    loop {
        tries += 1;
        let from = SocketAddr::new(client, next.take());
        match socket.bind(&from.into()) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && tries < TRIES_MAX => {}
            bound => return bound,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_come_in_turn_and_begin_anew_at_the_end() {
        let span = u64::from(PORTS.end() - PORTS.start()) + 1;
        let next = NextPort::new(span - 1);
        assert_eq!(next.take(), *PORTS.end());
        assert_eq!(next.take(), *PORTS.start());
        assert_eq!(next.take(), PORTS.start() + 1);
        for seed in [0, 1, span, u64::MAX] {
            assert!(PORTS.contains(&NextPort::new(seed).take()), "{seed}");
        }
    }
}
