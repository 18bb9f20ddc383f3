//! One HTTP/1.1 connection of a load: kept alive, or a new one per request.

use std::rc::Rc;

use super::answer::Answer;
use super::dial::{Dialer, Stream};
use super::engine::{Engine, Opening};
use super::tally::add;

/// A GET of `path`, ready to be sent any number of times. It lives as long as the process: one per
/// run, and the ring sends it without a copy.
pub(super) fn request(path: &str, host: &str, churn: bool) -> &'static [u8] {
    let close = if churn { "Connection: close\r\n" } else { "" };
    let text =
        format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: ringmesh-bench\r\n{close}\r\n");
    Box::leak(text.into_boxed_str()).as_bytes()
}

/// Requests one after the other until the time is over.
pub(super) async fn run(
    engine: Rc<Engine>,
    number: u32,
    request: &'static [u8],
    churn: bool,
    opening: Opening,
) {
    let dialer = Dialer::new(&engine);
    let mut connection = None;
    if !churn {
        match Connection::open(&dialer).await {
            Ok(open) => connection = Some(open),
            Err(why) => engine.failed(number, why).await,
        }
    }
    drop(opening);
    while let Some(departure) = engine.departure(number).await {
        let mut open = match connection.take() {
            Some(open) => open,
            None => match Connection::open(&dialer).await {
                Ok(open) => open,
                Err(why) => {
                    engine.failed(number, why).await;
                    continue;
                }
            },
        };
        match open.exchange(&engine, request).await {
            Ok(()) => engine.arrived(number, departure),
            Err(why) => {
                engine.failed(number, why).await;
                continue;
            }
        }
        if churn || open.answer.last {
            open.stream.close().await;
        } else {
            connection = Some(open);
        }
    }
}

/// An open connection and the place in its answers.
#[derive(Debug)]
pub(super) struct Connection {
    stream: Stream,
    answer: Answer,
}

impl Connection {
    pub(super) async fn open(dialer: &Dialer) -> Result<Self, String> {
        Ok(Self {
            stream: dialer.open().await?,
            answer: Answer::default(),
        })
    }

    /// Sends a request and takes its answer.
    pub(super) async fn exchange(
        &mut self,
        engine: &Engine,
        request: &'static [u8],
    ) -> Result<(), String> {
        self.stream.send(request).await?;
        loop {
            let bytes = self.stream.recv().await?;
            let whole = if bytes.is_empty() {
                if !self.answer.end() {
                    return Err("the connection ended before the answer did".to_owned());
                }
                true
            } else {
                engine.tally.received(bytes.len(), engine.ring.now());
                self.answer
                    .feed(&bytes)
                    .map_err(|bad| format!("answer: {bad}"))?
            };
            if whole {
                if !(200..400).contains(&self.answer.status) {
                    add(&engine.tally.refused, 1);
                }
                return Ok(());
            }
        }
    }

    /// Waits for the server to close.
    pub(super) async fn closed(&self) {
        while let Ok(bytes) = self.stream.recv().await {
            if bytes.is_empty() {
                return;
            }
        }
    }
}
