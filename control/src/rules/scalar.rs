//! Scalars with a grammar of their own: durations, hosts, labels, address blocks.

use std::net::IpAddr;

use ringmesh_wire::v1::snapshot::IpBlock;

/// Nanoseconds of each unit; longer names first, since `m` begins `ms`.
const UNITS_NS: [(&str, u128); 6] = [
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
];

/// Longest duration: 10 years, so that sums never overflow.
const DURATION_MS_MAX: u128 = 10 * 365 * 24 * 3_600_000;

/// A duration as Go and protobuf write it: `10s`, `1.5s`, `1h30m`.
pub(super) fn parse_duration_ms(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text == "0" {
        return Ok(0);
    }
    let mut rest = text;
    let mut total_ns: u128 = 0;
    while !rest.is_empty() {
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        if number.is_empty() {
            return Err(format!("a number is wanted before {rest:?}"));
        }
        let (unit, unit_ns) = UNITS_NS
            .iter()
            .find(|(unit, _)| after.starts_with(unit))
            .ok_or_else(|| match after {
                "" => format!("{number:?} has no unit"),
                _ => format!("{after:?} is not a unit; the units are h, m, s, ms"),
            })?;
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        if (whole.is_empty() && part.is_empty())
            || whole.len() > 12
            || part.len() > 9
            || part.contains('.')
        {
            return Err(format!("{number:?} is not a number of fitting size"));
        }
        let digits = |text: &str| text.parse::<u128>().unwrap_or(0);
        let scale = 10_u128.pow(u32::try_from(part.len()).unwrap_or(0));
        total_ns += digits(whole) * unit_ns + digits(part) * unit_ns / scale;
        rest = &after[unit.len()..];
    }
    if !total_ns.is_multiple_of(1_000_000) {
        return Err("it is finer than a millisecond".to_owned());
    }
    let ms = total_ns / 1_000_000;
    if ms > DURATION_MS_MAX {
        return Err("it is longer than ten years".to_owned());
    }
    u64::try_from(ms).map_err(|e| e.to_string())
}

/// Checks a host: a DNS name, `*.suffix`, or `*`. Given in lower case.
pub(super) fn check_host(host: &str, wildcard: bool) -> Result<(), &'static str> {
    let name = match (host, wildcard) {
        ("*", true) => return Ok(()),
        ("*", false) => return Err("a wildcard is not allowed here"),
        (_, true) => host.strip_prefix("*.").unwrap_or(host),
        (_, false) => host,
    };
    if name.is_empty() || name.len() > 253 {
        return Err("it is empty or longer than 253 characters");
    }
    let labels_fit = name.split('.').all(|label| {
        !label.is_empty()
            && label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    });
    if labels_fit {
        Ok(())
    } else if name.contains(':') || name.contains('/') {
        Err("it is a URL or has a port")
    } else {
        Err("it is not a DNS name")
    }
}

/// `10.0.0.0/8`, or one address.
pub(super) fn parse_block(text: &str) -> Result<IpBlock, &'static str> {
    let (address, bits) = text
        .split_once('/')
        .map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address
        .parse()
        .map_err(|_| "it is not an IP address or CIDR block")?;
    let most = if address.is_ipv4() { 32 } else { 128 };
    let prefix_bits = match bits {
        None => most,
        Some(bits) => bits
            .parse()
            .ok()
            .filter(|bits| *bits <= most)
            .ok_or("its prefix length is not a number that fits")?,
    };
    Ok(IpBlock {
        address,
        prefix_bits,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, ms) in [
            ("10s", 10_000),
            ("1.5s", 1_500),
            ("250ms", 250),
            ("1h30m", 5_400_000),
            ("0s", 0),
            ("0", 0),
            ("1000us", 1),
        ] {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
        for text in [
            "10x",
            "10",
            "s",
            "",
            "1.s.",
            "-1s",
            "1us",
            "9999999999999s",
            "1 s",
            "10 ",
        ] {
            assert!(parse_duration_ms(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts() {
        for host in ["a", "a.b.c", "*.x.y", "*", "v1_2.x"] {
            assert_eq!(check_host(host, true), Ok(()), "{host}");
        }
        for host in ["", "a..b", "*a", "a:80", "http://x", "-a", "a b", "*.*"] {
            assert!(check_host(host, true).is_err(), "{host}");
        }
        assert!(check_host("*.a", false).is_err());
    }

    #[test]
    fn blocks() {
        assert_eq!(parse_block("10.0.0.0/8").unwrap().prefix_bits, 8);
        assert_eq!(parse_block("::1").unwrap().prefix_bits, 128);
        for text in ["10.0.0.0/33", "x", "10.0.0/8", "1.2.3.4/"] {
            assert!(parse_block(text).is_err(), "{text}");
        }
    }
}
