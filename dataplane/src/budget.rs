//! What a shard keeps beside its pools, and how much of it.
//!
//! A pool is a bound by itself. Heads that come in pieces, what HTTP/2 streams have received and handshakes
//! are kept outside of any, so each connection's bound times the number of connections would be the
//! shard's. Here it has one of its own: what is kept is charged before it is kept, and the charge goes back
//! with it.

use std::cell::Cell;
use std::ops::Deref;
use std::rc::Rc;

/// Room for this much is taken at once: most heads that come in pieces fit.
const KEPT_BYTES_MIN: usize = 512;

/// Bytes a shard may keep beside its pools.
#[derive(Debug)]
pub struct Budget {
    max: usize,
    kept: Cell<usize>,
}

/// There is no room for more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoRoom;

impl Budget {
    /// Room for `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Rc<Self> {
        Rc::new(Self {
            max,
            kept: Cell::new(0),
        })
    }

    /// Bytes kept now.
    #[must_use]
    pub fn kept(&self) -> usize {
        self.kept.get()
    }
}

/// A charge that follows what somebody else keeps.
#[derive(Debug)]
pub struct Charge {
    budget: Rc<Budget>,
    bytes: Cell<usize>,
}

impl Charge {
    /// Nothing yet.
    #[must_use]
    pub fn new(budget: &Rc<Budget>) -> Self {
        Self {
            budget: Rc::clone(budget),
            bytes: Cell::new(0),
        }
    }

    /// From now on `bytes` are kept.
    ///
    /// # Errors
    /// [`NoRoom`]: it is more than before, there is no room for that, and the charge stays.
    pub fn set(&self, bytes: usize) -> Result<(), NoRoom> {
        let before = self.bytes.get();
        if bytes == before {
            return Ok(());
        }
        let kept = self.budget.kept.get() - before + bytes;
        if bytes > before && kept > self.budget.max {
            return Err(NoRoom);
        }
        self.budget.kept.set(kept);
        self.bytes.set(bytes);
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        // Less always finds room.
        let _ = self.set(0);
    }
}

/// Bytes that are kept, charged by the memory they take.
#[derive(Debug, Default)]
pub struct Kept {
    bytes: Vec<u8>,
    /// Who was charged, and for how much.
    charged: Option<(Rc<Budget>, usize)>,
}

impl Kept {
    /// Bytes that somebody else has put together; `twice`: they are kept in another form as well. Small
    /// ones are free: as many as there are tasks.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn whole(budget: &Rc<Budget>, bytes: Vec<u8>, twice: bool) -> Result<Self, NoRoom> {
        let cost = bytes.capacity() * (1 + usize::from(twice));
        if cost <= 2 * KEPT_BYTES_MIN {
            return Ok(Self {
                bytes,
                charged: None,
            });
        }
        let kept = budget.kept.get() + cost;
        if kept > budget.max {
            return Err(NoRoom);
        }
        budget.kept.set(kept);
        Ok(Self {
            bytes,
            charged: Some((Rc::clone(budget), cost)),
        })
    }

    /// Keeps more.
    ///
    /// # Errors
    /// [`NoRoom`]: nothing of it is kept then.
    pub fn extend(&mut self, budget: &Rc<Budget>, more: &[u8]) -> Result<(), NoRoom> {
        let (room, needed) = (self.bytes.capacity(), self.bytes.len() + more.len());
        if needed > room {
            let wanted = needed.max(2 * room).max(KEPT_BYTES_MIN);
            let kept = budget.kept.get() + (wanted - room);
            if kept > budget.max {
                return Err(NoRoom);
            }
            budget.kept.set(kept);
            let (_, charged) = (self.charged).get_or_insert_with(|| (Rc::clone(budget), 0));
            *charged += wanted - room;
            self.bytes.reserve_exact(wanted - self.bytes.len());
        }
        self.bytes.extend_from_slice(more);
        Ok(())
    }

    /// Forgets what is behind the first `len` bytes.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len);
    }
}

impl Deref for Kept {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some((budget, bytes)) = self.charged.take() {
            budget.kept.set(budget.kept.get().saturating_sub(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_kept_is_charged_and_given_back() {
        let budget = Budget::new(2_000);
        let mut one = Kept::default();
        assert_eq!(budget.kept(), 0);
        one.extend(&budget, b"abc").unwrap();
        assert_eq!((&*one, budget.kept()), (&b"abc"[..], KEPT_BYTES_MIN));
        one.extend(&budget, &[0; 600]).unwrap();
        assert_eq!(budget.kept(), 1_024);
        let mut other = Kept::default();
        other.extend(&budget, &[0; 900]).unwrap();
        assert_eq!(other.extend(&budget, &[0; 900]), Err(NoRoom));
        assert_eq!((other.len(), budget.kept()), (900, 1_924));
        drop(one);
        assert_eq!(budget.kept(), 900);
        drop(other);
        assert_eq!(budget.kept(), 0);
    }

    #[test]
    fn what_others_put_together_is_charged_whole() {
        let budget = Budget::new(2_000);
        let small = Kept::whole(&budget, vec![0; KEPT_BYTES_MIN], true).unwrap();
        assert_eq!(budget.kept(), 0);
        let one = Kept::whole(&budget, vec![0; 900], true).unwrap();
        assert_eq!(budget.kept(), 1_800);
        assert!(Kept::whole(&budget, vec![0; 600], true).is_err());
        drop((small, one));
        assert_eq!(budget.kept(), 0);
    }

    #[test]
    fn a_charge_follows_up_and_down_and_ends_with_its_owner() {
        let budget = Budget::new(1_000);
        let (one, other) = (Charge::new(&budget), Charge::new(&budget));
        one.set(600).unwrap();
        assert_eq!(other.set(500), Err(NoRoom));
        assert_eq!(budget.kept(), 600);
        one.set(100).unwrap();
        other.set(500).unwrap();
        assert_eq!(budget.kept(), 600);
        drop(other);
        assert_eq!(budget.kept(), 100);
        drop(one);
        assert_eq!(budget.kept(), 0);
    }

    proptest! {
        /// Never more than allowed, never less charged than taken, and nothing is left in the end.
        #[test]
        fn whatever_is_kept_the_sum_is_right(steps in proptest::collection::vec((0..8_usize, 0..3_000_usize), 0..60)) {
            let budget = Budget::new(10_000);
            let mut all: Vec<Kept> = (0..8).map(|_| Kept::default()).collect();
            for (which, len) in steps {
                match len {
                    0..300 => all[which] = Kept::default(),
                    _ => {
                        let before = all[which].len();
                        let kept = all[which].extend(&budget, &vec![7; len]).is_ok();
                        prop_assert_eq!(all[which].len(), before + if kept { len } else { 0 });
                    }
                }
                let taken: usize = all.iter().map(|kept| kept.bytes.capacity()).sum();
                prop_assert!(taken <= budget.kept() && budget.kept() <= 10_000);
            }
            drop(all);
            prop_assert_eq!(budget.kept(), 0);
        }
    }
}
