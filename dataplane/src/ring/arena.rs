//! Slots with generations: a key to a slot that was emptied and used again finds nothing.

/// Names one value of an [`Arena`], for as long as it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) index: u32,
    pub(super) generation: u32,
}

/// Values in reusable slots. Grows to the most values ever alive at once and allocates no more.
#[derive(Debug)]
pub(super) struct Arena<T> {
    slots: Vec<Slot<T>>,
    /// Head of the list of empty slots; `NONE` if there is none.
    empty: u32,
    len: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    state: State<T>,
}

#[derive(Debug)]
enum State<T> {
    Full(T),
    Empty { next: u32 },
}

/// No slot. Also bounds the number of slots.
pub(super) const NONE: u32 = u32::MAX;

impl<T> Arena<T> {
    pub(super) const fn new() -> Self {
        Self {
            slots: Vec::new(),
            empty: NONE,
            len: 0,
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// One more than the highest index ever used.
    pub(super) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    pub(super) fn insert(&mut self, value: T) -> Key {
        self.len += 1;
        if self.empty == NONE {
            let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 slots");
            assert_ne!(index, NONE);
            self.slots.push(Slot {
                generation: 0,
                state: State::Full(value),
            });
            return Key {
                index,
                generation: 0,
            };
        }
        let index = self.empty;
        let slot = &mut self.slots[index as usize];
        let State::Empty { next } = slot.state else {
            unreachable!("the list of empty slots names a full one");
        };
        self.empty = next;
        slot.state = State::Full(value);
        Key {
            index,
            generation: slot.generation,
        }
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        match self.slots.get(key.index as usize) {
            Some(Slot {
                generation,
                state: State::Full(value),
            }) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        match self.slots.get_mut(key.index as usize) {
            Some(Slot {
                generation,
                state: State::Full(value),
            }) if *generation == key.generation => Some(value),
            _ => None,
        }
    }

    /// The key under which slot `index` is filled now.
    pub(super) fn key_at(&self, index: u32) -> Option<Key> {
        match self.slots.get(index as usize) {
            Some(Slot {
                generation,
                state: State::Full(_),
            }) => Some(Key {
                index,
                generation: *generation,
            }),
            _ => None,
        }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        self.get(key)?;
        let slot = &mut self.slots[key.index as usize];
        let empty = State::Empty { next: self.empty };
        let State::Full(value) = std::mem::replace(&mut slot.state, empty) else {
            unreachable!("just found full");
        };
        slot.generation = slot.generation.wrapping_add(1);
        self.empty = key.index;
        self.len -= 1;
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_key_finds_nothing_in_a_reused_slot() {
        let mut arena = Arena::new();
        let first = arena.insert('a');
        assert_eq!(arena.remove(first), Some('a'));
        let second = arena.insert('b');
        assert_eq!(first.index, second.index);
        assert_eq!(arena.get(first), None);
        assert_eq!(arena.remove(first), None);
        assert_eq!(arena.get(second), Some(&'b'));
        assert_eq!(arena.key_at(second.index), Some(second));
        assert_eq!(arena.len(), 1);
    }

    #[test]
    fn slots_are_reused_before_new_ones_are_made() {
        let mut arena = Arena::new();
        for round in 0..100 {
            let keys: Vec<_> = (0..7).map(|n| arena.insert(round * 10 + n)).collect();
            for key in keys {
                arena.remove(key);
            }
        }
        assert_eq!(arena.slots(), 7);
    }
}
