//! The core's io_uring: SINGLE_ISSUER and DEFER_TASKRUN, so completions arrive when we ask for
//! them, on our own stack. Knows operations and tokens, not sockets. One thread makes it and uses
//! it.
#![expect(unsafe_code, reason = "submission entries are built from raw descriptors")]

use std::io;
use std::os::fd::RawFd;
use std::time::Duration;

use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};

use crate::limits;

pub(super) struct Ring {
    uring: IoUring,
    /// Completions were lost, and the core does not know it yet.
    lost: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entered {
    Whole,
    /// The kernel had no memory for completions that did not fit: any operation may have ended.
    Lossy,
}

/// One completion: whose it is, what came of it, and whether more of the same operation follow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Completion {
    pub(super) token: u64,
    pub(super) result: i32,
    pub(super) more: bool,
}

impl Ring {
    pub(super) fn new() -> io::Result<Ring> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_cqsize(limits::RING_COMPLETIONS)
            .build(limits::RING_SUBMISSIONS)?;
        Ok(Ring { uring, lost: false })
    }

    /// Reports readiness by edge, for the descriptor's lifetime: one completion an edge.
    pub(super) fn poll(&mut self, fd: RawFd, token: u64) {
        let interest = (libc::POLLIN | libc::POLLOUT | libc::POLLRDHUP) as u32;
        let entry = opcode::PollAdd::new(Fd(fd), interest).multi(true).build().user_data(token);
        self.push(&entry);
    }

    pub(super) fn accept(&mut self, fd: RawFd, token: u64) {
        let entry = opcode::AcceptMulti::new(Fd(fd))
            .flags(libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC)
            .build()
            .user_data(token);
        self.push(&entry);
    }

    /// Ends the operation that `target` names; its last completion says so. Ours is `token`.
    pub(super) fn cancel(&mut self, target: u64, token: u64) {
        self.push(&opcode::AsyncCancel::new(target).build().user_data(token));
    }

    pub(super) fn close(&mut self, fd: RawFd, token: u64) {
        self.push(&opcode::Close::new(Fd(fd)).build().user_data(token));
    }

    /// Submits what is queued and runs deferred work; waits up to `wait` for a completion.
    pub(super) fn enter(&mut self, wait: Option<Duration>) -> io::Result<Entered> {
        let result = match wait {
            None => self.uring.submitter().submit_and_wait(0),
            Some(limit) => {
                let limit = Timespec::from(limit);
                let args = SubmitArgs::new().timespec(&limit);
                self.uring.submitter().submit_with_args(1, &args)
            }
        };
        match entered(result)? {
            Entered::Whole if !std::mem::take(&mut self.lost) => Ok(Entered::Whole),
            Entered::Whole | Entered::Lossy => Ok(Entered::Lossy),
        }
    }

    /// Something has happened that only the next enter will report: a poll that was ready when it
    /// was submitted, for one.
    pub(super) fn has_deferred(&mut self) -> bool {
        self.uring.submission().taskrun()
    }

    pub(super) fn reap(&mut self, into: &mut Vec<Completion>) {
        into.extend(self.uring.completion().map(|entry| Completion {
            token: entry.user_data(),
            result: entry.result(),
            more: cqueue::more(entry.flags()),
        }));
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: no operation above points at memory of ours: each carries descriptors and
        // numbers only, so nothing that the kernel may write to can be freed too early.
        let full = |ring: &mut Ring| unsafe { ring.uring.submission().push(entry) }.is_err();
        let mut tries = 0;
        while full(self) {
            // Hand it over. A busy completion queue is reaped by the next turn.
            if let Err(error) = self.uring.submit() {
                tries += 1;
                assert!(tries < limits::SUBMIT_TRIES, "the kernel takes no submissions: {error}");
                // Lost completions are told once: the next enter has to tell of them again.
                self.lost |= error.raw_os_error() == Some(libc::EBADR);
                std::thread::yield_now();
            }
        }
    }
}

/// What an enter has come to, where the core can go on.
fn entered(result: io::Result<usize>) -> io::Result<Entered> {
    match result {
        Ok(_) => Ok(Entered::Whole),
        Err(e) => match e.raw_os_error() {
            // No memory, for now: what was not submitted is still queued, for the next enter.
            Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN | libc::ENOMEM) => {
                Ok(Entered::Whole)
            }
            Some(libc::EBADR) => Ok(Entered::Lossy),
            Some(_) | None => Err(e),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enter_without_memory_is_tried_again_and_one_with_losses_says_so() {
        let said = |errno| entered(Err(io::Error::from_raw_os_error(errno))).ok();
        assert_eq!(said(libc::ENOMEM), Some(Entered::Whole));
        assert_eq!(said(libc::ETIME), Some(Entered::Whole));
        assert_eq!(said(libc::EBADR), Some(Entered::Lossy));
        assert_eq!(said(libc::EBADF), None);
    }
}
