//! The four forms of a request target, and what may be a Host (RFC 9112 section 3.2).

use super::fault::HeadFault;
use super::fields::Span;

/// Which of the four forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TargetForm {
    /// `/path?query`
    #[default]
    Origin,
    /// `http://host/path?query`: a client that knows it talks to a proxy.
    Absolute,
    /// `host:port`: CONNECT.
    Authority,
    /// `*`: OPTIONS.
    Asterisk,
}

/// A target, taken apart; ranges into the head.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Target {
    pub(super) form: TargetForm,
    /// Host of an absolute or authority form.
    pub(super) authority: Option<Span>,
    /// Path; an empty range stands for `/` in absolute form (`*` for OPTIONS).
    pub(super) path: Span,
    pub(super) query: Option<Span>,
}

/// Takes `bytes[span]` apart.
pub(super) fn read(method: &[u8], bytes: &[u8], span: Span) -> Result<Target, HeadFault> {
    let target = span.bytes(bytes);
    // A fragment never travels; non-ASCII has to be percent-encoded (RFC 3986 section 2).
    if !target.iter().all(|b| b.is_ascii_graphic() && *b != b'#') {
        return Err(HeadFault::Target);
    }
    if method == b"CONNECT" {
        let at_port = target.iter().rposition(|b| *b == b':');
        let has_port = at_port.is_some_and(|at| at > 0 && at + 1 < target.len());
        if !has_port || !is_host(target) {
            return Err(HeadFault::Target);
        }
        return Ok(Target {
            form: TargetForm::Authority,
            authority: Some(span),
            path: Span::default(),
            query: None,
        });
    }
    if target == b"*" {
        return if method == b"OPTIONS" {
            Ok(Target {
                form: TargetForm::Asterisk,
                authority: None,
                path: span,
                query: None,
            })
        } else {
            Err(HeadFault::Target)
        };
    }
    if target.first() == Some(&b'/') {
        let (path, query) = split_query(target, span.start());
        return Ok(Target {
            form: TargetForm::Origin,
            authority: None,
            path,
            query,
        });
    }
    // Only http: what an https target asks for, a TLS connection of ours to the origin, is CONNECT's.
    let rest = match target.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(b"http://") => rest,
        _ => return Err(HeadFault::Target),
    };
    let begin = span.start() + 7;
    let end = rest
        .iter()
        .position(|b| matches!(b, b'/' | b'?'))
        .unwrap_or(rest.len());
    let (authority, rest) = rest.split_at(end);
    if authority.is_empty() || !is_host(authority) {
        return Err(HeadFault::Target);
    }
    let (path, query) = split_query(rest, begin + end);
    Ok(Target {
        form: TargetForm::Absolute,
        authority: Some(Span::from_range(begin..begin + end)),
        path,
        query,
    })
}

fn split_query(target: &[u8], begin: usize) -> (Span, Option<Span>) {
    let end = begin + target.len();
    match memchr::memchr(b'?', target) {
        Some(at) => (
            Span::from_range(begin..begin + at),
            Some(Span::from_range(begin + at + 1..end)),
        ),
        None => (Span::from_range(begin..end), None),
    }
}

/// `host[:port]`, not empty: a name, IPv4, or IPv6 in brackets. Narrower than RFC 3986's reg-name,
/// which allows a comma and with it two hosts in one; user information is refused (RFC 9110
/// section 4.2.4).
pub(super) fn is_host(host: &[u8]) -> bool {
    let (name, port) = if host.first() == Some(&b'[') {
        let Some(close) = memchr::memchr(b']', host) else {
            return false;
        };
        let inside = std::str::from_utf8(&host[1..close]);
        if !inside.is_ok_and(|ip| ip.parse::<std::net::Ipv6Addr>().is_ok()) {
            return false;
        }
        match &host[close + 1..] {
            [] => return true,
            [b':', port @ ..] => (&host[..=close], Some(port)),
            _ => return false,
        }
    } else {
        match memchr::memchr(b':', host) {
            Some(at) => (&host[..at], Some(&host[at + 1..])),
            None => (host, None),
        }
    };
    let name_fits = name.first() == Some(&b'[')
        || (!name.is_empty() && name.iter().all(|b| IN_NAMES[usize::from(*b)]));
    // An empty port (`host:`) is legal and means the default.
    let port_fits = port.is_none_or(|digits| {
        digits.len() <= 5
            && digits.iter().all(u8::is_ascii_digit)
            && digits
                .iter()
                .fold(0_u32, |sum, b| sum * 10 + u32::from(b - b'0'))
                <= 65_535
    });
    name_fits && port_fits
}

/// Bytes of a name: looked up, since every request's Host is asked.
static IN_NAMES: [bool; 256] = {
    let mut are = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        are[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let marks = b"-._~%!$&'()*+;=";
    let mut at = 0;
    while at < marks.len() {
        are[marks[at] as usize] = true;
        at += 1;
    }
    are
};
