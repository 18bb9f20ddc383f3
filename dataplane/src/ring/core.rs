//! One ring's state, and the turn that drives it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::num::NonZeroU32;
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use crate::time::Mono;

use super::arena::{Arena, Key};
use super::bell::Bell;
use super::buf::Buf;
use super::chunk::Chunk;
use super::conn::Conn;
use super::ends::Ends;
use super::error::RingError;
use super::foreign::NextPort;
use super::groups::{Group, Size};
use super::in_flight::Op;
use super::kernel::{Completion, Wait};
use super::loan::Loan;
use super::pipe::{Pipe, Pipes};
use super::plan::{Picked, RingPlan, SendZc};
use super::pool::Pool;
use super::prefetch;
use super::tasks::Tasks;
use super::wheel::{Tick, Wheel};
use super::zero_copy::ZeroCopy;
use super::{Kernel, Park, Turn};

/// Output buffers: an HTTP head with all its additions, or a TLS record.
const BUF_BYTES: u32 = 16 * 1024;
/// Of what was received, so much is looked at first, if there is more.
const HEAD_BYTES_USUAL: usize = 512;
/// Completions taken from the queue at a time.
const BATCH: usize = 256;
/// Tasks polled in one turn before the kernel gets what they queued.
const POLLS_PER_TURN: u32 = 1024;
/// Longest wait for more than one completion, milliseconds: a send that was taken for one that ends
/// at once, and does not, delays others by no more than this.
const NEWS_PATIENCE_MS: u64 = 4;
/// A turn with at most so many completions is a light one: the shard mostly sleeps.
const LIGHT_COMPLETIONS_MAX: u32 = 4;
/// Boxes for sends kept for reuse; more are in flight only in a burst.
const LOANS_KEPT: usize = 1024;
const NS_PER_TICK: u64 = 1_000_000;

/// One ring's state. Fields are dropped in order: the kernel's side goes first.
pub(super) struct Core {
    pub(super) kernel: Kernel,
    pub(super) ops: RefCell<Arena<Op>>,
    tasks: Tasks,
    wheel: RefCell<Wheel<Due>>,
    /// Fired timers, between the wheel and their owners.
    due: RefCell<Vec<Due>>,
    batch: RefCell<Vec<Completion>>,
    #[expect(
        clippy::vec_box,
        reason = "the kernel points into a loan while its box moves"
    )]
    loans: RefCell<Vec<Box<Loan>>>,
    heads: Group,
    bulk: Group,
    bufs: Rc<Pool>,
    pipes: Rc<Pipes>,
    pub(super) zero_copy: ZeroCopy,
    pub(super) bell: Arc<Bell>,
    /// Times the bell was answered, and who waits for the next.
    rung: Cell<u64>,
    rung_wakers: RefCell<Vec<Waker>>,
    pub(super) ends: Ends,
    pub(super) conns: Cell<u32>,
    pub(super) next_port: NextPort,
    now: Cell<Mono>,
    /// Number of this turn, by which a send knows that it ended in the one it was submitted in.
    turn: Cell<NonZeroU32>,
    /// Sends queued in this turn that nobody waits for and that will, by all experience, be done when
    /// the kernel has taken them. Their completions are no reason to wake up.
    no_news: Cell<u32>,
    /// Completions of this turn.
    reaped: Cell<u32>,
    pub(super) plan: RingPlan,
    #[cfg(test)]
    pub(super) faults: super::faults::Faults,
}

/// What a timer does.
#[derive(Debug)]
enum Due {
    Wake(Waker),
    /// Give up on what a connection sends whose socket is gone.
    Linger(Weak<Conn>),
}

