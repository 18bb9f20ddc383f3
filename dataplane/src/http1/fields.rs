//! Header fields as ranges into the head they were parsed from, the known ones indexed.

use super::fault::HeadFault;
use super::framing::Says;
use super::limits::FIELDS_MAX;

/// A range of the head. Heads are at most 65,535 bytes long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) at: u16,
    pub(super) len: u16,
}

impl Span {
    /// Where `part`, a subslice of `whole`, lies. A slice from elsewhere (httparse hands out a
    /// static empty one) becomes an empty range.
    pub(super) fn of(whole: &[u8], part: &[u8]) -> Self {
        let at = (part.as_ptr() as usize).wrapping_sub(whole.as_ptr() as usize);
        match (u16::try_from(at), u16::try_from(part.len())) {
            (Ok(start), Ok(len)) if at + part.len() <= whole.len() => Self { at: start, len },
            _ => Self::default(),
        }
    }

    pub(super) fn from_range(range: std::ops::Range<usize>) -> Self {
        Self {
            at: u16::try_from(range.start).unwrap_or(0),
            len: u16::try_from(range.len()).unwrap_or(0),
        }
    }

    pub(super) fn start(self) -> usize {
        usize::from(self.at)
    }

    pub(super) fn end(self) -> usize {
        usize::from(self.at) + usize::from(self.len)
    }

    /// The bytes; empty if `bytes` is not the head this came from.
    pub(super) fn bytes(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start()..self.end()).unwrap_or(b"")
    }

    pub(super) fn text(self, bytes: &[u8]) -> &str {
        std::str::from_utf8(self.bytes(bytes)).unwrap_or("")
    }
}

/// Fields this proxy looks at, so that nobody searches for them twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Known {
    /// `Host`
    Host = 0,
    /// `Content-Length`
    ContentLength,
    /// `Transfer-Encoding`
    TransferEncoding,
    /// `Connection`
    Connection,
    /// `Keep-Alive`
    KeepAlive,
    /// `Proxy-Connection`
    ProxyConnection,
    /// `TE`
    Te,
    /// `Upgrade`
    Upgrade,
    /// `HTTP2-Settings`
    Http2Settings,
    /// `Expect`
    Expect,
    /// `X-Request-Id`
    RequestId,
    /// `grpc-timeout`
    GrpcTimeout,
    /// `Content-Type`
    ContentType,
    /// `User-Agent`
    UserAgent,
    /// `X-Forwarded-Client-Cert`
    ClientCert,
    /// Any other.
    Other,
}

const KNOWN: usize = Known::Other as usize;
const ABSENT: u8 = u8::MAX;

impl Known {
    /// Which one a name is, without regard to case.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let candidates: &[(&[u8], Self)] = match name.len() {
            2 => &[(b"te", Self::Te)],
            4 => &[(b"host", Self::Host)],
            6 => &[(b"expect", Self::Expect)],
            7 => &[(b"upgrade", Self::Upgrade)],
            10 => &[
                (b"connection", Self::Connection),
                (b"keep-alive", Self::KeepAlive),
                (b"user-agent", Self::UserAgent),
            ],
            12 => &[
                (b"content-type", Self::ContentType),
                (b"x-request-id", Self::RequestId),
                (b"grpc-timeout", Self::GrpcTimeout),
            ],
            14 => &[
                (b"content-length", Self::ContentLength),
                (b"http2-settings", Self::Http2Settings),
            ],
            16 => &[(b"proxy-connection", Self::ProxyConnection)],
            17 => &[(b"transfer-encoding", Self::TransferEncoding)],
            23 => &[(b"x-forwarded-client-cert", Self::ClientCert)],
            _ => &[],
        };
        candidates
            .iter()
            .find(|(known, _)| is_lowered(name, known))
            .map_or(Self::Other, |(_, which)| *which)
    }

    /// Belongs to one connection and is never forwarded as it came (RFC 9110 section 7.6.1).
    pub(super) fn is_of_the_hop(self) -> bool {
        matches!(
            self,
            Self::TransferEncoding
                | Self::Connection
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::Te
                | Self::Upgrade
                | Self::Http2Settings
        )
    }

    /// Frames or addresses the message, or says who sent it: rules may not edit it, trailers not
    /// carry it.
    pub(super) fn is_ours(self) -> bool {
        self.is_of_the_hop() || matches!(self, Self::Host | Self::ContentLength | Self::ClientCert)
    }
}

/// Whether a name is `known`, which is as long and in lower case, without regard to case. Eight bytes
/// at a time: every field of every message is asked.
fn is_lowered(name: &[u8], known: &[u8]) -> bool {
    let (Some(last), Some(known_last)) = (name.last_chunk(), known.last_chunk()) else {
        return name.eq_ignore_ascii_case(known);
    };
    let words = name.as_chunks().0.iter().zip(known.as_chunks().0);
    lower(*last) == u64::from_ne_bytes(*known_last)
        && words.fold(true, |all, (word, known)| {
            all & (lower(*word) == u64::from_ne_bytes(*known))
        })
}

