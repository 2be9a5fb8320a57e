//! What is remembered of an exchange: written once, when it ends.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant, SystemTime};

use crate::exchange::capture::Capture;
use crate::exchange::failure::{Failure, Side};
use crate::exchange::tunnel::Told;
use crate::grpc::status::Code;
use crate::http::head::Line;
use crate::telemetry::client_tls::ClientTls;
use crate::telemetry::settings::Capturing;

/// Where an exchange was when it ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    #[default]
    RequestHead,
    Route,
    Queue,
    Connect,
    Tls,
    RequestBody,
    FirstByte,
    ResponseBody,
    /// Bytes of another protocol go both ways.
    Passing,
    Done,
}

impl Phase {
    pub fn label(self) -> &'static str {
        match self {
            Phase::RequestHead => "request_head",
            Phase::Route => "route",
            Phase::Queue => "queue",
            Phase::Connect => "connect",
            Phase::Tls => "tls",
            Phase::RequestBody => "request_body",
            Phase::FirstByte => "first_byte",
            Phase::ResponseBody => "response_body",
            Phase::Passing => "passing",
            Phase::Done => "done",
        }
    }
}

/// Moments of an exchange, in this order; `None` for those that it did not come to. A new attempt
/// writes the upstream ones anew, so that what earlier attempts took counts as queueing.
#[derive(Clone, Copy, Debug)]
pub struct Marks {
    /// First byte of the request.
    pub begin: Instant,
    /// The whole head is parsed.
    pub head: Option<Instant>,
    /// An upstream connection, or the right to make one, is there.
    pub admitted: Option<Instant>,
    pub connected: Option<Instant>,
    /// TLS is up, or there is none to be: then at the same moment.
    pub secured: Option<Instant>,
    /// The request has left, body and all. A body that is still on its way when the answer begins
    /// has no part in how long that took.
    pub uploaded: Option<Instant>,
    pub first_byte: Option<Instant>,
}

impl Marks {
    pub fn at(begin: Instant) -> Marks {
        let none = None;
        Marks {
            begin,
            head: none,
            admitted: none,
            connected: none,
            secured: none,
            uploaded: none,
            first_byte: none,
        }
    }

    /// The spans between the marks. What was going on at `end` takes the rest of the time; a mark
    /// that was skipped takes none.
    pub fn timings(&self, end: Instant) -> Timings {
        let in_time = |uploaded: &Instant| self.first_byte.is_none_or(|first| *uploaded <= first);
        let uploaded = self.uploaded.filter(in_time);
        let marks =
            [self.head, self.admitted, self.connected, self.secured, uploaded, self.first_byte];
        let reached = marks.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        let mut spans = [Duration::ZERO; Timings::SPANS];
        let mut before = self.begin;
        for (span, mark) in spans.iter_mut().zip(marks).take(reached) {
            let mark = mark.unwrap_or(before).clamp(before, end.max(before));
            *span = mark - before;
            before = mark;
        }
        spans[reached] = end.saturating_duration_since(before);
        let [head, queue, connect, tls, upload, first_byte, body] = spans;
        Timings { head, queue, connect, tls, upload, first_byte, body, total: spans.iter().sum() }
    }
}

/// Adjacent spans of an exchange: they add up to the total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timings {
    /// First byte of the request to the whole head parsed.
    pub head: Duration,
    /// Waiting for a free upstream connection.
    pub queue: Duration,
    pub connect: Duration,
    /// The handshake with the endpoint.
    pub tls: Duration,
    /// From connected to the end of the request body: the client's doing as much as the backend's.
    pub upload: Duration,
    /// From there to the first byte of the response head.
    pub first_byte: Duration,
    /// From there to the last byte given to the client.
    pub body: Duration,
    pub total: Duration,
}

impl Timings {
    pub const SPANS: usize = 7;

    /// The spans in whole microseconds, head to body, and their sum: boundaries are rounded, not
    /// spans, so that the sum is exact.
    pub fn micros(&self) -> ([u64; Timings::SPANS], u64) {
        let Timings { head, queue, connect, tls, upload, first_byte, body, total: _ } = *self;
        let spans = [head, queue, connect, tls, upload, first_byte, body];
        let mut end = Duration::ZERO;
        let mut boundary = 0;
        let micros = spans.map(|span| {
            end = end.saturating_add(span);
            let before = boundary;
            boundary = u64::try_from(end.as_micros()).unwrap_or(u64::MAX);
            boundary - before
        });
        (micros, boundary)
    }
}

#[derive(Clone, Debug)]
pub struct Record<'a> {
    pub at: SystemTime,
    pub request_id: &'a [u8],
    /// `None` where tracing is off.
    pub trace_id: Option<u128>,
    pub peer: SocketAddr,
    pub client: IpAddr,
    pub listener: &'a str,
    /// Empty when none was found.
    pub route: &'a str,
    pub cluster: &'a str,
    pub endpoint: Option<SocketAddr>,
    pub method: &'a [u8],
    pub target: &'a [u8],
    pub host: &'a [u8],
    pub version: &'a str,
    pub referer: &'a [u8],
    pub user_agent: &'a [u8],
    /// Of the client's URL.
    pub scheme: &'static str,
    /// Whom the peer has said that it speaks for (PROXY protocol).
    pub speaks_for: Option<SocketAddr>,
    /// `None`: the client's connection is plain.
    pub tls: Option<ClientTls<'a>>,
    /// 0 when nothing was answered.
    pub status: u16,
    /// How a call of gRPC ended; `None`: it is none.
    pub grpc_status: Option<Code>,
    pub bytes_received: u64,
    /// Everything sent to the client, heads included.
    pub bytes_sent: u64,
    /// Body bytes sent to the client (CLF's %b).
    pub body_bytes_sent: u64,
    pub timings: Timings,
    pub attempts: u8,
    /// The upstream connection was a kept one.
    pub reused: bool,
    pub failure: Option<Failure>,
    pub phase: Phase,
    /// The protocol that the connection went over to, and how that ended.
    pub tunnel: Option<(&'a str, Told)>,
    /// The request's header lines, and the bytes that they lie in.
    pub request_lines: (&'a [Line], &'a [u8]),
    /// What was kept of heads and bodies, for logs that show them.
    pub capture: Option<(&'a Capturing, &'a Capture)>,
}

