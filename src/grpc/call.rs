//! One call on its way: how long it may take, what has passed of it, and how it ended. The exchange
//! it belongs to asks at each piece; what is no call has none of this.

use std::borrow::Cow;
use std::cell::Cell;
use std::net::IpAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use crate::exchange::failure::Failure;
use crate::grpc::head::{Edit, append_lines, edit_lines, line};
use crate::grpc::messages::{self, Messages, TooLong};
use crate::grpc::settings::{Grpc, Retry};
use crate::grpc::status::{self, Code};
use crate::grpc::web::{self, Downward, Form, Upward};
use crate::grpc::{is_grpc, timeout};
use crate::http::head::{RequestHead, Version};
use crate::limits;
use crate::shard::series::GrpcCells;

/// Cells, because both ways go on at the same time.
#[derive(Debug)]
pub(crate) struct Call {
    /// The least of what the caller and the route allow.
    ends: Option<Instant>,
    /// It is the caller's.
    is_callers: bool,
    /// Grows with whatever passes either way: who waits for it to stand still has a copy.
    passed: Rc<Cell<u64>>,
    message_bytes_max: u32,
    /// Of gRPC-Web.
    web: Option<Browser>,
    received: Cell<Messages>,
    sent: Cell<Messages>,
    /// Of what the endpoint has sent: it may begin a message that is too long.
    held: Cell<Held>,
    /// The endpoint's next message is.
    is_too_long: Cell<bool>,
    code: Cell<Option<Code>>,
    /// What passed last may have left in part.
    is_giving: Cell<bool>,
    /// The answer has no body.
    is_bare: Cell<bool>,
    retry: Retry,
    tries: Cell<u32>,
    /// Of the request's body, as the endpoint gets it: only a short one can be sent again.
    bytes_up: Cell<usize>,
}

/// A prefix that is not whole.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    bytes: [u8; messages::PREFIX_BYTES as usize - 1],
    count: usize,
}

#[derive(Debug)]
struct Browser {
    form: Form,
    /// Lines that let its page read the answer.
    cors: Vec<u8>,
    upward: Cell<Upward>,
    downward: Cell<Downward>,
}

/// Who calls, by the content type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    Grpc,
    Web(Form),
}

impl Caller {
    pub(crate) fn of(head: &RequestHead, bytes: &[u8]) -> Option<Caller> {
        let content_type = head.named(bytes, b"content-type")?;
        if is_grpc(content_type) {
            return Some(Caller::Grpc);
        }
        Form::of(content_type).map(|(form, _)| Caller::Web(form))
    }

    /// Of an answer of ours that has no messages.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Caller::Grpc => "application/grpc",
            Caller::Web(Form::Binary) => "application/grpc-web+proto",
            Caller::Web(Form::Text) => "application/grpc-web-text+proto",
        }
    }
}

impl Call {
    /// On a route for gRPC, what is something else is refused.
    pub(crate) fn begin(
        grpc: &Grpc,
        of_route: Option<Duration>,
        (head, bytes): (&RequestHead, &[u8]),
        now: Instant,
    ) -> Result<Call, Failure> {
        let has_trailers = match head.version {
            Version::Http10 => false,
            Version::Http11 => head.accepts_trailers,
            Version::Http2 => true,
        };
        let web = match (Caller::of(head, bytes), &grpc.web) {
            (Some(Caller::Grpc), _) if !has_trailers => return Err(Failure::GrpcWithoutTrailers),
            (Some(Caller::Grpc), _) => None,
            (Some(Caller::Web(form)), Some(web)) => Some(Browser {
                form,
                cors: web.response_lines(head.named(bytes, b"origin")),
                upward: Cell::new(Upward::new(form)),
                downward: Cell::new(Downward::new(form)),
            }),
            (Some(Caller::Web(_)), None) | (None, _) => return Err(Failure::NotGrpc),
        };
        let deadline = match head.named(bytes, b"grpc-timeout") {
            None => None,
            Some(value) => {
                let given = timeout::parse(value).ok_or(Failure::DeadlineMalformed)?;
                // What no clock reaches is no deadline.
                now.checked_add(given)
            }
        };
        let of_route = of_route.and_then(|limit| now.checked_add(limit));
        let is_callers = deadline.is_some_and(|own| of_route.is_none_or(|route| own <= route));
        Ok(Call {
            ends: if is_callers { deadline } else { of_route },
            is_callers,
            passed: Rc::default(),
            message_bytes_max: grpc.message_bytes_max,
            web,
            received: Cell::default(),
            sent: Cell::default(),
            held: Cell::default(),
            is_too_long: Cell::new(false),
            code: Cell::new(None),
            is_giving: Cell::new(false),
            is_bare: Cell::new(false),
            retry: grpc.retry,
            tries: Cell::new(1),
            bytes_up: Cell::new(0),
        })
    }

