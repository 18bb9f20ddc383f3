//! Starts shards on glommio and runs each one's ring as a single glommio task. The only file that
//! names glommio.
//!
//! In traffic the shard sleeps in its *ring*: connections never wait for glommio's loop. Only after
//! [`QUIET`] without any does the ring signal an eventfd and the shard let glommio sleep, reading
//! that eventfd. So glommio's own tasks may wait that long while the shard is busy: nothing
//! latency-critical may live there. Measured (2026-11, CPU us per request): at 80,000 requests/s
//! this costs what no glommio costs (11.4 against 12.8), at 870/s 92 against 73, and with a quiet
//! window of 1 ms it would be 117.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::time::Duration;

use glommio::io::BufferedFile;
use glommio::timer::Timer;
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder, Placement};
use ringmesh_tuning::placement;

use crate::ring::{self, Park, RemoteWaker, Ring, RingError, RingPlan, Turn};
use crate::time::Mono;

use super::allocations::count;
use super::queue::{Collected, Inbox, Mailbox, Outbox, inbox, outboxes};

/// Without traffic for this long, glommio may have the thread.
const QUIET: Duration = Duration::from_millis(50);
/// Without traffic for this long, unused buffers give their pages back, once.
const TRIM_AFTER: Duration = Duration::from_secs(5);
/// glommio's own ring does no socket work here: the least it takes.
const IO_MEMORY_BYTES: usize = 65_536;
const RING_DEPTH: usize = 128;

/// What a shard's future gets.
#[derive(Debug)]
pub struct Seat<I, O> {
    /// Position, from 0.
    pub index: u16,
    /// The shard's ring.
    pub ring: Ring,
    /// Messages from the agent.
    pub inbox: Inbox<I>,
    /// Messages to the agent.
    pub outbox: Outbox<O>,
}

/// A running shard, seen from outside.
#[derive(Debug)]
pub struct ShardHandle<I> {
    /// Position, from 0.
    pub index: u16,
    /// Messages to the shard.
    pub mailbox: Mailbox<I>,
    thread: ExecutorJoinHandle<()>,
}

impl<I> ShardHandle<I> {
    /// Waits until the shard's future has ended and its ring is closed.
    ///
    /// # Errors
    /// The thread panicked.
    pub fn join(self) -> io::Result<()> {
        self.thread
            .join()
            .map_err(|error| io::Error::other(error.to_string()))
    }
}

/// A shard could not be started.
#[derive(Debug)]
pub enum ShardError {
    /// Its ring could not be made.
    Ring(RingError),
    /// Its thread or its host could not be made.
    Host(io::Error),
}

impl fmt::Display for ShardError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ring(error) => error.fmt(f),
            Self::Host(error) => write!(f, "a shard's thread could not be started: {error}"),
        }
    }
}

impl std::error::Error for ShardError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Ring(error) => error.source(),
            Self::Host(error) => Some(error),
        }
    }
}

/// To be called first thing in `main`, before any thread is started.
pub fn prepare_process() {
    ring::register_membarrier();
}

/// Starts a shard per place and returns when every ring stands (or none is left running, if one
/// could not be made). `body` is the shard: when its future ends, tasks it left behind are dropped
/// and the thread ends. `notify` tells the reader of the collected messages to look; it is called on
/// the shard and must not block.
///
/// # Errors
/// The first shard that could not be started.
pub fn spawn_shards<I, O, B, F>(
    places: &[placement::Shard],
    plan: &RingPlan,
    notify: &Arc<dyn Fn() + Send + Sync>,
    body: &B,
) -> Result<(Vec<ShardHandle<I>>, Collected<O>), ShardError>
where
    I: Send + 'static,
    O: Send + 'static,
    B: Fn(Seat<I, O>) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let (outboxes, collected) = outboxes(places.len(), notify);
    let mut shards = Vec::new();
    for (place, outbox) in places.iter().zip(outboxes) {
        // On an error the shards made before see their `go` dropped, and end.
        shards.push(spawn_shard(*place, plan, outbox, body.clone())?);
    }
    let shards = shards.into_iter().map(|(shard, go)| {
        // Fails only if the shard is gone, which `join` tells.
        let _ = go.send(());
        shard
    });
    Ok((shards.collect(), collected))
}

