//! The client's side of HTTP/2: one task drives a connection, and each of its streams is an
//! exchange in a task of its own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::Request;

use crate::engine::{self, Parked};
use crate::exchange::client::{Client, Speaks};
use crate::exchange::{self, Ending, Exchange};
use crate::http1::parse::HeadLimits;
use crate::http1::server::{head_limits, linger};
use crate::http2::abuse::Abuse;
use crate::http2::call::Call;
use crate::http2::io::{Line, Wire};
use crate::http2::request;
use crate::limits;
use crate::plan::Http2;
use crate::shard::{Origin, Shard};
use crate::tls::stream::Stream;

/// Serves one connection to its end. `begun`: what was read of it already.
pub(crate) async fn serve(shard: &Rc<Shard>, origin: Origin, stream: Stream, begun: Vec<u8>) {
    let timeouts = shard.generation().plan.timeouts;
    let settings = origin.door.opening().http2();
    let wire = Wire::new(stream, timeouts.write, begun);
    let line = wire.line();
    line.set_patience(Some(timeouts.header));
    let streams = Rc::new(Streams::default());
    if let Some(connection) = shake_hands(&settings, wire, &line).await {
        let mut session = Session {
            shard: Rc::clone(shard),
            origin,
            line: Rc::clone(&line),
            connection,
            streams: Rc::clone(&streams),
            streams_max: settings.streams_max,
            stage: Stage::Open,
            left: None,
            work: Work::Exchanges,
            sent: 0,
        };
        std::future::poll_fn(|context| session.poll(context)).await;
    }
    // What was said last, such as why it ends, is to arrive.
    let flushed = std::future::poll_fn(|context| line.poll_flush(context)).await;
    if flushed.is_ok() && !line.has_ended() {
        linger(line.stream()).await;
    }
    // Its streams have been told; they count as the connection's until they are recorded.
    std::future::poll_fn(|context| streams.poll_empty(context)).await;
}