    /// When the call's time is over, and what that means.
    pub(crate) fn limit(&self) -> Option<(Instant, Failure)> {
        let failure =
            if self.is_callers { Failure::DeadlineTimeout } else { Failure::ExchangeTimeout };
        self.ends.map(|ends| (ends, failure))
    }

    /// What the end of an answer means that only says that the time is over. Endpoints are told
    /// when that is, and say it in many ways: DEADLINE_EXCEEDED, CANCELLED or a reset.
    pub(crate) fn is_late(&self, code: Code, now: Instant) -> Result<(), Failure> {
        match self.limit() {
            Some((ends, failure))
                if now + limits::GRPC_DEADLINE_EARLY >= ends
                    && matches!(code, Code::Cancelled | Code::DeadlineExceeded) =>
            {
                Err(failure)
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The head for the endpoint, as it was written: with what is left of the time, and who calls.
    pub(crate) fn request_head(&self, out: &mut Vec<u8>, client: IpAddr, now: Instant) {
        edit_lines(out, |name, value| {
            let ours: [&[u8]; 2] = [b"grpc-timeout", b"x-client-ip"];
            if ours.iter().any(|own| name.eq_ignore_ascii_case(own)) {
                Edit::Goes
            } else if self.web.is_some() {
                web::request_line(name, value)
            } else {
                Edit::Stays
            }
        });
        let mut lines = Vec::new();
        line(b"X-Client-IP", client.to_string().as_bytes(), &mut lines);
        if let Some(ends) = self.ends {
            let mut left = Vec::new();
            timeout::format(ends.saturating_duration_since(now), &mut left);
            line(b"grpc-timeout", &left, &mut lines);
        }
        append_lines(out, &lines);
    }

    /// What has passed so far, in pieces; goes on counting.
    pub(crate) fn passed(&self) -> Rc<Cell<u64>> {
        Rc::clone(&self.passed)
    }

    fn note_passing(&self) {
        self.passed.set(self.passed.get() + 1);
    }

    /// Lines that let a browser's page read an answer of ours.
    pub(crate) fn cors(&self) -> &[u8] {
        self.web.as_ref().map_or(b"", |web| &web.cors)
    }

    pub(crate) fn form(&self) -> Option<Form> {
        self.web.as_ref().map(|web| web.form)
    }

    /// The head for the client, as it was written. `bare`: there is nothing behind it.
    pub(crate) fn response_head(&self, out: &mut Vec<u8>, bare: bool) {
        self.note_passing();
        self.note_lines(lines_of(out));
        self.is_bare.set(bare);
        if let Some(web) = &self.web {
            if bare && self.code.get().is_none() {
                let mut lines = Vec::new();
                status::lines(Code::Unknown, NO_STATUS, &mut lines);
                append_lines(out, &lines);
            }
            web::response_head(out, web.form, &web.cors);
        }
    }

    /// A piece of the request's body, turned into what the endpoint gets, at its front.
    pub(crate) fn goes_up(&self, piece: &mut [u8], end: bool) -> Result<usize, Failure> {
        self.note_passing();
        let mut length = piece.len();
        if let Some(web) = &self.web {
            let mut upward = web.upward.get();
            let turned = upward.turn(piece, end);
            web.upward.set(upward);
            length = turned.map_err(|_| Failure::WebBodyMalformed)?;
        }
        self.bytes_up.set(self.bytes_up.get() + length);
        let passed = pass(&self.received, &piece[..length], self.message_bytes_max);
        passed.map(|()| length).map_err(|TooLong { .. }| Failure::MessageTooLarge)
    }

    /// Whether an answer with this code is not to be the last word; it is counted as a try then.
    pub(crate) fn is_tried_again(&self, code: Code) -> bool {
        let again = self.retry.on.has(code)
            && self.tries.get() < self.retry.attempts_max
            && self.bytes_up.get() <= limits::REFUSED_BODY_BYTES_MAX;
        self.tries.set(self.tries.get() + u32::from(again));
        again
    }

    /// What may pass of a piece of the response's body, before it is turned. A message that is too
    /// long is not begun, which is known when its prefix is whole.
    pub(crate) fn goes_down<'p>(&self, piece: &'p [u8], ends: bool) -> Cow<'p, [u8]> {
        self.note_passing();
        self.is_giving.set(true);
        let Held { bytes, count } = self.held.take();
        let piece = match &bytes[..count] {
            b"" => Cow::Borrowed(piece),
            held => Cow::Owned([held, piece].concat()),
        };
        let mut sent = self.sent.get();
        let length = match sent.pass(&piece, self.message_bytes_max) {
            Ok(()) if ends || self.message_bytes_max == 0 => piece.len(),
            Ok(()) => {
                let (whole, begun) = piece.split_at(piece.len() - sent.begun());
                let mut held = Held { count: begun.len(), ..Held::default() };
                held.bytes[..begun.len()].copy_from_slice(begun);
                self.held.set(held);
                whole.len()
            }
            Err(TooLong { before }) => {
                self.is_too_long.set(true);
                before
            }
        };
        if length < piece.len() {
            sent.forget_prefix();
        }
        self.sent.set(sent);
        match piece {
            Cow::Borrowed(piece) => Cow::Borrowed(&piece[..length]),
            Cow::Owned(piece) => Cow::Owned(piece[..length].to_vec()),
        }
    }

    /// There is more than what has gone down, and it may not.
    pub(crate) fn is_cut_short(&self) -> bool {
        self.is_too_long.get()
    }

    /// The end of a body that has gone down, with these trailers.
    pub(crate) fn ends_down(&self, trailers: &[u8], now: Instant) -> Result<(), Failure> {
        if self.web.is_some() && !self.sent.get().is_between() {
            // Trailers behind it would be taken for the rest of its message.
            return Err(Failure::UpstreamBodyCut);
        }
        if let Some(code) = status_of(lines_of(trailers)) {
            self.is_late(code, now).inspect_err(|_| self.is_giving.set(false))?;
            self.note_code(code);
        }
        Ok(())
    }

    /// Appends what a browser gets for it.
    pub(crate) fn turn_down(&self, piece: &[u8], out: &mut Vec<u8>) {
        if let Some(web) = &self.web {
            let mut downward = web.downward.get();
            downward.turn(piece, out);
            web.downward.set(downward);
        }
    }

    /// Appends the message that tells a browser the trailers. Its page takes a call without a
    /// status for one that went well, so there is one.
    pub(crate) fn end_down(&self, trailers: &[u8], out: &mut Vec<u8>) {
        if let Some(web) = self.web.as_ref().filter(|_| !self.is_bare.get()) {
            let mut trailers = Cow::Borrowed(trailers);
            if self.code.get().is_none() && status_of(lines_of(&trailers)).is_none() {
                status::lines(Code::Unknown, NO_STATUS, trailers.to_mut());
            }
            let mut downward = web.downward.get();
            downward.end(&trailers, out);
            web.downward.set(downward);
        }
    }

    /// What was to pass has left.
    pub(crate) fn given(&self) -> Result<(), Failure> {
        self.is_giving.set(false);
        if self.is_too_long.get() { Err(Failure::UpstreamMessageTooLarge) } else { Ok(()) }
    }

    /// Nothing of a message is half sent: trailers may follow.
    pub(crate) fn is_between_messages(&self) -> bool {
        self.sent.get().is_between() && !self.is_giving.get()
    }

    /// The lines of trailers, or of a head that is all there is, may say how it ended.
    pub(crate) fn note_lines<'l>(&self, lines: impl Iterator<Item = (&'l [u8], &'l [u8])>) {
        if let Some(code) = status_of(lines) {
            self.note_code(code);
        }
    }