impl Core {
    pub(super) fn new(plan: &RingPlan, bell: Arc<Bell>) -> Result<Rc<Self>, RingError> {
        let kernel = Kernel::new(plan)?;
        let heads = Group::new(&kernel, Size::Heads, plan)?;
        let bulk = Group::new(&kernel, Size::Bulk, plan)?;
        let bufs = Pool::listed(plan.bufs_max, BUF_BYTES)
            .map_err(|error| RingError::at("mmap of output buffers", error))?;
        let now = kernel.clock();
        let core = Rc::new(Self {
            kernel,
            ops: RefCell::new(Arena::new()),
            tasks: Tasks::new(bell.number(), plan.tasks_max),
            wheel: RefCell::new(Wheel::new(now.0 / NS_PER_TICK)),
            due: RefCell::new(Vec::new()),
            batch: RefCell::new(Vec::with_capacity(BATCH)),
            loans: RefCell::new(Vec::new()),
            heads,
            bulk,
            bufs,
            pipes: Pipes::new(plan.pipes_max),
            zero_copy: ZeroCopy::off(),
            bell,
            rung: Cell::new(0),
            rung_wakers: RefCell::new(Vec::new()),
            ends: Ends::default(),
            conns: Cell::new(0),
            next_port: NextPort::new(fastrand::u64(..)),
            now: Cell::new(now),
            turn: Cell::new(NonZeroU32::MIN),
            no_news: Cell::new(0),
            reaped: Cell::new(0),
            plan: plan.clone(),
            #[cfg(test)]
            faults: super::faults::Faults::new(plan.weather),
        });
        core.probe_recv()?;
        if let Some(from_bytes) = plan.zero_copy_min_bytes {
            core.start_zero_copy(from_bytes)?;
        }
        core.submit_bell();
        Ok(core)
    }

    pub(super) fn picked(&self) -> Picked {
        self.kernel.picked()
    }

    pub(super) fn now(&self) -> Mono {
        self.now.get()
    }

    pub(super) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(super) fn group(&self, size: Size) -> &Group {
        match size {
            Size::Heads => &self.heads,
            Size::Bulk => &self.bulk,
        }
    }

    pub(super) fn buf(&self) -> Option<Buf> {
        Buf::take(&self.bufs)
    }

    /// Output buffers in use.
    #[cfg(test)]
    pub(super) fn bufs_out(&self) -> u32 {
        self.bufs.out()
    }

    /// An empty pipe; `None` when all are in use.
    pub(super) fn pipe(&self) -> Option<Pipe> {
        #[cfg(test)]
        if self.faults.no_pipe() {
            return None;
        }
        self.pipes.take()
    }

    /// The chunk a receive has filled; empty if it brought nothing.
    pub(super) fn filled(&self, size: Size, done: Completion) -> Chunk {
        let Some(block) = done.block() else {
            return Chunk::empty();
        };
        let pool = self.group(size).pool();
        let block = u32::from(block);
        pool.adopt(block);
        Chunk::from_block(Rc::clone(pool), block, done.result.max(0) as u32)
    }

    pub(super) fn loan(&self) -> Box<Loan> {
        self.loans.borrow_mut().pop().unwrap_or_else(Loan::new)
    }

    pub(super) fn take_back(&self, mut loan: Box<Loan>) {
        loan.unload();
        let mut loans = self.loans.borrow_mut();
        if loans.len() < LOANS_KEPT {
            loans.push(loan);
        }
    }

    // Timers.

    pub(super) fn wake_at(&self, at: Mono, waker: Waker) -> Key {
        let tick = at.0.div_ceil(NS_PER_TICK);
        self.wheel.borrow_mut().insert(tick, Due::Wake(waker))
    }

    /// Changes whom a timer wakes; `false` if it has fired.
    pub(super) fn rewake(&self, timer: Key, waker: &Waker) -> bool {
        match self.wheel.borrow_mut().get_mut(timer) {
            Some(Due::Wake(old)) => {
                old.clone_from(waker);
                true
            }
            _ => false,
        }
    }

    pub(super) fn forget_timer(&self, timer: Key) {
        self.wheel.borrow_mut().remove(timer);
    }

    /// A timer that gives up on what a connection sends after the plan's linger time.
    pub(super) fn linger(&self, conn: &Rc<Conn>) -> Key {
        let at = self.now().plus_ms(self.plan.linger_ms);
        let tick = at.0.div_ceil(NS_PER_TICK);
        let due = Due::Linger(Rc::downgrade(conn));
        self.wheel.borrow_mut().insert(tick, due)
    }

