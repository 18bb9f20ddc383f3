//! A connection that carries lanes: its task moves bytes between it and [`Core`].

use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use super::core::{Core, Side};
use super::frame::FrameFault;
use super::lane::TrunkLane;
use crate::http2::Pings;
use crate::ring::{ByteStream, Out, Ring, Sleep};
use crate::time::Mono;
use crate::tls::TlsStream;

/// How often a buffer is asked for when the pool is empty, milliseconds.
const BUFFER_RETRY_MS: u64 = 1;
/// For the last words of a connection, milliseconds.
const GOODBYE_MS: u64 = 1_000;

/// One connection with its lanes. Whoever makes it lets [`Trunk::carry`] run; without lanes for a while
/// that ends the connection.
pub struct Trunk {
    ring: Ring,
    connection: Box<TlsStream>,
    core: RefCell<Core>,
    /// Of the task that carries it.
    waker: RefCell<Option<Waker>>,
    /// When bytes were received last.
    heard: Cell<Mono>,
    /// A look at whether the peer still lives is due at some time.
    watched: Cell<bool>,
}

/// Why a trunk ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrunkEnd {
    /// Its time was over, or the peer closed it, or it broke.
    Closed,
    /// The peer said nothing for too long, not even to a PING.
    Silent,
    /// The peer broke the protocol.
    Fault(FrameFault),
}

/// When a trunk has to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Without a lane for so long it is closed, milliseconds.
    pub idle_ms: u64,
    /// When the peer is asked whether it lives, while lanes wait for it.
    pub pings: Pings,
}

impl Trunk {
    /// As the side that opens lanes.
    #[must_use]
    pub fn opener(ring: &Ring, connection: Box<TlsStream>) -> Rc<Self> {
        Self::new(ring, connection, Side::Opener)
    }

    /// As the side that is asked to carry lanes.
    #[must_use]
    pub fn answerer(ring: &Ring, connection: Box<TlsStream>) -> Rc<Self> {
        Self::new(ring, connection, Side::Answerer)
    }

    fn new(ring: &Ring, connection: Box<TlsStream>, side: Side) -> Rc<Self> {
        Rc::new(Self {
            ring: ring.clone(),
            connection,
            core: RefCell::new(Core::new(side, ring.now())),
            waker: RefCell::default(),
            heard: Cell::new(ring.now()),
            watched: Cell::new(false),
        })
    }

    /// The connection, and who is at its other end.
    #[must_use]
    pub fn connection(&self) -> &TlsStream {
        &self.connection
    }

    /// Lanes that can be opened now.
    #[must_use]
    pub fn room(&self) -> usize {
        self.core().room()
    }

    /// Opens a lane; `None` if there is no room.
    #[must_use]
    pub fn open(self: &Rc<Self>) -> Option<TrunkLane> {
        let id = self.core().open()?;
        self.watch();
        Some(TrunkLane::new(self, id))
    }

