//! Request heads: one parser object per connection, reused for every request on it.

use std::mem::MaybeUninit;

use super::Version;
use super::fault::{HeadFault, Refusal, from_httparse};
use super::fields::{Attempts, Field, FieldIter, Fields, Known, Span, is_ended_by_crlf, trim_ows};
use super::framing::Framing;
use super::limits::{FIELDS_MAX, HEAD_BYTES_MAX, LEADING_EMPTY_LINES_MAX, TARGET_BYTES_MAX};
use super::spelling::Spelling;
use super::target::{self, Target, TargetForm};
use crate::view::HeaderLookup;

/// What became of the bytes so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parsed {
    /// Not a whole head yet: call again with the same bytes and more.
    Partial,
    /// A head of this many bytes, leading empty lines included; what follows is body.
    Head(usize),
    /// Not acceptable. Answer and close.
    Refuse(Refusal),
}

/// A parsed request head: ranges into the bytes it was parsed from, and what they mean.
#[derive(Debug, Default)]
pub struct RequestHead {
    method: Span,
    target: Span,
    parts: Target,
    http10: bool,
    /// The request line up to and with its CRLF, for copying it whole.
    line: Span,
    fields: Fields,
    attempts: Attempts,
}

/// The preface of HTTP/2 parses as a request line of a version that does not exist (RFC 9113
/// section 3.4); seen here it deserves an answer of its own.
const HTTP2_REQUEST_LINE: &[u8] = b"PRI * HTTP/2";

