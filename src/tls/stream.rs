//! What a protocol is spoken on: a socket, plain or under TLS. Reads and writes as a socket does:
//! tried at once, waited for only when there is nothing.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::engine::{self, Parked, SendError, Side, Socket, Taken, Wait, Waiting};
use crate::tls::record::PLAIN_MAX;
use crate::tls::session::{End, Session};

pub(crate) struct Stream {
    socket: Socket,
    session: Option<Box<RefCell<Session>>>,
    /// It is not to look as if all had been said.
    abrupt: Cell<bool>,
}

impl Stream {
    pub(crate) fn plain(socket: Socket) -> Stream {
        Stream { socket, session: None, abrupt: Cell::new(false) }
    }

    pub(crate) fn secure(socket: Socket, session: Session) -> Stream {
        let session = Some(Box::new(RefCell::new(session)));
        Stream { socket, session, abrupt: Cell::new(false) }
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.session.is_some()
    }

    /// The socket itself, for a kernel that moves its bytes: those of the protocol only when the
    /// stream is not secure.
    pub(crate) fn bare(&self) -> &Socket {
        debug_assert!(!self.is_secure(), "records are no bytes of the protocol");
        &self.socket
    }

    pub(crate) fn poll_recv(
        &self,
        context: &Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let Some(session) = &self.session else { return self.socket.poll_recv(context, room) };
        let mut session = session.borrow_mut();
        loop {
            let mut filled = session.deliver(room);
            if filled == 0 && session.has_more() {
                filled = session.absorb_rest(room);
            }
            if filled == 0 {
                match session.end() {
                    None => {}
                    Some(End::Closed) => return Poll::Ready(Ok(0)),
                    Some(End::Failed) => return Poll::Ready(Err(failed(&session))),
                }
                match self.poll_read(context, &mut session, room) {
                    Poll::Ready(Ok(count)) => filled = count,
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                }
            }
            if session.is_urgent() {
                self.tell(&mut session);
            }
            // Else: only news of the session itself, or a part of a record.
            if filled > 0 {
                return Poll::Ready(Ok(filled));
            }
        }
    }

