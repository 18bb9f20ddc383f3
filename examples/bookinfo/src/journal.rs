//! What the program received, and how it should behave: shared by serving and admin threads.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::http::Request;

/// Arrivals kept; older ones are dropped, the count goes on.
const ARRIVALS_MAX: usize = 100_000;

/// One request that reached the program.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Arrival {
    /// Microseconds of the machine's monotonic clock: comparable between processes.
    pub(crate) at_us: u64,
    /// The caller's `User-Agent`.
    pub(crate) caller: String,
    pub(crate) target: String,
    pub(crate) request_id: String,
}

/// How to treat requests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    #[default]
    Normal,
    /// Take the request, never answer.
    Hang,
    /// Answer after this long.
    Slow(Duration),
    /// Answer with this status.
    Status(u16),
}

#[derive(Debug, Default)]
pub(crate) struct Journal(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    count: u64,
    mode: Mode,
    arrivals: VecDeque<Arrival>,
}

impl Journal {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a request and says how to treat it.
    pub(crate) fn arrived(&self, request: &Request) -> Mode {
        let text = |name| request.header(name).unwrap_or_default().to_owned();
        let mut inner = self.inner();
        inner.count += 1;
        if inner.arrivals.len() == ARRIVALS_MAX {
            inner.arrivals.pop_front();
        }
        inner.arrivals.push_back(Arrival {
            at_us: now_us(),
            caller: text("user-agent"),
            target: request.target.clone(),
            request_id: text("x-request-id"),
        });
        inner.mode
    }

    pub(crate) fn count(&self) -> u64 {
        self.inner().count
    }

    pub(crate) fn arrivals(&self) -> Vec<Arrival> {
        self.inner().arrivals.iter().cloned().collect()
    }

    /// Forgets what arrived; the mode stays.
    pub(crate) fn reset(&self) {
        let mut inner = self.inner();
        inner.count = 0;
        inner.arrivals.clear();
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        self.inner().mode = mode;
    }
}

fn now_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1_000_000
        + u64::try_from(now.tv_nsec).unwrap_or(0) / 1000
}
