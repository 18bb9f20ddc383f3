//! What a shard keeps beside its pools, and how much of it.
//!
//! A pool is a bound by itself. Heads that come in pieces are copied together outside of any, so each
//! connection's bound times the number of connections would be the shard's. Here it has one of its
//! own: what is kept is charged before it is kept, and the charge goes back with it.

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

/// Bytes that are kept, charged by the memory they take.
#[derive(Debug, Default)]
pub struct Kept {
    bytes: Vec<u8>,
    /// Who was charged, and for how much.
    charged: Option<(Rc<Budget>, usize)>,
}

impl Kept {
    /// Bytes bounded elsewhere.
    #[must_use]
    pub(super) fn free_of_charge(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            charged: None,
        }
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
    pub(super) fn truncate(&mut self, len: usize) {
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
        drop(Kept::free_of_charge(vec![0; 5_000]));
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
