//! Faults between the ring and the real kernel, for tests: what io_uring may do and rarely does.
//!
//! From a seed: operations are refused as the kernel refuses them (and never reach it), receives end
//! after a few bytes, sends are short, completions come late and in another order. Completions of
//! one operation keep their order, as the kernel promises.

use std::cell::{Cell, RefCell};

use super::in_flight::Op;
use super::kernel::Completion;
use super::loan::Shape;

/// How rough a ring is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Nothing that a peer could notice: all bytes arrive, only later and in other pieces.
    Windy(u64),
    /// Connections break as well: refused, reset, no memory to send.
    Stormy(u64),
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    weather: Option<Weather>,
    rng: RefCell<fastrand::Rng>,
    /// Completions that were posted, or made up, and not told yet.
    held: RefCell<Vec<Completion>>,
    made: Cell<u64>,
    spares: Cell<bool>,
    drained_most: Cell<u32>,
}

impl Faults {
    pub(super) fn new(weather: Option<Weather>) -> Self {
        let seed = match weather {
            None => 0,
            Some(Weather::Windy(seed) | Weather::Stormy(seed)) => seed,
        };
        Self {
            weather,
            rng: RefCell::new(fastrand::Rng::with_seed(seed)),
            held: RefCell::default(),
            made: Cell::new(0),
            spares: Cell::new(false),
            drained_most: Cell::new(u32::MAX),
        }
    }

    /// Whether the operation must not reach the kernel; its only completion is on its way.
    pub(super) fn refuse(&self, op: &Op, user_data: u64) -> bool {
        let Some(weather) = self.weather else {
            return false;
        };
        let mut rng = self.rng.borrow_mut();
        let mild: &[i32] = match op {
            // As if somebody else had cancelled it, too: the kernel does so where a task ends.
            Op::Recv(..) => &[
                libc::ENOBUFS,
                libc::ENOBUFS,
                libc::EINTR,
                libc::EAGAIN,
                libc::ECANCELED,
            ],
            Op::Accept(_) => &[libc::ECONNABORTED, libc::EINTR, libc::ECANCELED],
            // As if the socket were ready: whoever waits has to try and wait again.
            Op::Poll(_) => &[libc::EINTR, libc::EAGAIN, libc::ENOMEM],
            Op::Send(..) | Op::Lent(_) | Op::Connect(_) | Op::Bell => &[],
        };
        let harsh: &[i32] = match op {
            Op::Recv(..) => &[libc::ECONNRESET, libc::ETIMEDOUT],
            Op::Send(..) => &[libc::EPIPE, libc::ECONNRESET, libc::ENOMEM],
            Op::Connect(_) => &[libc::ECONNREFUSED, libc::ENETUNREACH, libc::ETIMEDOUT],
            Op::Lent(_) | Op::Accept(_) | Op::Poll(_) | Op::Bell => &[],
        };
        let errno = if rng.u8(..4) == 0 {
            rng.choice(mild)
        } else if matches!(weather, Weather::Stormy(_)) && rng.u8(..) < 8 {
            rng.choice(harsh)
        } else {
            None
        };
        let Some(errno) = errno else { return false };
        self.made.set(self.made.get() + 1);
        self.held
            .borrow_mut()
            .push(Completion::posted(user_data, -errno, 0));
        true
    }

    /// A receive's bound, perhaps a small one.
    pub(super) fn shorten_recv(&self, bytes: u32) -> u32 {
        let mut rng = self.rng.borrow_mut();
        if self.weather.is_some() && rng.bool() {
            return rng.u32(1..=bytes.min(500));
        }
        bytes
    }

    /// What of a send to give to the kernel, perhaps only its beginning.
    pub(super) fn shorten_send(&self, shape: Shape) -> Shape {
        let mut rng = self.rng.borrow_mut();
        if self.weather.is_none() || rng.u8(..4) != 0 {
            return shape;
        }
        let (start, len) = match shape {
            Shape::One { start, len } => (start, len),
            Shape::Gathered { header } => {
                // SAFETY: a shape's header lies in its loan, which is held by whoever asks.
                let vectors = unsafe { (*header).msg_iov };
                // SAFETY: it points to the loan's vectors, of which there are several.
                let first = unsafe { *vectors };
                (first.iov_base.cast_const().cast(), first.iov_len as u32)
            }
        };
        let len = rng.u32(1..=len);
        Shape::One { start, len }
    }

    /// Bytes a plain splice may move, perhaps few, or how it fails without having moved any.
    pub(super) fn splice(&self, bytes: u32) -> std::io::Result<u32> {
        let Some(weather) = self.weather else {
            return Ok(bytes);
        };
        let mut rng = self.rng.borrow_mut();
        let errno = match rng.u8(..) {
            ..64 => rng.choice([libc::EAGAIN, libc::EINTR]),
            64..72 if matches!(weather, Weather::Stormy(_)) => {
                rng.choice([libc::EPIPE, libc::ECONNRESET, libc::ENOMEM])
            }
            _ => None,
        };
        if let Some(errno) = errno {
            return Err(std::io::Error::from_raw_os_error(errno));
        }
        Ok(if rng.bool() {
            rng.u32(1..=bytes.min(5000))
        } else {
            bytes
        })
    }

    /// What a send without a copy is told to have cost: mostly nothing, as on a network, where loopback
    /// would end them after a few.
    pub(super) fn copied(&self, copied: bool) -> bool {
        match self.weather {
            None => copied && !self.spares.get(),
            Some(_) => copied && self.rng.borrow_mut().u8(..32) == 0,
        }
    }

    /// From now on no send without a copy is told to have been copied.
    pub(super) fn spare_copies(&self) {
        self.spares.set(true);
    }

    /// Bytes that a pipe may send at once.
    pub(super) fn drained(&self, bytes: u32) -> u32 {
        bytes.min(self.drained_most.get())
    }

    /// From now on a pipe sends no more than this at once, as to a receiver that is slow.
    pub(super) fn drain_at_most(&self, bytes: u32) {
        self.drained_most.set(bytes);
    }

    /// Whether all pipes are to look used.
    pub(super) fn no_pipe(&self) -> bool {
        self.weather.is_some() && self.rng.borrow_mut().u8(..) < 16
    }

    /// Takes what the kernel posted; leaves in `batch` what is told now, in some order.
    pub(super) fn stir(&self, batch: &mut Vec<Completion>) {
        if self.weather.is_none() {
            return;
        }
        let mut rng = self.rng.borrow_mut();
        let mut held = self.held.borrow_mut();
        held.append(batch);
        let mut operations: Vec<u64> = held.iter().map(|done| done.user_data).collect();
        operations.sort_unstable();
        operations.dedup();
        rng.shuffle(&mut operations);
        for operation in operations {
            if rng.u8(..4) == 0 {
                continue;
            }
            batch.extend(held.extract_if(.., |done| done.user_data == operation));
        }
    }

    /// Something was posted and not told.
    pub(super) fn holding(&self) -> bool {
        !self.held.borrow().is_empty()
    }

    /// Operations refused so far.
    pub(super) fn made(&self) -> u64 {
        self.made.get()
    }
}
