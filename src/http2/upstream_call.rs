//! One stream to an endpoint, as an exchange uses it: the head and the body up, heads, the body and
//! trailers down. Nothing is taken from the endpoint's window that the client has not taken.
//! Dropped before its end, it resets the stream and nothing else.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};

use crate::engine::{self, SendError, Sleep};
use crate::exchange::failure::Failure;
use crate::http2::held::Held;
use crate::http2::{fields, upstream_head};
use crate::limits;

pub(crate) struct UpstreamCall {
    /// Until the head is sent.
    sender: RefCell<Option<SendRequest<Bytes>>>,
    endpoint: SocketAddr,
    is_secure: bool,
    /// What the stream is to become, if it is not to be a request and its answer.
    protocol: RefCell<Option<Box<str>>>,
    upward: RefCell<Option<SendStream<Bytes>>>,
    downward: RefCell<Downward>,
    held: RefCell<Held>,
    /// When the endpoint has said too little.
    deadline: RefCell<Option<Sleep>>,
    /// Since when all that was to be said has been said, and nothing was heard.
    unanswered: Cell<Option<Instant>>,
    timed_out: Cell<bool>,
}

enum Downward {
    /// Nothing was asked yet.
    Silent,
    Head(ResponseFuture),
    Body(RecvStream),
    Over,
}

/// A head that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadCame {
    /// Nothing follows.
    pub(crate) ends: bool,
}

/// What has come of a body.
#[derive(Debug)]
pub(crate) enum Came {
    /// Its window is the endpoint's again once it was [taken](UpstreamCall::taken).
    Data { bytes: Bytes, ends: bool },
    /// The end, and trailers as lines of HTTP/1.
    End { trailers: Vec<u8> },
}

impl UpstreamCall {
    pub(crate) fn new(
        sender: SendRequest<Bytes>,
        endpoint: SocketAddr,
        is_secure: bool,
    ) -> UpstreamCall {
        UpstreamCall {
            sender: RefCell::new(Some(sender)),
            endpoint,
            is_secure,
            protocol: RefCell::default(),
            upward: RefCell::default(),
            downward: RefCell::new(Downward::Silent),
            held: RefCell::default(),
            deadline: RefCell::default(),
            unanswered: Cell::new(None),
            timed_out: Cell::new(false),
        }
    }

    pub(crate) fn is_secure(&self) -> bool {
        self.is_secure
    }

    /// Whether the endpoint has said that it knows requests for tunnels (RFC 8441 section 3).
    pub(crate) fn may_be_tunnel(&self) -> bool {
        let sender = self.sender.borrow();
        sender.as_ref().is_some_and(SendRequest::is_extended_connect_protocol_enabled)
    }

    /// The head that is to be sent asks for a tunnel, so that nothing ends with it.
    #[cold]
    pub(crate) fn becomes_tunnel(&self, protocol: &[u8]) {
        let protocol = String::from_utf8_lossy(protocol).into_owned();
        *self.protocol.borrow_mut() = Some(protocol.into_boxed_str());
    }

    /// What `http1::encode` has written of a request, as far as it is here: its head first, a piece
    /// of its body, and the end with trailers.
    pub(crate) async fn send_piece(
        &self,
        head: &[u8],
        data: &[u8],
        ends: bool,
        trailers: &[u8],
        patience: Duration,
    ) -> Result<(), SendError> {
        let ends_here = ends && trailers.is_empty();
        if !head.is_empty() {
            let is_all = ends_here && data.is_empty();
            self.send_head(head, is_all).map_err(Unsent::error)?;
            if is_all {
                return Ok(());
            }
        }
        self.send(data, ends_here, patience).await?;
        if ends && !ends_here { self.send_trailers(trailers) } else { Ok(()) }
    }

    /// Sends a head that `http1::encode::request` has written. `ends`: there is no body.
    pub(crate) fn send_head(&self, head: &[u8], ends: bool) -> Result<(), Failure> {
        let protocol = self.protocol.borrow();
        let (is_secure, endpoint) = (self.is_secure, self.endpoint);
        let request = match protocol.as_deref() {
            None => upstream_head::request(head, is_secure, endpoint),
            Some(protocol) => upstream_head::tunnel(head, is_secure, endpoint, protocol),
        };
        let request = request.ok_or(Failure::BadPath)?;
        let sender = self.sender.borrow_mut().take();
        let mut sender = sender.ok_or(Failure::Internal)?;
        // One that cannot even begin was left out, whatever the reason.
        let begun = sender.send_request(request, ends && protocol.is_none());
        let (response, upward) = begun.map_err(|_| Failure::UpstreamRefused)?;
        *self.downward.borrow_mut() = Downward::Head(response);
        *self.upward.borrow_mut() = Some(upward);
        if ends {
            self.all_is_said();
        }
        Ok(())
    }

    fn all_is_said(&self) {
        self.unanswered.set(Some(engine::now()));
    }

