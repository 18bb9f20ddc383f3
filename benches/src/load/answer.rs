//! Where an HTTP/1.1 answer ends. Pure; for answers to GET, which all have a body.

use std::fmt;

/// Most bytes of an answer's head.
const HEAD_BYTES_MAX: usize = 64 * 1024;
const FIELDS_MAX: usize = 128;

/// Reads one answer after the other, whatever pieces they come in.
#[derive(Debug, Default)]
pub(super) struct Answer {
    /// A head that has not come whole; empty in the common case.
    head: Vec<u8>,
    body: Body,
    pub(super) status: u16,
    /// The server will not answer again on this connection.
    pub(super) last: bool,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Body {
    /// The head is not through.
    #[default]
    Unknown,
    Bytes(u64),
    Chunked(Chunked),
    UntilClose,
}

/// Where in a chunked body we are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Chunked {
    Size(u64),
    /// The rest of a size line, after the size.
    SizeLine(u64),
    Data(u64),
    /// The line end behind the data: bytes still to come.
    DataEnd(u8),
    /// In a line of the trailer; whether it has had bytes.
    Trailer(bool),
}

/// Not an answer that can be understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bad(&'static str);

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Answer {
    /// Takes received bytes; `true` once the answer is whole. The next call begins the next answer.
    ///
    /// # Errors
    /// Not HTTP/1.x, or bytes behind the end: nothing was asked for them.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> Result<bool, Bad> {
        if self.body != Body::Unknown {
            return self.feed_body(bytes);
        }
        if self.head.is_empty() {
            return match self.read_head(bytes)? {
                Some(used) => self.feed_body(&bytes[used..]),
                None => {
                    self.head.extend_from_slice(bytes);
                    Ok(false)
                }
            };
        }
        self.head.extend_from_slice(bytes);
        if self.head.len() > HEAD_BYTES_MAX {
            return Err(Bad("the answer's head is too long"));
        }
        let whole = std::mem::take(&mut self.head);
        match self.read_head(&whole)? {
            Some(used) => self.feed_body(&whole[used..]),
            None => {
                self.head = whole;
                Ok(false)
            }
        }
    }

    /// The connection has ended; `true` if that was the end of an answer.
    pub(super) fn end(&self) -> bool {
        self.body == Body::UntilClose
    }

    fn read_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Bad> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut head = httparse::Response::new(&mut fields);
        let used = match head.parse(bytes) {
            Ok(httparse::Status::Complete(used)) => used,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(Bad("not an HTTP/1.x answer")),
        };
        self.status = head.code.unwrap_or(0);
        if self.status / 100 == 1 {
            return match self.read_head(&bytes[used..])? {
                Some(more) => Ok(Some(used + more)),
                None => Ok(None),
            };
        }
        self.last = head.version == Some(0);
        self.body = Body::UntilClose;
        for field in head.headers.iter() {
            if field.name.eq_ignore_ascii_case("content-length") {
                if self.body == Body::UntilClose {
                    let bytes = std::str::from_utf8(field.value).ok();
                    let bytes = bytes.and_then(|text| text.trim().parse().ok());
                    self.body = Body::Bytes(bytes.ok_or(Bad("an odd Content-Length"))?);
                }
            } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
                self.body = Body::Chunked(Chunked::Size(0));
            } else if field.name.eq_ignore_ascii_case("connection") {
                self.last |= field.value.eq_ignore_ascii_case(b"close");
            }
        }
        if matches!(self.status, 204 | 304) {
            self.body = Body::Bytes(0);
        }
        self.last |= self.body == Body::UntilClose;
        Ok(Some(used))
    }

    fn feed_body(&mut self, bytes: &[u8]) -> Result<bool, Bad> {
        let (used, done) = match &mut self.body {
            Body::Unknown => return Err(Bad("a body before its head")),
            Body::UntilClose => return Ok(false),
            Body::Bytes(left) => {
                let used = (*left).min(bytes.len() as u64);
                *left -= used;
                (used as usize, *left == 0)
            }
            Body::Chunked(state) => state.feed(bytes)?,
        };
        if !done {
            return Ok(false);
        }
        if used != bytes.len() {
            return Err(Bad("bytes behind the answer's end"));
        }
        self.body = Body::Unknown;
        Ok(true)
    }
}

impl Chunked {
    /// Bytes used, and whether the body is whole.
    fn feed(&mut self, bytes: &[u8]) -> Result<(usize, bool), Bad> {
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            at += 1;
            *self = match *self {
                Self::Size(size) => match (byte as char).to_digit(16) {
                    Some(digit) => Self::Size(
                        size.checked_mul(16)
                            .ok_or(Bad("an odd chunk size"))?
                            .saturating_add(digit.into()),
                    ),
                    None if byte == b'\r' || byte == b';' || byte == b' ' => Self::SizeLine(size),
                    None => return Err(Bad("an odd chunk size")),
                },
                Self::SizeLine(0) if byte == b'\n' => Self::Trailer(false),
                Self::SizeLine(size) if byte == b'\n' => Self::Data(size),
                Self::SizeLine(size) => Self::SizeLine(size),
                Self::Data(left) => {
                    // This byte and as many more as are here.
                    let more = (left - 1).min((bytes.len() - at) as u64);
                    at += more as usize;
                    match left - 1 - more {
                        0 => Self::DataEnd(2),
                        left => Self::Data(left),
                    }
                }
                Self::DataEnd(2) => Self::DataEnd(1),
                Self::DataEnd(_) => Self::Size(0),
                Self::Trailer(false) if byte == b'\n' => return Ok((at, true)),
                Self::Trailer(true) if byte == b'\n' => Self::Trailer(false),
                Self::Trailer(some) => Self::Trailer(some || byte != b'\r'),
            };
        }
        Ok((at, false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    const CHUNKED: &[u8] =
        b"HTTP/1.1 503 No\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n\
        b;x=1\r\nhello world\r\n1\r\n!\r\n0\r\nTrailer: x\r\n\r\n";
    const INTERIM: &[u8] =
        b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No\r\nContent-Length: 7\r\n\r\n";

    #[test]
    fn cut_anywhere_an_answer_ends_where_it_ends() {
        for (text, status, last) in [
            (LENGTH, 200, false),
            (CHUNKED, 503, true),
            (INTERIM, 204, false),
        ] {
            for cut in 0..text.len() {
                let mut answer = Answer::default();
                // Two in a row: the first leaves nothing behind.
                for _ in 0..2 {
                    assert_eq!(answer.feed(&text[..cut]), Ok(false), "cut at {cut}");
                    assert_eq!(answer.feed(&text[cut..]), Ok(true), "cut at {cut}");
                    assert_eq!((answer.status, answer.last), (status, last));
                }
            }
        }
    }

    #[test]
    fn without_a_length_the_close_ends_it() {
        let mut answer = Answer::default();
        assert_eq!(answer.feed(b"HTTP/1.0 200 OK\r\n\r\nabc"), Ok(false));
        assert!(answer.end() && answer.last);
        assert!(!Answer::default().end());
    }

    #[test]
    fn what_is_no_answer_is_told() {
        assert!(Answer::default().feed(b"SSH-2.0-x\r\n").is_err());
        let more = [LENGTH, b"x"].concat();
        assert!(Answer::default().feed(&more).is_err());
    }
}
