//! A connection as the h2 crate wants it: tokio's traits on a stream of ours. What h2 writes while
//! it is polled is gathered and leaves in one send, when the task that polls it says so.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::engine::{self, Buf, Side, Waiting};
use crate::http2::abuse::{Abuse, NO_RFC7540_PRIORITIES, Watch};
use crate::http2::endpoint_watch::EndpointWatch;
use crate::http2::frames::SETTINGS;
use crate::http2::priority::Order;
use crate::limits;
use crate::tls::stream::Stream;

/// What h2 reads and writes.
pub(crate) struct Wire(Rc<Line>);

/// The same connection for the task that drives it.
pub(crate) struct Line {
    stream: Stream,
    /// How long the peer may take nothing of what we have to say.
    patience: Duration,
    begun: RefCell<Vec<u8>>,
    /// In this turn.
    reads: Cell<u32>,
    sent: Cell<u64>,
    out: RefCell<Out>,
    /// What the peer had time for has passed, while we waited for it to say something.
    overdue: Cell<bool>,
    /// Its last word has come.
    ended: Cell<bool>,
    watch: RefCell<Watching>,
    /// Why nothing more is read.
    abuse: Cell<Option<Abuse>>,
    /// The kernel has been told that streams have an order.
    is_ordered: Cell<bool>,
    /// Our first word has been said.
    is_greeted: Cell<bool>,
}

/// What is to be sent.
#[derive(Default)]
struct Out {
    /// Lent while it fills.
    buffer: Option<Buf>,
    /// The bytes that are used of it.
    end: usize,
    /// What the socket has not taken: as little memory as possible, for as long as it takes.
    left: Vec<u8>,
    sent: usize,
    waiting: Option<Waiting>,
}

/// Who is watched: what a client may do is not what an endpoint may.
enum Watching {
    Client(Watch),
    Endpoint(EndpointWatch),
}

impl Wire {
    /// Of a client. `begun`: what was read of it already.
    pub(crate) fn new(stream: Stream, patience: Duration, begun: Vec<u8>) -> Wire {
        Wire::watched(stream, patience, begun, Watching::Client(Watch::new(engine::now())))
    }

    pub(crate) fn of_endpoint(stream: Stream, patience: Duration) -> Wire {
        let watch = Watching::Endpoint(EndpointWatch::new());
        Wire::watched(stream, patience, Vec::new(), watch)
    }

    fn watched(stream: Stream, patience: Duration, begun: Vec<u8>, watch: Watching) -> Wire {
        Wire(Rc::new(Line {
            stream,
            patience,
            begun: RefCell::new(begun),
            reads: Cell::new(0),
            sent: Cell::new(0),
            out: RefCell::default(),
            overdue: Cell::new(false),
            ended: Cell::new(false),
            watch: RefCell::new(watch),
            abuse: Cell::new(None),
            is_ordered: Cell::new(false),
            is_greeted: Cell::new(false),
        }))
    }

    pub(crate) fn line(&self) -> Rc<Line> {
        Rc::clone(&self.0)
    }
}

impl Line {
    pub(crate) fn stream(&self) -> &Stream {
        &self.stream
    }

    /// Bytes that have left.
    pub(crate) fn sent(&self) -> u64 {
        self.sent.get()
    }

    /// Nothing waits to leave.
    pub(crate) fn is_flushed(&self) -> bool {
        let out = self.out.borrow();
        out.buffer.is_none() && out.left.is_empty()
    }

    /// From now on the peer is to say something within this time.
    pub(crate) fn set_patience(&self, patience: Option<Duration>) {
        self.overdue.set(false);
        self.stream.set_deadline(Side::Read, patience);
    }

    /// It has not.
    pub(crate) fn is_overdue(&self) -> bool {
        self.overdue.get()
    }

    /// To be called before each poll of the protocol: what it may do in one turn is bounded.
    pub(crate) fn begin_turn(&self) {
        self.reads.set(0);
    }

