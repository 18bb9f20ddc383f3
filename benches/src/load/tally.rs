//! What is counted while a load runs.

use std::cell::{Cell, RefCell};

use hdrhistogram::Histogram;
use ringmesh_dataplane::time::Mono;
use rustls::{CommonState, HandshakeKind};

/// Longest latency told apart from longer ones, nanoseconds (10 minutes).
const LATENCY_NS_MAX: u64 = 600_000_000_000;
/// Values are kept within 0.1 %.
const DIGITS: u8 = 3;

/// Counters of one load; all of one thread.
#[derive(Debug)]
pub(super) struct Tally {
    /// What begins in here is measured.
    pub(super) from: Mono,
    pub(super) until: Mono,
    /// Nanoseconds, of what began in the window.
    pub(super) latency: RefCell<Histogram<u64>>,
    /// Answered, begun in the window.
    pub(super) measured: Cell<u64>,
    /// Answered at any time.
    pub(super) requests: Cell<u64>,
    pub(super) connects: Cell<u64>,
    /// Bytes received: in the window, and in all.
    pub(super) bytes: Cell<u64>,
    pub(super) bytes_total: Cell<u64>,
    pub(super) errors: Cell<u64>,
    pub(super) first_error: RefCell<Option<String>>,
    /// Answers whose status is not 2xx or 3xx.
    pub(super) refused: Cell<u64>,
    pub(super) handshakes: Handshakes,
}

/// TLS handshakes at any time, the warm-up included: connections that are kept shake hands only then.
#[derive(Debug)]
pub(super) struct Handshakes {
    /// Nanoseconds from the connected socket to the server's last word.
    pub(super) full: RefCell<Histogram<u64>>,
    pub(super) resumed: RefCell<Histogram<u64>>,
    pub(super) failed: Cell<u64>,
    /// Of the first.
    pub(super) agreed: RefCell<Option<Agreed>>,
}

/// What a handshake came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Agreed {
    pub(super) version: String,
    pub(super) cipher: String,
    pub(super) alpn: Option<String>,
}

impl Handshakes {
    fn new() -> Self {
        Self {
            full: RefCell::new(histogram()),
            resumed: RefCell::new(histogram()),
            failed: Cell::new(0),
            agreed: RefCell::new(None),
        }
    }

    /// One that began at `begun` is through at `now`.
    pub(super) fn shaken(&self, tls: &CommonState, begun: Mono, now: Mono) {
        let kind = match tls.handshake_kind() {
            Some(HandshakeKind::Resumed) => &self.resumed,
            _ => &self.full,
        };
        record(&mut kind.borrow_mut(), begun, now);
        self.agreed
            .borrow_mut()
            .get_or_insert_with(|| Agreed::of(tls));
    }
}

impl Agreed {
    fn of(tls: &CommonState) -> Self {
        // Both are there once a handshake is through.
        let version = tls.protocol_version().map(|it| format!("{it:?}"));
        let cipher = tls.negotiated_cipher_suite().map(|it| it.suite());
        let alpn = tls.alpn_protocol();
        Self {
            version: version.unwrap_or_default().replace("TLSv1_", "TLS 1."),
            cipher: cipher.map(|it| format!("{it:?}")).unwrap_or_default(),
            alpn: alpn.map(|it| String::from_utf8_lossy(it).into_owned()),
        }
    }
}

pub(super) fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_NS_MAX, DIGITS).expect("constants that fit")
}

impl Tally {
    pub(super) fn new(from: Mono, until: Mono) -> Self {
        Self {
            from,
            until,
            latency: RefCell::new(histogram()),
            measured: Cell::new(0),
            requests: Cell::new(0),
            connects: Cell::new(0),
            bytes: Cell::new(0),
            bytes_total: Cell::new(0),
            errors: Cell::new(0),
            first_error: RefCell::new(None),
            refused: Cell::new(0),
            handshakes: Handshakes::new(),
        }
    }

    /// A request that was meant to leave at `began` was answered at `now`.
    pub(super) fn answered(&self, began: Mono, now: Mono) {
        add(&self.requests, 1);
        if self.measures(began) {
            add(&self.measured, 1);
            self.record(began, now);
        }
    }

    /// A request that was never answered: it took at least this long.
    pub(super) fn unanswered(&self, began: Mono, now: Mono) {
        if self.measures(began) {
            self.record(began, now);
        }
    }

    pub(super) fn received(&self, bytes: usize, now: Mono) {
        add(&self.bytes_total, bytes as u64);
        if self.measures(now) {
            add(&self.bytes, bytes as u64);
        }
    }

    pub(super) fn failed(&self, why: impl std::fmt::Display) {
        add(&self.errors, 1);
        self.first_error
            .borrow_mut()
            .get_or_insert_with(|| why.to_string());
    }

    fn measures(&self, at: Mono) -> bool {
        self.from <= at && at < self.until
    }

    fn record(&self, began: Mono, now: Mono) {
        record(&mut self.latency.borrow_mut(), began, now);
    }
}

fn record(into: &mut Histogram<u64>, began: Mono, now: Mono) {
    let ns = u64::try_from(now.since(began).as_nanos()).unwrap_or(u64::MAX);
    into.saturating_record(ns.max(1));
}

pub(super) fn add(counter: &Cell<u64>, n: u64) {
    counter.set(counter.get() + n);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_began_in_the_window_is_measured() {
        let tally = Tally::new(Mono(100), Mono(200));
        tally.answered(Mono(99), Mono(150));
        tally.answered(Mono(100), Mono(1_100));
        tally.answered(Mono(199), Mono(5_199));
        tally.answered(Mono(200), Mono(201));
        assert_eq!((tally.requests.get(), tally.measured.get()), (4, 2));
        let latency = tally.latency.borrow();
        assert_eq!(latency.len(), 2);
        assert!(latency.equivalent(latency.max(), 5_000));
    }

    #[test]
    fn what_was_never_answered_still_counts_as_late() {
        let tally = Tally::new(Mono(0), Mono(10));
        tally.unanswered(Mono(5), Mono(1_000_005));
        assert_eq!(tally.requests.get(), 0);
        assert!(tally.latency.borrow().max() >= 1_000_000);
    }
}
