//! Descriptors on the core's ring: readiness by edge, then the system call itself, at once.
//! A descriptor is polled only after it was found not ready, so a connection that lives for one
//! request may never be. Owned memory is never lent to the kernel: a dropped future leaves nothing behind.
#![expect(unsafe_code, reason = "system calls on raw descriptors")]

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
    accepted: Vec<i32>,
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
            accepted: Vec::new(),
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
        slot.accepted.push(completion.result);
        wake.extend(slot.reader.take());
        if completion.more {
            return;
        }
        if slot.state == State::Closing {
            slot.accepted.drain(..).filter(|fd| *fd >= 0).for_each(close);
            self.release(index);
        } else {
            slot.state = State::Fresh;
        }
    }

    /// A deadline timer fired. Deadlines move forward without touching the wheel, so it may be early:
    /// then the tick to arm again is returned.
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

    /// Tries `operation` when the side may be ready, waits otherwise. `WouldBlock` clears readiness.
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
        if !waker.as_ref().is_some_and(|w| w.will_wake(context.waker())) {
            *waker = Some(context.waker().clone());
        }
        if slot.state == State::Fresh {
            slot.state = State::Armed;
            slot.kind = KIND_IO;
            let token = token(KIND_IO, slot.generation, self.index);
            self.machine.ring.borrow_mut().poll(self.fd, token);
        }
        Poll::Pending
    }

    /// Until the side may be tried.
    pub async fn ready(&self, side: Side) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_ready(context, side)).await
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

    /// From now on a wait of this side ends with `TimedOut` at the deadline. `None`: waits for ever.
    /// Moving a deadline later, the usual case, is two stores.
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

    /// Nothing has come since the last read found nothing: as far as the last turn of the ring knows.
    pub fn is_quiet(&self) -> bool {
        let slots = self.machine.slots.borrow();
        slots.slots[self.index as usize].ready & (READ | HANG_UP) == 0
    }

    /// Ready when the connection is known to be broken. Costs nothing on one that was never waited for:
    /// of that, nothing is known.
    fn poll_broken(&self, context: &Context<'_>) -> Poll<()> {
        let mut slots = self.machine.slots.borrow_mut();
        let slot = &mut slots.slots[self.index as usize];
        if slot.ready & BROKEN != 0 {
            return Poll::Ready(());
        }
        if slot.state == State::Armed
            && !slot.reader.as_ref().is_some_and(|w| w.will_wake(context.waker()))
        {
            slot.reader = Some(context.waker().clone());
        }
        Poll::Pending
    }

    /// Takes the descriptor out of this core, so that another may have it. Only before it was polled.
    fn take(mut self) -> Option<OwnedFd> {
        let mut slots = self.machine.slots.borrow_mut();
        if slots.slots[self.index as usize].state != State::Fresh {
            return None;
        }
        self.forget_timer(&mut slots.slots[self.index as usize]);
        slots.release(self.index);
        drop(slots);
        let fd = std::mem::replace(&mut self.fd, GIVEN_AWAY);
        // SAFETY: the slot has let go of `fd`, and dropping `self` no longer closes it.
        Some(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) })
    }

    fn not_ready(&self, bits: u8) {
        self.machine.slots.borrow_mut().slots[self.index as usize].ready &= !bits;
    }

    /// A short read: what was there is taken. Readiness is kept when the peer has hung up, because no
    /// other edge will tell.
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
            slot.accepted.drain(..).filter(|fd| *fd >= 0).for_each(close);
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
            socket.0.ready(Side::Write).await?;
            socket.set_deadline(Side::Write, None);
            sockaddr::connect_error(socket.0.fd)?;
            // Nothing can have been said by a peer that we have said nothing to, or it tells by an edge.
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

    /// All of `parts`, in as few calls as the socket takes. `TimedOut` when the peer takes nothing for
    /// as long as `patience`.
    pub async fn send(&self, parts: &[&[u8]; 3], patience: Duration) -> Result<(), SendError> {
        let total = parts.iter().map(|part| part.len()).sum::<usize>();
        let mut sent = 0;
        while sent < total {
            if sent > 0 {
                self.set_deadline(Side::Write, Some(patience));
            }
            sent += std::future::poll_fn(|context| {
                let (slices, used) = remaining(parts, sent);
                let poll = self.poll_send(context, &slices[..used]);
                if poll.is_pending() && sent == 0 {
                    self.set_deadline(Side::Write, Some(patience));
                }
                poll
            })
            .await
            .map_err(|cause| SendError { sent, cause })?;
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
        // SAFETY: the kernel has just made this descriptor for us, and we take it out of the slot once.
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
            slot.reader = Some(context.waker().clone());
            if slot.state == State::Armed { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
        let accepted = {
            let mut slots = self.descriptor.machine.slots.borrow_mut();
            std::mem::take(&mut slots.slots[self.descriptor.index as usize].accepted)
        };
        let queued = std::iter::from_fn(|| self.accept_queued());
        for fd in accepted.into_iter().filter(|fd| *fd >= 0).chain(queued) {
            // SAFETY: the kernel has made this descriptor for us, and it is taken out of the list once.
            sockets.push(Socket::adopt(unsafe { std::os::fd::FromRawFd::from_raw_fd(fd) }));
        }
        sockets
    }

    fn accept_queued(&self) -> Option<RawFd> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let (nobody, length) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: no address is asked for, so nothing is written.
        let fd = unsafe { libc::accept4(self.descriptor.fd, nobody, length, flags) };
        (fd >= 0).then_some(fd)
    }

    fn poll_accept(&self, context: &Context<'_>) -> Poll<i32> {
        let machine = &self.descriptor.machine;
        let mut slots = machine.slots.borrow_mut();
        let slot = &mut slots.slots[self.descriptor.index as usize];
        if !slot.accepted.is_empty() {
            let result = slot.accepted.remove(0);
            if result != -libc::ECANCELED {
                return Poll::Ready(result);
            }
        }
        slot.reader = Some(context.waker().clone());
        if slot.state == State::Fresh {
            slot.state = State::Armed;
            slot.kind = KIND_ACCEPT;
            let token = token(KIND_ACCEPT, slot.generation, self.descriptor.index);
            machine.ring.borrow_mut().accept(self.descriptor.fd, token);
        }
        Poll::Pending
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd
    }
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
