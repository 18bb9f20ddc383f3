//! `ringmesh-bench serve`: the cheapest steady upstream, one thread on io_uring.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::rc::Rc;

use clap::Args;
use ringmesh_dataplane::ring::{Chunk, ListenOptions, Listener, OUT_PIECES_MAX, Out, Park};
use ringmesh_dataplane::ring::{Ring, RingPlan, Socket};
use ringmesh_tuning::{errln, outln};

use crate::descriptors;
use crate::problem::Problem;

/// Serves until it is ended. Says `ready` when all listeners stand.
///
/// HTTP: GET /N is answered with N bytes (at most 16 MiB; at most 64 sizes), / with 128; requests
/// have no body. Echo sends back what comes; source sends without end; sink only takes.
#[derive(Debug, Args)]
pub(crate) struct Serve {
    /// Address of the HTTP server.
    #[arg(long, value_name = "IP:PORT")]
    http: Option<SocketAddr>,
    /// Address of the echo server.
    #[arg(long, value_name = "IP:PORT")]
    echo: Option<SocketAddr>,
    /// Address of the source.
    #[arg(long, value_name = "IP:PORT")]
    source: Option<SocketAddr>,
    /// Address of the sink.
    #[arg(long, value_name = "IP:PORT")]
    sink: Option<SocketAddr>,
}

const BODY_BYTES_MAX: u32 = 16 << 20;
const BODY_BYTES_DEFAULT: u32 = 128;
const SIZES_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 64 * 1024;
const SOURCE_BYTES: usize = 128 * 1024;
const CONNECTIONS_MAX: u32 = 30_000;

