//! One accepted connection: which way, which protocol, who serves it.
//!
//! The configuration is looked at and let go before anybody serves: a connection may live for days,
//! and every configuration it held would stay as long.

use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::rc::Rc;

use ringmesh_wire::snapshot::{MtlsMode, Protocol};

use super::first_bytes::sniff;
use super::listen::Role;
use super::{permissive, sni, undeclared};
use crate::detect::Detected;
use crate::exchange::{self, Active, Direction, Flow, ShardState, relay};
use crate::reason::Reason;
use crate::ring::{ByteStream, Chunk, Socket};
use crate::tables::TcpTarget;
use crate::telemetry::Event;
use crate::tls::{self, Inner, TlsRefusal, TlsStream};
use crate::upstream::Stream;
use crate::view::Peer;
use crate::wait;

/// Serves one connection to its end.
pub(super) async fn serve(shard: &Rc<ShardState>, socket: Socket, role: Role, local: SocketAddr) {
    let address = socket.peer_addr();
    if role == Role::Mesh {
        return Box::pin(mesh(shard, socket, local, address)).await;
    }
    let original_dst = match role {
        Role::Inbound if shard.tproxy => socket.tproxied_dst(local),
        _ => socket.original_dst(local),
    };
    let peer = Peer {
        address,
        identity: None,
    };
    // Made once and lent: what every layer kept of it would be in memory for each idle connection.
    let mut flow = Flow {
        serial: shard.next_serial(),
        direction: Direction::Outbound,
        peer,
        original_dst,
        local,
    };
    if original_dst.is_some_and(|dst| shard.is_own(dst)) {
        return refuse(shard, &socket, Reason::Loop);
    }
    let at = match local.ip().is_unspecified() || shard.tproxy {
        true => socket.local_addr().ip(),
        false => local.ip(),
    };
    let (at, caller) = (at.to_canonical(), address.ip().to_canonical());
    let way = way(role, original_dst, at, caller);
    match (way, shard.active()) {
        // Boxed: it keeps more than the way out does, and most connections of a caller go out.
        (Way::In, Some(active)) => {
            Box::pin(plain_inbound(shard, active, &mut flow, socket)).await;
        }
        (Way::In, None) => refuse(shard, &socket, Reason::NoConfig),
        (Way::OutForOthers, _) if shard.has_identity() => {
            refuse(shard, &socket, Reason::ForeignCaller);
        }
        (Way::Out | Way::OutForOthers, Some(active)) => {
            outbound(shard, active, &flow, socket).await;
        }
        // HTTP is told so; what else it may be cannot be known yet.
        (Way::Out | Way::OutForOthers, None) => {
            exchange::serve(shard, &flow, Stream::Plain(socket), Chunk::empty()).await;
        }
    }
}

/// Which way a connection goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// To the app.
    In,
    /// From the app, or whoever else is on this host.
    Out,
    /// From another host, to be sent out from here: in the name of this workload, if it has one.
    OutForOthers,
}

/// Which way a connection goes that was accepted `at` this address. Pure.
///
/// One port may serve both ways. REDIRECT sends what arrived to an address of the
/// interface it came in by, which is not always the one that was dialled, and what this host opened to a
/// loopback address. Of the latter goes in what the sidecar itself sends to an address of this host
/// (`ringmesh intercept`'s rule c: an app that calls itself); an app's own calls over loopback are not
/// captured.
fn way(role: Role, original_dst: Option<SocketAddr>, at: IpAddr, caller: IpAddr) -> Way {
    let to_caller = |dst: SocketAddr| dst.ip().to_canonical() == caller;
    let arrived = |dst| !at.is_loopback() || to_caller(dst);
    if role == Role::Inbound || original_dst.is_some_and(arrived) {
        return Way::In;
    }
    match at.is_loopback() || caller.is_loopback() || caller == at {
        true => Way::Out,
        false => Way::OutForOthers,
    }
}

// No async fn: that keeps its arguments twice, here for each idle connection.
fn outbound(
    shard: &Rc<ShardState>,
    active: Rc<Active>,
    flow: &Flow,
    socket: Socket,
) -> impl Future<Output = ()> {
    let declared = declared(&active, flow.original_dst);
    drop(active);
    let stream = Stream::Plain(socket);
    async move {
        match declared {
            Protocol::Tcp | Protocol::Tls => {
                Box::pin(relay::outbound(shard, flow, &stream, Chunk::empty())).await;
            }
            Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => {
                exchange::serve(shard, flow, stream, Chunk::empty()).await;
            }
            Protocol::Auto => {
                // Boxed, as all that is not of every HTTP connection.
                let Some(heard) = Box::pin(undeclared::listen(shard, flow, &stream)).await else {
                    return;
                };
                match heard.detected {
                    Detected::Http1 | Detected::H2Preface => {
                        let first = heard.into_http(shard, flow);
                        exchange::serve(shard, flow, stream, first).await;
                    }
                    Detected::TlsHello | Detected::Other | Detected::NeedMore => {
                        if let Err(first) = Box::pin(heard.carry(shard, flow, &stream)).await {
                            Box::pin(relay::outbound(shard, flow, &stream, first)).await;
                        }
                    }
                }
            }
        }
    }
}