    /// One read of the socket, opened into `room`. 0: there is no plaintext in it.
    fn poll_read(
        &self,
        context: &Context<'_>,
        session: &mut Session,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = engine::buffer();
        let kept = session.undecided().len();
        // More would be kept for somebody who has no room for it now.
        let most = (kept + room.len().max(PLAIN_MAX)).min(buffer.len());
        match self.socket.poll_recv(context, &mut buffer[kept..most]) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Ready(Ok(0)) => {
                session.cut();
                Poll::Ready(Ok(0))
            }
            Poll::Ready(Ok(count)) => {
                buffer[..kept].copy_from_slice(session.undecided());
                Poll::Ready(Ok(session.absorb(&mut buffer[..kept + count], room)))
            }
        }
    }

    /// What there is, without waiting for more: whoever holds a buffer gives it back before that.
    pub(crate) async fn try_recv(&self, room: &mut [u8]) -> Poll<io::Result<usize>> {
        std::future::poll_fn(|context| Poll::Ready(self.poll_recv(context, room))).await
    }

    /// Bytes received; 0 at the end of the stream. Under TLS that is where the peer has said so.
    pub(crate) async fn recv(&self, room: &mut [u8]) -> io::Result<usize> {
        std::future::poll_fn(|context| self.poll_recv(context, room)).await
    }

    /// What is to be said beside the data, as far as the socket takes it at once.
    fn tell(&self, session: &mut Session) {
        if session.pending().is_some() {
            return; // it goes before the next data
        }
        let bytes = session.take_outgoing();
        if bytes.is_empty() {
            return;
        }
        let sent = engine::send_at_once(self.fd(), &bytes).unwrap_or_default();
        if sent < bytes.len() {
            session.postpone(&bytes[sent..], 0);
        }
    }

    /// All of `parts`. `TimedOut` when the peer takes nothing for as long as `patience`.
    pub(crate) async fn send(
        &self,
        parts: &[&[u8]; 3],
        patience: Duration,
    ) -> Result<(), SendError> {
        self.send_while(parts, patience, |_| true).await
    }

    /// Sends to a peer that may be slow: see [`Socket::send_while`]. What of `parts` was sent is
    /// counted as plaintext, once all that it is sealed in has left.
    pub(crate) async fn send_while(
        &self,
        parts: &[&[u8]; 3],
        patience: Duration,
        bearable: impl FnMut(Wait) -> bool,
    ) -> Result<(), SendError> {
        let Some(session) = &self.session else {
            return self.socket.send_while(parts, patience, bearable).await;
        };
        session.borrow_mut().begin_send();
        let total = parts.iter().map(|part| part.len()).sum();
        let put = |context: &Context<'_>, sent| {
            self.poll_seal(context, &mut session.borrow_mut(), parts, sent)
        };
        let sent = self.socket.put(total, patience, bearable, put).await;
        sent.map_err(|error| {
            // Of what is in the records that have left in part, nobody knows what the peer has.
            let least = usize::from(session.borrow().has_sent());
            SendError { sent: error.sent.max(least), ..error }
        })
    }

    /// What of `bytes` is taken at once, for a protocol that gathers what it says. Whoever is told
    /// to wait offers the same bytes again, and more behind them if it likes: the first of them may
    /// be sealed already.
    pub(crate) fn poll_send(&self, context: &Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Some(session) = &self.session else {
            return self.socket.poll_send(context, &[IoSlice::new(bytes)]);
        };
        let mut session = session.borrow_mut();
        loop {
            match self.poll_seal(context, &mut session, &[bytes, b"", b""], 0) {
                // A part of what was sealed before.
                Poll::Ready(Ok(Taken { of_ours: 0, .. })) => {}
                Poll::Ready(Ok(taken)) => return Poll::Ready(Ok(taken.of_ours)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// See [`Waiting`].
    pub(crate) fn begin_waiting(&self, patience: Duration) -> Waiting {
        Waiting::begin(&self.socket, patience)
    }

    /// Whether the peer that takes nothing still has time.
    pub(crate) fn goes_on_waiting(&self, waiting: &mut Waiting, patience: Duration) -> bool {
        waiting.look(&self.socket, 0);
        waiting.goes_on(&self.socket, patience)
    }

    fn poll_seal(
        &self,
        context: &Context<'_>,
        session: &mut Session,
        parts: &[&[u8]; 3],
        skip: usize,
    ) -> Poll<io::Result<Taken>> {
        if let Some(bytes) = session.pending() {
            return self.socket.poll_send(context, &[IoSlice::new(bytes)]).map_ok(|count| {
                let of_ours = session.sent(count).unwrap_or_default();
                Taken { of_ours, by_socket: count }
            });
        }
        let mut buffer = engine::buffer();
        // Of a peer that is slow, one record waits and not a buffer full of them.
        let most = if session.is_slow() { ONE_RECORD } else { buffer.len() };
        let Ok((end, plain)) = session.seal(parts, skip, &mut buffer[..most]) else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        let mut sent = 0;
        while sent < end {
            match self.socket.poll_send(context, &[IoSlice::new(&buffer[sent..end])]) {
                Poll::Ready(Ok(count)) => {
                    sent += count;
                    session.note_sent();
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    session.postpone(&buffer[sent..end], plain);
                    if sent == 0 {
                        return Poll::Pending;
                    }
                    // What the socket has taken is no time in which it took nothing.
                    return Poll::Ready(Ok(Taken { of_ours: 0, by_socket: sent }));
                }
            }
        }
        Poll::Ready(Ok(Taken { of_ours: plain, by_socket: end }))
    }

    /// No more bytes from us; the peer sees the end of the stream.
    pub(crate) fn finish(&self) {
        self.say_goodbye();
        self.socket.finish();
    }

    fn say_goodbye(&self) {
        if let Some(session) = &self.session
            && let Ok(mut session) = session.try_borrow_mut()
        {
            session.finish();
            // What is left of news goes first. Of data it would be half a record, and no goodbye.
            if let Some(bytes) = session.pending() {
                let sent = engine::send_at_once(self.fd(), bytes).unwrap_or_default();
                session.sent(sent);
            }
            self.tell(&mut session);
        }
    }

    /// No more should begin on this connection.
    pub(crate) fn is_worn(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.borrow().is_worn())
    }

    /// Whether closing sends a reset and drops what the peer has not taken, instead of an orderly
    /// end.
    pub(crate) fn set_reset_on_close(&self, reset: bool) {
        self.abrupt.set(reset);
        self.socket.set_reset_on_close(reset);
    }

    /// The end of this connection is not the end of what it carried.
    pub(crate) fn end_abruptly(&self) {
        self.abrupt.set(true);
    }

    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.socket.local_address()
    }

    /// See [`Socket::set_unsent_max`].
    pub(crate) fn set_unsent_max(&self, bytes: u32) {
        self.socket.set_unsent_max(bytes);
    }

    pub(crate) fn set_deadline(&self, side: Side, after: Option<Duration>) {
        self.socket.set_deadline(side, after);
    }

    /// For reading: something may be there already, which no edge will tell of.
    pub(crate) async fn ready(&self, side: Side) -> io::Result<()> {
        std::future::poll_fn(|context| self.poll_ready(context, side)).await
    }

    pub(crate) fn poll_ready(&self, context: &Context<'_>, side: Side) -> Poll<io::Result<()>> {
        if side == Side::Read && self.has_more() {
            return Poll::Ready(Ok(()));
        }
        self.socket.poll_ready(context, side)
    }

    fn has_more(&self) -> bool {
        self.session.as_ref().is_some_and(|session| session.borrow().has_more())
    }

    /// Bytes of a record that has come in part.
    pub(crate) fn undecided(&self) -> usize {
        self.session.as_ref().map_or(0, |session| session.borrow().undecided().len())
    }

    pub(crate) fn is_quiet(&self) -> bool {
        !self.has_more() && self.socket.is_quiet()
    }

    /// Whether nothing waits to be read and nothing has ended. What the session has to say to
    /// itself, such as a server's tickets, is heard meanwhile.
    pub(crate) fn is_silent(&self) -> bool {
        let Some(session) = &self.session else { return self.socket.is_silent() };
        let mut session = session.borrow_mut();
        loop {
            if session.has_more() {
                return false;
            }
            if self.socket.is_silent() {
                return true;
            }
            let context = Context::from_waker(Waker::noop());
            match self.poll_read(&context, &mut session, &mut []) {
                Poll::Ready(Ok(_)) => self.tell(&mut session),
                Poll::Ready(Err(_)) => return false,
                Poll::Pending => return true,
            }
        }
    }

    /// Says whether the connection is between two requests: see [`Socket::set_parked`].
    pub(crate) fn set_parked(&self, parked: Parked) -> Parked {
        self.socket.set_parked(parked)
    }

    pub(crate) fn poll_broken(&self, context: &Context<'_>) -> Poll<()> {
        self.socket.poll_broken(context)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// With its header and all that may be around it.
const ONE_RECORD: usize = PLAIN_MAX + 512;

/// The peer has left in the middle, or has complained.
fn failed(session: &Session) -> io::Error {
    match session.alert() {
        Some(code) => io::Error::new(io::ErrorKind::ConnectionAborted, PeerAlert(code)),
        None => io::ErrorKind::UnexpectedEof.into(),
    }
}

/// Why a peer did not want to go on: a number of RFC 8446 section 6.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PeerAlert(u8);

impl PeerAlert {
    /// Of an error of a read.
    pub(crate) fn of(error: &io::Error) -> Option<PeerAlert> {
        error.get_ref()?.downcast_ref().copied()
    }
}

impl fmt::Display for PeerAlert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let description = rustls::AlertDescription::from(self.0);
        write!(f, "it ended the connection with the TLS alert {description:?} ({})", self.0)
    }
}

impl std::error::Error for PeerAlert {}

impl Drop for Stream {
    fn drop(&mut self) {
        if !self.abrupt.get() {
            self.say_goodbye();
        }
    }
}
