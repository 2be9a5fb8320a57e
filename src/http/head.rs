//! A head: where everything lies in the bytes that came. It owns no bytes, so that the buffer can be
//! lent from the core's pool; every accessor takes the bytes it was parsed from.

use crate::http::headers::HeaderId;

/// A range of the bytes that a head was parsed from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub start: u32,
    pub end: u32,
}

impl Span {
    pub fn of(self, bytes: &[u8]) -> &[u8] {
        bytes
            .get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }

    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// One header line. The whole line, CRLF included, is `line`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    pub line: Span,
    pub name: Span,
    pub value: Span,
    pub id: HeaderId,
    /// Named by a `Connection` header, or hop-by-hop by definition: never forwarded (RFC 9110 7.6.1).
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    Http10,
    #[default]
    Http11,
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

/// A request head. `clear` keeps the table's memory, so that a connection allocates once.
#[derive(Debug, Default)]
pub struct RequestHead {
    pub method: Method,
    pub method_name: Span,
    /// As it came.
    pub target: Span,
    pub form: TargetForm,
    /// Host and port that the request is for: of an absolute target, else of `Host`. May be empty on 1.0.
    pub authority: Span,
    /// Path without query; empty for `http://host` (stands for `/`) and for `*` and authority targets.
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
}
