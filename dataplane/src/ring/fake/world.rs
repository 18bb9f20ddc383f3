//! The world behind a fake kernel: its time, what will happen when, and what was told.
//!
//! Time moves only while the ring waits, straight to what happens next. What takes how long is drawn
//! from the seed, so one seed is one history.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::hash::Hasher;
use std::os::fd::RawFd;

use xxhash_rust::xxh3::Xxh3;

use super::blocks::Blocks;
use super::doors::Door;
use super::entry::{Asked, What};
use super::links::{Link, Side};
use crate::ring::kernel::{Completion, Wait};
use crate::time::Mono;

/// What passes at the least between two looks at the clock, nanoseconds: whoever turns without waiting gets on.
const STEP_NS: u64 = 1_000;

pub(super) struct World {
    now: Mono,
    pub(super) rng: fastrand::Rng,
    /// What happens when; of one moment in the order in which it was caused.
    to_come: BTreeMap<(Mono, u64), Event>,
    causes: u64,
    /// Completions on their way, which the ring cannot have seen.
    on_their_way: usize,
    posted: VecDeque<Completion>,
    /// When the last completion of an operation that goes on is told: the next one is not told before.
    told_last: BTreeMap<u64, Mono>,
    history: Xxh3,
    pub(super) ops: BTreeMap<u64, Place>,
    pub(super) groups: BTreeMap<u16, Blocks>,
    pub(super) links: BTreeMap<u64, Link>,
    pub(super) next_link: u64,
    /// The last port given to a listener that asked for any.
    pub(super) next_port: u16,
    pub(super) ends: BTreeMap<RawFd, End>,
    pub(super) doors: BTreeMap<RawFd, Door>,
    bell: Option<Bell>,
}

/// One end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct End {
    pub(super) link: u64,
    pub(super) side: Side,
}

impl End {
    pub(super) fn other(self) -> Self {
        Self {
            link: self.link,
            side: self.side.other(),
        }
    }
}

/// Where an operation under way is to be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Accept(RawFd),
    Connect(u64),
    Recv(End),
    Send(End),
    Poll(End),
}

/// What comes to pass at some time.
#[derive(Debug)]
pub(super) enum Event {
    Told(Completion),
    /// A connection arrives where it was meant to.
    Knock {
        link: u64,
    },
    /// The client hears what became of it.
    Answer {
        link: u64,
        result: i32,
    },
    Bytes {
        to: End,
        bytes: Vec<u8>,
    },
    Fin {
        to: End,
    },
    Reset {
        to: End,
    },
    /// The receiver has taken something.
    Room {
        of: End,
    },
    /// The bytes of a send without a copy are read no more.
    GivenBack {
        user_data: u64,
        lent: super::links::Lent,
    },
}

/// The poll of the ring's own eventfd, the one thing of the real world in here.
#[derive(Debug, Clone, Copy)]
struct Bell {
    fd: RawFd,
    user_data: u64,
    told: bool,
}

