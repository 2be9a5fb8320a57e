//! A head: where everything lies in the bytes that came. It owns no bytes, so that the buffer can
//! be lent from the core's pool; every accessor takes the bytes it was parsed from.

use std::time::Duration;

use crate::http::headers::HeaderId;

/// A range of the bytes that a head was parsed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    pub fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Offsets in a head fit: it is bounded by `limits::BUFFER_BYTES`.
    pub(crate) fn between(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }
}

/// One header line. The whole line, CRLF included, is `line`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub line: Span,
    pub name: Span,
    pub value: Span,
    pub id: HeaderId,
    /// Named by a `Connection` header, or hop-by-hop by definition: never forwarded (RFC 9110
    /// 7.6.1).
    pub hop_by_hop: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    #[default]
    Get,
    Head,
    Post,
    Put,
    Delete,
    Options,
    Patch,
    Connect,
    Trace,
    /// Any other token: passed on as it came.
    Other,
}

impl Method {
    /// Methods are case-sensitive (RFC 9110 section 9.1).
    pub fn of(token: &[u8]) -> Method {
        match token {
            b"GET" => Method::Get,
            b"HEAD" => Method::Head,
            b"POST" => Method::Post,
            b"PUT" => Method::Put,
            b"DELETE" => Method::Delete,
            b"OPTIONS" => Method::Options,
            b"PATCH" => Method::Patch,
            b"CONNECT" => Method::Connect,
            b"TRACE" => Method::Trace,
            _ => Method::Other,
        }
    }

    /// Changes nothing at the origin (RFC 9110 section 9.2.1).
    pub fn is_safe(self) -> bool {
        matches!(self, Method::Get | Method::Head | Method::Options | Method::Trace)
    }

    /// May be sent twice with the effect of once (RFC 9110 section 9.2.2).
    pub fn is_idempotent(self) -> bool {
        self.is_safe() || matches!(self, Method::Put | Method::Delete)
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    Http10,
    #[default]
    Http11,
    /// Of a head that was fields (`http2/request.rs`).
    Http2,
}

/// What becomes of a connection after an exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keep {
    #[default]
    Open,
    Close,
}

/// How the end of a body is known (RFC 9112 section 6).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Framing {
    #[default]
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// RFC 9112 section 3.2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TargetForm {
    #[default]
    Origin,
    Absolute,
    Authority,
    Asterisk,
}

/// What an earlier call of the parser learnt about a head that is still incomplete, so that a peer
/// that sends byte by byte costs a look at the new bytes and not a parse of all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    /// No empty line ends before this offset.
    pub(crate) scanned: usize,
    /// Bytes there were at the last whole parse.
    pub(crate) parsed: usize,
}

/// A request head. `clear` keeps the table's memory, so that a connection allocates once.
#[derive(Debug, Default)]
pub struct RequestHead {
    pub method: Method,
    pub method_name: Span,
    /// As it came.
    pub target: Span,
    pub form: TargetForm,
    /// Host and port that the request is for: of an absolute target, else of `Host`. May be empty
    /// on 1.0.
    pub authority: Span,
    /// Path without query; empty for `http://host` (stands for `/`) and for `*` and authority
    /// targets.
    pub path: Span,
    /// With its `?`; empty when there is none.
    pub query: Span,
    pub version: Version,
    pub lines: Vec<Line>,
    /// Bytes of the head, the empty line included.
    pub bytes: usize,
    pub framing: Framing,
    pub keep: Keep,
    /// `Expect: 100-continue` on 1.1.
    pub expects_continue: bool,
    /// `Upgrade`, when `Connection` names it.
    pub upgrade: Span,
    /// `TE: trailers`.
    pub accepts_trailers: bool,
    pub(crate) progress: Progress,
}

impl Version {
    pub fn label(self) -> &'static str {
        match self {
            Version::Http10 => "HTTP/1.0",
            Version::Http11 => "HTTP/1.1",
            Version::Http2 => "HTTP/2.0",
        }
    }
}

impl RequestHead {
    /// For another request: needed only when an incomplete one was given up.
    pub fn clear(&mut self) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        *self = RequestHead { lines, ..RequestHead::default() };
    }

    /// The value of the first line of this name.
    pub fn value<'a>(&self, bytes: &'a [u8], id: HeaderId) -> Option<&'a [u8]> {
        first_value(&self.lines, bytes, id)
    }

    /// The value of the first line of a name that has no id.
    pub fn named<'a>(&self, bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        first_named(&self.lines, bytes, name)
    }
}

/// A response head.
#[derive(Debug, Default)]
pub struct ResponseHead {
    pub status: u16,
    pub reason: Span,
    pub version: Version,
    pub lines: Vec<Line>,
    pub bytes: usize,
    /// Decided with the method of the request (HEAD, CONNECT) and the status (1xx, 204, 304).
    pub framing: Framing,
    pub keep: Keep,
    /// `Keep-Alive: timeout=N`, in seconds.
    pub keep_alive_seconds: Option<u32>,
    pub(crate) progress: Progress,
}

impl ResponseHead {
    /// How long the upstream says to keep the connection.
    pub(crate) fn promised(&self) -> Option<Duration> {
        self.keep_alive_seconds.map(|seconds| Duration::from_secs(u64::from(seconds)))
    }

    /// For another response: needed only when an incomplete one was given up.
    pub fn clear(&mut self) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.clear();
        *self = ResponseHead { lines, ..ResponseHead::default() };
    }

    /// The value of the first line of this name.
    pub fn value<'a>(&self, bytes: &'a [u8], id: HeaderId) -> Option<&'a [u8]> {
        first_value(&self.lines, bytes, id)
    }

    /// The value of the first line of a name that has no id.
    pub fn named<'a>(&self, bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
        first_named(&self.lines, bytes, name)
    }
}

fn first_value<'a>(lines: &[Line], bytes: &'a [u8], id: HeaderId) -> Option<&'a [u8]> {
    let line = lines.iter().find(|line| line.id == id)?;
    Some(line.value.of(bytes))
}

fn first_named<'a>(lines: &[Line], bytes: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let line = lines.iter().find(|line| line.name.of(bytes).eq_ignore_ascii_case(name))?;
    Some(line.value.of(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_case_sensitive() {
        assert_eq!(Method::of(b"GET"), Method::Get);
        assert_eq!(Method::of(b"get"), Method::Other);
        assert_eq!(Method::of(b"PROPFIND"), Method::Other);
    }

    #[test]
    fn only_methods_that_may_be_repeated_are_idempotent() {
        for method in [Method::Get, Method::Head, Method::Options, Method::Trace] {
            assert!(method.is_safe() && method.is_idempotent());
        }
        for method in [Method::Put, Method::Delete] {
            assert!(!method.is_safe() && method.is_idempotent());
        }
        for method in [Method::Post, Method::Patch, Method::Connect, Method::Other] {
            assert!(!method.is_safe() && !method.is_idempotent());
        }
    }

    #[test]
    fn a_span_outside_the_bytes_is_empty_and_does_not_panic() {
        assert_eq!(Span { start: 5, end: 9 }.of(b"abc"), b"");
        assert_eq!(Span { start: 2, end: 1 }.of(b"abc"), b"");
    }

    #[test]
    fn clear_keeps_the_memory_of_the_table() {
        let mut head = RequestHead::default();
        head.lines.reserve(40);
        let room = head.lines.capacity();
        head.bytes = 7;
        head.clear();
        assert_eq!((head.bytes, head.lines.capacity()), (0, room));
    }
}