fn spawn_shard<I, O, B, F>(
    place: placement::Shard,
    plan: &RingPlan,
    outbox: Outbox<O>,
    body: B,
) -> Result<(ShardHandle<I>, mpsc::Sender<()>), ShardError>
where
    I: Send + 'static,
    O: Send + 'static,
    B: Fn(Seat<I, O>) -> F + Send + 'static,
    F: Future<Output = ()> + 'static,
{
    let remote = RemoteWaker::new().map_err(ShardError::Host)?;
    let (mailbox, seed) = inbox(remote.clone());
    let (tell, stands) = mpsc::channel();
    let (go, may_go) = mpsc::channel();
    let plan = plan.clone();
    let index = place.index;
    let thread = LocalExecutorBuilder::new(match place.cpu {
        Some(cpu) => Placement::Fixed(cpu as usize),
        None => Placement::Unbound,
    })
    .name(&format!("shard-{index}"))
    .io_memory(IO_MEMORY_BYTES)
    .ring_depth(RING_DEPTH)
    .spawn(move || async move {
        let host = match Host::new(&plan, remote) {
            Ok(host) => host,
            Err(error) => {
                let _ = tell.send(Err(error));
                return;
            }
        };
        tracing::info!(shard = index, ring = %host.ring.picked(), "the ring stands");
        let _ = tell.send(Ok(()));
        // Nothing else runs on this thread yet, so waiting for the other shards blocks nobody.
        if may_go.recv().is_err() {
            return;
        }
        let ring = host.ring.clone();
        let inbox = seed.on(ring.clone());
        host.run(body(Seat {
            index,
            ring,
            inbox,
            outbox,
        }))
        .await;
    })
    .map_err(|error| ShardError::Host(io::Error::other(error.to_string())))?;
    stands
        .recv()
        .unwrap_or_else(|gone| Err(ShardError::Host(io::Error::other(gone))))?;
    let shard = ShardHandle {
        index,
        mailbox,
        thread,
    };
    Ok((shard, go))
}

/// A ring inside a glommio task.
struct Host {
    ring: Ring,
    eventfd: OwnedFd,
    file: Rc<BufferedFile>,
    /// A read of the eventfd that is still pending; it outlives a park that a timer ended.
    signal: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Host {
    fn new(plan: &RingPlan, remote: RemoteWaker) -> Result<Self, ShardError> {
        let ring = Ring::with_remote(plan, remote).map_err(ShardError::Ring)?;
        let eventfd = ring::eventfd().map_err(ShardError::Host)?;
        let twin = eventfd.try_clone().map_err(ShardError::Host)?;
        Ok(Self {
            ring,
            eventfd,
            file: Rc::new(ring::adopt(twin)),
            signal: None,
        })
    }

    async fn run(mut self, body: impl Future<Output = ()> + 'static) {
        let ended = Rc::new(Cell::new(false));
        let end = Rc::clone(&ended);
        let started = self.ring.spawn(async move {
            body.await;
            end.set(true);
        });
        assert!(started, "the table of tasks is empty");
        // Our own timers are no traffic: they keep neither the shard awake nor memory from being given
        // back.
        let mut busy_at = self.ring.now();
        let mut traffic_at = busy_at;
        let mut trimmed = false;
        while !ended.get() {
            let turn = count(|| self.ring.turn(Park::Until(busy_at + QUIET)));
            let now = self.ring.now();
            if turn.completions > 0 {
                traffic_at = now;
                trimmed = false;
            }
            if turn.completions > 0 || turn.ready > 0 {
                busy_at = now;
            } else if now.since(busy_at) >= QUIET {
                let until = if trimmed {
                    Mono::NEVER
                } else {
                    traffic_at + TRIM_AFTER
                };
                if self.park(until).await {
                    busy_at = self.ring.now();
                }
                if !trimmed && self.ring.now() >= until {
                    self.ring.trim();
                    trimmed = true;
                }
            }
            // Lets glommio's tasks run when glommio thinks it is time.
            glommio::executor().yield_if_needed().await;
        }
        self.ring.close();
    }

    /// Lets glommio have the thread until the ring has something, a timer is due or `until`. Tells
    /// whether there may be something to do.
    async fn park(&mut self, until: Mono) -> bool {
        if self.ring.signal_to(&self.eventfd).is_err() {
            // Without a signal the ring's own sleep has to do, and glommio's tasks wait.
            count(|| self.ring.turn(Park::Free));
            return true;
        }
        // What was posted before the registration was not signalled.
        let awake = count(|| self.ring.turn(Park::No)) != Turn::default();
        let signalled = awake || self.sleep(until.min(self.ring.next_timer())).await;
        let _ = self.ring.signal_off();
        signalled
    }

    /// Tells whether the eventfd was signalled (and not only time passed).
    async fn sleep(&mut self, until: Mono) -> bool {
        let file = Rc::clone(&self.file);
        let signal = self.signal.get_or_insert_with(|| {
            Box::pin(async move {
                // An error is an early wake-up: the ring is looked at, and the next park tries again.
                let _ = file.read_at(0, 8).await;
            })
        });
        if until == Mono::NEVER {
            signal.await;
            self.signal = None;
            return true;
        }
        let mut timer = pin!(Timer::new(until.since(self.ring.now())));
        let signalled = poll_fn(|cx| {
            if signal.as_mut().poll(cx).is_ready() {
                return Poll::Ready(true);
            }
            timer.as_mut().poll(cx).map(|_| false)
        })
        .await;
        if signalled {
            self.signal = None;
        }
        signalled
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::time::Instant;

    use crate::ring::{ListenOptions, Listener, Socket};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[derive(Debug)]
    enum To {
        Echo(u32),
        Stop,
    }

    #[derive(Debug, PartialEq)]
    enum From {
        Listening(SocketAddr, String),
        Echo(u32),
    }

    async fn echo(socket: Socket) {
        while let Ok(chunk) = socket.recv().await {
            if chunk.is_empty() || socket.send(chunk.into()).await.is_err() {
                return;
            }
        }
    }

    async fn body(seat: Seat<To, From>) {
        let any = "127.0.0.1:0".parse().unwrap();
        let listener = Listener::bind(&seat.ring, any, &ListenOptions::default()).unwrap();
        let thread = std::fs::read_link("/proc/thread-self").unwrap();
        let thread = thread.to_str().unwrap().to_owned();
        let hello = From::Listening(listener.local_addr(), thread);
        assert!(seat.outbox.send(hello));
        let ring = seat.ring.clone();
        assert!(seat.ring.spawn(async move {
            while let Ok(socket) = listener.accept().await {
                assert!(ring.spawn(echo(socket)));
            }
        }));
        loop {
            match seat.inbox.recv().await {
                To::Echo(n) => assert!(seat.outbox.send(From::Echo(n))),
                To::Stop => return,
            }
        }
    }

    struct Stage {
        shards: Vec<ShardHandle<To>>,
        collected: Collected<From>,
        woken: mpsc::Receiver<()>,
    }

    impl Stage {
        fn new(count: u16) -> Self {
            let places: Vec<_> = (0..count)
                .map(|index| placement::Shard { index, cpu: None })
                .collect();
            let (wake, woken) = mpsc::sync_channel(1);
            let notify: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
                // Full: a wake-up is pending already.
                let _ = wake.try_send(());
            });
            let plan = RingPlan::default();
            let (shards, collected) = spawn_shards(&places, &plan, &notify, &body).unwrap();
            Self {
                shards,
                collected,
                woken,
            }
        }

        fn next(&self) -> (usize, From) {
            let end = Instant::now() + PATIENCE;
            loop {
                if let Some(message) = self.collected.take() {
                    return message;
                }
                assert!(Instant::now() < end, "the shards say nothing");
                let _ = self.woken.recv_timeout(Duration::from_millis(100));
            }
        }

        fn listening(&self) -> (usize, SocketAddr, String) {
            match self.next() {
                (shard, From::Listening(at, thread)) => (shard, at, thread),
                other => panic!("the first message is the address, not {other:?}"),
            }
        }

        fn stop(self) {
            for shard in self.shards {
                shard.mailbox.send(To::Stop).unwrap();
                shard.join().unwrap();
            }
        }
    }

