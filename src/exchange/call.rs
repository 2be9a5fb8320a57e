//! Where exchanges and gRPC meet: a route for it makes a call of an exchange, whose failures, time
//! and numbers are those of gRPC. Everybody else pays a branch.

use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use crate::engine;
use crate::exchange::client::{Client, Speaks};
use crate::exchange::failure::Failure;
use crate::exchange::relay::Download;
use crate::exchange::{Ending, Exchange};
use crate::grpc::call::{Call, Caller, failure_lines, is_answer, lines_of, status_of};
use crate::grpc::settings::Grpc;
use crate::grpc::status::{self, Code};
use crate::grpc::web::Preflight;
use crate::http::head::{Framing, ResponseHead, Version};
use crate::http::reply::Reply;
use crate::plan::Route;
use crate::shard::generation::Generation;
use crate::shard::workspace::Work;

impl Exchange {
    /// The call that this exchange is from now on.
    pub(super) fn begin_call(&mut self, grpc: &Grpc, route: &Route) -> Result<Patience, Failure> {
        let (bytes, now) = (self.input.head(), engine::now());
        let call = Call::begin(grpc, route.timeout, (&self.head, bytes), now)?;
        let patience =
            Patience { limit: call.limit(now), idle: grpc.idle_timeout, passed: call.passed() };
        if call.form().is_some() {
            // It cannot read them, but the endpoint must send them: they become a message.
            self.head.accepts_trailers = true;
        }
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
    pub(super) fn end_call(&self, client: &Client, failure: Failure) -> Option<Ending> {
        let Speaks::Http2(stream) = &client.speaks else { return None };
        if !self.progress.head_sent.get() || failure.status() == 0 {
            return None;
        }
        let mut lines = Vec::new();
        failure_lines(failure, &mut lines);
        match (Caller::of(&self.head, self.input.head())?, &self.progress.call) {
            (Caller::Grpc, _) => stream.send_end(&lines).ok()?,
            (Caller::Web(_), Some(call)) if call.is_between_messages() => {
                let mut last = Vec::new();
                call.end_down(&lines, &mut last);
                stream.send_data(&last, true).ok()?;
            }
            // A cut is all that a page can be told in the middle of a message.
            (Caller::Web(_), _) => return None,
        }
        Some(Ending::Keep)
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

    /// What a piece of an answer becomes for a browser, which gets trailers as a message: nothing
    /// is left of them then. `None`: it goes as it is.
    pub(super) fn turned(
        &self,
        data: &[u8],
        end: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let Some(call) = &self.progress.call else { return Ok(None) };
        call.goes_down(data)?;
        if let Some(trailers) = end {
            call.note_trailers(trailers);
        }
        if call.form().is_none() {
            return Ok(None);
        }
        let mut turned = Vec::new();
        call.turn_down(data, &mut turned);
        if let Some(trailers) = end {
            call.end_down(trailers, &mut turned);
        }
        Ok(Some(turned))
    }

    /// What was turned last has left.
    pub(super) fn call_given(&self) {
        if let Some(call) = &self.progress.call {
            call.given();
        }
    }

    /// A browser's body is longer than the endpoint's.
    pub(super) fn framing_of_call(&self, framing: Framing, bare: bool) -> Framing {
        let is_turned = self.progress.call.as_ref().is_some_and(|call| call.form().is_some());
        match (framing, self.request.version) {
            _ if !is_turned || bare => framing,
            (Framing::Length(_), Version::Http11) => Framing::Chunked,
            (Framing::Length(_), Version::Http10 | Version::Http2) => Framing::UntilClose,
            (Framing::None | Framing::Chunked | Framing::UntilClose, _) => framing,
        }
    }

    /// An answer that is only a refusal, and may be better from another endpoint.
    pub(super) fn is_tried_again(&self, head: &[u8]) -> bool {
        let Some(call) = &self.progress.call else { return false };
        status_of(lines_of(head)).is_some_and(|code| call.is_tried_again(code))
    }

    pub(super) fn is_no_answer_to_a_call(&self, head: &ResponseHead, bytes: &[u8]) -> bool {
        self.progress.call.is_some() && !is_answer(head.status, lines_of(bytes))
    }
}

/// A piece and its end, once it was turned: trailers are a message then.
pub(super) fn left_of<'p>(
    turned: &'p Option<Vec<u8>>,
    data: &'p [u8],
    end: Option<&'p [u8]>,
) -> (&'p [u8], Option<&'p [u8]>) {
    match turned {
        Some(turned) => (turned, end.map(|_| &b""[..])),
        None => (data, end),
    }
}

/// How long a call may go on.
pub(super) struct Patience {
    /// What is left, and what it means when that is over.
    limit: Option<(Duration, Failure)>,
    /// How long nothing may pass.
    idle: Option<Duration>,
    /// Grows with whatever passes.
    passed: Rc<Cell<u64>>,
}

impl Patience {
    /// Runs what a call does until it is done, its time is over, or it was quiet for too long.
    pub(super) async fn lasts(
        self,
        mut forwarding: Pin<&mut impl Future<Output = Result<Ending, Failure>>>,
    ) -> Result<Ending, Failure> {
        let mut late = self.limit.map(|(limit, failure)| (Box::pin(engine::sleep(limit)), failure));
        let mut quiet = self.idle.map(|idle| (Box::pin(engine::sleep(idle)), idle));
        let mut before = self.passed.get();
        std::future::poll_fn(|context| {
            if let Poll::Ready(result) = forwarding.as_mut().poll(context) {
                return Poll::Ready(result);
            }
            if let Some((late, failure)) = &mut late
                && late.as_mut().poll(context).is_ready()
            {
                return Poll::Ready(Err(*failure));
            }
            while let Some((sleeping, idle)) = &mut quiet
                && sleeping.as_mut().poll(context).is_ready()
            {
                let now = self.passed.get();
                if std::mem::replace(&mut before, now) == now {
                    return Poll::Ready(Err(Failure::StreamIdleTimeout));
                }
                *sleeping = Box::pin(engine::sleep(*idle));
            }
            Poll::Pending
        })
        .await
    }
}