async fn shake_hands(settings: &Http2, wire: Wire, line: &Line) -> Option<Connection<Wire, Bytes>> {
    let mut handshake = std::pin::pin!(builder(settings).handshake(wire));
    std::future::poll_fn(|context| {
        line.begin_turn();
        let shaken = handshake.as_mut().poll(context);
        if let Poll::Ready(Err(_)) = line.poll_flush(context) {
            return Poll::Ready(None);
        }
        match shaken {
            Poll::Ready(shaken) => Poll::Ready(shaken.ok()),
            Poll::Pending if line.is_overdue() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

fn builder(settings: &Http2) -> h2::server::Builder {
    let mut builder = h2::server::Builder::new();
    let streams = settings.streams_max;
    // Each stream has its own part of it: one that stalls takes nothing from the others.
    let all = u64::from(settings.window_bytes) * u64::from(streams);
    let all = u32::try_from(all).unwrap_or(u32::MAX).clamp(H2_WINDOW_LEAST, H2_WINDOW_MOST);
    builder
        .max_concurrent_streams(streams)
        .initial_window_size(settings.window_bytes)
        .initial_connection_window_size(all)
        .max_frame_size(settings.frame_bytes_max)
        // How much a client may do is the watch's to say (`http2/abuse.rs`).
        .max_pending_accept_reset_streams(limits::HTTP2_RESETS.0 as usize + 1)
        .max_local_error_reset_streams(None)
        // Larger heads are refused by us, with an answer; far larger ones by the crate.
        .max_header_list_size(limits::H2_HEADER_LIST_BYTES)
        .max_send_buffer_size(limits::H2_SEND_BYTES_MAX)
        .data_frame_budget(limits::H2_DATA_FRAME_BUDGET)
        .enable_connect_protocol();
    builder
}

/// What RFC 9113 section 6.9.1 allows, and what every connection has.
const H2_WINDOW_LEAST: u32 = 65_535;
const H2_WINDOW_MOST: u32 = (1 << 31) - 1;

/// The streams of a connection that have a task.
#[derive(Default)]
struct Streams {
    open: Cell<u32>,
    /// Who drives the connection.
    driver: RefCell<Option<Waker>>,
}

impl Streams {
    fn poll_empty(&self, context: &Context<'_>) -> Poll<()> {
        if self.open.get() == 0 {
            return Poll::Ready(());
        }
        self.remember(context);
        Poll::Pending
    }

    fn remember(&self, context: &Context<'_>) {
        let mut driver = self.driver.borrow_mut();
        if !driver.as_ref().is_some_and(|driver| driver.will_wake(context.waker())) {
            *driver = Some(context.waker().clone());
        }
    }
}

/// One of them, until it is dropped.
struct Open(Rc<Streams>);

impl Drop for Open {
    fn drop(&mut self) {
        let open = self.0.open.get() - 1;
        self.0.open.set(open);
        let driver = self.0.driver.borrow().clone();
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

/// How far a connection is on its way out.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Open,
    /// It has been told to bring no more requests; those that are here are answered.
    Leaving,
    /// It is told why, and nothing else.
    CutOff,
}

struct Session {
    shard: Rc<Shard>,
    origin: Origin,
    line: Rc<Line>,
    connection: Connection<Wire, Bytes>,
    streams: Rc<Streams>,
    streams_max: u32,
    stage: Stage,
    /// When it was told to go.
    left: Option<Instant>,
    /// At the last look, and what had left by then.
    work: Work,
    sent: u64,
}

/// What a connection has to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    /// Exchanges that have deadlines of their own.
    Exchanges,
    /// What they have left behind is on its way to the client.
    Remains,
    Nothing,
}

impl Session {
    /// Ready at its end.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        self.line.begin_turn();
        self.streams.remember(context);
        loop {
            if self.stage == Stage::Open && self.origin.is_closing(&self.shard) {
                self.leave();
            }
            let ended = self.poll_streams(context);
            if let Some(abuse) = self.line.abuse().filter(|_| self.stage != Stage::CutOff) {
                self.cut_off(abuse);
                continue;
            }
            if ended.is_ready() {
                return Poll::Ready(());
            }
            if let Poll::Ready(Err(_)) = self.line.poll_flush(context) {
                return Poll::Ready(());
            }
            self.line.end_turn();
            self.set_idle();
            if !self.line.is_overdue() {
                return Poll::Pending;
            }
            // It has been idle for too long, or its place is needed.
            match self.stage {
                Stage::Open => self.leave(),
                Stage::Leaving | Stage::CutOff => {
                    self.connection.abrupt_shutdown(Reason::NO_ERROR);
                    let _ = self.connection.poll_closed(context);
                    return Poll::Ready(());
                }
            }
        }
    }

    /// Takes what the client asks for. Ready when there is no connection any more.
    fn poll_streams(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.stage == Stage::CutOff {
            return self.connection.poll_closed(context).map(|_| ());
        }
        // The crate lets a client begin one for each that it has reset; ours end a little later.
        while self.streams.open.get() < self.streams_max.saturating_mul(2) {
            match self.connection.poll_accept(context) {
                Poll::Ready(Some(Ok((request, answer)))) => self.begin(request, answer),
                Poll::Ready(Some(Err(error))) => {
                    self.ended_by(&error);
                    return Poll::Ready(());
                }
                Poll::Ready(None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.connection.poll_closed(context).map(|ended| {
            if let Err(error) = ended {
                self.ended_by(&error);
            }
        })
    }

    /// The crate has bounds of its own.
    fn ended_by(&self, error: &h2::Error) {
        if error.is_library() && error.reason() == Some(Reason::ENHANCE_YOUR_CALM) {
            self.shard.tell_of_abuse(&self.origin, Abuse::Costly);
        }
    }

    fn cut_off(&mut self, abuse: Abuse) {
        self.stage = Stage::CutOff;
        self.shard.tell_of_abuse(&self.origin, abuse);
        self.connection.abrupt_shutdown(abuse.code().into());
    }

    /// RFC 9113 section 6.8.
    fn leave(&mut self) {
        self.stage = Stage::Leaving;
        self.left = Some(engine::now());
        self.connection.graceful_shutdown();
        if self.work == Work::Nothing {
            self.line.set_patience(Some(limits::H2_LEAVE_TIME));
        }
    }

    /// A connection without streams may stay for a while, and may be told to make room. Until the
    /// client has all of what was answered, it has as long as for any other answer.
    fn set_idle(&mut self) {
        let work = match self.streams.open.get() {
            0 if self.connection.has_streams() || !self.line.is_flushed() => Work::Remains,
            0 => Work::Nothing,
            _ => Work::Exchanges,
        };
        let goes_on = work == Work::Remains && self.sent != self.line.sent();
        if work == self.work && !goes_on {
            return;
        }
        (self.work, self.sent) = (work, self.line.sent());
        if work == Work::Nothing {
            self.line.order(|order, _| order.rests());
        }
        let (stream, timeouts) = (self.line.stream(), self.shard.generation().plan.timeouts);
        stream.set_parked(if work == Work::Nothing { Parked::Long } else { Parked::No });
        self.line.set_patience(match work {
            Work::Exchanges => None,
            Work::Remains => Some(timeouts.write),
            Work::Nothing if self.stage == Stage::Leaving => Some(limits::H2_LEAVE_TIME),
            Work::Nothing => Some(timeouts.idle),
        });
    }

    fn begin(&self, request: Request<RecvStream>, mut answer: SendResponse<Bytes>) {
        let is_late = |left: Instant| engine::now() - left > limits::H2_LEAVE_TIME;
        if self.left.is_some_and(is_late) {
            // It was told to go and has had the time to hear it (RFC 9113 section 8.7).
            answer.send_reset(Reason::REFUSED_STREAM);
            return;
        }
        self.streams.open.set(self.streams.open.get() + 1);
        let open = Open(Rc::clone(&self.streams));
        let (shard, origin) = (Rc::clone(&self.shard), self.origin.clone());
        let line = Rc::clone(&self.line);
        engine::spawn(async move {
            if let Some(tunnel) = answer_one(&shard, origin, line, request, answer).await {
                // In a task that has nothing of what requests need.
                engine::spawn(go_over(shard, tunnel, open));
            }
        });
    }
}

/// A stream that is a tunnel from now on.
type Tunnel = Box<(Client, Exchange)>;

async fn go_over(shard: Rc<Shard>, mut tunnel: Tunnel, open: Open) {
    let (client, exchange) = &mut *tunnel;
    exchange::go_over(&shard, client, exchange).await;
    let (client, exchange) = *tunnel;
    drop(exchange);
    if let Speaks::Http2(call) = client.speaks {
        call.linger().await;
    }
    drop(open);
}

async fn answer_one(
    shard: &Rc<Shard>,
    origin: Origin,
    line: Rc<Line>,
    request: Request<RecvStream>,
    answer: SendResponse<Bytes>,
) -> Option<Tunnel> {
    let mut exchange = Exchange::new(shard, origin.clone());
    exchange.begin(shard.generation());
    let (parts, body) = request.into_parts();
    let is_whole = body.is_end_stream();
    let call = Call::new(line, body, answer, &parts);
    let client = Client { speaks: Speaks::Http2(call), origin };
    let limits: HeadLimits = head_limits(&exchange.generation.plan.limits);
    let mut bytes = Vec::with_capacity(limits::INPUT_COPY_BYTES_MAX);
    let nonce = u128::from(shard.random()) << 64 | u128::from(shard.random());
    let read = request::read(&parts, is_whole, &limits, nonce, &mut bytes, &mut exchange.head);
    drop(parts);
    exchange.input.begin_with(bytes);
    // Its stream ends with the call, whatever becomes of the exchange.
    match read {
        Ok(()) => {
            if exchange::run(shard, &client, &mut exchange).await == Ending::Tunnel {
                return Some(Box::new((client, exchange)));
            }
        }
        Err(failure) => exchange::refuse(shard, &client, &mut exchange, failure).await,
    }
    drop(exchange);
    if let Speaks::Http2(call) = client.speaks {
        call.linger().await;
    }
    None
}