    /// Sends a piece of the body as the endpoint takes it. `TimedOut` when it takes nothing for as
    /// long as `patience`.
    pub(crate) async fn send(
        &self,
        data: &[u8],
        ends: bool,
        patience: Duration,
    ) -> Result<(), SendError> {
        if data.is_empty() {
            return if ends { self.put(Bytes::new(), true, 0) } else { Ok(()) };
        }
        let mut sent = 0;
        while sent < data.len() {
            let room = self.room(data.len() - sent, patience).await;
            let room = room.map_err(|cause| SendError { sent, cause })?;
            let end = (sent + room).min(data.len());
            let piece = Bytes::copy_from_slice(&data[sent..end]);
            self.put(piece, ends && end == data.len(), sent)?;
            sent = end;
        }
        Ok(())
    }

    fn put(&self, piece: Bytes, ends: bool, sent: usize) -> Result<(), SendError> {
        let mut upward = self.upward.borrow_mut();
        let put = match upward.as_mut() {
            Some(stream) => stream.send_data(piece, ends).map_err(|_| io::ErrorKind::BrokenPipe),
            None => Err(io::ErrorKind::BrokenPipe),
        };
        put.map_err(|kind| SendError { sent, cause: kind.into() })?;
        if ends {
            self.all_is_said();
        }
        Ok(())
    }

    /// How much the endpoint takes, once that is anything.
    async fn room(&self, wanted: usize, patience: Duration) -> io::Result<usize> {
        let wanted = wanted.min(limits::UPSTREAM_SEND_BYTES_MAX);
        let mut late = None;
        std::future::poll_fn(|context| {
            let mut upward = self.upward.borrow_mut();
            let Some(stream) = upward.as_mut() else {
                return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
            };
            stream.reserve_capacity(wanted);
            loop {
                let room = stream.capacity();
                if room > 0 {
                    return Poll::Ready(Ok(room));
                }
                match stream.poll_capacity(context) {
                    Poll::Ready(Some(Ok(_))) => {}
                    Poll::Ready(Some(Err(_)) | None) => {
                        return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
                    }
                    Poll::Pending => break,
                }
            }
            let late = late.get_or_insert_with(|| engine::sleep(patience));
            Pin::new(late).poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
        })
        .await
    }

    /// The end of the request, with trailers that were lines of HTTP/1.
    pub(crate) fn send_trailers(&self, lines: &[u8]) -> Result<(), SendError> {
        let fields = fields::of_lines(&Bytes::copy_from_slice(lines), 0);
        if fields.is_empty() {
            return self.put(Bytes::new(), true, 0);
        }
        let sent = match self.upward.borrow_mut().as_mut() {
            Some(stream) => stream.send_trailers(fields).is_ok(),
            None => false,
        };
        if !sent {
            return Err(SendError { sent: 0, cause: io::ErrorKind::BrokenPipe.into() });
        }
        self.all_is_said();
        Ok(())
    }

    /// Nothing more is said on it. The other way goes on.
    pub(crate) fn finish(&self) {
        if let Some(stream) = self.upward.borrow_mut().as_mut() {
            // Of a stream that is gone nobody has to be told the end.
            let _ = stream.send_data(Bytes::new(), true);
        }
    }

    /// Called behind the end. Whoever lets go of a stream that the endpoint has not ended resets
    /// it, and what was said last and has not left is lost with it. So it has until then to end it
    /// too, as far as it has room: no more is given.
    pub(crate) async fn linger(&self, until: Instant) {
        let ended = std::future::poll_fn(|context| {
            loop {
                match self.poll_body(context) {
                    Poll::Ready(Ok(Came::Data { ends: false, .. })) => {}
                    Poll::Ready(_) => return Poll::Ready(()),
                    Poll::Pending => return Poll::Pending,
                }
            }
        });
        engine::within(until.saturating_duration_since(engine::now()), ended).await;
    }

    /// Ready when the stream was reset, or its connection is gone.
    pub(crate) fn poll_broken(&self, context: &mut Context<'_>) -> Poll<()> {
        match self.upward.borrow_mut().as_mut() {
            Some(stream) => stream.poll_reset(context).map(|_| ()),
            None => Poll::Ready(()),
        }
    }

    /// How long the endpoint may go on saying nothing, from now on.
    pub(crate) fn set_deadline(&self, patience: Option<Duration>) {
        *self.deadline.borrow_mut() = patience.map(engine::sleep);
    }

    fn poll_late(&self, context: &mut Context<'_>) -> Poll<()> {
        let late = match self.deadline.borrow_mut().as_mut() {
            Some(deadline) => Pin::new(deadline).poll(context),
            None => Poll::Pending,
        };
        self.timed_out.set(late.is_ready());
        late
    }

