//! A plaintext port that takes mutual TLS too (PERMISSIVE): who speaks is told by the first bytes.
//!
//! ```text
//! a hello that offers our protocols  -> ended here: the certificate says who
//! any other hello                    -> to the app as it is: its own TLS
//! anything else                      -> plaintext, by the port's protocol
//! ```
//! Only where the client speaks first: a port declared TCP is not looked at, because a server that
//! greets would wait for ever for a client that waits for its greeting.

use std::rc::Rc;

use super::first_bytes::gather;
use super::route_conn;
use crate::exchange::{Enlisted, Flow, ShardState, relay};
use crate::reason::Reason;
use crate::ring::{ByteStream, Chunk, Socket};
use crate::tls::{self, Hello, hello};
use crate::upstream::Stream;

/// Serves a connection that began with a TLS hello. `plaintext`: its place among those without a proven
/// peer.
pub(super) async fn serve_tls(
    shard: &Rc<ShardState>,
    flow: &Flow,
    stream: Stream,
    first: Chunk,
    plaintext: Enlisted,
) {
    let until = shard.now().plus_ms(shard.limits.handshake_timeout_ms);
    let looked = gather(shard, &stream, first, until, |bytes| {
        Some(hello(bytes)).filter(|whose| *whose != Hello::NeedMore)
    });
    let (whose, first) = match looked.await {
        Ok(looked) => looked,
        Err(reason) => {
            shard.meter().refused(reason);
            return stream.reset();
        }
    };
    match (whose, stream) {
        (Hello::Mesh, Stream::Plain(socket)) => {
            drop(plaintext);
            mesh(shard, flow, socket, first).await;
        }
        (_, stream) => relay::inbound(shard, flow, &stream, first).await,
    }
}

async fn mesh(shard: &Rc<ShardState>, flow: &Flow, socket: Socket, first: Chunk) {
    let Some(material) = shard.material() else {
        return route_conn::refuse(shard, &socket, Reason::SvidExpired);
    };
    let accepting = tls::accept_begun(&shard.ring, socket, first, &material, &shard.budget);
    route_conn::serve_mesh(shard, accepting, flow.local, flow.peer.address).await;
}
