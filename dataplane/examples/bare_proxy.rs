//! The least a proxy on the ring can do, to measure the ring itself against other proxies: one
//! upstream connection per downstream one, chunks passed on unread, no rules, no parsing.
//!
//! `bare_proxy LISTEN UPSTREAM [shards]`, addresses as `ip:port`. Measure with `wrk` and compare CPU
//! per request; any real proxy does more than this.

use std::net::SocketAddr;
use std::sync::Arc;

use ringmesh_dataplane::opaque::{RelayOptions, relay};
use ringmesh_dataplane::ring::{Chunk, ListenOptions, Listener, Ring, RingPlan, Socket};
use ringmesh_dataplane::shard::{self, Seat};
use ringmesh_tuning::placement;

fn main() {
    shard::prepare_process();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [listen, upstream, rest @ ..] = &arguments[..] else {
        eprintln!("bare_proxy LISTEN UPSTREAM [shards]");
        std::process::exit(2);
    };
    let listen: SocketAddr = listen.parse().expect("LISTEN is ip:port");
    let upstream: SocketAddr = upstream.parse().expect("UPSTREAM is ip:port");
    let shards = rest
        .first()
        .map_or(1, |n| n.parse().expect("shards is a number"));
    let places: Vec<_> = (0..shards)
        .map(|index| placement::Shard { index, cpu: None })
        .collect();
    let notify: Arc<dyn Fn() + Send + Sync> = Arc::new(|| ());
    let body = move |seat: Seat<(), ()>| serve(seat.ring, listen, upstream);
    let (shards, _) = shard::spawn_shards(&places, &RingPlan::default(), &notify, &body)
        .unwrap_or_else(|error| panic!("{error}"));
    for shard in shards {
        shard.join().expect("a shard ended well");
    }
}

async fn serve(ring: Ring, listen: SocketAddr, upstream: SocketAddr) {
    let options = ListenOptions {
        reuse_port: true,
        ..ListenOptions::default()
    };
    let listener = Listener::bind(&ring, listen, &options).expect("the address is free");
    loop {
        let Ok(downstream) = listener.accept().await else {
            continue;
        };
        let inner = ring.clone();
        if !ring.spawn(async move { pass(&inner, downstream, upstream).await }) {
            eprintln!("too many connections");
        }
    }
}

async fn pass(ring: &Ring, downstream: Socket, upstream: SocketAddr) {
    let Ok(upstream) = Socket::connect(ring, upstream).await else {
        return;
    };
    let options = RelayOptions {
        idle_timeout_ms: 3_600_000,
        over_at: ringmesh_dataplane::time::Mono::NEVER,
    };
    let nothing = Chunk::empty;
    relay(ring, &downstream, &upstream, nothing(), nothing(), &options).await;
}
