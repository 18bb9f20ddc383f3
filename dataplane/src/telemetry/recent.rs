//! What was made of an exchange's names lately, so that the next exchange between the same two need
//! not make it again.

use super::outcome::Direction;

/// What an exchange's names come from: equal keys mean equal names, of everything an
/// [`Outcome`](super::Outcome) calls by name: the two parties, principal, route and cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// Which of the two parties is the local workload.
    pub direction: Direction,
    /// The tables the indices are of, which tell the local workload's names.
    pub generation: u64,
    /// The downstream connection where its peer has a name, else 0.
    pub connection: u64,
    /// Service meant and cluster chosen; [`Self::NONE`] for none.
    pub called: [u32; 2],
    /// Route and place of the endpoint; [`Self::NONE`] for none.
    pub chosen: [u32; 2],
}

impl Names {
    /// No index.
    pub const NONE: u32 = u32::MAX;

    fn place(&self, salt: u64) -> usize {
        let two = |[a, b]: [u32; 2]| u64::from(a) << 32 | u64::from(b);
        // Indices are small and dense: multiplying by odd numbers without a pattern spreads them.
        let mixed = (two(self.called) ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15)
            ^ (two(self.chosen) ^ self.generation).wrapping_mul(0xc2b2_ae3d_27d4_eb4f)
            ^ (self.connection ^ self.direction as u64).wrapping_mul(0x1656_67b1_9e37_79f9);
        (mixed >> (u64::BITS - PLACES_BITS)) as usize
    }
}

const PLACES_BITS: u32 = 8;
/// Connections, clusters and endpoints that are busy at once, mostly. Two whose keys fall on one
/// place take turns there, which costs what there would be without it.
const PLACES: usize = 1 << PLACES_BITS;

/// One value per place, by names and a few more bits.
#[derive(Debug)]
pub(super) struct Recent<V> {
    places: Box<[Option<(Names, u64)>]>,
    values: Box<[V]>,
}

impl<V: Default> Recent<V> {
    pub(super) fn new() -> Self {
        Self {
            places: vec![None; PLACES].into(),
            values: std::iter::repeat_with(V::default).take(PLACES).collect(),
        }
    }

    /// What was made of `names` and `salt`, if its place still holds it.
    pub(super) fn get(&self, names: &Names, salt: u64) -> Option<&V> {
        let place = names.place(salt);
        (self.places[place] == Some((*names, salt))).then(|| &self.values[place])
    }

    /// The place for what is made of `names` and `salt`, with what was there before.
    pub(super) fn place(&mut self, names: &Names, salt: u64) -> &mut V {
        let place = names.place(salt);
        self.places[place] = Some((*names, salt));
        &mut self.values[place]
    }
}
