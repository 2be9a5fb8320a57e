//! What the core knows of its descriptors: one slot each, with readiness, wakers and deadlines,
//! and the tokens by which the ring speaks of them. The ring's completions and the wheel's timers
//! end here; `io`, `socket` and `listener` wait on what is noted. Never makes a system call but to
//! close what nobody else can close.
#![expect(unsafe_code, reason = "closes raw descriptors")]

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::task::Waker;

use crate::engine::ring::{Completion, Ring};
use crate::engine::timer::{TimerKey, Wheel};
use crate::limits;

pub(super) const READ: u8 = 1;
pub(super) const WRITE: u8 = 2;
/// The peer has finished sending, or the socket failed. Sticky: it is told by one edge only.
pub(super) const HANG_UP: u8 = 4;
/// The connection is broken: reset, or both sides have finished. Sticky too.
pub(super) const BROKEN: u8 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Free,
    /// Not polled yet: nothing of it is known to the ring.
    Fresh,
    /// A multishot operation is armed.
    Armed,
    /// Cancelled and closed: the slot is free at the operation's last completion.
    Closing,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) fd: RawFd,
    pub(super) generation: u32,
    pub(super) state: State,
    /// Which operation is armed, for its cancellation.
    pub(super) kind: u64,
    pub(super) ready: u8,
    pub(super) timed_out: u8,
    pub(super) reader: Option<Waker>,
    pub(super) writer: Option<Waker>,
    /// In ticks; 0 is none.
    pub(super) read_deadline: u64,
    pub(super) write_deadline: u64,
    pub(super) timer: Option<TimerKey>,
    pub(super) timer_tick: u64,
    /// For listeners: what multishot accept has brought.
    #[expect(clippy::box_collection, reason = "8 bytes, not 32, in slots that do not listen")]
    pub(super) accepted: Option<Box<VecDeque<i32>>>,
    pub(super) parked: Parked,
    /// Not polled, but somebody wants to be told when the connection breaks.
    pub(super) watched: bool,
}

/// A connection between two requests may be closed at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Parked {
    #[default]
    No,
    /// For less than `PARK_AFTER`, so for less long than all that are parked for long.
    Briefly,
    Long,
    /// It was told to make room for another, and has not gone yet.
    Recalled,
}

impl Slot {
    fn deadline(&self) -> u64 {
        match (self.read_deadline, self.write_deadline) {
            (0, other) | (other, 0) => other,
            (read, write) => read.min(write),
        }
    }

    /// As if the time to read were over; what has arrived is read before that.
    fn end_wait(&mut self, wake: &mut Vec<Waker>) {
        self.timed_out |= READ;
        self.ready |= READ;
        wake.extend(self.reader.take());
    }

    pub(super) fn close_accepted(&mut self) {
        let accepted = self.accepted.take().into_iter().flat_map(|accepted| *accepted);
        accepted.filter(|fd| *fd >= 0).for_each(close);
    }
}

/// All descriptors of a core.
#[derive(Debug, Default)]
pub(super) struct Slots {
    pub(super) slots: Vec<Slot>,
    free: Vec<u32>,
    open: usize,
}

pub(super) const KIND_IO: u64 = 1;
pub(super) const KIND_IGNORED: u64 = 2;
pub(super) const KIND_SLEEP: u64 = 3;
pub(super) const KIND_ACCEPT: u64 = 4;
pub(super) const KIND_DOORBELL: u64 = 5;

/// What a completion or a timer belongs to: kind, generation, index. The generation keeps a late
/// completion from reaching the slot's next owner.
pub(super) fn token(kind: u64, generation: u32, index: u32) -> u64 {
    kind << 56 | u64::from(generation & 0x00FF_FFFF) << 32 | u64::from(index)
}

pub(super) fn token_kind(token: u64) -> u64 {
    token >> 56
}

pub(super) fn token_index(token: u64) -> u32 {
    token as u32
}

pub(super) fn token_generation(token: u64) -> u32 {
    (token >> 32) as u32 & 0x00FF_FFFF
}

