//! Connections of one shard that stand, by the certificate their peer proved: a revocation ends them
//! wherever they are, lying in a pool or carrying bytes for days.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;

use slab::Slab;

use super::identity::{PeerRefusal, without_leading_zeroes};
use super::material::TlsMaterial;
use crate::ring::Cutter;

/// As many as there are connections with a proven peer: those bounds are theirs.
#[derive(Debug, Default)]
pub struct Live {
    standing: Rc<RefCell<Slab<Standing>>>,
    /// Under which all of them have been examined.
    examined: RefCell<Option<Arc<TlsMaterial>>>,
}

#[derive(Debug)]
struct Standing {
    /// Without leading zeroes.
    serial: Box<[u8]>,
    cutter: Cutter,
}

/// A connection in the list, for as long as it lives.
#[derive(Debug)]
pub(super) struct Enlisted {
    list: Rc<RefCell<Slab<Standing>>>,
    at: usize,
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        // Cutting drops nothing, so nobody looks at the list now.
        self.list.borrow_mut().try_remove(self.at);
    }
}

impl Live {
    /// A connection more. It was proven with the material of when its handshake began: what has been
    /// revoked since is found here.
    pub(super) fn enlist(&self, serial: &[u8], cutter: Cutter) -> Result<Enlisted, PeerRefusal> {
        if let Some(material) = &*self.examined.borrow()
            && material.trust.revokes(serial)
        {
            return Err(PeerRefusal::Revoked);
        }
        let serial = without_leading_zeroes(serial).into();
        let at = self
            .standing
            .borrow_mut()
            .insert(Standing { serial, cutter });
        Ok(Enlisted {
            list: Rc::clone(&self.standing),
            at,
        })
    }

    /// Cuts the connections whose peer `material` revokes and the one before did not; how many those
    /// were. Costs nothing where the same are revoked, and one look per connection otherwise.
    pub fn examine(&self, material: &Arc<TlsMaterial>) -> usize {
        let before = self.examined.replace(Some(Arc::clone(material)));
        let revoked = &material.trust.revoked_serials;
        let known = before.as_ref().map(|before| &before.trust.revoked_serials);
        if known == Some(revoked) {
            return 0;
        }
        let normal = |serials: &[Vec<u8>]| {
            let mut serials: Vec<Vec<u8>> = serials
                .iter()
                .map(|serial| without_leading_zeroes(serial).to_vec())
                .collect();
            serials.sort_unstable();
            serials
        };
        let known = known.map_or_else(Vec::new, |known| normal(known));
        let mut fresh = normal(revoked);
        fresh.retain(|serial| known.binary_search(serial).is_err());
        if fresh.is_empty() {
            return 0;
        }
        let mut cut = 0;
        for (_, standing) in &*self.standing.borrow() {
            if fresh
                .binary_search_by(|serial| (**serial).cmp(&standing.serial))
                .is_ok()
            {
                standing.cutter.cut();
                cut += 1;
            }
        }
        cut
    }
}
