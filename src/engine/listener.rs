//! A listening socket on the core's ring: the kernel accepts ahead of us, into the slot's list.
//! Who may come in, and how many, is for the caller to say.
#![expect(unsafe_code, reason = "takes the ownership of descriptors that the kernel has made")]

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::task::{Context, Poll};

use crate::engine::io::{Descriptor, set_waker};
use crate::engine::slots::{KIND_ACCEPT, KIND_IGNORED, State, token};
use crate::engine::{Socket, sleep, sockaddr, yield_now};
use crate::limits;

/// A listening socket lent to this core: its own queue of its own SO_REUSEPORT socket.
#[derive(Debug)]
pub struct Listener {
    pub(super) descriptor: Descriptor,
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
        Ok(Socket::adopt(unsafe { FromRawFd::from_raw_fd(result) }))
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

    /// Another handle on the same queue.
    pub fn duplicate(&self) -> io::Result<TcpListener> {
        // SAFETY: the descriptor is open for as long as `self` lives.
        let fd = unsafe { std::os::fd::BorrowedFd::borrow_raw(self.descriptor.fd) };
        fd.try_clone_to_owned().map(TcpListener::from)
    }

    /// The connections that are here by now, for a listener that another process goes on with. The
    /// kernel tells one process of each connection: those that it has told us of are ours, also
    /// when we have stopped asking meanwhile.
    pub async fn leave(&mut self) -> Vec<Socket> {
        self.pause();
        self.paused().await;
        self.here()
    }

    /// The last connections, for a listener that is about to close: those accepted already and
    /// those still queued in the kernel, or on their way there.
    pub async fn last(&mut self) -> Vec<Socket> {
        self.pause();
        match sockaddr::drop_new_connections(self.descriptor.fd) {
            Ok(()) => sleep(limits::LAST_HANDSHAKES_TIME).await,
            Err(error) => log::warn!("connections that come this moment may be reset: {error}"),
        }
        self.paused().await;
        self.here()
    }

    /// What was accepted ahead, and what is queued.
    fn here(&self) -> Vec<Socket> {
        let mut sockets: Vec<Socket> = self.accepted_ahead().map(Socket::adopt).collect();
        loop {
            match self.accept_queued() {
                // SAFETY: the kernel has just made this descriptor for us.
                Ok(fd) => sockets.push(Socket::adopt(unsafe { FromRawFd::from_raw_fd(fd) })),
                // One that gave up while it was queued says nothing of those behind it.
                Err(libc::ECONNABORTED) => {}
                Err(_) => return sockets,
            }
        }
    }

    /// Until the kernel accepts no more ahead of us.
    async fn paused(&self) {
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
    }

    fn accepted_ahead(&self) -> impl Iterator<Item = OwnedFd> + use<> {
        let mut slots = self.descriptor.machine.slots.borrow_mut();
        let slot = &mut slots.slots[self.descriptor.index as usize];
        let accepted = slot.accepted.take().unwrap_or_default();
        // SAFETY: the kernel has made these descriptors for us, and they are taken out of the list
        // once.
        accepted.into_iter().filter(|fd| *fd >= 0).map(|fd| unsafe { FromRawFd::from_raw_fd(fd) })
    }

    /// One connection of the kernel's queue, or why there is none.
    fn accept_queued(&self) -> Result<RawFd, i32> {
        let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        let (nobody, length) = (std::ptr::null_mut(), std::ptr::null_mut());
        loop {
            // SAFETY: no address is asked for, so nothing is written.
            let fd = unsafe { libc::accept4(self.descriptor.fd, nobody, length, flags) };
            if fd >= 0 {
                return Ok(fd);
            }
            match io::Error::last_os_error().raw_os_error().unwrap_or(libc::EIO) {
                libc::EINTR => {}
                errno => return Err(errno),
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
            // A queue that is long already is taken one by one: an armed accept would empty it,
            // however many there are, before anybody could ask whether there is room for them.
            match self.accept_queued() {
                Err(libc::EAGAIN) => {}
                result => {
                    drop(slots);
                    drop(replaced);
                    return Poll::Ready(result.unwrap_or_else(|errno| -errno));
                }
            }
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

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Read as _;
    use std::net::TcpStream;
    use std::rc::Rc;
    use std::time::Duration;

    use super::*;
    use crate::engine::host::Machine;
    use crate::engine::ring::Completion;
    use crate::engine::spawn;
    use crate::engine::test_core::{
        LONG, end_operation, listener, on_a_core, settle, state_of, with_patience,
    };

    /// Waits for a connection when there is none, so that the kernel accepts ahead.
    async fn arm_accept(listener: &Listener) {
        let waker = std::task::Waker::noop();
        assert!(listener.poll_accept(&Context::from_waker(waker)).is_pending());
        settle().await;
        assert_eq!(state_of(&listener.descriptor), State::Armed);
    }

    #[test]
    fn an_accept_that_ends_is_armed_again() {
        on_a_core(|| async {
            let (mut listener, address) = listener();
            for round in 0..3 {
                let client = TcpStream::connect(address).unwrap();
                drop(listener.accept().await.unwrap());
                arm_accept(&listener).await;
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
            arm_accept(&listener).await;
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
            arm_accept(&listener).await;
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

    fn accepted_ahead(listener: &Listener) -> usize {
        let machine = &listener.descriptor.machine;
        let slots = machine.slots.borrow();
        let accepted = slots.slots[listener.descriptor.index as usize].accepted.as_ref();
        accepted.map_or(0, |list| list.iter().filter(|fd| **fd >= 0).count())
    }

    #[test]
    fn a_flood_is_left_in_the_queue_of_the_kernel_and_none_of_it_is_lost() {
        on_a_core(|| async {
            let (mut listener, address) = listener();
            let connect = |count| {
                (0..count).map(|_| TcpStream::connect(address).unwrap()).collect::<Vec<_>>()
            };
            let mut clients = connect(1);
            listener.accept().await.unwrap();
            arm_accept(&listener).await;
            clients.extend(connect(limits::ACCEPTED_MAX));
            settle().await;
            settle().await;
            assert_eq!(state_of(&listener.descriptor), State::Fresh, "it takes no more");
            assert_eq!(accepted_ahead(&listener), limits::ACCEPTED_MAX);
            clients.extend(connect(40));
            settle().await;
            assert_eq!(accepted_ahead(&listener), limits::ACCEPTED_MAX);
            for left in (0..limits::ACCEPTED_MAX + 40).rev() {
                listener.accept().await.unwrap();
                settle_rarely(left).await;
                assert_eq!(accepted_ahead(&listener), left.saturating_sub(40));
            }
            arm_accept(&listener).await; // the queue is empty
            clients.extend(connect(1));
            listener.accept().await.unwrap();
        });
    }

    async fn settle_rarely(round: usize) {
        if round.is_multiple_of(16) {
            settle().await;
        }
    }

    #[test]
    fn a_slow_task_loses_no_accepts() {
        on_a_core(|| async {
            let (mut listener, address) = listener();
            let _first = TcpStream::connect(address).unwrap();
            listener.accept().await.unwrap();
            arm_accept(&listener).await;
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

    #[test]
    fn a_connection_accepted_for_a_listener_that_has_gone_is_closed() {
        on_a_core(|| async {
            let (mut listener, address) = listener();
            let _first = TcpStream::connect(address).unwrap();
            listener.accept().await.unwrap();
            arm_accept(&listener).await;
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
}
