//! Plain system calls on a connection that its peer notices or is asked about. None of them blocks.
//!
//! In one place, so that a simulated network answers them as well.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use super::conn::Conn;

impl Conn {
    /// Fails only on a connection that is gone, which receiving tells as well.
    pub(super) fn shut_down(&self, how: Shutdown) {
        #[cfg(test)]
        if let Some(network) = self.core.kernel.network() {
            return network.shutdown(self.raw(), how);
        }
        let _ = self.sys().shutdown(how);
    }

    /// The close will send a reset, not a FIN. Fails only on a socket that is gone already.
    pub(super) fn reset_on_close(&self) {
        #[cfg(test)]
        if let Some(network) = self.core.kernel.network() {
            return network.reset_on_close(self.raw());
        }
        let _ = self.sys().set_linger(Some(Duration::ZERO));
    }

    /// Why the connection failed, if nobody was told yet.
    pub(super) fn take_error(&self) -> Option<io::Error> {
        #[cfg(test)]
        if let Some(network) = self.core.kernel.network() {
            return network.take_error(self.raw());
        }
        self.sys().take_error().ok().flatten()
    }

    /// The other end; nothing once it is gone.
    pub(super) fn ask_peer(&self) -> Option<SocketAddr> {
        #[cfg(test)]
        if let Some(network) = self.core.kernel.network() {
            return network.peer_addr(self.raw());
        }
        self.sys().peer_addr().ok()?.as_socket()
    }

    /// Our end.
    pub(super) fn ask_local(&self) -> Option<SocketAddr> {
        #[cfg(test)]
        if let Some(network) = self.core.kernel.network() {
            return network.local_addr(self.raw());
        }
        self.sys().local_addr().ok()?.as_socket()
    }
}
