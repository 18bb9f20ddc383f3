//! A plain HTTP/1.1 client on std: what an app would send, and everything that came back.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::Result;

/// Longest head and longest body we read, bytes.
const HEAD_BYTES_MAX: u64 = 256 * 1024;
const BODY_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Headers with lower-case names, in order.
    pub headers: Vec<(String, String)>,
    /// Body, transfer coding removed.
    pub body: Vec<u8>,
    /// From the request's first byte to the answer's last.
    pub took: Duration,
}

impl Answer {
    /// First value of a header, by lower-case name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name)?;
        Some(&found.1)
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; `null` if it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A keep-alive connection.
#[derive(Debug)]
pub struct Conn {
    reader: BufReader<TcpStream>,
}

impl Conn {
    /// Connects; every read waits at most `patience`.
    ///
    /// # Errors
    /// Refused or timed out.
    pub fn open(to: SocketAddr, patience: Duration) -> Result<Self> {
        let open = || -> io::Result<Self> {
            let conn = TcpStream::connect_timeout(&to, patience)?;
            conn.set_read_timeout(Some(patience))?;
            conn.set_nodelay(true)?;
            Ok(Self {
                reader: BufReader::new(conn),
            })
        };
        open().map_err(|error| format!("connecting to {to}: {error}"))
    }

    /// Sends a GET and reads the answer.
    ///
    /// # Errors
    /// The connection broke or the answer is not HTTP.
    pub fn get(
        &mut self,
        authority: &str,
        target: &str,
        headers: &[(&str, &str)],
    ) -> Result<Answer> {
        let mut head = format!("GET {target} HTTP/1.1\r\nhost: {authority}\r\n");
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        self.ask((head + "\r\n").as_bytes())
    }

    /// Sends bytes as they are and reads one answer.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn ask(&mut self, bytes: &[u8]) -> Result<Answer> {
        let start = Instant::now();
        self.send(bytes)?;
        self.answer(start)
            .map_err(|error| format!("reading the answer: {error}"))
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection broke.
    pub fn send(&mut self, bytes: &[u8]) -> Result<()> {
        self.reader
            .get_mut()
            .write_all(bytes)
            .map_err(|error| format!("sending: {error}"))
    }

    /// All that comes until the peer closes.
    ///
    /// # Errors
    /// Nothing came for the connection's patience, or it was reset.
    pub fn rest(&mut self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let read = (&mut self.reader)
            .take(BODY_BYTES_MAX)
            .read_to_end(&mut bytes);
        match read {
            Ok(_) => Ok(bytes),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(bytes),
            Err(error) => Err(format!("no close after {} bytes: {error}", bytes.len())),
        }
    }

    /// Closes our writing side.
    pub fn finish(&self) {
        // An already broken connection is closed too.
        let _ = self.reader.get_ref().shutdown(std::net::Shutdown::Write);
    }

    /// Reads an answer that was asked for at `start`.
    ///
    /// # Errors
    /// The connection broke or the answer is not HTTP.
    pub fn answer(&mut self, start: Instant) -> io::Result<Answer> {
        loop {
            let (status, headers) = parse(&self.head()?)?;
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let body = self.body(status, &headers)?;
            return Ok(Answer {
                status,
                headers,
                body,
                took: start.elapsed(),
            });
        }
    }

    fn head(&mut self) -> io::Result<Vec<u8>> {
        let mut head = Vec::new();
        loop {
            let before = head.len();
            (&mut self.reader)
                .take(HEAD_BYTES_MAX)
                .read_until(b'\n', &mut head)?;
            match head.len() - before {
                0 => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "closed before an answer",
                    ));
                }
                1 | 2 if before > 0 => return Ok(head),
                _ if head.len() as u64 > HEAD_BYTES_MAX => return Err(wrong("a head too long")),
                _ => {}
            }
        }
    }

    fn body(&mut self, status: u16, headers: &[(String, String)]) -> io::Result<Vec<u8>> {
        let value = |name: &str| {
            headers
                .iter()
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.as_str())
        };
        let mut body = Vec::new();
        if matches!(status, 101 | 204 | 304) {
            return Ok(body);
        }
        if value("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            self.chunks(&mut body)?;
        } else if let Some(length) = value("content-length") {
            let length: u64 = length.parse().map_err(|_| wrong("content-length"))?;
            if length > BODY_BYTES_MAX {
                return Err(wrong("a body too long"));
            }
            (&mut self.reader).take(length).read_to_end(&mut body)?;
            if (body.len() as u64) < length {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "half a body"));
            }
        } else {
            (&mut self.reader)
                .take(BODY_BYTES_MAX)
                .read_to_end(&mut body)?;
        }
        Ok(body)
    }

    fn chunks(&mut self, body: &mut Vec<u8>) -> io::Result<()> {
        loop {
            let line = self.line()?;
            let digits = line.split(';').next().unwrap_or_default().trim();
            let length = u64::from_str_radix(digits, 16).map_err(|_| wrong("chunk size"))?;
            if length == 0 {
                while !self.line()?.trim().is_empty() {}
                return Ok(());
            }
            if (body.len() as u64).saturating_add(length) > BODY_BYTES_MAX {
                return Err(wrong("a body too long"));
            }
            if (&mut self.reader).take(length).read_to_end(body)? as u64 != length {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "half a chunk"));
            }
            self.line()?;
        }
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if (&mut self.reader)
            .take(HEAD_BYTES_MAX)
            .read_line(&mut line)?
            == 0
        {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "closed inside a body",
            ));
        }
        Ok(line)
    }
}

/// One GET on a connection of its own.
///
/// # Errors
/// As [`Conn::get`].
pub fn get(
    to: SocketAddr,
    authority: &str,
    target: &str,
    headers: &[(&str, &str)],
    patience: Duration,
) -> Result<Answer> {
    Conn::open(to, patience)?.get(authority, target, headers)
}

fn parse(head: &[u8]) -> io::Result<(u16, Vec<(String, String)>)> {
    let mut headers = [httparse::EMPTY_HEADER; 100];
    let mut parsed = httparse::Response::new(&mut headers);
    parsed
        .parse(head)
        .map_err(|error| wrong(&error.to_string()))?;
    let headers = parsed
        .headers
        .iter()
        .map(|header| {
            (
                header.name.to_ascii_lowercase(),
                String::from_utf8_lossy(header.value).into_owned(),
            )
        })
        .collect();
    Ok((parsed.code.unwrap_or(0), headers))
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}