/// Eight bytes with their ASCII capitals in lower case.
fn lower(bytes: [u8; 8]) -> u64 {
    const fn each(byte: u8) -> u64 {
        u64::from_ne_bytes([byte; 8])
    }
    let word = u64::from_ne_bytes(bytes);
    // Adding to seven bits carries into the eighth and never beyond.
    let low = word & each(0x7f);
    let from_a = low + each(0x80 - b'A');
    let past_z = low + each(0x7f - b'Z');
    let capital = from_a & !past_z & !word & each(0x80);
    word | (capital >> 2)
}

/// Fields a `Connection` line cannot take away: losing one would change who is asked, what is
/// allowed, how long the body is or what the log says (RFC 9110 section 7.6.1 forbids listing them).
/// A trailing `*` is a prefix.
pub(super) const PROTECTED: &[&str] = &[
    "host",
    "content-*",
    "authorization",
    "cookie",
    "set-cookie",
    "date",
    "expect",
    "forwarded",
    "grpc-*",
    "location",
    "origin",
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "via",
    "x-b3-*",
    "x-envoy-*",
    "x-forwarded-*",
    "x-real-ip",
    "x-request-id",
    "x-ringmesh-*",
];

fn is_protected(name: &[u8]) -> bool {
    PROTECTED
        .iter()
        .any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => name
                .get(..prefix.len())
                .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes())),
            None => name.eq_ignore_ascii_case(pattern.as_bytes()),
        })
}

/// One field.
#[derive(Debug, Clone, Copy)]
pub(super) struct Field {
    pub(super) name: Span,
    pub(super) value: Span,
    pub(super) known: Known,
    /// Written `Name: value CRLF` without a space more or less: its line can be copied whole.
    pub(super) tidy: bool,
}

impl Field {
    /// The whole line of a tidy field.
    pub(super) fn line(&self) -> std::ops::Range<usize> {
        self.name.start()..self.value.end() + 2
    }
}

/// What the `Connection` lines say.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ConnectionSays {
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) upgrade: bool,
    /// Names fields we would otherwise forward.
    pub(super) names_fields: bool,
}

/// All fields of one head. Reused from head to head: grows to the largest seen, at most
/// [`FIELDS_MAX`] entries.
#[derive(Debug, Default)]
pub(super) struct Fields {
    list: Vec<Field>,
    first: [u8; KNOWN],
    pub(super) hosts: u8,
    pub(super) framing: Says,
    pub(super) connection: ConnectionSays,
}

impl Fields {
    /// Indexes what httparse found.
    pub(super) fn take(
        &mut self,
        whole: &[u8],
        parsed: &[httparse::Header<'_>],
    ) -> Result<(), HeadFault> {
        self.begin();
        for field in parsed.iter().take(FIELDS_MAX) {
            let name = Span::of(whole, field.name.as_bytes());
            let value = Span::of(whole, field.value);
            let tidy = value.start() == name.end() + 2
                && whole.get(name.end()..name.end() + 2) == Some(b": ")
                && whole.get(value.end()..value.end() + 2) == Some(b"\r\n");
            if !tidy && !is_line_end(whole.get(value.end()..).unwrap_or(b"")) {
                return Err(HeadFault::BareLineFeed);
            }
            self.add(name, field.name.as_bytes(), value, field.value, tidy)?;
        }
        Ok(())
    }

    /// Forgets the head before.
    pub(super) fn begin(&mut self) {
        self.list.clear();
        self.first = [ABSENT; KNOWN];
        self.hosts = 0;
        self.framing = Says::default();
        self.connection = ConnectionSays::default();
    }

    /// Indexes one field: where its name and value stand, and what they are.
    #[inline(always)]
    pub(super) fn add(
        &mut self,
        name: Span,
        name_bytes: &[u8],
        value: Span,
        value_bytes: &[u8],
        tidy: bool,
    ) -> Result<(), HeadFault> {
        let known = Known::of(name_bytes);
        if let Some(first) = self.first.get_mut(known as usize)
            && *first == ABSENT
        {
            *first = u8::try_from(self.list.len()).unwrap_or(ABSENT);
        }
        match known {
            Known::Host => self.hosts = self.hosts.saturating_add(1),
            Known::ContentLength => self.framing.length_line(value_bytes)?,
            Known::TransferEncoding => self.framing.coding_line(value_bytes),
            Known::Connection => self.connection_line(value_bytes),
            Known::KeepAlive
            | Known::ProxyConnection
            | Known::Te
            | Known::Upgrade
            | Known::Http2Settings
            | Known::Expect
            | Known::RequestId
            | Known::GrpcTimeout
            | Known::ContentType
            | Known::UserAgent
            | Known::ClientCert
            | Known::Other => {}
        }
        self.list.push(Field {
            name,
            value,
            known,
            tidy,
        });
        Ok(())
    }

    fn connection_line(&mut self, value: &[u8]) {
        for option in value.split(|b| *b == b',').map(trim_ows) {
            if option.eq_ignore_ascii_case(b"close") {
                self.connection.close = true;
            } else if option.eq_ignore_ascii_case(b"keep-alive") {
                self.connection.keep_alive = true;
            } else if option.eq_ignore_ascii_case(b"upgrade") {
                self.connection.upgrade = true;
            } else if !option.is_empty() && !Known::of(option).is_of_the_hop() {
                self.connection.names_fields = true;
            }
        }
    }

    /// Whether a `Connection` line takes this field away.
    pub(super) fn is_named_by_connection(&self, whole: &[u8], name: &[u8]) -> bool {
        self.connection.names_fields
            && !is_protected(name)
            && self
                .list
                .iter()
                .filter(|field| field.known == Known::Connection)
                .flat_map(|field| field.value.bytes(whole).split(|b| *b == b','))
                .any(|option| trim_ows(option).eq_ignore_ascii_case(name))
    }

    pub(super) fn list(&self) -> &[Field] {
        &self.list
    }

    pub(super) fn known(&self, which: Known) -> Option<&Field> {
        let at = *self.first.get(which as usize)?;
        self.list.get(usize::from(at))
    }

    pub(super) fn first<'a>(&self, whole: &'a [u8], lower_name: &str) -> Option<&'a [u8]> {
        let known = Known::of(lower_name.as_bytes());
        let field = if known == Known::Other {
            self.list.iter().find(|field| {
                field.known == Known::Other
                    && usize::from(field.name.len) == lower_name.len()
                    && field
                        .name
                        .bytes(whole)
                        .eq_ignore_ascii_case(lower_name.as_bytes())
            })
        } else {
            self.known(known)
        };
        field.map(|field| field.value.bytes(whole))
    }
}

