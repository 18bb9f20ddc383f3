//! CONNECT: the app asks for a connection, not for an answer. It gets one to an endpoint of the mesh,
//! or to an address outside it; then both directions are bytes, each with its own end.
//!
//! Policy and faults have been asked by then (`pipeline`); here is only the connection.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;

use super::context::Exchange;
use super::head_out::HeadOut;
use super::pipeline::After;
use super::record::Record;
use super::relay;
use super::sides::Client;
use crate::http1::put_tunnel_open;
use crate::opaque;
use crate::reason::Reason;
use crate::ring::{ByteStream, Chunk};
use crate::tables::{ClusterIndex, Link};
use crate::tls::Inner;
use crate::upstream::Stream;
use crate::wait;

/// To an endpoint of a cluster, to `only` this one if the app named it. `first` is what the client sent without waiting.
///
/// # Errors
/// Why there is no connection.
pub(super) async fn to_cluster(
    x: &Exchange<'_>,
    only: Option<SocketAddr>,
    cluster: ClusterIndex,
    first: Chunk,
    record: &mut Record,
) -> Result<After, Reason> {
    // A sidecar there goes on looking into requests: its policies and quotas are for each of them.
    let inner = if x.active.tables.cluster(cluster).port.protocol.is_http() {
        Inner::Http1
    } else {
        Inner::Tcp
    };
    let upstream = relay::to_endpoint(x.shard, x.active, cluster, only, inner, record).await?;
    Ok(carry(x, &upstream.stream, first, record).await)
}

/// To an address that is not the mesh's: for the apps of this host only, or whoever reaches this
/// listener could reach everything that listens on loopback here.
///
/// # Errors
/// Why there is no connection.
pub(super) async fn to_address(
    x: &Exchange<'_>,
    address: SocketAddr,
    first: Chunk,
    record: &mut Record,
) -> Result<After, Reason> {
    let called = match x.client {
        Client::Http1(Stream::Plain(socket)) => socket.local_addr(),
        Client::Http1(Stream::Tls(_) | Stream::Lane(_)) | Client::Http2(_) => {
            return Err(Reason::TunnelRefused);
        }
    };
    if !is_of_this_host(x.flow.peer.address.ip(), called.ip()) {
        return Err(Reason::TunnelRefused);
    }
    record.passthrough = true;
    let upstream = relay::to_link(x.shard, Link::Plain(address), record).await?;
    Ok(carry(x, &upstream.stream, first, record).await)
}

/// Who calls one of this host's addresses from the same one, or from loopback, is on it.
fn is_of_this_host(caller: IpAddr, called: IpAddr) -> bool {
    let (caller, called) = (caller.to_canonical(), called.to_canonical());
    caller.is_loopback() || caller == called
}

async fn carry(x: &Exchange<'_>, upstream: &Stream, first: Chunk, record: &mut Record) -> After {
    // CONNECT in HTTP/2 is refused before it is an exchange.
    let Client::Http1(downstream) = x.client else {
        return After::Reset;
    };
    record.answered = Some(x.shard.now());
    record.upstream_tls = upstream.identity().is_some();
    let mut head = HeadOut::new(&x.shard.ring);
    if put_tunnel_open(&mut head).is_err() {
        record.reason = Reason::Shed;
        return After::Reset;
    }
    record.status = 200;
    let told = downstream.send(head.finish());
    match wait::or_timeout(told, pin!(x.shard.idle_from_now())).await {
        Some(Ok(())) => {}
        Some(Err(_)) => {
            record.reason = Reason::ClientGone;
            return After::Reset;
        }
        None => {
            record.reason = Reason::IdleTimeout;
            return After::Reset;
        }
    }
    let options = opaque::RelayOptions {
        idle_timeout_ms: x.shard.limits.tcp_idle_timeout_ms,
        over_at: x.client.over_at().min(upstream.over_at()),
    };
    let relayed = opaque::relay(
        &x.shard.ring,
        downstream,
        upstream,
        first,
        Chunk::empty(),
        &options,
    )
    .await;
    record.bytes_in += relayed.forth;
    record.bytes_out += relayed.back;
    if let Some(reason) = relay::why_ended(x.shard, x.flow, &relayed, downstream, upstream) {
        record.reason = reason;
    }
    match relayed.idle || relayed.over || relayed.reset {
        true => After::Reset,
        false => After::Close,
    }
}

#[cfg(test)]
mod tests {
    use super::is_of_this_host;

    #[test]
    fn only_callers_on_this_host_reach_what_is_outside_the_mesh() {
        for (caller, called, wanted) in [
            ("127.0.0.1", "127.0.0.1", true),
            ("::ffff:127.0.0.1", "127.0.0.1", true),
            ("::1", "::1", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
            ("10.0.0.2", "10.0.0.1", false),
            ("10.0.0.2", "::ffff:10.0.0.1", false),
        ] {
            let of_this_host = is_of_this_host(caller.parse().unwrap(), called.parse().unwrap());
            assert_eq!(of_this_host, wanted, "{caller} {called}");
        }
    }
}
