//! What can be wrong with a head, and what is owed for it.

use crate::reason::Reason;

/// Why a head is not acceptable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HeadFault {
    /// A byte that may not stand where it stands: NUL, bare CR, a space before the colon, a folded
    /// line, a name that is no token, an empty target.
    Syntax,
    /// A line that ends in LF without CR (RFC 9112 section 2.2 lets us refuse).
    BareLineFeed,
    /// More empty lines before the request line than anyone sends by accident.
    EmptyLines,
    /// The version is HTTP, but not 1.0 or 1.1.
    Version,
    /// The client speaks HTTP/2 by prior knowledge.
    Http2Preface,
    /// More fields than allowed.
    TooManyFields,
    /// More bytes than allowed.
    TooLarge,
    /// The request target is longer than allowed.
    TargetTooLong,
    /// The target has none of the four forms, or the wrong one for its method.
    Target,
    /// HTTP/1.1 without Host.
    HostMissing,
    /// Host twice.
    HostTwice,
    /// Host is not `host[:port]`.
    HostInvalid,
    /// Host and `:authority` of an HTTP/2 request differ.
    HostDiffers,
    /// Content-Length is not a decimal number that fits 64 bits.
    Length,
    /// Several Content-Length that differ.
    LengthsDiffer,
    /// Content-Length and Transfer-Encoding.
    LengthAndCoding,
    /// Transfer-Encoding in HTTP/1.0.
    CodingInHttp10,
    /// A transfer coding that this proxy does not carry.
    CodingUnknown,
    /// Transfer-Encoding that does not end in exactly one `chunked`.
    CodingNotChunked,
    /// CONNECT with a body: what would be tunnelled and what is body, nobody can say (RFC 9110
    /// section 9.3.6).
    ConnectWithBody,
    /// CONNECT in HTTP/2: tunnels are carried from HTTP/1.1 to HTTP/1.1 only.
    Connect,
    /// Extended CONNECT (RFC 8441) to another protocol than WebSocket.
    ConnectProtocol,
    /// A status outside 100 to 599.
    Status,
    /// 101 although no upgrade was asked for.
    UpgradeUnasked,
}

impl HeadFault {
    /// One line for people.
    #[must_use]
    pub fn why(self) -> &'static str {
        match self {
            Self::Syntax => "a byte stands where it may not",
            Self::BareLineFeed => "a line ends without CR",
            Self::EmptyLines => "too many empty lines before the request",
            Self::Version => "only HTTP/1.0 and 1.1 are spoken here",
            Self::Http2Preface => "HTTP/2 begins a connection, it cannot follow HTTP/1.1 on one",
            Self::TooManyFields => "too many header fields",
            Self::TooLarge => "the head is too large",
            Self::TargetTooLong => "the request target is too long",
            Self::Target => "the request target does not fit the method",
            Self::HostMissing => "Host is missing",
            Self::HostTwice => "Host stands twice",
            Self::HostInvalid => "Host is not host[:port]",
            Self::HostDiffers => "Host is not :authority",
            Self::Length => "Content-Length is not a number",
            Self::LengthsDiffer => "two Content-Length that differ",
            Self::LengthAndCoding => "Content-Length and Transfer-Encoding together",
            Self::CodingInHttp10 => "Transfer-Encoding in HTTP/1.0",
            Self::CodingUnknown => "unknown transfer coding",
            Self::CodingNotChunked => "Transfer-Encoding does not end in one chunked",
            Self::ConnectWithBody => "CONNECT with a body",
            Self::Connect => "CONNECT in HTTP/2 is not carried",
            Self::ConnectProtocol => "of extended CONNECT only websocket is carried",
            Self::Status => "the status is not between 100 and 599",
            Self::UpgradeUnasked => "101 without an upgrade",
        }
    }

    /// What a client is owed for a request head with this fault.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        let (status, reason) = match self {
            Self::TooManyFields | Self::TooLarge => (431, Reason::HeadTooLarge),
            Self::TargetTooLong => (414, Reason::HeadTooLarge),
            Self::CodingUnknown => (501, Reason::UnknownCoding),
            Self::Connect | Self::ConnectProtocol => (501, Reason::UnsupportedProtocol),
            Self::Version | Self::Http2Preface => (505, Reason::UnsupportedProtocol),
            Self::Syntax
            | Self::BareLineFeed
            | Self::EmptyLines
            | Self::Target
            | Self::HostMissing
            | Self::HostTwice
            | Self::HostInvalid
            | Self::HostDiffers
            | Self::Length
            | Self::LengthsDiffer
            | Self::LengthAndCoding
            | Self::CodingInHttp10
            | Self::CodingNotChunked
            | Self::ConnectWithBody
            | Self::Status
            | Self::UpgradeUnasked => (400, Reason::BadRequest),
        };
        Refusal {
            status,
            reason,
            fault: self,
        }
    }

    /// What a client is owed when its upstream answered with this fault; the upstream connection is
    /// closed.
    #[must_use]
    pub fn bad_gateway(self) -> Refusal {
        Refusal {
            status: 502,
            reason: Reason::BadResponse,
            fault: self,
        }
    }
}

/// An answer that is owed for an unacceptable head. The connection the head came from always
/// closes after it: nobody knows where the next message would begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Status towards the client.
    pub status: u16,
    /// Reason code.
    pub reason: Reason,
    /// What exactly.
    pub fault: HeadFault,
}

pub(super) fn from_httparse(error: httparse::Error) -> HeadFault {
    match error {
        httparse::Error::TooManyHeaders => HeadFault::TooManyFields,
        httparse::Error::Version => HeadFault::Version,
        httparse::Error::HeaderName
        | httparse::Error::HeaderValue
        | httparse::Error::NewLine
        | httparse::Error::Status
        | httparse::Error::Token => HeadFault::Syntax,
    }
}
