//! Heads from bytes: httparse splits the lines, `lines` and `target` refuse what a proxy must
//! refuse. Called by the sessions with all bytes that came so far. Never allocates once the head's
//! table has grown.
//!
//! An incomplete head is cheap to ask about again: only the new bytes are searched for the empty
//! line, and the whole is parsed when it is there, when the bytes doubled, or at the limit.

use std::mem::MaybeUninit;

use crate::http::head::{
    Framing, Keep, Line, Method, Progress, RequestHead, ResponseHead, Span, Version,
};
use crate::http::headers::HeaderId;
use crate::http1::lines::{Expect, framing, keep, lines, span, withhold};
use crate::http1::malformed::{
    METHOD_BYTES_MAX, request_fault, request_line_limits, response_fault,
};
use crate::http1::target;
use crate::limits;

pub use crate::http1::malformed::Malformed;

/// Bounds for one head, from the plan.
#[derive(Clone, Copy, Debug)]
pub struct HeadLimits {
    pub url_bytes_max: usize,
    pub header_bytes_max: usize,
    /// At most `limits::HEADERS_MAX_CEILING`.
    pub headers_max: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    Complete,
    /// More bytes are needed.
    Partial,
}

/// Parses a request head. `bytes` starts where the head starts and holds what came so far; `head`
/// is cleared first, unless it is in the middle of the same bytes. After an error it says nothing.
pub fn request(
    bytes: &[u8],
    limits: &HeadLimits,
    head: &mut RequestHead,
) -> Result<Parsed, Malformed> {
    if head.progress.is_still_partial(bytes, limits.header_bytes_max) {
        return Ok(Parsed::Partial);
    }
    head.clear();
    let window = &bytes[..bytes.len().min(limits.header_bytes_max)];
    let start = leading_empty_line(window)?;
    let text = &window[start..];
    let mut storage = [const { MaybeUninit::uninit() }; limits::HEADERS_MAX_CEILING];
    let room = limits.headers_max.min(limits::HEADERS_MAX_CEILING);
    let mut found = httparse::Request::new(&mut []);
    match found.parse_with_uninit_headers(text, &mut storage[..room]) {
        Ok(httparse::Status::Complete(length)) => {
            head.bytes = start + length;
            request_head(window, limits, &found, head)?;
            Ok(Parsed::Complete)
        }
        Ok(httparse::Status::Partial) => {
            request_line_limits(text, limits)?;
            head.progress = Progress::of(bytes, limits.header_bytes_max)?;
            Ok(Parsed::Partial)
        }
        Err(error) => Err(request_fault(text, limits, &found, error)),
    }
}

/// Parses a response head; `method` is that of the request that it answers.
pub fn response(
    bytes: &[u8],
    method: Method,
    limits: &HeadLimits,
    head: &mut ResponseHead,
) -> Result<Parsed, Malformed> {
    if head.progress.is_still_partial(bytes, limits.header_bytes_max) {
        return Ok(Parsed::Partial);
    }
    head.clear();
    let window = &bytes[..bytes.len().min(limits.header_bytes_max)];
    if let Some(b'\r' | b'\n') = window.first() {
        return Err(Malformed::LeadingEmptyLine);
    }
    let mut storage = [const { MaybeUninit::uninit() }; limits::HEADERS_MAX_CEILING];
    let room = limits.headers_max.min(limits::HEADERS_MAX_CEILING);
    let mut found = httparse::Response::new(&mut []);
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut found, window, &mut storage[..room]) {
        Ok(httparse::Status::Complete(length)) => {
            head.bytes = length;
            response_head(window, method, &found, head)?;
            Ok(Parsed::Complete)
        }
        Ok(httparse::Status::Partial) => {
            head.progress = Progress::of(bytes, limits.header_bytes_max)?;
            Ok(Parsed::Partial)
        }
        Err(error) => Err(response_fault(window, &found, error)),
    }
}

impl Progress {
    /// After a parse that wanted more. A window that is full and holds no whole head is too large.
    fn of(bytes: &[u8], header_bytes_max: usize) -> Result<Progress, Malformed> {
        if bytes.len() >= header_bytes_max {
            return Err(Malformed::HeadTooLarge);
        }
        Ok(Progress { scanned: bytes.len(), parsed: bytes.len() })
    }

    /// Whether a parse would say `Partial` again. It is parsed anyhow each time the bytes doubled,
    /// so that what is wrong with the beginning shows early; the sum of all parses stays linear.
    fn is_still_partial(&mut self, bytes: &[u8], header_bytes_max: usize) -> bool {
        if self.parsed == 0 || bytes.len() < self.scanned {
            return false;
        }
        let due = bytes.len() >= header_bytes_max || bytes.len() >= self.parsed * 2;
        if due || holds_empty_line(&bytes[self.scanned.saturating_sub(3)..]) {
            return false;
        }
        self.scanned = bytes.len();
        true
    }
}

/// A line end followed by another. LF alone counts: such heads are refused, not waited for.
fn holds_empty_line(bytes: &[u8]) -> bool {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| *byte == b'\n') {
        rest = &rest[at + 1..];
        if let [b'\n', ..] | [b'\r', b'\n', ..] = rest {
            return true;
        }
    }
    false
}