impl Serve {
    pub(crate) fn run(&self) -> Result<(), Problem> {
        // As many as the system lets us: too few only matter to who opens that many.
        if descriptors::make_room(CONNECTIONS_MAX).is_err() {
            errln!("serve: fewer than {CONNECTIONS_MAX} connections will fit");
        }
        let ring = Ring::new(&RingPlan::default())?;
        let answers = Rc::new(Answers::default());
        let mut listeners = 0;
        let mut serve = |at: Option<SocketAddr>, task: Task| -> Result<(), Problem> {
            let Some(at) = at else { return Ok(()) };
            let listener = Listener::bind(&ring, at, &ListenOptions::default())
                .map_err(|error| Problem::Yours(format!("{at}: {error}")))?;
            listeners += 1;
            let accepting = accept(ring.clone(), listener, task, Rc::clone(&answers));
            if !ring.spawn(accepting) {
                return Err(Problem::failed("the ring takes no task"));
            }
            Ok(())
        };
        serve(self.http, Task::Http)?;
        serve(self.echo, Task::Echo)?;
        serve(self.source, Task::Source)?;
        serve(self.sink, Task::Sink)?;
        if listeners == 0 {
            return Err(Problem::Yours(
                "nothing to serve: give --http, --echo, --source or --sink an address".to_owned(),
            ));
        }
        outln!("ready");
        loop {
            ring.turn(Park::Free);
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Task {
    Http,
    Echo,
    Source,
    Sink,
}

async fn accept(ring: Ring, listener: Listener, task: Task, answers: Rc<Answers>) {
    let block: &'static [u8] = Box::leak(vec![b's'; SOURCE_BYTES].into_boxed_slice());
    loop {
        let Ok(socket) = listener.accept().await else {
            // Out of descriptors: it goes away when connections end.
            ring.sleep_until(ring.now().plus_ms(10)).await;
            continue;
        };
        let answers = Rc::clone(&answers);
        let started = ring.spawn(async move {
            // An error is the peer's end, however it came.
            let _ = match task {
                Task::Http => http(&socket, &answers).await,
                Task::Echo => echo(&socket).await,
                Task::Source => source(&socket, block).await,
                Task::Sink => sink(&socket).await,
            };
        });
        if !started {
            errln!("serve: more connections than one ring takes");
        }
    }
}

/// Answers made before, by body size. They live as long as the process.
#[derive(Debug, Default)]
struct Answers(RefCell<HashMap<u32, &'static [u8]>>);

impl Answers {
    /// The answer for a path; `None` for one that is not served.
    fn to(&self, path: &str) -> Option<&'static [u8]> {
        let size = match path.strip_prefix('/')? {
            "" => BODY_BYTES_DEFAULT,
            size => size.parse().ok().filter(|size| *size <= BODY_BYTES_MAX)?,
        };
        let mut made = self.0.borrow_mut();
        if let Some(answer) = made.get(&size) {
            return Some(answer);
        }
        if made.len() == SIZES_MAX {
            return None;
        }
        let mut answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n").into_bytes();
        answer.resize(answer.len() + size as usize, b'x');
        let answer: &'static [u8] = Box::leak(answer.into_boxed_slice());
        made.insert(size, answer);
        Some(answer)
    }
}

const NOT_FOUND: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
const BAD: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

async fn http(socket: &Socket, answers: &Answers) -> std::io::Result<()> {
    // A head that has not come whole, or requests behind it; empty in the common case.
    let mut rest: Vec<u8> = Vec::new();
    loop {
        let bytes = socket.recv().await?;
        if bytes.is_empty() {
            return Ok(());
        }
        let mut out = Out::new();
        let mut close = false;
        if rest.is_empty() {
            let used = read(&bytes, answers, &mut out, &mut close);
            rest.extend_from_slice(&bytes[used..]);
        } else {
            rest.extend_from_slice(&bytes);
            let used = read(&rest, answers, &mut out, &mut close);
            rest.drain(..used);
        }
        // Nobody pipelines more than fits into one Out here; what is left waits for more bytes.
        close |= rest.len() > HEAD_BYTES_MAX;
        if !out.is_empty() {
            socket.send(out).await?;
        }
        if close {
            socket.shutdown_write();
            return socket.flush().await;
        }
    }
}

/// Answers the whole requests in `bytes`; tells how many bytes those were.
fn read(bytes: &[u8], answers: &Answers, out: &mut Out, close: &mut bool) -> usize {
    let mut used = 0;
    while used < bytes.len() && out.room() > 0 && !*close {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut head = httparse::Request::new(&mut fields);
        let answer = match head.parse(&bytes[used..]) {
            Ok(httparse::Status::Partial) => break,
            Ok(httparse::Status::Complete(length)) => {
                used += length;
                *close = head.headers.iter().any(|field| {
                    field.name.eq_ignore_ascii_case("connection")
                        && field.value.eq_ignore_ascii_case(b"close")
                });
                answers.to(head.path.unwrap_or("")).unwrap_or(NOT_FOUND)
            }
            Err(_) => {
                *close = true;
                BAD
            }
        };
        if out.push(Chunk::from_static(answer)).is_err() {
            break;
        }
    }
    used
}

async fn echo(socket: &Socket) -> std::io::Result<()> {
    loop {
        let bytes = socket.recv().await?;
        if bytes.is_empty() {
            return Ok(());
        }
        socket.send(bytes.into()).await?;
    }
}

async fn source(socket: &Socket, block: &'static [u8]) -> std::io::Result<()> {
    loop {
        let mut out = Out::new();
        for _ in 0..OUT_PIECES_MAX / 4 {
            // Room for eight; two are pushed.
            let _ = out.push(Chunk::from_static(block));
        }
        socket.send(out).await?;
    }
}

async fn sink(socket: &Socket) -> std::io::Result<()> {
    while !socket.recv().await?.is_empty() {}
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_ask_for_sizes() {
        let answers = Answers::default();
        let body = |path: &str| answers.to(path).map(|answer| answer.len());
        let head = b"HTTP/1.1 200 OK\r\nContent-Length: 128\r\n\r\n".len();
        assert_eq!(body("/"), Some(head + 128));
        assert_eq!(body("/128"), Some(head + 128));
        assert_eq!(body("/nothing"), None);
        assert_eq!(body("/16777217"), None);
        for size in 1..200 {
            let _ = body(&format!("/{size}"));
        }
        assert_eq!(answers.0.borrow().len(), SIZES_MAX);
    }

    #[test]
    fn pipelined_requests_are_answered_in_order_and_a_piece_waits() {
        let answers = Answers::default();
        let text = b"GET /1 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\nConnection: close\r\n\r\nGET /3";
        let (mut out, mut close) = (Out::new(), false);
        let used = read(&text[..30], &answers, &mut out, &mut close);
        assert_eq!((used, out.pieces().len(), close), (19, 1, false));
        let mut out = Out::new();
        let used = read(text, &answers, &mut out, &mut close);
        assert_eq!((out.pieces().len(), close), (2, true));
        assert_eq!(&text[used..], b"GET /3");
        assert!(out.pieces()[1].ends_with(b"\r\n\r\nxx"));
    }
}