    /// Whether it will never have room again.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        let core = self.core();
        core.is_over() || core.has_said_last() || core.has_heard_last()
    }

    /// No lane is opened from here on; those that are go on.
    pub fn say_last(&self) {
        if self.core().say_last() {
            self.wake();
        }
    }

    /// Lanes the peer has reset while their answer was under way, since this was asked last.
    #[must_use]
    pub fn take_cancelled(&self) -> u32 {
        std::mem::take(&mut self.core().cancelled)
    }

    pub(super) fn core(&self) -> RefMut<'_, Core> {
        self.core.borrow_mut()
    }

    pub(super) fn ring(&self) -> &Ring {
        &self.ring
    }

    /// Has the task look if there is something to send.
    pub(super) fn stir(&self) {
        if self.core().has_output() {
            self.wake();
        }
    }

    /// Has the task watch whether the peer lives, from now on.
    pub(super) fn watch(&self) {
        if !self.watched.get() {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// Carries the connection to its end. `look` is asked whenever something has happened, and to leave a
    /// waker where it wants to be asked again; `opened` gets the lanes that the peer opens.
    pub async fn carry(
        self: &Rc<Self>,
        patience: Patience,
        mut look: impl FnMut(&mut Context<'_>),
        mut opened: impl FnMut(TrunkLane),
    ) -> TrunkEnd {
        let mut reading = pin!(self.read());
        let mut writing = pin!(self.write());
        let mut idle = pin!(self.ring.sleep_until(Mono::NEVER));
        let mut watch = pin!(self.ring.sleep_until(Mono::NEVER));
        let mut idle_from = None;
        let mut asked_at = None;
        let end = poll_fn(|cx| {
            self.leave_waker(cx);
            look(cx);
            if let Poll::Ready(end) = reading.as_mut().poll(cx) {
                return Poll::Ready(end);
            }
            while let Some(id) = self.accept() {
                opened(TrunkLane::new(self, id));
            }
            if self.core().take_unwatched() {
                self.ring.ended_unwatched();
            }
            if self.is_silent(patience.pings, &mut asked_at, watch.as_mut(), cx) {
                return Poll::Ready(TrunkEnd::Silent);
            }
            if writing.as_mut().poll(cx).is_ready() {
                return Poll::Ready(TrunkEnd::Closed);
            }
            match self.is_out_of_use(patience.idle_ms, &mut idle_from, idle.as_mut(), cx) {
                true => Poll::Ready(TrunkEnd::Closed),
                false => Poll::Pending,
            }
        })
        .await;
        let says_goodbye = end == TrunkEnd::Closed && !self.core().is_over();
        self.core().fail();
        self.ring.ended_unwatched();
        if says_goodbye {
            let goodbye = async {
                let _ = self.connection.flush().await;
                let _ = self.connection.shutdown_write().await;
            };
            let until = self.ring.now().plus_ms(GOODBYE_MS);
            let give_up = pin!(self.ring.sleep_until(until));
            let _ = crate::wait::or_timeout(goodbye, give_up).await;
        } else {
            self.connection.reset();
        }
        end
    }

    fn accept(&self) -> Option<super::LaneId> {
        self.core().accept()
    }

    fn leave_waker(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        match &mut *waker {
            Some(waker) => waker.clone_from(cx.waker()),
            None => *waker = Some(cx.waker().clone()),
        }
    }

    /// Receives until the connection ends.
    async fn read(&self) -> TrunkEnd {
        loop {
            match self.connection.recv().await {
                Ok(chunk) if !chunk.is_empty() => {
                    let now = self.ring.now();
                    self.heard.set(now);
                    if let Err(fault) = self.core().receive(chunk, &self.ring, now) {
                        return TrunkEnd::Fault(fault);
                    }
                }
                Ok(_) | Err(_) => return TrunkEnd::Closed,
            }
        }
    }

    /// Sends what is staged, whenever something is.
    async fn write(&self) -> io::Result<()> {
        loop {
            self.has_output().await;
            let out = self.core().take_output(&self.ring);
            if self.core().take_starved() {
                if out.is_empty() {
                    let until = self.ring.now().plus_ms(BUFFER_RETRY_MS);
                    self.ring.sleep_until(until).await;
                }
                self.core().wake_waiting();
            }
            self.push(out).await?;
        }
    }

    async fn push(&self, out: Out) -> io::Result<()> {
        let bytes = out.len();
        if bytes > 0 {
            self.connection.send(out).await?;
            self.core().pushed(bytes);
        }
        Ok(())
    }

    /// Waits until there is something to send, and then until every task that is ready now has had its
    /// turn: what they write leaves with it.
    async fn has_output(&self) {
        let mut yielded = false;
        poll_fn(|cx| {
            if !self.core().has_output() {
                return Poll::Pending;
            }
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await;
    }

    /// Whether the peer is given up. Nobody is asked, and no timer runs, while no lane waits for it.
    fn is_silent(
        &self,
        pings: Pings,
        asked_at: &mut Option<Mono>,
        mut watch: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> bool {
        let (now, heard) = (self.ring.now(), self.heard.get());
        if !self.watched.get() {
            if !self.core().is_busy() {
                return false;
            }
            // Busy from here on: a silence before does not count.
            self.heard.set(heard.max(now));
            self.watched.set(true);
            watch.as_mut().reset(now.plus_ms(pings.interval_ms));
        }
        loop {
            if watch.as_mut().poll(cx).is_pending() {
                return false;
            }
            *asked_at = asked_at.filter(|asked| heard <= *asked);
            if !self.core().is_busy() && asked_at.is_none() {
                self.watched.set(false);
                return false;
            }
            let due = match *asked_at {
                None => heard.plus_ms(pings.interval_ms),
                Some(asked) => asked.plus_ms(pings.timeout_ms),
            };
            if due > now {
                watch.as_mut().reset(due);
            } else if asked_at.is_some() {
                return true;
            } else {
                *asked_at = Some(now);
                self.core().ping = Some(0);
                watch.as_mut().reset(now.plus_ms(pings.timeout_ms));
            }
        }
    }

    /// Whether it has had no lane for too long, or will have none.
    fn is_out_of_use(
        &self,
        idle_ms: u64,
        idle_from: &mut Option<Mono>,
        mut idle: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> bool {
        let core = self.core();
        if core.has_lanes() {
            *idle_from = None;
            return false;
        }
        if core.is_last() && !core.has_output() {
            return true;
        }
        let from = *idle_from.get_or_insert(self.ring.now());
        idle.as_mut().reset(from.plus_ms(idle_ms));
        drop(core);
        idle.poll(cx).is_ready()
    }
}

impl fmt::Debug for Trunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trunk")
            .field("connection", &self.connection)
            .finish_non_exhaustive()
    }
}
