//! Socket addresses and options as the kernel wants them.
#![expect(unsafe_code, reason = "system calls on raw descriptors")]

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, TcpListener};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// A non-blocking stream socket without Nagle's delay: a proxy writes whole messages.
pub(super) fn stream_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let kind = libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    // SAFETY: a plain call; the result is checked before it is owned.
    let fd = check(unsafe { libc::socket(family(address), kind, 0) })?;
    // SAFETY: `fd` was just made and is owned by nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    set_option(fd.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_NODELAY, 1)?;
    Ok(fd)
}

/// Begins to connect. True: it goes on in the background.
pub(super) fn connect(fd: &OwnedFd, address: SocketAddr) -> io::Result<bool> {
    let (storage, length) = to_raw(address);
    // SAFETY: `storage` holds an address of `length` bytes, and the kernel copies it during the
    // call.
    match check(unsafe { libc::connect(fd.as_raw_fd(), (&raw const storage).cast(), length) }) {
        Ok(_) => Ok(false),
        Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => Ok(true),
        Err(e) => Err(e),
    }
}

/// How a background connect ended.
pub(super) fn connect_error(fd: RawFd) -> io::Result<()> {
    let mut error: libc::c_int = 0;
    let mut length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both pointers are of locals of the sizes given.
    check(unsafe {
        libc::getsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut error).cast(),
            &raw mut length,
        )
    })?;
    if error == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(error)) }
}

/// A listening socket of its own queue: several may share the address (SO_REUSEPORT). Accepted
/// sockets inherit TCP_NODELAY.
pub fn listen(address: SocketAddr, backlog: i32) -> io::Result<TcpListener> {
    let fd = listening_socket(address)?;
    set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
    let (storage, length) = to_raw(address);
    // SAFETY: `storage` holds an address of `length` bytes, and the kernel copies it during the
    // call.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const storage).cast(), length) })?;
    // SAFETY: a plain call.
    check(unsafe { libc::listen(fd.as_raw_fd(), backlog) })?;
    Ok(TcpListener::from(fd))
}

/// An IPv6 address takes IPv6 only, whatever the machine's default (net.ipv6.bindv6only): `[::]`
/// and `0.0.0.0` are two addresses, and may have the same port.
fn listening_socket(address: SocketAddr) -> io::Result<OwnedFd> {
    let fd = stream_socket(address)?;
    set_option(fd.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
    let mapped = |v6: &SocketAddrV6| v6.ip().to_ipv4_mapped().is_some();
    if matches!(address, SocketAddr::V6(v6) if !mapped(&v6)) {
        set_option(fd.as_raw_fd(), libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, 1)?;
    }
    Ok(fd)
}

/// The listening socket takes no new connections from now on, and finishes those whose handshake
/// has begun: the kernel drops what asks for one, and the peer asks again a second later, somebody
/// else if there is one. Closing would reset all that is not accepted by then.
pub(super) fn drop_new_connections(fd: RawFd) -> io::Result<()> {
    const FLAGS: u32 = 13; // of the TCP header, where the filter's view begins
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    const NOTHING: u32 = 0;
    const ALL: u32 = u32::MAX;
    let step =
        |code: u32, else_skip, k| libc::sock_filter { code: code as u16, jt: 0, jf: else_skip, k };
    let mut steps = [
        step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, 0, FLAGS),
        step(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, 0, SYN | ACK),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, SYN),
        step(libc::BPF_RET | libc::BPF_K, 0, NOTHING),
        step(libc::BPF_RET | libc::BPF_K, 0, ALL),
    ];
    let program = libc::sock_fprog { len: steps.len() as u16, filter: steps.as_mut_ptr() };
    // SAFETY: the program points at `steps`, and the kernel copies both during the call.
    check(unsafe {
        libc::setsockopt(
            fd,
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    })?;
    Ok(())
}

/// Whether nobody listens there yet. Asked without SO_REUSEPORT: with it, two processes of one user
/// would share the address without a word.
pub fn is_free(address: SocketAddr) -> io::Result<()> {
    let fd = listening_socket(address)?;
    let (storage, length) = to_raw(address);
    // SAFETY: `storage` holds an address of `length` bytes, and the kernel copies it during the
    // call.
    check(unsafe { libc::bind(fd.as_raw_fd(), (&raw const storage).cast(), length) })?;
    Ok(())
}

