//! Where a load goes: `--to` as people write it.

use std::net::{SocketAddr, ToSocketAddrs as _};
use std::str::FromStr;

use crate::problem::Problem;

/// `HOST:PORT`, or a URL whose scheme says whether it is TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Name or address, without the brackets of an IPv6 address.
    pub(super) host: String,
    port: u16,
    pub(super) tls: bool,
    /// As the `Host` field has it: without the port where that is the scheme's own.
    pub(super) authority: String,
    /// What the URL asks for, if it says.
    pub(super) path: Option<String>,
}

const HOW: &str =
    "write HOST:PORT, http://HOST[:PORT][/PATH], https://HOST[:PORT][/PATH] or tls://HOST:PORT";

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (scheme, rest),
            None => ("", text),
        };
        let (tls, own_port) = match scheme {
            "" => (false, None),
            "http" => (false, Some(80)),
            "https" => (true, Some(443)),
            "tls" => (true, None),
            other => return Err(format!("no load goes to {other}://; {HOW}")),
        };
        let (authority, path) = match rest.find('/') {
            Some(at) => (&rest[..at], Some(super::path(&rest[at..])?)),
            None => (rest, None),
        };
        if path.is_some() && own_port.is_none() {
            return Err(format!("only http:// and https:// have a path; {HOW}"));
        }
        if authority.contains(['@', '?', '#']) {
            return Err(format!("{authority} is not HOST or HOST:PORT; {HOW}"));
        }
        // The colons of an IPv6 address are inside brackets.
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => {
                let port = port.parse::<u16>().ok().filter(|port| *port > 0);
                let port = port.ok_or_else(|| format!("no port is {authority}'s; {HOW}"))?;
                (host, port)
            }
            _ => {
                let port = own_port.ok_or_else(|| format!("{authority} has no port; {HOW}"))?;
                (authority, port)
            }
        };
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
        if host.is_empty() || (bare.is_none() && host.contains([':', '[', ']'])) {
            return Err(format!("no host is {authority}'s; {HOW}"));
        }
        let authority = match own_port {
            Some(own) if own == port => host.to_owned(),
            _ => format!("{host}:{port}"),
        };
        Ok(Self {
            host: bare.unwrap_or(host).to_owned(),
            port,
            tls,
            authority,
            path,
        })
    }
}

impl Target {
    /// The address; of several one of IPv4.
    ///
    /// # Errors
    /// The name has none.
    pub(super) fn resolve(&self) -> Result<SocketAddr, Problem> {
        let found = (self.host.as_str(), self.port)
            .to_socket_addrs()
            .map_err(|error| Problem::Yours(format!("--to {}: {error}", self.authority)))?;
        let all: Vec<SocketAddr> = found.collect();
        let v4 = all.iter().find(|at| at.is_ipv4());
        v4.or(all.first())
            .copied()
            .ok_or_else(|| Problem::Yours(format!("--to {} has no address", self.authority)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> (String, u16, bool, String, Option<String>) {
        let to: Target = text.parse().unwrap();
        (to.host, to.port, to.tls, to.authority, to.path)
    }

    #[test]
    fn a_scheme_says_port_and_tls() {
        let row = |host: &str, port, tls, authority: &str, path: Option<&str>| {
            let path = path.map(str::to_owned);
            (host.to_owned(), port, tls, authority.to_owned(), path)
        };
        assert_eq!(told("a:80"), row("a", 80, false, "a:80", None));
        assert_eq!(told("http://a"), row("a", 80, false, "a", None));
        assert_eq!(told("https://a:443/"), row("a", 443, true, "a", Some("/")));
        assert_eq!(
            told("https://a:8443/b?c"),
            row("a", 8443, true, "a:8443", Some("/b?c"))
        );
        assert_eq!(told("tls://[::1]:7"), row("::1", 7, true, "[::1]:7", None));
        assert_eq!(told("https://[::1]"), row("::1", 443, true, "[::1]", None));
    }

    #[test]
    fn what_is_no_target_is_told_how_to_write_one() {
        for text in [
            "nothing",
            "a:",
            "a:0",
            "a:66000",
            ":80",
            "::1:80",
            "ftp://a",
            "tls://a",
            "a:1/b",
            "https://u@a",
            "https://",
            "https://a?b",
            "[::1:80",
        ] {
            let why = text.parse::<Target>().unwrap_err();
            assert!(why.contains("write HOST:PORT"), "{text}: {why}");
        }
    }
}
