//! Bodies as they arrive, and chunked coding as it leaves.
//!
//! The decoder never owns payload: it says which bytes of the caller's slice are payload and which
//! are framing, so a receive buffer can be cut and sent on as it is.

use super::fields::{Known, is_token, is_value};
use super::framing::Framing;
use super::limits::{
    CHUNK_EXTENSION_BYTES_MAX, CHUNK_EXTENSIONS_BYTES_MAX, CHUNK_SIZE_DIGITS_MAX, TRAILER_BYTES_MAX,
};
use super::sink::{Full, Sink, put_hex};

/// How a body breaks its framing. The connection it came on closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum BodyFault {
    /// A chunk size that is not 1 to 16 hexadecimal digits.
    ChunkSize,
    /// A chunk extension with a control character, or too long, or too much of them.
    ChunkExtension,
    /// A line that ends otherwise than in CRLF, or data longer than its size said.
    LineEnd,
    /// A trailer field that is none.
    Trailer,
    /// A trailer section over its bound.
    TrailerTooLarge,
    /// The peer closed before the end.
    Truncated,
}

/// The next piece of a body: `skip` bytes of framing, then `payload` bytes of payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Decoded {
    /// Bytes to throw away first.
    pub skip: usize,
    /// Bytes of payload after them.
    pub payload: usize,
    /// The body is over; what follows is the next message's.
    pub end: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    End,
    Length(u64),
    UntilClose,
    Size {
        size: u64,
        digits: u8,
    },
    /// Spaces after the size: an extension has to follow.
    SizeSpace {
        size: u64,
    },
    Extension {
        size: u64,
        len: u32,
    },
    SizeLf {
        size: u64,
    },
    Data(u64),
    DataCr,
    DataLf,
    Trailer,
}

/// Walks one body. Reused from body to body.
#[derive(Debug, Default)]
pub struct BodyDecoder {
    state: State,
    extensions: u32,
    /// The trailer section so far: complete, checked lines and the beginning of one more.
    trailers: Vec<u8>,
    trailer_line: usize,
    /// Bytes of the trailer section, kept or not.
    trailer_bytes: usize,
}

impl BodyDecoder {
    /// A decoder that is at the end of a body.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Begins a body.
    pub fn begin(&mut self, framing: Framing) {
        self.state = match framing {
            Framing::None | Framing::Length(0) => State::End,
            Framing::Length(len) => State::Length(len),
            Framing::Chunked => State::Size { size: 0, digits: 0 },
            Framing::UntilClose => State::UntilClose,
        };
        self.extensions = 0;
        self.trailers.clear();
        self.trailer_line = 0;
        self.trailer_bytes = 0;
    }

