//! One stream of a client, as an exchange sees it: a body that comes, an answer that goes. All
//! waits are for one stream alone; a task of its own drives the connection (`http2/server.rs`).

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, Method, Response, StatusCode, request};

use crate::engine::{self, Wait};
use crate::exchange::failure::Failure;
use crate::http1::body;
use crate::http1::server::Input;
use crate::http2::fields;
use crate::http2::held::Held;
use crate::http2::io::Line;
use crate::http2::priority::{Told, Turn};
use crate::limits;

pub(crate) struct Call {
    line: Rc<Line>,
    id: u32,
    answer: RefCell<Answer>,
    body: RefCell<Body>,
    /// All of the answer was given to the connection, or the stream is known to be gone.
    over: Cell<bool>,
    /// It was asked for as a tunnel.
    is_tunnel: bool,
}

enum Answer {
    /// Nothing final has left.
    Head(SendResponse<Bytes>),
    Body(SendStream<Bytes>),
}

struct Body {
    stream: RecvStream,
    held: Held,
    /// What had no room yet.
    left: Bytes,
    trailers: Vec<u8>,
    ended: bool,
}

/// What came of a body.
pub(crate) enum Came {
    Bytes(usize),
    End,
}

impl Call {
    /// With what its request says of its priority.
    pub(crate) fn new(
        line: Rc<Line>,
        stream: RecvStream,
        answer: SendResponse<Bytes>,
        request: &request::Parts,
    ) -> Call {
        let id = answer.stream_id().as_u32();
        let told = Told::of(&request.headers);
        if line.order(|order, _| order.asked(id, told)).is_none() && !told.is_nothing() {
            line.begin_order(|order| order.asked(id, told));
        }
        let ended = stream.is_end_stream();
        let (held, left) = (Held::default(), Bytes::new());
        let body = Body { stream, held, left, trailers: Vec::new(), ended };
        Call {
            line,
            id,
            answer: RefCell::new(Answer::Head(answer)),
            body: RefCell::new(body),
            over: Cell::new(false),
            is_tunnel: request.method == Method::CONNECT,
        }
    }

    pub(crate) fn local_address(&self) -> io::Result<SocketAddr> {
        self.line.stream().local_address()
    }

    // --- the request's body --------------------------------------------------------------------