/// One CRLF before a request line is skipped: some clients end a body with it (RFC 9112 section
/// 2.2).
fn leading_empty_line(bytes: &[u8]) -> Result<usize, Malformed> {
    let start = match bytes {
        [b'\r', b'\n', ..] => 2,
        [b'\r'] => return Ok(0),
        [b'\r', ..] => return Err(Malformed::BareCr),
        [b'\n', ..] => return Err(Malformed::LeadingEmptyLine),
        _ => return Ok(0),
    };
    match bytes.get(start) {
        Some(b'\r' | b'\n') => Err(Malformed::LeadingEmptyLine),
        Some(_) | None => Ok(start),
    }
}

fn request_head(
    bytes: &[u8],
    limits: &HeadLimits,
    found: &httparse::Request<'_, '_>,
    head: &mut RequestHead,
) -> Result<(), Malformed> {
    let method = found.method.unwrap_or_default().as_bytes();
    let target = found.path.unwrap_or_default().as_bytes();
    if method.len() > METHOD_BYTES_MAX {
        return Err(Malformed::Method);
    }
    if target.len() > limits.url_bytes_max {
        return Err(Malformed::UrlTooLong);
    }
    head.method = Method::of(method);
    head.method_name = span(bytes, method);
    head.target = span(bytes, target);
    head.version = version(found.version);
    let seen = lines(bytes, head.bytes, found.headers, &mut head.lines)?;
    head.framing = match framing(&seen, head.version)? {
        Some(framing) => framing,
        None => Framing::None,
    };
    head.keep = keep(&seen, head.version);
    head.upgrade = seen.upgrade.filter(|_| seen.option_upgrade).unwrap_or_default();
    head.accepts_trailers = seen.accepts_trailers;
    match (seen.expect, head.version) {
        (Expect::Nothing, _) => {}
        (Expect::Continue, Version::Http11 | Version::Http2) => head.expects_continue = true,
        // An HTTP/1.0 client cannot mean it (RFC 9110 section 10.1.1).
        (Expect::Continue, Version::Http10) => withhold(&mut head.lines, HeaderId::Expect),
        (Expect::Other, _) => return Err(Malformed::ExpectationUnknown),
    }
    target::take_apart(bytes, seen.host, head)
}

fn response_head(
    bytes: &[u8],
    method: Method,
    found: &httparse::Response<'_, '_>,
    head: &mut ResponseHead,
) -> Result<(), Malformed> {
    head.status = found.code.unwrap_or_default();
    if head.status < 100 {
        return Err(Malformed::StatusLine);
    }
    head.version = version(found.version);
    let seen = lines(bytes, head.bytes, found.headers, &mut head.lines)?;
    let line_end = head.lines.first().map_or(head.bytes - 2, |line| line.line.start as usize) - 2;
    // `HTTP/1.1 200` is 12 bytes; the space after it may be missing. httparse gives no reason that
    // holds bytes beyond ASCII, so it is taken from the line.
    head.reason = Span::between(line_end.min(13), line_end);
    let framing = framing(&seen, head.version)?;
    head.keep = keep(&seen, head.version);
    head.keep_alive_seconds = seen.keep_alive_seconds;
    let successful = (200..300).contains(&head.status);
    // RFC 9112 section 6.3, rules 1 and 2.
    head.framing = if method == Method::Head || head.status == 304 {
        Framing::None
    } else if head.status < 200 || head.status == 204 {
        // Neither header may stand here (RFC 9110 section 8.6). Where one does, a body may follow
        // that the next exchange must not take for its answer.
        if !matches!(framing, None | Some(Framing::Length(0))) {
            head.keep = Keep::Close;
        }
        withhold(&mut head.lines, HeaderId::ContentLength);
        Framing::None
    } else if method == Method::Connect && successful {
        withhold(&mut head.lines, HeaderId::ContentLength);
        Framing::None
    } else {
        framing.unwrap_or(Framing::UntilClose)
    };
    if head.framing == Framing::UntilClose {
        head.keep = Keep::Close;
    }
    Ok(())
}

fn version(minor: Option<u8>) -> Version {
    match minor {
        Some(0) => Version::Http10,
        Some(_) | None => Version::Http11,
    }
}

/// What must hold for any bytes, as a request and as a response: a prefix is incomplete or refused
/// by the rule that refuses the whole, one head fed byte by byte ends like one fed at once (or
/// waits for more before it is refused), and the table covers the lines without a gap or a CR or LF
/// inside.
pub fn fuzz(bytes: &[u8]) {
    let limits = HeadLimits { url_bytes_max: 300, header_bytes_max: 2048, headers_max: 12 };
    let bytes = &bytes[..bytes.len().min(4096)];
    let mut whole = RequestHead::default();
    let outcome = request(bytes, &limits, &mut whole);
    let mut growing = RequestHead::default();
    let mut grown = Ok(Parsed::Partial);
    for end in 0..=bytes.len() {
        let mut fresh = RequestHead::default();
        let part = request(&bytes[..end], &limits, &mut fresh);
        assert!(part == outcome || part == Ok(Parsed::Partial), "{part:?} {outcome:?}");
        assert!(part == outcome || outcome.is_err() || end < whole.bytes);
        if grown == Ok(Parsed::Partial) {
            grown = request(&bytes[..end], &limits, &mut growing);
        }
    }
    assert!(grown == outcome || (grown == Ok(Parsed::Partial) && outcome.is_err()));
    if outcome == Ok(Parsed::Complete) {
        assert_eq!((&growing.lines, growing.bytes), (&whole.lines, whole.bytes));
        assert_table(bytes, &whole.lines, whole.bytes);
    }
    for method in [Method::Get, Method::Head, Method::Connect] {
        fuzz_response(bytes, method, &limits);
    }
}

