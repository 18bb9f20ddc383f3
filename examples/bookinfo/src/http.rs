//! As much HTTP/1.1 as a small server needs: a thread per connection, keep-alive, bounded heads.

use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

/// Longest head we read, bytes.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const HEADERS_MAX: usize = 100;

/// A request as the app sees it.
#[derive(Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
}

impl Request {
    /// First value of a header, by lower-case name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name)?;
        Some(&found.1)
    }
}

/// What a role answers.
#[derive(Debug)]
pub(crate) enum Answer {
    /// A status and a JSON body.
    Json(u16, String),
    /// Nothing, for as long as the caller stays.
    Never,
}

/// Serves for ever.
pub(crate) fn serve(
    listener: &TcpListener,
    answer: impl Fn(&Request) -> Answer + Send + Sync + 'static,
) {
    let answer = Arc::new(answer);
    loop {
        match listener.accept() {
            Ok((conn, _)) => {
                let answer = Arc::clone(&answer);
                // A peer that breaks off is its own business.
                std::thread::spawn(move || drop(serve_conn(&conn, &*answer)));
            }
            Err(error) => eprintln!("accept: {error}"),
        }
    }
}

fn serve_conn(conn: &TcpStream, answer: &dyn Fn(&Request) -> Answer) -> io::Result<()> {
    conn.set_nodelay(true)?;
    let mut reader = BufReader::new(conn);
    while let Some(head) = read_head(&mut reader)? {
        let request = parse_request(&head)?;
        skip_body(&mut reader, &request)?;
        match answer(&request) {
            Answer::Json(status, body) => {
                let closes = request
                    .header("connection")
                    .is_some_and(|v| v.eq_ignore_ascii_case("close"));
                write_answer(conn, status, &body, request.method == "HEAD")?;
                if closes {
                    return Ok(());
                }
            }
            Answer::Never => {
                // Ends when the caller hangs up.
                io::copy(&mut reader, &mut io::sink())?;
                return Ok(());
            }
        }
    }
    Ok(())
}

fn write_answer(mut conn: &TcpStream, status: u16, body: &str, head_only: bool) -> io::Result<()> {
    let head = format!(
        "HTTP/1.1 {status} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
        if status == 200 { "OK" } else { "Answer" },
        body.len()
    );
    let text = if head_only { head } else { head + body };
    conn.write_all(text.as_bytes())
}

/// The bytes up to and with the empty line; `None` at a clean end.
pub(crate) fn read_head(reader: &mut BufReader<impl Read>) -> io::Result<Option<Vec<u8>>> {
    let mut head = Vec::new();
    loop {
        let before = head.len();
        let room = (HEAD_BYTES_MAX - before) as u64;
        if reader.take(room).read_until(b'\n', &mut head)? == 0 {
            return if before == 0 {
                Ok(None)
            } else {
                Err(wrong("half a head"))
            };
        }
        if head.len() - before <= 2 && head[before..].iter().all(|b| matches!(b, b'\r' | b'\n')) {
            return Ok(Some(head));
        }
    }
}

fn parse_request(head: &[u8]) -> io::Result<Request> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut headers);
    parsed
        .parse(head)
        .map_err(|error| wrong(&error.to_string()))?;
    Ok(Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        target: parsed.path.unwrap_or_default().to_owned(),
        headers: owned(parsed.headers),
    })
}

/// Status and headers of an answer's head.
pub(crate) fn parse_answer(head: &[u8]) -> io::Result<(u16, Vec<(String, String)>)> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut headers);
    parsed
        .parse(head)
        .map_err(|error| wrong(&error.to_string()))?;
    Ok((parsed.code.unwrap_or(0), owned(parsed.headers)))
}

fn owned(headers: &[httparse::Header<'_>]) -> Vec<(String, String)> {
    headers
        .iter()
        .map(|header| {
            (
                header.name.to_ascii_lowercase(),
                String::from_utf8_lossy(header.value).into_owned(),
            )
        })
        .collect()
}

fn skip_body(reader: &mut BufReader<&TcpStream>, request: &Request) -> io::Result<()> {
    read_body(reader, &request.headers, false, &mut io::sink())
}

/// Reads a body by its framing; without any, to the end if `until_close`.
pub(crate) fn read_body(
    reader: &mut BufReader<impl Read>,
    headers: &[(String, String)],
    until_close: bool,
    out: &mut impl io::Write,
) -> io::Result<()> {
    let value = |name: &str| {
        headers
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    };
    if value("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return read_chunked(reader, out);
    }
    match value("content-length").map(str::parse::<u64>) {
        Some(Ok(length)) => {
            let copied = io::copy(&mut reader.take(length), out)?;
            if copied == length {
                Ok(())
            } else {
                Err(wrong("half a body"))
            }
        }
        Some(Err(_)) => Err(wrong("content-length")),
        None if until_close => io::copy(reader, out).map(|_| ()),
        None => Ok(()),
    }
}

fn read_chunked(reader: &mut BufReader<impl Read>, out: &mut impl io::Write) -> io::Result<()> {
    loop {
        let mut line = String::new();
        reader.take(1024).read_line(&mut line)?;
        let digits = line.split(';').next().unwrap_or_default().trim();
        let length = u64::from_str_radix(digits, 16).map_err(|_| wrong("chunk size"))?;
        if length == 0 {
            // Trailers end with the empty line.
            while reader
                .take(HEAD_BYTES_MAX as u64)
                .read_until(b'\n', &mut Vec::new())?
                > 2
            {}
            return Ok(());
        }
        if io::copy(&mut reader.take(length), out)? < length {
            return Err(wrong("half a chunk"));
        }
        reader.read_line(&mut String::new())?;
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_bodies_are_cut_at_the_right_byte() {
        let bytes = b"GET /a HTTP/1.1\r\nHost: x\r\nX-Y: z\r\ncontent-length: 3\r\n\r\nabcGET /b HTTP/1.1\r\n\r\n";
        let mut reader = BufReader::new(&bytes[..]);
        let request =
            parse_request(&read_head(&mut reader).expect("head").expect("some")).expect("request");
        assert_eq!(
            (request.target.as_str(), request.header("x-y")),
            ("/a", Some("z"))
        );
        let mut body = Vec::new();
        read_body(&mut reader, &request.headers, false, &mut body).expect("body");
        assert_eq!(body, b"abc");
        let next = read_head(&mut reader).expect("head").expect("some");
        assert_eq!(parse_request(&next).expect("request").target, "/b");
        assert!(read_head(&mut reader).expect("end").is_none());
    }

    #[test]
    fn chunks_are_joined() {
        let mut reader = BufReader::new(&b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nt: v\r\n\r\nrest"[..]);
        let mut body = Vec::new();
        read_body(
            &mut reader,
            &[("transfer-encoding".into(), "chunked".into())],
            false,
            &mut body,
        )
        .expect("body");
        assert_eq!(body, b"abcde");
        let mut rest = String::new();
        reader.read_to_string(&mut rest).expect("rest");
        assert_eq!(rest, "rest");
    }
}
