//! One thread, one ring, many connections: starts them, drives them, tells how it goes.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::Duration;

use ringmesh_dataplane::ring::{Park, Ring, RingPlan, monotonic};
use ringmesh_dataplane::time::Mono;

use super::schedule::Schedule;
use super::tally::Tally;
use super::tls::Client;
use crate::problem::Problem;

/// Connections being opened at a time: more would overflow the accept queue of many a server, and
/// a lost SYN costs a second.
const OPENING_MAX: u32 = 64;
/// How long answers may come after the end; what has not come by then counts as unanswered.
const DRAIN: Duration = Duration::from_secs(30);
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// What all connections of a load share.
#[derive(Debug)]
pub(super) struct Engine {
    pub(super) ring: Ring,
    pub(super) to: SocketAddr,
    /// Of a load over TLS.
    pub(super) client: Option<Client>,
    pub(super) tally: Tally,
    /// Connections whose opening has begun and not ended.
    opening: Cell<u32>,
    /// Connections that have not ended.
    live: Cell<u32>,
    /// Connections that are ready and stay so (idle mode).
    pub(super) held: Cell<u32>,
    /// Why nothing will ever be answered.
    pub(super) hopeless: RefCell<Option<String>>,
    /// Of an open loop.
    schedule: Option<RefCell<Schedule>>,
    /// Connections of an open loop that wait for a departure; the longest waiting first.
    idle: RefCell<VecDeque<Waker>>,
    /// The meant departure of each request on its way, to count those never answered.
    on_the_way: RefCell<Vec<Option<Mono>>>,
}

/// A connection's right to be opening; given back when dropped.
#[derive(Debug)]
pub(super) struct Opening(Rc<Engine>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.opening.set(self.0.opening.get() - 1);
    }
}

/// A request on its way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Departure {
    /// When it was meant to leave.
    pub(super) at: Mono,
}

impl Engine {
    /// `rate`: departures per second of an open loop; none for a closed one.
    pub(super) fn new(
        to: SocketAddr,
        client: Option<Client>,
        warmup: Duration,
        length: Duration,
        rate: Option<f64>,
    ) -> Result<Rc<Self>, Problem> {
        let ring = Ring::new(&RingPlan::default())?;
        let start = monotonic();
        let (from, until) = (start + warmup, start + warmup + length);
        Ok(Rc::new(Self {
            ring,
            to,
            client,
            tally: Tally::new(from, until),
            opening: Cell::new(0),
            live: Cell::new(0),
            held: Cell::new(0),
            hopeless: RefCell::default(),
            schedule: rate.map(|rate| RefCell::new(Schedule::new(start, until, rate))),
            idle: RefCell::default(),
            on_the_way: RefCell::default(),
        }))
    }

    /// Runs `connections` tasks made by `body` until they end or the time is over; `done` may end
    /// it earlier and is asked in every turn. `number` tells tasks apart.
    pub(super) fn drive<F>(
        self: &Rc<Self>,
        connections: u32,
        body: impl Fn(Rc<Self>, u32, Opening) -> F,
        mut tell: impl FnMut(&Self),
        done: impl Fn(&Self) -> bool,
    ) where
        F: Future<Output = ()> + 'static,
    {
        self.on_the_way
            .borrow_mut()
            .resize(connections as usize, None);
        let give_up = self.tally.until + DRAIN;
        let mut next_word = monotonic() + PROGRESS_EVERY;
        let mut started = 0;
        loop {
            while started < connections && self.opening.get() < OPENING_MAX {
                let task = body(Rc::clone(self), started, self.open());
                started += 1;
                self.start(task);
            }
            let now = monotonic();
            let hopeless = self.hopeless.borrow().is_some();
            if self.live.get() == 0 || now >= give_up || hopeless || done(self) {
                break;
            }
            if now >= next_word {
                tell(self);
                next_word = next_word + PROGRESS_EVERY;
            }
            let departure = self.dispatch(now);
            self.ring
                .turn(Park::Until(next_word.min(give_up).min(departure)));
        }
        self.count_unanswered();
        self.ring.close();
    }

