//! The table of tasks: a small executor for one thread.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Context;

use super::arena::{Arena, Key};
use super::ready::{self, Ready, TaskMark};

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Tasks of one ring, bounded.
pub(super) struct Tasks {
    ring: u16,
    /// `None`: being polled right now.
    table: RefCell<Arena<Option<Task>>>,
    ready: Rc<Ready>,
    tasks_max: u32,
}

impl Tasks {
    pub(super) fn new(ring: u16, tasks_max: u32) -> Self {
        let ready = Rc::new(Ready::default());
        ready::settle(ring, &ready);
        Self {
            ring,
            table: RefCell::new(Arena::new()),
            ready,
            tasks_max,
        }
    }

    /// Adds a task, ready to run; `false` and the task dropped if the table is full.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + 'static) -> bool {
        if !self.has_room() {
            return false;
        }
        let key = self.table.borrow_mut().insert(Some(Box::pin(task)));
        self.ready.begin(mark(key));
        true
    }

    pub(super) fn has_room(&self) -> bool {
        self.len() < self.tasks_max
    }

    pub(super) fn len(&self) -> u32 {
        self.table.borrow().len()
    }

    pub(super) fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Polls ready tasks, at most `budget` of them; tells how many.
    pub(super) fn run(&self, budget: u32) -> u32 {
        for polls in 0..budget {
            let Some(mark) = self.ready.pop() else {
                return polls;
            };
            self.poll(mark);
        }
        budget
    }

    fn poll(&self, mark: TaskMark) {
        let taken = {
            let mut table = self.table.borrow_mut();
            let Some(key) = table.key_at(mark.index) else {
                return;
            };
            table
                .get_mut(key)
                .and_then(Option::take)
                .map(|task| (key, task))
        };
        let Some((key, mut task)) = taken else {
            return;
        };
        let waker = ready::waker(self.ring, mark);
        if task
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_ready()
        {
            self.ready.end(mark);
            self.table.borrow_mut().remove(key);
        } else if let Some(slot) = self.table.borrow_mut().get_mut(key) {
            *slot = Some(task);
        }
    }

    /// Drops all tasks. What they spawn while dropped is dropped too.
    pub(super) fn clear(&self) {
        while self.len() > 0 {
            let slots = self.table.borrow().slots();
            for index in 0..slots {
                let task = {
                    let mut table = self.table.borrow_mut();
                    table.key_at(index).and_then(|key| {
                        self.ready.end(mark(key));
                        table.remove(key)
                    })
                };
                // Outside the borrow: a task's fields may wake, spawn and close.
                drop(task);
            }
        }
    }
}

fn mark(key: Key) -> TaskMark {
    TaskMark {
        index: key.index,
        generation: key.generation as u16,
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        ready::leave(self.ring);
    }
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks")
            .field("alive", &self.len())
            .field("tasks_max", &self.tasks_max)
            .finish_non_exhaustive()
    }
}