impl RequestHead {
    /// An empty parser.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Parses the head at the start of `bytes`, which are all bytes of this request so far and
    /// begin at its first. Called with a growing slice until the answer is not `Partial`; early
    /// refusals may wait until the line they stand in is complete.
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
                Parsed::Refuse(fault.refusal())
            }
        }
    }

    /// Forgets a half-parsed head. Call it before the first bytes of another one, unless the last
    /// call said something else than `Partial`.
    pub fn reset(&mut self) {
        self.attempts.reset();
    }

    fn try_parse(&mut self, bytes: &[u8]) -> Result<Option<usize>, HeadFault> {
        let Some(begin) = skip_empty_lines(bytes)? else {
            return Ok(None);
        };
        // A head may not be longer than offsets can say; look no further than that.
        let whole = &bytes[..bytes.len().min(HEAD_BYTES_MAX)];
        let head = &whole[begin..];
        if head.starts_with(HTTP2_REQUEST_LINE) {
            return Err(HeadFault::Http2Preface);
        }
        let mut space = [const { MaybeUninit::<httparse::Header<'_>>::uninit() }; FIELDS_MAX];
        let mut parsed = httparse::Request::new(&mut []);
        let len = match parsed.parse_with_uninit_headers(head, &mut space) {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) => return partial(bytes, head, parsed.path.is_some()),
            Err(httparse::Error::Version) if !looks_like_a_version(head) => {
                return Err(HeadFault::Syntax);
            }
            Err(error) => return Err(from_httparse(error)),
        };
        if !is_ended_by_crlf(&head[..len]) {
            return Err(HeadFault::BareLineFeed);
        }
        let (Some(method), Some(target), Some(version)) =
            (parsed.method, parsed.path, parsed.version)
        else {
            return Err(HeadFault::Syntax);
        };
        if target.len() > TARGET_BYTES_MAX {
            return Err(HeadFault::TargetTooLong);
        }
        self.http10 = version == 0;
        let (method, target) = (method.as_bytes(), target.as_bytes());
        self.take_line(whole, Span::of(whole, method), Span::of(whole, target))?;
        self.fields.take(whole, parsed.headers)?;
        self.judge(whole)?;
        Ok(Some(begin + len))
    }

    /// Writes a head into the emptied `out` and takes it as [`Self::parse`] would, in one pass: for what
    /// did not come as text. `tell` tells its fields. No byte of any part may end a line or be another
    /// control character, as those of the types of the http crate are not.
    ///
    /// # Errors
    /// It is not acceptable.
    pub fn spell(
        &mut self,
        out: &mut Vec<u8>,
        method: &[u8],
        target: &[u8],
        tell: impl FnOnce(&mut Spelling<'_>),
    ) -> Result<(), HeadFault> {
        self.attempts.reset();
        out.clear();
        out.extend_from_slice(method);
        out.push(b' ');
        out.extend_from_slice(target);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        if target.len() > TARGET_BYTES_MAX {
            return Err(HeadFault::TargetTooLong);
        }
        self.http10 = false;
        let at = method.len() + 1;
        let target = Span::from_range(at..at + target.len());
        self.take_line(out, Span::from_range(0..method.len()), target)?;
        Spelling::all(out, &mut self.fields, tell)?;
        self.judge(out)
    }

    fn take_line(&mut self, whole: &[u8], method: Span, target: Span) -> Result<(), HeadFault> {
        self.method = method;
        self.target = target;
        // " HTTP/1.x" and CRLF follow the target.
        self.line = Span::from_range(method.start()..target.end() + 11);
        self.parts = target::read(method.bytes(whole), whole, target)?;
        Ok(())
    }

    /// What can be said of line and fields only together.
    fn judge(&self, whole: &[u8]) -> Result<(), HeadFault> {
        self.fields.framing.check(self.http10)?;
        self.check_host(whole)?;
        let framing = self.fields.framing.framing(Framing::None);
        if self.parts.form == TargetForm::Authority && !framing.is_empty() {
            return Err(HeadFault::ConnectWithBody);
        }
        Ok(())
    }

    /// RFC 9112 section 3.2: exactly one valid Host in HTTP/1.1, at most one in HTTP/1.0, whatever
    /// the form of the target. An empty one is legal: the target has no authority.
    fn check_host(&self, whole: &[u8]) -> Result<(), HeadFault> {
        match self.fields.hosts {
            0 if self.http10 => return Ok(()),
            0 => return Err(HeadFault::HostMissing),
            1 => {}
            _ => return Err(HeadFault::HostTwice),
        }
        let host = self.fields.known(Known::Host);
        let host = host.map_or(&b""[..], |field| field.value.bytes(whole));
        if host.is_empty() || target::is_host(host) {
            Ok(())
        } else {
            Err(HeadFault::HostInvalid)
        }
    }

    /// The head together with the bytes it was parsed from (at least the whole head).
    #[must_use]
    pub fn view<'a>(&'a self, bytes: &'a [u8]) -> Request<'a> {
        Request {
            head: self,
            bytes,
            text: std::str::from_utf8(bytes).ok(),
        }
    }
}

/// Where the request line begins; `None`: not there yet.
fn skip_empty_lines(bytes: &[u8]) -> Result<Option<usize>, HeadFault> {
    let mut at = 0;
    for _ in 0..=LEADING_EMPTY_LINES_MAX {
        match &bytes[at..] {
            [] | [b'\r'] => return Ok(None),
            [b'\r', b'\n', ..] => at += 2,
            [b'\r', ..] => return Err(HeadFault::Syntax),
            [b'\n', ..] => return Err(HeadFault::BareLineFeed),
            [_, ..] => return Ok(Some(at)),
        }
    }
    Err(HeadFault::EmptyLines)
}

/// A head that is not complete: still within bounds?
fn partial(bytes: &[u8], head: &[u8], has_target: bool) -> Result<Option<usize>, HeadFault> {
    if !has_target && head.len() > TARGET_BYTES_MAX + 64 {
        return Err(HeadFault::TargetTooLong);
    }
    if bytes.len() >= HEAD_BYTES_MAX {
        return Err(HeadFault::TooLarge);
    }
    Ok(None)
}

/// Whether the third word of the first line is `HTTP/digit...`, so that "which version" is the
/// question rather than "is this HTTP".
fn looks_like_a_version(head: &[u8]) -> bool {
    let line = head.split(|b| *b == b'\n').next().unwrap_or(b"");
    line.split(|b| *b == b' ')
        .nth(2)
        .and_then(|word| word.strip_prefix(b"HTTP/"))
        .is_some_and(|digits| digits.first().is_none_or(u8::is_ascii_digit))
}

/// Questions to a parsed head.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub(super) head: &'a RequestHead,
    pub(super) bytes: &'a [u8],
    /// All of `bytes`, if it is text: nearly always, and then nothing is looked through twice.
    text: Option<&'a str>,
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.method(), self.target())
    }
}

