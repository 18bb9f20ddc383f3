//! What a client and an app speak over: a socket of the real kernel, which blocks its thread, or one of a
//! simulated network.

use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::rc::Rc;

use crate::ring::{Out, Ring, Socket};

/// Bytes of one write and one read.
const PIECE: usize = 8_192;
/// Until a buffer is looked for again, milliseconds.
const NO_BUFFER_MS: u64 = 1;

/// A connection as one of its ends holds it.
pub(in crate::worker::tests) trait Line: Sized + 'static {
    /// Bytes as they come; none at the peer's end.
    async fn read(&mut self) -> io::Result<Vec<u8>>;

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Ends our direction.
    fn finish(&self);

    /// Has heard and said enough.
    fn leave(&self);

    /// Another hold of the same end.
    fn also(&self) -> Self;

    /// Speaks while something else is waited for.
    async fn beside<T, F: Future<Output = ()>>(
        self,
        speak: impl FnOnce(Self) -> F + Send + 'static,
        meanwhile: impl Future<Output = T>,
    ) -> T;
}

/// Waits for a conversation over sockets that block.
pub(in crate::worker::tests) fn block_on<T>(talk: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.build().unwrap();
    runtime.block_on(talk)
}

impl Line for TcpStream {
    async fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; PIECE];
        let len = Read::read(self, &mut bytes)?;
        bytes.truncate(len);
        Ok(bytes)
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn finish(&self) {
        let _ = self.shutdown(Shutdown::Write);
    }

    fn leave(&self) {
        let _ = self.shutdown(Shutdown::Both);
    }

    fn also(&self) -> Self {
        self.try_clone().unwrap()
    }

    async fn beside<T, F: Future<Output = ()>>(
        self,
        speak: impl FnOnce(Self) -> F + Send + 'static,
        meanwhile: impl Future<Output = T>,
    ) -> T {
        let speaking = std::thread::spawn(move || block_on(speak(self)));
        let came = meanwhile.await;
        speaking.join().unwrap();
        came
    }
}

/// An end in a simulated network.
#[derive(Clone)]
pub(in crate::worker::tests) struct Simulated {
    ring: Ring,
    socket: Rc<Socket>,
}

impl Simulated {
    pub(in crate::worker::tests) fn over(ring: &Ring, socket: Socket) -> Self {
        Self {
            ring: ring.clone(),
            socket: Rc::new(socket),
        }
    }

    /// The peer will see a reset.
    pub(in crate::worker::tests) fn break_off(self) {
        self.socket.reset();
    }
}

impl Line for Simulated {
    async fn read(&mut self) -> io::Result<Vec<u8>> {
        Ok(self.socket.recv().await?.to_vec())
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(PIECE) {
            let mut buf = loop {
                if let Some(buf) = self.ring.buf() {
                    break buf;
                }
                self.ring
                    .sleep_until(self.ring.now().plus_ms(NO_BUFFER_MS))
                    .await;
            };
            buf.extend_from_slice(piece).expect("smaller than a buffer");
            self.socket.send(Out::from(buf.freeze())).await?;
        }
        Ok(())
    }

    fn finish(&self) {
        self.socket.shutdown_write();
    }

    fn leave(&self) {
        self.finish();
    }

    fn also(&self) -> Self {
        self.clone()
    }

    async fn beside<T, F: Future<Output = ()>>(
        self,
        speak: impl FnOnce(Self) -> F + Send + 'static,
        meanwhile: impl Future<Output = T>,
    ) -> T {
        tokio::join!(speak(self), meanwhile).1
    }
}
