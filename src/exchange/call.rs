//! Where exchanges and gRPC meet: a route for it makes a call of an exchange, whose failures, time
//! and numbers are those of gRPC. Everybody else pays a branch.

use std::borrow::Cow;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::engine;
use crate::exchange::client::{Client, Speaks};
use crate::exchange::failure::{Failure, Side};
use crate::exchange::relay::{self, Download};
use crate::exchange::{Ending, Exchange, Uploading};
use crate::grpc::call::{Call, Caller, failure_lines, is_answer, lines_of, status_of};
use crate::grpc::settings::Grpc;
use crate::grpc::status::{self, Code};
use crate::grpc::web::Preflight;
use crate::http::head::{Framing, ResponseHead, Version};
use crate::http::reply::Reply;
use crate::limits;
use crate::plan::Route;
use crate::shard::generation::Generation;
use crate::shard::workspace::Work;
use crate::tls::stream::Stream;

impl Exchange {
    /// The call that this exchange is from now on.
    pub(super) fn begin_call(&mut self, grpc: &Grpc, route: &Route) -> Result<Patience, Failure> {
        let (bytes, now) = (self.input.head(), engine::now());
        let call = Call::begin(grpc, route.timeout, (&self.head, bytes), now)?;
        let patience =
            Patience { limit: call.limit(), idle: grpc.idle_timeout, passed: call.passed() };
        // What cannot read them gets them as a message, or has HTTP/2, which always has them.
        self.head.accepts_trailers = true;
        self.progress.call = Some(Box::new(call));
        Ok(patience)
    }

