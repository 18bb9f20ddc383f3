//! Asking name servers, over UDP and where an answer does not fit over TCP.
//!
//! Every question goes from a port of its own that the kernel draws, connected to the server asked, with
//! an id nobody can guess; what is no answer to it is not looked at (RFC 5452 section 9).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::book::Lookup;
use super::message::{Family, Fault, Found, Question, Said};
use crate::settings::NAME_SERVERS_MAX;

/// For one lookup, whatever its servers do.
pub const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// For one datagram's answer.
const UDP_TIMEOUT: Duration = Duration::from_secs(2);
/// For one answer over TCP, connecting included.
const TCP_TIMEOUT: Duration = Duration::from_secs(4);
/// Datagrams are lost: each server is asked so often.
const ROUNDS: usize = 2;
/// Datagrams that are no answer, until it counts as an attack and the server is left alone.
const STRAYS_MAX: usize = 64;
/// We ask without EDNS, so no datagram is longer (RFC 1035 section 4.2.1); one that is is cut, and then malformed.
const UDP_BYTES_MAX: usize = 512;
/// Bytes of resolv.conf looked at.
const CONF_BYTES_MAX: usize = 64 * 1024;

/// Looks a name up in both families at once.
pub async fn lookup(servers: &[SocketAddr], name: &str, mut id: impl FnMut() -> u16) -> Lookup {
    let (id4, id6) = (id(), id());
    let (v4, v6) = tokio::join!(
        family(servers, name, Family::V4, id4),
        family(servers, name, Family::V6, id6),
    );
    without_unroutable(v4, v6, has_route)
}

async fn family(
    servers: &[SocketAddr],
    name: &str,
    family: Family,
    id: u16,
) -> Result<Found, Fault> {
    let question = Question::new(name, family, id)?;
    timeout(LOOKUP_TIMEOUT, ask_all(servers, &question))
        .await
        .unwrap_or(Err(Fault::Timeout))
}

async fn ask_all(servers: &[SocketAddr], question: &Question) -> Result<Found, Fault> {
    let mut last = Fault::Unreachable;
    for server in servers
        .iter()
        .take(NAME_SERVERS_MAX)
        .cycle()
        .take(servers.len().min(NAME_SERVERS_MAX) * ROUNDS)
    {
        match ask(*server, question).await {
            Ok(found) => return Ok(found),
            Err(fault) if fault.is_denial() => return Err(fault),
            Err(fault) => last = fault,
        }
    }
    Err(last)
}

async fn ask(server: SocketAddr, question: &Question) -> Result<Found, Fault> {
    let over_udp = timeout(UDP_TIMEOUT, over_udp(server, question)).await;
    match over_udp.map_err(|_| Fault::Timeout)? {
        Ok(Some(answer)) => answer,
        Ok(None) => {
            let over_tcp = timeout(TCP_TIMEOUT, over_tcp(server, question)).await;
            over_tcp
                .map_err(|_| Fault::Timeout)?
                .unwrap_or(Err(Fault::Unreachable))
        }
        Err(_) => Err(Fault::Unreachable),
    }
}

/// `None`: it is to be asked over TCP.
async fn over_udp(
    server: SocketAddr,
    question: &Question,
) -> io::Result<Option<Result<Found, Fault>>> {
    let socket = UdpSocket::bind((any(server), 0)).await?;
    socket.connect(server).await?;
    socket.send(question.bytes()).await?;
    let mut bytes = [0; UDP_BYTES_MAX];
    for _ in 0..STRAYS_MAX {
        let len = socket.recv(&mut bytes).await?;
        match question.read(bytes.get(..len).unwrap_or_default()) {
            Said::Nothing => {}
            Said::Truncated => return Ok(None),
            Said::Answer(answer) => return Ok(Some(answer)),
        }
    }
    Ok(Some(Err(Fault::Malformed)))
}

async fn over_tcp(server: SocketAddr, question: &Question) -> io::Result<Result<Found, Fault>> {
    let mut conn = TcpStream::connect(server).await?;
    let length = u16::try_from(question.bytes().len()).unwrap_or(u16::MAX);
    let message = [&length.to_be_bytes(), question.bytes()].concat();
    conn.write_all(&message).await?;
    let mut bytes = vec![0; usize::from(conn.read_u16().await?)];
    conn.read_exact(&mut bytes).await?;
    Ok(match question.read(&bytes) {
        Said::Answer(answer) => answer,
        // On a connection of our own there is nobody else to wait for.
        Said::Nothing | Said::Truncated => Err(Fault::Malformed),
    })
}

fn any(server: SocketAddr) -> IpAddr {
    match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    }
}

/// A family that this host has no route for is left out where the other has one (RFC 6724 rule 1): every
/// call to it would only fail.
fn without_unroutable(
    v4: Result<Found, Fault>,
    v6: Result<Found, Fault>,
    has_route: impl Fn(IpAddr) -> bool,
) -> Lookup {
    let routed = |found: &Result<Found, Fault>| {
        let found = found.as_ref().ok();
        found.map(|found| found.addresses.iter().any(|to| has_route(*to)))
    };
    let (to_v4, to_v6) = (routed(&v4), routed(&v6));
    match (to_v4, to_v6) {
        (Some(true), Some(false)) => Lookup {
            v4,
            v6: Err(Fault::NoAddress),
        },
        (Some(false), Some(true)) => Lookup {
            v4: Err(Fault::NoAddress),
            v6,
        },
        _ => Lookup { v4, v6 },
    }
}

/// Whether the kernel knows a way to an address. Nothing is sent.
fn has_route(to: IpAddr) -> bool {
    let to = SocketAddr::new(to, 53);
    std::net::UdpSocket::bind((any(to), 0)).is_ok_and(|socket| socket.connect(to).is_ok())
}

/// The servers that `file` (resolv.conf(5)) names; without any this host's own.
#[must_use]
pub fn servers_of(file: &Path) -> Vec<SocketAddr> {
    let text = std::fs::read(file).unwrap_or_default();
    let text = text.get(..CONF_BYTES_MAX).unwrap_or(&text);
    nameservers(&String::from_utf8_lossy(text))
}

fn nameservers(text: &str) -> Vec<SocketAddr> {
    let named = text.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        let is_one = words.next() == Some("nameserver");
        let server: IpAddr = words.next().filter(|_| is_one)?.parse().ok()?;
        Some(SocketAddr::new(server, 53))
    });
    let named: Vec<SocketAddr> = named.take(NAME_SERVERS_MAX).collect();
    match named.is_empty() {
        true => vec![SocketAddr::from((Ipv4Addr::LOCALHOST, 53))],
        false => named,
    }
}

#[cfg(test)]
#[path = "ask_tests.rs"]
mod tests;