    pub(crate) fn note_code(&self, code: Code) {
        self.code.set(Some(code));
    }

    /// What the client was told, or would have been.
    pub(crate) fn ended_with(&self, failure: Option<Failure>, status: u16) -> Code {
        match (failure, self.code.get()) {
            (Some(failure), _) => Code::of_failure(failure),
            (None, Some(code)) => code,
            // An answer without a status of gRPC.
            (None, None) => Code::of_http(status),
        }
    }

    /// Adds it to its numbers, when it has ended.
    pub(crate) fn count(&self, cells: &GrpcCells, code: Code) {
        cells.codes[usize::from(code.number())].add(1);
        let both = [(&cells.received, self.received.get()), (&cells.sent, self.sent.get())];
        for (cells, messages) in both {
            cells.compressed.add(messages.compressed);
            cells.plain.add(messages.count - messages.compressed);
        }
    }
}

const NO_STATUS: &[u8] = b"the backend ended the call without a grpc-status";

fn pass(messages: &Cell<Messages>, piece: &[u8], bytes_max: u32) -> Result<(), TooLong> {
    let mut passing = messages.get();
    let passed = passing.pass(piece, bytes_max);
    messages.set(passing);
    passed
}

/// Names and values of lines as HTTP/1.1 writes them.
pub(crate) fn lines_of(lines: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    lines.split(|&byte| byte == b'\n').filter_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        Some((&line[..colon], line[colon + 1..].trim_ascii()))
    })
}

