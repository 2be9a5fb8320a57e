//! Descriptors on the core's ring: readiness by edge, then the system call itself, at once.
//! A descriptor is polled only after it was found not ready, so a connection that lives for one
//! request may never be. Owned memory is never lent to the kernel: a dropped future leaves nothing
//! behind.
#![expect(unsafe_code, reason = "system calls on raw descriptors")]

use std::io;
use std::os::fd::{IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::engine::host::Machine;
use crate::engine::slots::{
    BROKEN, HANG_UP, KIND_IGNORED, KIND_IO, READ, Slot, State, WRITE, close, token,
};
use crate::engine::sockaddr;

/// What a side of a descriptor waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Read,
    Write,
}

/// A descriptor registered with this core's ring. Dropping it closes it.
pub struct Descriptor {
    pub(super) machine: Rc<Machine>,
    pub(super) fd: RawFd,
    pub(super) index: u32,
}

impl std::fmt::Debug for Descriptor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Descriptor({})", self.fd)
    }
}

impl Descriptor {
    /// `fd` must be non-blocking.
    pub fn new(fd: OwnedFd) -> Descriptor {
        Descriptor::with_readiness(fd, READ | WRITE)
    }

    pub(super) fn with_readiness(fd: OwnedFd, ready: u8) -> Descriptor {
        let machine = Machine::current();
        let fd = fd.into_raw_fd();
        let index = machine.slots.borrow_mut().insert(fd, ready);
        Descriptor { machine, fd, index }
    }

