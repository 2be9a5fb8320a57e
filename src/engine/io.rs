//! Descriptors on the core's ring: readiness by edge, then the system call itself, at once.
//! A descriptor is polled only after it was found not ready, so a connection that lives for one
//! request may never be. Owned memory is never lent to the kernel: a dropped future leaves nothing
//! behind.
#![expect(unsafe_code, reason = "system calls on raw descriptors")]

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::engine::host::Machine;
use crate::engine::ring::Completion;
use crate::engine::timer::TimerKey;
use crate::engine::{sleep, sockaddr, yield_now};
use crate::limits;

const READ: u8 = 1;
const WRITE: u8 = 2;
/// The peer has finished sending, or the socket failed. Sticky: it is told by one edge only.
const HANG_UP: u8 = 4;
/// The connection is broken: reset, or both sides have finished. Sticky too.
const BROKEN: u8 = 8;

/// What a side of a descriptor waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Read,
    Write,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
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
    fd: RawFd,
    generation: u32,
    state: State,
    /// Which operation is armed, for its cancellation.
    kind: u64,
    ready: u8,
    timed_out: u8,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// In ticks; 0 is none.
    read_deadline: u64,
    write_deadline: u64,
    timer: Option<TimerKey>,
    timer_tick: u64,
    /// For listeners: what multishot accept has brought.
    #[expect(clippy::box_collection, reason = "8 bytes, not 32, in slots that do not listen")]
    accepted: Option<Box<VecDeque<i32>>>,
    /// A connection between two requests: it may be closed at any time.
    parked: bool,
}

impl Slot {
    fn deadline(&self) -> u64 {
        match (self.read_deadline, self.write_deadline) {
            (0, other) | (other, 0) => other,
            (read, write) => read.min(write),
        }
    }

    fn close_accepted(&mut self) {
        let accepted = self.accepted.take().into_iter().flat_map(|accepted| *accepted);
        accepted.filter(|fd| *fd >= 0).for_each(close);
    }
}