/// Fields in the order they came, as (name as written, value without outer space).
#[derive(Debug, Clone)]
pub struct FieldIter<'a> {
    pub(super) fields: std::slice::Iter<'a, Field>,
    pub(super) bytes: &'a [u8],
}

impl<'a> Iterator for FieldIter<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let field = self.fields.next()?;
        Some((field.name.text(self.bytes), field.value.bytes(self.bytes)))
    }
}

/// Without spaces and tabs at both ends (RFC 9110 section 5.6.3).
pub(super) fn trim_ows(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] = value {
        value = rest;
    }
    while let [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

/// Whether the bytes are a token (RFC 9110 section 5.6.2).
pub(super) fn is_token(name: &[u8]) -> bool {
    !name.is_empty()
        && name
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b))
}

/// Whether the bytes may be a field value: no control character but tab.
pub(super) fn is_value(value: &[u8]) -> bool {
    value
        .iter()
        .all(|b| *b == b'\t' || (*b >= b' ' && *b != 0x7f))
}

/// The first line and the last, empty one end in CRLF; [`Fields::take`] sees to those between.
/// httparse takes a bare LF for a line end; a stricter reader before or behind us would not.
pub(super) fn is_ended_by_crlf(head: &[u8]) -> bool {
    memchr::memchr(b'\n', head).is_some_and(|at| at > 0 && head[at - 1] == b'\r')
        && head.ends_with(b"\r\n")
}

/// What follows a field's value, spaces aside, is CRLF.
fn is_line_end(rest: &[u8]) -> bool {
    let spaces = rest.iter().take_while(|b| matches!(b, b' ' | b'\t'));
    rest[spaces.count()..].starts_with(b"\r\n")
}

/// When a growing head is worth parsing again: a line was completed or it doubled. Bounds what a
/// peer that sends byte by byte can cost to about one pass per line.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    tried: usize,
}

impl Attempts {
    pub(super) fn again(&mut self, bytes: &[u8]) -> bool {
        if self.tried > bytes.len() {
            self.tried = 0;
        }
        let worth = self.tried == 0
            || bytes.len() >= self.tried * 2
            || memchr::memchr(b'\n', &bytes[self.tried..]).is_some();
        // Remembered even if not worth it would hide a doubling: only a real try moves the mark.
        if worth {
            self.tried = bytes.len();
        }
        worth
    }

    pub(super) fn reset(&mut self) {
        self.tried = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::{is_lowered, lower};

    #[test]
    fn eight_bytes_are_lowered_like_one() {
        for byte in 0..=255_u8 {
            for other in [0, b'A', b'Z', b'z', 0x7f, 0x80, 255] {
                let bytes = [other, byte, other, byte, byte, other, other, byte];
                let want = bytes.map(|b| b.to_ascii_lowercase());
                assert_eq!(
                    lower(bytes).to_ne_bytes(),
                    want,
                    "{byte:#x} beside {other:#x}"
                );
            }
        }
    }

    #[test]
    fn names_are_compared_whole() {
        let known = b"transfer-encoding";
        for at in 0..known.len() {
            for byte in [b'T', b'e', b'-', b'~', 0x0d, 0xe4] {
                let mut name = known.to_ascii_uppercase();
                name[at] = byte;
                let want = name.eq_ignore_ascii_case(known);
                assert_eq!(is_lowered(&name, known), want, "{byte:#x} at {at}");
            }
        }
    }
}