    /// The next head, appended to `out` as HTTP/1 has it: interim ones first.
    pub(crate) fn poll_head(
        &self,
        context: &mut Context<'_>,
        out: &mut Vec<u8>,
    ) -> Poll<Result<HeadCame, Failure>> {
        let mut downward = self.downward.borrow_mut();
        let Downward::Head(response) = &mut *downward else {
            return Poll::Ready(Err(Failure::Internal));
        };
        match response.poll_informational(context) {
            Poll::Ready(Some(Ok(interim))) => {
                self.unanswered.set(self.unanswered.get().map(|_| engine::now()));
                let (parts, ()) = interim.into_parts();
                upstream_head::response(parts.status, &parts.headers, out);
                return Poll::Ready(Ok(HeadCame { ends: false }));
            }
            Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(no_answer(&error))),
            Poll::Ready(None) | Poll::Pending => {}
        }
        match Pin::new(response).poll(context) {
            Poll::Ready(Ok(response)) => {
                self.unanswered.set(None);
                let (parts, body) = response.into_parts();
                upstream_head::response(parts.status, &parts.headers, out);
                let ends = body.is_end_stream();
                *downward = if ends { Downward::Over } else { Downward::Body(body) };
                Poll::Ready(Ok(HeadCame { ends }))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(no_answer(&error))),
            Poll::Pending => {
                drop(downward);
                self.poll_late(context).map(|()| Err(Failure::FirstByteTimeout))
            }
        }
    }

    /// Does what takes a while with what has come, and holds meanwhile what else comes: what waits
    /// with the crate in small pieces counts against the connection, and so against others.
    pub(crate) async fn meanwhile<T>(&self, doing: impl Future<Output = T>) -> T {
        let mut doing = std::pin::pin!(doing);
        std::future::poll_fn(|context| {
            let done = doing.as_mut().poll(context);
            if done.is_pending() {
                self.hold(context);
            }
            done
        })
        .await
    }

    fn hold(&self, context: &mut Context<'_>) {
        if let Downward::Body(body) = &mut *self.downward.borrow_mut() {
            self.held.borrow_mut().fill(body, context);
        }
    }

    pub(crate) fn poll_body(&self, context: &mut Context<'_>) -> Poll<Result<Came, Failure>> {
        let mut downward = self.downward.borrow_mut();
        let body = match &mut *downward {
            Downward::Body(body) => body,
            Downward::Over => return Poll::Ready(Ok(Came::End { trailers: Vec::new() })),
            Downward::Silent | Downward::Head(_) => return Poll::Ready(Err(Failure::Internal)),
        };
        let mut held = self.held.borrow_mut();
        let came = match held.take(body, context) {
            Poll::Ready(Some(Ok(bytes))) => {
                let ends = held.is_empty() && body.is_end_stream();
                return Poll::Ready(Ok(Came::Data { bytes, ends }));
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Err(error)),
            Poll::Ready(None) => body.poll_trailers(context),
            Poll::Pending => Poll::Pending,
        };
        drop(held);
        match came {
            Poll::Ready(Ok(trailers)) => {
                *downward = Downward::Over;
                let lines = trailers.as_ref().map(upstream_head::trailer_lines).transpose();
                let lines = lines.map_err(|_| Failure::UpstreamBodyMalformed);
                Poll::Ready(lines.map(|lines| Came::End { trailers: lines.unwrap_or_default() }))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(no_end(&error))),
            Poll::Pending => {
                drop(downward);
                self.poll_late(context).map(|()| Err(Failure::UpstreamReadTimeout))
            }
        }
    }

    /// The client has these bytes: the endpoint may send as many more.
    pub(crate) fn taken(&self, bytes: usize) {
        if let Downward::Body(body) = &mut *self.downward.borrow_mut() {
            // After its end there is nobody to tell.
            let _ = body.flow_control().release_capacity(bytes);
        }
    }

    /// It was left without an answer, late enough to ask whether the endpoint is there at all.
    pub(crate) fn is_suspicious(&self, now: Instant) -> bool {
        let is_long = |since| now.saturating_duration_since(since) >= limits::UPSTREAM_SILENCE_MAX;
        self.timed_out.get() || self.unanswered.get().is_some_and(is_long)
    }
}

/// Why a request was not even begun, told through an error of sending.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unsent(pub(crate) Failure);

impl Unsent {
    fn error(failure: Failure) -> SendError {
        SendError { sent: 0, cause: io::Error::other(Unsent(failure)) }
    }

    pub(crate) fn of(error: &SendError) -> Option<Failure> {
        let unsent: &Unsent = error.cause.get_ref()?.downcast_ref()?;
        Some(unsent.0)
    }
}

impl fmt::Display for Unsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.label())
    }
}

impl std::error::Error for Unsent {}

/// Why there is no answer.
fn no_answer(error: &h2::Error) -> Failure {
    let refused = error.reason() == Some(Reason::REFUSED_STREAM) && error.is_reset();
    if error.is_remote() && error.reason() == Some(Reason::HTTP_1_1_REQUIRED) {
        Failure::UpstreamNotHttp2
    } else if error.is_remote() && (refused || error.is_go_away()) {
        // A GOAWAY ends only those streams that it leaves out (RFC 9113 section 6.8).
        Failure::UpstreamRefused
    } else if error.is_library() {
        Failure::UpstreamMalformed
    } else if error.get_io().is_some_and(is_end) {
        Failure::UpstreamClosed
    } else {
        Failure::UpstreamReset
    }
}

fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::UnexpectedEof)
}

/// Why there is no more of a body.
fn no_end(error: &h2::Error) -> Failure {
    if error.is_library() { Failure::UpstreamBodyMalformed } else { Failure::UpstreamBodyCut }
}