    // The bell.

    pub(super) fn rung(&self) -> u64 {
        self.rung.get()
    }

    pub(super) fn wake_when_rung(&self, waker: &Waker) {
        let mut wakers = self.rung_wakers.borrow_mut();
        if !wakers.iter().any(|other| other.will_wake(waker)) {
            wakers.push(waker.clone());
        }
    }

    // The turn.

    pub(super) fn turn(&self, park: Park) -> Turn {
        // Before the sleep: a buffer that a task let go may be all that a paused socket waits for.
        self.resume(Size::Heads);
        self.resume(Size::Bulk);
        let no_news = self.no_news.take();
        self.kernel.turn(self.wait(park, no_news), no_news + 1);
        self.now.set(self.kernel.clock());
        let completions = self.reap();
        self.reaped.set(completions);
        self.heads.look();
        self.bulk.look();
        let next = self.turn.get().checked_add(1);
        self.turn.set(next.unwrap_or(NonZeroU32::MIN));
        self.fire();
        let polls = self.tasks.run(POLLS_PER_TURN);
        Turn {
            completions,
            polls,
            ready: self.tasks.ready().len() as u32,
        }
    }

    fn wait(&self, park: Park, no_news: u32) -> Wait {
        let until = match park {
            Park::No => return Wait::No,
            _ if self.tasks.ready().len() > 0 => return Wait::No,
            #[cfg(test)]
            _ if self.faults.holding() => return Wait::No,
            Park::Free => Mono::NEVER,
            Park::Until(at) => at,
        };
        let until = until.min(self.next_timer());
        if until == Mono::NEVER && no_news == 0 {
            return Wait::Forever;
        }
        let now = self.kernel.clock();
        let until = match no_news {
            0 => until,
            _ => until.min(now.plus_ms(NEWS_PATIENCE_MS)),
        };
        let span = until.since(now);
        if span == Duration::ZERO {
            Wait::No
        } else {
            Wait::AtMost(span)
        }
    }

    /// Counts an operation of this turn whose completion will come at once and change nothing. Tells the
    /// turn's number.
    pub(super) fn expect_no_news(&self) -> NonZeroU32 {
        self.no_news.set(self.no_news.get() + 1);
        self.turn.get()
    }

    /// Takes one back that was counted in this turn.
    pub(super) fn expect_news(&self) {
        self.no_news.set(self.no_news.get().saturating_sub(1));
    }

    /// The number of this turn.
    pub(super) fn turn_number(&self) -> NonZeroU32 {
        self.turn.get()
    }

    /// Gives the kernel what is queued now if this turn is a light one, see [`Ring::hurry`](super::Ring::hurry).
    pub(super) fn hurry(&self) {
        if self.reaped.get() <= LIGHT_COMPLETIONS_MAX {
            self.kernel.submit();
        }
    }

    /// When the wheel wants to be looked at; `NEVER` without timers.
    fn next_timer(&self) -> Mono {
        at_tick(self.wheel.borrow().next())
    }

    /// When the earliest timer is due; `NEVER` without timers.
    pub(super) fn earliest_timer(&self) -> Mono {
        at_tick(self.wheel.borrow().earliest())
    }

    /// Handles all completions posted so far.
    fn reap(&self) -> u32 {
        let mut total = 0;
        loop {
            let mut batch = self.batch.take();
            self.kernel.reap(&mut batch, BATCH);
            let count = batch.len();
            #[cfg(test)]
            self.faults.stir(&mut batch);
            self.fetch_ahead(&batch);
            for done in batch.drain(..) {
                self.complete(done);
            }
            self.batch.replace(batch);
            total += count as u32;
            if count < BATCH {
                return total;
            }
        }
    }

