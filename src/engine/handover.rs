//! Descriptors on their way to another process, over a UNIX stream (SCM_RIGHTS, unix(7)): what
//! arrives are the very same sockets, with whatever waits in their queues.
#![expect(unsafe_code, reason = "control messages carry raw descriptors")]

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use crate::engine::io::check;
use crate::limits;

/// Sends a text with descriptors. Blocks; the stream's timeouts hold.
pub fn send_descriptors(
    stream: &mut UnixStream,
    text: &[u8],
    fds: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let length = |count: usize| u32::try_from(count).map_err(|_| io::ErrorKind::InvalidInput);
    let mut prefix = [0; 8];
    prefix[..4].copy_from_slice(&length(text.len())?.to_ne_bytes());
    prefix[4..].copy_from_slice(&length(fds.len())?.to_ne_bytes());
    stream.write_all(&prefix)?;
    stream.write_all(text)?;
    // Each batch rides on a byte of its own: the kernel never joins two of them.
    for batch in fds.chunks(limits::DESCRIPTORS_PER_MESSAGE) {
        send_batch(stream, batch)?;
    }
    Ok(())
}

/// Receives what `send_descriptors` has sent, up to so many bytes and descriptors.
pub fn receive_descriptors(
    stream: &mut UnixStream,
    text_bytes_max: usize,
    fds_max: usize,
) -> io::Result<(Vec<u8>, Vec<OwnedFd>)> {
    let mut prefix = [0; 8];
    stream.read_exact(&mut prefix)?;
    let [a, b, c, d, e, f, g, h] = prefix;
    let text_bytes = u32::from_ne_bytes([a, b, c, d]) as usize;
    let count = u32::from_ne_bytes([e, f, g, h]) as usize;
    if text_bytes > text_bytes_max || count > fds_max {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut text = vec![0; text_bytes];
    stream.read_exact(&mut text)?;
    let mut fds = Vec::with_capacity(count);
    while fds.len() < count {
        let expected = (count - fds.len()).min(limits::DESCRIPTORS_PER_MESSAGE);
        let before = fds.len();
        receive_batch(stream, &mut fds)?;
        if fds.len() - before != expected {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
    Ok((text, fds))
}

/// Room for the control message of one batch, aligned as its header wants it.
#[repr(align(8))]
struct Control([u8; CONTROL_BYTES]);

const CONTROL_BYTES: usize =
    // SAFETY: arithmetic on a constant.
    unsafe { libc::CMSG_SPACE((limits::DESCRIPTORS_PER_MESSAGE * size_of::<RawFd>()) as u32) }
            as usize;

/// Calls `with` a message of one byte that has room for a batch of descriptors.
fn with_message<T>(with: impl FnOnce(&mut libc::msghdr) -> T) -> T {
    let mut control = Control([0; CONTROL_BYTES]);
    let mut byte = 0_u8;
    let mut data = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    // SAFETY: an all-zero msghdr is one without name, data and control.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut data;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    message.msg_controllen = CONTROL_BYTES;
    with(&mut message)
}

fn send_batch(stream: &UnixStream, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let bytes = size_of_val(&raw[..]);
    // SAFETY: the control buffer has room for a header and `DESCRIPTORS_PER_MESSAGE` descriptors,
    // and a batch has no more; all of it outlives the call.
    let sent = with_message(|message| unsafe {
        message.msg_controllen = libc::CMSG_SPACE(bytes as u32) as usize;
        let header = libc::CMSG_FIRSTHDR(&raw const *message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(bytes as u32) as usize;
        std::ptr::copy_nonoverlapping(raw.as_ptr().cast(), libc::CMSG_DATA(header), bytes);
        libc::sendmsg(stream.as_raw_fd(), &raw const *message, libc::MSG_NOSIGNAL)
    });
    check(sent).map(drop)
}

fn receive_batch(stream: &UnixStream, into: &mut Vec<OwnedFd>) -> io::Result<()> {
    with_message(|message| receive_into(stream, message, into))
}

fn receive_into(
    stream: &UnixStream,
    message: &mut libc::msghdr,
    into: &mut Vec<OwnedFd>,
) -> io::Result<()> {
    // SAFETY: the kernel writes one byte and at most `msg_controllen` bytes of control messages,
    // whose headers are then walked by the macros made for it. Received descriptors are new and
    // nobody else's.
    unsafe {
        let flags = libc::MSG_CMSG_CLOEXEC;
        let received = libc::recvmsg(stream.as_raw_fd(), &raw mut *message, flags);
        if check(received)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut header = libc::CMSG_FIRSTHDR(&raw const *message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_RIGHTS {
                let bytes = (*header).cmsg_len - libc::CMSG_LEN(0) as usize;
                for index in 0..bytes / size_of::<RawFd>() {
                    let place = libc::CMSG_DATA(header).cast::<RawFd>().add(index);
                    into.push(OwnedFd::from_raw_fd(place.read_unaligned()));
                }
            }
            header = libc::CMSG_NXTHDR(&raw const *message, header);
        }
    }
    if message.msg_flags & libc::MSG_CTRUNC != 0 {
        // Some were lost: this process may have no room for so many open files.
        return Err(io::Error::other("descriptors were cut off: too many open files?"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd;
    use std::thread;

    use super::*;

    #[test]
    fn a_listening_socket_arrives_with_the_connections_that_wait_in_it() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = TcpStream::connect(address).unwrap();
        waiting.write_all(b"hello").unwrap();
        let (mut old, mut new) = UnixStream::pair().unwrap();
        send_descriptors(&mut old, b"edge", &[listener.as_fd()]).unwrap();
        drop((listener, old));
        let (text, mut fds) = receive_descriptors(&mut new, 100, 1).unwrap();
        assert_eq!(text, b"edge");
        let listener = TcpListener::from(fds.pop().unwrap());
        let (mut accepted, _) = listener.accept().unwrap();
        let mut bytes = [0; 5];
        accepted.read_exact(&mut bytes).unwrap();
        assert_eq!(&bytes, b"hello");
    }

    #[test]
    fn more_descriptors_than_one_message_carries_arrive_in_order() {
        let (mut old, mut new) = UnixStream::pair().unwrap();
        let count = 2 * limits::DESCRIPTORS_PER_MESSAGE + 7;
        let sending = thread::spawn(move || {
            let listeners: Vec<_> =
                (0..9).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
            let fds: Vec<_> = (0..count).map(|n| listeners[n % 9].as_fd()).collect();
            send_descriptors(&mut old, b"", &fds).unwrap();
            listeners.iter().map(|l| l.local_addr().unwrap()).collect::<Vec<_>>()
        });
        let (_, fds) = receive_descriptors(&mut new, 0, count).unwrap();
        let addresses = sending.join().unwrap();
        assert_eq!(fds.len(), count);
        for (n, fd) in fds.into_iter().enumerate() {
            assert_eq!(TcpListener::from(fd).local_addr().unwrap(), addresses[n % 9]);
        }
    }

    #[test]
    fn what_is_larger_than_allowed_or_cut_short_is_refused() {
        let (mut old, mut new) = UnixStream::pair().unwrap();
        send_descriptors(&mut old, b"12345", &[]).unwrap();
        let error = receive_descriptors(&mut new, 4, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        let (mut old, mut new) = UnixStream::pair().unwrap();
        old.write_all(&[0, 0, 0, 0, 1, 0, 0, 0]).unwrap();
        drop(old);
        let error = receive_descriptors(&mut new, 4, 1).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
