//! A long cable: a relay in user space that delivers every byte a fixed time after it came, each way,
//! in order. For kernels without netem.
//!
//! Its near end accepts at once, so a TCP handshake costs nothing; the connection reaches the far end,
//! and every byte either end, one delay later.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use ringmesh_control::demo::stage::wait;

/// Pieces under way in one direction; more wait in the socket.
const PIECES_MAX: usize = 256;

/// Something that has come in, and when. Empty: the end.
type Piece = (Instant, Vec<u8>);

/// Carries every connection of `listener` to `to`. The calling thread's network namespace is that of
/// the far end.
pub fn lay(listener: TcpListener, to: SocketAddr, delay: Duration) {
    thread::spawn(move || {
        for near in listener.incoming().flatten() {
            thread::spawn(move || carry(near, to, delay));
        }
    });
}

fn carry(near: TcpStream, to: SocketAddr, delay: Duration) {
    let came = Instant::now();
    let (there, going) = sync_channel(PIECES_MAX);
    let (back, coming) = sync_channel(PIECES_MAX);
    let Ok(from_near) = near.try_clone() else {
        return;
    };
    thread::spawn(move || take(from_near, &there));
    wait::until_after(came, delay);
    let Ok(far) = TcpStream::connect(to) else {
        return;
    };
    let Ok(from_far) = far.try_clone() else {
        return;
    };
    thread::spawn(move || take(from_far, &back));
    thread::spawn(move || deliver(near, &coming, delay));
    deliver(far, &going, delay);
}

fn take(mut from: TcpStream, to: &SyncSender<Piece>) {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        // A failure is an end here: nothing behind the cable tells them apart.
        let len = from.read(&mut bytes).unwrap_or(0);
        if to.send((Instant::now(), bytes[..len].to_vec())).is_err() || len == 0 {
            return;
        }
    }
}

fn deliver(mut to: TcpStream, pieces: &Receiver<Piece>, delay: Duration) {
    if to.set_nodelay(true).is_err() {
        return;
    }
    for (came, bytes) in pieces {
        wait::until_after(came, delay);
        if bytes.is_empty() || to.write_all(&bytes).is_err() {
            // The other side may have closed already.
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
    }
}