/// What the port speaks that a local app dialled.
fn declared(active: &Active, original_dst: Option<SocketAddr>) -> Protocol {
    let tables = &*active.tables;
    match tables.resolve_tcp(original_dst) {
        TcpTarget::Known(destined) => tables.declared(&destined),
        TcpTarget::Passthrough(_) => Protocol::Auto,
        // Nothing was dialled: only Host can tell, so it has to be HTTP.
        TcpTarget::Unknown if original_dst.is_none() => Protocol::Http1,
        TcpTarget::Unknown => Protocol::Auto,
    }
}

async fn plain_inbound(
    shard: &Rc<ShardState>,
    active: Rc<Active>,
    flow: &mut Flow,
    socket: Socket,
) {
    let ports = &active.tables.workload.ports;
    let place = match flow.original_dst {
        Some(dst) => ports.iter().position(|port| port.app.port() == dst.port()),
        None if ports.len() == 1 => Some(0),
        None => None,
    };
    let port = place.and_then(|at| ports.get(at).map(|port| (at, port.mtls, port.protocol)));
    drop(active);
    let Some((place, mtls, protocol)) = port else {
        return refuse(shard, &socket, Reason::UnknownDestination);
    };
    if mtls == MtlsMode::Strict {
        return refuse(shard, &socket, Reason::PlaintextRefused);
    }
    flow.direction = Direction::Inbound { port: place };
    let flow = &*flow;
    // Until it ends, or shows that it is mutual TLS.
    let enlisted = shard.plaintext.enlist(place, socket.cutter());
    let stream = Stream::Plain(socket);
    let permissive = mtls == MtlsMode::Permissive;
    match protocol {
        Protocol::Http1 | Protocol::Http2 | Protocol::Grpc | Protocol::Tls if permissive => {
            let Some((detected, first)) = sniff(shard, &stream).await else {
                return;
            };
            match detected {
                Detected::TlsHello => {
                    Box::pin(permissive::serve_tls(shard, flow, stream, first, enlisted)).await;
                }
                _ if protocol == Protocol::Tls => {
                    Box::pin(relay::inbound(shard, flow, &stream, first)).await;
                }
                _ => exchange::serve(shard, flow, stream, first).await,
            }
        }
        Protocol::Tcp | Protocol::Tls => {
            Box::pin(relay::inbound(shard, flow, &stream, Chunk::empty())).await;
        }
        Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => {
            exchange::serve(shard, flow, stream, Chunk::empty()).await;
        }
        Protocol::Auto => {
            // Boxed, as all that is not of every HTTP connection.
            let Some(heard) = Box::pin(undeclared::listen(shard, flow, &stream)).await else {
                return;
            };
            match heard.detected {
                Detected::Http1 | Detected::H2Preface => {
                    let first = heard.into_http(shard, flow);
                    exchange::serve(shard, flow, stream, first).await;
                }
                Detected::TlsHello if permissive => {
                    let first = heard.into_first();
                    Box::pin(permissive::serve_tls(shard, flow, stream, first, enlisted)).await;
                }
                Detected::TlsHello | Detected::Other | Detected::NeedMore => {
                    if let Err(first) = Box::pin(heard.carry(shard, flow, &stream)).await {
                        Box::pin(relay::inbound(shard, flow, &stream, first)).await;
                    }
                }
            }
        }
    }
}

/// A connection of another sidecar: the certificate says who, SNI which port, ALPN what.
async fn mesh(shard: &Rc<ShardState>, socket: Socket, local: SocketAddr, address: SocketAddr) {
    let Some(material) = shard.material() else {
        return refuse(shard, &socket, Reason::SvidExpired);
    };
    let accepting = tls::accept(&shard.ring, socket, &material, &shard.budget);
    serve_mesh(shard, accepting, local, address).await;
}

