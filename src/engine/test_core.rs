//! A core for the tests of this folder: on a thread of its own, given up on after a while, so that
//! a lost wake-up fails a test and does not hang it.

use std::fs::File;
use std::future::Future;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::engine::{self, Descriptor, Doorbell, Placement, Socket};

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
