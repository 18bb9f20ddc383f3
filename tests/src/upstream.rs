//! An upstream in this process: HTTP/1.1 as a test needs it, or any bytes.
//!
//! `GET /bytes/N` answers N bytes with a length, `/chunked/N` the same in chunks, `/close/N` the same
//! ended by closing; `GET /peer` the address that calls; `POST /echo` answers the body it got; `/status/N` that status; `/hang` nothing.
//! An upgrade is followed by an echo of what comes, an expectation by `100 Continue`.
//! Ill-behaved: `/reset/N` resets the connection after N bytes of a larger body, `/drip/N` sends N
//! bytes one by one.

use std::borrow::Cow;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use ringmesh_control::demo::stage::wait;

/// How long [`Upstream::impatient`] waits for another request.
pub const IMPATIENCE: Duration = Duration::from_millis(200);

/// A listening upstream; ends with its value.
#[derive(Debug)]
pub struct Upstream {
    /// Where it listens.
    pub address: SocketAddr,
    requests: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
}

/// The first `n` bytes of the same row of bytes every time, not compressible and without period.
#[must_use]
pub fn bytes(n: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(2026);
    let mut bytes = vec![0; n];
    rng.fill(&mut bytes);
    bytes
}

/// A body of which a copy more or less is felt: 64 MiB.
pub const BIG: usize = 64 * 1024 * 1024;

/// `bytes(BIG)`, made once: in a debug build that takes a while, which a time limit should not run for.
#[must_use]
pub fn big() -> &'static [u8] {
    static BYTES: LazyLock<Vec<u8>> = LazyLock::new(|| bytes(BIG));
    &BYTES
}

fn body(n: usize) -> Cow<'static, [u8]> {
    match n {
        BIG => big().into(),
        n => bytes(n).into(),
    }
}

impl Upstream {
    /// HTTP/1.1 at any port of `ip`.
    ///
    /// # Panics
    /// It cannot listen.
    #[must_use]
    pub fn http(ip: IpAddr) -> Self {
        Self::http_at((ip, 0).into())
    }

    /// HTTP/1.1 at one address.
    ///
    /// # Panics
    /// It cannot listen.
    #[must_use]
    pub fn http_at(at: SocketAddr) -> Self {
        Self::start(at, serve_http)
    }

    /// Says on a line which address calls, and then sends back what comes.
    ///
    /// # Panics
    /// It cannot listen.
    #[must_use]
    pub fn greeter_at(at: SocketAddr) -> Self {
        Self::start(at, |mut conn, _| {
            conn.write_all(format!("{}\n", conn.peer_addr()?).as_bytes())?;
            echo(conn)
        })
    }

    /// [`Self::http`] that closes a connection [`IMPATIENCE`] after an answer if no request follows, without
    /// saying so. To a first request, and in the middle of one or of an upgrade, it listens for as long as it takes.
    ///
    /// # Panics
    /// It cannot listen.
    #[must_use]
    pub fn impatient(ip: IpAddr) -> Self {
        Self::start((ip, 0).into(), |conn, requests| {
            serve_until_idle(conn, requests, Some(IMPATIENCE))
        })
    }

    /// Sends back what comes, byte for byte, until the client's end; then ends too.
    ///
    /// # Panics
    /// It cannot listen.
    #[must_use]
    pub fn echo(ip: IpAddr) -> Self {
        Self::start((ip, 0).into(), |conn, _| echo(conn))
    }

    fn start(at: SocketAddr, serve: fn(&TcpStream, &AtomicU64) -> io::Result<()>) -> Self {
        let listener = TcpListener::bind(at).expect("listen");
        let address = listener.local_addr().expect("address");
        let upstream = Self {
            address,
            requests: Arc::default(),
            stop: Arc::default(),
        };
        let (requests, stop) = (Arc::clone(&upstream.requests), Arc::clone(&upstream.stop));
        std::thread::spawn(move || {
            for conn in listener.incoming() {
                if stop.load(Ordering::Relaxed) {
                    return;
                }
                let requests = Arc::clone(&requests);
                // A peer that breaks off is the test's own doing.
                std::thread::spawn(move || conn.and_then(|conn| serve(&conn, &requests)));
            }
        });
        upstream
    }

    /// Requests that reached it.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // Wakes the accepting thread so that it sees the flag.
        let _ = TcpStream::connect(self.address);
    }
}

fn echo(conn: &TcpStream) -> io::Result<()> {
    io::copy(&mut &*conn, &mut &*conn)?;
    conn.shutdown(std::net::Shutdown::Write)
}

struct Head {
    method: String,
    target: String,
    length: usize,
    chunked: bool,
    closes: bool,
    expects: bool,
    upgrades: bool,
}

fn serve_http(conn: &TcpStream, requests: &AtomicU64) -> io::Result<()> {
    serve_until_idle(conn, requests, None)
}