/// The lines that tell a caller of a failure: in a head, or as trailers.
pub(crate) fn failure_lines(failure: Failure, out: &mut Vec<u8>) {
    status::lines(Code::of_failure(failure), failure.row().message.as_bytes(), out);
}

/// The status that a head says, which then is all there is.
pub(crate) fn status_of<'l>(mut lines: impl Iterator<Item = (&'l [u8], &'l [u8])>) -> Option<Code> {
    let status = lines.find(|(name, _)| name.eq_ignore_ascii_case(b"grpc-status"));
    status.map(|(_, value)| Code::parse(value))
}

/// Whether an answer of an endpoint is of gRPC, or says how a call ended.
pub(crate) fn is_answer<'l>(
    status: u16,
    mut lines: impl Iterator<Item = (&'l [u8], &'l [u8])>,
) -> bool {
    lines.any(|(name, value)| {
        let is_typed = name.eq_ignore_ascii_case(b"content-type") && is_grpc(value);
        (is_typed && status == 200) || name.eq_ignore_ascii_case(b"grpc-status")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::settings::Retry;
    use crate::grpc::status::Codes;
    use crate::grpc::web::{Origins, Web};
    use crate::http1::parse::{self, HeadLimits};

    fn grpc(web: bool, message_bytes_max: u32) -> Grpc {
        let any = Web {
            origins: Origins::Any,
            credentials: false,
            exposed: Vec::new(),
            preflight_seconds: 1,
        };
        Grpc {
            place: 0,
            message_bytes_max,
            idle_timeout: None,
            retry: Retry { on: Codes::default(), attempts_max: 1 },
            web: web.then_some(any),
        }
    }

    fn begin(
        grpc: &Grpc,
        route: Option<Duration>,
        lines: &str,
        now: Instant,
    ) -> Result<Call, Failure> {
        let text = format!("POST /a.B/C HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let limits = HeadLimits { url_bytes_max: 100, header_bytes_max: 1000, headers_max: 10 };
        let mut head = RequestHead::default();
        parse::request(text.as_bytes(), &limits, &mut head).unwrap();
        Call::begin(grpc, route, (&head, text.as_bytes()), now)
    }

    const PLAIN: &str = "content-type: application/grpc\r\nte: trailers\r\nconnection: te\r\n";
    const TEXT: &str = "content-type: application/grpc-web-text\r\norigin: https://a.test\r\n";

    #[test]
    fn what_is_no_grpc_is_refused() {
        let now = Instant::now();
        for lines in ["", "content-type: application/json\r\n", TEXT] {
            assert_eq!(begin(&grpc(false, 0), None, lines, now).unwrap_err(), Failure::NotGrpc);
        }
        assert!(begin(&grpc(false, 0), None, PLAIN, now).is_ok());
        assert_eq!(begin(&grpc(true, 0), None, TEXT, now).unwrap().form(), Some(Form::Text));
        let without = "content-type: application/grpc\r\n";
        let refused = begin(&grpc(false, 0), None, without, now).unwrap_err();
        assert_eq!(refused, Failure::GrpcWithoutTrailers);
        let odd = format!("{PLAIN}grpc-timeout: 5s\r\n");
        assert_eq!(
            begin(&grpc(false, 0), None, &odd, now).unwrap_err(),
            Failure::DeadlineMalformed
        );
    }

    #[test]
    fn the_deadline_is_the_least_of_the_callers_and_the_routes() {
        let now = Instant::now();
        let seconds = Duration::from_secs;
        let limit = |route, lines: &str| {
            begin(&grpc(false, 0), route, &format!("{PLAIN}{lines}"), now).unwrap().limit()
        };
        let five = "grpc-timeout: 5S\r\n";
        let own = Some((now + seconds(5), Failure::DeadlineTimeout));
        assert_eq!(limit(None, five), own);
        assert_eq!(limit(Some(seconds(9)), five), own);
        let route = Some((now + seconds(2), Failure::ExchangeTimeout));
        assert_eq!(limit(Some(seconds(2)), five), route);
        assert_eq!(limit(Some(seconds(2)), ""), route);
        assert_eq!(limit(None, ""), None);
    }

    #[test]
    fn the_endpoint_is_told_what_is_left_and_who_calls() {
        let now = Instant::now();
        let later = now + Duration::from_millis(1);
        let written = |route, lines: &str| {
            let call = begin(&grpc(false, 0), route, &format!("{PLAIN}{lines}"), now).unwrap();
            let mut head =
                b"POST / HTTP/1.1\r\nx-client-ip: 6.6.6.6\r\ngrpc-timeout: 5S\r\n\r\n".to_vec();
            call.request_head(&mut head, IpAddr::from([10, 0, 0, 1]), later);
            String::from_utf8(head).unwrap()
        };
        let start = "POST / HTTP/1.1\r\nX-Client-IP: 10.0.0.1\r\n";
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let five = "grpc-timeout: 5S\r\n";
        assert_eq!(written(None, five), format!("{start}grpc-timeout: 4999000u\r\n\r\n"));
        assert_eq!(written(seconds(2), five), format!("{start}grpc-timeout: 1999000u\r\n\r\n"));
        assert_eq!(written(seconds(2), ""), format!("{start}grpc-timeout: 1999000u\r\n\r\n"));
        assert_eq!(written(None, ""), format!("{start}\r\n"));
    }

    #[test]
    fn a_message_over_the_maximum_is_refused_either_way() {
        let call = begin(&grpc(false, 2), None, PLAIN, Instant::now()).unwrap();
        let mut piece = *b"\0\0\0\0\x02ab\0\0\0\0";
        assert_eq!(call.goes_up(&mut piece, false), Ok(11));
        assert_eq!(call.goes_up(&mut [3], false), Err(Failure::MessageTooLarge));
    }

    #[test]
    fn a_message_over_the_maximum_is_not_begun_and_those_before_it_pass() {
        let (whole, long) = (b"\0\0\0\0\x02ab", b"\0\0\0\0\x03abc");
        let body = [&whole[..], whole, long].concat();
        for first in 0..body.len() {
            for second in first..body.len() {
                let call = begin(&grpc(false, 2), None, PLAIN, Instant::now()).unwrap();
                let mut out = Vec::new();
                let mut ended = Ok(());
                for piece in [&body[..first], &body[first..second], &body[second..]] {
                    out.extend_from_slice(&call.goes_down(piece, false));
                    ended = call.given();
                    if ended.is_err() {
                        break;
                    }
                }
                assert_eq!(ended, Err(Failure::UpstreamMessageTooLarge), "{first} {second}");
                assert_eq!(out, body[..14], "{first} {second}");
                assert!(call.is_between_messages());
            }
        }
        // What is not whole at the end is the client's to refuse.
        let call = begin(&grpc(false, 2), None, PLAIN, Instant::now()).unwrap();
        assert_eq!(*call.goes_down(b"\0\0\0", false), *b"");
        assert_eq!(*call.goes_down(b"", true), *b"\0\0\0");
    }

    #[test]
    fn what_only_says_that_the_time_is_over_is_told_as_the_deadline() {
        let now = Instant::now();
        let call = begin(&grpc(false, 0), Some(Duration::from_secs(1)), PLAIN, now).unwrap();
        let (before, after) = (now + Duration::from_millis(900), now + Duration::from_millis(999));
        for code in ["1", "4"] {
            let trailers = format!("grpc-status: {code}\r\n");
            assert_eq!(call.ends_down(trailers.as_bytes(), before), Ok(()));
            let late = call.ends_down(trailers.as_bytes(), after);
            assert_eq!(late, Err(Failure::ExchangeTimeout));
        }
        assert_eq!(call.ends_down(b"grpc-status: 0\r\n", after), Ok(()));
        assert_eq!(call.ends_down(b"grpc-status: 5\r\n", after), Ok(()));
    }

    #[test]
    fn a_browser_is_told_of_an_end_that_says_nothing() {
        let binary = "content-type: application/grpc-web\r\n";
        let begin = || begin(&grpc(true, 0), None, binary, Instant::now()).unwrap();
        let lines = "grpc-status: 2\r\n\
            grpc-message: the backend ended the call without a grpc-status\r\n";
        let mut out = Vec::new();
        begin().end_down(b"x: y\r\n", &mut out);
        let trailers = String::from_utf8_lossy(&out[5..]);
        assert_eq!(trailers, format!("x: y\r\n{lines}"));
        let head = |head: &str, bare| {
            let mut head = format!("HTTP/1.1 200 OK\r\n{head}\r\n").into_bytes();
            let call = begin();
            call.response_head(&mut head, bare);
            let mut last = Vec::new();
            call.end_down(b"", &mut last);
            (String::from_utf8(head).unwrap(), String::from_utf8_lossy(&last).into_owned())
        };
        let (bare, last) = head("content-type: application/grpc\r\n", true);
        assert!(bare.contains(lines) && last.is_empty(), "{bare} {last}");
        // What has said it in its head need not say it again.
        let (said, last) = head("grpc-status: 5\r\n", false);
        assert!(!said.contains("grpc-status: 2") && !last.contains("grpc-status"), "{said} {last}");
        // In the middle of a message it would be taken for the rest of it.
        let call = begin();
        let _ = call.goes_down(b"\0\0\0\0\x02a", true);
        assert_eq!(
            call.ends_down(b"grpc-status: 0\r\n", Instant::now()),
            Err(Failure::UpstreamBodyCut)
        );
    }

    #[test]
    fn how_a_call_ended_is_in_its_trailers_or_in_the_failure() {
        let count = |trailers: &[u8], failure, status| {
            let call = begin(&grpc(false, 0), None, PLAIN, Instant::now()).unwrap();
            let _ = call.goes_down(b"\x01\0\0\0\0\0\0\0\0\0", true);
            call.ends_down(trailers, Instant::now()).unwrap();
            let cells = GrpcCells::default();
            call.count(&cells, call.ended_with(failure, status));
            assert_eq!((cells.sent.compressed.read(), cells.sent.plain.read()), (1, 1));
            cells.codes.iter().position(|cell| cell.read() == 1).unwrap()
        };
        assert_eq!(count(b"Grpc-Status: 5\r\nx: y\r\n", None, 200), 5);
        assert_eq!(count(b"", Some(Failure::NoEndpoint), 200), 14);
        assert_eq!(count(b"", None, 403), 7);
        assert_eq!(count(b"", None, 200), 2);
    }

    #[test]
    fn a_browsers_body_is_turned_both_ways() {
        let call = begin(&grpc(true, 0), None, TEXT, Instant::now()).unwrap();
        let mut piece = *b"AAAAAAFh";
        let length = call.goes_up(&mut piece, true).unwrap();
        assert_eq!(piece[..length], *b"\0\0\0\0\x01a");
        let mut out = Vec::new();
        call.turn_down(b"\0\0\0\0\x01a", &mut out);
        assert_eq!(out, b"AAAAAAFh");
        call.end_down(b"grpc-status: 0\r\n", &mut out);
        assert!(out.starts_with(b"AAAAAAFhgAAAABBncnBj"), "{out:?}");
        let mut head = b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\n\r\n".to_vec();
        call.response_head(&mut head, false);
        let head = String::from_utf8(head).unwrap();
        assert!(head.contains("content-type: application/grpc-web-text\r\n"), "{head}");
        assert!(head.contains("Allow-Origin: *\r\n"), "{head}");
    }

    #[test]
    fn an_answer_is_of_grpc_by_its_content_type_or_its_status() {
        let lines = |text: &'static str| lines_of(text.as_bytes());
        assert!(is_answer(200, lines("content-type: application/grpc+proto\r\n")));
        assert!(is_answer(200, lines("grpc-status: 0\r\n")));
        assert!(!is_answer(200, lines("content-type: text/html\r\n")));
        assert!(!is_answer(503, lines("content-type: application/grpc\r\n")));
    }
}