impl Slots {
    pub(super) fn insert(&mut self, fd: RawFd, ready: u8) -> u32 {
        self.open += 1;
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.fd = fd;
            slot.state = State::Fresh;
            slot.ready = ready;
            slot.timed_out = 0;
            slot.parked = Parked::No;
            slot.watched = false;
            return index;
        }
        self.slots.push(Slot {
            fd,
            generation: 0,
            state: State::Fresh,
            kind: KIND_IO,
            ready,
            timed_out: 0,
            reader: None,
            writer: None,
            read_deadline: 0,
            write_deadline: 0,
            timer: None,
            timer_tick: 0,
            accepted: None,
            parked: Parked::No,
            watched: false,
        });
        self.slots.len() as u32 - 1
    }

    pub(super) fn release(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.state = State::Free;
        slot.generation = slot.generation.wrapping_add(1) & 0x00FF_FFFF;
        self.free.push(index);
        self.open -= 1;
    }

    /// Notes what the ring says of a descriptor; wakers to wake go into `wake`.
    pub(super) fn complete(&mut self, completion: Completion, wake: &mut Vec<Waker>) {
        let index = token_index(completion.token);
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return;
        };
        if slot.generation != token_generation(completion.token) {
            return;
        }
        if slot.state == State::Closing {
            if !completion.more {
                self.release(index);
            }
            return;
        }
        if !completion.more {
            // The operation has ended (an overflow, an error): it is armed again by the next wait,
            // and until then nothing is known, so both sides must try.
            slot.state = State::Fresh;
            slot.ready |= READ | WRITE;
        }
        if completion.result >= 0 {
            let events = completion.result;
            if events & i32::from(libc::POLLIN) != 0 {
                slot.ready |= READ;
            }
            if events & i32::from(libc::POLLOUT) != 0 {
                slot.ready |= WRITE;
            }
            if events & i32::from(libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0 {
                slot.ready |= READ | WRITE | HANG_UP;
            }
            if events & i32::from(libc::POLLHUP | libc::POLLERR) != 0 {
                slot.ready |= BROKEN;
            }
        }
        if slot.ready & READ != 0 {
            wake.extend(slot.reader.take());
        }
        if slot.ready & WRITE != 0 {
            wake.extend(slot.writer.take());
        }
    }

    /// A new connection, or the end of the multishot accept. Returns the operation to cancel when
    /// connections come faster than they are taken.
    pub(super) fn accepted(
        &mut self,
        completion: Completion,
        wake: &mut Vec<Waker>,
    ) -> Option<u64> {
        let index = token_index(completion.token);
        let slot = self
            .slots
            .get_mut(index as usize)
            .filter(|slot| slot.generation == token_generation(completion.token));
        let Some(slot) = slot else {
            // Its listener is gone already: nobody else can close it.
            if completion.result >= 0 {
                close(completion.result);
            }
            return None;
        };
        let accepted = slot.accepted.get_or_insert_default();
        accepted.push_back(completion.result);
        wake.extend(slot.reader.take());
        if completion.more {
            // Asked for once, as the list passes its bound: it goes on growing until that is done.
            return (accepted.len() == limits::ACCEPTED_MAX).then_some(completion.token);
        }
        if slot.state == State::Closing {
            slot.close_accepted();
            self.release(index);
        } else {
            slot.state = State::Fresh;
        }
        None
    }

    /// What the ring was asked for may have ended unheard. All of it is cancelled, and a new
    /// generation keeps out what still comes of it; both sides must try.
    pub(super) fn forget_operations(
        &mut self,
        ring: &mut Ring,
        wheel: &mut Wheel,
        wake: &mut Vec<Waker>,
    ) {
        for index in 0..self.slots.len() as u32 {
            let slot = &mut self.slots[index as usize];
            match slot.state {
                State::Free | State::Fresh => {}
                State::Closing => {
                    slot.close_accepted();
                    self.release(index);
                }
                State::Armed => {
                    let target = token(slot.kind, slot.generation, index);
                    ring.cancel(target, token(KIND_IGNORED, 0, 0));
                    slot.generation = slot.generation.wrapping_add(1) & 0x00FF_FFFF;
                    slot.state = State::Fresh;
                    slot.ready |= READ | WRITE;
                    if let Some(key) = slot.timer.take() {
                        wheel.remove(key);
                        let owner = token(KIND_IO, slot.generation, index);
                        slot.timer = Some(wheel.insert(slot.timer_tick, owner));
                    }
                    wake.extend([slot.reader.take(), slot.writer.take()].into_iter().flatten());
                }
            }
        }
    }

    /// A deadline timer fired. Deadlines move forward without touching the wheel, so it may be
    /// early: then the tick to arm again is returned.
    pub(super) fn expire(&mut self, token: u64, now: u64, wake: &mut Vec<Waker>) -> Option<u64> {
        let slot = self.slots.get_mut(token_index(token) as usize)?;
        if slot.generation != token_generation(token) {
            return None;
        }
        slot.timer = None;
        if slot.read_deadline != 0 && slot.read_deadline <= now {
            slot.read_deadline = 0;
            slot.timed_out |= READ;
            wake.extend(slot.reader.take());
        }
        if slot.write_deadline != 0 && slot.write_deadline <= now {
            slot.write_deadline = 0;
            slot.timed_out |= WRITE;
            wake.extend(slot.writer.take());
        }
        (slot.deadline() != 0).then(|| slot.deadline())
    }

    pub(super) fn armed(&mut self, token: u64, tick: u64, key: TimerKey) {
        let slot = &mut self.slots[token_index(token) as usize];
        slot.timer = Some(key);
        slot.timer_tick = tick;
    }

    /// Everybody who waits for a descriptor looks again.
    pub(super) fn wake_all(&mut self, wake: &mut Vec<Waker>) {
        for slot in self.slots.iter_mut().filter(|slot| slot.state != State::Free) {
            wake.extend(slot.reader.take());
            wake.extend(slot.writer.take());
        }
    }

    /// Ends the waits of all parked connections, as if their time were over. What has arrived is
    /// read before that, also when the ring has not told of it yet.
    pub(super) fn expire_parked(&mut self, wake: &mut Vec<Waker>) {
        let parked = |slot: &&mut Slot| slot.parked != Parked::No && slot.state != State::Free;
        for slot in self.slots.iter_mut().filter(parked) {
            slot.end_wait(wake);
        }
    }

    /// Ends the waits of the connections that are parked longest: of so many that looking for them
    /// costs little for each. Returns how many were told, `None` when there are none; while some
    /// are about to go, no others are told.
    pub(super) fn recall_parked(
        &mut self,
        briefly_too: bool,
        wake: &mut Vec<Waker>,
    ) -> Option<usize> {
        let mut parked = Vec::new();
        let mut going = false;
        for (index, slot) in self.slots.iter().enumerate() {
            match slot.parked {
                _ if matches!(slot.state, State::Free | State::Closing) => {}
                Parked::No => {}
                Parked::Recalled => going = true,
                // The time they are given is the same, so the first to end began first.
                Parked::Briefly if !briefly_too => {}
                Parked::Briefly => parked.push((true, slot.read_deadline, index)),
                Parked::Long => parked.push((false, slot.read_deadline, index)),
            }
        }
        if going || parked.is_empty() {
            return going.then_some(0);
        }
        let count = (parked.len() / limits::RECALLED_PART).max(1);
        parked.select_nth_unstable(count - 1);
        for &(_, _, index) in &parked[..count] {
            self.slots[index].parked = Parked::Recalled;
            self.slots[index].end_wait(wake);
        }
        Some(count)
    }

    /// Has those polled that are watched by now: most were done before that cost anything.
    pub(super) fn poll_watched(&mut self, mut poll: impl FnMut(RawFd, u64)) {
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let watched = std::mem::take(&mut slot.watched);
            if watched && slot.state == State::Fresh && slot.reader.is_some() {
                slot.state = State::Armed;
                slot.kind = KIND_IO;
                poll(slot.fd, token(KIND_IO, slot.generation, index as u32));
            }
        }
    }

    /// All wakers, of a core that ends.
    pub(super) fn take_wakers(&mut self, into: &mut Vec<Waker>) {
        into.extend(
            self.slots
                .iter_mut()
                .flat_map(|slot| [slot.reader.take(), slot.writer.take()])
                .flatten(),
        );
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }
}

