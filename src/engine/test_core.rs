//! A core for the tests of this folder: on a thread of its own, given up on after a while, so that
//! a lost wake-up fails a test and does not hang it.

use std::fs::File;
use std::future::Future;
use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use crate::engine::slots::{KIND_IGNORED, State, token};
use crate::engine::{self, Descriptor, Doorbell, Listener, Placement, Socket, sockaddr};

pub(super) const BRIEF: Duration = Duration::from_millis(20);
pub(super) const LONG: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(60);

/// What `main` returns when it runs as a core. Panics of `main` come through.
pub(super) fn on_a_core<T, F>(main: impl FnOnce() -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    on_a_core_with(Doorbell::new().unwrap(), main)
}

pub(super) fn on_a_core_with<T, F>(bell: Doorbell, main: impl FnOnce() -> F + Send + 'static) -> T
where
    T: Send + 'static,
    F: Future<Output = T> + 'static,
{
    let (result, results) = mpsc::channel();
    let core = thread::spawn(move || {
        let _ = result.send(engine::run(Placement::Anywhere, bell, main).unwrap());
    });
    match results.recv_timeout(PATIENCE) {
        Ok(value) => {
            core.join().expect("the core ends cleanly");
            value
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("the core does nothing more"),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            std::panic::resume_unwind(core.join().expect_err("a core without a result panicked"))
        }
    }
}

/// A connection over TCP: our end on this core, the peer's a plain blocking one.
pub(super) fn connection() -> (Socket, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (ours, _) = listener.accept().unwrap();
    (Socket::adopt(non_blocking(ours)), with_patience(peer))
}

pub(super) fn non_blocking(stream: TcpStream) -> OwnedFd {
    stream.set_nonblocking(true).unwrap();
    stream.into()
}

pub(super) fn with_patience(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// Lets the ring report whatever has happened by now.
pub(super) async fn settle() {
    engine::sleep(Duration::from_millis(3)).await;
}

/// A pipe whose reading end belongs to this core.
pub(super) fn pipe() -> (Descriptor, std::io::PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let path = format!("/proc/self/fd/{}", reader.as_raw_fd());
    let non_blocking = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    (Descriptor::new(non_blocking.unwrap().into()), writer)
}

pub(super) fn listener() -> (Listener, SocketAddr) {
    let socket = sockaddr::listen((Ipv4Addr::LOCALHOST, 0).into(), 1024).unwrap();
    let address = socket.local_addr().unwrap();
    (Listener::adopt(socket), address)
}

/// What a full completion queue does to a multishot operation: ends it.
pub(super) fn end_operation(descriptor: &Descriptor) {
    let machine = &descriptor.machine;
    let slots = machine.slots.borrow();
    let slot = &slots.slots[descriptor.index as usize];
    assert_eq!(slot.state, State::Armed);
    let target = token(slot.kind, slot.generation, descriptor.index);
    machine.ring.borrow_mut().cancel(target, token(KIND_IGNORED, 0, 0));
}

pub(super) fn state_of(descriptor: &Descriptor) -> State {
    descriptor.machine.slots.borrow().slots[descriptor.index as usize].state
}

/// Lets a task wait for `socket` to be readable, so that it is armed.
pub(super) async fn arm(socket: &Socket) {
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
pub(super) async fn fill(socket: &Socket) {
    let bytes = vec![7; 1 << 20];
    let mut full = 0;
    while full < 3 {
        let parts = [IoSlice::new(&bytes)];
        let poll = std::future::poll_fn(|c| Poll::Ready(socket.poll_send(c, &parts))).await;
        full = if poll.is_ready() { 0 } else { full + 1 };
        settle().await;
    }
}
