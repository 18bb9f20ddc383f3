//! Response heads: one parser object per upstream connection, reused for every answer on it.

use std::mem::MaybeUninit;

use super::Version;
use super::fault::{HeadFault, from_httparse};
use super::fields::{Attempts, Field, FieldIter, Fields, Known, Span, is_ended_by_crlf};
use super::framing::Framing;
use super::limits::{FIELDS_MAX, HEAD_BYTES_MAX};
use super::request::Parsed;
use super::spelling::Spelling;
use crate::view::HeaderLookup;

/// A parsed response head: ranges into the bytes it was parsed from, and what they mean.
#[derive(Debug, Default)]
pub struct ResponseHead {
    status: u16,
    reason: Span,
    http10: bool,
    fields: Fields,
    attempts: Attempts,
}

/// What follows a response head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// An interim answer (1xx, not 101): forward it to an HTTP/1.1 client, then read another head.
    Interim,
    /// The final answer, with this body.
    Body(Framing),
    /// From here on both directions are bytes (101, or 2xx to CONNECT).
    Tunnel,
}

impl ResponseHead {
    /// An empty parser.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses the head at the start of `bytes`, as [`super::RequestHead::parse`]. A refusal carries
    /// what the *client* is owed (502); the upstream connection closes.
    pub fn parse(&mut self, bytes: &[u8]) -> Parsed {
        if !self.attempts.again(bytes) && bytes.len() < HEAD_BYTES_MAX {
            return Parsed::Partial;
        }
        match self.try_parse(bytes) {
            Ok(Some(len)) => {
                self.attempts.reset();
                Parsed::Head(len)
            }
            Ok(None) => Parsed::Partial,
            Err(fault) => {
                self.attempts.reset();
                Parsed::Refuse(fault.bad_gateway())
            }
        }
    }

    /// Forgets a half-parsed head. Call it before the first bytes of another one, unless the last
    /// call said something else than `Partial`.
    pub fn reset(&mut self) {
        self.attempts.reset();
    }

    fn try_parse(&mut self, bytes: &[u8]) -> Result<Option<usize>, HeadFault> {
        let whole = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
        // httparse would skip empty lines; between a server's answers there are none.
        match whole.first() {
            None => return Ok(None),
            Some(b'H') => {}
            Some(_) => return Err(HeadFault::Syntax),
        }
        let mut space = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; FIELDS_MAX];
        let mut parsed = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let result = parser.parse_response_with_uninit_headers(&mut parsed, whole, &mut space);
        let len = match result {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if bytes.len() >= HEAD_BYTES_MAX => {
                return Err(HeadFault::TooLarge);
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => return Err(from_httparse(error)),
        };
        if !is_ended_by_crlf(&whole[..len]) {
            return Err(HeadFault::BareLineFeed);
        }
        self.take_status(parsed.code.unwrap_or(0))?;
        self.reason = Span::of(whole, parsed.reason.unwrap_or("").as_bytes());
        self.http10 = parsed.version == Some(0);
        self.fields.take(whole, parsed.headers)?;
        self.fields.framing.check(self.http10)?;
        Ok(Some(len))
    }

    /// Writes a head into the emptied `out` and takes it, as [`super::RequestHead::spell`].
    ///
    /// # Errors
    /// It is not acceptable.
    pub fn spell(
        &mut self,
        out: &mut Vec<u8>,
        status: http::StatusCode,
        reason: &str,
        tell: impl FnOnce(&mut Spelling<'_>),
    ) -> Result<(), HeadFault> {
        self.attempts.reset();
        out.clear();
        self.take_status(status.as_u16())?;
        out.extend_from_slice(b"HTTP/1.1 ");
        out.extend_from_slice(status.as_str().as_bytes());
        out.push(b' ');
        self.reason = Span::from_range(out.len()..out.len() + reason.len());
        out.extend_from_slice(reason.as_bytes());
        out.extend_from_slice(b"\r\n");
        self.http10 = false;
        Spelling::all(out, &mut self.fields, tell)?;
        self.fields.framing.check(self.http10)
    }

    fn take_status(&mut self, status: u16) -> Result<(), HeadFault> {
        if !(100..=599).contains(&status) {
            return Err(HeadFault::Status);
        }
        self.status = status;
        Ok(())
    }

    /// The head together with the bytes it was parsed from.
    #[must_use]
    pub fn view<'a>(&'a self, bytes: &'a [u8]) -> Response<'a> {
        Response { head: self, bytes }
    }
}

/// Questions to a parsed head.
#[derive(Clone, Copy)]
pub struct Response<'a> {
    pub(super) head: &'a ResponseHead,
    pub(super) bytes: &'a [u8],
}

impl std::fmt::Debug for Response<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.status(), self.reason_phrase())
    }
}

impl<'a> Response<'a> {
    /// Status, 100 to 599.
    #[must_use]
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// Reason phrase as sent; empty if it has bytes outside ASCII.
    #[must_use]
    pub fn reason_phrase(&self) -> &'a str {
        self.head.reason.text(self.bytes)
    }

    /// Version of the server.
    #[must_use]
    pub fn version(&self) -> Version {
        if self.head.http10 {
            Version::Http10
        } else {
            Version::Http11
        }
    }

    /// What follows, given the request this answers (RFC 9112 section 6.3).
    ///
    /// # Errors
    /// [`HeadFault::UpgradeUnasked`] for a 101 although no upgrade was sent on.
    pub fn next(&self, method: &str, upgrade_sent: bool) -> Result<Next, HeadFault> {
        match self.head.status {
            101 if upgrade_sent => Ok(Next::Tunnel),
            101 => Err(HeadFault::UpgradeUnasked),
            100..=199 => Ok(Next::Interim),
            200..=299 if method == "CONNECT" => Ok(Next::Tunnel),
            204 | 304 => Ok(Next::Body(Framing::None)),
            _ if method == "HEAD" => Ok(Next::Body(Framing::None)),
            _ => Ok(Next::Body(
                self.head.fields.framing.framing(Framing::UntilClose),
            )),
        }
    }

    /// Whether the upstream connection may carry another request once this answer's body, which
    /// must not be [`Framing::UntilClose`], is over.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        let says = self.head.fields.connection;
        !says.close && (!self.head.http10 || says.keep_alive)
    }

    /// Value of the first field of a known name.
    #[must_use]
    pub fn field(&self, which: Known) -> Option<&'a [u8]> {
        self.head
            .fields
            .known(which)
            .map(|field| field.value.bytes(self.bytes))
    }

    /// All fields, in order, as sent.
    #[must_use]
    pub fn fields(&self) -> FieldIter<'a> {
        FieldIter {
            fields: self.head.fields.list().iter(),
            bytes: self.bytes,
        }
    }

    pub(super) fn all(&self) -> &'a Fields {
        &self.head.fields
    }

    pub(super) fn list(&self) -> &'a [Field] {
        self.head.fields.list()
    }
}

impl HeaderLookup for Response<'_> {
    fn first(&self, lower_name: &str) -> Option<&[u8]> {
        self.head.fields.first(self.bytes, lower_name)
    }
}