impl<'a> Record<'a> {
    /// The value of the first line of this name, which is in lower case.
    pub fn request_header(&self, name: &[u8]) -> Option<&'a [u8]> {
        let (lines, bytes) = self.request_lines;
        let line = lines.iter().find(|line| line.name.of(bytes).eq_ignore_ascii_case(name))?;
        Some(line.value.of(bytes))
    }

    /// As the client got it.
    pub fn response_header(&self, name: &[u8]) -> Option<&'a [u8]> {
        self.capture?.1.response_header(name)
    }

    /// Who ended the exchange before its time; `None` when it was answered in full.
    pub fn ended_by(&self) -> Option<Side> {
        self.failure.map(Failure::side)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marks(begin: Instant, head: u64, rest: [Option<u64>; 3]) -> Marks {
        let at = |nanos| begin + Duration::from_nanos(nanos);
        let [admitted, connected, first_byte] = rest.map(|nanos| nanos.map(at));
        let (head, uploaded, secured) = (Some(at(head)), connected, connected);
        Marks { begin, head, admitted, connected, secured, uploaded, first_byte }
    }

    #[test]
    fn spans_add_up_to_the_total_to_the_nanosecond() {
        let begin = Instant::now();
        let marks = marks(begin, 1_499, [Some(2_998), Some(4_497), Some(5_996)]);
        let timings = marks.timings(begin + Duration::from_nanos(7_495));
        let Timings { head, queue, connect, tls, upload, first_byte, body, total } = timings;
        assert_eq!(head + queue + connect + tls + upload + first_byte + body, total);
        assert_eq!(total, Duration::from_nanos(7_495));
    }

    #[test]
    fn rounding_to_microseconds_loses_nothing_of_the_sum() {
        let begin = Instant::now();
        let marks = marks(begin, 1_499, [Some(2_998), Some(4_497), Some(5_996)]);
        let (spans, total) = marks.timings(begin + Duration::from_nanos(7_495)).micros();
        assert_eq!(spans, [1, 1, 2, 0, 0, 1, 2]);
        assert_eq!(spans.iter().sum::<u64>(), total);
        assert_eq!(total, 7);
    }

    #[test]
    fn what_was_going_on_at_the_end_takes_the_rest() {
        let begin = Instant::now();
        let end = begin + Duration::from_micros(100);
        let waiting = marks(begin, 10_000, [None, None, None]).timings(end);
        assert_eq!(waiting.micros(), ([10, 90, 0, 0, 0, 0, 0], 100));
        assert_eq!(Marks::at(begin).timings(end).micros(), ([100, 0, 0, 0, 0, 0, 0], 100));
    }

    #[test]
    fn a_kept_connection_spends_no_time_connecting() {
        let begin = Instant::now();
        let end = begin + Duration::from_micros(100);
        let kept = marks(begin, 10_000, [Some(20_000), None, Some(60_000)]).timings(end);
        assert_eq!(kept.micros(), ([10, 10, 0, 0, 0, 40, 40], 100));
    }

    #[test]
    fn a_handshake_with_the_endpoint_is_no_time_of_connecting() {
        let begin = Instant::now();
        let end = begin + Duration::from_micros(100);
        let mut marks = marks(begin, 10_000, [Some(20_000), Some(30_000), Some(60_000)]);
        marks.secured = Some(begin + Duration::from_micros(50));
        assert_eq!(marks.timings(end).micros(), ([10, 10, 10, 20, 0, 10, 40], 100));
        // While it goes on, nothing else does.
        (marks.secured, marks.uploaded, marks.first_byte) = (None, None, None);
        assert_eq!(marks.timings(end).micros(), ([10, 10, 10, 70, 0, 0, 0], 100));
    }

    #[test]
    fn a_slow_upload_is_not_time_of_the_backend_unless_it_has_answered_before_its_end() {
        let begin = Instant::now();
        let end = begin + Duration::from_micros(100);
        let mut marks = marks(begin, 10_000, [Some(20_000), Some(20_000), Some(80_000)]);
        marks.uploaded = Some(begin + Duration::from_micros(70));
        assert_eq!(marks.timings(end).micros(), ([10, 10, 0, 0, 50, 10, 20], 100));
        marks.uploaded = Some(begin + Duration::from_micros(90));
        assert_eq!(marks.timings(end).micros(), ([10, 10, 0, 0, 0, 60, 20], 100));
        (marks.uploaded, marks.first_byte) = (None, None);
        assert_eq!(marks.timings(end).micros(), ([10, 10, 0, 0, 80, 0, 0], 100));
    }

    #[test]
    fn marks_out_of_order_never_underflow() {
        let begin = Instant::now();
        let odd = marks(begin, 50_000, [Some(20_000), Some(900_000), Some(10_000)]);
        let timings = odd.timings(begin + Duration::from_micros(100));
        assert_eq!(timings.micros(), ([50, 0, 50, 0, 0, 0, 0], 100));
    }
}
