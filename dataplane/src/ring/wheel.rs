//! A hashed, hierarchical timer wheel in milliseconds. Pure: time is an argument.
//!
//! Six levels of 64 slots: level 0 holds the next 64 ms one by one, each further level is 64 times
//! coarser. Adding and removing are O(1) and allocate nothing once the arena has grown. A timer far
//! away moves down a level when its slot comes up; that is the only early wake-up it causes.

use super::arena::{Arena, Key, NONE};

/// Milliseconds on the ring's clock.
pub(super) type Tick = u64;

const LEVELS: usize = 6;
const SLOT_BITS: u32 = 6;
const SLOTS: usize = 1 << SLOT_BITS;
/// Most timers that [`Wheel::earliest`] looks at.
const LOOK_MAX: usize = 1024;
/// Longest distance into the future, about two years; later timers are treated as this far away
/// and sorted in again when they come up.
const SPAN: Tick = 1 << (SLOT_BITS * LEVELS as u32);

/// Timers with a payload each.
#[derive(Debug)]
pub(super) struct Wheel<T> {
    now: Tick,
    timers: Arena<Timer<T>>,
    levels: [Level; LEVELS],
}

#[derive(Debug)]
struct Timer<T> {
    at: Tick,
    due: T,
    level: u8,
    slot: u8,
    before: u32,
    after: u32,
}

#[derive(Debug)]
struct Level {
    /// One bit per slot that is not empty.
    filled: u64,
    first: [u32; SLOTS],
    last: [u32; SLOTS],
}

