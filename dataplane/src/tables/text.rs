//! Borrowed text and addresses, brought into the one form that is compared.

use std::net::IpAddr;

/// Longest host looked up; DNS allows 253.
pub(super) const HOST_BYTES_MAX: usize = 256;

/// `text` in ASCII lower case, in `room`; `None` if it does not fit.
pub fn lowered<'a>(text: &str, room: &'a mut [u8; HOST_BYTES_MAX]) -> Option<&'a str> {
    let room = room.get_mut(..text.len())?;
    room.copy_from_slice(text.as_bytes());
    room.make_ascii_lowercase();
    // ASCII lower-casing keeps UTF-8 valid, so this never fails; it costs a few nanoseconds.
    std::str::from_utf8(room).ok()
}

/// v4-mapped v6 as v4: addresses compare by value.
#[must_use]
pub fn normal_ip(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

/// Splits `host`, `host:port`, `[v6]`, `[v6]:port`. A port that is no number makes the whole text
/// the host, which then names nothing. The host of the bracket form is without brackets.
pub(super) fn split_authority(authority: &str) -> (&str, Option<u16>) {
    if let Some(rest) = authority.strip_prefix('[') {
        return match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, tail)) => match tail.strip_prefix(':').map(port_of) {
                Some(Some(port)) => (host, Some(port)),
                _ => (authority, None),
            },
            None => (authority, None),
        };
    }
    match authority.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') => match port_of(port) {
            Some(port) => (host, Some(port)),
            None => (authority, None),
        },
        _ => (authority, None),
    }
}

/// Digits only: `u16::from_str` would take a sign.
fn port_of(text: &str) -> Option<u16> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}