    /// Whether the whole body was seen.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.state == State::End
    }

    /// Payload bytes that certainly follow still, as far as is known.
    #[must_use]
    pub fn known_rest(&self) -> u64 {
        match self.state {
            State::Length(rest) | State::Data(rest) => rest,
            State::End
            | State::UntilClose
            | State::Size { .. }
            | State::SizeSpace { .. }
            | State::Extension { .. }
            | State::SizeLf { .. }
            | State::DataCr
            | State::DataLf
            | State::Trailer => 0,
        }
    }

    /// Whether so many bytes are all that a body of known length lacks.
    #[must_use]
    pub fn is_last_part(&self, len: u64) -> bool {
        self.state == State::Length(len)
    }

    /// The trailer section of a chunked body that is over: whole lines, without the empty one and
    /// without fields that may not stand there (RFC 9110 section 6.5.1).
    #[must_use]
    pub fn trailers(&self) -> &[u8] {
        &self.trailers[..self.trailer_line]
    }

    /// Looks at bytes that follow those seen so far. Call again with what lies behind
    /// `skip + payload` until the input is used up or `end`.
    ///
    /// # Errors
    /// [`BodyFault`]; the body cannot be read further.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, BodyFault> {
        let mut at = 0;
        loop {
            if self.state == State::End {
                return Ok(Decoded {
                    skip: at,
                    payload: 0,
                    end: true,
                });
            }
            let rest = &input[at..];
            if rest.is_empty() {
                return Ok(Decoded {
                    skip: at,
                    ..Decoded::default()
                });
            }
            if let Some(payload) = self.take_payload(rest) {
                return Ok(Decoded {
                    skip: at,
                    payload,
                    end: self.state == State::End,
                });
            }
            at += self.take_framing(rest)?;
        }
    }

    /// Payload at the start of `rest`, which is not empty.
    fn take_payload(&mut self, rest: &[u8]) -> Option<usize> {
        let limit =
            |left: u64| usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
        match self.state {
            State::UntilClose => Some(rest.len()),
            State::Length(left) => {
                let len = limit(left);
                self.state = match left - len as u64 {
                    0 => State::End,
                    left => State::Length(left),
                };
                Some(len)
            }
            State::Data(left) => {
                let len = limit(left);
                self.state = match left - len as u64 {
                    0 => State::DataCr,
                    left => State::Data(left),
                };
                Some(len)
            }
            State::End
            | State::Size { .. }
            | State::SizeSpace { .. }
            | State::Extension { .. }
            | State::SizeLf { .. }
            | State::DataCr
            | State::DataLf
            | State::Trailer => None,
        }
    }

    /// Framing at the start of `rest`, which is not empty; how many bytes of it.
    fn take_framing(&mut self, rest: &[u8]) -> Result<usize, BodyFault> {
        if self.state == State::Trailer {
            return self.take_trailer(rest);
        }
        let byte = rest[0];
        self.state = match (self.state, byte) {
            (State::Size { size, digits }, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                if digits >= CHUNK_SIZE_DIGITS_MAX {
                    return Err(BodyFault::ChunkSize);
                }
                let digit = char::from(byte).to_digit(16).unwrap_or(0);
                State::Size {
                    // At most 16 digits of 4 bits: nothing is shifted out.
                    size: (size << 4) | u64::from(digit),
                    digits: digits + 1,
                }
            }
            (State::Size { size, digits: 1.. }, b'\r') => State::SizeLf { size },
            (State::Size { size, digits: 1.. } | State::SizeSpace { size }, b';') => {
                self.count_extension(1)?;
                State::Extension { size, len: 1 }
            }
            (State::Size { size, digits: 1.. } | State::SizeSpace { size }, b' ' | b'\t') => {
                self.count_extension(1)?;
                State::SizeSpace { size }
            }
            (State::Size { .. } | State::SizeSpace { .. }, _) => return Err(BodyFault::ChunkSize),
            (State::Extension { size, .. }, b'\r') => State::SizeLf { size },
            (State::Extension { size, len }, byte) => {
                self.count_extension(1)?;
                if len >= CHUNK_EXTENSION_BYTES_MAX || !is_value(&[byte]) {
                    return Err(BodyFault::ChunkExtension);
                }
                State::Extension { size, len: len + 1 }
            }
            (State::SizeLf { size: 0 }, b'\n') => State::Trailer,
            (State::SizeLf { size }, b'\n') => State::Data(size),
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size { size: 0, digits: 0 },
            (State::SizeLf { .. } | State::DataCr | State::DataLf, _) => {
                return Err(BodyFault::LineEnd);
            }
            (
                State::End | State::Length(_) | State::UntilClose | State::Data(_) | State::Trailer,
                _,
            ) => self.state,
        };
        Ok(1)
    }

    fn count_extension(&mut self, bytes: u32) -> Result<(), BodyFault> {
        self.extensions += bytes;
        if self.extensions > CHUNK_EXTENSIONS_BYTES_MAX {
            return Err(BodyFault::ChunkExtension);
        }
        Ok(())
    }

    /// Takes trailer bytes up to and with the next LF.
    fn take_trailer(&mut self, rest: &[u8]) -> Result<usize, BodyFault> {
        let end = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        self.trailer_bytes += end;
        if self.trailer_bytes > TRAILER_BYTES_MAX {
            return Err(BodyFault::TrailerTooLarge);
        }
        self.trailers.extend_from_slice(&rest[..end]);
        if rest[end - 1] != b'\n' {
            return Ok(end);
        }
        let line = &self.trailers[self.trailer_line..];
        let line = line.strip_suffix(b"\r\n").ok_or(BodyFault::LineEnd)?;
        if line.is_empty() {
            self.state = State::End;
            return Ok(end);
        }
        let colon = memchr::memchr(b':', line).ok_or(BodyFault::Trailer)?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if !is_token(name) || !is_value(value) {
            return Err(BodyFault::Trailer);
        }
        if may_not_trail(name) {
            self.trailers.truncate(self.trailer_line);
        } else {
            self.trailer_line = self.trailers.len();
        }
        Ok(end)
    }

    /// The peer will send nothing more.
    ///
    /// # Errors
    /// [`BodyFault::Truncated`] if the body is not over.
    pub fn finish(&mut self) -> Result<(), BodyFault> {
        match self.state {
            State::End => Ok(()),
            State::UntilClose => {
                self.state = State::End;
                Ok(())
            }
            State::Length(_)
            | State::Size { .. }
            | State::SizeSpace { .. }
            | State::Extension { .. }
            | State::SizeLf { .. }
            | State::Data(_)
            | State::DataCr
            | State::DataLf
            | State::Trailer => Err(BodyFault::Truncated),
        }
    }
}

/// Fields that frame, route, authenticate or change the request: meaningless or dangerous after the
/// body (RFC 9110 section 6.5.1).
pub(crate) fn may_not_trail(name: &[u8]) -> bool {
    let known = Known::of(name);
    known.is_ours()
        || matches!(known, Known::Expect | Known::ContentType)
        || [
            &b"authorization"[..],
            b"cache-control",
            b"content-encoding",
            b"content-range",
            b"cookie",
            b"max-forwards",
            b"set-cookie",
            b"trailer",
        ]
        .iter()
        .any(|other| name.eq_ignore_ascii_case(other))
}

/// Writes the framing of a chunked body around payload the caller sends itself: before each piece
/// [`Self::piece`], at the end [`Self::last`]. The CRLF that ends a chunk is written with the next
/// framing, so each piece costs one small buffer in front of it and none behind.
#[derive(Debug, Default)]
pub struct ChunkEncoder {
    begun: bool,
}

impl ChunkEncoder {
    /// At the beginning of a body.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What goes before `len` bytes of payload; nothing for none (an empty chunk would end the body).
    ///
    /// # Errors
    /// [`Full`]; at most 20 bytes are needed.
    pub fn piece<S: Sink>(&mut self, len: usize, sink: &mut S) -> Result<(), Full> {
        if len == 0 {
            return Ok(());
        }
        if self.begun {
            sink.put(b"\r\n")?;
        }
        self.begun = true;
        put_hex(sink, len as u64)?;
        sink.put(b"\r\n")
    }

    /// What ends the body, with [`BodyDecoder::trailers`] or none.
    ///
    /// # Errors
    /// [`Full`].
    pub fn last<S: Sink>(&mut self, trailers: &[u8], sink: &mut S) -> Result<(), Full> {
        if self.begun {
            sink.put(b"\r\n")?;
        }
        self.begun = false;
        sink.put(b"0\r\n")?;
        sink.put(trailers)?;
        sink.put(b"\r\n")
    }
}