/// From the handshake on, wherever it came in.
pub(super) async fn serve_mesh(
    shard: &Rc<ShardState>,
    accepting: impl Future<Output = Result<TlsStream, TlsRefusal>>,
    local: SocketAddr,
    address: SocketAddr,
) {
    let until = shard.now().plus_ms(shard.limits.handshake_timeout_ms);
    let give_up = pin!(shard.ring.sleep_until(until));
    let accepted = wait::or_timeout(accepting, give_up).await;
    let enlisted = accepted.map(|accepted| {
        let mut stream = accepted?;
        stream.enlist(&shard.live)?;
        Ok::<_, TlsRefusal>(stream)
    });
    let stream = match enlisted {
        Some(Ok(stream)) => stream,
        Some(Err(refusal)) => {
            tracing::info!(peer = %address, reason = refusal.reason().code(), %refusal, "refused on the mesh port");
            shard.meter().refused(refusal.reason());
            return;
        }
        None => {
            shard.meter().refused(Reason::HeadTimeout);
            return;
        }
    };
    shard.meter().count(Event::Handshake);
    if stream.is_resumed() {
        shard.meter().count(Event::Resumed);
    }
    let Some(active) = shard.active() else {
        return stream.reset();
    };
    let workload = &active.tables.workload;
    let named = stream.sni().and_then(sni::parse);
    let place = named.and_then(|(port, service, namespace)| {
        let ours = workload.service.name == service && workload.service.namespace == namespace;
        ours.then(|| workload.ports.iter().position(|p| p.number == port))
            .flatten()
    });
    let Some(place) = place else {
        shard.meter().refused(Reason::UnknownDestination);
        return stream.reset();
    };
    let port = &workload.ports[place];
    let (mtls, app_port, protocol) = (port.mtls, port.app.port(), port.protocol);
    drop(active);
    if mtls == MtlsMode::Disable {
        shard.meter().refused(Reason::MtlsDisabled);
        return stream.reset();
    }
    // What the port declares goes before what the peer would have: bytes that nobody looks into could say
    // anything of who calls, and be as many requests as they like.
    if stream.inner() == Inner::Tcp && protocol.is_http() {
        shard.meter().refused(Reason::UnsupportedProtocol);
        return stream.reset();
    }
    let peer = Peer {
        address,
        identity: Some(Box::new(stream.peer().clone())),
    };
    let flow = Flow {
        serial: shard.next_serial(),
        direction: Direction::Inbound { port: place },
        peer,
        // The app is called in the peer's name where the peer called.
        original_dst: match shard.tproxy {
            true => Some(SocketAddr::new(stream.local_addr().ip(), app_port)),
            false => None,
        },
        local,
    };
    let inner = stream.inner();
    let stream = Box::new(stream);
    if inner == Inner::Lanes {
        return Box::pin(exchange::serve_lanes(shard, &flow, stream)).await;
    }
    let stream = Stream::Tls(stream);
    match inner {
        Inner::Http1 | Inner::Http2 | Inner::Lanes => {
            exchange::serve(shard, &flow, stream, Chunk::empty()).await;
        }
        Inner::Tcp => Box::pin(relay::inbound(shard, &flow, &stream, Chunk::empty())).await,
    }
}

pub(super) fn refuse(shard: &ShardState, socket: &Socket, reason: Reason) {
    tracing::info!(peer = %socket.peer_addr(), reason = reason.code(), "connection refused");
    shard.meter().refused(reason);
    socket.reset();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_goes_where_it_was_captured_for() {
        for (role, dst, at, caller, wanted) in [
            // Captured on its way out.
            (
                Role::Outbound,
                "10.0.0.9:80",
                "127.0.0.1",
                "10.0.0.1",
                Way::Out,
            ),
            // The app calls the listener itself.
            (Role::Outbound, "", "127.0.0.1", "127.0.0.1", Way::Out),
            (Role::Outbound, "", "10.0.0.1", "10.0.0.1", Way::Out),
            (Role::Outbound, "", "10.0.0.1", "127.0.0.1", Way::Out),
            // Somebody else does.
            (
                Role::Outbound,
                "",
                "10.0.0.1",
                "10.0.0.2",
                Way::OutForOthers,
            ),
            // One port for both: captured as it arrived, whether the port is declared or not.
            (
                Role::Outbound,
                "10.0.0.1:9080",
                "10.0.0.1",
                "10.0.0.2",
                Way::In,
            ),
            (
                Role::Outbound,
                "10.0.0.1:9080",
                "10.0.1.1",
                "10.0.0.2",
                Way::In,
            ),
            (
                Role::Outbound,
                "[fd00::1]:9080",
                "fd00::1",
                "fd00::2",
                Way::In,
            ),
            // The sidecar's own call to an address of this host.
            (
                Role::Outbound,
                "10.0.0.1:9080",
                "127.0.0.1",
                "10.0.0.1",
                Way::In,
            ),
            (
                Role::Outbound,
                "[::ffff:10.0.0.1]:9080",
                "127.0.0.1",
                "10.0.0.1",
                Way::In,
            ),
            (Role::Inbound, "", "10.0.0.1", "10.0.0.2", Way::In),
            (
                Role::Inbound,
                "10.0.0.1:9080",
                "127.0.0.1",
                "10.0.0.2",
                Way::In,
            ),
        ] {
            let dst = dst.parse().ok();
            let way = way(role, dst, at.parse().unwrap(), caller.parse().unwrap());
            assert_eq!(way, wanted, "{role:?} {dst:?} {at} {caller}");
        }
    }
}
