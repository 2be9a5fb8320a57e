//! A hierarchical timer wheel of milliseconds. Pure: time is an argument, firing returns tokens.
//! Seven levels of 64 slots; inserting, removing and moving are O(1), and an empty stretch of time
//! costs nothing, because each level knows its occupied slots as one word.

const LEVELS: usize = 7;
const SLOTS: usize = 64;
const NONE: u32 = u32::MAX;
/// How many ticks have a slot: 139 years from the start, which nothing outlives. Later ones wait in
/// the last slot.
const SPAN_MAX: u64 = 1 << (6 * LEVELS);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerKey(u32);

#[derive(Debug)]
struct Node {
    tick: u64,
    token: u64,
    previous: u32,
    next: u32,
    /// `level * SLOTS + slot`, or `NONE` while the node is free.
    place: u32,
}

#[derive(Debug)]
pub(crate) struct Wheel {
    now: u64,
    heads: [u32; LEVELS * SLOTS],
    occupied: [u64; LEVELS],
    nodes: Vec<Node>,
    free: u32,
    len: usize,
}

impl Wheel {
    pub(crate) fn new() -> Wheel {
        Wheel {
            now: 0,
            heads: [NONE; LEVELS * SLOTS],
            occupied: [0; LEVELS],
            nodes: Vec::new(),
            free: NONE,
            len: 0,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// A tick that is not in the future fires at the next `advance`.
    pub(crate) fn insert(&mut self, tick: u64, token: u64) -> TimerKey {
        let index = self.take_node();
        let node = &mut self.nodes[index as usize];
        node.tick = tick;
        node.token = token;
        self.link(index);
        self.len += 1;
        TimerKey(index)
    }

    pub(crate) fn remove(&mut self, key: TimerKey) {
        self.unlink(key.0);
        self.give_node(key.0);
        self.len -= 1;
    }

    /// When `advance` has something to do next: never later than the earliest timer.
    pub(crate) fn next_tick(&self) -> Option<u64> {
        self.next_slot().map(|(_, _, start)| start)
    }

    /// Fires everything due at `now`, earliest slots first.
    pub(crate) fn advance(&mut self, now: u64, mut fire: impl FnMut(u64)) {
        while let Some((level, slot, start)) = self.next_slot() {
            if start > now {
                break;
            }
            self.now = self.now.max(start);
            let place = level * SLOTS + slot;
            let mut index = std::mem::replace(&mut self.heads[place], NONE);
            self.occupied[level] &= !(1 << slot);
            while index != NONE {
                let next = self.nodes[index as usize].next;
                if self.nodes[index as usize].tick <= now {
                    let token = self.nodes[index as usize].token;
                    self.give_node(index);
                    self.len -= 1;
                    fire(token);
                } else {
                    self.link(index);
                }
                index = next;
            }
        }
        self.now = self.now.max(now);
    }

    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let slot = self.occupied[level].trailing_zeros() as usize;
        let width = 6 * level as u32;
        let window = self.now >> (width + 6) << (width + 6);
        Some((level, slot, window + ((slot as u64) << width)))
    }

    fn link(&mut self, index: u32) {
        // Within the window of the highest level: a slot beyond it would pass for one of the past.
        let tick = self.nodes[index as usize].tick.clamp(self.now, self.now | (SPAN_MAX - 1));
        // The highest group of six bits in which the tick differs from now is its level.
        let differing = (tick ^ self.now) | (SLOTS as u64 - 1);
        let level = ((63 - differing.leading_zeros()) / 6).min(LEVELS as u32 - 1) as usize;
        let slot = (tick >> (6 * level)) as usize & (SLOTS - 1);
        let place = level * SLOTS + slot;
        let head = self.heads[place];
        let node = &mut self.nodes[index as usize];
        node.place = place as u32;
        node.previous = NONE;
        node.next = head;
        if head != NONE {
            self.nodes[head as usize].previous = index;
        }
        self.heads[place] = index;
        self.occupied[level] |= 1 << slot;
    }

    fn unlink(&mut self, index: u32) {
        let Node { previous, next, place, .. } = self.nodes[index as usize];
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        if previous == NONE {
            self.heads[place as usize] = next;
            if next == NONE {
                self.occupied[place as usize / SLOTS] &= !(1 << (place as usize % SLOTS));
            }
        } else {
            self.nodes[previous as usize].next = next;
        }
    }

    fn take_node(&mut self) -> u32 {
        if self.free == NONE {
            let index = self.nodes.len() as u32;
            self.nodes.push(Node { tick: 0, token: 0, previous: NONE, next: NONE, place: NONE });
            return index;
        }
        let index = self.free;
        self.free = self.nodes[index as usize].next;
        index
    }

    fn give_node(&mut self, index: u32) {
        let node = &mut self.nodes[index as usize];
        node.place = NONE;
        node.next = self.free;
        self.free = index;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fired(wheel: &mut Wheel, now: u64) -> Vec<u64> {
        let mut tokens = Vec::new();
        wheel.advance(now, |token| tokens.push(token));
        tokens.sort_unstable();
        tokens
    }

    #[test]
    fn a_timer_fires_at_its_tick_and_not_before() {
        let mut wheel = Wheel::new();
        for tick in [1, 63, 64, 65, 4095, 4096, 4097, 262_143, 262_144, 10_000_000] {
            wheel.insert(tick, tick);
        }
        for tick in [1, 63, 64, 65, 4095, 4096, 4097, 262_143, 262_144, 10_000_000] {
            assert_eq!(fired(&mut wheel, tick - 1), [] as [u64; 0]);
            assert_eq!(fired(&mut wheel, tick), [tick]);
        }
        assert_eq!(wheel.len(), 0);
    }

    #[test]
    fn a_removed_timer_never_fires_and_its_node_is_used_again() {
        let mut wheel = Wheel::new();
        let first = wheel.insert(10, 1);
        let second = wheel.insert(10, 2);
        wheel.insert(10, 3);
        wheel.remove(second);
        wheel.remove(first);
        wheel.insert(10, 4);
        assert_eq!(wheel.nodes.len(), 3);
        assert_eq!(fired(&mut wheel, 10), [3, 4]);
    }

    #[test]
    fn a_tick_of_the_past_fires_at_the_next_advance() {
        let mut wheel = Wheel::new();
        wheel.advance(1000, |_| ());
        wheel.insert(5, 7);
        assert_eq!(wheel.next_tick(), Some(1000));
        assert_eq!(fired(&mut wheel, 1000), [7]);
    }

    #[test]
    fn every_level_fires_on_its_tick_from_wherever_the_wheel_stands() {
        for start in [0, 1, 62, 63, 64, 4095, 262_143, (1 << 24) - 1, (1 << 36) - 1, 1 << 40] {
            for bits in 0..41 {
                let mut wheel = Wheel::new();
                wheel.advance(start, |_| ());
                let tick = start + (1 << bits);
                wheel.insert(tick, 1);
                assert_eq!(fired(&mut wheel, tick - 1), [] as [u64; 0], "{start} + 2^{bits}");
                assert!(wheel.next_tick().is_some_and(|next| next <= tick));
                assert_eq!(fired(&mut wheel, tick), [1], "{start} + 2^{bits}");
            }
        }
    }

    #[test]
    fn a_tick_beyond_the_span_waits_and_can_be_removed() {
        let mut wheel = Wheel::new();
        let far = wheel.insert(u64::MAX, 1);
        wheel.insert(SPAN_MAX / 2 + 5, 2);
        assert_eq!(fired(&mut wheel, SPAN_MAX / 2), [] as [u64; 0]);
        wheel.insert(u64::MAX - 1, 3); // half of the span has passed: it must not wrap around
        assert_eq!(fired(&mut wheel, SPAN_MAX / 2 + 4), [] as [u64; 0]);
        assert_eq!(fired(&mut wheel, SPAN_MAX / 2 + 5), [2]);
        assert_eq!(fired(&mut wheel, SPAN_MAX - SPAN_MAX / 64 - 1), [] as [u64; 0]);
        wheel.remove(far);
        assert_eq!(wheel.len(), 1);
    }

    /// Against a sorted list, over a long seeded run with jumps of every size.
    #[test]
    fn the_wheel_agrees_with_a_plain_list() {
        for seed in 1..=64_u64 {
            let mut wheel = Wheel::new();
            let mut model: Vec<(u64, u64, TimerKey)> = Vec::new();
            let (mut now, mut token, mut state) =
                (0_u64, 0_u64, seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
            for _ in 0..2000 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                match state % 5 {
                    0..=2 => {
                        let tick = now + (state >> 8) % (1 << (state % 23));
                        token += 1;
                        model.push((tick, token, wheel.insert(tick, token)));
                    }
                    3 if !model.is_empty() => {
                        let (_, _, key) = model.swap_remove((state >> 8) as usize % model.len());
                        wheel.remove(key);
                    }
                    _ => {
                        now += (state >> 8) % (1 << (state % 19));
                        if let Some(earliest) = model.iter().map(|m| m.0).min() {
                            let next = wheel.next_tick().expect("not empty");
                            assert!(
                                next <= earliest.max(wheel.now),
                                "seed {seed}: sleeps too long"
                            );
                        }
                        let mut expected: Vec<u64> =
                            model.iter().filter(|m| m.0 <= now).map(|m| m.1).collect();
                        expected.sort_unstable();
                        model.retain(|m| m.0 > now);
                        assert_eq!(fired(&mut wheel, now), expected, "seed {seed}");
                    }
                }
                assert_eq!(wheel.len(), model.len());
            }
        }
    }
}