    /// The answer to a browser that asks whether a page may call; `None`: it does not ask.
    pub(super) fn preflight(&self, grpc: &Grpc) -> Option<Result<Reply<'static>, Failure>> {
        let web = grpc.web.as_ref()?;
        let asked = Preflight::find(&self.head, self.input.head())?;
        let lines = web.preflight_lines(&asked).ok_or(Failure::OriginRefused);
        Some(lines.map(|lines| Reply { status: 204, ..Reply::grpc("", lines) }))
    }

    /// The answer to a failure where the client speaks gRPC: a head that is all there is.
    pub(super) fn failed_call(
        &self,
        generation: &Generation,
        failure: Failure,
    ) -> Option<Reply<'static>> {
        let bytes = self.input.head();
        let caller = Caller::of(&self.head, bytes)?;
        if failure == Failure::GrpcWithoutTrailers {
            // It is no client of gRPC: they all have what it has not.
            return None;
        }
        let mut lines = Vec::new();
        failure_lines(failure, &mut lines);
        let grpc = self.route.and_then(|id| generation.route(id).grpc.as_ref());
        if let (Caller::Web(_), Some(web)) = (caller, grpc.and_then(|grpc| grpc.web.as_ref())) {
            let origin = self.head.named(bytes, b"origin");
            lines.extend_from_slice(&web.response_lines(origin));
        }
        Some(Reply::grpc(caller.content_type(), lines))
    }

    /// Instead of an answer that is none of gRPC.
    pub(super) fn no_answer_to_a_call(&self, status: u16) -> Option<Reply<'static>> {
        let call = self.progress.call.as_ref()?;
        let code = Code::of_http(status);
        call.note_code(code);
        let message = format!("the backend answered with status {status}, and not in gRPC");
        let mut lines = Vec::new();
        status::lines(code, message.as_bytes(), &mut lines);
        lines.extend_from_slice(call.cors());
        let caller = call.form().map_or(Caller::Grpc, Caller::Web);
        Some(Reply::grpc(caller.content_type(), lines))
    }

    /// A call that fails when its answer has begun ends by trailers that say so, where there can be
    /// some. `None`: there cannot, or it has not begun.
    pub(super) async fn end_call(&self, client: &Client, failure: Failure) -> Option<Ending> {
        if !self.progress.head_sent.get() || failure.status() == 0 {
            return None;
        }
        let mut lines = Vec::new();
        failure_lines(failure, &mut lines);
        let caller = Caller::of(&self.head, self.input.head())?;
        // In the middle of a message, a cut is all that a page, or who reads chunks, can be told.
        let between = self.progress.call.as_ref().filter(|call| call.is_between_messages());
        let (data, trailers) = match (caller, between) {
            (Caller::Grpc, _) => (Vec::new(), &lines[..]),
            (Caller::Web(_), Some(call)) => {
                let mut last = Vec::new();
                call.end_down(&lines, &mut last);
                (last, &b""[..])
            }
            (Caller::Web(_), None) => return None,
        };
        match &client.speaks {
            Speaks::Http2(stream) if trailers.is_empty() => stream.send_data(&data, true).ok()?,
            Speaks::Http2(stream) => stream.send_end(trailers).ok()?,
            Speaks::Http1(stream) => {
                between.filter(|_| self.progress.framing.get() == Framing::Chunked)?;
                Box::pin(self.end_chunks(stream, &data, trailers)).await.ok()?;
                return Some(self.ending_of_chunks());
            }
        }
        Some(Ending::Keep)
    }

    async fn end_chunks(
        &self,
        stream: &Stream,
        data: &[u8],
        trailers: &[u8],
    ) -> Result<(), Failure> {
        let (mut begin, mut end) = (Vec::new(), Vec::new());
        relay::frame(data.len(), true, trailers, &mut begin, &mut end);
        let (timeouts, progress) = (&self.generation.plan.timeouts, &self.progress);
        relay::send_to_client(stream, &[&begin, data, &end], timeouts, progress).await
    }

    /// The answer is whole, and its head has promised nothing else: but what of the request is
    /// still to come is read by nobody.
    fn ending_of_chunks(&self) -> Ending {
        match self.progress.upload.get() {
            Uploading::Whole => Ending::Close,
            Uploading::Untouched | Uploading::Going | Uploading::Broken => Ending::Linger,
        }
    }

    /// `None`: it is no call.
    pub(super) fn ended_with(&self, failure: Option<Failure>) -> Option<Code> {
        let call = self.progress.call.as_ref()?;
        Some(call.ended_with(failure, self.progress.status.get()))
    }

    /// Counts the call, if it is one.
    pub(super) fn count_call(&self, failure: Option<Failure>) {
        let (Some(call), Some(id)) = (&self.progress.call, self.route) else { return };
        if let Some(grpc) = &self.generation.route(id).grpc {
            let cells = &self.generation.series.grpc[grpc.place as usize];
            call.count(cells, call.ended_with(failure, self.progress.status.get()));
        }
    }
}

