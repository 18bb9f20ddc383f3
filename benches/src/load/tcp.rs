//! One opaque connection of a load: a ball to and fro, or bytes as fast as they come.

use std::rc::Rc;

use ringmesh_dataplane::ring::{Chunk, Socket, monotonic};

use super::engine::{Departure, Engine, Opening};
use super::tally::add;

/// Bytes that any number of connections may send; they live as long as the process.
pub(super) fn ball(bytes: u32) -> &'static [u8] {
    Box::leak(vec![b'p'; bytes as usize].into_boxed_slice())
}

/// Sends `ball` and waits until as many bytes have come back, until the time is over.
pub(super) async fn ping(engine: Rc<Engine>, number: u32, ball: &'static [u8], opening: Opening) {
    let mut socket = open(&engine, number).await;
    drop(opening);
    while let Some(departure) = engine.departure(number).await {
        let Some(connected) = &socket else {
            engine.failed(number, "no connection").await;
            socket = open(&engine, number).await;
            continue;
        };
        match once(&engine, connected, ball).await {
            Ok(()) => engine.arrived(number, departure),
            Err(why) => {
                engine.failed(number, why).await;
                socket = open(&engine, number).await;
            }
        }
    }
}

async fn open(engine: &Engine, number: u32) -> Option<Socket> {
    match Socket::connect(&engine.ring, engine.to).await {
        Ok(socket) => {
            add(&engine.tally.connects, 1);
            Some(socket)
        }
        Err(error) => {
            engine.failed(number, format!("connect: {error}")).await;
            None
        }
    }
}

async fn once(engine: &Engine, socket: &Socket, ball: &'static [u8]) -> Result<(), String> {
    let sent = socket.send(Chunk::from_static(ball).into()).await;
    sent.map_err(|error| format!("send: {error}"))?;
    let mut back = 0;
    while back < ball.len() {
        let received = socket.recv().await;
        let bytes = received.map_err(|error| format!("receive: {error}"))?;
        if bytes.is_empty() {
            return Err("the connection ended before the bytes came back".to_owned());
        }
        engine.tally.received(bytes.len(), engine.ring.now());
        back += bytes.len();
    }
    Ok(())
}

/// Takes what the server sends, until the time is over. A "request" is one connection.
pub(super) async fn bulk(engine: Rc<Engine>, number: u32, opening: Opening) {
    let socket = open(&engine, number).await;
    drop(opening);
    let Some(socket) = socket else { return };
    let departure = Departure { at: monotonic() };
    while engine.ring.now() < engine.tally.until {
        match socket.recv().await {
            Ok(bytes) if bytes.is_empty() => {
                engine
                    .failed(number, "the server ended the connection")
                    .await;
                return;
            }
            Ok(bytes) => engine.tally.received(bytes.len(), engine.ring.now()),
            Err(error) => {
                engine.failed(number, format!("receive: {error}")).await;
                return;
            }
        }
    }
    socket.reset();
    engine.arrived(number, departure);
}
