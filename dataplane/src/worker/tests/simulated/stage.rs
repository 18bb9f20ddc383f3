//! One worker in a simulated network, its clients and apps beside it on the same ring.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::super::talk::Simulated;
use crate::accept::Role;
use crate::exchange::ConnLimits;
use crate::ring::{ListenOptions, Listener, Network, Park, Ring, RingPlan, Socket, Weather};
use crate::shard::{Collected, FromShard, Mailbox, ToShard};
use crate::tables::testing::Draft;
use crate::time::Mono;
use crate::worker::{WorkerPlan, alone};

/// Where clients find the worker.
const WORKER: &str = "127.0.0.1:15001";
/// Simulated time within which everything has to come to an end that is not told to take longer.
const END: Duration = Duration::from_secs(600);
/// How often whoever waits for something looks, milliseconds of simulated time.
const LOOK_MS: u64 = 1_000;

/// One worker and its world.
pub(super) struct Stage {
    pub(super) ring: Ring,
    mailbox: Mailbox<ToShard>,
    collected: Collected<FromShard>,
    done: Rc<Cell<bool>>,
    lines: RefCell<Vec<serde_json::Value>>,
    figures: Cell<u32>,
}

/// A world by its seed; where `weather` is said, with faults.
pub(super) fn plan(seed: u64, weather: Option<Weather>) -> RingPlan {
    RingPlan {
        simulated: Some(seed),
        weather,
        // Every other world lends its bytes.
        zero_copy_min_bytes: (seed % 2 == 1).then_some(1),
        // A simulated network has no pipes.
        pipes_max: 0,
        ..RingPlan::default()
    }
}

impl Stage {
    /// An outbound worker.
    pub(super) fn set(plan: &RingPlan, draft: &Draft) -> Self {
        let at = WORKER.parse().unwrap();
        let worker_plan = WorkerPlan {
            seed: plan.simulated.unwrap_or_default(),
            ..alone::plan(Role::Outbound, at, ConnLimits::default())
        };
        let (mailbox, collected, vacancy) = alone::vacancy();
        let (ring, done) = vacancy.take(plan, worker_plan);
        let stage = Self {
            ring,
            mailbox,
            collected,
            done,
            lines: RefCell::default(),
            figures: Cell::new(0),
        };
        stage.tell(ToShard::LogSpare(Vec::new()));
        stage.await_word(|said| matches!(said, FromShard::Listening));
        stage.tell(ToShard::Config(Arc::new(draft.tables())));
        stage.await_word(|said| matches!(said, FromShard::InForce(_)));
        stage
    }

    pub(super) fn network(&self) -> Network {
        self.ring.network().expect("a simulated ring")
    }

    fn tell(&self, message: ToShard) {
        assert!(self.mailbox.send(message).is_ok(), "the worker has stopped");
    }

    fn await_word(&self, is_it: impl Fn(&FromShard) -> bool) {
        let mut heard = false;
        self.turn_until(END, || {
            self.hear(|said| heard |= is_it(said));
            heard
        });
    }

    /// Takes what the worker has said.
    fn hear(&self, mut look: impl FnMut(&FromShard)) {
        while let Some((_, said)) = self.collected.take() {
            look(&said);
            self.take(said);
        }
    }

    fn take(&self, said: FromShard) {
        match said {
            FromShard::Log(bytes) => {
                let text = std::str::from_utf8(&bytes).unwrap();
                let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
                self.lines.borrow_mut().extend(lines);
                self.tell(ToShard::LogSpare(bytes));
            }
            FromShard::Stats(_) | FromShard::Quiet => self.figures.set(self.figures.get() + 1),
            _ => {}
        }
    }

    /// Turns the ring until `done`.
    fn turn_until(&self, within: Duration, mut done: impl FnMut() -> bool) {
        let end = self.ring.now() + within;
        while !done() {
            assert!(self.ring.now() < end, "nothing came of it in {within:?}");
            // What is waited for may come without a completion.
            let soon = self.ring.now().plus_ms(LOOK_MS);
            let _ = self.ring.turn(Park::Until(soon.min(end)));
        }
    }

    /// Turns the ring until `task` has ended.
    pub(super) fn play<T: 'static>(
        &self,
        within: Duration,
        task: impl Future<Output = T> + 'static,
    ) -> T {
        let slot = Rc::new(RefCell::new(None));
        let result = Rc::clone(&slot);
        assert!(self.ring.spawn(async move {
            *result.borrow_mut() = Some(task.await);
        }));
        self.turn_until(within, || {
            self.hear(|_| ());
            slot.borrow().is_some()
        });
        slot.take().unwrap()
    }

    /// The access log so far.
    pub(super) fn log(&self) -> Vec<serde_json::Value> {
        // The lines follow the figures: the second figures follow the lines.
        self.figures.set(0);
        self.tell(ToShard::Collect);
        self.tell(ToShard::Collect);
        self.turn_until(END, || {
            self.hear(|_| ());
            self.figures.get() >= 2
        });
        self.lines.borrow().clone()
    }

    /// The worker is told to end, and nothing may be left: no connection, no operation, no buffer. Gives the
    /// history of the ring.
    pub(super) fn end(self) -> u64 {
        self.tell(ToShard::Drain);
        self.await_word(|said| matches!(said, FromShard::Drained));
        self.tell(ToShard::Stop);
        self.turn_until(END, || self.done.get());
        self.ring.close();
        // Closes go to the kernel with the turn behind them.
        self.turn_until(END, || {
            self.ring.conns() == 0 && self.network().links() == 0
        });
        assert_eq!(self.ring.blocks_out(), 0, "buffers are not back");
        self.network().history()
    }
}

/// Listens at `at` and hands each connection to `serve`.
pub(super) fn listen<F: Future<Output = ()> + 'static>(
    ring: &Ring,
    at: SocketAddr,
    mut serve: impl FnMut(Simulated) -> F + 'static,
) {
    let listener = Listener::bind(ring, at, &ListenOptions::default()).unwrap();
    let inner = ring.clone();
    assert!(ring.spawn(async move {
        while let Ok(socket) = listener.accept().await {
            assert!(inner.spawn(serve(Simulated::over(&inner, socket))));
        }
    }));
}

/// A client's connection to the worker.
pub(super) async fn client(ring: &Ring) -> Option<Simulated> {
    let socket = Socket::connect(ring, WORKER.parse().unwrap()).await.ok()?;
    Some(Simulated::over(ring, socket))
}

/// Lets time pass.
pub(super) async fn pause(ring: &Ring, time: Duration) {
    let at: Mono = ring.now() + time;
    ring.sleep_until(at).await;
}
