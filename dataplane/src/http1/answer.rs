//! Answers the mesh itself gives. Each says why in `x-ringmesh-reason`.

use super::fault::Refusal;
use super::sink::{Full, Sink, put_number};
use crate::reason::Reason;

/// One answer.
#[derive(Debug, Clone, Copy)]
pub struct Answer<'a> {
    /// Status.
    pub status: u16,
    /// Why.
    pub reason: Reason,
    /// Body, in two parts so that a fixed text and a name need no allocation. The texts users of
    /// Istio know stand here.
    pub body: [&'a str; 2],
    /// The client's connection stays open.
    pub keep_alive: bool,
    /// The request was HEAD: the length is told, the body is not sent.
    pub head_only: bool,
    /// Further fields, e.g. `location`. Those that [`super::check_field`] refuses are left out.
    pub fields: &'a [(&'a str, &'a str)],
    /// Status towards gRPC clients; `None`: the one that goes with the reason.
    pub grpc_status: Option<u8>,
}

impl Answer<'static> {
    /// The answer a reason usually gets; the connection stays open except where the reason says
    /// that its state is unknown.
    #[must_use]
    pub fn of(reason: Reason) -> Self {
        let status = match reason {
            Reason::None => 200,
            Reason::BadRequest | Reason::BadBody => 400,
            Reason::AuthzDenied
            | Reason::CheckDenied
            | Reason::PlaintextRefused
            | Reason::MtlsDisabled
            | Reason::TunnelRefused
            | Reason::ForeignCaller => 403,
            Reason::NoRoute => 404,
            Reason::HeadTimeout | Reason::IdleTimeout => 408,
            Reason::QuotaExhausted => 429,
            Reason::HeadTooLarge => 431,
            Reason::ClientGone => 499,
            Reason::UnknownCoding | Reason::UpgradeUnsupported => 501,
            Reason::UnknownDestination | Reason::BadResponse => 502,
            Reason::Timeout | Reason::TryTimeout => 504,
            Reason::UnsupportedProtocol => 505,
            Reason::Loop => 508,
            Reason::NoCluster
            | Reason::NoEndpoint
            | Reason::NameUnresolved
            | Reason::ConnectFailure
            | Reason::ConnectTimeout
            | Reason::UpstreamReset
            | Reason::FaultAbort
            | Reason::Overflow
            | Reason::Shed
            | Reason::PeerRefused
            | Reason::IdentityMismatch
            | Reason::SvidExpired
            | Reason::Draining
            | Reason::NoConfig
            | Reason::BadFrame => 503,
        };
        let closes = matches!(
            reason,
            Reason::BadRequest
                | Reason::BadBody
                | Reason::HeadTimeout
                | Reason::IdleTimeout
                | Reason::HeadTooLarge
                | Reason::ClientGone
                | Reason::UnknownCoding
                | Reason::UnsupportedProtocol
                | Reason::Draining
        );
        let body = match reason {
            Reason::None => "",
            Reason::AuthzDenied => "RBAC: access denied",
            Reason::QuotaExhausted => "RESOURCE_EXHAUSTED:Quota is exhausted",
            Reason::FaultAbort => "fault filter abort",
            other => other.code(),
        };
        Self {
            status,
            reason,
            body: [body, ""],
            keep_alive: !closes,
            head_only: false,
            fields: &[],
            grpc_status: None,
        }
    }

    /// The answer for an unacceptable head; closes.
    #[must_use]
    pub fn refusal(refusal: &Refusal) -> Self {
        Self {
            status: refusal.status,
            body: [refusal.fault.why(), ""],
            keep_alive: false,
            ..Self::of(refusal.reason)
        }
    }
}

impl<'a> Answer<'a> {
    /// A quota is used up.
    #[must_use]
    pub fn quota_exhausted(quota: &'a str) -> Self {
        Self {
            body: ["RESOURCE_EXHAUSTED:Quota is exhausted for: ", quota],
            ..Answer::of(Reason::QuotaExhausted)
        }
    }

    /// Bytes of the body.
    #[must_use]
    pub fn body_len(&self) -> usize {
        self.body[0].len() + self.body[1].len()
    }

    /// Writes head and body.
    ///
    /// # Errors
    /// [`Full`]: the answer is larger than the sink.
    pub fn put<S: Sink>(&self, sink: &mut S) -> Result<(), Full> {
        sink.put(b"HTTP/1.1 ")?;
        put_status(sink, self.status)?;
        sink.put(b" ")?;
        sink.put(phrase(self.status).as_bytes())?;
        sink.put(b"\r\n")?;
        for (name, value) in self.fields {
            if super::check_field(name.as_bytes(), value.as_bytes()) {
                sink.put(name.as_bytes())?;
                sink.put(b": ")?;
                sink.put(value.as_bytes())?;
                sink.put(b"\r\n")?;
            }
        }
        if self.body_len() > 0 {
            sink.put(b"content-type: text/plain\r\n")?;
        }
        if self.reason != Reason::None {
            sink.put(b"x-ringmesh-reason: ")?;
            sink.put(self.reason.code().as_bytes())?;
            sink.put(b"\r\n")?;
        }
        // RFC 9110 section 8.6: no length where there can be no content.
        if self.status >= 200 && self.status != 204 {
            sink.put(b"content-length: ")?;
            put_number(sink, self.body_len() as u64)?;
            sink.put(b"\r\n")?;
        }
        if !self.keep_alive {
            sink.put(b"connection: close\r\n")?;
        }
        sink.put(b"\r\n")?;
        if !self.head_only && self.status >= 200 && self.status != 204 && self.status != 304 {
            sink.put(self.body[0].as_bytes())?;
            sink.put(self.body[1].as_bytes())?;
        }
        Ok(())
    }
}

/// `100 Continue` of our own: only where the mesh itself wants the body.
///
/// # Errors
/// [`Full`].
pub fn put_continue<S: Sink>(sink: &mut S) -> Result<(), Full> {
    sink.put(b"HTTP/1.1 100 Continue\r\n\r\n")
}

/// The answer to CONNECT after which both directions are bytes.
///
/// # Errors
/// [`Full`].
pub fn put_tunnel_open<S: Sink>(sink: &mut S) -> Result<(), Full> {
    sink.put(b"HTTP/1.1 200 Connection established\r\n\r\n")
}

pub(super) fn put_status<S: Sink>(sink: &mut S, status: u16) -> Result<(), Full> {
    let digit = |n: u16| b'0' + u8::try_from(n % 10).unwrap_or(0);
    sink.put(&[digit(status / 100), digit(status / 10), digit(status)])
}

/// Reason phrases of RFC 9110 section 15 for statuses rules and faults may ask for.
fn phrase(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        418 => "I'm a teapot",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        499 => "Client Closed Request",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        508 => "Loop Detected",
        _ => match status / 100 {
            1 => "Continue",
            2 => "OK",
            3 => "Redirect",
            4 => "Client Error",
            _ => "Server Error",
        },
    }
}
