//! Descriptors outside any ring that a thread writes and must not be held up by: whoever reads at
//! the other end decides how fast they are.
#![expect(unsafe_code, reason = "system calls on raw descriptors")]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::time::Duration;

use crate::engine::io::check;

/// Blocks until one of them takes bytes, or has an error to tell; at most for so long. False: none
/// does yet.
pub fn until_writable(fds: &[BorrowedFd<'_>], timeout: Duration) -> bool {
    let ask = |fd: &BorrowedFd<'_>| libc::pollfd {
        fd: fd.as_raw_fd(),
        events: libc::POLLOUT,
        revents: 0,
    };
    let mut asked: Vec<libc::pollfd> = fds.iter().map(ask).collect();
    let timeout = timeout.as_millis().try_into().unwrap_or(libc::c_int::MAX);
    // SAFETY: the array is as long as is said, and outlives the call.
    let ready = unsafe { libc::poll(asked.as_mut_ptr(), asked.len() as libc::nfds_t, timeout) };
    ready > 0
}

/// As much as a socket takes at once, whatever mode its description is in.
pub fn send_at_once(socket: BorrowedFd<'_>, bytes: &[u8]) -> io::Result<usize> {
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    // SAFETY: the bytes are valid for as long as the call takes.
    let sent = unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
    check(sent)
}