    fn ping(to: SocketAddr) {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"ping").unwrap();
        let mut back = [0; 4];
        stream.read_exact(&mut back).unwrap();
        assert_eq!(&back, b"ping");
    }

    #[test]
    fn shards_serve_take_messages_and_end() {
        let stage = Stage::new(2);
        let addresses = [stage.listening(), stage.listening()];
        for (shard, at, _) in addresses {
            for n in 0..10 {
                ping(at);
                stage.shards[shard].mailbox.send(To::Echo(n)).unwrap();
                assert_eq!(stage.next(), (shard, From::Echo(n)));
            }
        }
        stage.stop();
    }

    #[test]
    fn a_parked_shard_sleeps_and_is_woken_by_sockets_and_by_messages() {
        let stage = Stage::new(1);
        let (_, at, thread) = stage.listening();
        for n in 0..3 {
            assert_eq!(
                wakeups_in_quiet(&thread, &stage.woken),
                0,
                "an idle shard wakes up"
            );
            if n % 2 == 0 {
                ping(at);
            }
            stage.shards[0].mailbox.send(To::Echo(n)).unwrap();
            assert_eq!(stage.next(), (0, From::Echo(n)));
        }
        stage.stop();
    }

    #[test]
    fn a_ring_that_cannot_be_made_is_an_error_and_leaves_no_shard() {
        let places = [0, 1].map(|index| placement::Shard { index, cpu: None });
        let notify: Arc<dyn Fn() + Send + Sync> = Arc::new(|| ());
        let plan = RingPlan {
            cq_entries: 1,
            ..RingPlan::default()
        };
        let error = spawn_shards(&places, &plan, &notify, &body).unwrap_err();
        assert!(matches!(error, ShardError::Ring(_)), "{error}");
    }

    /// Times the shard's thread went to sleep within half a second, once it has settled. The trim
    /// after five seconds is allowed to come once.
    fn wakeups_in_quiet(thread: &str, woken: &mpsc::Receiver<()>) -> u64 {
        let end = Instant::now() + PATIENCE;
        loop {
            let before = sleeps(thread);
            let _ = woken.recv_timeout(Duration::from_millis(500));
            let slept = sleeps(thread) - before;
            if slept == 0 || Instant::now() > end {
                return slept;
            }
        }
    }

    fn sleeps(thread: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{thread}/status")).unwrap();
        let line = status
            .lines()
            .find(|line| line.starts_with("voluntary_ctxt_switches"));
        line.unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap()
    }
}
