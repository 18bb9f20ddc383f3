//! A lane with the face of a socket.

use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;

use super::frame::LaneId;
use super::trunk::Trunk;
use crate::ring::{ByteStream, Chunk, Out};
use crate::time::Mono;
use crate::tls::TlsStream;

/// One lane of a [`Trunk`]: the bytes of one HTTP/1.1 connection. Dropped, it ends as a socket does.
pub struct TrunkLane {
    trunk: Rc<Trunk>,
    id: LaneId,
}

impl TrunkLane {
    pub(super) fn new(trunk: &Rc<Trunk>, id: LaneId) -> Self {
        Self {
            trunk: Rc::clone(trunk),
            id,
        }
    }

    /// The connection below, with who is at its other end.
    #[must_use]
    pub fn connection(&self) -> &TlsStream {
        self.trunk.connection()
    }

    /// When its other end ended it, or the connection ended, if so.
    #[must_use]
    pub fn ended_at(&self) -> Option<Mono> {
        let ended = self.trunk.core().ended_at(self.id);
        ended.or_else(|| self.connection().ended_at())
    }

    /// Whether nothing has come on it, and it may be used.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.trunk.core().is_quiet(self.id)
    }

    /// Whether nobody waits for its other end: it is idle in a pool, or between two requests.
    pub fn rest(&self, resting: bool) {
        let mut core = self.trunk.core();
        core.rest(self.id, resting);
        // Who begins to wait has the connection watched.
        let wakes = !resting;
        drop(core);
        if wakes {
            self.trunk.watch();
        }
    }
}

impl ByteStream for TrunkLane {
    async fn recv(&self) -> io::Result<Chunk> {
        let received = poll_fn(|cx| self.trunk.core().poll_recv(self.id, cx)).await;
        self.trunk.stir();
        received
    }

    fn try_recv(&self) -> Option<io::Result<Chunk>> {
        let received = self.trunk.core().try_recv(self.id)?;
        self.trunk.stir();
        Some(received)
    }

    /// Resolves when all is staged. If the future is dropped before, part of it may be lost: the lane
    /// then refuses to send anything more.
    async fn send(&self, out: Out) -> io::Result<()> {
        let mut sent = 0;
        poll_fn(|cx| {
            let ring = self.trunk.ring();
            let polled = (self.trunk.core()).poll_send(self.id, &out, &mut sent, ring, cx);
            self.trunk.stir();
            polled
        })
        .await
    }

    async fn flush(&self) -> io::Result<()> {
        let total = self.trunk.core().staged_total();
        poll_fn(|cx| self.trunk.core().poll_pushed(total, cx)).await
    }

    async fn shutdown_write(&self) -> io::Result<()> {
        self.trunk.core().end(self.id);
        self.trunk.stir();
        Ok(())
    }

    fn reset(&self) {
        self.trunk.core().reset(self.id);
        self.trunk.stir();
    }
}

impl Drop for TrunkLane {
    fn drop(&mut self) {
        self.trunk.core().let_go(self.id);
        self.trunk.stir();
    }
}

impl fmt::Debug for TrunkLane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrunkLane")
            .field("id", &self.id)
            .field("connection", self.connection())
            .finish_non_exhaustive()
    }
}