/// All descriptors of a core.
#[derive(Debug, Default)]
pub(super) struct Slots {
    slots: Vec<Slot>,
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
    fn insert(&mut self, fd: RawFd, ready: u8) -> u32 {
        self.open += 1;
        if let Some(index) = self.free.pop() {
            let slot = &mut self.slots[index as usize];
            slot.fd = fd;
            slot.state = State::Fresh;
            slot.ready = ready;
            slot.timed_out = 0;
            slot.parked = false;
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
            parked: false,
        });
        self.slots.len() as u32 - 1
    }

    fn release(&mut self, index: u32) {
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

    /// A new connection, or the end of the multishot accept.
    pub(super) fn accepted(&mut self, completion: Completion, wake: &mut Vec<Waker>) {
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
            return;
        };
        slot.accepted.get_or_insert_default().push_back(completion.result);
        wake.extend(slot.reader.take());
        if completion.more {
            return;
        }
        if slot.state == State::Closing {
            slot.close_accepted();
            self.release(index);
        } else {
            slot.state = State::Fresh;
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

    /// Ends the waits of all parked connections, as if their time were over. What has arrived is read
    /// before that, also when the ring has not told of it yet.
    pub(super) fn expire_parked(&mut self, wake: &mut Vec<Waker>) {
        for slot in self.slots.iter_mut().filter(|slot| slot.parked && slot.state != State::Free) {
            slot.timed_out |= READ;
            slot.ready |= READ;
            wake.extend(slot.reader.take());
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

/// A descriptor registered with this core's ring. Dropping it closes it.
pub struct Descriptor {
    machine: Rc<Machine>,
    fd: RawFd,
    index: u32,
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

    fn with_readiness(fd: OwnedFd, ready: u8) -> Descriptor {
        let machine = Machine::current();
        let fd = fd.into_raw_fd();
        let index = machine.slots.borrow_mut().insert(fd, ready);
        Descriptor { machine, fd, index }
    }

    /// Tries `operation` when the side may be ready, waits otherwise. `WouldBlock` clears
    /// readiness.
    fn poll_io<T>(
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
    async fn connected(&self) -> io::Result<()> {
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

    fn is_armed(&self) -> bool {
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
    /// knows.
    pub fn is_quiet(&self) -> bool {
        let slots = self.machine.slots.borrow();
        slots.slots[self.index as usize].ready & (READ | HANG_UP) == 0
    }

    /// Ready when the connection is known to be broken. Costs nothing on one that was never waited
    /// for: of that, nothing is known.
    fn poll_broken(&self, context: &Context<'_>) -> Poll<()> {
        let mut slots = self.machine.slots.borrow_mut();
        let slot = &mut slots.slots[self.index as usize];
        if slot.ready & BROKEN != 0 {
            return Poll::Ready(());
        }
        let armed = slot.state == State::Armed;
        let replaced = armed.then(|| set_waker(&mut slot.reader, context)).flatten();
        drop(slots);
        drop(replaced);
        Poll::Pending
    }

    /// Takes the descriptor out of this core, so that another may have it. Only before it was
    /// polled.
    fn take(mut self) -> Option<OwnedFd> {
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

    fn not_ready(&self, bits: u8) {
        self.machine.slots.borrow_mut().slots[self.index as usize].ready &= !bits;
    }

    /// A short read: what was there is taken. Readiness is kept when the peer has hung up, because
    /// no other edge will tell.
    fn drained(&self) {
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

/// A connected TCP socket.
#[derive(Debug)]
pub struct Socket(Descriptor);

impl Socket {
    /// A socket that another core has accepted.
    pub fn adopt(fd: OwnedFd) -> Socket {
        Socket(Descriptor::new(fd))
    }

    /// Gives the socket to another core. Only before the first wait on it.
    pub fn take(self) -> Option<OwnedFd> {
        self.0.take()
    }

    pub async fn connect(address: SocketAddr, timeout: Duration) -> io::Result<Socket> {
        let fd = sockaddr::stream_socket(address)?;
        let connecting = sockaddr::connect(&fd, address)?;
        let socket =
            Socket(Descriptor::with_readiness(fd, if connecting { 0 } else { READ | WRITE }));
        if connecting {
            socket.set_deadline(Side::Write, Some(timeout));
            socket.0.connected().await?;
            socket.set_deadline(Side::Write, None);
            // Nothing can have been said by a peer that we have said nothing to, or it tells by an
            // edge.
            socket.0.drained();
        }
        Ok(socket)
    }

    pub fn poll_recv(&self, context: &Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let received = self.0.poll_io(context, Side::Read, |fd| {
            // SAFETY: the pointer and length are of `buffer`, borrowed for the call.
            check(unsafe { libc::recv(fd, buffer.as_mut_ptr().cast(), buffer.len(), 0) })
        });
        if let Poll::Ready(Ok(n)) = received
            && n != 0
            && n < buffer.len()
        {
            self.0.drained();
        }
        received
    }

    /// Bytes received; 0 at the end of the stream.
    pub async fn recv(&self, buffer: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|context| self.poll_recv(context, buffer)).await
    }

    /// Bytes that are here now, 0 at the end of the stream; `None` when it has to be waited for more.
    pub fn try_recv(&self, buffer: &mut [u8]) -> Option<io::Result<usize>> {
        loop {
            // SAFETY: the pointer and length are of `buffer`, borrowed for the call.
            let received = check(unsafe {
                libc::recv(self.0.fd, buffer.as_mut_ptr().cast(), buffer.len(), 0)
            });
            match received {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.0.not_ready(READ);
                    return None;
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(n) if n != 0 && n < buffer.len() => {
                    self.0.drained();
                    return Some(Ok(n));
                }
                result => return Some(result),
            }
        }
    }

    pub fn poll_send(
        &self,
        context: &Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.poll_io(context, Side::Write, |fd| {
            if let [part] = parts {
                // SAFETY: the pointer and length are of `part`, borrowed for the call.
                check(unsafe {
                    libc::send(fd, part.as_ptr().cast(), part.len(), libc::MSG_NOSIGNAL)
                })
            } else {
                // SAFETY: IoSlice has the layout of iovec; all parts are borrowed for the call.
                check(unsafe { libc::writev(fd, parts.as_ptr().cast(), parts.len() as i32) })
            }
        })
    }

    /// All of `parts`, in as few calls as the socket takes. `TimedOut` when the peer takes nothing
    /// for as long as `patience`.
    pub async fn send(&self, parts: &[&[u8]; 3], patience: Duration) -> Result<(), SendError> {
        let total = parts.iter().map(|part| part.len()).sum::<usize>();
        let mut sent = 0;
        let mut waited = false;
        while sent < total {
            // Patience begins anew with every byte that is taken, not with every look.
            let mut waiting = false;
            sent += std::future::poll_fn(|context| {
                let (slices, used) = remaining(parts, sent);
                let poll = self.poll_send(context, &slices[..used]);
                if poll.is_pending() && !std::mem::replace(&mut waiting, true) {
                    self.set_deadline(Side::Write, Some(patience));
                }
                poll
            })
            .await
            .map_err(|cause| SendError { sent, cause })?;
            waited |= waiting;
        }
        if waited {
            // Else it would pass between two sends, and the next that has to wait would find it.
            self.set_deadline(Side::Write, None);
        }
        Ok(())
    }

    /// No more bytes from us; the peer sees the end of the stream.
    pub fn finish(&self) {
        // SAFETY: a plain call on an open descriptor.
        unsafe { libc::shutdown(self.0.fd, libc::SHUT_WR) };
    }

    pub fn set_deadline(&self, side: Side, after: Option<Duration>) {
        self.0.set_deadline(side, after);
    }

    pub async fn ready(&self, side: Side) -> io::Result<()> {
        self.0.ready(side).await
    }

    pub fn poll_ready(&self, context: &Context<'_>, side: Side) -> Poll<io::Result<()>> {
        self.0.poll_ready(context, side)
    }

    pub fn is_quiet(&self) -> bool {
        self.0.is_quiet()
    }

    /// Whether nothing waits to be read and nothing has ended. Readiness alone may be older than
    /// the last read, so then the kernel is asked.
    pub fn is_silent(&self) -> bool {
        if !self.0.is_quiet() && self.peek_would_block() {
            self.0.not_ready(READ);
        }
        self.0.is_quiet()
    }

    fn peek_would_block(&self) -> bool {
        let mut byte = 0_u8;
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: one byte of ours, for the call.
        let peeked = unsafe { libc::recv(self.0.fd, (&raw mut byte).cast(), 1, flags) };
        check(peeked).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Says whether the connection is between two requests: then a drain may end its wait.
    pub fn set_parked(&self, parked: bool) {
        self.0.machine.slots.borrow_mut().slots[self.0.index as usize].parked = parked;
    }

    pub fn poll_broken(&self, context: &Context<'_>) -> Poll<()> {
        self.0.poll_broken(context)
    }

    pub fn peer_address(&self) -> io::Result<SocketAddr> {
        sockaddr::peer_address(self.0.fd)
    }
}

/// A send that failed, and how many bytes the socket had taken by then.
#[derive(Debug)]
pub struct SendError {
    pub sent: usize,
    pub cause: io::Error,
}

/// What of `parts` is still to be sent.
fn remaining<'a>(parts: &[&'a [u8]; 3], mut sent: usize) -> ([IoSlice<'a>; 3], usize) {
    let mut slices = [IoSlice::new(&[]); 3];
    let mut used = 0;
    for part in parts {
        let skip = sent.min(part.len());
        sent -= skip;
        if skip < part.len() {
            slices[used] = IoSlice::new(&part[skip..]);
            used += 1;
        }
    }
    (slices, used)
}

/// A listening socket lent to this core: its own queue of its own SO_REUSEPORT socket.
#[derive(Debug)]
pub struct Listener {
    descriptor: Descriptor,
    taken: u32,
}

impl Listener {
    pub fn adopt(listener: TcpListener) -> Listener {
        Listener { descriptor: Descriptor::with_readiness(listener.into(), 0), taken: 0 }
    }

    /// The next connection. An error is of one connection or of the process (no descriptors left);
    /// the listener can be asked again.
    pub async fn accept(&mut self) -> io::Result<Socket> {
        self.taken += 1;
        if self.taken as usize >= limits::ACCEPTS_PER_TURN {
            self.taken = 0;
            yield_now().await;
        }
        let result = std::future::poll_fn(|context| self.poll_accept(context)).await;
        if result < 0 {
            return Err(io::Error::from_raw_os_error(-result));
        }
        // SAFETY: the kernel has just made this descriptor for us, and we take it out of the slot
        // once.
        Ok(Socket::adopt(unsafe { std::os::fd::FromRawFd::from_raw_fd(result) }))
    }

    /// Stops taking connections: they wait in the kernel's queue. `accept` begins again.
    pub fn pause(&self) {
        let machine = &self.descriptor.machine;
        let slots = machine.slots.borrow();
        let slot = &slots.slots[self.descriptor.index as usize];
        if slot.state == State::Armed {
            let target = token(KIND_ACCEPT, slot.generation, self.descriptor.index);
            machine.ring.borrow_mut().cancel(target, token(KIND_IGNORED, 0, 0));
        }
    }

    pub fn local_address(&self) -> io::Result<SocketAddr> {
        sockaddr::local_address(self.descriptor.fd)
    }

    /// The last connections, for a listener that is about to close: those accepted already and those
    /// still queued in the kernel, or on their way there.
    pub async fn last(&mut self) -> Vec<Socket> {
        self.pause();
        match sockaddr::drop_new_connections(self.descriptor.fd) {
            Ok(()) => sleep(limits::LAST_HANDSHAKES_TIME).await,
            Err(error) => log::warn!("connections that come this moment may be reset: {error}"),
        }
        let mut sockets = Vec::new();
        std::future::poll_fn(|context| {
            let mut slots = self.descriptor.machine.slots.borrow_mut();
            let slot = &mut slots.slots[self.descriptor.index as usize];
            if slot.state != State::Armed {
                return Poll::Ready(());
            }
            let replaced = set_waker(&mut slot.reader, context);
            drop(slots);
            drop(replaced);
            Poll::Pending
        })
        .await;
        let accepted = {
            let mut slots = self.descriptor.machine.slots.borrow_mut();
            slots.slots[self.descriptor.index as usize].accepted.take().unwrap_or_default()
        };
        let queued = std::iter::from_fn(|| self.accept_queued());
        for fd in accepted.into_iter().filter(|fd| *fd >= 0).chain(queued) {
            // SAFETY: the kernel has made this descriptor for us, and it is taken out of the list
            // once.
            sockets.push(Socket::adopt(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }));
        }
        sockets
    }

    fn accept_queued(&self) -> Option<RawFd> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let (nobody, length) = (std::ptr::null_mut(), std::ptr::null_mut());
        loop {
            // SAFETY: no address is asked for, so nothing is written.
            let fd = unsafe { libc::accept4(self.descriptor.fd, nobody, length, flags) };
            if fd >= 0 {
                return Some(fd);
            }
            // One that gave up while it was queued says nothing of those behind it.
            let error = io::Error::last_os_error();
            if !matches!(error.raw_os_error(), Some(libc::ECONNABORTED | libc::EINTR)) {
                return None;
            }
        }
    }

    fn poll_accept(&self, context: &Context<'_>) -> Poll<i32> {
        let machine = &self.descriptor.machine;
        let mut slots = machine.slots.borrow_mut();
        let slot = &mut slots.slots[self.descriptor.index as usize];
        while let Some(result) = slot.accepted.as_mut().and_then(|accepted| accepted.pop_front()) {
            if result != -libc::ECANCELED {
                return Poll::Ready(result);
            }
        }
        let replaced = set_waker(&mut slot.reader, context);
        if slot.state == State::Fresh {
            slot.state = State::Armed;
            slot.kind = KIND_ACCEPT;
            let token = token(KIND_ACCEPT, slot.generation, self.descriptor.index);
            machine.ring.borrow_mut().accept(self.descriptor.fd, token);
        }
        drop(slots);
        drop(replaced);
        Poll::Pending
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd
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

fn check(result: isize) -> io::Result<usize> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result as usize) }
}

fn close(fd: RawFd) {
    // SAFETY: the caller owns `fd` and forgets it.
    unsafe { libc::close(fd) };
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, Shutdown, TcpStream};

    use super::*;
    use crate::engine::test_core::{connection, on_a_core, settle, with_patience};
    use crate::engine::{now, sleep, spawn};

    const BRIEF: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(60);

    fn listener() -> (Listener, SocketAddr) {
        let socket = sockaddr::listen((Ipv4Addr::LOCALHOST, 0).into(), 1024).unwrap();
        let address = socket.local_addr().unwrap();
        (Listener::adopt(socket), address)
    }

    /// What a full completion queue does to a multishot operation: ends it.
    fn end_operation(descriptor: &Descriptor) {
        let machine = &descriptor.machine;
        let slots = machine.slots.borrow();
        let slot = &slots.slots[descriptor.index as usize];
        assert_eq!(slot.state, State::Armed);
        let target = token(slot.kind, slot.generation, descriptor.index);
        machine.ring.borrow_mut().cancel(target, token(KIND_IGNORED, 0, 0));
    }

    /// More completions than the queue holds, in one turn.
    fn overflow() {
        let machine = Machine::current();
        let nobody = token(KIND_IO, 0x00AB_CDEF, u32::MAX);
        for _ in 0..limits::RING_COMPLETIONS + 500 {
            machine.ring.borrow_mut().cancel(nobody, token(KIND_IGNORED, 0, 0));
        }
    }

    fn state_of(descriptor: &Descriptor) -> State {
        descriptor.machine.slots.borrow().slots[descriptor.index as usize].state
    }

    /// Lets a task wait for `socket` to be readable, so that it is armed.
    async fn arm(socket: &Socket) {
        let mut bytes = [0; 1];
        std::future::poll_fn(|context| {
            assert!(socket.poll_recv(context, &mut bytes).is_pending());
            Poll::Ready(())
        })
        .await;
        settle().await;
        assert_eq!(state_of(&socket.0), State::Armed);
    }

    /// Fills the socket until it takes no more, on the peer's side too.
    async fn fill(socket: &Socket) {
        let bytes = vec![7; 1 << 20];
        let mut full = 0;
        while full < 3 {
            let parts = [IoSlice::new(&bytes)];
            let poll = std::future::poll_fn(|c| Poll::Ready(socket.poll_send(c, &parts))).await;
            full = if poll.is_ready() { 0 } else { full + 1 };
            settle().await;
        }
    }

    /// Reads what there is, without blocking.
    fn empty(peer: &mut TcpStream) {
        peer.set_nonblocking(true).unwrap();
        let mut bytes = vec![0; 1 << 20];
        while peer.read(&mut bytes).is_ok() {}
        peer.set_nonblocking(false).unwrap();
    }

    // --- what edges tell -----------------------------------------------------------------------

    #[test]
    fn a_fin_that_arrives_together_with_data_is_seen() {
        on_a_core(|| async {
            for room in [3, 8, 100] {
                let (socket, mut peer) = connection();
                arm(&socket).await;
                // One edge: nobody looks at the ring between the two.
                peer.write_all(b"12345678").unwrap();
                peer.shutdown(Shutdown::Write).unwrap();
                let (mut bytes, mut total) = ([0; 100], 0);
                loop {
                    match socket.recv(&mut bytes[..room]).await.unwrap() {
                        0 => break,
                        count => total += count,
                    }
                }
                assert_eq!(total, 8);
                assert!(!socket.is_quiet());
            }
        });
    }

    #[test]
    fn a_half_closed_peer_still_gets_everything() {
        on_a_core(|| async {
            let (socket, mut peer) = connection();
            arm(&socket).await;
            peer.shutdown(Shutdown::Write).unwrap();
            assert_eq!(socket.recv(&mut [0; 8]).await.unwrap(), 0);
            fill(&socket).await;
            let reader = std::thread::spawn(move || {
                let mut bytes = Vec::new();
                peer.read_to_end(&mut bytes).unwrap();
                bytes
            });
            socket.send(&[b"the ", b"", b"end"], LONG).await.unwrap();
            assert_eq!(socket.recv(&mut [0; 8]).await.unwrap(), 0, "and the end stays the end");
            drop(socket);
            settle().await;
            assert!(reader.join().unwrap().ends_with(b"the end"));
        });
    }

    #[test]
    fn a_reset_ends_both_sides_waits() {
        on_a_core(|| async {
            let (socket, peer) = connection();
            fill(&socket).await;
            arm(&socket).await;
            drop(peer); // with bytes unread: a reset
            std::future::poll_fn(|context| socket.poll_broken(context)).await;
            assert!(socket.recv(&mut [0; 8]).await.is_err());
            assert!(socket.send(&[b"x", b"", b""], LONG).await.is_err());
        });
    }

    #[test]
    fn bytes_that_come_between_two_reads_are_neither_lost_nor_waited_for() {
        on_a_core(|| async {
            let (socket, mut peer) = connection();
            let mut bytes = [0; 64];
            for round in 0..2000_u32 {
                peer.write_all(&round.to_ne_bytes()).unwrap();
                if round % 3 == 0 {
                    settle_quickly().await;
                }
                let mut have = 0;
                while have < 4 {
                    have += socket.recv(&mut bytes[have..]).await.unwrap();
                }
                assert_eq!(bytes[..4], round.to_ne_bytes());
            }
        });
    }

    async fn settle_quickly() {
        for _ in 0..2 * limits::ROUNDS_PER_TURN {
            yield_now().await;
        }
    }

    // --- operations that end ---------------------------------------------------------------------

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

    #[test]
    fn an_accept_that_ends_is_armed_again() {
        on_a_core(|| async {
            let (mut listener, address) = listener();
            for round in 0..3 {
                let client = TcpStream::connect(address).unwrap();
                drop(listener.accept().await.unwrap());
                settle().await;
                // Pausing twice, and once with nothing armed, is as good as once.
                (0..round).for_each(|_| listener.pause());
                if round == 0 {
                    end_operation(&listener.descriptor);
                }
                settle().await;
                assert_eq!(state_of(&listener.descriptor), State::Fresh);
                drop(client);
            }
        });
    }

    #[test]
    fn a_paused_listener_leaves_connections_in_the_queue_until_it_is_asked_again() {
        on_a_core(|| async {
            let (mut listener, address) = listener();
            let _first = TcpStream::connect(address).unwrap();
            listener.accept().await.unwrap();
            listener.pause();
            settle().await;
            let _waiting: Vec<_> = (0..5).map(|_| TcpStream::connect(address).unwrap()).collect();
            settle().await;
            let slots = Machine::current();
            let index = listener.descriptor.index as usize;
            let accepted = slots.slots.borrow().slots[index].accepted.as_ref().map(|a| a.len());
            assert_eq!(accepted, Some(1), "the cancellation and nothing else");
            for _ in 0..5 {
                listener.accept().await.unwrap();
            }
            // Paused and asked again before the ring knows of it.
            listener.pause();
            let _last = TcpStream::connect(address).unwrap();
            listener.accept().await.unwrap();
        });
    }

    #[test]
    fn the_last_connections_of_a_listener_are_those_accepted_and_those_queued() {
        on_a_core(|| async {
            let (mut listener, address) = listener();
            let mut clients = vec![TcpStream::connect(address).unwrap()];
            listener.accept().await.unwrap();
            clients.extend((0..3).map(|_| TcpStream::connect(address).unwrap()));
            settle().await; // accepted by the kernel, not asked for
            listener.pause();
            settle().await;
            clients.extend((0..3).map(|_| TcpStream::connect(address).unwrap()));
            let sockets = listener.last().await;
            assert_eq!(sockets.len(), 6);
            drop(listener);
            for (mut client, socket) in clients.drain(1..).zip(sockets) {
                assert_eq!(socket.peer_address().unwrap(), client.local_addr().unwrap());
                socket.send(&[b"hi", b"", b""], LONG).await.unwrap();
                drop(socket);
                client = with_patience(client);
                client.read_exact(&mut [0; 2]).unwrap();
            }
        });
    }

    #[test]
    fn a_slow_task_loses_no_accepts() {
        on_a_core(|| async {
            let (mut listener, address) = listener();
            let _first = TcpStream::connect(address).unwrap();
            listener.accept().await.unwrap();
            let clients = std::thread::spawn(move || {
                (0..300).map(|_| TcpStream::connect(address).unwrap()).collect::<Vec<_>>()
            });
            std::thread::sleep(Duration::from_millis(100)); // the slow task
            for _ in 0..300 {
                listener.accept().await.unwrap();
            }
            assert_eq!(clients.join().unwrap().len(), 300);
        });
    }

    #[test]
    fn a_listener_that_always_has_connections_lets_others_run() {
        on_a_core(|| async {
            let (mut listener, address) = listener();
            let _clients: Vec<_> = (0..300).map(|_| TcpStream::connect(address).unwrap()).collect();
            let turns = Rc::new(Cell::new(0_usize));
            let counting = Rc::clone(&turns);
            spawn(async move {
                loop {
                    counting.set(counting.get() + 1);
                    yield_now().await;
                }
            });
            for _ in 0..300 {
                listener.accept().await.unwrap();
            }
            assert!(turns.get() >= 300 / limits::ACCEPTS_PER_TURN, "{}", turns.get());
        });
    }

    #[test]
    fn an_error_of_accept_is_told_once_and_the_listener_goes_on() {
        on_a_core(|| async {
            let (mut listener, address) = listener();
            let index = listener.descriptor.index;
            let generation = Machine::current().slots.borrow().slots[index as usize].generation;
            // As the kernel says that no descriptor is left: one result, and the operation is over.
            let completion = Completion {
                token: token(KIND_ACCEPT, generation, index),
                result: -libc::EMFILE,
                more: false,
            };
            Machine::current().slots.borrow_mut().accepted(completion, &mut Vec::new());
            let error = listener.accept().await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
            let _client = TcpStream::connect(address).unwrap();
            listener.accept().await.unwrap();
        });
    }

    // --- closing ---------------------------------------------------------------------------------

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

    #[test]
    fn a_connection_accepted_for_a_listener_that_has_gone_is_closed() {
        on_a_core(|| async {
            let (mut listener, address) = listener();
            let _first = TcpStream::connect(address).unwrap();
            listener.accept().await.unwrap();
            // Both are on their way at once: the connection, and the end of its listener.
            let mut late = with_patience(TcpStream::connect(address).unwrap());
            drop(listener);
            settle().await;
            let end = late.read(&mut [0; 8]);
            let reset = |e: &io::Error| e.kind() == io::ErrorKind::ConnectionReset;
            assert!(matches!(&end, Ok(0)) || end.as_ref().is_err_and(reset), "{end:?}");
            assert_eq!(crate::engine::core_state().descriptors, 0);
        });
    }

    #[test]
    fn a_socket_that_was_never_waited_for_can_be_given_away_and_others_cannot() {
        on_a_core(|| async {
            let (socket, mut peer) = connection();
            socket.set_deadline(Side::Read, Some(BRIEF));
            let given = socket.take().expect("fresh");
            assert_eq!(crate::engine::core_state().timers, 0);
            let socket = Socket::adopt(given);
            peer.write_all(b"abc").unwrap();
            assert_eq!(socket.recv(&mut [0; 8]).await.unwrap(), 3);
            arm(&socket).await;
            assert!(socket.take().is_none());
            settle().await;
            assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0, "and is closed");
        });
    }

    // --- deadlines -------------------------------------------------------------------------------

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

    #[test]
    fn a_send_that_waited_once_does_not_cut_a_later_one() {
        on_a_core(|| async {
            let (socket, mut peer) = connection();
            fill(&socket).await;
            let waiting = socket.send(&[b"one", b"", b""], BRIEF);
            let mut waiting = std::pin::pin!(waiting);
            std::future::poll_fn(|context| {
                assert!(waiting.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            empty(&mut peer);
            waiting.await.unwrap();
            sleep(2 * BRIEF).await; // that deadline is over
            fill(&socket).await;
            settle().await;
            let begun = now();
            let more = vec![2; 32 << 20]; // than any socket takes
            let error = socket.send(&[&more, b"", b""], 3 * BRIEF).await.unwrap_err();
            assert_eq!(error.cause.kind(), io::ErrorKind::TimedOut);
            assert!(now() - begun >= 3 * BRIEF, "it had its own patience");
        });
    }

    #[test]
    fn a_peer_that_takes_nothing_is_given_up_on_however_busy_the_task_is() {
        on_a_core(|| async {
            let (socket, _peer) = connection();
            fill(&socket).await;
            let send = socket.send(&[b"x", b"", b""], BRIEF);
            let mut send = std::pin::pin!(send);
            let mut tick = Box::pin(sleep(BRIEF / 4));
            let begun = now();
            // The task is woken more often than its patience lasts, for reasons of its own.
            let result = std::future::poll_fn(|context| {
                while tick.as_mut().poll(context).is_ready() {
                    tick = Box::pin(sleep(BRIEF / 4));
                    assert!(now() - begun < Duration::from_secs(5), "it waits for ever");
                }
                send.as_mut().poll(context)
            })
            .await;
            assert_eq!(result.unwrap_err().cause.kind(), io::ErrorKind::TimedOut);
        });
    }

    // --- connecting ------------------------------------------------------------------------

    #[test]
    fn a_connect_is_refused_at_once_and_given_up_on_late() {
        on_a_core(|| async {
            let (listener, address) = listener();
            let socket = Socket::connect(address, LONG).await.unwrap();
            assert_eq!(socket.peer_address().unwrap(), address);
            drop((listener, socket));
            settle().await;
            let refused = Socket::connect(address, LONG).await.unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            let (_full, address, _clients) = full_listener();
            let late = Socket::connect(address, BRIEF).await.unwrap_err();
            assert_eq!(late.kind(), io::ErrorKind::TimedOut);
            settle().await;
            assert_eq!(crate::engine::core_state().descriptors, 0);
        });
    }

    #[test]
    fn a_poll_that_ends_while_connecting_does_not_make_a_connection() {
        on_a_core(|| async {
            let (_full, address, _clients) = full_listener();
            let mut connecting = std::pin::pin!(Socket::connect(address, 5 * BRIEF));
            std::future::poll_fn(|context| {
                assert!(connecting.as_mut().poll(context).is_pending());
                Poll::Ready(())
            })
            .await;
            settle().await;
            let target = token(KIND_IO, 0, 0);
            let machine = Machine::current();
            machine.ring.borrow_mut().cancel(target, token(KIND_IGNORED, 0, 0));
            let late = connecting.await.unwrap_err();
            assert_eq!(late.kind(), io::ErrorKind::TimedOut);
        });
    }

    /// A listener that answers no more: its queue is full.
    fn full_listener() -> (std::net::TcpListener, SocketAddr, Vec<TcpStream>) {
        let listener = sockaddr::listen((Ipv4Addr::LOCALHOST, 0).into(), 0).unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(50));
        let clients = std::iter::from_fn(|| connect().ok()).take(100).collect();
        (listener, address, clients)
    }

    #[test]
    fn sends_of_every_split_arrive_whole() {
        on_a_core(|| async {
            let (socket, mut peer) = connection();
            let body: Vec<u8> = (0..3_000_000_u32).map(|n| n as u8).collect();
            let reader = std::thread::spawn(move || {
                let mut bytes = Vec::new();
                peer.read_to_end(&mut bytes).unwrap();
                bytes
            });
            socket.send(&[b"head", &body, b"tail"], LONG).await.unwrap();
            socket.send(&[b"", b"", b""], LONG).await.unwrap();
            socket.send(&[b"", b"middle", b""], LONG).await.unwrap();
            socket.finish();
            let got = reader.join().unwrap();
            assert_eq!(got, [b"head", &body[..], b"tailmiddle"].concat());
        });
    }

    #[test]
    fn remaining_parts_are_exactly_what_is_left() {
        let parts: [&[u8]; 3] = [b"ab", b"", b"cde"];
        for sent in 0..=5 {
            let (slices, used) = remaining(&parts, sent);
            let left: Vec<u8> = slices[..used].iter().flat_map(|s| s.iter().copied()).collect();
            assert_eq!(left, b"abcde"[sent..]);
            assert!(slices[..used].iter().all(|slice| !slice.is_empty()));
        }
    }

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
}