    /// Tries `operation` when the side may be ready, waits otherwise. `WouldBlock` clears
    /// readiness.
    pub(super) fn poll_io<T>(
        &self,
        context: &Context<'_>,
        side: Side,
        mut operation: impl FnMut(RawFd) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let bit = bit(side);
        loop {
            if self.machine.slots.borrow().slots[self.index as usize].ready & bit != 0 {
                match operation(self.fd) {
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => self.not_ready(bit),
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    result => return Poll::Ready(result),
                }
            }
            match self.poll_ready(context, side) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Ready when the side may be tried; `TimedOut` when its deadline has passed.
    pub fn poll_ready(&self, context: &Context<'_>, side: Side) -> Poll<io::Result<()>> {
        let bit = bit(side);
        let mut slots = self.machine.slots.borrow_mut();
        let slot = &mut slots.slots[self.index as usize];
        if slot.ready & bit != 0 {
            return Poll::Ready(Ok(()));
        }
        if slot.timed_out & bit != 0 {
            slot.timed_out &= !bit;
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        let waker = match side {
            Side::Read => &mut slot.reader,
            Side::Write => &mut slot.writer,
        };
        let replaced = set_waker(waker, context);
        if slot.state == State::Fresh {
            slot.state = State::Armed;
            slot.kind = KIND_IO;
            let token = token(KIND_IO, slot.generation, self.index);
            self.machine.ring.borrow_mut().poll(self.fd, token);
        }
        drop(slots);
        drop(replaced);
        Poll::Pending
    }

    /// Until the side may be tried.
    pub async fn ready(&self, side: Side) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_ready(context, side)).await
    }

    /// Until the connect that goes on in the background has ended.
    pub(super) async fn connected(&self) -> io::Result<()> {
        loop {
            self.ready(Side::Write).await?;
            sockaddr::connect_error(self.fd)?;
            // A poll that ended for want of room knows nothing, and says that all may be tried.
            if self.is_armed() || sockaddr::peer_address(self.fd).is_ok() {
                return Ok(());
            }
            self.not_ready(READ | WRITE);
        }
    }

    pub(super) fn has_hung_up(&self) -> bool {
        self.machine.slots.borrow().slots[self.index as usize].ready & HANG_UP != 0
    }

    pub(super) fn is_armed(&self) -> bool {
        self.machine.slots.borrow().slots[self.index as usize].state == State::Armed
    }

    /// Reads with `read(2)`: for pipes, signalfd and the like.
    pub async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|context| {
            self.poll_io(context, Side::Read, |fd| {
                // SAFETY: the pointer and length are of `buffer`, borrowed for the call.
                check(unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) })
            })
        })
        .await
    }

    /// From now on a wait of this side ends with `TimedOut` at the deadline. `None`: waits for
    /// ever. Moving a deadline later, the usual case, is two stores.
    pub fn set_deadline(&self, side: Side, after: Option<Duration>) {
        let tick = after.map_or(0, |after| self.machine.tick_after(after));
        let mut slots = self.machine.slots.borrow_mut();
        let slot = &mut slots.slots[self.index as usize];
        match side {
            Side::Read => slot.read_deadline = tick,
            Side::Write => slot.write_deadline = tick,
        }
        slot.timed_out &= !bit(side);
        if tick == 0 || (slot.timer.is_some() && slot.timer_tick <= tick) {
            return;
        }
        let mut wheel = self.machine.wheel.borrow_mut();
        if let Some(key) = slot.timer.take() {
            wheel.remove(key);
        }
        slot.timer = Some(wheel.insert(tick, token(KIND_IO, slot.generation, self.index)));
        slot.timer_tick = tick;
    }

    /// Nothing has come since the last read found nothing: as far as the last turn of the ring
    /// knows. A hint that it is time to wait: what is not polled, or no longer, may be quiet only
    /// because nobody has asked, and the wait asks.
    pub fn is_quiet(&self) -> bool {
        let slots = self.machine.slots.borrow();
        slots.slots[self.index as usize].ready & (READ | HANG_UP) == 0
    }

    /// Ready when the connection is known to be broken. One that was never waited for is not polled
    /// for this: that comes with the next `watch_connections`, when the exchange still goes on.
    pub(super) fn poll_broken(&self, context: &Context<'_>) -> Poll<()> {
        let mut slots = self.machine.slots.borrow_mut();
        let slot = &mut slots.slots[self.index as usize];
        if slot.ready & BROKEN != 0 {
            return Poll::Ready(());
        }
        slot.watched = slot.state == State::Fresh;
        let replaced = set_waker(&mut slot.reader, context);
        drop(slots);
        drop(replaced);
        Poll::Pending
    }

    /// Takes the descriptor out of this core, so that another may have it. Only before it was
    /// polled.
    pub(super) fn take(mut self) -> Option<OwnedFd> {
        let mut slots = self.machine.slots.borrow_mut();
        let slot = &mut slots.slots[self.index as usize];
        if slot.state != State::Fresh {
            return None;
        }
        let wakers = (slot.reader.take(), slot.writer.take());
        self.forget_timer(slot);
        slots.release(self.index);
        drop(slots);
        drop(wakers);
        let fd = std::mem::replace(&mut self.fd, GIVEN_AWAY);
        // SAFETY: the slot has let go of `fd`, and dropping `self` no longer closes it.
        Some(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })
    }

    pub(super) fn not_ready(&self, bits: u8) {
        self.machine.slots.borrow_mut().slots[self.index as usize].ready &= !bits;
    }

    /// A short read: what was there is taken. Readiness is kept when the peer has hung up, because
    /// no other edge will tell.
    pub(super) fn drained(&self) {
        let mut slots = self.machine.slots.borrow_mut();
        let slot = &mut slots.slots[self.index as usize];
        if slot.ready & HANG_UP == 0 {
            slot.ready &= !READ;
        }
    }

    fn forget_timer(&self, slot: &mut Slot) {
        slot.read_deadline = 0;
        slot.write_deadline = 0;
        if let Some(key) = slot.timer.take() {
            self.machine.wheel.borrow_mut().remove(key);
        }
    }
}

/// The descriptor of a `Descriptor` that was taken from it.
const GIVEN_AWAY: RawFd = -1;

impl Drop for Descriptor {
    fn drop(&mut self) {
        if self.fd == GIVEN_AWAY {
            return;
        }
        let wakers;
        {
            let mut slots = self.machine.slots.borrow_mut();
            let slot = &mut slots.slots[self.index as usize];
            self.forget_timer(slot);
            wakers = (slot.reader.take(), slot.writer.take());
            slot.close_accepted();
            match slot.state {
                State::Fresh => {
                    slots.release(self.index);
                    close(self.fd);
                }
                State::Armed => {
                    // An armed operation pins the file: `close` alone would send no FIN.
                    slot.state = State::Closing;
                    let target = token(slot.kind, slot.generation, self.index);
                    let mut ring = self.machine.ring.borrow_mut();
                    ring.cancel(target, token(KIND_IGNORED, 0, 0));
                    ring.close(self.fd, token(KIND_IGNORED, 0, 0));
                }
                State::Free | State::Closing => unreachable!("a descriptor is dropped once"),
            }
        }
        drop(wakers); // a task's last waker may run its destructor: not while a cell is borrowed
    }
}

/// Remembers whom to wake. The waker that stood there before is handed out, to be dropped when no
/// cell is borrowed any more: it may be its task's last.
pub(super) fn set_waker(place: &mut Option<Waker>, context: &Context<'_>) -> Option<Waker> {
    if place.as_ref().is_some_and(|waker| waker.will_wake(context.waker())) {
        return None;
    }
    place.replace(context.waker().clone())
}