fn fuzz_response(bytes: &[u8], method: Method, limits: &HeadLimits) {
    let mut whole = ResponseHead::default();
    let outcome = response(bytes, method, limits, &mut whole);
    let mut growing = ResponseHead::default();
    let mut grown = Ok(Parsed::Partial);
    for end in 0..=bytes.len() {
        let mut fresh = ResponseHead::default();
        let part = response(&bytes[..end], method, limits, &mut fresh);
        assert!(part == outcome || part == Ok(Parsed::Partial), "{part:?} {outcome:?}");
        assert!(part == outcome || outcome.is_err() || end < whole.bytes);
        if grown == Ok(Parsed::Partial) {
            grown = response(&bytes[..end], method, limits, &mut growing);
        }
    }
    assert!(grown == outcome || (grown == Ok(Parsed::Partial) && outcome.is_err()));
    if outcome == Ok(Parsed::Complete) {
        assert!(whole.framing != Framing::UntilClose || whole.keep == Keep::Close);
        assert_table(bytes, &whole.lines, whole.bytes);
    }
}

fn assert_table(bytes: &[u8], table: &[Line], end: usize) {
    assert!(bytes[..end].ends_with(b"\r\n\r\n"));
    for (at, line) in table.iter().enumerate() {
        let text = line.line.of(bytes).strip_suffix(b"\r\n").expect("a line ends with CRLF");
        assert!(!text.contains(&b'\r') && !text.contains(&b'\n') && !text.contains(&0));
        assert!(text.starts_with(line.name.of(bytes)) && !line.name.is_empty());
        let next = table.get(at + 1).map_or(end - 2, |next| next.line.start as usize);
        assert_eq!(line.line.end as usize, next);
        assert_eq!(HeaderId::of(line.name.of(bytes)), line.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::head::TargetForm;

    const LIMITS: HeadLimits =
        HeadLimits { url_bytes_max: 8192, header_bytes_max: 16384, headers_max: 100 };

    fn asked(bytes: &[u8], limits: &HeadLimits) -> Result<Parsed, Malformed> {
        request(bytes, limits, &mut RequestHead::default())
    }

    fn answered(bytes: &[u8], method: Method) -> Result<Parsed, Malformed> {
        response(bytes, method, &LIMITS, &mut ResponseHead::default())
    }

    /// Every prefix is incomplete or refused alike, and so is a head that grows byte by byte.
    fn refused(bytes: &[u8], limits: &HeadLimits, expected: Malformed) {
        let shown = bytes[..bytes.len().min(200)].escape_ascii();
        assert_eq!(asked(bytes, limits), Err(expected), "{shown}");
        let mut growing = RequestHead::default();
        let mut last = Ok(Parsed::Partial);
        for end in 0..=bytes.len() {
            let part = asked(&bytes[..end], limits);
            assert!(
                part == Ok(Parsed::Partial) || part == Err(expected),
                "{shown} at {end}: {part:?}"
            );
            if last == Ok(Parsed::Partial) {
                last = request(&bytes[..end], limits, &mut growing);
            }
        }
        let mut padded = bytes.to_vec();
        padded.resize(limits.header_bytes_max.max(bytes.len()), b'x');
        if last == Ok(Parsed::Partial) {
            last = request(&padded, limits, &mut growing);
        }
        assert_eq!(last, Err(expected), "{shown} byte by byte");
    }

    fn response_refused(bytes: &[u8], expected: Malformed) {
        let shown = bytes.escape_ascii();
        assert_eq!(answered(bytes, Method::Get), Err(expected), "{shown}");
        for end in 0..bytes.len() {
            let part = answered(&bytes[..end], Method::Get);
            assert!(
                part == Ok(Parsed::Partial) || part == Err(expected),
                "{shown} at {end}: {part:?}"
            );
        }
    }

    /// Parses, after every shorter prefix was found incomplete.
    fn accepted(text: &[u8]) -> RequestHead {
        let mut growing = RequestHead::default();
        for end in 0..text.len() {
            assert_eq!(asked(&text[..end], &LIMITS), Ok(Parsed::Partial), "{end}");
            let part = request(&text[..end], &LIMITS, &mut growing);
            assert_eq!(part, Ok(Parsed::Partial), "{}", text.escape_ascii());
        }
        let done = request(text, &LIMITS, &mut growing);
        assert_eq!(done, Ok(Parsed::Complete), "{}", text.escape_ascii());
        assert_eq!(growing.bytes, text.len());
        assert_table(text, &growing.lines, growing.bytes);
        growing
    }

    fn answer(text: &[u8], method: Method) -> ResponseHead {
        let mut head = ResponseHead::default();
        for end in 0..text.len() {
            let part = response(&text[..end], method, &LIMITS, &mut head);
            assert_eq!(part, Ok(Parsed::Partial), "{}", text.escape_ascii());
        }
        let done = response(text, method, &LIMITS, &mut head);
        assert_eq!(done, Ok(Parsed::Complete), "{}", text.escape_ascii());
        head
    }

    /// `GET / HTTP/1.1`, a Host, and these lines.
    fn with(lines: &str) -> Vec<u8> {
        format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n").into_bytes()
    }

    #[test]
    fn request_lines_that_a_proxy_must_refuse() {
        use Malformed::*;
        let table: &[(&[u8], Malformed)] = &[
            (b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", LeadingEmptyLine),
            (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", LeadingEmptyLine),
            (b"\r\n\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", LeadingEmptyLine),
            (b"\rGET / HTTP/1.1\r\nHost: a\r\n\r\n", BareCr),
            (b" GET / HTTP/1.1\r\nHost: a\r\n\r\n", Method),
            (b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n", Method),
            (b"G\0T / HTTP/1.1\r\nHost: a\r\n\r\n", Method),
            (b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", Method),
            (b"GET\r\n\r\n", Method),
            (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
            (b"GET /  HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
            (b"GET /\r\n\r\n", RequestLine),
            (b"GET / \r\n\r\n", RequestLine),
            (b"GET / http/1.1\r\nHost: a\r\n\r\n", RequestLine),
            (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", RequestLine),
            (b"GET / HTTP/1.11\r\nHost: a\r\n\r\n", RequestLine),
            (b"GET / HTTP/1,1\r\nHost: a\r\n\r\n", RequestLine),
            (b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n", RequestLine),
            (b"GET / HTTP/1.1\rX\r\nHost: a\r\n\r\n", BareCr),
            (b"GET / HTTP/1.1\nHost: a\r\n\r\n", BareLf),
            (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", VersionUnsupported),
            (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", VersionUnsupported),
            (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", VersionUnsupported),
            (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", VersionUnsupported),
            (b"GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", Target),
            (b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n", Target),
            (b"GET /\t HTTP/1.1\r\nHost: a\r\n\r\n", Target),
            (b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n", Target),
            (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", Target),
            (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", Target),
            (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Target),
            (b"GET /a?b#c HTTP/1.1\r\nHost: a\r\n\r\n", Target),
        ];
        for (bytes, expected) in table {
            refused(bytes, &LIMITS, *expected);
        }
    }

    #[test]
    fn targets_of_a_form_that_does_not_fit() {
        use Malformed::*;
        let table: &[(&[u8], Malformed)] = &[
            (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
            (b"GET a HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
            (b"GET a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n", TargetForm),
            (b"OPTIONS *a HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
            (b"GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
            (b"GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
            (b"CONNECT / HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
            (b"CONNECT a HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
            (b"CONNECT a: HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
            (b"CONNECT a:0 HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
            (b"CONNECT http://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n", TargetForm),
            (b"GET http:// HTTP/1.1\r\nHost: a\r\n\r\n", TargetAuthority),
            (b"GET http:///b HTTP/1.1\r\nHost: a\r\n\r\n", TargetAuthority),
            (b"GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n", TargetAuthority),
            (b"GET http://a:70000/ HTTP/1.1\r\nHost: a\r\n\r\n", TargetAuthority),
            (b"GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", HostMismatch),
            (b"GET http://a:81/ HTTP/1.1\r\nHost: a\r\n\r\n", HostMismatch),
            (b"GET https://a:80/ HTTP/1.1\r\nHost: a\r\n\r\n", HostMismatch),
            (b"CONNECT b:443 HTTP/1.1\r\nHost: a:443\r\n\r\n", HostMismatch),
            (b"CONNECT a:443 HTTP/1.1\r\nHost: a:80\r\n\r\n", HostMismatch),
            (b"GET http://a/ HTTP/1.1\r\n\r\n", HostMissing),
        ];
        for (bytes, expected) in table {
            refused(bytes, &LIMITS, *expected);
        }
    }

    #[test]
    fn header_lines_that_a_proxy_must_refuse() {
        use Malformed::*;
        let table: &[(&str, Malformed)] = &[
            ("A: 1\nB: 2\r\n", BareLf),
            ("A: 1\r\n\n", BareLf),
            ("A:\n", BareLf),
            ("A: 1\rB\r\n", BareCr),
            ("A: 1\r\r\n", BareCr),
            ("\rA: 1\r\n", BareCr),
            ("A: 1\r\n 2\r\n", ObsoleteFold),
            ("A: 1\r\n\t2\r\n", ObsoleteFold),
            ("A:\r\n 2\r\n", ObsoleteFold),
            ("A : 1\r\n", SpaceInName),
            ("A\t: 1\r\n", SpaceInName),
            ("A B: 1\r\n", SpaceInName),
            (": 1\r\n", HeaderNameEmpty),
            ("A\r\n", HeaderColonMissing),
            ("A(: 1\r\n", HeaderName),
            ("A\0: 1\r\n", HeaderName),
            ("\u{e4}: 1\r\n", HeaderName),
            ("A: 1\0\r\n", HeaderValue),
            ("A: 1\u{1}\r\n", HeaderValue),
            ("A: \u{7f}\r\n", HeaderValue),
            ("A: \u{b}1\r\n", HeaderValue),
            ("X_A: 1\r\nX-A: 2\r\n", UnderscoreTwin),
            ("X-A: 1\r\nx_a: 2\r\n", UnderscoreTwin),
            ("X_A: 1\r\nx_a: 2\r\n", UnderscoreTwin),
            ("X_A-B: 1\r\nX-A_B: 2\r\n", UnderscoreTwin),
            ("x_forwarded_for: 1\r\n", UnderscoreTwin),
            ("X-Forwarded_Proto: 1\r\n", UnderscoreTwin),
            ("Content_Length: 1\r\n", UnderscoreTwin),
            ("Transfer_Encoding: chunked\r\n", UnderscoreTwin),
            ("Proxy_Authorization: 1\r\n", UnderscoreTwin),
            ("x_request_id: 1\r\n", UnderscoreTwin),
            ("x_b3_traceid: 1\r\n", UnderscoreTwin),
            ("X-B3_SpanId: 1\r\n", UnderscoreTwin),
            ("x_b3_parentspanid: 1\r\n", UnderscoreTwin),
            ("uber_trace_id: 1\r\n", UnderscoreTwin),
            ("Expect: 200-ok\r\n", ExpectationUnknown),
            ("Expect: 100-continue, x\r\n", ExpectationUnknown),
            ("Expect:\r\n", ExpectationUnknown),
            ("Connection: Host\r\n", ConnectionOption),
            ("Connection: close, content-length\r\n", ConnectionOption),
            ("Connection: X-Forwarded-For\r\n", ConnectionOption),
            ("Connection: x-request-id\r\n", ConnectionOption),
            ("Connection: a b\r\n", ConnectionOption),
            ("Connection: \"close\"\r\n", ConnectionOption),
        ];
        for (lines, expected) in table {
            refused(&with(lines), &LIMITS, *expected);
        }
        let many: String = (0..33).map(|at| format!("Connection: x{at}\r\n")).collect();
        refused(&with(&many), &LIMITS, ConnectionOption);
    }

    #[test]
    fn framing_that_two_parsers_could_read_differently_is_refused() {
        use Malformed::*;
        let table: &[(&str, Malformed)] = &[
            ("Content-Length: 1\r\nContent-Length: 2\r\n", ContentLengthRepeated),
            ("Content-Length: 1\r\nContent-Length: 1\r\n", ContentLengthRepeated),
            ("Content-Length: 1, 1\r\n", ContentLength),
            ("Content-Length: +5\r\n", ContentLength),
            ("Content-Length: -5\r\n", ContentLength),
            ("Content-Length: 0x5\r\n", ContentLength),
            ("Content-Length: 5 5\r\n", ContentLength),
            ("Content-Length: 5.0\r\n", ContentLength),
            ("Content-Length:\r\n", ContentLength),
            ("Content-Length: 18446744073709551616\r\n", ContentLength),
            ("Content-Length: 99999999999999999999999\r\n", ContentLength),
            (
                "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
                ContentLengthWithTransferEncoding,
            ),
            (
                "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n",
                ContentLengthWithTransferEncoding,
            ),
            ("Transfer-Encoding: gzip, chunked\r\n", TransferEncoding),
            ("Transfer-Encoding: chunked, identity\r\n", TransferEncoding),
            ("Transfer-Encoding: identity\r\n", TransferEncoding),
            ("Transfer-Encoding: xchunked\r\n", TransferEncoding),
            ("Transfer-Encoding: chunked;a=b\r\n", TransferEncoding),
            ("Transfer-Encoding: \"chunked\"\r\n", TransferEncoding),
            ("Transfer-Encoding:\r\n", TransferEncoding),
            (
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
                TransferEncodingRepeated,
            ),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n", TransferEncoding),
        ];
        for (lines, expected) in table {
            refused(&with(lines), &LIMITS, *expected);
            let answer = format!("HTTP/1.1 200 OK\r\n{lines}\r\n");
            response_refused(answer.as_bytes(), *expected);
        }
        refused(
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            &LIMITS,
            TransferEncodingOnHttp10,
        );
        response_refused(
            b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            TransferEncodingOnHttp10,
        );
    }

    #[test]
    fn hosts_that_are_no_host_are_refused() {
        let bad = [
            "",
            ":",
            ":80",
            "a:",
            "a:0",
            "a:65536",
            "a:+80",
            "a:8 0",
            "a b",
            "a,b c",
            "u@a",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "[::1",
            "::1",
            "[]",
            "[1.2.3.4]",
            "[::1]a",
            "[::1]:",
            "[fe80::1%25a]",
            "[v1.a]",
            "a:80:80",
            "a%zz",
            "a%4",
            "\"a\"",
            "<a>",
            "a|b",
            "a^b",
            "\u{e4}",
        ];
        for host in bad {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            refused(text.as_bytes(), &LIMITS, Malformed::Host);
        }
        for host in ["a", "A.b:1", "a:65535", "1.2.3.4:80", "[::1]", "[::1]:80", "a_b", "%41-.~"] {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
            let head = accepted(text.as_bytes());
            assert_eq!(head.authority.of(text.as_bytes()), host.as_bytes());
        }
        refused(b"GET / HTTP/1.1\r\n\r\n", &LIMITS, Malformed::HostMissing);
        refused(&with("Host: a\r\n"), &LIMITS, Malformed::HostRepeated);
        refused(b"GET / HTTP/1.0\r\nHost: a b\r\n\r\n", &LIMITS, Malformed::Host);
        assert!(accepted(b"GET / HTTP/1.0\r\n\r\n").authority.is_empty());
    }

    #[test]
    fn limits_hold_for_whole_heads_and_for_incomplete_ones() {
        let small = HeadLimits { url_bytes_max: 20, header_bytes_max: 100, headers_max: 3 };
        let target =
            |length: usize| format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length - 1));
        assert_eq!(asked(target(20).as_bytes(), &small), Ok(Parsed::Complete));
        refused(target(21).as_bytes(), &small, Malformed::UrlTooLong);
        refused(format!("GET /{}", "x".repeat(90)).as_bytes(), &small, Malformed::UrlTooLong);
        refused(format!("GET /{}\0", "x".repeat(90)).as_bytes(), &small, Malformed::UrlTooLong);
        refused("A".repeat(65).as_bytes(), &small, Malformed::Method);
        let sized = |length: usize| {
            let lines = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
            format!("{lines}{}\r\n\r\n", "x".repeat(length - lines.len() - 4))
        };
        assert_eq!(asked(sized(100).as_bytes(), &small), Ok(Parsed::Complete));
        refused(sized(101).as_bytes(), &small, Malformed::HeadTooLarge);
        refused(&sized(300).as_bytes()[..200], &small, Malformed::HeadTooLarge);
        assert_eq!(asked(&with("A: 1\r\nB: 2\r\n"), &small), Ok(Parsed::Complete));
        refused(&with("A: 1\r\nB: 2\r\nC: 3\r\n"), &small, Malformed::TooManyHeaders);
        let answer = format!("HTTP/1.1 200 OK\r\nX: {}", "x".repeat(90));
        let outcome =
            response(answer.as_bytes(), Method::Get, &small, &mut ResponseHead::default());
        assert_eq!(outcome, Err(Malformed::HeadTooLarge));
    }

    #[test]
    fn the_most_header_lines_that_can_be_configured_are_parsed() {
        let limits = HeadLimits { headers_max: limits::HEADERS_MAX_CEILING, ..LIMITS };
        let lines: String = (1..256).map(|at| format!("X-{at}: 1\r\n")).collect();
        assert_eq!(asked(&with(&lines), &limits), Ok(Parsed::Complete));
        assert_eq!(
            asked(&with(&format!("{lines}Y: 1\r\n")), &limits),
            Err(Malformed::TooManyHeaders)
        );
    }

    #[test]
    fn one_empty_line_before_a_request_is_skipped_and_counted() {
        let text = b"\r\nGET /a HTTP/1.1\r\nHost: b\r\n\r\n";
        let head = accepted(text);
        assert_eq!(head.target.of(text), b"/a");
        assert_eq!(head.lines[0].line.of(text), b"Host: b\r\n");
    }

    #[test]
    fn bytes_after_the_head_are_left_alone() {
        let text = b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET \0";
        let mut head = RequestHead::default();
        assert_eq!(request(text, &LIMITS, &mut head), Ok(Parsed::Complete));
        assert_eq!(head.bytes, text.len() - 5);
    }

    #[test]
    fn every_form_of_target_is_taken_apart() {
        let table: &[(&str, &str, TargetForm, &str, &str, &str)] = &[
            ("GET", "/", TargetForm::Origin, "h", "/", ""),
            ("GET", "/a/b?c=d?e", TargetForm::Origin, "h", "/a/b", "?c=d?e"),
            ("GET", "/?", TargetForm::Origin, "h", "/", "?"),
            ("GET", "//b/c", TargetForm::Origin, "h", "//b/c", ""),
            ("GET", "http://H/a?b", TargetForm::Absolute, "H", "/a", "?b"),
            ("GET", "http://h:80", TargetForm::Absolute, "h:80", "", ""),
            ("GET", "HTTPS://h:443?q", TargetForm::Absolute, "h:443", "", "?q"),
            ("GET", "http://h/a?http://u@b", TargetForm::Absolute, "h", "/a", "?http://u@b"),
            ("OPTIONS", "*", TargetForm::Asterisk, "h", "", ""),
            ("CONNECT", "h:443", TargetForm::Authority, "h:443", "", ""),
        ];
        for (method, target, form, authority, path, query) in table {
            let text = format!("{method} {target} HTTP/1.1\r\nHost: h\r\n\r\n");
            let bytes = text.as_bytes();
            let head = accepted(bytes);
            assert_eq!(head.form, *form, "{target}");
            assert_eq!(head.method, Method::of(method.as_bytes()));
            assert_eq!(head.authority.of(bytes), authority.as_bytes(), "{target}");
            assert_eq!(head.path.of(bytes), path.as_bytes(), "{target}");
            assert_eq!(head.query.of(bytes), query.as_bytes(), "{target}");
        }
    }

    #[test]
    fn framing_and_keep_follow_the_version_and_the_lines() {
        let table: &[(&str, Framing, Keep)] = &[
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", Framing::None, Keep::Open),
            ("GET / HTTP/1.0\r\n\r\n", Framing::None, Keep::Close),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", Framing::None, Keep::Open),
            ("GET / HTTP/1.0\r\nConnection: keep-alive, close\r\n\r\n", Framing::None, Keep::Close),
            ("GET / HTTP/1.1\r\nHost: a\r\nConnection: CLOSE\r\n\r\n", Framing::None, Keep::Close),
            (
                "GET / HTTP/1.1\r\nHost: a\r\nConnection: ,x,,close\r\n\r\n",
                Framing::None,
                Keep::Close,
            ),
            (
                "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
                Framing::Length(0),
                Keep::Open,
            ),
            ("PUT / HTTP/1.0\r\nContent-Length: 007\r\n\r\n", Framing::Length(7), Keep::Close),
            (
                "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551615\r\n\r\n",
                Framing::Length(u64::MAX),
                Keep::Open,
            ),
            (
                "PUT / HTTP/1.1\r\nHost: a\r\ntransfer-encoding: \tCHUNKED \r\n\r\n",
                Framing::Chunked,
                Keep::Open,
            ),
        ];
        for (text, framing, keep) in table {
            let head = accepted(text.as_bytes());
            assert_eq!((head.framing, head.keep), (*framing, *keep), "{text:?}");
        }
    }

    #[test]
    fn lines_that_connection_names_are_hop_by_hop_and_so_are_those_by_definition() {
        let text = with(
            "X-A: 1\r\nConnection: x-a, Upgrade\r\nX-B: 2\r\nKeep-Alive: 5\r\nTE: x, Trailers\r\n\
             Upgrade: websocket\r\nProxy-Authorization: x\r\nTrailer: x\r\n",
        );
        let head = accepted(&text);
        let gone = |line: &&Line| line.hop_by_hop;
        let gone: Vec<&[u8]> =
            head.lines.iter().filter(gone).map(|line| line.name.of(&text)).collect();
        let expected: [&[u8]; 6] =
            [b"X-A", b"Connection", b"Keep-Alive", b"TE", b"Upgrade", b"Proxy-Authorization"];
        assert_eq!(gone, expected);
        assert_eq!(head.upgrade.of(&text), b"websocket");
        assert!(head.accepts_trailers);
        assert!(accepted(&with("Upgrade: websocket\r\n")).upgrade.is_empty());
        assert!(!accepted(&with("TE: trailers;q=0\r\n")).accepts_trailers);
    }

    #[test]
    fn an_expectation_of_an_http10_client_is_not_met_and_not_forwarded() {
        assert!(accepted(&with("Expect: 100-Continue\r\n")).expects_continue);
        let old = accepted(b"PUT / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n");
        assert!(!old.expects_continue && old.lines[0].hop_by_hop);
    }

    #[test]
    fn single_underscores_pass_and_known_ids_are_looked_up() {
        let text = with("my_header: 1\r\nX-B:\r\nx-request-id: q\r\n");
        let head = accepted(&text);
        assert_eq!(head.named(&text, b"MY_HEADER"), Some(b"1".as_slice()));
        assert_eq!(head.named(&text, b"x-b"), Some(b"".as_slice()));
        assert_eq!(head.value(&text, HeaderId::XRequestId), Some(b"q".as_slice()));
        assert_eq!(head.value(&text, HeaderId::Via), None);
    }

    #[test]
    fn status_lines_that_are_none_are_refused() {
        use Malformed::*;
        let table: &[(&[u8], Malformed)] = &[
            (b"\r\nHTTP/1.1 200 OK\r\n\r\n", LeadingEmptyLine),
            (b"\nHTTP/1.1 200 OK\r\n\r\n", LeadingEmptyLine),
            (b"HTTP/1.1 99 OK\r\n\r\n", StatusLine),
            (b"HTTP/1.1 099 OK\r\n\r\n", StatusLine),
            (b"HTTP/1.1 2000 OK\r\n\r\n", StatusLine),
            (b"HTTP/1.1  200 OK\r\n\r\n", StatusLine),
            (b"HTTP/1.1 200\tOK\r\n\r\n", StatusLine),
            (b"HTTP/1.1 200 O\0K\r\n\r\n", StatusLine),
            (b"HTTP/1.1 200 O\rK\r\n\r\n", StatusLine),
            (b"HTTP/1.1\r\n\r\n", StatusLine),
            (b"ICY 200 OK\r\n\r\n", StatusLine),
            (b"http/1.1 200 OK\r\n\r\n", StatusLine),
            (b"HTTP/2.0 200 OK\r\n\r\n", VersionUnsupported),
            (b"HTTP/1.2 200 OK\r\n\r\n", VersionUnsupported),
            (b"HTTP/1.1 200 OK\n\r\n", BareLf),
            (b"HTTP/1.1 200 OK\nA: 1\r\n\r\n", BareLf),
            (b"HTTP/1.1 200 OK\r\nA: 1\n\r\n", BareLf),
            (b"HTTP/1.1 200 OK\r\nA: 1\r\n\n", BareLf),
            (b"HTTP/1.1 200 OK\r\nA: 1\r\n b\r\n\r\n", ObsoleteFold),
            (b"HTTP/1.1 200 OK\r\nA : 1\r\n\r\n", SpaceInName),
            (b"HTTP/1.1 200 OK\r\nA: \0\r\n\r\n", HeaderValue),
            (b"HTTP/1.1 200 OK\r\nA\r\n\r\n", HeaderColonMissing),
            (b"HTTP/1.1 200 OK\r\nConnection: content-length\r\n\r\n", ConnectionOption),
        ];
        for (bytes, expected) in table {
            response_refused(bytes, *expected);
        }
    }

    const LENGTH: &str = "Content-Length: 5\r\n";
    const CHUNKED: &str = "Transfer-Encoding: chunked\r\n";

    #[rustfmt::skip]
    const RESPONSE_FRAMING: &[(&str, &str, Method, Framing, Keep)] = &[
        ("200 OK", LENGTH, Method::Get, Framing::Length(5), Keep::Open),
        ("200 OK", CHUNKED, Method::Get, Framing::Chunked, Keep::Open),
        ("200 OK", "", Method::Get, Framing::UntilClose, Keep::Close),
        ("999 X", LENGTH, Method::Post, Framing::Length(5), Keep::Open),
        ("200 OK", LENGTH, Method::Head, Framing::None, Keep::Open),
        ("200 OK", "", Method::Head, Framing::None, Keep::Open),
        ("304 Not Modified", LENGTH, Method::Get, Framing::None, Keep::Open),
        ("304 Not Modified", "", Method::Get, Framing::None, Keep::Open),
        ("204 No Content", "", Method::Get, Framing::None, Keep::Open),
        ("204 No Content", "Content-Length: 0\r\n", Method::Get, Framing::None, Keep::Open),
        ("204 No Content", LENGTH, Method::Get, Framing::None, Keep::Close),
        ("204 No Content", CHUNKED, Method::Get, Framing::None, Keep::Close),
        ("100 Continue", "", Method::Post, Framing::None, Keep::Open),
        ("101 Switching", "", Method::Get, Framing::None, Keep::Open),
        ("200 OK", LENGTH, Method::Connect, Framing::None, Keep::Open),
        ("407 No", LENGTH, Method::Connect, Framing::Length(5), Keep::Open),
        ("200 OK", "Connection: close\r\n", Method::Head, Framing::None, Keep::Close),
    ];

    #[test]
    fn the_framing_of_a_response_follows_status_and_method() {
        for (status, lines, method, framing, keep) in RESPONSE_FRAMING {
            let text = format!("HTTP/1.1 {status}\r\n{lines}\r\n");
            let head = answer(text.as_bytes(), *method);
            assert_eq!((head.framing, head.keep), (*framing, *keep), "{text:?} {method:?}");
        }
        let old = answer(b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n", Method::Get);
        assert_eq!(old.keep, Keep::Close);
        let old = b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n";
        assert_eq!(answer(old, Method::Get).keep, Keep::Open);
    }

    #[test]
    fn a_length_that_must_not_stand_is_not_forwarded() {
        let texts: [(&[u8], Method); 3] = [
            (b"HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n", Method::Get),
            (b"HTTP/1.1 103 Hints\r\nContent-Length: 0\r\n\r\n", Method::Get),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", Method::Connect),
        ];
        for (text, method) in texts {
            assert!(answer(text, method).lines[0].hop_by_hop);
        }
        let head = answer(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Method::Head);
        assert!(!head.lines[0].hop_by_hop);
    }

    #[test]
    fn reasons_are_kept_as_they_came() {
        let table: &[(&[u8], &[u8])] = &[
            (b"HTTP/1.1 200 Very  OK \r\nA: 1\r\n\r\n", b"Very  OK "),
            (b"HTTP/1.1 200 \xc3\xa4\r\n\r\n", b"\xc3\xa4"),
            (b"HTTP/1.1 200 \r\n\r\n", b""),
            (b"HTTP/1.1 200\r\n\r\n", b""),
            (b"HTTP/1.1 200\r\nA: 1\r\n\r\n", b""),
        ];
        for (text, reason) in table {
            assert_eq!(answer(text, Method::Head).reason.of(text), *reason);
        }
    }

    #[test]
    fn the_idle_time_of_an_upstream_is_learnt() {
        let table: &[(&str, Option<u32>)] = &[
            ("timeout=5", Some(5)),
            ("max=100, Timeout=30", Some(30)),
            ("timeout=99999999999", Some(u32::MAX)),
            ("timeout=", None),
            ("timeout=a", None),
            ("300", None),
        ];
        for (value, seconds) in table {
            let text = format!("HTTP/1.1 200 OK\r\nKeep-Alive: {value}\r\n\r\n");
            let head = answer(text.as_bytes(), Method::Head);
            assert_eq!(head.keep_alive_seconds, *seconds, "{value}");
        }
    }

    #[test]
    fn a_head_is_reused_for_the_next_request_without_a_trace_of_the_last() {
        let mut head = RequestHead::default();
        let first = with("Connection: close, Upgrade\r\nUpgrade: x\r\nTE: trailers\r\n");
        assert_eq!(request(&first, &LIMITS, &mut head), Ok(Parsed::Complete));
        let second = with("");
        assert_eq!(request(&second, &LIMITS, &mut head), Ok(Parsed::Complete));
        assert_eq!((head.keep, head.lines.len()), (Keep::Open, 1));
        assert!(head.upgrade.is_empty() && !head.accepts_trailers);
    }

    #[test]
    fn a_bad_beginning_is_refused_long_before_the_head_is_whole() {
        let text = "GET /\x01 HTTP/1.1\r\nHost: a\r\nX: ".to_owned() + &"x".repeat(1000);
        let mut head = RequestHead::default();
        let refused_at = (1..text.len()).find(|end| {
            request(&text.as_bytes()[..*end], &LIMITS, &mut head) == Err(Malformed::Target)
        });
        assert!(refused_at.is_some_and(|end| end <= 12), "{refused_at:?}");
    }

    #[test]
    fn a_head_that_comes_byte_by_byte_is_parsed_a_few_times_only() {
        let text = with(&format!("X: {}\r\n", "x".repeat(12_000)));
        let mut head = RequestHead::default();
        let mut parses = 0;
        for end in 1..text.len() {
            assert_eq!(request(&text[..end], &LIMITS, &mut head), Ok(Parsed::Partial));
            parses += usize::from(head.progress.parsed == end);
        }
        assert!(parses <= 15, "{parses} parses of the whole");
        assert_eq!(request(&text, &LIMITS, &mut head), Ok(Parsed::Complete));
    }
}