    /// # Errors
    /// Why nothing would ever have been answered; the load was ended for that.
    pub(super) fn check_hope(&self) -> Result<(), Problem> {
        match self.hopeless.take() {
            Some(why) => Err(Problem::Yours(why)),
            None => Ok(()),
        }
    }

    fn open(self: &Rc<Self>) -> Opening {
        self.opening.set(self.opening.get() + 1);
        Opening(Rc::clone(self))
    }

    fn start(self: &Rc<Self>, task: impl Future<Output = ()> + 'static) {
        self.live.set(self.live.get() + 1);
        let this = Rc::clone(self);
        let started = self.ring.spawn(async move {
            task.await;
            this.live.set(this.live.get() - 1);
        });
        if !started {
            self.live.set(self.live.get() - 1);
            self.tally
                .failed("more connections than one ring takes (65,536)");
        }
    }

    /// Wakes a free connection per departure that is due; tells when to look again.
    fn dispatch(&self, now: Mono) -> Mono {
        let Some(schedule) = &self.schedule else {
            return Mono::NEVER;
        };
        let schedule = schedule.borrow();
        let mut idle = self.idle.borrow_mut();
        for _ in 0..schedule.waiting(now) {
            match idle.pop_front() {
                Some(waker) => waker.wake(),
                // The next connection to finish takes it itself.
                None => return Mono::NEVER,
            }
        }
        match schedule.next() {
            Some(next) if next > now => next,
            Some(_) => now,
            None => {
                idle.drain(..).for_each(Waker::wake);
                Mono::NEVER
            }
        }
    }

    /// The next request of connection `number`: at once in a closed loop, when it is due in an open
    /// one. `None` when the time is over.
    pub(super) async fn departure(&self, number: u32) -> Option<Departure> {
        let departure = match &self.schedule {
            None => {
                let at = monotonic();
                (at < self.tally.until).then_some(Departure { at })
            }
            Some(schedule) => {
                poll_fn(|cx| {
                    let mut schedule = schedule.borrow_mut();
                    if let Some(at) = schedule.take(monotonic()) {
                        return Poll::Ready(Some(Departure { at }));
                    }
                    if schedule.next().is_none() {
                        return Poll::Ready(None);
                    }
                    self.idle.borrow_mut().push_back(cx.waker().clone());
                    Poll::Pending
                })
                .await
            }
        };
        self.note(number, departure.map(|departure| departure.at));
        departure
    }

    /// The request of connection `number` was answered.
    pub(super) fn arrived(&self, number: u32, departure: Departure) {
        self.note(number, None);
        self.tally.answered(departure.at, monotonic());
    }

    /// The request of connection `number` failed; after a moment the next may be tried.
    pub(super) async fn failed(&self, number: u32, why: impl std::fmt::Display) {
        self.note(number, None);
        self.tally.failed(why);
        // A server that refuses everything must not make us spin.
        self.ring.sleep_until(self.ring.now().plus_ms(10)).await;
    }

    fn note(&self, number: u32, at: Option<Mono>) {
        if let Some(slot) = self.on_the_way.borrow_mut().get_mut(number as usize) {
            *slot = at;
        }
    }

    /// Requests on their way, and those of an open loop that never found a connection, took at
    /// least until now.
    fn count_unanswered(&self) {
        let now = monotonic();
        let on_the_way = self.on_the_way.borrow_mut().drain(..).flatten().collect();
        let mut lost: Vec<Mono> = on_the_way;
        if let Some(schedule) = &self.schedule {
            let mut schedule = schedule.borrow_mut();
            lost.extend(std::iter::from_fn(|| schedule.take(now)));
        }
        for _ in 0..self.opening.get() {
            self.tally
                .failed("a connection was still being opened at the end");
        }
        for at in lost {
            self.tally.unanswered(at, now);
            self.tally.failed("requests were not answered in time");
        }
    }
}