impl Download<'_> {
    /// The head of an answer, as it was written.
    pub(super) fn call_begins(&self, work: &mut Work, bare: bool) {
        if let Some(call) = &self.progress.call {
            call.response_head(&mut work.out, bare);
        }
    }

    /// What a piece of an answer, and its end with trailers, become: for a browser these are a
    /// message, and nothing is left of them. Where a message is too long there is no end.
    pub(super) fn turned<'d>(
        &self,
        data: &'d [u8],
        end: Option<&'d [u8]>,
    ) -> Result<Turned<'d>, Failure> {
        let Some(call) = &self.progress.call else { return Ok((Cow::Borrowed(data), end)) };
        let data = call.goes_down(data, end.is_some());
        let end = end.filter(|_| !call.is_cut_short());
        if let Some(trailers) = end {
            call.ends_down(trailers, engine::now())?;
        }
        if call.form().is_none() {
            return Ok((data, end));
        }
        let mut turned = Vec::new();
        call.turn_down(&data, &mut turned);
        if let Some(trailers) = end {
            call.end_down(trailers, &mut turned);
        }
        Ok((Cow::Owned(turned), end.map(|_| &b""[..])))
    }

    /// What was turned last has left; what is behind it may not.
    pub(super) fn call_given(&self) -> Result<(), Failure> {
        self.progress.call.as_ref().map_or(Ok(()), |call| call.given())
    }

    /// A browser's body is longer than the endpoint's, and in HTTP/1.1 only chunks have trailers.
    pub(super) fn framing_of_call(&self, framing: Framing, bare: bool) -> Framing {
        let Some(call) = self.progress.call.as_ref().filter(|_| !bare) else { return framing };
        match (framing, self.request.version) {
            (Framing::Length(_), Version::Http11) => Framing::Chunked,
            (Framing::Length(_), Version::Http10 | Version::Http2) if call.form().is_some() => {
                Framing::UntilClose
            }
            (framing @ Framing::Length(_), Version::Http10 | Version::Http2) => framing,
            (Framing::None | Framing::Chunked | Framing::UntilClose, _) => framing,
        }
    }

    /// Of an answer that is a head and no more: whether it is the last word. It may say only that
    /// the time is over, or be better from another endpoint.
    pub(super) fn is_final(&self, head: &[u8]) -> Result<(), Failure> {
        let Some(call) = &self.progress.call else { return Ok(()) };
        let Some(code) = status_of(lines_of(head)) else { return Ok(()) };
        call.is_late(code, engine::now())?;
        if call.is_tried_again(code) { Err(Failure::GrpcStatus) } else { Ok(()) }
    }

    pub(super) fn is_no_answer_to_a_call(&self, head: &ResponseHead, bytes: &[u8]) -> bool {
        self.progress.call.is_some() && !is_answer(head.status, lines_of(bytes))
    }
}

/// A piece as it goes on, and its end with trailers.
type Turned<'d> = (Cow<'d, [u8]>, Option<&'d [u8]>);

/// How long a call may go on.
pub(super) struct Patience {
    /// When it is over, and what that means.
    limit: Option<(Instant, Failure)>,
    /// How long nothing may pass.
    idle: Option<Duration>,
    /// Grows with whatever passes.
    passed: Rc<Cell<u64>>,
}

impl Patience {
    /// Runs what a call does until it is done, its time is over, or it was quiet for too long. Time
    /// comes first: what an endpoint says when it is over is too late.
    pub(super) async fn lasts(
        self,
        mut forwarding: Pin<&mut impl Future<Output = Result<Ending, Failure>>>,
    ) -> Result<Ending, Failure> {
        let (mut passed, mut passed_last) = (self.passed.get(), engine::now());
        let sleep = |left: Duration| Box::pin(engine::sleep(left));
        let left = |until: Instant| until.saturating_duration_since(engine::now());
        let mut late = self.limit.map(|(ends, failure)| (sleep(left(ends)), ends, failure));
        let mut quiet = self.idle.map(|idle| (sleep(idle), idle));
        std::future::poll_fn(|context| {
            if let Some((sleeping, ends, failure)) = &mut late
                && (engine::now() >= *ends || sleeping.as_mut().poll(context).is_ready())
            {
                return Poll::Ready(Err(*failure));
            }
            if let Poll::Ready(ended) = forwarding.as_mut().poll(context) {
                return Poll::Ready(ended.map_err(|failure| self.cause(failure)));
            }
            if passed != self.passed.get() {
                (passed, passed_last) = (self.passed.get(), engine::now());
            }
            while let Some((sleeping, idle)) = &mut quiet
                && sleeping.as_mut().poll(context).is_ready()
            {
                // One timer at a time, however much passes: it is set again for what is left.
                match left(passed_last + *idle) {
                    Duration::ZERO => return Poll::Ready(Err(Failure::StreamIdleTimeout)),
                    left => *sleeping = sleep(left),
                }
            }
            Poll::Pending
        })
        .await
    }

    /// An endpoint that breaks a call off when its time is over does what it was told.
    fn cause(&self, failure: Failure) -> Failure {
        match self.limit {
            Some((ends, late))
                if failure.side() == Side::Upstream
                    && engine::now() + limits::GRPC_DEADLINE_EARLY >= ends =>
            {
                late
            }
            Some(_) | None => failure,
        }
    }
}