    fn take_begun(&self, room: &mut ReadBuf<'_>) -> bool {
        let mut begun = self.begun.borrow_mut();
        let count = begun.len().min(room.remaining());
        room.put_slice(&begun[..count]);
        begun.drain(..count);
        if begun.is_empty() {
            *begun = Vec::new();
        }
        count > 0
    }

    /// What has come behind `before`, if that may be read.
    fn let_through(&self, room: &mut ReadBuf<'_>, before: usize) -> Poll<io::Result<()>> {
        if self.watch_received(&room.filled()[before..]) {
            return Poll::Ready(Ok(()));
        }
        room.set_filled(before);
        Poll::Pending
    }

    /// What the client has done that the connection must end for. Nothing more of it is read.
    pub(crate) fn abuse(&self) -> Option<Abuse> {
        self.abuse.get()
    }

    /// Whether bytes that came may be read.
    fn watch_received(&self, bytes: &[u8]) -> bool {
        let told = match &mut *self.watch.borrow_mut() {
            Watching::Client(watch) => watch.received(bytes, engine::now()),
            Watching::Endpoint(watch) => watch.received(bytes),
        };
        self.abuse.set(told.err());
        told.is_ok()
    }

    fn watch_sent(&self, parts: &[IoSlice<'_>], mut count: usize) {
        let mut watch = self.watch.borrow_mut();
        for part in parts {
            let sent = &part[..part.len().min(count)];
            count -= sent.len();
            match &mut *watch {
                Watching::Client(watch) if self.abuse.get().is_none() => {
                    self.abuse.set(watch.sent(sent, engine::now()).err());
                }
                Watching::Client(_) => {}
                Watching::Endpoint(watch) => watch.sent(sent),
            }
        }
    }

    /// What `ask` says of the order of a client's streams, and of what it takes on the connection.
    /// `None`: there is no order.
    pub(crate) fn order<T>(&self, ask: impl FnOnce(&mut Order, i64) -> T) -> Option<T> {
        match &mut *self.watch.borrow_mut() {
            Watching::Client(watch) => watch.order().map(|(order, window)| ask(order, window)),
            Watching::Endpoint(_) => None,
        }
    }

    /// From now on there is one.
    pub(crate) fn begin_order(&self, tell: impl FnOnce(&mut Order)) {
        if let Watching::Client(watch) = &mut *self.watch.borrow_mut() {
            tell(watch.begin_order());
        }
    }

    /// Wakes whoever's turn it is. To be called when there may be room again.
    pub(crate) fn give_turns(&self) {
        let next = self.order(|order, _| order.wakes()).flatten();
        next.into_iter().for_each(Waker::wake);
    }

    /// The same behind each poll of the protocol and what it has to send.
    pub(crate) fn end_turn(&self) {
        let is_flushed = self.is_flushed();
        if self.order(|order, _| order.written_out(is_flushed)).is_some() {
            if !self.is_ordered.replace(true) {
                self.stream.set_unsent_max(limits::H2_UNSENT_BYTES_MAX);
            }
            self.give_turns();
        }
    }

    /// Whether the peer will say nothing more.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// Our first SETTINGS to a client say one thing more than the crate knows: that the priorities
    /// of RFC 7540 count for nothing here (RFC 9218 section 2.1). How much was taken.
    #[cold]
    fn greet(&self, bytes: &[u8]) -> usize {
        let is_client = matches!(&*self.watch.borrow(), Watching::Client(_));
        let Some(&[0, a, b, SETTINGS, flags @ 0, ..]) = bytes.first_chunk::<9>() else { return 0 };
        let end = 9 + usize::from(u16::from_be_bytes([a, b]));
        let Some(entries) = bytes.get(9..end).filter(|_| is_client) else { return 0 };
        let [c, d] = NO_RFC7540_PRIORITIES.to_be_bytes();
        let entries = [entries, &[c, d, 0, 0, 0, 1]].concat();
        let [.., a, b] = entries.len().to_be_bytes();
        let header = [0, a, b, SETTINGS, flags, 0, 0, 0, 0];
        let mut out = self.out.borrow_mut();
        // It is the first that is there.
        out.take(&header);
        out.take(&entries);
        end
    }

    /// Sends what was gathered. To be called after each poll of the protocol.
    pub(crate) fn poll_flush(&self, context: &Context<'_>) -> Poll<io::Result<()>> {
        let mut out = self.out.borrow_mut();
        let out = &mut *out;
        loop {
            let bytes = match &out.buffer {
                Some(buffer) if out.left.is_empty() => &buffer[out.sent..out.end],
                Some(_) | None => &out.left[out.sent..],
            };
            if bytes.is_empty() {
                *out = Out::default();
                return Poll::Ready(Ok(()));
            }
            match self.stream.poll_send(context, bytes) {
                Poll::Ready(Ok(count)) => {
                    out.sent += count;
                    self.sent.set(self.sent.get() + count as u64);
                    if out.waiting.take().is_some() {
                        self.stream.set_deadline(Side::Write, None);
                    }
                }
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                    let still = out
                        .waiting
                        .as_mut()
                        .is_some_and(|waiting| self.stream.goes_on_waiting(waiting, self.patience));
                    if !still {
                        return Poll::Ready(Err(error));
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => {
                    out.settle();
                    if out.waiting.is_none() {
                        out.waiting = Some(self.stream.begin_waiting(self.patience));
                        // A deadline that is new is to be waited for.
                        continue;
                    }
                    return Poll::Pending;
                }
            }
        }
    }
}

impl Out {
    /// Gives the buffer back, for a wait of unknown length.
    fn settle(&mut self) {
        if let Some(buffer) = self.buffer.take() {
            self.left = buffer[self.sent..self.end].to_vec();
            (self.sent, self.end) = (0, 0);
        }
    }

    /// Takes what there is room for. 0: what is here has to leave first.
    fn take(&mut self, bytes: &[u8]) -> usize {
        if !self.left.is_empty() {
            return 0;
        }
        let buffer = self.buffer.get_or_insert_with(engine::buffer);
        let room = &mut buffer[self.end..];
        let count = bytes.len().min(room.len());
        room[..count].copy_from_slice(&bytes[..count]);
        self.end += count;
        count
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let line = &*self.0;
        if line.abuse.get().is_some() {
            return Poll::Pending; // who drives the connection ends it
        }
        if line.reads.get() == limits::H2_READS_PER_TURN {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        line.reads.set(line.reads.get() + 1);
        let before = room.filled().len();
        if line.take_begun(room) {
            return line.let_through(room, before);
        }
        let most = room.remaining().min(limits::H2_READ_BYTES);
        // Most reads are far smaller than the crate's room: what is not written to is no memory.
        let mut buffer = engine::buffer();
        match line.stream.poll_recv(context, &mut buffer[..most]) {
            Poll::Ready(Ok(count)) => {
                room.put_slice(&buffer[..count]);
                line.ended.set(count == 0);
                line.let_through(room, before)
            }
            // Who drives the connection decides what that means; until then there is nothing.
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::TimedOut => {
                line.overdue.set(true);
                Poll::Pending
            }
            Poll::Ready(Err(error)) => {
                line.ended.set(true);
                Poll::Ready(Err(error))
            }
            Poll::Pending => Poll::Pending,
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let line = &*self.0;
        let mut taken = match parts.first() {
            Some(first) if !line.is_greeted.replace(true) => line.greet(first),
            Some(_) | None => 0,
        };
        if taken == 0 {
            taken = line.out.borrow_mut().take_all(parts);
        }
        while taken == 0 {
            match line.poll_flush(context) {
                Poll::Ready(Ok(())) => taken = line.out.borrow_mut().take_all(parts),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        line.watch_sent(parts, taken);
        Poll::Ready(Ok(taken))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Nothing leaves before the task says so, see [`Line::poll_flush`].
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = self.0.poll_flush(context);
        if flushed.is_ready() {
            self.0.stream.finish();
        }
        flushed
    }
}

impl Out {
    fn take_all(&mut self, parts: &[IoSlice<'_>]) -> usize {
        let mut taken = 0;
        for part in parts {
            let count = self.take(part);
            taken += count;
            if count < part.len() {
                break;
            }
        }
        taken
    }
}
