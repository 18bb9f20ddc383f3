//! Ports for servers that other processes start: each is given to one of them.
//!
//! A port that was free a moment ago may have become that of an outgoing connection, or of the tests of
//! another checkout, before its server binds it. These lie below those the kernel gives by itself (from
//! 32,768 on), and a block of them is for the process that holds the lock of the block's file.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU16, Ordering};

const FIRST: u16 = 20_000;
const BLOCKS: u16 = 50;
const PORTS_PER_BLOCK: u16 = 200;

struct Block {
    /// Held as long as this process lives.
    _lock: File,
    first: u16,
    given: AtomicU16,
}

static BLOCK: LazyLock<Block> = LazyLock::new(|| {
    let folder = std::env::temp_dir().join("ringmesh-test-ports");
    std::fs::create_dir_all(&folder).expect("a folder");
    let free = (0..BLOCKS).find_map(|block| {
        let first = FIRST + block * PORTS_PER_BLOCK;
        let file = File::create(folder.join(first.to_string())).ok()?;
        file.try_lock().ok()?;
        Some((file, first))
    });
    let (lock, first) = free.expect("fifty processes hold all ports");
    Block {
        _lock: lock,
        first,
        given: AtomicU16::new(0),
    }
});

/// A port of 127.0.0.1 that nobody uses, and nobody else is given soon.
///
/// # Panics
/// All of this process are in use.
#[must_use]
pub fn free_port() -> u16 {
    let next = || BLOCK.first + BLOCK.given.fetch_add(1, Ordering::Relaxed) % PORTS_PER_BLOCK;
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let mut all = (0..PORTS_PER_BLOCK).map(|_| next());
    all.find(is_free).expect("a free port")
}
