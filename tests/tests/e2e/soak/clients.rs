//! The clients of the soak: a few that behave and must be served, many that do not.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ringmesh_tests::upstream::{IMPATIENCE, bytes};
use ringmesh_tests::{Conn, SOON, wait};

/// What the clients saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Whole requests that were answered rightly and whole.
    pub(super) good: u64,
    /// Whole requests whose answer broke off, as their upstream had it.
    pub(super) cut: u64,
    /// Requests of which at least a byte was sent.
    pub(super) begun: u64,
    /// Answers that a well-behaved client should not have got; the first few.
    pub(super) wrong: Vec<String>,
}

/// One habit; called until the soak ends.
type Habit = fn(&mut fastrand::Rng, &mut Client);

/// How many clients have each habit.
const HABITS: [(Habit, usize); 9] = [
    (keeps_alive, 3),
    (comes_and_goes, 2),
    (breaks_off, 2),
    (reads_slowly, 3),
    (uploads, 2),
    (upgrades, 2),
    (tunnels, 2),
    (is_cut, 1),
    (talks_nonsense, 1),
];

pub(super) struct Soaking(Vec<JoinHandle<Seen>>);

impl Soaking {
    pub(super) fn start(to: SocketAddr, stop: &Arc<AtomicBool>) -> Self {
        let habits = HABITS
            .iter()
            .flat_map(|(habit, count)| std::iter::repeat_n(*habit, *count));
        let threads = habits.enumerate().map(|(seed, habit)| {
            let stop = Arc::clone(stop);
            std::thread::spawn(move || {
                let mut rng = fastrand::Rng::with_seed(seed as u64);
                let mut client = Client {
                    to,
                    conn: None,
                    seen: Seen::default(),
                };
                while !stop.load(Ordering::Relaxed) {
                    habit(&mut rng, &mut client);
                }
                client.seen
            })
        });
        Self(threads.collect())
    }

    pub(super) fn join(self) -> Seen {
        let mut all = Seen::default();
        for thread in self.0 {
            let seen = thread.join().expect("a client");
            all.good += seen.good;
            all.cut += seen.cut;
            all.begun += seen.begun;
            all.wrong.extend(seen.wrong.into_iter().take(3));
        }
        all
    }
}

struct Client {
    to: SocketAddr,
    conn: Option<Conn>,
    seen: Seen,
}

impl Client {
    /// A request that must succeed, on the connection of before if there is one.
    fn must(&mut self, what: &str, request: &[u8], body: &[u8]) {
        self.seen.begun += 1;
        let to = self.to;
        let answered = match self.conn.take() {
            Some(conn) => Ok(conn),
            None => Conn::open(to, SOON),
        }
        .and_then(|mut conn| {
            let answer = conn.ask(request)?;
            Ok((conn, answer))
        });
        match answered {
            Ok((conn, answer)) if answer.status == 200 && answer.body == body => {
                self.seen.good += 1;
                self.conn = Some(conn);
            }
            Ok((_, answer)) => {
                let reason = answer.header("x-ringmesh-reason").unwrap_or("-");
                let said = format!(
                    "{what}: {} {reason}, {} bytes",
                    answer.status,
                    answer.body.len()
                );
                self.seen.wrong.push(said);
            }
            Err(error) => self.seen.wrong.push(format!("{what}: {error}")),
        }
    }

    fn judge(&mut self, what: &str, got: io::Result<Vec<u8>>, wanted: &[u8]) {
        match got {
            Ok(got) if got == wanted => self.seen.good += 1,
            Ok(got) => {
                let said = format!("{what}: {} bytes, not {}", got.len(), wanted.len());
                self.seen.wrong.push(said);
            }
            Err(error) => self.seen.wrong.push(format!("{what}: {error}")),
        }
    }

    fn dial(&self) -> Option<TcpStream> {
        let stream = TcpStream::connect(self.to).ok()?;
        stream.set_read_timeout(Some(SOON)).ok()?;
        Some(stream)
    }
}

fn get_of(target: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nhost: any.example\r\n\r\n").into_bytes()
}

/// Pauses now and then for about as long as the upstream keeps idle connections: the race between
/// its close and our next request is met again and again.
fn keeps_alive(rng: &mut fastrand::Rng, client: &mut Client) {
    let size = rng.usize(0..20_000);
    let kind = if rng.bool() { "bytes" } else { "chunked" };
    client.must(
        "kept alive",
        &get_of(&format!("/{kind}/{size}")),
        &bytes(size),
    );
    if rng.u8(0..20) == 0 {
        wait::pass(IMPATIENCE.mul_f64(0.9 + 0.2 * rng.f64()));
    }
}

fn comes_and_goes(rng: &mut fastrand::Rng, client: &mut Client) {
    let size = rng.usize(0..2_000);
    client.must("new", &get_of(&format!("/bytes/{size}")), &bytes(size));
    client.conn = None;
}

/// Closes with an answer unread, or in the middle of a head: a reset and an early end.
fn breaks_off(rng: &mut fastrand::Rng, client: &mut Client) {
    let Some(mut stream) = client.dial() else {
        return;
    };
    client.seen.begun += 1;
    let request = get_of("/bytes/200000");
    if rng.bool() {
        if stream.write_all(&request).is_ok() {
            let _ = stream.read(&mut [0; 100]);
        }
    } else {
        let _ = stream.write_all(&request[..rng.usize(1..request.len())]);
    }
}

