//! Which tasks are to be polled, and wakers that are nothing but a number.
//!
//! A waker holds ring number, task slot and a generation in its data word: cloning, dropping and
//! waking it touches no memory of the task, so it needs no reference count and no allocation, and
//! one that outlives its task (or its ring) is merely ignored. On the ring's own thread a wake-up is
//! a push to a queue; from another thread it goes through the ring's bell.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::bell;

/// A task slot and the low bits of its generation. A wrapped generation costs one idle poll.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TaskMark {
    pub(super) index: u32,
    pub(super) generation: u16,
}

/// Tasks to be polled, first come first served, each at most once.
#[derive(Debug, Default)]
pub(super) struct Ready(RefCell<Inner>);

#[derive(Debug, Default)]
struct Inner {
    queue: VecDeque<TaskMark>,
    /// By slot: the generation alive there and whether it is in the queue.
    slots: Vec<Slot>,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    generation: u16,
    alive: bool,
    queued: bool,
}

impl Ready {
    /// A task begins its life in a slot, ready to run.
    pub(super) fn begin(&self, mark: TaskMark) {
        let mut inner = self.0.borrow_mut();
        let index = mark.index as usize;
        if index >= inner.slots.len() {
            let empty = Slot {
                generation: 0,
                alive: false,
                queued: false,
            };
            inner.slots.resize(index + 1, empty);
        }
        inner.slots[index] = Slot {
            generation: mark.generation,
            alive: true,
            queued: true,
        };
        inner.queue.push_back(mark);
    }

    pub(super) fn end(&self, mark: TaskMark) {
        if let Some(slot) = self.0.borrow_mut().slots.get_mut(mark.index as usize) {
            slot.alive = false;
        }
    }

    pub(super) fn wake(&self, mark: TaskMark) {
        let mut inner = self.0.borrow_mut();
        let Some(slot) = inner.slots.get_mut(mark.index as usize) else {
            return;
        };
        if slot.alive && !slot.queued && slot.generation == mark.generation {
            slot.queued = true;
            inner.queue.push_back(mark);
        }
    }

    pub(super) fn wake_all(&self) {
        let mut inner = self.0.borrow_mut();
        let Inner { queue, slots } = &mut *inner;
        for (index, slot) in slots.iter_mut().enumerate() {
            if slot.alive && !slot.queued {
                slot.queued = true;
                queue.push_back(TaskMark {
                    index: index as u32,
                    generation: slot.generation,
                });
            }
        }
    }

    /// The next task to poll. From here on a wake-up queues it again.
    pub(super) fn pop(&self) -> Option<TaskMark> {
        let mut inner = self.0.borrow_mut();
        loop {
            let mark = inner.queue.pop_front()?;
            let slot = &mut inner.slots[mark.index as usize];
            // A task that ended while queued may have a successor in its slot.
            if slot.generation == mark.generation {
                slot.queued = false;
                if slot.alive {
                    return Some(mark);
                }
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.borrow().queue.len()
    }
}

thread_local! {
    /// The rings of this thread: one on a shard, more in tests.
    static HERE: RefCell<Vec<(u16, Rc<Ready>)>> = const { RefCell::new(Vec::new()) };
}

/// Lets wakers of this thread find a ring's queue.
pub(super) fn settle(number: u16, ready: &Rc<Ready>) {
    HERE.with_borrow_mut(|rings| rings.push((number, Rc::clone(ready))));
}

/// Undoes [`settle`].
pub(super) fn leave(number: u16) {
    // At the very end of a thread the list may be gone already.
    let _ = HERE.try_with(|rings| rings.borrow_mut().retain(|(other, _)| *other != number));
}

/// A waker of this task.
pub(super) fn waker(ring: u16, mark: TaskMark) -> Waker {
    // SAFETY: the vtable's functions treat the data pointer as a number, never dereference it, and
    // may be called from any thread, any number of times, in any order.
    unsafe { Waker::from_raw(raw(pack(ring, mark))) }
}

const _: () = assert!(usize::BITS == 64, "a waker packs its task into one word");

fn pack(ring: u16, mark: TaskMark) -> usize {
    usize::from(ring) << 48 | usize::from(mark.generation) << 32 | mark.index as usize
}

fn unpack(word: usize) -> (u16, TaskMark) {
    let mark = TaskMark {
        index: word as u32,
        generation: (word >> 32) as u16,
    };
    ((word >> 48) as u16, mark)
}

fn raw(word: usize) -> RawWaker {
    static NUMBER: RawWakerVTable =
        RawWakerVTable::new(|data| raw(data.addr()), wake, wake, |_| ());
    RawWaker::new(std::ptr::without_provenance(word), &NUMBER)
}

fn wake(data: *const ()) {
    let (ring, mark) = unpack(data.addr());
    let local = HERE.try_with(|rings| {
        let rings = rings.borrow();
        let found = rings.iter().find(|(number, _)| *number == ring);
        found.map(|(_, ready)| ready.wake(mark)).is_some()
    });
    if !local.unwrap_or(false) {
        bell::wake_from_afar(ring, mark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_is_queued_once_and_an_old_waker_is_ignored() {
        let ready = Ready::default();
        let old = TaskMark {
            index: 3,
            generation: 1,
        };
        ready.begin(old);
        ready.wake(old);
        assert_eq!(ready.len(), 1);
        assert_eq!(ready.pop(), Some(old));
        ready.end(old);
        ready.wake(old);
        assert_eq!(ready.pop(), None);
        let new = TaskMark {
            index: 3,
            generation: 2,
        };
        ready.begin(new);
        ready.wake(old);
        assert_eq!(ready.pop(), Some(new));
        assert_eq!(ready.pop(), None);
    }

    #[test]
    fn a_successor_in_the_slot_is_polled_once() {
        let ready = Ready::default();
        let [old, new] = [1, 2].map(|generation| TaskMark {
            index: 0,
            generation,
        });
        ready.begin(old);
        ready.end(old);
        ready.begin(new);
        assert_eq!(ready.pop(), Some(new));
        assert_eq!(ready.pop(), None);
    }

    #[test]
    fn a_waker_is_its_number() {
        let mark = TaskMark {
            index: u32::MAX - 1,
            generation: u16::MAX,
        };
        assert_eq!(unpack(pack(513, mark)), (513, mark));
        let waker = waker(u16::MAX, mark);
        assert!(waker.will_wake(&waker.clone()));
        // Ring 65535 does not exist: nothing happens.
        waker.wake();
    }
}