impl<'a> Request<'a> {
    fn text(&self, span: Span) -> &'a str {
        match self.text {
            Some(text) => text.get(span.start()..span.end()).unwrap_or(""),
            None => span.text(self.bytes),
        }
    }

    /// Method, as sent (methods are case sensitive).
    #[must_use]
    pub fn method(&self) -> &'a str {
        self.text(self.head.method)
    }

    /// The whole target, as sent.
    #[must_use]
    pub fn target(&self) -> &'a str {
        self.text(self.head.target)
    }

    /// Which form the target has.
    #[must_use]
    pub fn form(&self) -> TargetForm {
        self.head.parts.form
    }

    /// Version of the client.
    #[must_use]
    pub fn version(&self) -> Version {
        if self.head.http10 {
            Version::Http10
        } else {
            Version::Http11
        }
    }

    /// Who is asked: the target's authority if it has one (it wins over Host, RFC 9112 section
    /// 3.2.2), else Host; empty if HTTP/1.0 sent none.
    #[must_use]
    pub fn authority(&self) -> &'a str {
        match self.head.parts.authority {
            Some(span) => self.text(span),
            None => {
                let host = self.head.fields.known(Known::Host);
                host.map_or("", |field| self.text(field.value))
            }
        }
    }

    /// Path as sent, without query; `/` where an absolute form has none, `*` for OPTIONS of a whole
    /// server, empty for CONNECT.
    #[must_use]
    pub fn path(&self) -> &'a str {
        let path = self.text(self.head.parts.path);
        match (path.is_empty(), self.head.parts.form) {
            (true, TargetForm::Absolute)
                if self.method() == "OPTIONS" && self.query().is_none() =>
            {
                "*"
            }
            (true, TargetForm::Absolute) => "/",
            _ => path,
        }
    }

    /// Query without `?`.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.head.parts.query.map(|span| self.text(span))
    }

    /// How long its body is.
    #[must_use]
    pub fn framing(&self) -> Framing {
        self.head.fields.framing.framing(Framing::None)
    }

    /// Whether the client wants to send another request on this connection (RFC 9112 section 9.3).
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        let says = self.head.fields.connection;
        !says.close && (!self.head.http10 || says.keep_alive)
    }

    /// What the client wants to upgrade to, if it does so properly (RFC 9110 section 7.8). `h2c` is
    /// not forwarded (RFC 9113 dropped it): the request is an ordinary one then.
    #[must_use]
    pub fn upgrade(&self) -> Option<&'a [u8]> {
        let value = self.field(Known::Upgrade)?;
        let is_asked = self.head.fields.connection.upgrade && !self.head.http10;
        let mut offers = self
            .head
            .fields
            .list()
            .iter()
            .filter(|field| field.known == Known::Upgrade)
            .flat_map(|field| field.value.bytes(self.bytes).split(|b| *b == b','));
        let is_h2c = offers.any(|offer| trim_ows(offer).eq_ignore_ascii_case(b"h2c"));
        (is_asked && !is_h2c).then_some(value)
    }

    /// Whether the client waits for an interim answer before it sends the body. HTTP/1.0 cannot.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        !self.head.http10
            && self
                .field(Known::Expect)
                .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue"))
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

    /// The request line with its CRLF.
    pub(super) fn line(&self) -> std::ops::Range<usize> {
        self.head.line.start()..self.head.line.end()
    }
}

impl HeaderLookup for Request<'_> {
    fn first(&self, lower_name: &str) -> Option<&[u8]> {
        self.head.fields.first(self.bytes, lower_name)
    }
}
