//! Tasks that carry the streams of one connection, one stream after the other.
//!
//! A stream's exchange is several kilobytes of state. A task of its own would allocate, copy and free
//! that for each stream; a task that rests and takes the next stream keeps it where it is, and in the
//! cache. Those that nobody needed for a while end, so a quiet connection holds none.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use crate::http2::limits;

/// Tasks that rest at once: as many as there are streams at once.
const RESTING_MAX: usize = limits::STREAMS_MAX as usize;

/// The resting tasks of a connection, which take work of type `T`.
pub(super) struct StreamTasks<T> {
    /// Who rested longest is first.
    resting: RefCell<Vec<Weak<Seat<T>>>>,
    /// The fewest that rested since [`Self::release`]: they were not needed.
    fewest: Cell<usize>,
    over: Cell<bool>,
}

/// Where one task rests.
pub(super) struct Seat<T> {
    work: Cell<Option<T>>,
    waker: Cell<Option<Waker>>,
    dismissed: Cell<bool>,
}

impl<T> Default for Seat<T> {
    fn default() -> Self {
        Self {
            work: Cell::new(None),
            waker: Cell::new(None),
            dismissed: Cell::new(false),
        }
    }
}

impl<T> Seat<T> {
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn dismiss(&self) {
        self.dismissed.set(true);
        self.wake();
    }
}

impl<T> Default for StreamTasks<T> {
    fn default() -> Self {
        Self {
            resting: RefCell::default(),
            fewest: Cell::new(0),
            over: Cell::new(false),
        }
    }
}

impl<T> StreamTasks<T> {
    /// Gives work to the task that rests shortest; returns it if none rests.
    pub(super) fn give(&self, work: T) -> Option<T> {
        let mut resting = self.resting.borrow_mut();
        while let Some(seat) = resting.pop() {
            self.fewest.set(self.fewest.get().min(resting.len()));
            if let Some(seat) = seat.upgrade() {
                seat.work.set(Some(work));
                seat.wake();
                return None;
            }
        }
        Some(work)
    }

    /// Rests on `seat` until there is work; `None`: the task is to end.
    pub(super) async fn next(&self, seat: &Rc<Seat<T>>) -> Option<T> {
        {
            let mut resting = self.resting.borrow_mut();
            if self.over.get() || resting.len() >= RESTING_MAX {
                return None;
            }
            resting.push(Rc::downgrade(seat));
        }
        poll_fn(|cx| {
            let work = seat.work.take();
            if work.is_some() || seat.dismissed.get() {
                return Poll::Ready(work);
            }
            seat.waker.set(Some(cx.waker().clone()));
            Poll::Pending
        })
        .await
    }

    /// Whether any task rests.
    pub(super) fn are_resting(&self) -> bool {
        !self.resting.borrow().is_empty()
    }

    /// Ends as many as were not needed since it was called last; whether others still rest.
    pub(super) fn release(&self) -> bool {
        let mut resting = self.resting.borrow_mut();
        let unneeded = self.fewest.get().min(resting.len());
        dismiss(resting.drain(..unneeded));
        self.fewest.set(resting.len());
        !resting.is_empty()
    }

    /// Ends all that rest, and from here on whoever would.
    pub(super) fn close(&self) {
        self.over.set(true);
        dismiss(self.resting.borrow_mut().drain(..));
    }
}

fn dismiss<T>(seats: impl Iterator<Item = Weak<Seat<T>>>) {
    for seat in seats.filter_map(|seat| seat.upgrade()) {
        seat.dismiss();
    }
}

impl<T> fmt::Debug for StreamTasks<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamTasks")
            .field("resting", &self.resting.borrow().len())
            .field("over", &self.over)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::Pin;
    use std::task::Context;

    use super::*;

    type Resting<'t> = Pin<Box<dyn Future<Output = Option<u32>> + 't>>;

    fn rest<'t>(tasks: &'t StreamTasks<u32>, seat: &'t Rc<Seat<u32>>) -> Resting<'t> {
        let mut next: Resting<'t> = Box::pin(tasks.next(seat));
        assert!(look(&mut next).is_pending());
        next
    }

    fn look(next: &mut Resting<'_>) -> Poll<Option<u32>> {
        next.as_mut().poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn who_rests_shortest_gets_the_work() {
        let tasks = StreamTasks::default();
        assert_eq!(tasks.give(1), Some(1), "nobody rests");
        let seats = [Rc::default(), Rc::default()];
        let [mut first, mut second] = seats.each_ref().map(|seat| rest(&tasks, seat));
        assert_eq!(tasks.give(2), None);
        assert_eq!(look(&mut second), Poll::Ready(Some(2)));
        assert!(look(&mut first).is_pending());
        assert_eq!(tasks.give(3), None);
        assert_eq!(tasks.give(4), Some(4), "nobody rests any more");
        assert_eq!(look(&mut first), Poll::Ready(Some(3)));
    }

    #[test]
    fn who_is_not_needed_for_a_while_ends() {
        let tasks = StreamTasks::default();
        let seats = [(); 3].map(|()| Rc::default());
        let [mut first, mut second, mut third] = seats.each_ref().map(|seat| rest(&tasks, seat));
        assert!(tasks.release(), "all of them are new");
        // One of three is needed, and comes back.
        assert_eq!(tasks.give(1), None);
        assert_eq!(look(&mut third), Poll::Ready(Some(1)));
        let _third = rest(&tasks, &seats[2]);
        assert!(tasks.release());
        assert_eq!(look(&mut first), Poll::Ready(None));
        assert_eq!(look(&mut second), Poll::Ready(None));
        assert!(!tasks.release(), "and then none is");
        assert!(!tasks.are_resting());
    }

    #[test]
    fn a_closed_connection_keeps_nobody() {
        let tasks = StreamTasks::default();
        let seat = Rc::default();
        let mut first = rest(&tasks, &seat);
        tasks.close();
        assert_eq!(look(&mut first), Poll::Ready(None));
        let late = Rc::default();
        let mut late: Resting<'_> = Box::pin(tasks.next(&late));
        assert_eq!(look(&mut late), Poll::Ready(None));
    }

    #[test]
    fn a_dropped_task_gets_no_work() {
        let tasks = StreamTasks::default();
        let [kept, gone] = [Rc::default(), Rc::default()];
        let mut next = rest(&tasks, &kept);
        drop(rest(&tasks, &gone));
        drop(gone);
        assert_eq!(tasks.give(1), None);
        assert_eq!(look(&mut next), Poll::Ready(Some(1)));
    }

    #[test]
    fn no_more_rest_than_there_are_streams() {
        let tasks = StreamTasks::default();
        let seats: Vec<_> = (0..=RESTING_MAX).map(|_| Rc::default()).collect();
        let (last, rested) = seats.split_last().unwrap();
        let _rested: Vec<_> = rested.iter().map(|seat| rest(&tasks, seat)).collect();
        let mut last: Resting<'_> = Box::pin(tasks.next(last));
        assert_eq!(look(&mut last), Poll::Ready(None));
    }
}
