//! Answers that go on: events as lines of JSON, until so many have come, the time is over, the
//! client goes or the process ends. Who reads too slowly loses events and is told how many; nobody
//! else notices.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use serde_json::json;

use crate::admin::api::{Kind, Parameter};
use crate::admin::call::Call;
use crate::admin::chunks::Chunks;
use crate::admin::places::Place;
use crate::admin::refusal::Refusal;
use crate::admin::{Input, request_id};
use crate::control::{self, Control, Either};
use crate::engine::{self, Side};
use crate::events::bus::{Event, Received, Subscription};
use crate::http::head::{RequestHead, Version};
use crate::limits;
use crate::plan::Plan;
use crate::telemetry::timestamp;

/// RFC 8259 texts, each on its line.
pub(super) const NDJSON: &str = "application/x-ndjson";

pub(super) const COUNT: Parameter = Parameter {
    name: "count",
    kind: Kind::Whole { max: limits::STREAM_COUNT_MAX },
    doc: "The stream ends after so many events; 0: by its time only.",
};
pub(super) const SECONDS: Parameter = Parameter {
    name: "seconds",
    kind: Kind::Whole { max: limits::STREAM_SECONDS_MAX },
    doc: "The stream ends after so long; 60.",
};

/// Which events go to whom.
pub(super) struct Stream {
    subscription: Subscription,
    /// Of those subscribed to.
    takes: Box<dyn Fn(&Event) -> bool>,
    /// `None`: by time only.
    left: Option<u64>,
    time: Duration,
    /// Why a new plan ends it.
    conditions: Vec<Condition>,
    /// Ends what was begun for it.
    _end: Option<Box<dyn std::any::Any>>,
    _seat: Seat,
}

/// `None`: it may go on.
type Condition = Box<dyn Fn(&Plan) -> Option<&'static str>>;

/// One of few.
pub(super) struct Seat(Rc<Cell<usize>>);

