//! One connection of a load: plain, or TLS with its handshake counted.

use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringmesh_dataplane::ring::{ByteStream as _, Chunk, Out, Socket, monotonic};
use ringmesh_dataplane::tls::Pipe;
use ringmesh_dataplane::wait::or_timeout;
use rustls::{ClientConfig, ClientConnection};

use super::engine::Engine;
use super::tally::add;
use super::tls::Refusal;

/// A server that is silent in a handshake for so long does not speak TLS.
const PATIENCE: Duration = Duration::from_secs(10);
/// What a TLS connection does before anything else, as errors call it.
pub(super) const HANDSHAKE: &str = "handshake";

/// Opens the connections of one place in a load, one after the other.
#[derive(Debug)]
pub(super) struct Dialer {
    engine: Rc<Engine>,
    /// With the sessions of this place.
    tls: Option<Arc<ClientConfig>>,
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Stream {
    engine: Rc<Engine>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Plain(Socket),
    Tls(Box<Pipe>),
}

impl Dialer {
    pub(super) fn new(engine: &Rc<Engine>) -> Self {
        Self {
            engine: Rc::clone(engine),
            tls: engine.client.as_ref().map(|client| client.remembering()),
        }
    }

    /// Connects and, with TLS, shakes hands.
    pub(super) async fn open(&self) -> Result<Stream, String> {
        let engine = &self.engine;
        let socket = Socket::connect(&engine.ring, engine.to)
            .await
            .map_err(|error| format!("connect: {error}"))?;
        let way = match &self.tls {
            Some(config) => Way::Tls(Box::new(self.shake(socket, config).await?)),
            None => Way::Plain(socket),
        };
        add(&engine.tally.connects, 1);
        Ok(Stream {
            engine: Rc::clone(engine),
            way,
        })
    }

    async fn shake(&self, socket: Socket, config: &Arc<ClientConfig>) -> Result<Pipe, String> {
        let engine = &self.engine;
        let failed = |error: &io::Error| {
            add(&engine.tally.handshakes.failed, 1);
            engine.told(HANDSHAKE, error)
        };
        let client = engine.client.as_ref().expect("a config is of a client");
        let tls = ClientConnection::new(Arc::clone(config), client.name.clone());
        let tls = tls.map_err(|error| failed(&io::Error::other(error)))?;
        let begun = monotonic();
        let pipe = Pipe::new(&engine.ring, socket, tls.into());
        let patience = pin!(engine.ring.sleep_until(begun + PATIENCE));
        match or_timeout(pipe.handshake(Chunk::empty()), patience).await {
            Some(Ok(())) => {
                pipe.with_tls(|tls| engine.tally.handshakes.shaken(tls, begun, monotonic()));
                Ok(pipe)
            }
            Some(Err(error)) => {
                // The alert that says why, as far as it goes out.
                let _ = pipe.drain().await;
                Err(failed(&error))
            }
            None => Err(failed(&io::ErrorKind::TimedOut.into())),
        }
    }
}

impl Stream {
    /// Resolves when `bytes` are accepted.
    pub(super) async fn send(&self, bytes: &'static [u8]) -> Result<(), String> {
        let out = Out::from(Chunk::from_static(bytes));
        let sent = match &self.way {
            Way::Plain(socket) => socket.send(out).await,
            Way::Tls(pipe) => pipe.send(out).await,
        };
        sent.map_err(|error| self.engine.told("send", &error))
    }

    /// The next bytes; empty at the end.
    pub(super) async fn recv(&self) -> Result<Chunk, String> {
        let received = match &self.way {
            Way::Plain(socket) => socket.recv().await,
            Way::Tls(pipe) => pipe.recv().await,
        };
        received.map_err(|error| self.engine.told("receive", &error))
    }

    /// Sends what is left of the handshake: only for who sends nothing else.
    pub(super) async fn finish_handshake(&self) -> Result<(), String> {
        match &self.way {
            Way::Plain(_) => Ok(()),
            Way::Tls(pipe) => {
                let sent = pipe.drain().await;
                sent.map_err(|error| self.engine.told("send", &error))
            }
        }
    }

    /// Says close_notify if it is TLS; some servers forget the session without it.
    pub(super) async fn close(self) {
        if let Way::Tls(pipe) = &self.way {
            // A server that has closed already does not want to be told.
            let _ = pipe.shutdown_write().await;
        }
    }

    pub(super) fn reset(&self) {
        match &self.way {
            Way::Plain(socket) => socket.reset(),
            Way::Tls(pipe) => pipe.reset(),
        }
    }
}

impl Engine {
    /// What an error of a connection is called; one that will not go away ends a load that has not
    /// been answered at all.
    fn told(&self, what: &'static str, error: &io::Error) -> String {
        let Some(client) = &self.client else {
            return format!("{what}: {error}");
        };
        let Refusal { why, lasting } = client.refusal(what, error);
        if lasting && self.tally.requests.get() == 0 {
            self.hopeless
                .borrow_mut()
                .get_or_insert_with(|| why.clone());
        }
        why
    }
}