pub(super) fn close(fd: RawFd) {
    // SAFETY: the caller owns `fd` and forgets it.
    unsafe { libc::close(fd) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_keep_their_parts_apart() {
        let token = token(KIND_ACCEPT, 0xFFFF_FFFF, u32::MAX);
        assert_eq!(token_kind(token), KIND_ACCEPT);
        assert_eq!(token_generation(token), 0x00FF_FFFF);
        assert_eq!(token_index(token), u32::MAX);
    }

    #[test]
    fn generations_wrap_without_touching_the_kind() {
        let mut slots = Slots::default();
        let index = slots.insert(-1, 0);
        slots.slots[index as usize].generation = 0x00FF_FFFF;
        slots.release(index);
        assert_eq!(slots.slots[index as usize].generation, 0);
    }

    fn parked(slots: &mut Slots, parked: Parked, read_deadline: u64) -> usize {
        let index = slots.insert(-1, 0) as usize;
        slots.slots[index].parked = parked;
        slots.slots[index].read_deadline = read_deadline;
        index
    }

    #[test]
    fn those_parked_longest_make_room_and_no_others_until_they_have_gone() {
        let mut slots = Slots::default();
        let busy = parked(&mut slots, Parked::No, 1);
        let brief = parked(&mut slots, Parked::Briefly, 2);
        let later = parked(&mut slots, Parked::Long, 9);
        let first = parked(&mut slots, Parked::Long, 8);
        let recalled = |slots: &Slots| -> Vec<usize> {
            let all = 0..slots.slots.len();
            all.filter(|&index| slots.slots[index].parked == Parked::Recalled).collect()
        };
        for (next, briefly_too) in [(first, true), (later, false), (brief, true)] {
            if next == brief {
                assert_eq!(slots.recall_parked(false, &mut Vec::new()), None);
            }
            assert_eq!(slots.recall_parked(briefly_too, &mut Vec::new()), Some(1));
            assert_eq!(slots.recall_parked(true, &mut Vec::new()), Some(0), "one is going");
            assert_eq!(recalled(&slots), [next]);
            assert_eq!(slots.slots[next].ready & slots.slots[next].timed_out, READ);
            slots.slots[next].parked = Parked::No; // its task does so as it goes
            slots.release(next as u32);
        }
        assert_eq!(slots.recall_parked(true, &mut Vec::new()), None);
        assert_eq!(slots.slots[busy].ready, 0);
    }

    #[test]
    fn of_many_that_are_parked_a_part_makes_room_at_once() {
        let mut slots = Slots::default();
        for deadline in 1..=10 * limits::RECALLED_PART as u64 {
            parked(&mut slots, Parked::Long, deadline);
        }
        assert_eq!(slots.recall_parked(false, &mut Vec::new()), Some(10));
        assert!(slots.slots[..10].iter().all(|slot| slot.parked == Parked::Recalled));
        assert!(slots.slots[10..].iter().all(|slot| slot.parked == Parked::Long));
    }
}
