//! The ring on the real kernel, in this process. Peers are plain threads with std sockets. The rooms
//! above borrow the stage.

mod bounds;
mod bytes;
mod drops;
mod ends;
mod faults;
mod setup;
mod simulated;
mod splice;
mod timers;
mod turns;
mod zero_copy;

use std::cell::RefCell;
use std::future::Future;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use super::*;

/// Everything here takes milliseconds; this only ends a test that hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A ring whose operations are ended with the test.
pub(crate) struct TestRing(Ring);

impl std::ops::Deref for TestRing {
    type Target = Ring;

    fn deref(&self) -> &Ring {
        &self.0
    }
}

impl Drop for TestRing {
    fn drop(&mut self) {
        self.0.close();
    }
}

pub(crate) fn ring() -> TestRing {
    ring_with(&RingPlan::default())
}

fn ring_with(plan: &RingPlan) -> TestRing {
    TestRing(Ring::new(plan).unwrap())
}

/// Turns the ring until `task` is done.
pub(crate) fn drive<T: 'static>(ring: &Ring, task: impl Future<Output = T> + 'static) -> T {
    let slot = Rc::new(RefCell::new(None));
    let result = Rc::clone(&slot);
    assert!(ring.spawn(async move {
        *result.borrow_mut() = Some(task.await);
    }));
    until(ring, || slot.borrow().is_some());
    slot.take().unwrap()
}

/// Turns the ring until `done`.
pub(crate) fn until(ring: &Ring, mut done: impl FnMut() -> bool) {
    ring.turn(Park::No);
    let end = ring.now() + PATIENCE;
    while !done() {
        assert!(ring.now() < end, "nothing came of it in {PATIENCE:?}");
        ring.turn(Park::Until(
            (ring.now() + Duration::from_millis(20)).min(end),
        ));
    }
}

pub(crate) fn listen(ring: &Ring) -> Listener {
    let any = "127.0.0.1:0".parse().unwrap();
    Listener::bind(ring, any, &ListenOptions::default()).unwrap()
}

/// What some ring got.
pub(crate) fn picked(send_zc: SendZc) -> Picked {
    let RingPlan {
        heads,
        bulk,
        pipes_max,
        ..
    } = RingPlan::default();
    Picked {
        task_run: TaskRun::Defer,
        single_issuer: true,
        submit_all: true,
        no_sqarray: false,
        registered_fd: true,
        recv_limit: false,
        heads,
        bulk,
        pipes_max,
        send_zc,
    }
}

fn accept_one(listener: &Listener) -> impl Future<Output = Socket> + 'static {
    let listener = listener.again();
    async move { listener.accept().await.unwrap() }
}

/// Connections are echoed until their end, then closed.
fn echo_server(ring: &Ring) -> SocketAddr {
    let listener = listen(ring);
    let at = listener.local_addr();
    let inner = ring.clone();
    assert!(ring.spawn(async move {
        while let Ok(socket) = listener.accept().await {
            assert!(inner.spawn(echo(socket)));
        }
    }));
    at
}

async fn echo(socket: Socket) {
    loop {
        match socket.recv().await {
            Ok(chunk) if chunk.is_empty() => return,
            Ok(chunk) => {
                if socket.send(chunk.into()).await.is_err() {
                    return;
                }
            }
            Err(_) => return,
        }
    }
}

/// Received bytes up to the end.
async fn drain(socket: &Socket) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let chunk = socket.recv().await?;
        if chunk.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(&chunk);
    }
}

/// A plain blocking client in a thread, and its result.
pub(crate) fn client<T: Send + 'static>(
    to: SocketAddr,
    talk: impl FnOnce(TcpStream) -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(move || {
        let stream = TcpStream::connect(to).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        talk(stream)
    })
}

/// Turns the ring until a thread is done.
pub(crate) fn join<T>(ring: &Ring, thread: std::thread::JoinHandle<T>) -> T {
    until(ring, || thread.is_finished());
    thread.join().unwrap()
}

/// Reads to the end.
pub(crate) fn read_all(mut stream: &TcpStream) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    Ok(all)
}

/// Bytes that differ everywhere.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(len as u64);
    let mut bytes = vec![0; len];
    random.fill(&mut bytes);
    bytes
}

pub(crate) fn write_all(mut stream: &TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).unwrap();
}