    /// What a completion is about was last touched a whole turn ago: with many connections it is in no
    /// near cache any more. Fetched for the whole batch, it comes while others are being handled.
    fn fetch_ahead(&self, batch: &[Completion]) {
        let ops = self.ops.borrow();
        for done in batch {
            match super::token::decode(done.user_data).and_then(|key| ops.get(key)) {
                Some(Op::Recv(conn, size)) => {
                    prefetch::fetch(&**conn);
                    if let Some(block) = done.block() {
                        let bytes = (done.result.max(0) as usize).min(HEAD_BYTES_USUAL);
                        self.group(*size).pool().fetch(u32::from(block), bytes);
                    }
                }
                Some(Op::Send(conn, loan)) => {
                    prefetch::fetch(&**conn);
                    loan.fetch();
                }
                _ => {}
            }
        }
    }

    fn complete(&self, done: Completion) {
        let Some(key) = super::token::decode(done.user_data) else {
            return;
        };
        let op = if done.more() {
            let shared = self.ops.borrow().get(key).and_then(Op::share);
            if shared.is_none() && self.taken(key, done.result) {
                return;
            }
            shared
        } else {
            self.ops.borrow_mut().remove(key)
        };
        match op {
            Some(Op::Recv(conn, size)) => conn.received(size, done),
            Some(Op::Send(conn, loan)) => conn.sent(loan, done.result),
            Some(Op::Lent(lent)) => self.given_back(lent, done),
            Some(Op::Connect(connecting)) => connecting.completed(done.result),
            Some(Op::Accept(gate)) => gate.accepted(done),
            Some(Op::Poll(watch)) => watch.completed(done.result),
            Some(Op::Bell) => self.answer_bell(done.more()),
            None => panic!("a completion for an operation that is not in flight: {done:?}"),
        }
    }

    fn answer_bell(&self, more: bool) {
        if !more {
            self.submit_bell();
        }
        self.bell.answer();
        self.rung.set(self.rung.get() + 1);
        let mut wakers = self.rung_wakers.take();
        for waker in wakers.drain(..) {
            waker.wake();
        }
        self.rung_wakers.replace(wakers);
        while let Some(mark) = self.bell.next_mark() {
            self.tasks.ready().wake(mark);
        }
        if self.bell.take_overrun() {
            self.tasks.ready().wake_all();
        }
    }

    /// Lets paused sockets receive again, as many as buffers came home.
    fn resume(&self, size: Size) {
        let group = self.group(size);
        let mut resumed = 0;
        while let Some(conn) = group.resume(resumed) {
            conn.resume_recv();
            resumed += 1;
        }
    }

    fn fire(&self) {
        let tick = self.now().0 / NS_PER_TICK;
        let mut due = self.due.take();
        self.wheel
            .borrow_mut()
            .expire(tick, |fired| due.push(fired));
        for fired in due.drain(..) {
            match fired {
                Due::Wake(waker) => waker.wake(),
                Due::Linger(conn) => {
                    if let Some(conn) = conn.upgrade() {
                        conn.give_up_sending();
                    }
                }
            }
        }
        self.due.replace(due);
    }

    /// Ends everything: tasks are dropped, operations cancelled and waited for. Without it, what is
    /// in flight keeps this ring alive (by design: its memory is lent).
    pub(super) fn close_all(&self) {
        self.tasks.clear();
        let patience = self.kernel.clock().plus_ms(CLOSE_PATIENCE_MS);
        loop {
            let keys: Vec<Key> = {
                let ops = self.ops.borrow();
                let live = (0..ops.slots()).filter_map(|index| ops.key_at(index));
                live.filter(|key| !matches!(ops.get(*key), Some(Op::Bell)))
                    .collect()
            };
            if keys.is_empty() || self.kernel.clock() > patience {
                return;
            }
            for key in keys {
                let lent = match self.ops.borrow().get(key) {
                    Some(Op::Lent(lent)) => lent.conn(),
                    _ => None,
                };
                match lent {
                    // The kernel goes on sending after the close.
                    Some(conn) => conn.let_go(),
                    None => self.cancel(key),
                }
            }
            self.turn(Park::Until(self.kernel.clock().plus_ms(10)));
        }
    }

