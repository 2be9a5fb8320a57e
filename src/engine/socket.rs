//! A connected TCP socket: receiving, sending and connecting, each tried at once and waited for
//! only when the kernel says so. Used by whatever speaks a protocol; knows none itself.
#![expect(unsafe_code, reason = "system calls on raw descriptors")]

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::engine::io::{Descriptor, Side, check};
use crate::engine::now;
use crate::engine::slots::{Parked, READ, WRITE};
use crate::engine::sockaddr;
use crate::limits;

/// A connected TCP socket.
#[derive(Debug)]
pub struct Socket(pub(super) Descriptor);

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

    /// Looks at what has come and leaves it there. Pending while it is no more than the `seen`
    /// bytes that were there before; no more at the end of the stream either.
    pub fn poll_peek(
        &self,
        context: &Context<'_>,
        buffer: &mut [u8],
        seen: usize,
    ) -> Poll<io::Result<usize>> {
        self.0.poll_io(context, Side::Read, |fd| {
            let (bytes, room) = (buffer.as_mut_ptr().cast(), buffer.len());
            // SAFETY: the pointer and length are of `buffer`, borrowed for the call.
            let count = check(unsafe { libc::recv(fd, bytes, room, libc::MSG_PEEK) })?;
            // More bytes tell by another edge. After the end of the stream there is none.
            let is_old = count > 0 && count <= seen && !self.0.has_hung_up();
            if is_old { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
        })
    }

    pub fn local_address(&self) -> io::Result<SocketAddr> {
        sockaddr::local_address(self.0.fd)
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

    /// All of `parts`, in as few calls as the socket takes. `TimedOut` when the peer takes nothing
    /// for as long as `patience`.
    pub async fn send(&self, parts: &[&[u8]; 3], patience: Duration) -> Result<(), SendError> {
        self.send_while(parts, patience, |_| true).await
    }

    /// Sends to a peer that may be slow: `bearable` is told of every wait in which the peer took
    /// something, and says whether to go on. If not, that is `TimedOut` as well.
    pub async fn send_while(
        &self,
        parts: &[&[u8]; 3],
        patience: Duration,
        bearable: impl FnMut(Wait) -> bool,
    ) -> Result<(), SendError> {
        let total = parts.iter().map(|part| part.len()).sum();
        let put = |context: &Context<'_>, sent| {
            let (slices, used) = remaining(parts, sent);
            self.poll_send(context, &slices[..used]).map_ok(Taken::all)
        };
        self.put(total, patience, bearable, put).await
    }

    /// Puts `total` bytes into the socket with calls of `put`, which is told how many went before.
    pub async fn put(
        &self,
        total: usize,
        patience: Duration,
        mut bearable: impl FnMut(Wait) -> bool,
        put: impl Fn(&Context<'_>, usize) -> Poll<io::Result<Taken>>,
    ) -> Result<(), SendError> {
        let mut sent = 0;
        let mut waited = false;
        let mut waiting: Option<Waiting> = None;
        while sent < total {
            let result = std::future::poll_fn(|context| {
                let poll = put(context, sent);
                if poll.is_pending() && waiting.is_none() {
                    waiting = Some(Waiting::begin(self, patience));
                }
                poll
            })
            .await;
            // Patience begins anew with every byte that is taken, not with every look.
            let wait = match (&result, &mut waiting) {
                (Ok(taken), Some(begun)) => begun.look(self, taken.by_socket),
                (Err(error), Some(begun)) if error.kind() == io::ErrorKind::TimedOut => {
                    begun.look(self, 0)
                }
                (_, _) => None,
            };
            let goes_on = wait.is_none_or(&mut bearable);
            match result {
                Ok(taken) => {
                    sent += taken.of_ours;
                    waited |= waiting.take().is_some();
                }
                Err(cause) => {
                    let looks = cause.kind() == io::ErrorKind::TimedOut
                        && waiting.as_ref().is_some_and(|begun| begun.goes_on(self, patience));
                    if !looks {
                        return Err(SendError { sent, cause });
                    }
                }
            }
            if !goes_on {
                return Err(SendError { sent, cause: io::ErrorKind::TimedOut.into() });
            }
        }
        if waited {
            // Else it would pass between two sends, and the next that has to wait would find it.
            self.set_deadline(Side::Write, None);
        }
        Ok(())
    }

    /// Bytes that the socket has taken from us and the peer's kernel has not.
    fn unacknowledged(&self) -> usize {
        let mut count: libc::c_int = 0;
        // SAFETY: the pointer is of a local of the type that this request writes.
        unsafe { libc::ioctl(self.0.fd, libc::TIOCOUTQ, &raw mut count) };
        usize::try_from(count).unwrap_or_default()
    }

    /// No more bytes from us; the peer sees the end of the stream.
    pub fn finish(&self) {
        // SAFETY: a plain call on an open descriptor.
        unsafe { libc::shutdown(self.0.fd, libc::SHUT_WR) };
    }

    /// Tells the peer at once what has arrived, where nothing that is sent soon would.
    pub fn acknowledge(&self) {
        // A socket that is broken has nobody to tell.
        let _ = sockaddr::acknowledge(self.0.fd);
    }

    /// Whether closing sends a reset and drops what the peer has not taken, instead of a FIN.
    pub fn set_reset_on_close(&self, reset: bool) {
        // Only a socket that is broken already refuses, and that needs no reset.
        let _ = sockaddr::set_reset_on_close(self.0.fd, reset);
    }

    /// It takes no more while so many bytes wait in the kernel to be sent, so that what is given
    /// later is not far behind.
    pub fn set_unsent_max(&self, bytes: u32) {
        // Without it things go on, a little later.
        let _ = sockaddr::set_unsent_max(self.0.fd, bytes);
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
    /// the last read, or nothing may tell of it any more, so then the kernel is asked.
    pub fn is_silent(&self) -> bool {
        if self.0.is_armed() && self.0.is_quiet() {
            return true;
        }
        let silent = self.peek_would_block();
        if silent {
            self.0.not_ready(READ);
        }
        silent
    }

    fn peek_would_block(&self) -> bool {
        let mut byte = 0_u8;
        let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
        // SAFETY: one byte of ours, for the call.
        let peeked = unsafe { libc::recv(self.0.fd, (&raw mut byte).cast(), 1, flags) };
        check(peeked).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Says whether the connection is between two requests: then a drain, or a client that needs
    /// the place, may end its wait. Returns what it was until now.
    pub fn set_parked(&self, parked: Parked) -> Parked {
        let mut slots = self.0.machine.slots.borrow_mut();
        std::mem::replace(&mut slots.slots[self.0.index as usize].parked, parked)
    }

    pub fn poll_broken(&self, context: &Context<'_>) -> Poll<()> {
        self.0.poll_broken(context)
    }

    pub fn peer_address(&self) -> io::Result<SocketAddr> {
        sockaddr::peer_address(self.0.fd)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the descriptor is open for as long as `self` lives.
        unsafe { BorrowedFd::borrow_raw(self.0.fd) }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.fd
    }
}

/// What became of one call: whoever seals puts in other bytes than the socket takes.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    pub of_ours: usize,
    pub by_socket: usize,
}

impl Taken {
    /// Bytes that go as they are.
    pub(super) fn all(count: usize) -> Taken {
        Taken { of_ours: count, by_socket: count }
    }
}

/// A send that failed, and how many bytes the socket had taken by then.
#[derive(Debug)]
pub struct SendError {
    pub sent: usize,
    pub cause: io::Error,
}

/// A time in which we waited for the peer to take bytes, and it took some.
#[derive(Clone, Copy, Debug)]
pub struct Wait {
    pub lasted: Duration,
    pub taken: usize,
}

/// A send that waits. The kernel calls a socket writable only when a third of its buffer is free:
/// what a slow peer takes meanwhile shows in the queue alone, so that is looked at.
pub struct Waiting {
    /// When the peer was last seen to take something, and what was queued then.
    since: Instant,
    queued: usize,
}

impl Waiting {
    pub fn begin(socket: &Socket, patience: Duration) -> Waiting {
        socket.set_deadline(Side::Write, Some(patience.min(limits::WRITE_LOOK_INTERVAL)));
        Waiting { since: now(), queued: socket.unacknowledged() }
    }

    /// What the peer has taken since the last look that found something; `added` was queued
    /// meanwhile.
    pub fn look(&mut self, socket: &Socket, added: usize) -> Option<Wait> {
        let (now, queued) = (now(), socket.unacknowledged());
        let taken = (self.queued + added).saturating_sub(queued);
        let lasted = now - self.since;
        if taken == 0 {
            return None;
        }
        *self = Waiting { since: now, queued };
        Some(Wait { lasted, taken })
    }

    /// Sets the next look, if the peer still has time.
    pub fn goes_on(&self, socket: &Socket, patience: Duration) -> bool {
        let left = patience.saturating_sub(now() - self.since);
        socket.set_deadline(Side::Write, Some(left.min(limits::WRITE_LOOK_INTERVAL)));
        !left.is_zero()
    }
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

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Ipv4Addr, Shutdown, TcpStream};

    use super::*;
    use crate::engine::host::Machine;
    use crate::engine::slots::{KIND_IGNORED, KIND_IO, State, token};
    use crate::engine::test_core::{
        BRIEF, LONG, arm, connection, end_operation, fill, listener, on_a_core, settle, state_of,
    };
    use crate::engine::{sleep, yield_now};

    /// Reads what there is, without blocking.
    fn empty(peer: &mut TcpStream) {
        peer.set_nonblocking(true).unwrap();
        let mut bytes = vec![0; 1 << 20];
        while peer.read(&mut bytes).is_ok() {}
        peer.set_nonblocking(false).unwrap();
    }

    // --- what edges tell ---------------------------------------------------------------------

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

    #[test]
    fn a_socket_whose_poll_has_ended_is_not_taken_to_be_silent_unasked() {
        on_a_core(|| async {
            for ends in [true, false] {
                let (socket, mut peer) = connection();
                arm(&socket).await;
                end_operation(&socket.0);
                settle().await;
                assert_eq!(state_of(&socket.0), State::Fresh);
                peer.write_all(b"abc").unwrap();
                assert_eq!(socket.recv(&mut [0; 8]).await.unwrap(), 3, "a short read");
                assert!(socket.is_silent());
                if ends {
                    peer.shutdown(Shutdown::Write).unwrap();
                } else {
                    peer.write_all(b"more").unwrap();
                }
                settle().await;
                assert!(!socket.is_silent());
                let count = socket.recv(&mut [0; 8]).await.unwrap();
                assert_eq!(count, if ends { 0 } else { 4 });
            }
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

    // --- sending -----------------------------------------------------------------------------

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

    // --- connecting --------------------------------------------------------------------------

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
}