pub(super) fn peer_address(fd: RawFd) -> io::Result<SocketAddr> {
    address_by(fd, libc::getpeername)
}

pub(super) fn local_address(fd: RawFd) -> io::Result<SocketAddr> {
    address_by(fd, libc::getsockname)
}

type AddressCall =
    unsafe extern "C" fn(libc::c_int, *mut libc::sockaddr, *mut libc::socklen_t) -> libc::c_int;

fn address_by(fd: RawFd, call: AddressCall) -> io::Result<SocketAddr> {
    // SAFETY: sockaddr_storage is plain data, for which zeroes are valid.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let mut length = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    // SAFETY: `storage` is large enough for any address, and its size is given.
    check(unsafe { call(fd, (&raw mut storage).cast(), &raw mut length) })?;
    from_raw(&storage)
}

fn to_raw(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    // SAFETY: sockaddr_storage is plain data, for which zeroes are valid.
    let mut storage: libc::sockaddr_storage = unsafe { zeroed() };
    let length = match address {
        SocketAddr::V4(v4) => {
            let raw = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            // SAFETY: sockaddr_storage is larger than and aligned for every address type.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in>().write(raw) };
            size_of::<libc::sockaddr_in>()
        }
        SocketAddr::V6(v6) => {
            let raw = libc::sockaddr_in6 {
                sin6_family: libc::AF_INET6 as libc::sa_family_t,
                sin6_port: v6.port().to_be(),
                sin6_flowinfo: v6.flowinfo(),
                sin6_addr: libc::in6_addr { s6_addr: v6.ip().octets() },
                sin6_scope_id: v6.scope_id(),
            };
            // SAFETY: as above.
            unsafe { (&raw mut storage).cast::<libc::sockaddr_in6>().write(raw) };
            size_of::<libc::sockaddr_in6>()
        }
    };
    (storage, length as libc::socklen_t)
}

fn from_raw(storage: &libc::sockaddr_storage) -> io::Result<SocketAddr> {
    match i32::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in.
            let raw = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in>() };
            let ip = Ipv4Addr::from(raw.sin_addr.s_addr.to_ne_bytes());
            Ok(SocketAddr::V4(SocketAddrV4::new(ip, u16::from_be(raw.sin_port))))
        }
        libc::AF_INET6 => {
            // SAFETY: the family says that the kernel wrote a sockaddr_in6.
            let raw = unsafe { &*(&raw const *storage).cast::<libc::sockaddr_in6>() };
            let ip = Ipv6Addr::from(raw.sin6_addr.s6_addr);
            let port = u16::from_be(raw.sin6_port);
            Ok(SocketAddr::V6(SocketAddrV6::new(ip, port, raw.sin6_flowinfo, raw.sin6_scope_id)))
        }
        family => Err(io::Error::other(format!("address family {family} is not an internet one"))),
    }
}

fn family(address: SocketAddr) -> i32 {
    match address {
        SocketAddr::V4(_) => libc::AF_INET,
        SocketAddr::V6(_) => libc::AF_INET6,
    }
}

/// The acknowledgement that is due leaves now.
pub(super) fn acknowledge(fd: RawFd) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_QUICKACK, 1)
}

/// Bytes that may wait here and have not been sent.
pub(super) fn set_unsent_max(fd: RawFd, bytes: u32) -> io::Result<()> {
    set_option(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, bytes.cast_signed())
}

/// SO_LINGER with a time of zero: closing is a reset.
pub(super) fn set_reset_on_close(fd: RawFd, reset: bool) -> io::Result<()> {
    let value = libc::linger { l_onoff: reset.into(), l_linger: 0 };
    let length = size_of::<libc::linger>() as libc::socklen_t;
    let pointer = (&raw const value).cast();
    // SAFETY: the pointer is of a local of the size given.
    check(unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, pointer, length) })?;
    Ok(())
}

fn set_option(fd: RawFd, level: i32, name: i32, value: libc::c_int) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer is of a local of the size given.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), length) })?;
    Ok(())
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