/// `IORING_CQE_F_BUFFER` and its block, `_MORE`, `_NOTIF`.
pub(super) fn block_flag(number: u16) -> u32 {
    1 | u32::from(number) << 16
}
pub(super) const MORE: u32 = 1 << 1;
pub(super) const NOTIFICATION: u32 = 1 << 3;

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            // Not zero: a machine is never that young.
            now: Mono(1_000_000_000_000),
            rng: fastrand::Rng::with_seed(seed),
            to_come: BTreeMap::new(),
            causes: 0,
            on_their_way: 0,
            posted: VecDeque::new(),
            told_last: BTreeMap::new(),
            history: Xxh3::new(),
            ops: BTreeMap::new(),
            groups: BTreeMap::new(),
            links: BTreeMap::new(),
            next_link: 0,
            next_port: 1_000,
            ends: BTreeMap::new(),
            doors: BTreeMap::new(),
            bell: None,
        }
    }

    pub(super) fn now(&self) -> Mono {
        self.now
    }

    /// What was told so far and when, as one number.
    pub(super) fn history(&self) -> u64 {
        self.history.digest()
    }

    /// Nothing was posted, or is on its way, that was not reaped.
    pub(super) fn all_told(&self) -> bool {
        self.posted.is_empty() && self.on_their_way == 0
    }

    // What will happen.

    /// How long something takes on the way, nanoseconds: mostly as in a rack, now and then as in a bad network.
    pub(super) fn way(&mut self) -> u64 {
        match self.rng.u8(..) {
            ..4 => self.rng.u64(1_000_000..20_000_000),
            _ => self.rng.u64(5_000..300_000),
        }
    }

    pub(super) fn at(&mut self, at: Mono, event: Event) {
        self.causes += 1;
        self.to_come.insert((at, self.causes), event);
    }

    pub(super) fn after(&mut self, ns: u64, event: Event) {
        self.at(Mono(self.now.0 + ns), event);
    }

    /// Tells a completion soon; those of one operation in their order, those of several in any.
    pub(super) fn tell(&mut self, user_data: u64, result: i32, flags: u32) {
        let late = match self.rng.u8(..8) {
            0 => self.rng.u64(..100_000),
            _ => self.rng.u64(..2_000),
        };
        let before = self.told_last.get(&user_data).copied().unwrap_or_default();
        let at = Mono(self.now.0 + late).max(before);
        if flags & MORE != 0 {
            self.told_last.insert(user_data, at);
        } else {
            self.told_last.remove(&user_data);
        }
        self.on_their_way += 1;
        let done = Completion::posted(user_data, result, flags);
        self.at(at, Event::Told(done));
    }

    /// Ends an operation.
    pub(super) fn finish(&mut self, user_data: u64, result: i32) {
        self.ops.remove(&user_data);
        self.tell(user_data, result, 0);
    }

    // What the ring does.

    /// Takes in submissions, then lets time pass until `least` completions wait or `wait` is over.
    ///
    /// # Panics
    /// If the wait would never end.
    pub(super) fn enter(&mut self, asked: Vec<Asked>, wait: Wait, least: usize) {
        self.now.0 += STEP_NS;
        for one in asked {
            self.begin(one);
        }
        self.happen_until_now();
        let until = match wait {
            Wait::No => return,
            Wait::AtMost(span) => self.now + span,
            Wait::Forever => Mono::NEVER,
        };
        while self.posted.len() < least {
            match self.to_come.first_key_value() {
                Some((&(at, _), _)) if at <= until => self.now = self.now.max(at),
                _ if until == Mono::NEVER => {
                    panic!("the ring waits for what will never happen: {self:?}")
                }
                _ => {
                    self.now = until;
                    return;
                }
            }
            self.happen_until_now();
        }
    }

    fn happen_until_now(&mut self) {
        while let Some(first) = self.to_come.first_entry()
            && first.key().0 <= self.now
        {
            let event = first.remove();
            self.happen(event);
        }
        self.look_at_bell();
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Told(done) => {
                self.on_their_way -= 1;
                self.posted.push_back(done);
            }
            Event::Knock { link } => self.knock(link),
            Event::Answer { link, result } => self.answer(link, result),
            Event::Bytes { to, bytes } => self.arrive(to, &bytes),
            Event::Fin { to } => self.hear_fin(to),
            Event::Reset { to } => self.hear_reset(to),
            Event::Room { of } => self.send_on(of),
            Event::GivenBack { user_data, lent } => self.give_back(user_data, &lent),
        }
    }

    pub(super) fn reap(&mut self, into: &mut Vec<Completion>, most: usize) {
        let count = most.min(self.posted.len());
        for done in self.posted.drain(..count) {
            if let Some(bell) = &mut self.bell
                && bell.user_data == done.user_data
            {
                bell.told = false;
            }
            // A descriptor's number is not of this world.
            let accepted = done.result > 2 && done.block().is_none() && done.more();
            let result = if accepted { 0 } else { done.result };
            self.history.write_u64(self.now.0);
            self.history.write_u64(done.user_data);
            self.history.write_i32(result);
            into.push(done);
        }
    }

    fn begin(
        &mut self,
        Asked {
            user_data,
            quiet,
            what,
        }: Asked,
    ) {
        match what {
            What::Accept { fd } => self.accept(user_data, fd),
            What::Connect { fd, to } => self.connect(user_data, fd, to),
            What::Recv { fd, group, limit } => self.recv(user_data, fd, group, limit),
            What::Send {
                fd,
                memory,
                whole,
                lent,
            } => self.send(user_data, fd, memory, whole, lent),
            What::Poll { fd, events, multi } if self.ends.contains_key(&fd) => {
                assert!(!multi, "of sockets the ring asks once");
                self.poll(user_data, fd, events);
            }
            What::Poll { fd, .. } => {
                let told = false;
                self.bell = Some(Bell {
                    fd,
                    user_data,
                    told,
                });
            }
            What::Cancel { of } => {
                let found = self.cancel(of);
                if !found || !quiet {
                    self.tell(user_data, if found { 0 } else { -libc::ENOENT }, 0);
                }
            }
            What::Close { fd } => {
                self.close(fd);
                if !quiet {
                    self.tell(user_data, 0, 0);
                }
            }
        }
    }

    fn cancel(&mut self, user_data: u64) -> bool {
        let Some(place) = self.ops.get(&user_data).copied() else {
            return false;
        };
        match place {
            Place::Accept(fd) => self.stop_accept(fd),
            Place::Connect(link) => self.stop_connect(link),
            Place::Recv(end) => self.end(end).recv = None,
            Place::Send(end) => {
                self.stop_send(end, -libc::ECANCELED);
                return true;
            }
            Place::Poll(end) => self
                .end(end)
                .polls
                .retain(|poll| poll.user_data != user_data),
        }
        self.finish(user_data, -libc::ECANCELED);
        true
    }

    fn look_at_bell(&mut self) {
        let Some(Bell {
            fd,
            user_data,
            told: false,
        }) = self.bell
        else {
            return;
        };
        let mut poll = libc::pollfd {
            fd,
            events: libc::POLLIN,
            revents: 0,
        };
        // SAFETY: one entry, alive for the call, which does not wait.
        let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
        if ready > 0 {
            self.posted
                .push_back(Completion::posted(user_data, i32::from(libc::POLLIN), MORE));
            self.bell = Some(Bell {
                fd,
                user_data,
                told: true,
            });
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World")
            .field("now", &self.now)
            .field("under_way", &self.ops.len())
            .field("links", &self.links.len())
            .finish_non_exhaustive()
    }
}
