//! A plaintext port that takes mutual TLS too (PERMISSIVE): who speaks is told by the first bytes.
//!
//! ```text
//! a hello that offers our protocols  -> ended here: the certificate says who
//! any other hello                    -> to the app as it is: its own TLS
//! anything else                      -> plaintext, by the port's protocol
//! ```
//! Only where the client speaks first: a port declared TCP is not looked at, because a server that
//! greets would wait for ever for a client that waits for its greeting.

use std::pin::pin;
use std::rc::Rc;

use super::route_conn;
use crate::detect::{Detected, detect};
use crate::exchange::{Flow, ShardState, relay};
use crate::reason::Reason;
use crate::ring::{ByteStream, Chunk, Socket};
use crate::tls::{self, Hello, hello};
use crate::upstream::Stream;
use crate::wait;

/// The first bytes of a connection, and what they say; `None` if it ended or said nothing in the
/// time of an idle connection.
pub(super) async fn first_bytes(shard: &ShardState, stream: &Stream) -> Option<(Detected, Chunk)> {
    let until = shard.now().plus_ms(shard.limits.keep_alive_timeout_ms);
    gather(shard, stream, Chunk::empty(), until, |bytes| {
        Some(detect(bytes)).filter(|detected| *detected != Detected::NeedMore)
    })
    .await
}

/// Serves a connection that began with a TLS hello.
pub(super) async fn serve_tls(shard: &Rc<ShardState>, flow: &Flow, stream: Stream, first: Chunk) {
    let until = shard.now().plus_ms(shard.limits.handshake_timeout_ms);
    let looked = gather(shard, &stream, first, until, |bytes| {
        Some(hello(bytes)).filter(|whose| *whose != Hello::NeedMore)
    });
    let Some((whose, first)) = looked.await else {
        shard.meter().refused(Reason::HeadTimeout);
        return stream.reset();
    };
    match (whose, stream) {
        (Hello::Mesh, Stream::Plain(socket)) => mesh(shard, flow, socket, first).await,
        (_, stream) => relay::inbound(shard, flow, &stream, first).await,
    }
}

async fn mesh(shard: &Rc<ShardState>, flow: &Flow, socket: Socket, first: Chunk) {
    let Some(material) = shard.material() else {
        return route_conn::refuse(shard, &socket, Reason::SvidExpired);
    };
    let accepting = tls::accept_begun(&shard.ring, socket, first, &material);
    route_conn::serve_mesh(shard, accepting, flow.local, flow.peer.address).await;
}

/// Receives behind `first` until `decide` knows. `None` if the connection ended, the time was over, or
/// one buffer (16 KiB, several times the largest hello of today) did not do.
async fn gather<T>(
    shard: &ShardState,
    stream: &Stream,
    first: Chunk,
    until: crate::time::Mono,
    decide: impl Fn(&[u8]) -> Option<T>,
) -> Option<(T, Chunk)> {
    let mut give_up = pin!(shard.ring.sleep_until(until));
    let mut gathered = first;
    loop {
        if let Some(decided) = decide(&gathered) {
            return Some((decided, gathered));
        }
        let chunk = wait::or_timeout(stream.recv(), give_up.as_mut())
            .await?
            .ok()?;
        if chunk.is_empty() {
            return None;
        }
        if gathered.is_empty() {
            gathered = chunk;
            continue;
        }
        let mut buf = shard.ring.buf()?;
        buf.extend_from_slice(&gathered).ok()?;
        buf.extend_from_slice(&chunk).ok()?;
        gathered = buf.freeze();
    }
}
