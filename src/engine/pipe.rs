//! Moving bytes from one socket to another without copying them: through a pipe, whose pages the
//! kernel hands on (`splice`). For bodies that have proved to be long; short ones are cheaper to
//! copy. Pipes are lent by the core, and kept for the next body when they come back empty.
#![expect(unsafe_code, reason = "system calls on raw descriptors")]

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::engine::host::Machine;
use crate::engine::io::{Side, check};
use crate::engine::socket::{SendError, Socket, Taken, Wait};
use crate::limits;

/// A pipe, and how much is in it.
#[derive(Debug)]
pub struct Pipe {
    /// `None` only while it is given back.
    ends: Option<Ends>,
    held: usize,
    pool: Rc<Pipes>,
}

#[derive(Debug)]
struct Ends {
    out: OwnedFd,
    into: OwnedFd,
}

/// The core's empty pipes, and how many it has lent.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    empty: RefCell<Vec<Ends>>,
    lent: Cell<usize>,
}

impl Pipe {
    /// Fails when too many are lent, or no descriptors are left: then bytes have to be copied.
    pub fn lend() -> io::Result<Pipe> {
        let pool = Rc::clone(&Machine::current().pipes);
        if pool.lent.get() >= limits::PIPES_LENT_MAX {
            return Err(io::ErrorKind::QuotaExceeded.into());
        }
        let kept = pool.empty.borrow_mut().pop();
        let ends = kept.map_or_else(open, Ok)?;
        pool.lent.set(pool.lent.get() + 1);
        Ok(Pipe { ends: Some(ends), held: 0, pool })
    }

    /// Takes up to `most` bytes out of `socket`, if there are any; 0 at the end of the stream. Only
    /// into an empty pipe: of a full one the kernel says the same as of a silent socket.
    pub async fn try_fill(&mut self, socket: &Socket, most: usize) -> Poll<io::Result<usize>> {
        debug_assert_eq!(self.held, 0);
        let most = most.min(limits::SPLICE_BYTES_MAX);
        let filled =
            std::future::poll_fn(|context| Poll::Ready(self.poll_fill(context, socket, most)));
        let filled = filled.await;
        if let Poll::Ready(Ok(count)) = filled {
            self.held = count;
        }
        filled
    }

    fn poll_fill(
        &self,
        context: &Context<'_>,
        socket: &Socket,
        most: usize,
    ) -> Poll<io::Result<usize>> {
        let into = self.ends().into.as_raw_fd();
        socket.0.poll_io(context, Side::Read, |fd| splice(fd, into, most))
    }

    /// Puts all that is held into `socket`, as `Socket::send_while` would. Dropped on its way, it
    /// leaves a pipe that counts as one that holds bytes.
    pub async fn empty(
        &mut self,
        socket: &Socket,
        patience: Duration,
        bearable: impl FnMut(Wait) -> bool,
    ) -> Result<(), SendError> {
        let (out, total) = (self.ends().out.as_raw_fd(), self.held);
        let put = |context: &Context<'_>, sent| {
            let moved = |fd| splice(out, fd, total - sent).and_then(some);
            socket.0.poll_io(context, Side::Write, moved).map_ok(Taken::all)
        };
        let result = socket.put(total, patience, bearable, put).await;
        self.held = result.as_ref().map_or_else(|error| total - error.sent, |()| 0);
        result
    }

    fn ends(&self) -> &Ends {
        self.ends.as_ref().expect("a pipe has its ends until it is given back")
    }
}

impl Drop for Pipe {
    /// One that still holds bytes is closed: they are nobody else's.
    fn drop(&mut self) {
        self.pool.lent.set(self.pool.lent.get() - 1);
        let mut kept = self.pool.empty.borrow_mut();
        if self.held == 0 && kept.len() < limits::PIPES_KEPT {
            kept.extend(self.ends.take());
        }
    }
}

fn open() -> io::Result<Ends> {
    let mut fds: [RawFd; 2] = [-1; 2];
    // SAFETY: the kernel writes two descriptors into an array of two, and they are nobody else's.
    unsafe {
        check(libc::pipe2(fds.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) as isize)?;
        Ok(Ends { out: OwnedFd::from_raw_fd(fds[0]), into: OwnedFd::from_raw_fd(fds[1]) })
    }
}

fn splice(from: RawFd, to: RawFd, most: usize) -> io::Result<usize> {
    let (none, flags) = (std::ptr::null_mut(), libc::SPLICE_F_NONBLOCK | libc::SPLICE_F_MOVE);
    // SAFETY: a plain call on open descriptors; no memory of ours is involved.
    check(unsafe { libc::splice(from, none, to, none, most, flags) })
}