fn serve_until_idle(
    conn: &TcpStream,
    requests: &AtomicU64,
    patience: Option<Duration>,
) -> io::Result<()> {
    conn.set_nodelay(true)?;
    let mut reader = BufReader::new(conn);
    while let Some(head) = read_head(&mut reader)? {
        conn.set_read_timeout(None)?;
        requests.fetch_add(1, Ordering::SeqCst);
        if head.expects {
            (&mut &*conn).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        if head.upgrades {
            return echo_upgraded(conn, &mut reader);
        }
        let body = read_body(&mut reader, &head)?;
        let closes = answer(conn, &mut reader, &head, &body)?;
        if closes || head.closes {
            return Ok(());
        }
        conn.set_read_timeout(patience)?;
    }
    Ok(())
}

fn read_head(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Head>> {
    let mut head = Head {
        method: String::new(),
        target: String::new(),
        length: 0,
        chunked: false,
        closes: false,
        expects: false,
        upgrades: false,
    };
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    head.method = words.next().unwrap_or_default();
    head.target = words.next().unwrap_or_default();
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let text = line.trim().to_ascii_lowercase();
        match text.split_once(':') {
            None if text.is_empty() => return Ok(Some(head)),
            Some(("content-length", value)) => head.length = value.trim().parse().unwrap_or(0),
            Some(("transfer-encoding", value)) => head.chunked = value.trim() == "chunked",
            Some(("connection", value)) => head.closes = value.trim() == "close",
            Some(("expect", value)) => head.expects = value.trim() == "100-continue",
            Some(("upgrade", _)) => head.upgrades = true,
            _ => {}
        }
    }
}

fn read_body(reader: &mut BufReader<&TcpStream>, head: &Head) -> io::Result<Vec<u8>> {
    let mut body = vec![0; head.length];
    reader.read_exact(&mut body)?;
    if !head.chunked {
        return Ok(body);
    }
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let size =
            usize::from_str_radix(line.trim(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
        let start = body.len();
        body.resize(start + size, 0);
        reader.read_exact(&mut body[start..])?;
        reader.read_line(&mut line)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

/// Switches protocols and sends back what comes, until the client's end; then ends too.
fn echo_upgraded(mut conn: &TcpStream, reader: &mut BufReader<&TcpStream>) -> io::Result<()> {
    conn.write_all(
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n",
    )?;
    io::copy(reader, &mut conn)?;
    conn.shutdown(std::net::Shutdown::Write)
}

/// Whether the connection must close now.
fn answer(
    mut conn: &TcpStream,
    reader: &mut BufReader<&TcpStream>,
    head: &Head,
    got: &[u8],
) -> io::Result<bool> {
    let (what, number) = match head.target.trim_start_matches('/').split_once('/') {
        Some((what, number)) => (
            what,
            number
                .split('?')
                .next()
                .unwrap_or_default()
                .parse()
                .unwrap_or(0),
        ),
        None => (head.target.trim_start_matches('/'), 0_usize),
    };
    let with_length = |body: &[u8]| {
        let mut text = format!("HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
        if head.method != "HEAD" {
            text.extend_from_slice(body);
        }
        text
    };
    match what {
        "bytes" => conn.write_all(&with_length(&body(number)))?,
        "peer" => {
            let peer = conn.peer_addr()?;
            conn.write_all(&with_length(peer.to_string().as_bytes()))?;
        }
        "echo" => conn.write_all(&with_length(got))?,
        "status" => conn
            .write_all(format!("HTTP/1.1 {number} Told\r\ncontent-length: 0\r\n\r\n").as_bytes())?,
        "hang" => {
            io::copy(reader, &mut io::sink())?;
            return Ok(true);
        }
        "reset" => {
            conn.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")?;
            conn.write_all(&bytes(number))?;
            socket2::SockRef::from(conn).set_linger(Some(Duration::ZERO))?;
            return Ok(true);
        }
        "drip" => {
            conn.write_all(
                format!("HTTP/1.1 200 OK\r\ncontent-length: {number}\r\n\r\n").as_bytes(),
            )?;
            for byte in bytes(number) {
                conn.write_all(&[byte])?;
                wait::pass(Duration::from_millis(1));
            }
        }
        "close" => {
            conn.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
            conn.write_all(&bytes(number))?;
            return Ok(true);
        }
        "chunked" => {
            conn.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")?;
            // Uneven pieces, so that boundaries fall everywhere.
            for piece in body(number).chunks(12_345) {
                let head = format!("{:x}\r\n", piece.len());
                conn.write_all(&[head.as_bytes(), piece, b"\r\n"].concat())?;
            }
            conn.write_all(b"0\r\n\r\n")?;
        }
        _ => conn.write_all(&with_length(b"hello\n"))?,
    }
    Ok(false)
}