    /// Gives memory of unused buffers back to the system. For quiet moments.
    pub(super) fn trim(&self) {
        self.bufs.trim();
        self.pipes.trim();
        #[cfg(test)]
        if self.faults.holding() {
            return;
        }
        // A block the kernel has filled and we have not reaped looks free.
        if self.kernel.all_posted_is_reaped() {
            self.heads.pool().trim();
            self.bulk.pool().trim();
        }
        self.loans.borrow_mut().truncate(8);
        give_back_heap();
    }

    /// Finds out whether multishot receive and its byte limit are there, by trying: a limited
    /// receive on a socket whose peer has left ends at once.
    fn probe_recv(&self) -> Result<(), RingError> {
        for limit in [true, false] {
            if self.try_recv_with(limit)? {
                self.kernel.set_recv_limit(limit);
                return Ok(());
            }
        }
        Err(RingError::TooOld("multishot receive"))
    }

    /// Begins with sends without a copy, where the kernel has them and says whether they copied.
    fn start_zero_copy(&self, from_bytes: u32) -> Result<(), RingError> {
        let has = self.kernel.has_send_zc() && self.try_send_zc()?;
        if has {
            self.zero_copy.start(from_bytes);
            self.kernel.set_send_zc(SendZc::From(from_bytes));
        } else {
            self.kernel.set_send_zc(SendZc::Missing);
        }
        Ok(())
    }

    /// Fails one way or the other; only a kernel that does not know the report says EINVAL.
    fn try_send_zc(&self) -> Result<bool, RingError> {
        let socket = dead_socket().map_err(|error| RingError::at("socketpair", error))?;
        let entry = super::submit::probe_send_zc(&socket);
        // SAFETY: the byte is static, and `socket` is closed after the first completion below.
        unsafe { self.kernel.push(entry) };
        let mut done = Vec::new();
        for _ in 0..PROBE_TURNS {
            self.kernel.turn(Wait::AtMost(Duration::from_millis(10)), 1);
            self.kernel.reap(&mut done, BATCH);
            if let Some(done) = done.iter().find(|done| !done.is_notification()) {
                return Ok(done.result != -libc::EINVAL);
            }
        }
        Ok(false)
    }

    fn try_recv_with(&self, limit: bool) -> Result<bool, RingError> {
        let socket = dead_socket().map_err(|error| RingError::at("socketpair", error))?;
        let entry = super::submit::probe_recv(&socket, limit);
        // SAFETY: no memory is named, nothing will arrive that could fill a block, and `socket` is
        // closed after the completion below.
        unsafe { self.kernel.push(entry) };
        let mut done = Vec::new();
        for _ in 0..PROBE_TURNS {
            self.kernel.turn(Wait::AtMost(Duration::from_millis(10)), 1);
            self.kernel.reap(&mut done, BATCH);
            if let Some(done) = done.first() {
                return Ok(done.result != -libc::EINVAL);
            }
        }
        Err(RingError::TooOld("multishot receive that ends"))
    }
}

fn at_tick(tick: Option<Tick>) -> Mono {
    tick.map_or(Mono::NEVER, |tick| Mono(tick.saturating_mul(NS_PER_TICK)))
}

/// Turns of ten milliseconds in which a tried operation has to end.
const PROBE_TURNS: u32 = 100;
/// How long closing waits for cancelled operations.
const CLOSE_PATIENCE_MS: u64 = 2000;

/// Returns free pages of the heap to the system: boxes of connections that are idle now leave holes
/// that the allocator keeps otherwise.
fn give_back_heap() {
    #[cfg(target_env = "gnu")]
    {
        // SAFETY: takes the allocator's own locks and touches free memory only.
        unsafe { libc::malloc_trim(0) };
    }
}

/// A socket whose peer is closed.
fn dead_socket() -> std::io::Result<OwnedFd> {
    let (here, there) = std::os::unix::net::UnixStream::pair()?;
    drop(there);
    Ok(here.into())
}

impl Drop for Core {
    fn drop(&mut self) {
        // Closes that are still queued must reach the kernel.
        self.kernel.submit();
    }
}

impl fmt::Debug for Core {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Core")
            .field("kernel", &self.kernel)
            .field("tasks", &self.tasks)
            .field("conns", &self.conns.get())
            .finish_non_exhaustive()
    }
}