fn reads_slowly(_: &mut fastrand::Rng, client: &mut Client) {
    const SIZE: usize = 300_000;
    let Some(mut stream) = client.dial() else {
        return;
    };
    client.seen.begun += 1;
    let mut piece = [0; 4_096];
    let (mut read, begun) = (0, Instant::now());
    if stream
        .write_all(&get_of(&format!("/bytes/{SIZE}")))
        .is_err()
    {
        return;
    }
    while read < SIZE {
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => {
                let said = format!(
                    "read slowly: an end after {read} bytes, {:?}",
                    begun.elapsed()
                );
                client.seen.wrong.push(said);
                return;
            }
            Ok(n) => read += n,
        }
        wait::pass(Duration::from_millis(5));
    }
    client.seen.good += 1;
}

/// Whole uploads in chunks, and some that stop in the middle.
fn uploads(rng: &mut fastrand::Rng, client: &mut Client) {
    let body = bytes(rng.usize(1..50_000));
    let mut request =
        b"POST /echo HTTP/1.1\r\nhost: any.example\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for piece in body.chunks(7_777) {
        request.extend(format!("{:x}\r\n", piece.len()).as_bytes());
        request.extend(piece);
        request.extend(b"\r\n");
    }
    request.extend(b"0\r\n\r\n");
    if rng.u8(0..3) == 0 {
        let Some(mut stream) = client.dial() else {
            return;
        };
        client.seen.begun += 1;
        let _ = stream.write_all(&request[..request.len() / 2]);
        return;
    }
    // On a new connection: a POST may not be sent twice, so it would meet the upstream's idle close.
    client.conn = None;
    client.must("uploaded", &request, &body);
}

/// An echo behind an upgrade, ended in order with the last bytes still to come back; or broken off.
fn upgrades(rng: &mut fastrand::Rng, client: &mut Client) {
    let Some(mut stream) = client.dial() else {
        return;
    };
    client.seen.begun += 1;
    let head = b"GET /websocket HTTP/1.1\r\nhost: any.example\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
    let sent = bytes(rng.usize(1..50_000));
    let breaks_off = rng.u8(0..3) == 0;
    let echoed = (|| {
        stream.write_all(head)?;
        read_head_of(&mut stream, b"HTTP/1.1 101 ")?;
        stream.write_all(&sent)?;
        if breaks_off {
            return Ok(Vec::new());
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        Ok(all)
    })();
    client.judge("upgraded", echoed, if breaks_off { &[] } else { &sent });
}

/// A request inside a tunnel; the tunnel ends in order, or is broken off with the answer unread.
fn tunnels(rng: &mut fastrand::Rng, client: &mut Client) {
    let Some(mut stream) = client.dial() else {
        return;
    };
    client.seen.begun += 1;
    let size = rng.usize(0..50_000);
    let breaks_off = rng.u8(0..3) == 0;
    let got = (|| {
        stream.write_all(b"CONNECT any.example:80 HTTP/1.1\r\nhost: any.example:80\r\n\r\n")?;
        read_head_of(&mut stream, b"HTTP/1.1 200 ")?;
        stream.write_all(&get_of(&format!("/bytes/{size}")))?;
        if breaks_off {
            return Ok(Vec::new());
        }
        stream.shutdown(std::net::Shutdown::Write)?;
        read_head_of(&mut stream, b"HTTP/1.1 200 ")?;
        let mut all = Vec::new();
        stream.read_to_end(&mut all)?;
        Ok(all)
    })();
    let wanted = if breaks_off { Vec::new() } else { bytes(size) };
    client.judge("tunnelled", got, &wanted);
}

/// Reads a head byte by byte: what follows is not its.
fn read_head_of(stream: &mut TcpStream, begin: &[u8]) -> io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    if head.starts_with(begin) {
        return Ok(());
    }
    Err(io::Error::other(
        String::from_utf8_lossy(&head).into_owned(),
    ))
}

/// The upstream resets in the middle of its answer: so must this connection end.
fn is_cut(rng: &mut fastrand::Rng, client: &mut Client) {
    let Some(mut stream) = client.dial() else {
        return;
    };
    client.seen.begun += 1;
    let target = format!("/reset/{}", rng.usize(0..100_000));
    if stream.write_all(&get_of(&target)).is_err() {
        return;
    }
    let mut all = Vec::new();
    // A reset or an end; but never the million bytes that were promised.
    let _ = stream.read_to_end(&mut all);
    if all.len() >= 1_000_000 {
        client
            .seen
            .wrong
            .push(format!("{target}: {} bytes", all.len()));
    }
    client.seen.cut += 1;
}

fn talks_nonsense(rng: &mut fastrand::Rng, client: &mut Client) {
    let Some(mut stream) = client.dial() else {
        return;
    };
    client.seen.begun += 1;
    let mut bytes = vec![0; rng.usize(1..3_000)];
    rng.fill(&mut bytes);
    // Ended, so that nonsense without an end of line is not waited for.
    if stream.write_all(&bytes).is_ok() && stream.shutdown(std::net::Shutdown::Write).is_ok() {
        let _ = stream.read_to_end(&mut Vec::new());
    }
    wait::pass(Duration::from_millis(20));
}