/// A pipe that holds bytes has given none: its other side must be gone.
fn some(moved: usize) -> io::Result<usize> {
    if moved == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(moved) }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::Shutdown;

    use super::*;
    use crate::engine::test_core::{BRIEF, LONG, connection, fill, on_a_core};

    fn kept() -> usize {
        Machine::current().pipes.empty.borrow().len()
    }

    async fn take(pipe: &mut Pipe, socket: &Socket, most: usize) -> io::Result<usize> {
        loop {
            socket.ready(Side::Read).await?;
            if let Poll::Ready(filled) = pipe.try_fill(socket, most).await {
                return filled;
            }
        }
    }

    #[test]
    fn bytes_come_through_whole_and_in_order_however_slowly_they_are_taken() {
        on_a_core(|| async {
            let (from, mut giver) = connection();
            let (to, mut taker) = connection();
            let body: Vec<u8> = (0..9_000_000_u32).map(|n| (n ^ (n >> 9)) as u8).collect();
            let sent = body.clone();
            let giving = std::thread::spawn(move || {
                for piece in sent.chunks(77_777) {
                    giver.write_all(piece).unwrap();
                }
            });
            let taking = std::thread::spawn(move || {
                let mut bytes = Vec::new();
                let mut piece = vec![0; 30_001];
                while let Ok(count @ 1..) = taker.read(&mut piece) {
                    bytes.extend_from_slice(&piece[..count]);
                    std::thread::yield_now();
                }
                bytes
            });
            let mut pipe = Pipe::lend().unwrap();
            let mut total = 0;
            loop {
                let count = take(&mut pipe, &from, usize::MAX).await.unwrap();
                if count == 0 {
                    break;
                }
                assert!(count <= limits::SPLICE_BYTES_MAX);
                total += count;
                pipe.empty(&to, LONG, |_| true).await.unwrap();
            }
            drop((pipe, to));
            crate::engine::test_core::settle().await;
            giving.join().unwrap();
            assert_eq!(total, body.len());
            assert!(taking.join().unwrap() == body);
        });
    }

    #[test]
    fn no_more_is_taken_than_was_asked_for() {
        on_a_core(|| async {
            let (from, mut giver) = connection();
            giver.write_all(b"bodynext").unwrap();
            giver.shutdown(Shutdown::Write).unwrap();
            let (to, _taker) = connection();
            let mut pipe = Pipe::lend().unwrap();
            assert_eq!(take(&mut pipe, &from, 4).await.unwrap(), 4);
            pipe.empty(&to, LONG, |_| true).await.unwrap();
            let mut next = [0; 8];
            assert_eq!(from.recv(&mut next).await.unwrap(), 4);
            assert_eq!(&next[..4], b"next");
            assert_eq!(take(&mut pipe, &from, 4).await.unwrap(), 0, "the end");
        });
    }

    #[test]
    fn a_pipe_that_still_holds_bytes_is_lent_to_nobody_again() {
        on_a_core(|| async {
            let (from, mut giver) = connection();
            let (to, mut taker) = connection();
            giver.write_all(b"of somebody else").unwrap();
            let mut pipe = Pipe::lend().unwrap();
            take(&mut pipe, &from, usize::MAX).await.unwrap();
            drop(pipe);
            assert_eq!(kept(), 0);
            giver.write_all(b"mine").unwrap();
            let mut pipe = Pipe::lend().unwrap();
            take(&mut pipe, &from, usize::MAX).await.unwrap();
            pipe.empty(&to, LONG, |_| true).await.unwrap();
            drop(pipe);
            assert_eq!(kept(), 1, "an empty one is");
            let mut bytes = [0; 64];
            assert_eq!(taker.read(&mut bytes).unwrap(), 4);
            assert_eq!(&bytes[..4], b"mine");
        });
    }

    #[test]
    fn a_peer_that_takes_nothing_is_given_up_on_and_one_that_has_gone_at_once() {
        on_a_core(|| async {
            let (from, mut giver) = connection();
            let (full, taker) = connection();
            fill(&full).await;
            giver.write_all(b"abc").unwrap();
            let mut pipe = Pipe::lend().unwrap();
            take(&mut pipe, &from, usize::MAX).await.unwrap();
            let error = pipe.empty(&full, BRIEF, |_| true).await.unwrap_err();
            assert_eq!((error.sent, error.cause.kind()), (0, io::ErrorKind::TimedOut));
            drop(taker); // with bytes unread: a reset
            let error = pipe.empty(&full, LONG, |_| true).await.unwrap_err();
            assert_ne!(error.cause.kind(), io::ErrorKind::TimedOut);
        });
    }

    #[test]
    fn a_core_lends_only_so_many_pipes_and_keeps_fewer() {
        on_a_core(|| async {
            let pipes: Vec<_> =
                (0..limits::PIPES_LENT_MAX).map(|_| Pipe::lend().unwrap()).collect();
            assert_eq!(Pipe::lend().unwrap_err().kind(), io::ErrorKind::QuotaExceeded);
            drop(pipes);
            assert_eq!(kept(), limits::PIPES_KEPT);
            assert!(Pipe::lend().is_ok(), "those that came back are lent again");
        });
    }
}