impl Seat {
    pub(super) fn take(control: &Control) -> Result<Seat, Refusal> {
        let streams = &control.desk.streams;
        if streams.get() >= limits::STREAMS_MAX {
            let max = limits::STREAMS_MAX;
            let message = format!("{max} streams are open, the maximum: end one of them");
            return Err(Refusal::TooManyStreams(message));
        }
        streams.set(streams.get() + 1);
        Ok(Seat(Rc::clone(streams)))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// How many events a stream is to have, and how long it goes on.
pub(super) fn bounds(call: &Call) -> (Option<u64>, Duration) {
    let count = call.whole("count").filter(|count| *count > 0);
    let seconds = call.whole("seconds").unwrap_or(limits::STREAM_SECONDS);
    (count, Duration::from_secs(seconds))
}

impl Stream {
    pub(super) fn new(
        seat: Seat,
        subscription: Subscription,
        (left, time): (Option<u64>, Duration),
        call: &Call,
    ) -> Stream {
        let call = call.clone();
        let let_in = move |plan: &Plan| {
            let refusal = call.is_let_in_no_more(plan);
            refusal.map(|_| "a new configuration does not let its caller in any more")
        };
        let (takes, conditions) = (Box::new(|_: &Event| true), vec![Box::new(let_in) as Condition]);
        Stream { subscription, takes, left, time, conditions, _end: None, _seat: seat }
    }

    /// Under each new plan.
    pub(super) fn unless(
        mut self,
        condition: impl Fn(&Plan) -> Option<&'static str> + 'static,
    ) -> Stream {
        self.conditions.push(Box::new(condition));
        self
    }

    /// Only these; `end` is dropped with the stream.
    pub(super) fn only(
        mut self,
        takes: impl Fn(&Event) -> bool + 'static,
        end: impl std::any::Any,
    ) -> Stream {
        self.takes = Box::new(takes);
        self._end = Some(Box::new(end));
        self
    }

    fn is_over(&self) -> bool {
        self.left == Some(0)
    }

    fn append(&mut self, received: &Received, out: &mut Vec<u8>) {
        match received {
            Received::Lost(count) => {
                let line = json!({ "event_type": "lost", "count": count }).to_string();
                out.extend_from_slice(line.as_bytes());
            }
            Received::Event(event) if (self.takes)(event) => {
                self.left = self.left.map(|left| left - 1);
                serde_json::to_writer(&mut *out, &**event).expect("events have text for names");
            }
            Received::Event(_) => return,
        }
        out.push(b'\n');
    }

    /// More lines: waits for the first of them.
    async fn lines(&mut self, out: &mut Vec<u8>) {
        out.clear();
        while out.is_empty() {
            let received = self.subscription.next().await;
            self.append(&received, out);
        }
        while out.len() < limits::STREAM_PIECE_BYTES
            && !self.is_over()
            && let Some(received) = self.subscription.next_now()
        {
            self.append(&received, out);
        }
    }
}

/// The connection is used for nothing else afterwards.
pub(super) async fn serve(
    control: &Rc<Control>,
    input: &mut Input<'_>,
    place: &Place,
    head: &RequestHead,
    mut stream: Stream,
) -> io::Result<()> {
    let chunked = head.version != Version::Http10;
    let mut answer = b"HTTP/1.1 200 OK\r\nDate: ".to_vec();
    timestamp::http_date(engine::wall_clock(), &mut answer);
    let framing = if chunked { "Transfer-Encoding: chunked\r\n" } else { "" };
    let rest = format!(
        "\r\nContent-Type: {NDJSON}\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nX-Request-Id: {}\r\n{framing}Connection: close\r\n\r\n",
        request_id()
    );
    answer.extend_from_slice(rest.as_bytes());
    let (socket, patience) = (input.socket, limits::STREAM_SEND_TIMEOUT);
    let mut chunks = Chunks { socket, chunked, head: answer, patience };
    // Who waits for the first event knows that it will come.
    chunks.begin().await?;
    let (conditions, broken) = (std::mem::take(&mut stream.conditions), Cell::new(None));
    let looked_at = Cell::new(0);
    let is_broken = |control: &Control| {
        let plan = control.plan();
        if looked_at.replace(plan.version) != plan.version {
            broken.set(conditions.iter().find_map(|condition| condition(&plan)));
        }
        broken.get().is_some()
    };
    let ends = control.until(stream.time, |control| {
        control.draining.get() || place.is_over() || is_broken(control)
    });
    let mut ends = std::pin::pin!(ends);
    let mut gone = std::pin::pin!(gone(input));
    let mut lines = Vec::new();
    while !stream.is_over() {
        match before(gone.as_mut(), ends.as_mut(), stream.lines(&mut lines)).await {
            Next::Done(()) => {}
            Next::End => break,
            Next::Gone => return Err(io::ErrorKind::ConnectionAborted.into()),
        }
        let mut sending = Box::pin(chunks.piece(&lines));
        match before(gone.as_mut(), ends.as_mut(), sending.as_mut()).await {
            Next::Done(sent) => sent?,
            Next::End => {
                // The cores do no more for it, whatever its reader is at.
                drop(stream);
                control.want_events();
                in_time(sending).await?;
                return in_time(end(&mut chunks, broken.get())).await;
            }
            Next::Gone => return Err(io::ErrorKind::ConnectionAborted.into()),
        }
        drop(sending);
        engine::yield_now().await;
    }
    drop(stream);
    control.want_events();
    in_time(end(&mut chunks, broken.get())).await
}

/// With the reason, if it is none that the reader knows of.
async fn end(chunks: &mut Chunks<'_>, broken: Option<&str>) -> io::Result<()> {
    if let Some(reason) = broken {
        let line = format!("{}\n", json!({ "event_type": "ended", "reason": reason }));
        chunks.piece(line.as_bytes()).await?;
    }
    chunks.end().await
}

/// The last that a reader gets.
async fn in_time(sending: impl Future<Output = io::Result<()>>) -> io::Result<()> {
    match control::first(sending, engine::sleep(limits::STREAM_LAST_TIMEOUT)).await {
        Either::First(sent) => sent,
        Either::Second(()) => Err(io::ErrorKind::TimedOut.into()),
    }
}

enum Next<T> {
    Done(T),
    End,
    Gone,
}

/// `what`, unless the reader goes or the stream's time is over before it.
async fn before<T>(
    mut gone: Pin<&mut impl Future<Output = ()>>,
    mut ends: Pin<&mut impl Future<Output = bool>>,
    what: impl Future<Output = T>,
) -> Next<T> {
    let mut what = std::pin::pin!(what);
    std::future::poll_fn(|context| {
        if gone.as_mut().poll(context).is_ready() {
            return Poll::Ready(Next::Gone);
        }
        if ends.as_mut().poll(context).is_ready() {
            return Poll::Ready(Next::End);
        }
        what.as_mut().poll(context).map(Next::Done)
    })
    .await
}

/// Until the client has closed; what it sends meanwhile is thrown away.
async fn gone(input: &mut Input<'_>) {
    let (socket, buffer) = (input.socket, &mut input.buffer);
    socket.set_deadline(Side::Read, None);
    while matches!(socket.recv(buffer).await, Ok(count) if count > 0) {
        engine::yield_now().await;
    }
}