fn bit(side: Side) -> u8 {
    match side {
        Side::Read => READ,
        Side::Write => WRITE,
    }
}

pub(super) fn check(result: isize) -> io::Result<usize> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as usize) }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{Read as _, Write as _};
    use std::net::TcpStream;

    use super::*;
    use crate::engine::ring::Completion;
    use crate::engine::test_core::{
        BRIEF, LONG, arm, connection, end_operation, fill, listener, on_a_core, settle, state_of,
    };
    use crate::engine::{Socket, now, sleep, spawn};
    use crate::limits;

    /// More completions than the queue holds, in one turn.
    fn overflow() {
        let machine = Machine::current();
        let nobody = token(KIND_IO, 0x00AB_CDEF, u32::MAX);
        for _ in 0..limits::RING_COMPLETIONS + 500 {
            machine.ring.borrow_mut().cancel(nobody, token(KIND_IGNORED, 0, 0));
        }
    }

    // --- operations that end -----------------------------------------------------------------

    #[test]
    fn a_poll_that_ends_is_armed_again() {
        on_a_core(|| async {
            let (socket, mut peer) = connection();
            let mut bytes = [0; 8];
            for _ in 0..3 {
                arm(&socket).await;
                end_operation(&socket.0);
                settle().await;
                assert_eq!(state_of(&socket.0), State::Fresh);
                arm(&socket).await;
                peer.write_all(b"abc").unwrap();
                assert_eq!(socket.recv(&mut bytes).await.unwrap(), 3);
            }
        });
    }

    #[test]
    fn a_task_that_waits_when_its_poll_ends_is_woken_by_the_next_byte() {
        on_a_core(|| async {
            let (socket, mut peer) = connection();
            let socket = Rc::new(socket);
            let came = Rc::new(Cell::new(0));
            let (theirs, counting) = (Rc::clone(&socket), Rc::clone(&came));
            spawn(async move { counting.set(theirs.recv(&mut [0; 8]).await.unwrap()) });
            settle().await;
            end_operation(&socket.0);
            settle().await;
            assert_eq!((state_of(&socket.0), came.get()), (State::Armed, 0));
            peer.write_all(b"abc").unwrap();
            settle().await;
            assert_eq!(came.get(), 3);
        });
    }

    #[test]
    fn an_overflowing_completion_queue_makes_no_socket_and_no_listener_deaf() {
        on_a_core(|| async {
            let (mut listening, address) = listener();
            let accepted = Rc::new(Cell::new(0));
            let counting = Rc::clone(&accepted);
            spawn(async move {
                loop {
                    let socket = listening.accept().await.unwrap();
                    counting.set(counting.get() + 1);
                    std::mem::forget(socket);
                }
            });
            let received = Rc::new(Cell::new(0));
            let mut peers = Vec::new();
            for _ in 0..64 {
                let (socket, peer) = connection();
                peers.push(peer);
                let received = Rc::clone(&received);
                spawn(async move {
                    let mut bytes = [0; 8];
                    while let Ok(count @ 1..) = socket.recv(&mut bytes).await {
                        received.set(received.get() + count);
                    }
                });
            }
            settle().await;
            let mut clients = Vec::new();
            for round in 1..=3 {
                overflow();
                for peer in &mut peers {
                    peer.write_all(b"x").unwrap();
                }
                clients.extend((0..4).map(|_| TcpStream::connect(address).unwrap()));
                overflow();
                let begun = now();
                while (received.get() < 64 * round || accepted.get() < 4 * round)
                    && now() - begun < Duration::from_secs(5)
                {
                    settle().await;
                }
                assert_eq!((received.get(), accepted.get()), (64 * round, 4 * round));
            }
        });
    }

    // --- closing -----------------------------------------------------------------------------

    #[test]
    fn dropping_an_armed_socket_sends_fin_promptly() {
        on_a_core(|| async {
            let (socket, mut peer) = connection();
            arm(&socket).await;
            drop(socket);
            settle().await;
            peer.set_nonblocking(true).unwrap();
            assert_eq!(peer.read(&mut [0; 8]).expect("the end, and not a wait for it"), 0);
        });
    }

    #[test]
    fn a_slot_is_not_used_again_before_its_last_completion() {
        on_a_core(|| async {
            let (socket, _peer) = connection();
            arm(&socket).await;
            let index = socket.0.index;
            drop(socket);
            let (second, _peer) = connection();
            assert_ne!(second.0.index, index, "the ring still speaks of the first");
            settle().await;
            assert_eq!(crate::engine::core_state().descriptors, 1);
            let (third, _peer) = connection();
            assert_eq!(third.0.index, index);
        });
    }

    #[test]
    fn what_the_ring_says_late_does_not_reach_the_next_owner_of_a_slot() {
        on_a_core(|| async {
            let (socket, _peer) = connection();
            arm(&socket).await;
            let machine = Machine::current();
            let index = socket.0.index;
            let stale =
                token(KIND_IO, machine.slots.borrow().slots[index as usize].generation, index);
            drop(socket);
            settle().await;
            let (next, _peer) = connection();
            assert_eq!(next.0.index, index);
            arm(&next).await;
            next.set_deadline(Side::Read, Some(LONG));
            let everything = i32::from(libc::POLLIN | libc::POLLHUP);
            for more in [true, false] {
                let late = Completion { token: stale, result: everything, more };
                machine.slots.borrow_mut().complete(late, &mut Vec::new());
            }
            let again = machine.slots.borrow_mut().expire(stale, u64::MAX, &mut Vec::new());
            assert_eq!((again, next.is_quiet()), (None, true));
            assert_eq!(state_of(&next.0), State::Armed);
        });
    }

    // --- deadlines ---------------------------------------------------------------------------

    async fn waits(socket: &Socket) -> Duration {
        let begun = now();
        let error = socket.ready(Side::Read).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        now() - begun
    }

    #[test]
    fn a_deadline_moves_earlier_and_later() {
        on_a_core(|| async {
            let (socket, mut peer) = connection();
            arm(&socket).await;
            socket.set_deadline(Side::Read, Some(LONG));
            socket.set_deadline(Side::Read, Some(BRIEF));
            let waited = waits(&socket).await;
            assert!(waited >= BRIEF && waited < LONG, "{waited:?}");
            socket.set_deadline(Side::Read, Some(BRIEF));
            socket.set_deadline(Side::Read, Some(3 * BRIEF));
            assert!(waits(&socket).await >= 3 * BRIEF);
            socket.set_deadline(Side::Read, Some(BRIEF));
            socket.set_deadline(Side::Read, None);
            sleep(3 * BRIEF).await;
            peer.write_all(b"x").unwrap();
            assert_eq!(socket.recv(&mut [0; 8]).await.unwrap(), 1);
            assert_eq!(crate::engine::core_state().timers, 0);
        });
    }

    #[test]
    fn the_deadlines_of_both_sides_are_kept_apart() {
        on_a_core(|| async {
            let (socket, _peer) = connection();
            fill(&socket).await;
            arm(&socket).await;
            let socket = Rc::new(socket);
            socket.set_deadline(Side::Write, Some(3 * BRIEF));
            socket.set_deadline(Side::Read, Some(BRIEF));
            let (writer, begun) = (Rc::clone(&socket), now());
            let wrote = Rc::new(Cell::new(None));
            let result = Rc::clone(&wrote);
            spawn(async move {
                assert!(writer.ready(Side::Write).await.is_err());
                result.set(Some(now() - begun));
            });
            assert!(waits(&socket).await < 3 * BRIEF);
            assert_eq!(wrote.get(), None);
            sleep(4 * BRIEF).await;
            assert!(wrote.get().expect("it has timed out too") >= 3 * BRIEF);
        });
    }

    #[test]
    fn data_that_comes_with_the_deadline_wins() {
        on_a_core(|| async {
            let (socket, mut peer) = connection();
            arm(&socket).await;
            socket.set_deadline(Side::Read, Some(BRIEF));
            peer.write_all(b"x").unwrap();
            std::thread::sleep(2 * BRIEF); // the turn in which both become true
            assert_eq!(socket.recv(&mut [0; 8]).await.unwrap(), 1);
        });
    }

    #[test]
    fn data_that_comes_with_the_deadline_wins_on_a_socket_that_is_only_being_armed() {
        on_a_core(|| async {
            let (socket, mut peer) = connection();
            socket.set_deadline(Side::Read, Some(BRIEF));
            let mut bytes = [0; 8];
            let mut receiving = std::pin::pin!(socket.recv(&mut bytes));
            std::future::poll_fn(|context| {
                assert!(receiving.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            peer.write_all(b"x").unwrap();
            std::thread::sleep(2 * BRIEF);
            assert_eq!(receiving.await.unwrap(), 1);
        });
    }
}