impl<T> Wheel<T> {
    pub(super) fn new(now: Tick) -> Self {
        const EMPTY: Level = Level {
            filled: 0,
            first: [NONE; SLOTS],
            last: [NONE; SLOTS],
        };
        Self {
            now,
            timers: Arena::new(),
            levels: [EMPTY; LEVELS],
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> u32 {
        self.timers.len()
    }

    /// Adds a timer; one in the past is due at the next [`expire`](Self::expire).
    pub(super) fn insert(&mut self, at: Tick, due: T) -> Key {
        let key = self.timers.insert(Timer {
            at,
            due,
            level: 0,
            slot: 0,
            before: NONE,
            after: NONE,
        });
        self.link(key);
        key
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.timers.get_mut(key).map(|timer| &mut timer.due)
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        self.timers.get(key)?;
        self.unlink(key);
        self.timers.remove(key).map(|timer| timer.due)
    }

    /// When to call [`expire`](Self::expire) next. Not after the earliest timer; before it if a
    /// timer has to move down a level.
    pub(super) fn next(&self) -> Option<Tick> {
        (0..LEVELS).find_map(|level| self.next_of(level).map(|(at, _)| at))
    }

    /// When the earliest timer is due, to the tick: a ring that sleeps until then is not woken for timers
    /// that only move down. Looks at one slot's timers; where those are more than [`LOOK_MAX`], it is
    /// [`next`](Self::next).
    pub(super) fn earliest(&self) -> Option<Tick> {
        let (level, (begin, slot)) =
            (0..LEVELS).find_map(|level| self.next_of(level).map(|next| (level, next)))?;
        let mut index = self.levels[level].first[slot];
        let mut earliest = Tick::MAX;
        for _ in 0..LOOK_MAX {
            let Some(timer) = self
                .timers
                .key_at(index)
                .and_then(|key| self.timers.get(key))
            else {
                return Some(earliest.max(begin));
            };
            earliest = earliest.min(timer.at);
            index = timer.after;
        }
        Some(begin)
    }

    /// First filled slot of a level and when it begins. Finer levels always come up first.
    fn next_of(&self, level: usize) -> Option<(Tick, usize)> {
        let filled = self.levels[level].filled;
        if filled == 0 {
            return None;
        }
        let shift = SLOT_BITS * level as u32;
        let here = (self.now >> shift) as u32 & (SLOTS as u32 - 1);
        let ahead = filled.rotate_right(here).trailing_zeros();
        let slot = (here + ahead) as usize & (SLOTS - 1);
        let begin = ((self.now >> shift) + u64::from(ahead)) << shift;
        Some((begin.max(self.now), slot))
    }

    /// Moves the clock to `now` and gives every timer due by then to `fire`, earliest first.
    pub(super) fn expire(&mut self, now: Tick, mut fire: impl FnMut(T)) {
        while let Some((level, at, slot)) = (0..LEVELS)
            .find_map(|level| self.next_of(level).map(|(at, slot)| (level, at, slot)))
            .filter(|(_, at, _)| *at <= now)
        {
            self.now = self.now.max(at);
            self.empty(level, slot, &mut fire);
        }
        self.now = self.now.max(now);
    }

    /// Fires what is due in a slot and sorts the rest in again, one level down or more.
    fn empty(&mut self, level: usize, slot: usize, fire: &mut impl FnMut(T)) {
        let lists = &mut self.levels[level];
        let mut index = std::mem::replace(&mut lists.first[slot], NONE);
        lists.last[slot] = NONE;
        lists.filled &= !(1 << slot);
        while let Some(key) = self.timers.key_at(index) {
            let timer = self.timers.get_mut(key).expect("key_at found it");
            index = timer.after;
            timer.before = NONE;
            timer.after = NONE;
            if timer.at > self.now {
                self.link(key);
            } else if let Some(timer) = self.timers.remove(key) {
                fire(timer.due);
            }
        }
    }

    fn link(&mut self, key: Key) {
        let now = self.now;
        let Some(timer) = self.timers.get_mut(key) else {
            return;
        };
        let at = timer.at.clamp(now, now + SPAN - 1);
        // The highest bit in which `at` differs from now tells the level.
        let differs = (at ^ now) | (SLOTS as u64 - 1);
        let level = (((63 - differs.leading_zeros()) / SLOT_BITS) as usize).min(LEVELS - 1);
        let slot = (at >> (SLOT_BITS * level as u32)) as usize & (SLOTS - 1);
        timer.level = level as u8;
        timer.slot = slot as u8;
        let lists = &mut self.levels[level];
        let last = std::mem::replace(&mut lists.last[slot], key.index);
        timer.before = last;
        if last == NONE {
            lists.first[slot] = key.index;
            lists.filled |= 1 << slot;
        } else {
            self.neighbour(last).after = key.index;
        }
    }

    fn unlink(&mut self, key: Key) {
        let Some(timer) = self.timers.get(key) else {
            return;
        };
        let (before, after) = (timer.before, timer.after);
        let (level, slot) = (usize::from(timer.level), usize::from(timer.slot));
        if before == NONE {
            self.levels[level].first[slot] = after;
        } else {
            self.neighbour(before).after = after;
        }
        if after == NONE {
            self.levels[level].last[slot] = before;
        } else {
            self.neighbour(after).before = before;
        }
        if before == NONE && after == NONE {
            self.levels[level].filled &= !(1 << slot);
        }
    }

    fn neighbour(&mut self, index: u32) -> &mut Timer<T> {
        let key = self.timers.key_at(index).expect("lists name live timers");
        self.timers.get_mut(key).expect("key_at found it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(wheel: &mut Wheel<u64>, now: Tick) -> Vec<u64> {
        let mut fired = Vec::new();
        wheel.expire(now, |at| fired.push(at));
        fired
    }

    #[test]
    fn the_earliest_timer_is_known_to_the_tick_and_never_missed() {
        let mut rng = fastrand::Rng::with_seed(3);
        for _ in 0..200 {
            let mut now = rng.u64(..1 << 40);
            let mut wheel = Wheel::new(now);
            let mut due: Vec<Tick> = Vec::new();
            for _ in 0..rng.usize(1..50) {
                let bits = rng.u32(1..30);
                let at = now + rng.u64(..1 << bits);
                due.push(at);
                wheel.insert(at, at);
            }
            due.sort_unstable();
            // Sleeping from one to the next wakes up for nothing else.
            while let Some(at) = wheel.earliest() {
                assert_eq!(Some(&at.max(now)), due.first().map(|at| at.max(&now)));
                now = now.max(at);
                let fired = drain(&mut wheel, now);
                assert!(!fired.is_empty(), "woken for nothing");
                assert_eq!(fired, due.drain(..fired.len()).collect::<Vec<_>>());
            }
            assert!(due.is_empty());
        }
    }

    #[test]
    fn timers_fire_in_order_and_not_early() {
        let mut wheel = Wheel::new(1000);
        let distances = [
            0, 1, 2, 63, 64, 65, 4095, 4096, 5000, 262_144, 20_000_000, 900,
        ];
        for distance in distances {
            wheel.insert(1000 + distance, 1000 + distance);
        }
        let mut seen = Vec::new();
        while let Some(next) = wheel.next() {
            assert!(drain(&mut wheel, next.saturating_sub(1)).is_empty());
            for at in drain(&mut wheel, next) {
                assert_eq!(at, next);
                seen.push(at - 1000);
            }
        }
        let mut expected = distances.to_vec();
        expected.sort_unstable();
        assert_eq!(seen, expected);
        assert_eq!(wheel.len(), 0);
    }

    #[test]
    fn one_leap_over_everything_keeps_the_order() {
        let mut wheel = Wheel::new(0);
        for at in [700_000, 3, 70, 5000, 4, 699_999] {
            wheel.insert(at, at);
        }
        assert_eq!(
            drain(&mut wheel, 10_000_000),
            [3, 4, 70, 5000, 699_999, 700_000]
        );
    }

    #[test]
    fn a_removed_timer_does_not_fire() {
        let mut wheel = Wheel::new(0);
        let keys: Vec<_> = (0..5).map(|n| wheel.insert(10, n)).collect();
        assert_eq!(wheel.remove(keys[0]), Some(0));
        assert_eq!(wheel.remove(keys[2]), Some(2));
        assert_eq!(wheel.remove(keys[4]), Some(4));
        assert_eq!(wheel.remove(keys[4]), None);
        assert_eq!(drain(&mut wheel, 10), [1, 3]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn agrees_with_a_sorted_list() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..200 {
            let mut now = random.u64(0..1 << 40);
            let mut wheel = Wheel::new(now);
            let mut model: Vec<(Tick, Key)> = Vec::new();
            for _ in 0..200 {
                match random.u32(0..4) {
                    0 | 1 => {
                        let at = now + (1 << random.u32(0..30)) - random.u64(0..2);
                        model.push((at, wheel.insert(at, at)));
                    }
                    2 if !model.is_empty() => {
                        let (at, key) = model.swap_remove(random.usize(0..model.len()));
                        assert_eq!(wheel.remove(key), Some(at));
                    }
                    _ => {
                        now += 1 << random.u32(0..24);
                        let mut expected: Vec<Tick> = model
                            .iter()
                            .map(|(at, _)| *at)
                            .filter(|at| *at <= now)
                            .collect();
                        model.retain(|(at, _)| *at > now);
                        expected.sort_unstable();
                        assert_eq!(drain(&mut wheel, now), expected);
                    }
                }
                let earliest = model.iter().map(|(at, _)| *at).min();
                assert_eq!(wheel.next().is_some(), earliest.is_some());
                assert!(wheel.next() <= earliest.or(Some(0)));
            }
        }
    }
}
