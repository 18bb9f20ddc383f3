//! Plaintext connections to the local app that stand. A port that becomes STRICT takes none any more, and
//! those that are there have some time to end; what still stands then is cut, as Envoy does with the
//! connections of a listener that has changed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use slab::Slab;

use crate::ring::{Cutter, Ring};
use crate::time::Mono;

/// Those of one shard; as many as there are connections.
#[derive(Debug, Clone, Default)]
pub struct Plaintext(Rc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    standing: RefCell<Slab<Standing>>,
    /// A task waits for the first that is to be cut.
    draining: Cell<bool>,
}

#[derive(Debug)]
struct Standing {
    /// Place of the port in the workload's ports.
    port: usize,
    cutter: Cutter,
    /// Its port takes no plaintext any more.
    until: Option<Mono>,
}

/// A connection in the list, for as long as it lives.
#[derive(Debug)]
pub struct Enlisted {
    list: Plaintext,
    at: usize,
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        // Cutting drops nothing, so nobody looks at the list now.
        self.list.0.standing.borrow_mut().try_remove(self.at);
    }
}

impl Plaintext {
    /// A connection to a port more.
    pub fn enlist(&self, port: usize, cutter: Cutter) -> Enlisted {
        let at = self.0.standing.borrow_mut().insert(Standing {
            port,
            cutter,
            until: None,
        });
        Enlisted {
            list: self.clone(),
            at,
        }
    }

    /// New modes are in force: who stands on a port that `refuses` plaintext has `drain_ms` to end.
    pub fn examine(&self, ring: &Ring, drain_ms: u64, refuses: impl Fn(usize) -> bool) {
        let until = ring.now().plus_ms(drain_ms);
        let mut any = false;
        for (_, standing) in &mut *self.0.standing.borrow_mut() {
            standing.until = match refuses(standing.port) {
                true => Some(standing.until.unwrap_or(until)),
                false => None,
            };
            any |= standing.until.is_some();
        }
        if !any || self.0.draining.replace(true) {
            return;
        }
        let (list, own) = (self.clone(), ring.clone());
        let started = ring.spawn(async move {
            while let Some(next) = list.next() {
                own.sleep_until(next).await;
                list.cut(own.now());
            }
            list.0.draining.set(false);
        });
        if !started {
            // The next change of anything tries again.
            self.0.draining.set(false);
        }
    }

    /// When the next one is to be cut.
    fn next(&self) -> Option<Mono> {
        let standing = self.0.standing.borrow();
        standing.iter().filter_map(|(_, one)| one.until).min()
    }

    /// Cuts those whose time is over.
    fn cut(&self, now: Mono) {
        let mut cut = 0;
        for (_, standing) in &mut *self.0.standing.borrow_mut() {
            if standing.until.is_some_and(|until| until <= now) {
                standing.until = None;
                standing.cutter.cut();
                cut += 1;
            }
        }
        if cut > 0 {
            tracing::info!(
                connections = cut,
                "cut off plaintext connections to ports that have become STRICT"
            );
        }
    }
}