    /// Takes more of the body into `input`, as far as it has room. Whoever sends is given room for
    /// as much again at once: it is used before the next piece is asked for.
    pub(crate) async fn receive(&self, input: &mut Input, patience: Duration) -> io::Result<Came> {
        let came = std::future::poll_fn(|context| {
            let body = &mut *self.body.borrow_mut();
            body.poll(context, input.room())
        });
        match engine::within(patience, came).await {
            Some(Ok(Came::Bytes(count))) => {
                input.filled(count);
                Ok(Came::Bytes(count))
            }
            Some(Ok(Came::End)) => Ok(Came::End),
            Some(Err(error)) => {
                self.over.set(true);
                Err(io::Error::other(error))
            }
            None => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Holds what comes of the body while nobody takes it.
    pub(crate) fn hold(&self, context: &mut Context<'_>) {
        let body = &mut *self.body.borrow_mut();
        if !body.ended {
            body.held.fill(&mut body.stream, context);
        }
    }

    /// Ready when there is something of the body to take, or its end.
    pub(crate) fn poll_readable(&self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.body.borrow_mut().fill(context).map(|filled| filled.map_err(|error| self.lost(error)))
    }

    /// What there is of the body now; 0 at its end.
    pub(crate) fn poll_read(
        &self,
        context: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let came = self.body.borrow_mut().poll(context, room);
        came.map(|came| match came {
            Ok(Came::Bytes(count)) => Ok(count),
            Ok(Came::End) => Ok(0),
            Err(error) => Err(self.lost(error)),
        })
    }

    fn lost(&self, error: h2::Error) -> io::Error {
        self.over.set(true);
        io::Error::other(error)
    }

    /// Lines, once the body has ended: those that may go on, without those named `dropped`.
    pub(crate) fn trailers(&self, dropped: &[Box<[u8]>]) -> Result<Vec<u8>, Failure> {
        let lines = std::mem::take(&mut self.body.borrow_mut().trailers);
        body::forwarded_trailers(&lines, dropped, limits::TRAILER_BYTES_MAX)
            .map_err(|_| Failure::BodyMalformed)
    }

    // --- the answer ----------------------------------------------------------------------------

    /// Ready when nobody wants an answer any more.
    pub(crate) fn poll_broken(&self, context: &mut Context<'_>) -> Poll<()> {
        let poll = match &mut *self.answer.borrow_mut() {
            Answer::Head(answer) => answer.poll_reset(context),
            Answer::Body(stream) => stream.poll_reset(context),
        };
        if poll.is_ready() {
            self.over.set(true);
        }
        poll.map(|_| ())
    }

    /// A head of HTTP/1 that is not final.
    pub(crate) fn send_interim(&self, head: &[u8]) -> Result<(), Failure> {
        let Answer::Head(answer) = &mut *self.answer.borrow_mut() else { return Ok(()) };
        answer.send_informational(response(head)).map_err(|_| self.gone())
    }

    /// A head of HTTP/1 that is. `end`: there is nothing behind it.
    pub(crate) fn send_head(&self, head: &[u8], end: bool) -> Result<(), Failure> {
        let mut answer = self.answer.borrow_mut();
        if let Answer::Head(begun) = &mut *answer {
            let response = response(head);
            let told = Told::of(response.headers());
            if !told.is_nothing() {
                self.line.begin_order(|order| order.answered(self.id, told));
            }
            let stream = begun.send_response(response, end).map_err(|_| self.gone())?;
            *answer = Answer::Body(stream);
            self.over.set(end);
        }
        Ok(())
    }

    /// How many bytes of the body the client has room for now. For none: others may have it.
    pub(crate) fn room(&self, wanted: usize) -> usize {
        match &mut *self.answer.borrow_mut() {
            Answer::Head(_) => 0,
            Answer::Body(stream) => self.turn(stream, wanted, None).unwrap_or(0),
        }
    }

    /// What was said in the line is taken back when this is dropped.
    pub(crate) fn in_line(&self) -> Waiting<'_> {
        Waiting(self)
    }

    /// Where others wait for theirs: whether it is its turn still, although it has nothing yet.
    pub(crate) fn keeps_turn(&self, context: &Context<'_>) -> bool {
        self.line.order(|order, _| order.keeps_turn(self.id, context.waker())) == Some(true)
    }

    /// The room that a stream is given in its turn. `None`: it is another's.
    fn turn(
        &self,
        stream: &mut SendStream<Bytes>,
        wanted: usize,
        waker: Option<&Waker>,
    ) -> Option<usize> {
        let asks = |waker| {
            self.line.order(|order, _| {
                if self.is_tunnel {
                    order.is_tunnel(self.id);
                }
                order.asks(self.id, waker)
            })
        };
        match if wanted == 0 { None } else { asks(waker) } {
            None => {
                stream.reserve_capacity(wanted);
                if wanted == 0 && self.line.order(|order, _| order.stops_waiting(self.id)).is_some()
                {
                    self.line.give_turns();
                }
                Some(stream.capacity())
            }
            Some(Turn::Later) => {
                // What it was given before is for whoever is next.
                stream.reserve_capacity(0);
                None
            }
            Some(Turn::Now(most)) => {
                stream.reserve_capacity(wanted.min(most));
                let room = stream.capacity().min(most);
                let passes = self.line.order(|order, window| {
                    if room > 0 {
                        order.may_give(self.id);
                    }
                    room == 0 && order.is_shut(self.id, window)
                });
                if passes == Some(true) {
                    self.line.give_turns();
                }
                Some(room)
            }
        }
    }

    /// Waits until the client has room for a part of `wanted` bytes, for as long as that is
    /// `bearable`. While it is another stream's turn the client is not to blame.
    pub(crate) async fn until_room(
        &self,
        wanted: usize,
        patience: Duration,
        mut bearable: impl FnMut(Wait) -> bool,
    ) -> Result<usize, Failure> {
        let room = self.room(wanted);
        if room > 0 {
            return Ok(room);
        }
        let _waiting = Waiting(self);
        let since = Cell::new(engine::now());
        let is_later = Cell::new(false);
        loop {
            let (written, _) = self.of_all();
            let given = std::future::poll_fn(|context| {
                let Answer::Body(stream) = &mut *self.answer.borrow_mut() else {
                    return Poll::Ready(None);
                };
                let room = self.turn(stream, wanted, Some(context.waker()));
                is_later.set(room.is_none());
                if is_later.get() {
                    since.set(engine::now());
                }
                match room.unwrap_or(0) {
                    // It is told of once each time there is more.
                    0 => {
                        let told = stream.poll_capacity(context);
                        told.map(|given| given.and_then(Result::ok))
                    }
                    room => Poll::Ready(Some(room)),
                }
            });
            return match engine::within(patience, given).await {
                None if is_later.get() && written != self.of_all().0 => {
                    // It takes something, though nothing of this stream; all who wait share it.
                    let (now, waiting) = self.of_all();
                    let taken = (now - written) as usize / waiting.max(1);
                    if !bearable(Wait { lasted: patience, taken }) {
                        return Err(Failure::ClientTooSlow);
                    }
                    continue;
                }
                Some(Some(0)) | None => Err(Failure::ClientWriteTimeout),
                Some(Some(room)) => {
                    let wait = Wait { lasted: engine::now() - since.get(), taken: room };
                    if bearable(wait) { Ok(room) } else { Err(Failure::ClientTooSlow) }
                }
                Some(None) => Err(self.gone()),
            };
        }
    }

    /// What was written of all streams that have an order, and how many of them wait.
    fn of_all(&self) -> (u64, usize) {
        let both = self.line.order(|order, _| (order.written(), order.waiting()));
        both.unwrap_or_default()
    }

    /// What there is room for. `end`: there is nothing behind it.
    pub(crate) fn send_data(&self, data: &[u8], end: bool) -> Result<(), Failure> {
        let Answer::Body(stream) = &mut *self.answer.borrow_mut() else { return Ok(()) };
        stream.send_data(Bytes::copy_from_slice(data), end).map_err(|_| self.gone())?;
        if self.line.order(|order, _| order.gave(self.id, data.len())).is_some() {
            self.line.give_turns();
        }
        self.over.set(end);
        Ok(())
    }

    /// The end, with trailer lines if there are any.
    pub(crate) fn send_end(&self, trailers: &[u8]) -> Result<(), Failure> {
        let Answer::Body(stream) = &mut *self.answer.borrow_mut() else { return Ok(()) };
        let trailers = match trailers {
            b"" => HeaderMap::new(),
            lines => fields::of_lines(&Bytes::copy_from_slice(lines), 0),
        };
        let sent = match trailers.is_empty() {
            true => stream.send_data(Bytes::new(), true),
            false => stream.send_trailers(trailers),
        };
        sent.map_err(|_| self.gone())?;
        self.over.set(true);
        Ok(())
    }

    /// Called last. A client that is answered before it has said all may take a reset behind the
    /// answer for a failure while it still sends (RFC 9113 section 8.1 asks it not to). So it may
    /// go on for a moment, as far as it has room: no more is given.
    pub(crate) async fn linger(self) {
        if !self.over.get() || self.body.borrow().ended {
            return;
        }
        let rest = std::future::poll_fn(|context| {
            let body = &mut *self.body.borrow_mut();
            loop {
                if body.stream.flow_control().available_capacity() <= 0 {
                    return Poll::Ready(());
                }
                match body.fill(context) {
                    Poll::Ready(Ok(())) if !body.left.is_empty() => body.left = Bytes::new(),
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        engine::within(limits::H2_EARLY_ANSWER_TIME, rest).await;
    }

    /// Nothing more can be said on it.
    pub(crate) fn is_over(&self) -> bool {
        self.over.get()
    }

    fn gone(&self) -> Failure {
        self.over.set(true);
        Failure::ClientClosed
    }
}

impl Drop for Call {
    /// An answer that was cut must not look whole.
    fn drop(&mut self) {
        if !self.over.get() {
            match self.answer.get_mut() {
                Answer::Head(answer) => answer.send_reset(Reason::INTERNAL_ERROR),
                Answer::Body(stream) => stream.send_reset(Reason::INTERNAL_ERROR),
            }
        }
        if self.line.order(|order, _| order.leaves(self.id)).is_some() {
            self.line.give_turns();
        }
    }
}

/// A stream that waits for its turn, until it does no more.
pub(crate) struct Waiting<'c>(&'c Call);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let call = self.0;
        let left = call.line.order(|order, _| order.stops_waiting(call.id));
        if left.is_some() {
            call.line.give_turns();
        }
    }
}

impl Body {
    fn poll(
        &mut self,
        context: &mut Context<'_>,
        room: &mut [u8],
    ) -> Poll<Result<Came, h2::Error>> {
        match self.fill(context) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
            Poll::Pending => return Poll::Pending,
        }
        if self.left.is_empty() {
            return Poll::Ready(Ok(Came::End));
        }
        let count = self.left.len().min(room.len());
        let taken = self.left.split_to(count);
        room[..count].copy_from_slice(&taken);
        // It was given to us, so it can be given back.
        let _ = self.stream.flow_control().release_capacity(count);
        Poll::Ready(Ok(Came::Bytes(count)))
    }

    /// Until there is something left, or the body has ended.
    fn fill(&mut self, context: &mut Context<'_>) -> Poll<Result<(), h2::Error>> {
        while self.left.is_empty() && !self.ended {
            match self.held.take(&mut self.stream, context) {
                Poll::Ready(Some(Ok(bytes))) => self.left = bytes,
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => match self.stream.poll_trailers(context) {
                    Poll::Ready(Ok(trailers)) => {
                        self.ended = true;
                        if let Some(trailers) = trailers {
                            fields::to_lines(&trailers, &mut self.trailers);
                        }
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => return Poll::Pending,
                },
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(()))
    }
}

/// The head that is written in `head`, a status line and lines.
fn response(head: &[u8]) -> Response<()> {
    let mut response = Response::new(());
    let bytes = Bytes::copy_from_slice(head);
    let line = bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |end| end + 1);
    // `HTTP/1.1 200 ` is what we write.
    let status = bytes.get(9..12).and_then(|digits| StatusCode::from_bytes(digits).ok());
    *response.status_mut() = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = fields::of_lines(&bytes, line);
    response
}
