//! One opaque connection of a load: a ball to and fro, or bytes as fast as they come.

use std::rc::Rc;

use ringmesh_dataplane::ring::monotonic;

use super::dial::{Dialer, Stream};
use super::engine::{Departure, Engine, Opening};

/// Bytes that any number of connections may send; they live as long as the process.
pub(super) fn ball(bytes: u32) -> &'static [u8] {
    Box::leak(vec![b'p'; bytes as usize].into_boxed_slice())
}

/// Sends `ball` and waits until as many bytes have come back, until the time is over.
pub(super) async fn ping(engine: Rc<Engine>, number: u32, ball: &'static [u8], opening: Opening) {
    let dialer = Dialer::new(&engine);
    let mut stream = open(&engine, &dialer, number).await;
    drop(opening);
    while let Some(departure) = engine.departure(number).await {
        let Some(connected) = &stream else {
            engine.failed(number, "no connection").await;
            stream = open(&engine, &dialer, number).await;
            continue;
        };
        match once(&engine, connected, ball).await {
            Ok(()) => engine.arrived(number, departure),
            Err(why) => {
                engine.failed(number, why).await;
                stream = open(&engine, &dialer, number).await;
            }
        }
    }
}

async fn open(engine: &Engine, dialer: &Dialer, number: u32) -> Option<Stream> {
    match dialer.open().await {
        Ok(stream) => Some(stream),
        Err(why) => {
            engine.failed(number, why).await;
            None
        }
    }
}

async fn once(engine: &Engine, stream: &Stream, ball: &'static [u8]) -> Result<(), String> {
    stream.send(ball).await?;
    let mut back = 0;
    while back < ball.len() {
        let bytes = stream.recv().await?;
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
    let stream = open(&engine, &Dialer::new(&engine), number).await;
    drop(opening);
    let Some(stream) = stream else { return };
    if let Err(why) = stream.finish_handshake().await {
        engine.failed(number, why).await;
        return;
    }
    let departure = Departure { at: monotonic() };
    while engine.ring.now() < engine.tally.until {
        match stream.recv().await {
            Ok(bytes) if bytes.is_empty() => {
                engine
                    .failed(number, "the server ended the connection")
                    .await;
                return;
            }
            Ok(bytes) => engine.tally.received(bytes.len(), engine.ring.now()),
            Err(why) => {
                engine.failed(number, why).await;
                return;
            }
        }
    }
    stream.reset();
    engine.arrived(number, departure);
}
